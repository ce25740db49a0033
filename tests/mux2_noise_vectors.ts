/** The published handshakes in tests/fixtures/mux2, and keys to test with. */
import { readFileSync } from "node:fs";
import { keyPairFrom } from "../adapters/x25519.ts";
import { Handshake, type NoisePattern } from "../mux/v2/noise.ts";
import type { NoiseSuite } from "../mux/v2/suite.ts";

/** One of them, all bytes in hexadecimal. */
export interface NoiseVector {
  readonly protocol_name: string;
  readonly init_prologue: string;
  readonly init_psks: readonly string[];
  readonly init_static?: string;
  readonly init_ephemeral: string;
  readonly resp_prologue: string;
  readonly resp_psks: readonly string[];
  readonly resp_static?: string;
  readonly resp_ephemeral: string;
  readonly handshake_hash: string;
  /** Those of the handshake, then records; by turns. */
  readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
}

export const vectors: readonly NoiseVector[] = JSON.parse(
  readFileSync(new URL("fixtures/mux2/noise_vectors.json", import.meta.url), "utf8"),
);

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/** Points with which everyone agrees on zeros: of order 1, 2, 4 and 8, and those that are the same modulo 2^255 - 19. */
export const LOW_ORDER_KEYS: readonly Uint8Array[] = [
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  `ec${"ff".repeat(30)}7f`,
  `ed${"ff".repeat(30)}7f`,
  `ee${"ff".repeat(30)}7f`,
].map(unhex);

/** A side of a published handshake, with its keys. */
export async function sideOf(vector: NoiseVector, initiator: boolean): Promise<Handshake> {
  const { pattern, suite } = nameOf(vector);
  const [prologue, psks, staticKey, ephemeralKey] = initiator
    ? [vector.init_prologue, vector.init_psks, vector.init_static, vector.init_ephemeral]
    : [vector.resp_prologue, vector.resp_psks, vector.resp_static, vector.resp_ephemeral];
  return new Handshake({
    pattern,
    suite,
    initiator,
    prologue: unhex(prologue),
    psk: unhex(psks[0]!),
    staticKey: staticKey === undefined ? undefined : await keyPairFrom(unhex(staticKey)),
    ephemeralKey: await keyPairFrom(unhex(ephemeralKey)),
  });
}

/** The pattern and the suite of a vector. */
export function nameOf(vector: NoiseVector): { pattern: NoisePattern; suite: NoiseSuite } {
  const [, pattern, suite] = /^Noise_(.+)_25519_(.+)$/.exec(vector.protocol_name) ?? [];
  return { pattern: pattern as NoisePattern, suite: suite as NoiseSuite };
}
