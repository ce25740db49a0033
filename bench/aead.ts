/**
 * Sealing and opening alone, with each AEAD that this runtime has: where the thresholds of adapters/aead_load.ts and the tables in
 * docs/mux.md come from.
 *
 *     node bench/aead.ts
 *     deno run -A bench/aead.ts
 *     bun bench/aead.ts
 *
 * `--peers=DIRECTORY` names where sodium-native is installed, see bench/mux.ts; `--rounds=5` how often each is measured;
 * `--cipher=AES-256-GCM` is the other cipher, without associated data. Shows medians, in microseconds for a message.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type Aead, AEAD_TAG_BYTES, type OpenBox, type SealBox } from "../adapters/aead.ts";
import {
  type AeadCipher,
  type AeadName,
  fromSodium,
  loadAead,
  type SodiumLike,
} from "@trunkline/sockets/mux";
import { median, positive, runtimeName } from "./figures.ts";
import { requireFrom } from "./mux_stack.ts";

const NAMES: readonly AeadName[] = ["noble", "libsodium", "node", "webcrypto"];
const LENGTHS = [64, 1024, 2048, 4096, 8192, 65536];
/** Messages that are given at once: one as on a quiet session, eight as under load. */
const BATCHES = [1, 8];
const SAMPLE_MS = 30;

const { values } = parseArgs({
  options: {
    peers: { type: "string" },
    rounds: { type: "string", default: "5" },
    cipher: { type: "string", default: "ChaCha20-Poly1305" },
  },
});

const cipher = values.cipher as AeadCipher;
const aad = new Uint8Array(cipher === "AES-256-GCM" ? 0 : 36);

async function aeads(): Promise<Aead[]> {
  const found: Aead[] = [];
  for (const name of NAMES) {
    try {
      found.push(await loadAead(name, cipher));
    } catch {
      // Not here.
    }
  }
  if (cipher !== "ChaCha20-Poly1305") return found;
  try {
    found.push(fromSodium(requireFrom<SodiumLike>(values.peers, "sodium-native")));
  } catch {
    // Not installed.
  }
  return found;
}

/** Microseconds for a message of `boxes`. */
async function time(count: number, work: () => unknown): Promise<number> {
  let done = 0;
  const start = performance.now();
  let now = start;
  while (now - start < SAMPLE_MS) {
    for (let i = 0; i < 8; i++) {
      const working = work();
      if (working instanceof Promise) await working;
    }
    done += 8 * count;
    now = performance.now();
  }
  return 1000 * (now - start) / done;
}

async function sample(aead: Aead, length: number, count: number): Promise<number[]> {
  const key = crypto.getRandomValues(new Uint8Array(32));
  const sealing = Array.from({ length: count }, (_, i): SealBox => ({
    key,
    nonce: new Uint8Array(12).fill(i),
    aad,
    input: new Uint8Array(length).fill(7),
    output: new Uint8Array(length + AEAD_TAG_BYTES),
  }));
  const opening = sealing.map(({ nonce, output }): OpenBox => ({ key, nonce, aad, input: output }));
  const seal = await time(count, () => aead.seal(sealing));
  return [seal, await time(count, () => aead.open(opening))];
}

const rounds = positive("rounds", values.rounds);
console.log(runtimeName());
const found = await aeads();
for (const count of BATCHES) {
  console.log(`\nMicroseconds to seal / to open a message, ${count} at once`);
  console.log("bytes".padEnd(16) + LENGTHS.map((length) => String(length).padStart(16)).join(""));
  const samples = found.map(() => LENGTHS.map((): number[][] => []));
  for (let round = 0; round < rounds; round++) {
    for (const [i, aead] of found.entries()) {
      for (const [j, length] of LENGTHS.entries()) {
        samples[i]![j]!.push(await sample(aead, length, count));
      }
    }
  }
  for (const [i, aead] of found.entries()) {
    const cells = samples[i]!.map((both) => {
      const of = (direction: number) => median(both.map((it) => it[direction]!)).toFixed(1);
      return `${of(0)} / ${of(1)}`.padStart(16);
    });
    console.log(aead.name.padEnd(16) + cells.join(""));
  }
}
