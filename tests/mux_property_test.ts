/** Two sessions of ours over a bad line, and applications that do anything in any order. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import {
  client,
  deriveKey,
  FLAG,
  FrameDecoder,
  type Mux,
  type MuxError,
  type MuxErrorCode,
  type MuxStream,
  server,
} from "@trunkline/sockets/mux";
import { type Link, link, type LinkPlan } from "./mux_link.ts";
import { PSK } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, randomOf } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

/** What is written: any stream and side begins somewhere else in it. */
const TEXT = Uint8Array.from({ length: 2 ** 20 }, (_, i) => (Math.imul(i, 0x9e3779b1) >>> 23) ^ i);

/** What an application does on its side of a stream. */
interface SidePlan {
  readonly writes: readonly number[];
  /** True: each write waits for the one before. */
  readonly inTurn: boolean;
  /** What comes behind the last write. */
  readonly writeEnd: "closeWrite" | "nothing";
  /** Reads before it stops, Infinity for all. */
  readonly reads: number;
  /** What comes behind the last read, unless that was the end. */
  readonly readEnd: "closeRead" | "nothing";
  /** What comes behind both. */
  readonly end: "close" | "abort" | "nothing";
}
interface StreamPlan {
  readonly opener: 0 | 1;
  readonly sides: readonly [SidePlan, SidePlan];
}
type Farewell = "first" | "second" | "both" | "abort";
interface Plan {
  readonly line: LinkPlan;
  readonly streams: readonly StreamPlan[];
  readonly maxPendingOpens: number;
  readonly farewell: Farewell;
  /** How long the applications have before that, in milliseconds; undefined: as long as they like. */
  readonly patience: number | undefined;
}

const size = fc.oneof(
  { weight: 3, arbitrary: fc.nat(200) },
  { weight: 3, arbitrary: fc.nat(20_000) },
  { weight: 1, arbitrary: fc.nat(200_000) },
);
const line = (cut: fc.Arbitrary<LinkPlan["cut"]>): fc.Arbitrary<LinkPlan> =>
  fc.record({
    seed: fc.nat(2 ** 30),
    capacity: fc.constantFrom(1, 1000, 65536, 1_000_000),
    chunk: fc.constantFrom(700, 70_000, 700_000),
    stalls: fc.constantFrom(0, 5, 30),
    cut,
  });
const NEVER = fc.constant(undefined);
const anyCut = fc.record({
  direction: fc.constantFrom(0 as const, 1 as const),
  after: fc.oneof(fc.nat(300), fc.nat(100_000)),
  quiet: fc.boolean(),
});
const writes = fc.array(size, { maxLength: 5 });

/** A side that writes and reads to the end. */
const orderlySide: fc.Arbitrary<SidePlan> = fc.record({
  ...{ writes, inTurn: fc.boolean() },
  writeEnd: fc.constant("closeWrite" as const),
  reads: fc.constant(Infinity),
  readEnd: fc.constant("nothing" as const),
  end: fc.constantFrom("close" as const, "nothing" as const),
});
const anySide: fc.Arbitrary<SidePlan> = fc.record({
  ...{ writes, inTurn: fc.boolean() },
  writeEnd: fc.constantFrom("closeWrite" as const, "nothing" as const),
  reads: fc.oneof(fc.constant(Infinity), fc.nat(5)),
  readEnd: fc.constantFrom("closeRead" as const, "nothing" as const),
  end: fc.constantFrom("close" as const, "abort" as const, "nothing" as const),
});
const streamsOf = (side: fc.Arbitrary<SidePlan>): fc.Arbitrary<StreamPlan[]> =>
  fc.array(
    fc.record({ opener: fc.constantFrom(0 as const, 1 as const), sides: fc.tuple(side, side) }),
    { minLength: 1, maxLength: 8 },
  );

/** What became of one side of a stream. */
interface Outcome {
  /** Bytes that `write()` took. */
  written: number;
  read: number;
  /** How reading ended: null for the end of the stream. */
  readEnd: null | MuxErrorCode | undefined;
  /** Ended by this side itself. */
  endedWriting: boolean;
  aborted: boolean;
}

/** A run: two sessions and what happens on them. */
class Run {
  readonly muxes: readonly [Mux, Mux];
  readonly wire: Link;
  readonly outcomes: readonly [Map<number, Outcome>, Map<number, Outcome>] = [new Map(), new Map()];
  /** Sides whose session was closed. */
  readonly closing = [false, false];
  readonly #plans = new Map<number, StreamPlan>();
  readonly #random: () => number;

