/**
 * ChaCha20-Poly1305 by node:crypto: OpenSSL on Node, Rust on Deno. Bun's lacks the cipher.
 *
 * @module
 */
import { type Aead, AEAD_TAG_BYTES } from "./aead.ts";
import { findBuiltin, type NodeKey } from "./_node_builtins.ts";

const CIPHER = "chacha20-poly1305";
const OPTIONS = { authTagLength: AEAD_TAG_BYTES };

/** `undefined` where node:crypto or its cipher is missing. */
export function nodeAead(): Aead | undefined {
  const crypto = findBuiltin("node:crypto");
  if (crypto === undefined) return undefined;
  const { createCipheriv, createDecipheriv, createSecretKey } = crypto;
  try {
    createCipheriv(CIPHER, new Uint8Array(32), new Uint8Array(12), OPTIONS);
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
    seal(boxes) {
      for (const { key, nonce, aad, input, output } of boxes) {
        const cipher = createCipheriv(CIPHER, keyOf(key), nonce, OPTIONS);
        cipher.setAAD(aad);
        output.set(cipher.update(input));
        cipher.final();
        output.set(cipher.getAuthTag(), input.length);
      }
    },
    open: (boxes) =>
      boxes.map(({ key, nonce, aad, input }) => {
        const length = input.length - AEAD_TAG_BYTES;
        try {
          const decipher = createDecipheriv(CIPHER, keyOf(key), nonce, OPTIONS);
          decipher.setAAD(aad);
          decipher.setAuthTag(input.subarray(length));
          const { buffer, byteOffset } = decipher.update(input.subarray(0, length));
          decipher.final();
          // Not the Buffer that it is: nobody asked for one.
          return new Uint8Array(buffer, byteOffset, length);
        } catch {
          return undefined;
        }
      }),
  };
}
