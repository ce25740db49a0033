/**
 * What OpenVPN asks for beside passwords, and what it passes on.
 *
 * @module
 */
import { whole } from "./_decimal.ts";
import { REDACTED, withSecrets } from "./_redact.ts";
import { type EventBase, maybeCut } from "./event_base.ts";

/** `>NEED-OK:`, OpenVPN waits for a confirmation: `needok`. */
export interface NeedOkEvent extends EventBase<"NEED-OK"> {
  /** What for, such as `token-insertion-request`. */
  readonly name: string;
  /** The text for people. */
  readonly message: string;
}

/** `>NEED-STR:`, OpenVPN waits for a text: `needstr`. */
export interface NeedStrEvent extends EventBase<"NEED-STR"> {
  /** What for, such as `pkcs11-id-request`. */
  readonly name: string;
  /** The text for people. */
  readonly message: string;
}

/** `>NEED-CERTIFICATE:`, OpenVPN waits for the certificate of the client: `certificate`. */
export interface NeedCertificateEvent extends EventBase<"NEED-CERTIFICATE"> {
  /** The parameter of `--management-external-cert`. */
  readonly hint: string;
}

/** `>PK_SIGN:` (`version` 2 or more) or `>RSA_SIGN:`, OpenVPN waits for a signature: `pk-sig` or `rsa-sig`. */
export interface SignEvent extends EventBase<"PK_SIGN" | "RSA_SIGN"> {
  /** What to sign, in base64. */
  readonly data: string;
  /**
   * `RSA_PKCS1_PADDING`, `RSA_NO_PADDING`, `RSA_PKCS1_PSS_PADDING`, `ECDSA`, `ED25519` or `ED448`; `undefined` before `version 3`.
   */
  readonly algorithm: string | undefined;
  /** `hashalg`, `saltlen` (`digest` or `max`) and `data` (`message`: not a digest). */
  readonly parameters: ReadonlyMap<string, string>;
}

/** `>PROXY:`, OpenVPN asks by which proxy to connect: `proxy`. */
export interface ProxyEvent extends EventBase<"PROXY"> {
  /** The number of the connection entry, from 1. */
  readonly index: number;
  /** What it will speak to the server. */
  readonly protocol: "TCP" | "UDP";
  /** The server. */
  readonly host: string;
}

/** `>REMOTE:`, OpenVPN asks whether to connect there: `remote`. */
export interface RemoteEvent extends EventBase<"REMOTE"> {
  /** The server's name or address. */
  readonly host: string;
  /** The server's port. */
  readonly port: number;
  /** Such as `udp4` or `tcp6-client`. */
  readonly protocol: string;
}

/** `>INFOMSG:`, a message of the server during authentication; `kind` tells which fields it has. */
export type InfoMsgEvent = WebAuthEvent | OpenUrlEvent | ChallengeTextEvent | OtherInfoMsgEvent;

/** `>INFOMSG:WEB_AUTH:`, to log in with a browser. */
export interface WebAuthEvent extends EventBase<"INFOMSG"> {
  /** Always this. */
  readonly kind: "WEB_AUTH";
  /** How: `hidden`, `external`, `proxy=...` (a secret, and shown as the last one). They end where the url begins. */
  readonly flags: readonly string[];
  /** Where to: from the first `scheme://` on that stands behind a colon, as a proxy may have colons; a secret. */
  readonly url: string;
}

/** `>INFOMSG:OPEN_URL:`, the older form of it. */
export interface OpenUrlEvent extends EventBase<"INFOMSG"> {
  /** Always this. */
  readonly kind: "OPEN_URL";
  /** Where to; a secret. */
  readonly url: string;
}

/** `>INFOMSG:CR_TEXT:`, a question: `cr-response` answers it. */
export interface ChallengeTextEvent extends EventBase<"INFOMSG"> {
  /** Always this. */
  readonly kind: "CR_TEXT";
  /** `E`: the answer may be seen while it is typed; `R`: there is one. */
  readonly flags: readonly string[];
  /** The question. */
  readonly text: string;
}

/** `>INFOMSG:` with anything else. */
export interface OtherInfoMsgEvent extends EventBase<"INFOMSG"> {
  /** Always this. */
  readonly kind: "other";
  /** What the server said; taken for a secret. */
  readonly text: string;
}

/** `>NOTIFY:`, the peer said that it restarts, halts or leaves; a server does not tell which client. */
export interface NotifyEvent extends EventBase<"NOTIFY"> {
  /** Such as `info`. */
  readonly severity: string;
  /** `server-pushed-connection-reset`, `server-pushed-halt`, `remote-exit`. */
  readonly notification: string;
  /** What the peer said. */
  readonly text: string;
}

/** `>PKCS11ID-COUNT:`, the reply to `pkcs11-id-count`. */
export interface Pkcs11CountEvent extends EventBase<"PKCS11ID-COUNT"> {
  /** How many certificates there are. */
  readonly count: number;
}

/** `>PKCS11ID-ENTRY:`, the reply to `pkcs11-id-get`. */
export interface Pkcs11EntryEvent extends EventBase<"PKCS11ID-ENTRY"> {
  /** Which, from 0. */
  readonly index: number;
  /** Its id with `\x20` for a space, as `needstr` wants it; `undefined` if there are not so many. */
  readonly id: string | undefined;
  /** The certificate in base64. */
  readonly blob: string | undefined;
}

