/**
 * The values in the replies to single commands (spec 1.3). Each function takes the reply to its command and throws a
 * {@linkcode ManagementError} `protocol` if that is the reply to something else: half a value is never given. No error repeats
 * the reply.
 *
 * @module
 */
import { type Count, parseCount, whole } from "./_decimal.ts";
import { ManagementError } from "./errors.ts";
import { parseEvent } from "./event.ts";

/** The part of a reply that has values: what stood after `SUCCESS: `, and the other lines. */
export interface ReplyText {
  /** What stood after `SUCCESS: `. */
  readonly success: string;
  /** The other lines, without `END`. */
  readonly lines: readonly string[];
}

/** What `load-stats` tells. */
export interface LoadStats {
  /** How many clients are connected; 0 of a client. */
  readonly clients: number;
  /** Bytes received since OpenVPN started. */
  readonly bytesIn: Count;
  /** Bytes sent since OpenVPN started. */
  readonly bytesOut: Count;
}

/** What OpenVPN does after a failed authentication: end, try again with the same credentials, or ask for others. */
export type AuthRetryMode = "none" | "nointeract" | "interact";

/** What `version` tells. */
export interface DaemonVersion {
  /** The program. */
  readonly openvpn: {
    /** The whole text: `OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] ...`. */
    readonly text: string;
    /** The number in it, such as `2.6.14`, `2.7_beta1`, `2.8_git`; `undefined` if there is none. */
    readonly version: string | undefined;
  };
  /** The version of the management interface: 5 for OpenVPN 2.6. */
  readonly management: number;
}

/** A `remote` of a client's configuration. */
export interface RemoteEntry {
  /** Its place among all of them, from 0. */
  readonly index: number;
  /** A name or an address; IPv6 without brackets. */
  readonly host: string;
  /** The port, as it is configured: a number or the name of a service. */
  readonly port: string;
  /** `udp4`, `tcp6-client`, ... */
  readonly protocol: string;
  /** False if OpenVPN passes it over. */
  readonly enabled: boolean;
}

/** An identity of a PKCS#11 token. */
export interface Pkcs11Entry {
  /** Its place among all of them, from 0. */
  readonly index: number;
  /** Its id with the `\x20` escapes that it has: the text that `needstr` takes. */
  readonly id: string;
  /** Its certificate: DER in base64. */
  readonly blob: string;
}

function fail(command: string, expected: string): ManagementError {
  return new ManagementError("protocol", `${command}: the reply is not ${expected}`);
}

/** The number in a reply of the form `name=n`. */
function numberOf({ success }: ReplyText, command: string, name: string): number {
  const prefix = `${name}=`;
  const value = success.startsWith(prefix) ? whole(success.slice(prefix.length)) : undefined;
  if (value === undefined) throw fail(command, `${prefix}N`);
  return value;
}

/** Of `pid`. */
export function parsePid(reply: ReplyText): number {
  return numberOf(reply, "pid", "pid");
}

/** Of `verb` without a number. */
export function parseVerb(reply: ReplyText): number {
  return numberOf(reply, "verb", "verb");
}

/** Of `mute` without a number. */
export function parseMute(reply: ReplyText): number {
  return numberOf(reply, "mute", "mute");
}

/** Of `nclients`. */
export function parseClientCount(reply: ReplyText): number {
  return numberOf(reply, "nclients", "nclients");
}

/** Of `env-filter`, with and without a number. */
export function parseEnvFilter(reply: ReplyText): number {
  return numberOf(reply, "env-filter", "env_filter_level");
}

/** Of `hold` alone: true if the next start will be held, too. */
export function parseHold({ success }: ReplyText): boolean {
  if (success === "hold=1") return true;
  if (success === "hold=0") return false;
  throw fail("hold", "hold=0 or hold=1");
}

/** Of `auth-retry` alone. */
export function parseAuthRetry({ success }: ReplyText): AuthRetryMode {
  const mode = /^auth-retry=(none|nointeract|interact)$/.exec(success)?.[1];
  if (mode === undefined) throw fail("auth-retry", "auth-retry=none, nointeract or interact");
  return mode as AuthRetryMode;
}

