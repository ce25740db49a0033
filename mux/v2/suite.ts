/**
 * The two cipher suites, by the names that the Noise Protocol Framework (revision 34) gives their functions. Handshakes alone
 * seal by these; records are sealed by the AEADs of adapters/.
 *
 * @module
 */
import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { hkdf as rfcHkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import type { MuxSuite } from "../config.ts";

/** Cipher and hash of a session; the key agreement of both is X25519. */
export type NoiseSuite = MuxSuite;

/** Bytes of a key of both ciphers, and of a psk. */
export const NOISE_KEY_BYTES = 32;
/** Bytes of a nonce of both ciphers. */
export const NOISE_NONCE_BYTES = 12;
/** Bytes of the tag behind a ciphertext of both ciphers. */
export const NOISE_TAG_BYTES = 16;

const NOTHING = new Uint8Array(0);
/** Of the counter 2^64-1, which no message may have (Noise 5.1): the same bytes in both suites. */
const REKEY_NONCE = Uint8Array.of(0, 0, 0, 0, ...new Uint8Array(8).fill(0xff));

const SUITES = {
  ChaChaPoly_BLAKE2b: { cipher: chacha20poly1305, hash: blake2b },
  AESGCM_SHA256: { cipher: gcm, hash: sha256 },
} as const;

/** Whether there is a suite of that name. */
export function isNoiseSuite(name: string): name is NoiseSuite {
  return Object.hasOwn(SUITES, name);
}

/** HASHLEN: 64 or 32 bytes. */
export function hashBytes(suite: NoiseSuite): number {
  return SUITES[suite].hash.outputLen;
}

/** HASH of several pieces. */
export function hash(suite: NoiseSuite, ...pieces: readonly Uint8Array[]): Uint8Array {
  const state = SUITES[suite].hash.create();
  for (const piece of pieces) state.update(piece);
  return state.digest();
}

/** HKDF (Noise 4.3) with as many outputs as asked for: it is that of RFC 5869 with the chaining key as salt and no info. */
export function hkdf(
  suite: NoiseSuite,
  chainingKey: Uint8Array,
  material: Uint8Array,
  outputs: 2 | 3,
): Uint8Array[] {
  const length = hashBytes(suite);
  const all = rfcHkdf(SUITES[suite].hash, material, chainingKey, undefined, outputs * length);
  return Array.from({ length: outputs }, (_, i) => all.subarray(i * length, (i + 1) * length));
}

/** ENCRYPT: the ciphertext and its tag. */
export function seal(
  suite: NoiseSuite,
  key: Uint8Array,
  counter: number,
  aad: Uint8Array,
  plaintext: Uint8Array,
): Uint8Array {
  return SUITES[suite].cipher(key, nonceOf(suite, counter), aad).encrypt(plaintext);
}

/** DECRYPT: the plaintext, or `undefined` if the ciphertext is not one of this key, counter and additional data. */
export function open(
  suite: NoiseSuite,
  key: Uint8Array,
  counter: number,
  aad: Uint8Array,
  ciphertext: Uint8Array,
): Uint8Array | undefined {
  const cipher = SUITES[suite].cipher(key, nonceOf(suite, counter), aad);
  try {
    return cipher.decrypt(ciphertext);
  } catch {
    return undefined;
  }
}

function nonceOf(suite: NoiseSuite, counter: number): Uint8Array {
  const nonce = new Uint8Array(NOISE_NONCE_BYTES);
  writeNonce(suite, counter, nonce);
  return nonce;
}

/**
 * Writes the nonce of a counter into the first 12 bytes of `into`: four zeros, then 64 bits that are little-endian for ChaChaPoly
 * (Noise 12.3) and big-endian for AESGCM (12.4).
 *
 * @throws {RangeError} for a counter that is no safe integer of 0 or more, or fewer than 12 bytes
 */
export function writeNonce(suite: NoiseSuite, counter: number, into: Uint8Array): void {
  if (!Number.isSafeInteger(counter) || counter < 0) {
    throw new RangeError(`a counter of ${counter}`);
  }
  if (into.length < NOISE_NONCE_BYTES) {
    throw new RangeError(`a nonce of ${into.length} bytes, expected ${NOISE_NONCE_BYTES}`);
  }
  const littleEndian = suite === "ChaChaPoly_BLAKE2b";
  const high = Math.floor(counter / 2 ** 32);
  // The shifts see the counter modulo 2^32.
  for (let i = 0; i < 4; i++) {
    into[i] = 0;
    into[littleEndian ? 4 + i : 11 - i] = counter >>> (8 * i);
    into[littleEndian ? 8 + i : 7 - i] = high >>> (8 * i);
  }
}

/**
 * REKEY (Noise 4.2): the next key of a direction, from which nobody finds the way back to `key`. The counter goes on.
 *
 * @throws {RangeError} for a key of another length than 32 bytes
 */
export function rekey(suite: NoiseSuite, key: Uint8Array): Uint8Array {
  if (key.length !== NOISE_KEY_BYTES) {
    throw new RangeError(`a key of ${key.length} bytes, expected ${NOISE_KEY_BYTES}`);
  }
  const zeros = new Uint8Array(NOISE_KEY_BYTES);
  return SUITES[suite].cipher(key, REKEY_NONCE, NOTHING).encrypt(zeros).slice(0, NOISE_KEY_BYTES);
}
