/**
 * The one call that both sides make before they say more than the Go package knows.
 *
 * @module
 */
import { UdsError } from "./errors.ts";

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();
/** The version of the extensions. */
const VERSION = 1;
/** More is no greeting. */
const MAX_HELLO_BYTES = 64 * 1024;

/** What a client says. */
export interface ClientHello {
  /** Proves that it may call. */
  readonly token?: string | undefined;
}

/** What a server says. */
export interface ServerHello {
  /** Whether it knows our extensions. */
  readonly extensions: boolean;
}

/** The data of the call. */
export function encodeClientHello({ token }: ClientHello): Uint8Array {
  return ENCODER.encode(JSON.stringify({ version: VERSION, token }));
}

/** @throws {UdsError} `protocol` */
export function decodeClientHello(data: Uint8Array): ClientHello {
  const { token } = readObject(data);
  if (token !== undefined && typeof token !== "string") {
    throw new UdsError("protocol", "uds.hello: a token that is no text");
  }
  return { token };
}

/** The data of the answer. */
export function encodeServerHello(): Uint8Array {
  return ENCODER.encode(JSON.stringify({ version: VERSION }));
}

/** A server that answers something else has a handler of that name, and knows nothing of this. */
export function decodeServerHello(data: Uint8Array): ServerHello {
  try {
    return { extensions: readObject(data)["version"] === VERSION };
  } catch {
    return { extensions: false };
  }
}

function readObject(data: Uint8Array): Record<string, unknown> {
  if (data.length > MAX_HELLO_BYTES) {
    throw new UdsError("protocol", `uds.hello: ${data.length} bytes`);
  }
  try {
    const value: unknown = JSON.parse(DECODER.decode(data));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Told below.
  }
  throw new UdsError("protocol", "uds.hello: no object of JSON");
}
