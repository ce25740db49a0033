/**
 * One interface for whatever does ChaCha20-Poly1305 (RFC 8439) or AES-256-GCM (NIST SP 800-38D), with many messages at once; and the
 * portable implementations.
 *
 * @module
 */
import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";

/** The ciphers there are. Both have keys of 32 bytes, nonces of 12 and tags of 16. */
export type AeadCipher = "ChaCha20-Poly1305" | "AES-256-GCM";

/** Bytes of the tag behind a ciphertext. */
export const AEAD_TAG_BYTES = 16;

/** A message to seal. */
export interface SealBox {
  /** 32 bytes. Use one object as long as the key is the same: what is made of it is kept. */
  readonly key: Uint8Array;
  /** 12 bytes, never twice with one key. */
  readonly nonce: Uint8Array;
  /** What is authenticated with it and sent in clear. */
  readonly aad: Uint8Array;
  /** The plaintext. */
  readonly input: Uint8Array;
  /** Where the ciphertext and its tag go: 16 bytes more than `input`. */
  readonly output: Uint8Array;
}

/** A message to open. */
export interface OpenBox {
  /** As in {@linkcode SealBox}. */
  readonly key: Uint8Array;
  /** 12 bytes. */
  readonly nonce: Uint8Array;
  /** What was authenticated with it. */
  readonly aad: Uint8Array;
  /** The ciphertext and its tag. */
  readonly input: Uint8Array;
}

/** For each message its plaintext in memory of its own, or `undefined` if it is forged. */
export type Opened = readonly (Uint8Array | undefined)[];

/** An implementation of a cipher. */
export interface Aead {
  /** Who does it, for people. */
  readonly name: string;
  /** What is done. @default "ChaCha20-Poly1305" */
  readonly cipher?: AeadCipher | undefined;
  /** Seals all. A promise if it does so elsewhere; until then nothing of `boxes` may change. */
  seal(boxes: readonly SealBox[]): void | Promise<void>;
  /** Opens all, under the same conditions. */
  open(boxes: readonly OpenBox[]): Opened | Promise<Opened>;
}

const KEY_BYTES = 32;
const NONCE_BYTES = 12;

/**
 * Refuses a key and a nonce of another length: some implementations would take a shorter key for AES-128, or write behind their memory.
 *
 * @throws {RangeError}
 */
export function checkBox({ key, nonce }: Pick<OpenBox, "key" | "nonce">): void {
  if (key.length !== KEY_BYTES) {
    throw new RangeError(`a key for an AEAD has ${KEY_BYTES} bytes, not ${key.length}`);
  }
  if (nonce.length !== NONCE_BYTES) {
    throw new RangeError(`a nonce for an AEAD has ${NONCE_BYTES} bytes, not ${nonce.length}`);
  }
}

/** The portable ChaCha20-Poly1305, in JavaScript alone: what the others are tested against. */
export const nobleAead: Aead = {
  name: "noble",
  seal(boxes) {
    for (const box of boxes) {
      checkBox(box);
      const { key, nonce, aad, input, output } = box;
      chacha20poly1305(key, nonce, aad).encrypt(input, output);
    }
  },
  open: (boxes) =>
    boxes.map((box) => {
      checkBox(box);
      const { key, nonce, aad, input } = box;
      try {
        return chacha20poly1305(key, nonce, aad).decrypt(input);
      } catch {
        return undefined;
      }
    }),
};

/** The portable AES-256-GCM, as {@linkcode nobleAead} is for the other cipher. */
export const nobleAesAead: Aead = {
  name: "noble",
  cipher: "AES-256-GCM",
  seal(boxes) {
    for (const box of boxes) {
      checkBox(box);
      const { key, nonce, aad, input, output } = box;
      output.set(gcm(key, nonce, aad).encrypt(input));
    }
  },
  open: (boxes) =>
    boxes.map((box) => {
      checkBox(box);
      const { key, nonce, aad, input } = box;
      try {
        return gcm(key, nonce, aad).decrypt(input);
      } catch {
        return undefined;
      }
    }),
};
