/**
 * Seals a single frame. Sessions seal many at once, see aead.ts.
 *
 * @module
 */
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import {
  FLAG,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  NONCE_BYTES,
  NONCE_OFFSET,
  TAG_BYTES,
  writeUint32,
} from "./frame.ts";
import { KEY_BYTES } from "./key.ts";

/** What {@linkcode sealFrame} takes. */
export interface FrameFields {
  /** The stream, 0 to 4294967295. */
  readonly id: number;
  /** One of {@linkcode FLAG}. */
  readonly flags: number;
  /** 0 to 65536. @default the length of `payload`, which in `DATA` it has to be */
  readonly length?: number | undefined;
  /** At most 65536 bytes, in `DATA` alone. */
  readonly payload?: Uint8Array | undefined;
}

const NOTHING = new Uint8Array(0);

/**
 * Seals one frame with XChaCha20-Poly1305, as gomux does. No nonce may be used twice with a key.
 *
 * @throws {RangeError} for a number out of range, or a key or nonce of another size
 * @throws {TypeError} for a payload in a frame that has none
 */
export function sealFrame(
  { id, flags, payload = NOTHING, length = payload.length }: FrameFields,
  key: Uint8Array,
  nonce: Uint8Array,
): Uint8Array {
  requireUint32("id", id);
  requireUint32("flags", flags);
  requireUint32("length", length);
  requireBytes("key", key, KEY_BYTES);
  requireBytes("nonce", nonce, NONCE_BYTES);
  if (length > MAX_PAYLOAD_BYTES) {
    throw new RangeError(`a frame of length ${length}, at most ${MAX_PAYLOAD_BYTES} is allowed`);
  }
  if (flags === FLAG.DATA && length !== payload.length) {
    throw new RangeError(`length is ${length}, but there are ${payload.length} bytes of payload`);
  }
  if (flags !== FLAG.DATA && payload.length > 0) {
    throw new TypeError(`a frame with flags ${flags} has no payload`);
  }
  const frame = new Uint8Array(HEADER_BYTES + payload.length + TAG_BYTES);
  writeUint32(frame, 0, id);
  writeUint32(frame, 4, length);
  writeUint32(frame, 8, flags);
  frame.set(nonce, NONCE_OFFSET);
  const header = frame.subarray(0, HEADER_BYTES);
  frame.set(xchacha20poly1305(key, nonce, header).encrypt(payload), HEADER_BYTES);
  return frame;
}

/** Refuses a key or a nonce of another size, and does not tell its bytes. */
function requireBytes(name: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) {
    throw new RangeError(`a ${name} of ${bytes.length} bytes, expected ${length}`);
  }
}

function requireUint32(name: string, value: number): void {
  if (value >>> 0 !== value) throw new RangeError(`${name} is ${value}, expected 0 to 4294967295`);
}
