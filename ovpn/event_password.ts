/**
 * The messages about passwords: what is needed, what was refused, and the token that replaces one.
 *
 * @module
 */
import { textFromBase64 } from "./_base64.ts";
import { REDACTED, withSecrets } from "./_redact.ts";
import { type EventBase, maybeCut } from "./event_base.ts";

/** A question that is asked together with username and password. */
export interface StaticChallenge {
  /** The question. */
  readonly text: string;
  /** Whether the answer may be seen while it is typed. */
  readonly echo: boolean;
  /** Whether the answer goes to the server right behind the password (OpenVPN 2.7), and not as `SCRV1:`. */
  readonly concat: boolean;
}

/** A question by which a server refuses a password: the answer is to be given instead of the next one. */
export interface DynamicChallenge {
  /** Whether the answer may be seen while it is typed. */
  readonly echo: boolean;
  /** Whether there is an answer at all; if not, the text is to be confirmed. */
  readonly responseRequired: boolean;
  /** What the server knows the attempt by; a secret. */
  readonly stateId: string;
  /** The name to answer with. */
  readonly username: string;
  /** The question. */
  readonly text: string;
}

/** `>PASSWORD:Need`, OpenVPN waits for a username, a password, or both. */
export interface PasswordNeedEvent extends EventBase<"PASSWORD"> {
  /** Always this. */
  readonly kind: "need";
  /** Whose: `Auth`, `Private Key`, `HTTP Proxy`, `SOCKS Proxy`, or the label of a token and ` token`. */
  readonly name: string;
  /** What is needed. */
  readonly what: "username/password" | "password" | "username";
  /** The question that goes with it, if any. */
  readonly staticChallenge: StaticChallenge | undefined;
}

/** `>PASSWORD:Verification Failed`. */
export interface PasswordFailedEvent extends EventBase<"PASSWORD"> {
  /** Always this. */
  readonly kind: "verification-failed";
  /** Whose, as in {@linkcode PasswordNeedEvent}. */
  readonly name: string;
  /** What the server said, if anything. A text with a challenge in it is secret. */
  readonly reason: string | undefined;
  /** What the reason asks for, if it is a challenge (`CRV1:`). */
  readonly dynamicChallenge: DynamicChallenge | undefined;
}

/** `>PASSWORD:Auth-Token`, what OpenVPN will use instead of the password. */
export interface AuthTokenEvent extends EventBase<"PASSWORD"> {
  /** Always this. */
  readonly kind: "auth-token";
  /** The token; a secret. */
  readonly token: string;
}

/** `>PASSWORD:`; `kind` tells which. */
export type PasswordEvent = PasswordNeedEvent | PasswordFailedEvent | AuthTokenEvent;

// Names and texts are free, quotes and all: a name ends as early, and a reason as late, as the rest allows (spec 1.4).
const NEED = /^Need '(.*?)' (username\/password|password|username)(?: SC:(\d{1,9}),(.*))?$/s;
const FAILED = "Verification Failed: '";
const TOKEN = "Auth-Token:";
const CRV1 = /^CRV1:([^:]*):([^:]*):([^:]*):(.*)$/s;
const ECHO_BIT = 1;
const CONCAT_BIT = 2;

export function parsePassword(raw: Uint8Array, body: string): PasswordEvent | undefined {
  if (maybeCut(raw)) return undefined;
  if (body.startsWith(TOKEN) && body.length > TOKEN.length) {
    const event = { type: "PASSWORD", raw, kind: "auth-token", token: body.slice(TOKEN.length) };
    return withSecrets(event as AuthTokenEvent, { token: REDACTED });
  }
  return parseNeed(raw, body) ?? parseFailed(raw, body);
}

function parseNeed(raw: Uint8Array, body: string): PasswordNeedEvent | undefined {
  const match = NEED.exec(body);
  if (match === null) return undefined;
  const [, name = "", what, flags, text = ""] = match;
  const bits = Number(flags);
  const staticChallenge = flags === undefined
    ? undefined
    : { text, echo: (bits & ECHO_BIT) !== 0, concat: (bits & CONCAT_BIT) !== 0 };
  return {
    type: "PASSWORD",
    raw,
    kind: "need",
    name,
    what: what as PasswordNeedEvent["what"],
    staticChallenge,
  };
}

function parseFailed(raw: Uint8Array, body: string): PasswordFailedEvent | undefined {
  if (!body.startsWith(FAILED)) return undefined;
  const parts = cutReason(body.slice(FAILED.length));
  if (parts === undefined) return undefined;
  const [name, reason] = parts;
  const dynamicChallenge = reason === undefined ? undefined : parseDynamicChallenge(reason);
  const event: PasswordFailedEvent = {
    type: "PASSWORD",
    raw,
    kind: "verification-failed",
    name,
    reason,
    dynamicChallenge,
  };
  if (!reason?.startsWith("CRV1:")) return event;
  return withSecrets(event, {
    reason: REDACTED,
    dynamicChallenge: dynamicChallenge && { ...dynamicChallenge, stateId: REDACTED },
  });
}

/** `NAME'`, or `NAME' ['REASON']`. The server chooses the reason: an expression would look for its end from each of its quotes. */
function cutReason(text: string): [name: string, reason: string | undefined] | undefined {
  if (text.endsWith("'")) return [text.slice(0, -1), undefined];
  const cut = text.indexOf("' ['");
  const reasonAt = cut + "' ['".length;
  const reasonEnd = text.length - "']".length;
  if (cut < 0 || reasonAt > reasonEnd || !text.endsWith("']")) return undefined;
  return [text.slice(0, cut), text.slice(reasonAt, reasonEnd)];
}

/** `CRV1:FLAGS:STATE:USERNAME:TEXT`. */
function parseDynamicChallenge(reason: string): DynamicChallenge | undefined {
  const match = CRV1.exec(reason);
  if (match === null) return undefined;
  const [, list = "", stateId = "", name = "", text = ""] = match;
  const username = textFromBase64(name);
  if (username === undefined) return undefined;
  const flags = list.split(",");
  return {
    echo: flags.includes("E"),
    responseRequired: flags.includes("R"),
    stateId,
    username,
    text,
  };
}
