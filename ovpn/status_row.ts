/**
 * A row of a status report: a client or a route, read by the columns that the header names (spec 1.6).
 *
 * @module
 */
import { type Count, isClientId, isDecimal, parseCount, whole } from "./_decimal.ts";

/** A moment as OpenVPN tells it. */
export interface StatusTime {
  /** As text, in the time zone of the daemon, in a form that its version chose. */
  readonly text: string;
  /** In seconds since 1970; `undefined` if the format has none (1 and p2p). */
  readonly seconds: number | undefined;
}

/** Where a client connects from. */
export interface StatusAddress {
  /** As it stood there: `192.0.2.1:1194`, `2001:db8::2`, since 2.7 `udp4:192.0.2.1:1194`, `tcp6-server:[2001:db8::2]:1194`. */
  readonly text: string;
  /** `udp4`, `tcp6-server`, ...; `undefined` before OpenVPN 2.7. */
  readonly protocol: string | undefined;
  /** IPv4 or IPv6 without brackets; the whole `text` if it has none of the forms above. */
  readonly address: string;
  /** The port; `undefined` for IPv6 before OpenVPN 2.7. */
  readonly port: number | undefined;
}

/** A client of a server. */
export interface StatusClient {
  /** The CID that commands take; `undefined` in format 1 and before OpenVPN 2.4. Compared as text: up to 64 bits. */
  readonly clientId: string | undefined;
  /** The number of the client on the data channel; since OpenVPN 2.4. */
  readonly peerId: number | undefined;
  /** From its certificate, or the user name; `undefined` if there is none (`UNDEF`, which somebody can be called, too). */
  readonly commonName: string | undefined;
  /** The user name; `undefined` if there is none (`UNDEF`), in format 1 and before OpenVPN 2.3. */
  readonly username: string | undefined;
  /** Where it connects from. */
  readonly realAddress: StatusAddress;
  /** Its IPv4 address in the tunnel, if it has one. */
  readonly virtualAddress: string | undefined;
  /** Its IPv6 address in the tunnel, if it has one. */
  readonly virtualAddress6: string | undefined;
  /** Bytes received from it. */
  readonly bytesReceived: Count;
  /** Bytes sent to it. */
  readonly bytesSent: Count;
  /** When it connected. */
  readonly connectedSince: StatusTime | undefined;
  /** The cipher of the data channel; since OpenVPN 2.5. */
  readonly cipher: string | undefined;
  /**
   * False for one that is still to be authenticated: it has no address in the tunnel, and a cipher that was not negotiated.
   * `undefined` where the report does not tell.
   */
  readonly authenticated: boolean | undefined;
  /** The line. */
  readonly raw: string;
}

/** What a server sends to one of its clients. */
export interface StatusRoute {
  /** An address of its own, a network behind it, or an Ethernet address (`--dev tap`). */
  readonly kind: "host" | "subnet" | "mac";
  /** The address, without what follows here. */
  readonly address: string;
  /** The 24 of `10.50.0.0/24`. */
  readonly prefixLength: number | undefined;
  /** The 5 of `aa:bb:cc:00:11:22@5`. */
  readonly vlan: number | undefined;
  /** True if it was learned from a packet to a network behind the client (a `C` after the address); it goes when not used. */
  readonly cached: boolean;
  /** The client's common name; `undefined` if there is none (`UNDEF`). */
  readonly commonName: string | undefined;
  /** The client's address. */
  readonly realAddress: StatusAddress;
  /** When it was used last. */
  readonly lastRef: StatusTime | undefined;
  /** The line. */
  readonly raw: string;
}

/** Of each column how many stand before it, and how many there are; that too for one that is missing, which no field has. */
export type Columns<Name extends string> = Readonly<Record<Name | "length", number>>;

const CLIENT_COLUMNS = {
  commonName: "Common Name",
  realAddress: "Real Address",
  virtualAddress: "Virtual Address",
  virtualAddress6: "Virtual IPv6 Address",
  bytesReceived: "Bytes Received",
  bytesSent: "Bytes Sent",
  since: "Connected Since",
  sinceSeconds: "Connected Since (time_t)",
  username: "Username",
  clientId: "Client ID",
  peerId: "Peer ID",
  cipher: "Data Channel Cipher",
} as const;

const ROUTE_COLUMNS = {
  virtualAddress: "Virtual Address",
  commonName: "Common Name",
  realAddress: "Real Address",
  lastRef: "Last Ref",
  lastRefSeconds: "Last Ref (time_t)",
} as const;

/** The columns of {@linkcode readClient}. */
export type ClientColumns = Columns<keyof typeof CLIENT_COLUMNS>;
/** The columns of {@linkcode readRoute}. */
export type RouteColumns = Columns<keyof typeof ROUTE_COLUMNS>;

/** Finds the columns of the client list in its header; `undefined` if some are missing that every version has. */
export function clientColumns(header: readonly string[]): ClientColumns | undefined {
  return findColumns(header, CLIENT_COLUMNS, [
    "commonName",
    "realAddress",
    "bytesReceived",
    "bytesSent",
  ]);
}

/** Finds the columns of the routing table in its header; `undefined` if some are missing that every version has. */
export function routeColumns(header: readonly string[]): RouteColumns | undefined {
  return findColumns(header, ROUTE_COLUMNS, ["virtualAddress", "commonName", "realAddress"]);
}

function findColumns<Name extends string>(
  header: readonly string[],
  titles: Readonly<Record<Name, string>>,
  needed: readonly NoInfer<Name>[],
): Columns<Name> | undefined {
  const columns: Record<string, number> = { length: header.length };
  for (const [name, title] of Object.entries<string>(titles)) {
    const index = header.indexOf(title);
    columns[name] = index < 0 ? header.length : index;
  }
  if (needed.some((name) => columns[name] === header.length)) return undefined;
  return columns as Columns<Name>;
}

