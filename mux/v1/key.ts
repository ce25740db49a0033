/**
 * Keys from a pre-shared one.
 *
 * @module
 */
import { hchacha } from "@noble/ciphers/chacha.js";
import { blake2b } from "@noble/hashes/blake2.js";

/** Bytes of every key. */
export const KEY_BYTES = 32;

/** "expand 32-byte k", the constant of ChaCha. */
const SIGMA = words(new TextEncoder().encode("expand 32-byte k"));

/**
 * The key of gomux v1.0.0: BLAKE2b-256 of the pre-shared one, a string as UTF-8. It is fast to compute, so a psk that could be guessed is
 * no protection: use 32 random bytes.
 *
 * @example
 * ```ts
 * import { deriveKey } from "@trunkline/sockets/mux";
 *
 * const key = deriveKey("open sesame"); // 32 bytes
 * ```
 */
export function deriveKey(psk: string | Uint8Array): Uint8Array {
  const bytes = typeof psk === "string" ? new TextEncoder().encode(psk) : psk;
  if (!(bytes instanceof Uint8Array)) throw new TypeError("a psk is a string or a Uint8Array");
  return blake2b(bytes, { dkLen: KEY_BYTES });
}

/** HChaCha20: the ChaCha20 key for all nonces of XChaCha20 that begin with the 16 bytes of `prefix`. */
export function subkey(key: Uint8Array, prefix: Uint8Array): Uint8Array {
  const out = new Uint32Array(8);
  hchacha(SIGMA, words(key), words(prefix), out);
  const view = new DataView(out.buffer);
  out.forEach((word, i) => view.setUint32(4 * i, word, true));
  return new Uint8Array(out.buffer);
}

/** Little-endian 32-bit words, whatever the machine has. */
function words(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(4 * i, true));
}
