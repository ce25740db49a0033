/**
 * X25519 by WebCrypto: what browsers have. Its private keys cannot be exported.
 *
 * @module
 */
import { PKCS8_PREFIX, withPrefix, type X25519, X25519_KEY_BYTES } from "./_x25519_key.ts";

const X25519_NAME = { name: "X25519" };

/** The base point of RFC 7748 4.1: a private key agrees with it on its own public key. */
const BASE_POINT = Uint8Array.of(9, ...new Uint8Array(X25519_KEY_BYTES - 1));

/** `undefined` where WebCrypto or its X25519 is missing. */
export async function webX25519(): Promise<X25519 | undefined> {
  const subtle: SubtleCrypto | undefined = globalThis.crypto?.subtle;
  if (subtle === undefined) return undefined;
  const agreement = (privateKey: CryptoKey) => async (peer: Uint8Array) => {
    const key = await subtle.importKey("raw", peer as BufferSource, X25519_NAME, true, []);
    const parameters = { ...X25519_NAME, public: key };
    return new Uint8Array(await subtle.deriveBits(parameters, privateKey, 8 * X25519_KEY_BYTES));
  };
  const generate = async () => {
    const { privateKey, publicKey } = await subtle.generateKey(X25519_NAME, false, [
      "deriveBits",
    ]) as CryptoKeyPair;
    return {
      publicKey: new Uint8Array(await subtle.exportKey("raw", publicKey)),
      derive: agreement(privateKey),
    };
  };
  try {
    const probe = await generate();
    await probe.derive(probe.publicKey);
  } catch {
    return undefined;
  }
  return {
    generate,
    async from(raw) {
      const key = withPrefix(PKCS8_PREFIX, raw);
      const privateKey = await subtle.importKey("pkcs8", key as BufferSource, X25519_NAME, false, [
        "deriveBits",
      ]);
      key.fill(0);
      const derive = agreement(privateKey);
      return { publicKey: await derive(BASE_POINT), derive };
    },
  };
}
