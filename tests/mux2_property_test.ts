/** Two sessions of v2 over a bad line, with any options, and applications that do anything in any order. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import type { MuxOptions, MuxStream } from "@trunkline/sockets/mux";
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
  type SidePlan,
  TEXT,
  within,
} from "./mux_property_run.ts";
import { unhandledDuring } from "./unhandled.ts";

const side: fc.Arbitrary<Partial<MuxOptions>> = fc.record({
  rekeyRecords: fc.constantFrom(1, 2, 7, 65536),
  rekeyBytes: fc.constantFrom(1, 5000, 2 ** 30),
  padBytes: fc.constantFrom(1, 2, 255, 4096),
  windowBytes: fc.constantFrom(5000, 131_072, 1_000_000),
  maxStreamWindowBytes: fc.constantFrom(5000, 2 ** 24),
  maxSessionWindowBytes: fc.constantFrom(1, 100_000, 2 ** 26),
  maxStreams: fc.constantFrom(1, 3, 65536),
  maxPendingAccepts: fc.constantFrom(1, 3, 4096),
});
/** Of both sides, which agree on nothing but the protocol. */
const options: fc.Arbitrary<Plan["options"]> = fc.tuple(
  fc.constantFrom("ChaChaPoly_BLAKE2b" as const, "AESGCM_SHA256" as const),
  side,
  side,
).map(([suite, near, far]) => [
  { ...near, protocol: "v2", suites: [suite] },
  { ...far, protocol: "v2" },
]);

const withCodes: fc.Arbitrary<SidePlan> = fc.tuple(
  anySide,
  fc.record({
    readEnd: fc.constantFrom("stop" as const, "closeRead" as const, "nothing" as const),
    end: fc.constantFrom("reset" as const, "abort" as const, "close" as const, "nothing" as const),
    code: fc.oneof(fc.nat(3), fc.constantFrom(127, 128, 0xffffffff)),
  }),
).map(([plan, codes]) => ({ ...plan, ...codes }));

const prioritized = (side: fc.Arbitrary<SidePlan>): fc.Arbitrary<Plan["streams"]> =>
  streamsOf(side).chain((streams) =>
    fc.array(fc.nat(7), { minLength: streams.length, maxLength: streams.length })
      .map((priorities) => streams.map((it, i) => ({ ...it, priority: priorities[i]! })))
  );

const orderly: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: prioritized(orderlySide),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.constant(undefined),
});

check("mux v2", "on a bad line all arrives, in order, to the end", orderly, 30, async (plan) => {
  const it = await run(plan);
  await assertAllArrived(plan, it);
  for (const mux of it.muxes) assertEquals(mux.stats().suite, plan.options[0].suites![0]);
});

const anything: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: prioritized(withCodes),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both", "abort"),
  patience: fc.oneof(fc.nat(40), fc.nat(200)),
});

check(
  "mux v2",
  "whatever applications do, what is read is what was written, and codes are those given",
  anything,
  60,
  async (plan) => {
    await run(plan);
  },
);

const severed: fc.Arbitrary<Plan> = fc.record({
  line: line(anyCut),
  streams: prioritized(fc.oneof(orderlySide, withCodes)),
  options,
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.nat(40),
});

check(
  "mux v2",
  "a line that breaks anywhere is an error, and no end of a stream",
  severed,
  40,
  async (plan) => {
    const { muxes, wire } = await run(plan);
    if (!wire.broken()) return;
    for (const [i, mux] of muxes.entries()) {
      const end = await endOf(mux);
      // A client that has no answer yet cannot tell that from a server that does not want it.
      const possible = ["end", "truncated", "timeout", ...i === 0 ? ["auth-failed"] : []];
      assert(possible.includes(end), end);
    }
  },
);

test("mux v2: windows return to more than half", { timeout: 60_000 }, async () => {
  const property = fc.asyncProperty(
    line(NEVER),
    options,
    fc.array(fc.tuple(writes, writes), { minLength: 1, maxLength: 5 }),
    async (plan, options, streams) => {
      const limits = { maxStreams: 65536, maxPendingAccepts: 4096, closeTimeoutMs: 5000 };
      const [first, second] = options.map((it) => ({
        ...it,
        ...limits,
        // A bad line takes its time for what nobody reads.
        windowBytes: Math.min(it.windowBytes!, 131_072),
      }));
      const it = new Run(plan, [first!, second!]);
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
      // Nobody reads these: less than half of a window is not granted again.
      const half = pairs.flatMap(([a, b]) => [
        a.write(new Uint8Array(second!.windowBytes / 2)),
        b.write(new Uint8Array(first!.windowBytes / 2)),
      ]);
      await within(5000, "sending half a window", Promise.all(half));
      await within(5000, "closing", it.close("both"));
      assertEquals(await Promise.all(it.muxes.map(endOf)), ["end", "end"]);
      for (const mux of it.muxes) assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
    },
  );
  const unhandled = await unhandledDuring(() =>
    fc.assert(property, { numRuns: 12, seed: 20261120, endOnFailure: true })
  );
  assertEquals(unhandled, []);
});
