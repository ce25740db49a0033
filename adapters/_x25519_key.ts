/**
 * What the implementations of X25519 have in common: pairs of keys, and the DER of keys (RFC 8410), which is the raw bytes behind a
 * constant.
 *
 * @module
 */

/** Bytes of a private key, of a public key, and of what two pairs agree on. */
export const X25519_KEY_BYTES = 32;

/** A private key, which stays in the closure of `derive` and shows in no log, and its public key. */
export interface KeyPair {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** The agreement alone; `agree` checks both its argument and its result. */
  readonly derive: (publicKey: Uint8Array) => Uint8Array | Promise<Uint8Array>;
}

/** An implementation. Whoever calls it has checked the lengths. */
export interface X25519 {
  /** A new pair. */
  readonly generate: () => KeyPair | Promise<KeyPair>;
  /** The pair of a private key, of which it keeps a copy. */
  readonly from: (privateKey: Uint8Array) => KeyPair | Promise<KeyPair>;
}

/** SubjectPublicKeyInfo: id-X25519, then a bit string of 32 bytes. */
export const SPKI_PREFIX: Uint8Array = Uint8Array.of(
  ...[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00],
);

/** PrivateKeyInfo: version 0, id-X25519, then an octet string in an octet string of 34 bytes. */
export const PKCS8_PREFIX: Uint8Array = Uint8Array.of(
  ...[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e],
  ...[0x04, 0x22, 0x04, 0x20],
);

/** A key in memory of its own, so that it can be overwritten after use. */
export function withPrefix(prefix: Uint8Array, key: Uint8Array): Uint8Array {
  const der = new Uint8Array(prefix.length + key.length);
  der.set(prefix);
  der.set(key, prefix.length);
  return der;
}
