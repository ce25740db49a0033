/**
 * A row of the table of clients, and whether two reports are about the same client.
 *
 * @module
 */
import { type Count, parseCount, whole } from "./_decimal.ts";
import type { EventEnv } from "./env.ts";
import type { StatusAddress, StatusClient, StatusTime } from "./status_row.ts";

/** A client of a server, as it was at one moment: a row never changes, there is a new one instead. */
export interface TableClient {
  /**
   * Tells clients of one table apart, whatever their CIDs: after a restart OpenVPN gives the same CIDs to others. After a `resync` the
   * same client may have a new one.
   */
  readonly serial: number;
  /** The CID, which commands take. */
  readonly clientId: string;
  /** The KID of the last `CONNECT` or `REAUTH` that was heard. */
  readonly keyId: string | undefined;
  /** The number on the data channel; from the status report. */
  readonly peerId: number | undefined;
  /** From its certificate, or the user name; anything but control characters can be in it. */
  readonly commonName: string | undefined;
  /** What it logged in with. */
  readonly username: string | undefined;
  /** Where it connects from; without `protocol` until a status report has told it. */
  readonly realAddress: StatusAddress | undefined;
  /** Its IPv4 address in the tunnel. */
  readonly virtualAddress: string | undefined;
  /** Its IPv6 address in the tunnel. */
  readonly virtualAddress6: string | undefined;
  /** Bytes received from it. */
  readonly bytesReceived: Count;
  /** Bytes sent to it. */
  readonly bytesSent: Count;
  /** When it connected; from the status report. */
  readonly since: StatusTime | undefined;
  /** The cipher of the data channel, once there is one; from the status report. */
  readonly cipher: string | undefined;
  /** `pending`: not let in yet; `leaving`: killed by this table, and still there, which over UDP takes 5 seconds. */
  readonly state: "pending" | "connected" | "leaving";
}

/** What is told of a client at once. */
export type RowUpdate = Partial<Omit<TableClient, "serial" | "clientId">>;

const UNKNOWN: Omit<TableClient, "serial" | "clientId" | "state"> = {
  keyId: undefined,
  peerId: undefined,
  commonName: undefined,
  username: undefined,
  realAddress: undefined,
  virtualAddress: undefined,
  virtualAddress6: undefined,
  bytesReceived: 0,
  bytesSent: 0,
  since: undefined,
  cipher: undefined,
};

/** The row of a client that was not there before. */
export function newRow(serial: number, clientId: string, update: RowUpdate): TableClient {
  return Object.freeze({ serial, clientId, ...UNKNOWN, state: "pending", ...update });
}

/** The row after `update`; the same one if that tells nothing new. Counters never go back: an older report can come after a newer one. */
export function updatedRow(row: TableClient, update: RowUpdate): TableClient {
  const next = {
    ...row,
    ...update,
    bytesReceived: larger(row.bytesReceived, update.bytesReceived ?? 0),
    bytesSent: larger(row.bytesSent, update.bytesSent ?? 0),
  };
  const changed = Object.keys(next).some((key) => !sameField(row, next, key as keyof TableClient));
  return changed ? Object.freeze(next) : row;
}

function sameField(a: TableClient, b: TableClient, key: keyof TableClient): boolean {
  if (key === "realAddress") return a.realAddress?.text === b.realAddress?.text;
  if (key === "since") return a.since?.text === b.since?.text;
  return a[key] === b[key];
}

function larger(a: Count, b: Count): Count {
  return a < b ? b : a;
}

/** What a status report tells. It does not know of `leaving`, and shows a client that is let in for a moment as one that is not. */
export function statusUpdate(client: StatusClient, row: TableClient | undefined): RowUpdate {
  const { authenticated } = client;
  const before = row?.state ?? (authenticated === false ? "pending" : "connected");
  return {
    peerId: client.peerId,
    commonName: client.commonName,
    username: client.username,
    realAddress: withPort(client.realAddress, row?.realAddress),
    virtualAddress: client.virtualAddress,
    virtualAddress6: client.virtualAddress6,
    bytesReceived: client.bytesReceived,
    bytesSent: client.bytesSent,
    since: client.connectedSince,
    // Before it is let in there is a name here, but no such cipher in use.
    cipher: authenticated === false ? undefined : client.cipher,
    state: before === "pending" && authenticated === true ? "connected" : before,
  };
}

/** OpenVPN's reports leave out the port of an IPv6 client, and its events do not. */
function withPort(now: StatusAddress, before: StatusAddress | undefined): StatusAddress {
  if (now.port !== undefined || before?.port === undefined || !sameAddress(now, before)) return now;
  return { ...before, protocol: now.protocol };
}

/** What an environment tells. One with faults tells nothing: the status report will. */
export function envUpdate({ env, envFaults }: EventEnv): RowUpdate {
  if (envFaults.length > 0) return {};
  const text = (name: string) => env.get(name) || undefined;
  const update: { -readonly [K in keyof RowUpdate]: RowUpdate[K] } = {};
  const set = <K extends keyof RowUpdate>(key: K, value: RowUpdate[K]) => {
    if (value !== undefined) update[key] = value;
  };
  set("commonName", text("common_name"));
  set("username", text("username"));
  set("realAddress", envAddress(text));
  set("virtualAddress", text("ifconfig_pool_remote_ip"));
  set("virtualAddress6", text("ifconfig_pool_remote_ip6"));
  set("bytesReceived", parseCount(env.get("bytes_received") ?? ""));
  set("bytesSent", parseCount(env.get("bytes_sent") ?? ""));
  return update;
}

function envAddress(text: (name: string) => string | undefined): StatusAddress | undefined {
  for (const kind of ["trusted", "untrusted"]) {
    const address = text(`${kind}_ip`) ?? text(`${kind}_ip6`);
    if (address === undefined) continue;
    const port = whole(text(`${kind}_port`));
    const host = address.includes(":") && port !== undefined ? `[${address}]` : address;
    const shown = port === undefined ? address : `${host}:${port}`;
    return { text: shown, protocol: undefined, address, port };
  }
  return undefined;
}

/** The part of an address that every source tells; a port that one does not know differs from none. */
function sameAddress(a: StatusAddress | undefined, b: StatusAddress | undefined): boolean {
  if (a === undefined || b === undefined) return true;
  if (a.protocol !== undefined && b.protocol !== undefined && a.protocol !== b.protocol) {
    return false;
  }
  return plainAddress(a.address) === plainAddress(b.address) &&
    (a.port === undefined || b.port === undefined || a.port === b.port);
}

/** Of a server for IPv4 and IPv6 not every source shows IPv4 as such, nor the scope of a link-local address. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
}

/** Whether an event from this address can be about the client of `row`. */
export function mayBeFrom(row: TableClient, { realAddress }: RowUpdate): boolean {
  return sameAddress(row.realAddress, realAddress);
}

/**
 * Whether a row of a report with the same CID can be about the same client. Its address may change (it floats), so that the time
 * decides; and its name until it is let in.
 */
export function mayBeSame(row: TableClient, client: StatusClient): boolean {
  const [ours, theirs] = [row.since?.seconds, client.connectedSince?.seconds];
  if (ours === undefined || theirs === undefined) {
    return sameAddress(row.realAddress, client.realAddress);
  }
  return ours === theirs &&
    (row.state === "pending" || row.commonName === client.commonName);
}

/** Whether a row of a report is about this very client, of which everything that is known must be the same. */
export function isSame(row: TableClient, client: StatusClient): boolean {
  return row.commonName === client.commonName &&
    sameAddress(row.realAddress, client.realAddress) &&
    row.since?.seconds === client.connectedSince?.seconds;
}
