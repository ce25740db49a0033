/**
 * ChaCha20-Poly1305 by WebCrypto, which works in other threads: the more messages at once, the faster.
 *
 * @module
 */
import type { Aead } from "./aead.ts";

const NAME = "ChaCha20-Poly1305";

/** `undefined` where WebCrypto or its cipher is missing. */
export async function webAead(): Promise<Aead | undefined> {
  const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (subtle === undefined) return undefined;
  const importKey = (key: Uint8Array) =>
    // A format of its own, which TypeScript does not know yet.
    subtle.importKey("raw-secret" as "raw", key as BufferSource, { name: NAME }, false, [
      "encrypt",
      "decrypt",
    ]);
  /** As long as the session has its key. */
  const keys = new WeakMap<Uint8Array, Promise<CryptoKey>>();
  const keyOf = (key: Uint8Array): Promise<CryptoKey> => {
    const known = keys.get(key);
    if (known !== undefined) return known;
    const imported = importKey(key);
    keys.set(key, imported);
    return imported;
  };
  const parameters = (nonce: Uint8Array, aad: Uint8Array) => ({
    name: NAME,
    iv: nonce as BufferSource,
    additionalData: aad as BufferSource,
  });
  try {
    const key = await importKey(new Uint8Array(32));
    const nonce = new Uint8Array(12);
    await subtle.encrypt(parameters(nonce, new Uint8Array(0)), key, new Uint8Array(1));
  } catch {
    return undefined;
  }
  return {
    name: "webcrypto",
    async seal(boxes) {
      await Promise.all(boxes.map(async ({ key, nonce, aad, input, output }) => {
        const imported = await keyOf(key);
        const sealed = subtle.encrypt(parameters(nonce, aad), imported, input as BufferSource);
        output.set(new Uint8Array(await sealed));
      }));
    },
    open: (boxes) =>
      Promise.all(boxes.map(async ({ key, nonce, aad, input }) => {
        const imported = await keyOf(key);
        try {
          const opened = subtle.decrypt(parameters(nonce, aad), imported, input as BufferSource);
          return new Uint8Array(await opened);
        } catch {
          return undefined;
        }
      })),
  };
}
