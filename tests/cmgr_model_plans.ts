/** What may happen to a manager: for the tests, and for `deno task fuzz`. */
import fc from "fast-check";
import { World } from "./cmgr_model.ts";
import { MemoryNet } from "./cmgr_model_net.ts";
import type { Limits, Place, Plan, Step } from "./cmgr_model_step.ts";
import type { Property } from "./ovpn_fuzz_rounds.ts";

const nat = fc.nat(20);
const yes = fc.boolean();
const seldom = fc.nat(5).map((n) => n === 0);
const size = fc.oneof(
  { weight: 6, arbitrary: fc.nat(200) },
  { weight: 2, arbitrary: fc.nat(20_000) },
);

const steps: { readonly [Name in Step["do"]]: [number, fc.Arbitrary<Step & { do: Name }>] } = {
  listen: [3, step("listen", { unix: yes, sink: nat })],
  dial: [6, step("dial", { at: nat, stays: seldom })],
  connect: [
    4,
    step("connect", {
      ...{ id: fc.nat(3), unix: yes, sink: nat },
      ...{ replace: seldom, reconnect: yes, stays: seldom },
    }),
  ],
  adopt: [3, step("adopt", { id: fc.nat(3), sink: nat, again: yes })],
  write: [10, step("write", { to: nat, size, byId: yes })],
  broadcast: [
    3,
    step("broadcast", { size, slow: fc.constantFrom("buffer", "skip", "close") }),
  ],
  peerWrite: [10, step("peerWrite", { of: nat, sizes: fc.array(size, { maxLength: 5 }) })],
  peerEnd: [
    2,
    step("peerEnd", { of: nat, how: fc.constantFrom("half", "whole", "reset"), rest: yes }),
  ],
  stallPeer: [2, step("stallPeer", { of: nat })],
  stallSink: [2, step("stallSink", { sink: nat })],
  close: [2, step("close", { which: nat, discard: seldom })],
  closeWrite: [1, step("closeWrite", { which: nat })],
  closeListener: [1, step("closeListener", { at: nat, sessions: yes, discard: seldom })],
  pause: [4, step("pause", { ms: fc.nat(3) })],
};

function step<Name extends Step["do"]>(
  name: Name,
  parts: { [Part in Exclude<keyof (Step & { do: Name }), "do">]: fc.Arbitrary<unknown> },
): fc.Arbitrary<Step & { do: Name }> {
  return fc.record({ do: fc.constant(name), ...parts }) as unknown as fc.Arbitrary<
    Step & { do: Name }
  >;
}

const limits: fc.Arbitrary<Limits> = fc.record({
  framing: fc.constantFrom("raw", "raw", "lines", "length-prefixed"),
  chunkSize: fc.constantFrom(7, 65536),
  maxFrameBytes: fc.constantFrom(150, 65536),
  allowHalfOpen: yes,
  stallTimeout: fc.constantFrom(Infinity, Infinity, 10),
  lowWaterMark: fc.constantFrom(1, 100, 65536),
  maxQueuedBytes: fc.constantFrom(300, 20_000, 16_777_216),
  capacity: fc.constantFrom(1, 3, 1024),
  maxSessions: fc.constantFrom(3, 1000),
  maxPending: fc.constantFrom(1, 512),
  maxTotalQueuedBytes: fc.constantFrom(1000, 100_000_000),
});

/** Begins with somebody to talk to. */
const script = fc.tuple(
  steps.listen[1],
  fc.array(
    fc.oneof(...Object.values(steps).map(([weight, arbitrary]) => ({ weight, arbitrary }))),
    { minLength: 1, maxLength: 50, size: "max" },
  ),
).map(([first, others]): Step[] => [first, ...others as Step[]]);

export const plans: fc.Arbitrary<Plan> = fc.record({
  limits,
  steps: script,
  graceMs: fc.constantFrom(undefined, undefined, 0, 1, 5),
  drainMs: fc.constantFrom(0, 0, 3),
});

/** A network of its own for each plan. */
export function memoryPlace(): Place {
  const pipe = { capacity: 1000, piece: 300, lingerMs: 60_000 };
  let paths = 0;
  return {
    transport: new MemoryNet(pipe),
    pipe,
    address: (unix) => unix ? { path: `/memory/${paths++}` } : { hostname: "127.0.0.1", port: 0 },
  };
}

/** A round of fuzzing is one plan. */
export const MANAGER: Property = {
  name: "a connection manager keeps its promises, whatever happens",
  check: async (luck) => {
    const [plan] = fc.sample(plans, { numRuns: 1, seed: luck.below(2 ** 31) });
    await new World(plan!, memoryPlace()).play();
  },
  rounds: 0,
};
