/**
 * From a real-time message to a typed event.
 *
 * @module
 */

/** A 64-bit counter: a number as long as that is exact, a bigint from 2^53 on. */
export type Count = number | bigint;

/** What every event has. */
export interface EventBase<Type extends string> {
  /** The keyword on the wire, or `"unknown"`, or `"malformed"`. */
  readonly type: Type;
  /** The whole line as it came, without `>` and line end; for text that is not UTF-8. */
  readonly raw: Uint8Array;
}

/** `>STATE:`, the state of the connection has changed (`state on`). */
export interface StateEvent extends EventBase<"STATE"> {
  /** When, in seconds since 1970. */
  readonly time: number;
  /** The state: `CONNECTING`, `WAIT`, `AUTH`, `GET_CONFIG`, `ASSIGN_IP`, `ADD_ROUTES`, `CONNECTED`, `RECONNECTING`, `EXITING`, ... */
  readonly name: string;
  /** Why or how: `SUCCESS` with `CONNECTED`, a reason with `RECONNECTING` and `EXITING`, else mostly empty. */
  readonly description: string;
  /** Our IPv4 address in the tunnel, or empty. */
  readonly tunnelAddress: string;
  /** The server's address, or empty. */
  readonly remoteAddress: string;
  /** The server's port. */
  readonly remotePort: number | undefined;
  /** Our address outside of the tunnel, or empty. */
  readonly localAddress: string;
  /** Our port outside of the tunnel. */
  readonly localPort: number | undefined;
  /** Our IPv6 address in the tunnel, or empty. */
  readonly tunnelAddress6: string;
}

/** `>HOLD:`, OpenVPN waits for `hold release`. */
export interface HoldEvent extends EventBase<"HOLD"> {
  /** The text, without the number. */
  readonly message: string;
  /** How long OpenVPN would have waited by itself; old versions do not say. */
  readonly waitSeconds: number | undefined;
}

/** `>ECHO:`, an echo directive of the server or the configuration (`echo on`). */
export interface EchoEvent extends EventBase<"ECHO"> {
  /** When, in seconds since 1970. */
  readonly time: number;
  /** The parameter of the directive. */
  readonly message: string;
}

/** `>BYTECOUNT:`, what a client has transferred since it started (`bytecount n`). */
export interface ByteCountEvent extends EventBase<"BYTECOUNT"> {
  /** Bytes received. */
  readonly bytesIn: Count;
  /** Bytes sent. */
  readonly bytesOut: Count;
}

/** `>BYTECOUNT_CLI:`, what one client of a server has transferred (`bytecount n`). */
export interface ClientByteCountEvent extends EventBase<"BYTECOUNT_CLI"> {
  /** The client's CID, as the text that the daemon uses: up to 64 bits. */
  readonly clientId: string;
  /** Bytes received from the client. */
  readonly bytesIn: Count;
  /** Bytes sent to the client. */
  readonly bytesOut: Count;
}

/** `>LOG:`, a line of OpenVPN's log (`log on`). */
export interface LogEvent extends EventBase<"LOG"> {
  /** When, in seconds since 1970. */
  readonly time: number;
  /** Any of I (info), F (fatal), N (non-fatal error), W (warning), D (debug), or empty. */
  readonly flags: string;
  /** The text. */
  readonly message: string;
}

/** `>INFO:`, which is the greeting. */
export interface InfoEvent extends EventBase<"INFO"> {
  /** The text. */
  readonly message: string;
  /** The version of the management interface that a greeting tells. */
  readonly managementVersion: number | undefined;
}

/** `>FATAL:`, the daemon's last words; or the client's own, when the connection failed. */
export interface FatalEvent extends EventBase<"FATAL"> {
  /** The text. */
  readonly message: string;
}

/** A message of a kind that has no type here. */
export interface UnknownEvent extends EventBase<"unknown"> {
  /** What stands before the first colon. */
  readonly keyword: string;
  /** What stands after it. */
  readonly body: string;
}

/** A line without a colon, which OpenVPN does not send. */
export interface MalformedEvent extends EventBase<"malformed"> {
  /** The line. */
  readonly text: string;
}

/** What {@linkcode parseEvent} gives; `type` tells which. */
export type ManagementEvent =
  | StateEvent
  | HoldEvent
  | EchoEvent
  | ByteCountEvent
  | ClientByteCountEvent
  | LogEvent
  | InfoEvent
  | FatalEvent
  | UnknownEvent
  | MalformedEvent;

// A byte order mark is text like any other: bytes and strings give the same event.
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });
const ENCODER = new TextEncoder();
const GREETING = /^OpenVPN Management Interface Version (\d{1,9})\b/;

