/** What can happen to two sessions, for fast-check to choose from. */
import fc from "fast-check";
import type { LinkPlan } from "./mux_link.ts";
import type { SidePlan, StreamPlan } from "./mux_property_run.ts";

const size = fc.oneof(
  { weight: 3, arbitrary: fc.nat(200) },
  { weight: 3, arbitrary: fc.nat(20_000) },
  { weight: 1, arbitrary: fc.nat(200_000) },
);
export const line = (cut: fc.Arbitrary<LinkPlan["cut"]>): fc.Arbitrary<LinkPlan> =>
  fc.record({
    seed: fc.nat(2 ** 30),
    capacity: fc.constantFrom(1, 1000, 65536, 1_000_000),
    chunk: fc.constantFrom(700, 70_000, 700_000),
    stalls: fc.constantFrom(0, 5, 30),
    cut,
  });
export const NEVER: fc.Arbitrary<undefined> = fc.constant(undefined);
export const anyCut: fc.Arbitrary<LinkPlan["cut"]> = fc.record({
  direction: fc.constantFrom(0 as const, 1 as const),
  after: fc.oneof(fc.nat(300), fc.nat(100_000)),
  quiet: fc.boolean(),
});
export const writes: fc.Arbitrary<number[]> = fc.array(size, { maxLength: 5 });

/** A side that writes and reads to the end. */
export const orderlySide: fc.Arbitrary<SidePlan> = fc.record({
  ...{ writes, inTurn: fc.boolean() },
  writeEnd: fc.constant("closeWrite" as const),
  reads: fc.constant(Infinity),
  readEnd: fc.constant("nothing" as const),
  end: fc.constantFrom("close" as const, "nothing" as const),
});
export const anySide: fc.Arbitrary<SidePlan> = fc.record({
  ...{ writes, inTurn: fc.boolean() },
  writeEnd: fc.constantFrom("closeWrite" as const, "nothing" as const),
  reads: fc.oneof(fc.constant(Infinity), fc.nat(5)),
  readEnd: fc.constantFrom("closeRead" as const, "nothing" as const),
  end: fc.constantFrom("close" as const, "abort" as const, "nothing" as const),
});
export const streamsOf = (side: fc.Arbitrary<SidePlan>): fc.Arbitrary<StreamPlan[]> =>
  fc.array(
    fc.record({ opener: fc.constantFrom(0 as const, 1 as const), sides: fc.tuple(side, side) }),
    { minLength: 1, maxLength: 8 },
  );
