/** The published handshakes in tests/fixtures/mux2. */
import { readFileSync } from "node:fs";

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
