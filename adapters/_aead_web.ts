/**
 * The ciphers by WebCrypto, which works in other threads: the more messages at once, the faster.
 *
 * @module
 */
import { type Aead, type AeadCipher, checkBox } from "./aead.ts";

/** ChaCha20-Poly1305 has a key format of its own, which TypeScript does not know yet. */
const ALGORITHMS = {
  "ChaCha20-Poly1305": { name: "ChaCha20-Poly1305", format: "raw-secret" as "raw" },
  "AES-256-GCM": { name: "AES-GCM", format: "raw" },
} as const;

/** `undefined` where WebCrypto or its cipher is missing. */
export async function webAead(cipher: AeadCipher): Promise<Aead | undefined> {
  const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (subtle === undefined) return undefined;
  const { name, format } = ALGORITHMS[cipher];
  const importKey = (key: Uint8Array) =>
    subtle.importKey(format, key as BufferSource, { name }, false, ["encrypt", "decrypt"]);
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
    name,
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
    cipher,
    async seal(boxes) {
      await Promise.all(boxes.map(async (box) => {
        checkBox(box);
        const { key, nonce, aad, input, output } = box;
        const imported = await keyOf(key);
        const sealed = subtle.encrypt(parameters(nonce, aad), imported, input as BufferSource);
        output.set(new Uint8Array(await sealed));
      }));
    },
    open: (boxes) =>
      Promise.all(boxes.map(async (box) => {
        checkBox(box);
        const { key, nonce, aad, input } = box;
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