  constructor(plan: LinkPlan, maxPendingOpens: number) {
    this.wire = link(plan);
    const options = { psk: PSK, maxPendingOpens, closeTimeoutMs: 300 };
    this.muxes = [client(this.wire.ends[0], options), server(this.wire.ends[1], options)];
    this.#random = randomOf(plan.seed + 7);
  }

  /** Lets the others go on, for nothing, some microtasks, or a turn. */
  async #pause(): Promise<void> {
    const luck = this.#random();
    if (luck < 0.05) await new Promise((resolve) => setTimeout(resolve, 0));
    else for (let left = luck * 8; left > 1; left--) await undefined;
  }

  /** All that the applications do; settles when they are done or can do no more. */
  async play(streams: readonly StreamPlan[]): Promise<void> {
    const accepting = ([0, 1] as const).map(async (side) => {
      const expected = streams.filter(({ opener }) => opener !== side).length;
      const running: Promise<void>[] = [];
      for (let i = 0; i < expected; i++) {
        const stream = await this.muxes[side].acceptStream().catch(() => undefined);
        if (stream === undefined) break;
        running.push(this.#playSide(side, stream));
      }
      await Promise.all(running);
    });
    const opening = streams.map(async (plan) => {
      await this.#pause();
      const stream = await this.muxes[plan.opener].openStream().catch(() => undefined);
      if (stream === undefined) return;
      this.#plans.set(stream.id, plan);
      await this.#playSide(plan.opener, stream);
    });
    await Promise.all([...accepting, ...opening]);
  }

  async #playSide(side: 0 | 1, stream: MuxStream): Promise<void> {
    const plan = this.#plans.get(stream.id)!.sides[side];
    const outcome: Outcome = {
      ...{ written: 0, read: 0, readEnd: undefined },
      ...{ endedWriting: false, aborted: false },
    };
    this.outcomes[side].set(stream.id, outcome);
    await Promise.all([
      this.#write(stream, plan, outcome, textOf(stream.id, side)),
      this.#read(stream, plan, outcome, textOf(stream.id, 1 - side)),
    ]);
    if (plan.end === "nothing") return;
    outcome.endedWriting = true;
    if (plan.end === "abort") outcome.aborted = true;
    if (plan.end === "abort") stream.abort();
    else await stream.close().catch(() => {});
  }

  async #write(
    stream: MuxStream,
    { writes, inTurn, writeEnd }: SidePlan,
    outcome: Outcome,
    text: number,
  ): Promise<void> {
    let at = text;
    const pending: Promise<void>[] = [];
    for (const size of writes) {
      await this.#pause();
      const written = stream.write(TEXT.subarray(at, at += size)).then(
        () => void (outcome.written += size),
        (error: MuxError) => void (outcome.written += error.written ?? 0),
      );
      pending.push(written);
      if (inTurn) await written;
    }
    if (writeEnd === "closeWrite") {
      outcome.endedWriting = true;
      await stream.closeWrite().catch(() => {});
    }
    await Promise.all(pending);
  }

  async #read(
    stream: MuxStream,
    { reads, readEnd }: SidePlan,
    outcome: Outcome,
    text: number,
  ): Promise<void> {
    for (let left = reads; left > 0; left--) {
      await this.#pause();
      const chunk = await stream.read().catch((error: MuxError) => error.code);
      if (chunk === null || typeof chunk === "string") {
        outcome.readEnd = chunk;
        return;
      }
      assert(chunk.length > 0);
      const at = text + outcome.read;
      for (const [i, byte] of chunk.entries()) {
        if (byte !== TEXT[at + i]) {
          throw new Error(`stream ${stream.id}: a wrong byte at ${at + i}`);
        }
      }
      outcome.read += chunk.length;
    }
    if (readEnd === "closeRead") {
      await stream.closeRead();
    }
  }

  async close(farewell: Farewell): Promise<void> {
    const [near, far] = this.muxes;
    if (farewell === "abort") near.abort();
    this.closing[0] = farewell !== "second";
    this.closing[1] = farewell !== "first";
    const closing: Promise<void>[] = [];
    if (farewell !== "second") closing.push(near.close());
    if (farewell !== "first") closing.push(far.close());
    await Promise.allSettled([...closing, near.closed, far.closed]);
  }
}

