/**
 * Fuzzes the management protocol and the connection manager for longer than CI does: `deno task fuzz [rounds] [seed]`, or FUZZ_ROUNDS and
 * FUZZ_SEED. Other runtimes run this file as it is. The first round that fails ends it, and tells its seed.
 */
import process from "node:process";
import { MANAGER } from "../tests/cmgr_model_plans.ts";
import { PROPERTIES, runProperty } from "../tests/ovpn_fuzz_rounds.ts";

const [rounds = 20_000, first = 1] = [
  process.argv[2] ?? process.env["FUZZ_ROUNDS"],
  process.argv[3] ?? process.env["FUZZ_SEED"],
].map((text) => text === undefined ? undefined : Number(text));
if (!Number.isSafeInteger(rounds) || !Number.isSafeInteger(first)) {
  throw new RangeError("rounds and seed are whole numbers");
}

for (const property of [...PROPERTIES, MANAGER]) {
  const start = performance.now();
  await runProperty(property, first, rounds);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${rounds} rounds in ${seconds} s: ${property.name}`);
}
