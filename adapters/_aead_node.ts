/**
 * The ciphers by node:crypto: OpenSSL on Node, Rust on Deno, BoringSSL on Bun, which has AES alone.
 *
 * @module
 */
import { type Aead, AEAD_TAG_BYTES, type AeadCipher, checkBox } from "./aead.ts";
import { findBuiltin, type NodeKey } from "./_node_builtins.ts";

const NAMES = { "ChaCha20-Poly1305": "chacha20-poly1305", "AES-256-GCM": "aes-256-gcm" } as const;
const OPTIONS = { authTagLength: AEAD_TAG_BYTES };

/** `undefined` where node:crypto or its cipher is missing. */
export function nodeAead(cipher: AeadCipher): Aead | undefined {
  const crypto = findBuiltin("node:crypto");
  if (crypto === undefined) return undefined;
  const { createCipheriv, createDecipheriv, createSecretKey } = crypto;
  const algorithm = NAMES[cipher];
  try {
    createCipheriv(algorithm, new Uint8Array(32), new Uint8Array(12), OPTIONS);
  } catch {
    return undefined;
  }
  /** Made once for each key: Node makes one for every cipher otherwise, which takes longer than a short message. */
  const keys = new WeakMap<Uint8Array, NodeKey>();
  const keyOf = (bytes: Uint8Array): NodeKey => {
    let key = keys.get(bytes);
    if (key === undefined) keys.set(bytes, key = createSecretKey(bytes));
    return key;
  };
  return {
    name: "node",
    cipher,
    seal(boxes) {
      for (const box of boxes) {
        checkBox(box);
        const { key, nonce, aad, input, output } = box;
        const sealing = createCipheriv(algorithm, keyOf(key), nonce, OPTIONS);
        if (aad.length > 0) sealing.setAAD(aad);
        output.set(sealing.update(input));
        sealing.final();
        output.set(sealing.getAuthTag(), input.length);
      }
    },
    open: (boxes) =>
      boxes.map((box) => {
        checkBox(box);
        const { key, nonce, aad, input } = box;
        const length = input.length - AEAD_TAG_BYTES;
        try {
          const opening = createDecipheriv(algorithm, keyOf(key), nonce, OPTIONS);
          if (aad.length > 0) opening.setAAD(aad);
          opening.setAuthTag(input.subarray(length));
          const { buffer, byteOffset } = opening.update(input.subarray(0, length));
          opening.final();
          // Not the Buffer that it is: nobody asked for one.
          return new Uint8Array(buffer, byteOffset, length);
        } catch {
          return undefined;
        }
      }),
  };
}
