/**
 * X25519 by node:crypto: the fastest on Node, Deno and Bun alike.
 *
 * @module
 */
import { findBuiltin, type NodeKey } from "./_node_builtins.ts";
import { PKCS8_PREFIX, SPKI_PREFIX, withPrefix, type X25519 } from "./_x25519_key.ts";

/** `undefined` where node:crypto or its X25519 is missing. */
export function nodeX25519(): X25519 | undefined {
  const crypto = findBuiltin("node:crypto");
  if (crypto === undefined) return undefined;
  const { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync } = crypto;
  const pair = (privateKey: NodeKey, publicKey: NodeKey) => ({
    publicKey: new Uint8Array(
      publicKey.export({ format: "der", type: "spki" }).subarray(SPKI_PREFIX.length),
    ),
    derive: (peer: Uint8Array) => {
      const key = withPrefix(SPKI_PREFIX, peer);
      const peerKey = createPublicKey({ key, format: "der", type: "spki" });
      // Not the Buffer that it is: nobody asked for one.
      return new Uint8Array(diffieHellman({ privateKey, publicKey: peerKey }));
    },
  });
  const generate = () => {
    const { privateKey, publicKey } = generateKeyPairSync("x25519");
    return pair(privateKey, publicKey);
  };
  try {
    const probe = generate();
    probe.derive(probe.publicKey);
  } catch {
    return undefined;
  }
  return {
    generate,
    from(raw) {
      const key = withPrefix(PKCS8_PREFIX, raw);
      const privateKey = createPrivateKey({ key, format: "der", type: "pkcs8" });
      key.fill(0);
      return pair(privateKey, createPublicKey(privateKey));
    },
  };
}