/** Of `load-stats`. */
export function parseLoadStats({ success }: ReplyText): LoadStats {
  const [, first = "", second = "", third = ""] =
    /^nclients=(\d+),bytesin=(\d+),bytesout=(\d+)$/.exec(success) ?? [];
  const clients = whole(first);
  const bytesIn = parseCount(second);
  const bytesOut = parseCount(third);
  if (clients === undefined || bytesIn === undefined || bytesOut === undefined) {
    throw fail("load-stats", "nclients=N,bytesin=N,bytesout=N");
  }
  return { clients, bytesIn, bytesOut };
}

/** Of `kill`: how many clients. A common name can hold these very words, so the count is looked for from the end. */
export function parseKillCount({ success }: ReplyText): number {
  const digits = /^common name '.*' found, (\d+) client\(s\) killed$/s.exec(success)?.[1] ??
    /^(\d+) client\(s\) at address .* killed$/s.exec(success)?.[1];
  const count = whole(digits);
  if (count === undefined) throw fail("kill", "a number of clients killed");
  return count;
}

/** Of `version` without a number. */
export function parseVersion({ lines }: ReplyText): DaemonVersion {
  const text = afterPrefix(lines, "OpenVPN Version: ");
  const management = whole(afterPrefix(lines, "Management Version: "));
  if (text === undefined || management === undefined) {
    throw fail("version", "an OpenVPN Version and a Management Version");
  }
  return { openvpn: { text, version: /^\S+ (\d+\.\d\S*)/.exec(text)?.[1] }, management };
}

function afterPrefix(lines: readonly string[], prefix: string): string | undefined {
  return lines.find((line) => line.startsWith(prefix))?.slice(prefix.length);
}

/** Of `remote-entry-count`: a block with the number in its only line. */
export function parseRemoteEntryCount({ lines }: ReplyText): number {
  const count = lines.length === 1 ? whole(lines[0]) : undefined;
  if (count === undefined) throw fail("remote-entry-count", "a number");
  return count;
}

/** Of `remote-entry-get`: a line for each, and none for an index that there is not. */
export function parseRemoteEntries({ lines }: ReplyText): readonly RemoteEntry[] {
  return lines.map((line) => {
    const parts = line.split(",");
    const [protocol = "", state] = parts.splice(-2);
    const index = whole(parts[0]);
    const port = parts.at(-1) ?? "";
    if (index === undefined || parts.length < 3 || (state !== "enabled" && state !== "disabled")) {
      throw fail("remote-entry-get", "index,host,port,protocol,enabled");
    }
    // Nothing checks a host name of a configuration: a comma in it would be its own.
    const host = parts.slice(1, -1).join(",");
    return { index, host, port, protocol, enabled: state === "enabled" };
  });
}

/** Of `pkcs11-id-count`, whose reply is a line that a real-time message could be. */
export function parsePkcs11Count({ lines }: ReplyText): number {
  const event = parseEvent(lines[0] ?? "");
  if (event.type !== "PKCS11ID-COUNT") throw fail("pkcs11-id-count", "PKCS11ID-COUNT:N");
  return event.count;
}

/** Of `pkcs11-id-get`, the same; `undefined` if there is none of this index. */
export function parsePkcs11Entry({ lines }: ReplyText): Pkcs11Entry | undefined {
  const event = parseEvent(lines[0] ?? "");
  if (event.type !== "PKCS11ID-ENTRY") throw fail("pkcs11-id-get", "PKCS11ID-ENTRY:'N', ID, BLOB");
  const { index, id, blob } = event;
  return id === undefined || blob === undefined ? undefined : { index, id, blob };
}

/** Of `push-update-broad` and `push-update-cid` (2.7): how many clients; said in a line before the verdict. */
export function parseUpdateCount({ success, lines }: ReplyText): number {
  for (const line of [...lines, success]) {
    const count = whole(/^(?:SUCCESS: )?(\d+) client\(s\) updated$/.exec(line)?.[1]);
    if (count !== undefined) return count;
  }
  throw fail("push-update", "a number of clients updated");
}
