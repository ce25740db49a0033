/**
 * The messages of a server about its clients, and of a tunnel that goes up or down: those with an environment.
 *
 * @module
 */
import { isClientId, isKeyId } from "./_decimal.ts";
import { isSecretVariable, REDACTED, withSecrets } from "./_redact.ts";
import { emptyEnv, type EventEnv } from "./env.ts";
import { type EventBase, maybeCut } from "./event_base.ts";

/** `>CLIENT:CONNECT`, a client asks to be let in, or `>CLIENT:REAUTH`, to stay: OpenVPN waits for an answer. */
export interface ClientAuthEvent extends EventBase<"CLIENT">, EventEnv {
  /** Which of the two. */
  readonly kind: "CONNECT" | "REAUTH";
  /** The CID, as the text that the daemon uses: up to 64 bits. It is used again after a restart of the daemon. */
  readonly clientId: string;
  /** The KID, as the text that the daemon uses: up to 32 bits. */
  readonly keyId: string;
}

/** `>CLIENT:ESTABLISHED`, a client is in, or `>CLIENT:DISCONNECT`, it is gone. The environment of the second may be empty. */
export interface ClientSessionEvent extends EventBase<"CLIENT">, EventEnv {
  /** Which of the two. */
  readonly kind: "ESTABLISHED" | "DISCONNECT";
  /** The CID. */
  readonly clientId: string;
}

/** `>CLIENT:ADDRESS`, an address or subnet belongs to a client. */
export interface ClientAddressEvent extends EventBase<"CLIENT"> {
  /** Always this. */
  readonly kind: "ADDRESS";
  /** The CID. */
  readonly clientId: string;
  /** `10.8.0.2`, `10.50.0.0/255.255.255.0`, `fd00::1000`, `fd00:50::/64`, or the MAC of a tap client. */
  readonly address: string;
  /** True for an address of the client itself. */
  readonly primary: boolean;
}

/** `>CLIENT:CR_RESPONSE`, a client has answered the question of a pending authentication. */
export interface ClientResponseEvent extends EventBase<"CLIENT">, EventEnv {
  /** Always this. */
  readonly kind: "CR_RESPONSE";
  /** The CID. */
  readonly clientId: string;
  /** The KID. */
  readonly keyId: string;
  /** The answer, in base64, of which nobody has checked that it is; a secret. */
  readonly response: string;
}

/** `>CLIENT:` of any kind but `ENV`; `kind` tells which. */
export type ClientEvent =
  | ClientAuthEvent
  | ClientSessionEvent
  | ClientAddressEvent
  | ClientResponseEvent;

/** `>UPDOWN:`, the tunnel has come up or gone down (`--management-up-down`). */
export interface UpDownEvent extends EventBase<"UPDOWN">, EventEnv {
  /** Which of the two. */
  readonly kind: "UP" | "DOWN";
}

/** A line of an environment, as {@linkcode parseEvent} gives it. */
export interface EnvLineEvent<Type extends string> extends EventBase<Type> {
  /** The name of the variable; empty in the line that ends the environment. */
  readonly name: string;
  /** Its value, which may be secret. */
  readonly value: string;
  /** True for the line that ends the environment. */
  readonly end: boolean;
  /** True if OpenVPN may have cut the line, and hidden what came behind. */
  readonly overlong: boolean;
}

/** `>CLIENT:ENV`. */
export type ClientEnvEvent = EnvLineEvent<"CLIENT_ENV">;

/** `>UPDOWN:ENV`. */
export type UpDownEnvEvent = EnvLineEvent<"UPDOWN_ENV">;

/** What begins an environment. */
export type BlockEvent = Exclude<ClientEvent, ClientAddressEvent> | UpDownEvent;

/** Undefined for what does not fit the grammar of spec 1.4, here and below. */
export function parseClient(
  raw: Uint8Array,
  body: string,
): ClientEvent | ClientEnvEvent | undefined {
  if (body.startsWith("ENV,")) return parseEnvLine("CLIENT_ENV", raw, body);
  if (maybeCut(raw)) return undefined;
  const parts = body.split(",", 5);
  const [kind, clientId = "", third = "", fourth = ""] = parts;
  if (!isClientId(clientId)) return undefined;
  switch (kind) {
    case "CONNECT":
    case "REAUTH":
      if (parts.length !== 3 || !isKeyId(third)) return undefined;
      return { type: "CLIENT", raw, kind, clientId, keyId: third, ...emptyEnv() };
    case "ESTABLISHED":
    case "DISCONNECT":
      if (parts.length !== 2) return undefined;
      return { type: "CLIENT", raw, kind, clientId, ...emptyEnv() };
    case "ADDRESS":
      if (parts.length !== 4 || third === "" || !/^[01]$/.test(fourth)) return undefined;
      return { type: "CLIENT", raw, kind, clientId, address: third, primary: fourth === "1" };
    case "CR_RESPONSE":
      if (parts.length !== 4 || !isKeyId(third)) return undefined;
      return clientResponse(raw, clientId, third, fourth, emptyEnv());
    default:
      return undefined;
  }
}

export function parseUpDown(
  raw: Uint8Array,
  body: string,
): UpDownEvent | UpDownEnvEvent | undefined {
  if (body.startsWith("ENV,")) return parseEnvLine("UPDOWN_ENV", raw, body);
  if (body !== "UP" && body !== "DOWN") return undefined;
  return { type: "UPDOWN", raw, kind: body, ...emptyEnv() };
}

/** The event that `header` began, with its environment; `raw` is all of its lines. */
export function gathered(header: BlockEvent, raw: Uint8Array, env: EventEnv): BlockEvent {
  if (header.type === "CLIENT" && header.kind === "CR_RESPONSE") {
    return clientResponse(raw, header.clientId, header.keyId, header.response, env);
  }
  return withSecrets({ ...header, raw, ...env }, { envAll: undefined });
}

function clientResponse(
  raw: Uint8Array,
  clientId: string,
  keyId: string,
  response: string,
  env: EventEnv,
): ClientResponseEvent {
  const kind = "CR_RESPONSE";
  const event = { type: "CLIENT", raw, kind, clientId, keyId, response, ...env } as const;
  return withSecrets(event, { response: REDACTED, envAll: undefined });
}

function parseEnvLine<Type extends string>(
  type: Type,
  raw: Uint8Array,
  body: string,
): EnvLineEvent<Type> | undefined {
  const overlong = maybeCut(raw);
  if (body === "ENV,END") return { type, raw, name: "", value: "", end: true, overlong };
  const equals = body.indexOf("=", 4);
  if (equals <= 4) return undefined;
  const name = body.slice(4, equals);
  const value = body.slice(equals + 1);
  const event = { type, raw, name, value, end: false, overlong };
  return isSecretVariable(name, value) ? withSecrets(event, { value: REDACTED }) : event;
}