/** What this file parses. */
export type RequestEvent =
  | NeedOkEvent
  | NeedStrEvent
  | NeedCertificateEvent
  | SignEvent
  | ProxyEvent
  | RemoteEvent
  | InfoMsgEvent
  | NotifyEvent
  | Pkcs11CountEvent
  | Pkcs11EntryEvent;

const NEED_OK = /^Need '(.*?)' confirmation MSG:(.*)$/s;
// OpenVPN says `string`; its documentation, `input` (spec 1.9).
const NEED_STR = /^Need '(.*?)' (?:string|input) MSG:(.*)$/s;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
const PROXY = /^(\d+),(TCP|UDP),(.+)$/s;
// From the right: an IPv6 address has no brackets, and a name may have commas.
const REMOTE = /^(.+),(\d{1,5}),([^,]+)$/s;
// The flags end at a colon, but the address of a proxy has colons of its own: at the first one, then, behind which a url begins.
const WEB_AUTH = /^WEB_AUTH:(.*?):([a-z][a-z0-9+.-]*:\/\/.*)$/is;
const WEB_AUTH_OTHER = /^WEB_AUTH:([^:]*):(.+)$/s;
const OPEN_URL = /^OPEN_URL:(.+)$/s;
const CR_TEXT = /^CR_TEXT:([^:]*):(.*)$/s;
const NOTIFY = /^([^,]*),([^,]*),(.*)$/s;
const PKCS11_ENTRY = /^'(\d+)'(?:, ID:'(.*)', BLOB:'([^']*)')?$/s;

/** Undefined for other keywords, and for what does not fit the grammar of spec 1.4. */
export function parseRequest(
  raw: Uint8Array,
  keyword: string,
  body: string,
): RequestEvent | undefined {
  if (maybeCut(raw)) return undefined;
  switch (keyword) {
    case "NEED-OK":
    case "NEED-STR": {
      const match = (keyword === "NEED-OK" ? NEED_OK : NEED_STR).exec(body);
      if (match === null) return undefined;
      return { type: keyword, raw, name: match[1] ?? "", message: match[2] ?? "" };
    }
    case "NEED-CERTIFICATE":
      return { type: keyword, raw, hint: body };
    case "PK_SIGN":
    case "RSA_SIGN":
      return parseSign(raw, keyword, body);
    case "PROXY": {
      const [, number, protocol, host = ""] = PROXY.exec(body) ?? [];
      const index = whole(number);
      if (index === undefined) return undefined;
      return { type: keyword, raw, index, protocol: protocol as "TCP" | "UDP", host };
    }
    case "REMOTE": {
      const [, host = "", number, protocol = ""] = REMOTE.exec(body) ?? [];
      const port = whole(number);
      if (port === undefined || port > 65535) return undefined;
      return { type: keyword, raw, host, port, protocol };
    }
    case "INFOMSG":
      return parseInfoMsg(raw, body);
    case "NOTIFY": {
      const match = NOTIFY.exec(body);
      if (match === null) return undefined;
      const [, severity = "", notification = "", text = ""] = match;
      return { type: keyword, raw, severity, notification, text };
    }
    case "PKCS11ID-COUNT": {
      const count = whole(body);
      return count === undefined ? undefined : { type: keyword, raw, count };
    }
    case "PKCS11ID-ENTRY": {
      const [, number, id, blob] = PKCS11_ENTRY.exec(body) ?? [];
      const index = whole(number);
      return index === undefined ? undefined : { type: keyword, raw, index, id, blob };
    }
    default:
      return undefined;
  }
}

/** `DATA[,ALGORITHM[,NAME=VALUE]...]`. What is not understood must not be signed. */
function parseSign(
  raw: Uint8Array,
  type: SignEvent["type"],
  body: string,
): SignEvent | undefined {
  const [data = "", algorithm, ...rest] = body.split(",");
  if (!BASE64.test(data) || algorithm === "") return undefined;
  const parameters = new Map<string, string>();
  for (const parameter of rest) {
    const equals = parameter.indexOf("=");
    const name = parameter.slice(0, equals);
    if (equals < 1 || parameters.has(name)) return undefined;
    parameters.set(name, parameter.slice(equals + 1));
  }
  return { type, raw, data, algorithm, parameters };
}

function parseInfoMsg(raw: Uint8Array, body: string): InfoMsgEvent {
  const type = "INFOMSG";
  const web = WEB_AUTH.exec(body) ?? WEB_AUTH_OTHER.exec(body);
  if (web !== null) {
    const [, list = "", url = ""] = web;
    const flags = list === "" ? [] : list.split(",");
    // What follows the proxy may be more of its password.
    const proxy = flags.findIndex((flag) => flag.startsWith("proxy="));
    const shown = proxy < 0 ? flags : [...flags.slice(0, proxy), `proxy=${REDACTED}`];
    const event = { type, raw, kind: "WEB_AUTH", flags, url } as const;
    return withSecrets(event, { flags: shown, url: REDACTED });
  }
  const open = OPEN_URL.exec(body);
  if (open !== null) {
    const event = { type, raw, kind: "OPEN_URL", url: open[1] ?? "" } as const;
    return withSecrets(event, { url: REDACTED });
  }
  const question = CR_TEXT.exec(body);
  if (question !== null) {
    const [, list = "", text = ""] = question;
    return { type, raw, kind: "CR_TEXT", flags: list === "" ? [] : list.split(","), text };
  }
  const event = { type, raw, kind: "other", text: body } as const;
  return withSecrets(event, { text: REDACTED });
}
