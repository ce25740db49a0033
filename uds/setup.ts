/**
 * The first datagram of the Go package: the name of a socket.
 *
 * @module
 */
import { UdsError } from "./errors.ts";

/** How long it is, in bytes. */
export const LEN_TOTAL = 36;

/** Options of {@linkcode setupEncode} and {@linkcode setupDecode}. */
export interface SetupOptions {
  /**
   * Goes by the rule of the Go package, which takes anything with 36 characters of `[0-9a-f-]` in it, and leaves what follows the first 36
   * bytes. It lets names through that are paths: for tests only. @default false
   */
  readonly compat?: boolean | undefined;
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const GO_RULE = /[0-9a-f-]{36}/;

/**
 * The handshake with the name `uid`: a UUID in lower case.
 *
 * @throws {TypeError} if it is none
 */
export function setupEncode(uid: string, { compat = false }: SetupOptions = {}): Uint8Array {
  if (!(compat ? GO_RULE : UUID).test(uid)) {
    throw new TypeError("a name of the handshake is a UUID in lower case");
  }
  return new TextEncoder().encode(uid);
}

/**
 * The name in a handshake, which is all of `bytes`.
 *
 * @throws {UdsError} `protocol` if it has not 36 bytes, or is no UUID
 */
export function setupDecode(bytes: Uint8Array, { compat = false }: SetupOptions = {}): string {
  if (bytes.length < LEN_TOTAL || !compat && bytes.length > LEN_TOTAL) {
    const text = `a handshake of ${bytes.length} bytes, expected ${LEN_TOTAL}`;
    throw new UdsError("protocol", text);
  }
  const uid = new TextDecoder().decode(bytes.subarray(0, LEN_TOTAL));
  if (!compat && !UUID.test(uid)) {
    throw new UdsError("protocol", "the name in a handshake is no UUID in lower case");
  }
  return uid;
}
