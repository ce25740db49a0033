/** Two sessions of v1 over a bad line, and applications that do anything in any order. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import { deriveKey, FLAG, FrameDecoder, type MuxStream } from "@trunkline/sockets/mux";
import { PSK } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import {
  anyCut,
  anySide,
  line,
  NEVER,
  orderlySide,
  streamsOf,
  writes,
} from "./mux_property_plans.ts";
import {
  assertAllArrived,
  check,
  endOf,
  type Farewell,
  type Plan,
  Run,
  run,
  TEXT,
  within,
} from "./mux_property_run.ts";
import { unhandledDuring } from "./unhandled.ts";

const options: fc.Arbitrary<Plan["options"]> = fc.constantFrom(1, 3, 128).map((maxPendingOpens) => [
  { maxPendingOpens },
  { maxPendingOpens },
]);

const orderly: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: streamsOf(orderlySide),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.constant(undefined),
});

check("mux", "on a bad line all arrives, in order, to the end", orderly, 50, async (plan) => {
  await assertAllArrived(plan, await run(plan));
});

const anything: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: streamsOf(anySide),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both", "abort"),
  patience: fc.nat(40),
});

check(
  "mux",
  "whatever applications do, what is read is what was written",
  anything,
  60,
  async (plan) => {
    await run(plan);
  },
);

const severed: fc.Arbitrary<Plan> = fc.record({
  line: line(anyCut),
  streams: streamsOf(fc.oneof(orderlySide, anySide)),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.nat(40),
});

check(
  "mux",
  "a line that breaks anywhere is an error, and no end of a stream",
  severed,
  60,
  async (plan) => {
    const { muxes, wire } = await run(plan);
    if (!wire.broken()) return;
    for (const mux of muxes) {
      const end = await endOf(mux);
      assert(["end", "truncated", "timeout"].includes(end), end);
    }
  },
);

const CREDIT_BYTES = 32768;

test(
  "mux: windows return to full, but for what is not worth a frame",
  { timeout: 60_000 },
  async () => {
    const property = fc.asyncProperty(
      line(NEVER),
      fc.array(fc.tuple(writes, writes), { minLength: 1, maxLength: 5 }),
      async (plan, streams) => {
        const it = new Run(plan, [{}, {}]);
        const [near, far] = it.muxes;
        const pairs: [MuxStream, MuxStream][] = [];
        for (let i = 0; i < streams.length; i++) {
          pairs.push([await near.openStream(), await far.acceptStream()]);
        }
        const send = async (from: MuxStream, to: MuxStream, sizes: readonly number[]) => {
          let left = sizes.reduce((sum, size) => sum + size, 0);
          const written = sizes.map((size) => from.write(TEXT.subarray(0, size)));
          while (left > 0) left -= (await to.read())!.length;
          assertEquals(left, 0);
          await Promise.all(written);
        };
        const sending = pairs.flatMap(([a, b], i) => [
          send(a, b, streams[i]![0]),
          send(b, a, streams[i]![1]),
        ]);
        await within(5000, "sending", Promise.all(sending));
        // A last word on each stream, behind all grants.
        for (const [a, b] of pairs) await Promise.all([send(a, b, [1]), send(b, a, [1])]);

        const key = deriveKey(PSK);
        const [there, back] = it.wire.delivered.map((chunks) => {
          const decoder = new FrameDecoder(key);
          return chunks.flatMap((chunk) => [...decoder.push(chunk)]);
        });
        for (const [frames, answers] of [[there!, back!], [back!, there!]] as const) {
          for (const [{ id }] of pairs) {
            const total = (flags: number, of: typeof frames) =>
              of.filter((it) => it.flags === flags && it.id === id)
                .reduce((sum, { length }) => sum + length, 0);
            const held = total(FLAG.DATA, frames) - total(FLAG.WINDOW_UPDATE, answers);
            assert(held >= 0 && held < CREDIT_BYTES, `stream ${id}: ${held} bytes are not granted`);
          }
          for (const { length } of frames) assert(length <= 65536);
        }
        await within(5000, "closing", it.close("both"));
        assertEquals(await Promise.all(it.muxes.map(endOf)), ["end", "end"]);
        for (const mux of it.muxes) assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      },
    );
    const unhandled = await unhandledDuring(() =>
      fc.assert(property, { numRuns: 12, seed: 20261120, endOnFailure: true })
    );
    assertEquals(unhandled, []);
  },
);
