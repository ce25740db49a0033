/**
 * Key pairs that say who one is.
 *
 * @module
 */
import { keyPairFrom } from "../adapters/x25519.ts";
import type { MuxIdentity } from "./config.ts";

/** A new identity. */
export interface GeneratedIdentity extends MuxIdentity {
  /** 32 bytes, which the peers put into their `knownPeers`. */
  readonly publicKey: Uint8Array;
}

/**
 * Makes an identity for the option `identity`: keep `privateKey` secret, and give `publicKey` to the peers.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { client, generateIdentity, server } from "@trunkline/sockets/mux";
 *
 * const [alice, bob] = [await generateIdentity(), await generateIdentity()];
 * const psk = crypto.getRandomValues(new Uint8Array(32));
 * const [near, far] = connPair();
 * const ours = client(near, { psk, protocol: "v2", identity: alice, knownPeers: [bob.publicKey] });
 * const theirs = server(far, { psk, protocol: "v2", identity: bob, knownPeers: [alice.publicKey] });
 * await Promise.all([ours.ready, theirs.ready]);
 * console.log(theirs.peerKey); // alice.publicKey
 * await ours.close();
 * ```
 */
export async function generateIdentity(): Promise<GeneratedIdentity> {
  // Any 32 bytes are a private key of Curve25519 (RFC 7748, 5).
  const privateKey = crypto.getRandomValues(new Uint8Array(32));
  const { publicKey } = await keyPairFrom(privateKey);
  return { privateKey, publicKey: publicKey.slice() };
}
