/**
 * One interface for whatever does ChaCha20-Poly1305 (RFC 8439), with many messages at once; and the portable implementation.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";

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

/** An implementation of ChaCha20-Poly1305. */
export interface Aead {
  /** Who does it, for people. */
  readonly name: string;
  /** Seals all. A promise if it does so elsewhere; until then nothing of `boxes` may change. */
  seal(boxes: readonly SealBox[]): void | Promise<void>;
  /** Opens all, under the same conditions. */
  open(boxes: readonly OpenBox[]): Opened | Promise<Opened>;
}

/** The portable one, in JavaScript alone: what the others are tested against. */
export const nobleAead: Aead = {
  name: "noble",
  seal(boxes) {
    for (const { key, nonce, aad, input, output } of boxes) {
      chacha20poly1305(key, nonce, aad).encrypt(input, output);
    }
  },
  open: (boxes) =>
    boxes.map(({ key, nonce, aad, input }) => {
      try {
        return chacha20poly1305(key, nonce, aad).decrypt(input);
      } catch {
        return undefined;
      }
    }),
};