/**
 * Reads one real-time message (without the leading `>`), as a {@linkcode Demuxer} gives it. Never throws: fields that are missing are
 * empty, 0 or undefined. Text is decoded as UTF-8 with replacement characters; `raw` has the bytes.
 *
 * @example
 * ```ts
 * import { parseEvent } from "@trunkline/sockets/ovpn";
 *
 * const event = parseEvent("STATE:1700000000,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,");
 * if (event.type === "STATE") console.log(event.name, event.tunnelAddress);
 * ```
 */
export function parseEvent(line: Uint8Array | string): ManagementEvent {
  const raw = typeof line === "string" ? ENCODER.encode(line) : line;
  const text = typeof line === "string" ? line : UTF8.decode(line);
  const colon = text.indexOf(":");
  if (colon < 0) return { type: "malformed", raw, text };
  const keyword = text.slice(0, colon);
  const body = text.slice(colon + 1);
  switch (keyword) {
    case "STATE":
      return parseState(raw, body);
    case "LOG": {
      const [time, flags, message] = fields(body, 3);
      return { type: "LOG", raw, time: seconds(time), flags, message };
    }
    case "BYTECOUNT": {
      const [bytesIn, bytesOut] = body.split(",", 2);
      return { type: "BYTECOUNT", raw, bytesIn: count(bytesIn), bytesOut: count(bytesOut) };
    }
    case "BYTECOUNT_CLI": {
      const [clientId = "", bytesIn, bytesOut] = body.split(",", 3);
      return {
        type: "BYTECOUNT_CLI",
        raw,
        clientId,
        bytesIn: count(bytesIn),
        bytesOut: count(bytesOut),
      };
    }
    case "HOLD": {
      const last = body.lastIndexOf(":");
      const digits = last < 0 ? "" : body.slice(last + 1);
      const message = DIGITS.test(digits) ? body.slice(0, last) : body;
      return { type: "HOLD", raw, message, waitSeconds: whole(digits) };
    }
    case "ECHO": {
      const [time, message] = fields(body, 2);
      return { type: "ECHO", raw, time: seconds(time), message };
    }
    case "INFO":
      return {
        type: "INFO",
        raw,
        message: body,
        managementVersion: whole(GREETING.exec(body)?.[1]),
      };
    case "FATAL":
      return { type: "FATAL", raw, message: body };
    default:
      return { type: "unknown", raw, keyword, body };
  }
}

/** TIME,NAME,DESC,TUN4,REMOTE,RPORT,LOCAL,LPORT[,TUN6]; 4 or 5 fields before OpenVPN 2.4. */
function parseState(raw: Uint8Array, body: string): StateEvent {
  const parts = body.split(",");
  // The server chooses the description of AUTH_PENDING, commas and all; the five fields after it are there in any case.
  const extra = parts[1] === "AUTH_PENDING" ? Math.max(0, parts.length - 8) : 0;
  if (extra > 0) parts.splice(2, extra + 1, parts.slice(2, 3 + extra).join(","));
  return {
    type: "STATE",
    raw,
    time: seconds(parts[0]),
    name: parts[1] ?? "",
    description: parts[2] ?? "",
    tunnelAddress: parts[3] ?? "",
    remoteAddress: parts[4] ?? "",
    remotePort: whole(parts[5]),
    localAddress: parts[6] ?? "",
    localPort: whole(parts[7]),
    tunnelAddress6: parts[8] ?? "",
  };
}

const DIGITS = /^\d+$/;

/** Cuts `body` at its first commas; the last field keeps the rest. Without the last comma there is nothing to tell apart. */
function fields(body: string, length: 2): [string, string];
function fields(body: string, length: 3): [string, string, string];
function fields(body: string, length: number): string[] {
  const parts: string[] = [];
  let from = 0;
  while (parts.length < length - 1) {
    const comma = body.indexOf(",", from);
    if (comma < 0) break;
    parts.push(body.slice(from, comma));
    from = comma + 1;
  }
  if (parts.length === length - 1) parts.push(body.slice(from));
  while (parts.length < length) parts.push("");
  return parts;
}

/** Undefined for what is no number, and for one so large that it would not be exact. */
function whole(digits: string | undefined): number | undefined {
  if (digits === undefined || !DIGITS.test(digits)) return undefined;
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : undefined;
}

function seconds(digits: string | undefined): number {
  return whole(digits) ?? 0;
}

function count(digits: string | undefined): Count {
  // No 64-bit number has more digits; BigInt() throws when given very many.
  if (digits === undefined || !/^\d{1,20}$/.test(digits)) return 0;
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}
