/**
 * Key agreement by X25519 (RFC 7748), by the fastest that this runtime has: node:crypto, else WebCrypto, else JavaScript alone.
 *
 * @module
 */
import { type KeyPair, type X25519, X25519_KEY_BYTES } from "./_x25519_key.ts";
import { nobleX25519 } from "./_x25519_noble.ts";
import { nodeX25519 } from "./_x25519_node.ts";
import { webX25519 } from "./_x25519_web.ts";

export { type KeyPair, X25519_KEY_BYTES } from "./_x25519_key.ts";

/** Loaded once, and has no state of its own. */
let best: Promise<X25519> | undefined;

async function load(): Promise<X25519> {
  return nodeX25519() ?? await webX25519() ?? nobleX25519;
}

/**
 * Makes a new pair of keys.
 *
 * @example
 * ```ts
 * import { agree, generateKeyPair } from "./x25519.ts";
 *
 * const [ours, theirs] = [await generateKeyPair(), await generateKeyPair()];
 * const secret = await agree(ours, theirs.publicKey); // 32 bytes, the same as agree(theirs, ours.publicKey)
 * ```
 */
export async function generateKeyPair(): Promise<KeyPair> {
  return (await (best ??= load())).generate();
}

/**
 * The pair of a raw private key of 32 bytes, of which it keeps a copy.
 *
 * @throws {TypeError} if it is no `Uint8Array`
 * @throws {RangeError} if it has another length
 */
export async function keyPairFrom(privateKey: Uint8Array): Promise<KeyPair> {
  requireKey("private", privateKey);
  // Before we wait: the caller may overwrite it then. Not slice(), which gives a Buffer's own memory.
  const copy = new Uint8Array(privateKey);
  try {
    return await (await (best ??= load())).from(copy);
  } finally {
    copy.fill(0);
  }
}

/**
 * What `pair` and the owner of `publicKey` have in common: 32 bytes, not yet a key for a cipher.
 *
 * @throws {TypeError} if `publicKey` is no `Uint8Array`
 * @throws {RangeError} if it has another length than 32 bytes, or is a point of low order: with those everyone
 * agrees on zeros, whatever the private key
 */
export async function agree(pair: KeyPair, publicKey: Uint8Array): Promise<Uint8Array> {
  requireKey("public", publicKey);
  let secret: Uint8Array;
  try {
    secret = await pair.derive(publicKey);
  } catch (cause) {
    throw new RangeError("agreeing on a key: the public key is not one to agree with", { cause });
  }
  // Every implementation refuses them by itself; RFC 7748 6.1 has us make sure.
  if (secret.every((byte) => byte === 0)) {
    throw new RangeError("agreeing on a key: the public key is a point of low order");
  }
  return secret;
}

function requireKey(kind: "private" | "public", key: Uint8Array): void {
  if (!(key instanceof Uint8Array)) throw new TypeError(`a ${kind} key is a Uint8Array`);
  if (key.length !== X25519_KEY_BYTES) {
    throw new RangeError(`a ${kind} key of ${key.length} bytes, expected ${X25519_KEY_BYTES}`);
  }
}