/** Where in `TEXT` the bytes of a side of a stream begin. */
const textOf = (id: number, side: number): number => 7919 * (2 * id + side) % 30_000;

/** Nothing takes for ever. */
async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not done within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const endOf = (mux: Mux): Promise<"end" | MuxErrorCode> =>
  mux.closed.then(() => "end" as const, (error) => error.code);

/** Plays a plan to its end and checks what holds whatever happens. */
async function run(plan: Plan): Promise<Run> {
  const it = new Run(plan.line, plan.maxPendingOpens);
  const playing = it.play(plan.streams);
  if (plan.patience === undefined) {
    await within(5000, "the applications", playing);
  } else {
    await Promise.race([playing, new Promise((done) => setTimeout(done, plan.patience))]);
  }
  await within(5000, "closing", it.close(plan.farewell));
  await within(5000, "what was left of the applications", playing);
  const ends = await Promise.all(it.muxes.map(endOf));
  for (const mux of it.muxes) assertEquals(leftovers(mux.stats()), NOTHING_LEFT);

  for (const side of [0, 1] as const) {
    for (const [id, outcome] of it.outcomes[side]) {
      const other = it.outcomes[1 - side]!.get(id);
      const written = other?.written ?? 0;
      assert(outcome.read <= written, `stream ${id}: ${outcome.read} of ${written} bytes`);
      if (outcome.readEnd !== null) continue;
      // The end of the stream: the other side has said so, and all of its bytes came before.
      assert(other?.endedWriting || it.closing[1 - side], `stream ${id} ended by itself`);
      if (other?.aborted || ends[1 - side] === "timeout") continue;
      assertEquals(outcome.read, written, `stream ${id}: an end, but not all`);
    }
  }
  return it;
}

/** Checks many plans, the same ones each time. */
function check(
  title: string,
  plans: fc.Arbitrary<Plan>,
  runs: number,
  then: (plan: Plan) => Promise<void>,
) {
  test(`mux: ${title}`, { timeout: 60_000 }, async () => {
    const property = fc.asyncProperty(plans, then);
    const unhandled = await unhandledDuring(() =>
      fc.assert(property, { numRuns: runs, seed: 20261120, endOnFailure: true })
    );
    assertEquals(unhandled, []);
  });
}

const orderly: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: streamsOf(orderlySide),
  maxPendingOpens: fc.constantFrom(1, 3, 128),
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.constant(undefined),
});

check("on a bad line all arrives, in order, to the end", orderly, 50, async (plan) => {
  const { muxes, outcomes, wire } = await run(plan);
  assertEquals(await Promise.all(muxes.map(endOf)), ["end", "end"]);
  assert(!wire.broken());
  for (const side of [0, 1] as const) {
    assertEquals(outcomes[side].size, plan.streams.length);
    for (const [id, { read, readEnd }] of outcomes[side]) {
      assertEquals([read, readEnd], [outcomes[1 - side]!.get(id)!.written, null]);
    }
    const { strayFrames, refusedStreams } = muxes[side].stats();
    assertEquals([strayFrames, refusedStreams], [0, 0]);
  }
  const sum = (of: Iterable<Outcome>) => [...of].reduce((total, { written }) => total + written, 0);
  const planned = plan.streams.flatMap(({ sides }) => sides.flatMap((side) => side.writes));
  const written = sum(outcomes[0].values()) + sum(outcomes[1].values());
  assertEquals(written, planned.reduce((total, size) => total + size, 0));
});

const anything: fc.Arbitrary<Plan> = fc.record({
  line: line(NEVER),
  streams: streamsOf(anySide),
  maxPendingOpens: fc.constantFrom(1, 3, 128),
  farewell: fc.constantFrom<Farewell>("first", "second", "both", "abort"),
  patience: fc.nat(40),
});

check("whatever applications do, what is read is what was written", anything, 60, async (plan) => {
  await run(plan);
});

const severed: fc.Arbitrary<Plan> = fc.record({
  line: line(anyCut),
  streams: streamsOf(fc.oneof(orderlySide, anySide)),
  maxPendingOpens: fc.constantFrom(1, 3, 128),
  farewell: fc.constantFrom<Farewell>("first", "second", "both"),
  patience: fc.nat(40),
});

check(
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
        const it = new Run(plan, 128);
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
