/**
 * X25519 in JavaScript alone: what the others are tested against. It is ten times slower.
 *
 * @module
 */
import { x25519 } from "@noble/curves/ed25519.js";
import type { X25519 } from "./_x25519_key.ts";

/** The portable one. */
export const nobleX25519: X25519 = {
  generate: () => nobleX25519.from(x25519.utils.randomSecretKey()),
  from(privateKey) {
    const secret = new Uint8Array(privateKey);
    return {
      publicKey: x25519.getPublicKey(secret),
      derive: (publicKey) => x25519.getSharedSecret(secret, publicKey),
    };
  },
};
