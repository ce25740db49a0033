/**
 * From a real-time message to a typed event.
 *
 * @module
 */

import { type Count, count, whole } from "./_decimal.ts";
import { loggedWithoutSecrets, REDACTED, withSecrets } from "./_redact.ts";
import type { EventBase } from "./event_base.ts";
import {
  type ClientEnvEvent,
  type ClientEvent,
  parseClient,
  parseUpDown,
  type UpDownEnvEvent,
  type UpDownEvent,
} from "./event_client.ts";
import type { ConnectionEvent } from "./connection_events.ts";
import { parsePassword, type PasswordEvent } from "./event_password.ts";
import { parseRequest, type RequestEvent } from "./event_request.ts";

export type { Count } from "./_decimal.ts";
export type { EnvFault, EventEnv } from "./env.ts";
export type { EventBase } from "./event_base.ts";
export type {
  ClientAddressEvent,
  ClientAuthEvent,
  ClientEnvEvent,
  ClientEvent,
  ClientResponseEvent,
  ClientSessionEvent,
  EnvLineEvent,
  UpDownEnvEvent,
  UpDownEvent,
} from "./event_client.ts";
export type {
  AuthTokenEvent,
  DynamicChallenge,
  PasswordEvent,
  PasswordFailedEvent,
  PasswordNeedEvent,
  StaticChallenge,
} from "./event_password.ts";
export type {
  ChallengeTextEvent,
  InfoMsgEvent,
  NeedCertificateEvent,
  NeedOkEvent,
  NeedStrEvent,
  NotifyEvent,
  OpenUrlEvent,
  OtherInfoMsgEvent,
  Pkcs11CountEvent,
  Pkcs11EntryEvent,
  ProxyEvent,
  RemoteEvent,
  RequestEvent,
  SignEvent,
  WebAuthEvent,
} from "./event_request.ts";

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

/**
 * A message of a kind that has no type here, or one that does not fit its kind. Of `CLIENT`, `PASSWORD` and `INFOMSG` the body may be a
 * secret, and does not show in `console.log`.
 */
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

/** Not of OpenVPN: in its place an iteration has lost events, because its consumer was slow. */
export interface DroppedEvent extends EventBase<"dropped"> {
  /** How many of which type; none but `LOG`, `BYTECOUNT`, `BYTECOUNT_CLI`, `STATE`, `ECHO`, `NOTIFY` and `connect-failed`. */
  readonly counts: ReadonlyMap<string, number>;
}

/** What {@linkcode parseEvent} gives, and what it does not: a {@linkcode DroppedEvent}, a {@linkcode ConnectionEvent}. `type` tells which. */
export type ManagementEvent =
  | StateEvent
  | HoldEvent
  | EchoEvent
  | ByteCountEvent
  | ClientByteCountEvent
  | LogEvent
  | InfoEvent
  | FatalEvent
  | ClientEvent
  | ClientEnvEvent
  | UpDownEvent
  | UpDownEnvEvent
  | PasswordEvent
  | RequestEvent
  | DroppedEvent
  | ConnectionEvent
  | UnknownEvent
  | MalformedEvent;

// A byte order mark is text like any other: bytes and strings give the same event.
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });
const ENCODER = new TextEncoder();
/** Keywords of messages that may be secret, in whatever form they come. */
const SECRET_KEYWORD = /CLIENT|UPDOWN|PASSWORD|INFOMSG/i;
const GREETING = /^OpenVPN Management Interface Version (\d{1,9})\b/;

/**
 * Reads one real-time message (without the leading `>`), as a {@linkcode Demuxer} gives it. Never throws. Of
 * `STATE`, `HOLD`, `ECHO`, `LOG`, `BYTECOUNT`, `BYTECOUNT_CLI` and `INFO` fields that are missing are empty, 0 or undefined; any other
 * message that does not fit the grammar of its keyword is `unknown`. Text is decoded as UTF-8 with replacement characters; `raw` has the bytes.
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
      const first = body.indexOf(",");
      const second = first < 0 ? -1 : body.indexOf(",", first + 1);
      const time = seconds(first < 0 ? "" : body.slice(0, first));
      const flags = second < 0 ? "" : body.slice(first + 1, second);
      const message = second < 0 ? "" : body.slice(second + 1);
      const event = { type: "LOG", raw, time, flags, message } as const;
      const shown = loggedWithoutSecrets(message);
      return shown === message ? event : withSecrets(event, { message: shown });
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
      const message = /^\d+$/.test(digits) ? body.slice(0, last) : body;
      return { type: "HOLD", raw, message, waitSeconds: whole(digits) };
    }
    case "ECHO": {
      const comma = body.indexOf(",");
      const time = seconds(comma < 0 ? "" : body.slice(0, comma));
      return { type: "ECHO", raw, time, message: comma < 0 ? "" : body.slice(comma + 1) };
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
    case "CLIENT":
      return parseClient(raw, body) ?? unknown(raw, keyword, body);
    case "UPDOWN":
      return parseUpDown(raw, body) ?? unknown(raw, keyword, body);
    case "PASSWORD":
      return parsePassword(raw, body) ?? unknown(raw, keyword, body);
    default:
      return parseRequest(raw, keyword, body) ?? unknown(raw, keyword, body);
  }
}

function unknown(raw: Uint8Array, keyword: string, body: string): UnknownEvent {
  const event = { type: "unknown", raw, keyword, body } as const;
  return SECRET_KEYWORD.test(keyword) ? withSecrets(event, { body: REDACTED }) : event;
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

function seconds(digits: string | undefined): number {
  return whole(digits) ?? 0;
}