/**
 * Reads a row of the client list. `undefined` if it has too many or too few columns or text where a number must be: a separator in
 * a name has shifted them, and whose is what cannot be told.
 */
export function readClient(
  fields: readonly string[],
  columns: ClientColumns,
  raw: string,
): StatusClient | undefined {
  if (fields.length !== columns.length) return undefined;
  const bytesReceived = parseCount(fields[columns.bytesReceived]!);
  const bytesSent = parseCount(fields[columns.bytesSent]!);
  if (bytesReceived === undefined || bytesSent === undefined) return undefined;
  // Empty in a daemon that was built without the management interface (a status file).
  const clientId = fields[columns.clientId] || undefined;
  const peerId = fields[columns.peerId];
  const seconds = fields[columns.sinceSeconds];
  if (clientId !== undefined && !isClientId(clientId)) return undefined;
  if (!isDecimalOrAbsent(peerId) || !isDecimalOrAbsent(seconds)) return undefined;
  const virtualAddress = fields[columns.virtualAddress] || undefined;
  const virtualAddress6 = fields[columns.virtualAddress6] || undefined;
  const cipher = fields[columns.cipher];
  return {
    clientId,
    peerId: whole(peerId),
    commonName: defined(fields[columns.commonName]),
    username: defined(fields[columns.username]),
    realAddress: readAddress(fields[columns.realAddress]!),
    virtualAddress,
    virtualAddress6,
    bytesReceived,
    bytesSent,
    connectedSince: timeOf(fields[columns.since], seconds),
    cipher: cipher || undefined,
    authenticated: virtualAddress !== undefined || virtualAddress6 !== undefined
      ? true
      : columns.virtualAddress === columns.length || cipher === undefined
      ? undefined
      : cipher !== UNNEGOTIATED_CIPHER,
    raw,
  };
}

/** What the cipher is called before there is one. */
const UNNEGOTIATED_CIPHER = "BF-CBC";

/** Reads a row of the routing table; `undefined` as in {@linkcode readClient}. */
export function readRoute(
  fields: readonly string[],
  columns: RouteColumns,
  raw: string,
): StatusRoute | undefined {
  if (fields.length !== columns.length) return undefined;
  const seconds = fields[columns.lastRefSeconds];
  if (!isDecimalOrAbsent(seconds)) return undefined;
  const virtual = fields[columns.virtualAddress]!;
  // Addresses are printed in lower case.
  const cached = virtual.endsWith("C");
  const text = cached ? virtual.slice(0, -1) : virtual;
  const [network, prefixLength] = cutNumber(text, "/");
  const [mac, vlan] = cutNumber(text, "@");
  const isMac = hasMacColons(mac);
  return {
    kind: isMac ? "mac" : prefixLength === undefined ? "host" : "subnet",
    address: isMac ? mac : network,
    prefixLength: isMac ? undefined : prefixLength,
    vlan: isMac ? vlan : undefined,
    cached,
    commonName: defined(fields[columns.commonName]),
    realAddress: readAddress(fields[columns.realAddress]!),
    lastRef: timeOf(fields[columns.lastRef], seconds),
    raw,
  };
}

/** Where the colons of `aa:bb:cc:dd:ee:ff` are; six groups and no `::` are no IPv6 address. */
function hasMacColons(text: string): boolean {
  if (text.length !== 17) return false;
  for (let i = 0; i < 17; i++) if ((text[i] === ":") !== (i % 3 === 2)) return false;
  return true;
}

/** `text` without the number that follows the last `mark`, and that. */
function cutNumber(text: string, mark: string): [string, number | undefined] {
  const at = text.lastIndexOf(mark);
  const number = at < 0 ? undefined : whole(text.slice(at + 1));
  return number === undefined ? [text, undefined] : [text.slice(0, at), number];
}

function defined(name: string | undefined): string | undefined {
  return name === "UNDEF" ? undefined : name;
}

function isDecimalOrAbsent(digits: string | undefined): boolean {
  return digits === undefined || isDecimal(digits);
}

function timeOf(text: string | undefined, digits: string | undefined): StatusTime | undefined {
  if (text === undefined) return undefined;
  return { text, seconds: whole(digits) };
}

/** Reads the forms that {@linkcode StatusAddress} names. */
export function readAddress(text: string): StatusAddress {
  // No hexadecimal digit, as IPv6 begins with: `udp4:` and `tcp6-server:`, and no other are known.
  const named = text.startsWith("udp") || text.startsWith("tcp");
  const colon = named ? text.indexOf(":") : -1;
  const protocol = colon < 0 ? undefined : text.slice(0, colon);
  const rest = colon < 0 ? text : text.slice(colon + 1);
  const last = rest.lastIndexOf(":");
  const host = rest.slice(0, Math.max(last, 0));
  const bracketed = host.startsWith("[") && host.endsWith("]");
  // Without brackets more than one colon is IPv6, which then has no port.
  const port = bracketed || (last > 0 && !host.includes(":")) ? readPort(rest, last) : undefined;
  if (port !== undefined) {
    return { text, protocol, address: bracketed ? host.slice(1, -1) : host, port };
  }
  const address = rest.startsWith("[") && rest.endsWith("]") ? rest.slice(1, -1) : rest;
  return { text, protocol, address, port: undefined };
}

function readPort(text: string, colon: number): number | undefined {
  const port = whole(text.slice(colon + 1));
  return port !== undefined && port <= 65535 ? port : undefined;
}
