/**
 * An event in a few words, for people.
 *
 * @module
 */
import { loggedWithoutSecrets, REDACTED } from "./_redact.ts";
import type {
  ConnectFailedEvent,
  DaemonFate,
  DisconnectedEvent,
  ResumedEvent,
} from "./connection_events.ts";
import type { ClientEvent, ManagementEvent, PasswordEvent, StateEvent } from "./event.ts";

const FATES: Readonly<Record<DaemonFate, string>> = {
  same: "ran on",
  restarted: "has restarted",
  replaced: "is another process",
  unknown: "may have restarted",
};

/**
 * A short text for a log or a terminal: the words of the Go package's `String()`, as far as it has any. Left out are auth tokens,
 * passwords and answers of clients, challenge states, URLs to log in at, and in `LOG` the arguments of commands that carry such.
 *
 * @example
 * ```ts
 * import { describeEvent, parseEvent } from "@trunkline/sockets/ovpn";
 *
 * console.log(describeEvent(parseEvent("BYTECOUNT:10,20"))); // 10 in, 20 out
 * ```
 */
export function describeEvent(event: ManagementEvent): string {
  switch (event.type) {
    case "STATE":
      return describeState(event);
    case "BYTECOUNT":
      return `${event.bytesIn} in, ${event.bytesOut} out`;
    case "BYTECOUNT_CLI":
      return `Client ${event.clientId}: ${event.bytesIn} in, ${event.bytesOut} out`;
    case "HOLD":
      return bodyOf(event.raw);
    case "ECHO":
    case "INFO":
    case "FATAL":
      return `${event.type}: ${event.message}`;
    case "LOG": {
      const { message, raw } = event;
      const body = bodyOf(raw);
      return `LOG: ${body.slice(0, body.length - message.length)}${loggedWithoutSecrets(message)}`;
    }
    case "CLIENT":
      return `CLIENT: ${describeClient(event)}`;
    case "UPDOWN":
      return `UPDOWN: ${event.kind}${faultsOf(event)}`;
    case "CLIENT_ENV":
    case "UPDOWN_ENV": {
      const keyword = event.type.slice(0, -"_ENV".length);
      if (event.end) return `${keyword}: ENV,END`;
      return `${keyword}: ENV,${event.name}=${shown(event, "value")}`;
    }
    case "PASSWORD":
      return `PASSWORD: ${describePassword(event)}`;
    case "INFOMSG":
      if (event.kind === "other") return `INFOMSG: ${REDACTED}`;
      if (event.kind === "OPEN_URL") return `INFOMSG: OPEN_URL:${REDACTED}`;
      return `INFOMSG: ${event.kind}:${shown(event, "flags")}:${
        event.kind === "CR_TEXT" ? event.text : REDACTED
      }`;
    case "dropped": {
      const counts = [...event.counts].map(([type, count]) => `${count} ${type}`);
      return `dropped: ${counts.join(", ")}`;
    }
    case "connected":
      return `connected at attempt ${event.attempts}`;
    case "resumed":
      return `resumed${describeGap(event)}`;
    case "disconnected":
      return `disconnected${event.exiting ? " from an OpenVPN that exits" : ""}: ${
        describeRetry(event)
      }`;
    case "connect-failed":
      return `attempt ${event.attempts} to connect failed: ${describeRetry(event)}`;
    case "malformed":
      return `Malformed Event ${quote(event.text)}`;
    case "unknown":
      return `${event.keyword}: ${shown(event, "body")}`;
    default:
      return `${event.type}: ${bodyOf(event.raw)}`;
  }
}

function describeState({ name, description, tunnelAddress, remoteAddress }: StateEvent): string {
  if (name === "ASSIGN_IP") return `${name}: ${tunnelAddress}`;
  if (name === "CONNECTED") return `${name}: ${remoteAddress}`;
  return description === "" ? name : `${name}: ${description}`;
}

function describeClient(event: ClientEvent): string {
  const { kind, clientId } = event;
  switch (kind) {
    case "ADDRESS":
      return `${kind},${clientId},${event.address},${event.primary ? 1 : 0}`;
    case "CONNECT":
    case "REAUTH":
      return `${kind},${clientId},${event.keyId}${faultsOf(event)}`;
    case "CR_RESPONSE":
      return `${kind},${clientId},${event.keyId},${REDACTED}${faultsOf(event)}`;
    default:
      return `${kind},${clientId}${faultsOf(event)}`;
  }
}

function describePassword(event: PasswordEvent): string {
  if (event.kind === "auth-token") return `Auth-Token:${REDACTED}`;
  if (event.kind === "need" || event.reason === undefined) return bodyOf(event.raw);
  const { name, reason, dynamicChallenge } = event;
  const text = reason.startsWith("CRV1:") ? `CRV1:${REDACTED}` : reason;
  const question = dynamicChallenge === undefined ? "" : ` ${dynamicChallenge.text}`;
  return `Verification Failed: '${name}' ['${text}']${question}`;
}

function describeGap({ gap, refused }: ResumedEvent): string {
  const words = refused.map(({ message }) => ` (refused: ${message})`).join("");
  if (gap === undefined) return words;
  const { daemon, ms, states, log, echoes, complete } = gap;
  const missed = `${states.length} states, ${log.length} log lines, ${echoes.length} echoes`;
  return ` after ${ms} ms: OpenVPN ${FATES[daemon]}; missed ${missed}${
    complete ? "" : " or more"
  }${words}`;
}

function describeRetry({ error, retryMs }: DisconnectedEvent | ConnectFailedEvent): string {
  const next = retryMs === undefined ? "no other attempt follows" : `next attempt in ${retryMs} ms`;
  return `${error.message}; ${next}`;
}

function faultsOf({ envFaults }: { readonly envFaults: readonly string[] }): string {
  return envFaults.length === 0 ? "" : ` (environment: ${envFaults.join(", ")})`;
}

/** A field as `console.log` would show it. */
function shown<T extends object>(event: T, field: keyof T & string): string {
  const { toJSON } = event as { toJSON?: () => Record<string, unknown> };
  return String((toJSON?.() ?? event as Record<string, unknown>)[field]);
}

function bodyOf(raw: Uint8Array): string {
  const text = new TextDecoder().decode(raw);
  return text.slice(text.indexOf(":") + 1);
}

/** As Go's `%q`, for controls: `\x00` and not `\u0000`. */
function quote(text: string): string {
  return JSON.stringify(text).replace(/\\u00([01][0-9a-f])/g, "\\x$1").replaceAll("\x7f", "\\x7f");
}
