/** Two sessions over a bad line with applications that follow a plan, and what holds whatever happens. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import {
  client,
  type Mux,
  MuxError,
  type MuxErrorCode,
  type MuxOptions,
  type MuxStream,
  server,
} from "@trunkline/sockets/mux";
import { type Link, link, type LinkPlan } from "./mux_link.ts";
import { PSK } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, randomOf } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

/** What is written: any stream and side begins somewhere else in it. */
export const TEXT: Uint8Array = Uint8Array.from(
  { length: 2 ** 20 },
  (_, i) => (Math.imul(i, 0x9e3779b1) >>> 23) ^ i,
);

/** What an application does on its side of a stream. */
export interface SidePlan {
  readonly writes: readonly number[];
  /** True: each write waits for the one before. */
  readonly inTurn: boolean;
  /** What comes behind the last write. */
  readonly writeEnd: "closeWrite" | "nothing";
  /** Reads before it stops, Infinity for all. */
  readonly reads: number;
  /** What comes behind the last read, unless that was the end. */
  readonly readEnd: "closeRead" | "stop" | "nothing";
  /** What comes behind both. */
  readonly end: "close" | "abort" | "reset" | "nothing";
  /** What `stop()` and `reset()` tell, which v1 has not. */
  readonly code?: number;
}
export interface StreamPlan {
  readonly opener: 0 | 1;
  readonly priority?: number;
  readonly sides: readonly [SidePlan, SidePlan];
}
export type Farewell = "first" | "second" | "both" | "abort";
export interface Plan {
  readonly line: LinkPlan;
  readonly streams: readonly StreamPlan[];
  /** The options of the client, and of the server. */
  readonly options: readonly [Partial<MuxOptions>, Partial<MuxOptions>];
  readonly farewell: Farewell;
  /** How long the applications have before that, in milliseconds; undefined: as long as they like. */
  readonly patience: number | undefined;
}

/** What became of one side of a stream. */
export interface Outcome {
  /** Bytes that `write()` took. */
  written: number;
  read: number;
  /** How reading ended: null for the end of the stream. */
  readEnd: null | MuxErrorCode | undefined;
  /** With which code the peer ended it by a reset. */
  readCode: number | undefined;
  /** Which one the peer gave when it did not want to read any more. */
  writeCode: number | undefined;
  /** Ended by this side itself. */
  endedWriting: boolean;
  aborted: boolean;
  /** What it has told by that, or by `closeRead()`. */
  resetBy: number | undefined;
  stoppedBy: number | undefined;
}

/** A run: two sessions and what happens on them. */
export class Run {
  readonly muxes: readonly [Mux, Mux];
  readonly wire: Link;
  readonly outcomes: readonly [Map<number, Outcome>, Map<number, Outcome>] = [new Map(), new Map()];
  /** Sides whose session was closed. */
  readonly closing: boolean[] = [false, false];
  readonly #plans = new Map<number, StreamPlan>();
  readonly #random: () => number;

  constructor(plan: LinkPlan, options: Plan["options"]) {
    this.wire = link(plan);
    const [near, far] = options.map((it) => ({ psk: PSK, closeTimeoutMs: 300, ...it }));
    this.muxes = [client(this.wire.ends[0], near!), server(this.wire.ends[1], far!)];
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
      const stream = await this.muxes[plan.opener].openStream({ priority: plan.priority }).catch(
        () => undefined,
      );
      if (stream === undefined) return;
      this.#plans.set(stream.id, plan);
      await this.#playSide(plan.opener, stream);
    });
    await Promise.all([...accepting, ...opening]);
  }

  async #playSide(side: 0 | 1, stream: MuxStream): Promise<void> {
    const plan = this.#plans.get(stream.id)!.sides[side];
    const outcome: Outcome = {
      ...{ written: 0, read: 0, readEnd: undefined, readCode: undefined, writeCode: undefined },
      ...{ endedWriting: false, aborted: false, resetBy: undefined, stoppedBy: undefined },
    };
    this.outcomes[side].set(stream.id, outcome);
    await Promise.all([
      this.#write(stream, plan, outcome, textOf(stream.id, side)),
      this.#read(stream, plan, outcome, textOf(stream.id, 1 - side)),
    ]);
    if (plan.end === "nothing") return;
    outcome.endedWriting = true;
    if (plan.end === "close") return await stream.close().catch(() => {});
    outcome.aborted = true;
    outcome.resetBy = plan.end === "reset" ? plan.code! : 0;
    if (plan.end === "reset") stream.reset(plan.code!);
    else stream.abort();
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
        (error: MuxError) => {
          outcome.written += error.written ?? 0;
          if (error.code === "write-closed") outcome.writeCode = error.resetCode;
        },
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
    { reads, readEnd, code }: SidePlan,
    outcome: Outcome,
    text: number,
  ): Promise<void> {
    for (let left = reads; left > 0; left--) {
      await this.#pause();
      const chunk = await stream.read().catch((error: MuxError) => error);
      if (chunk === null || chunk instanceof MuxError) {
        outcome.readEnd = chunk && chunk.code;
        outcome.readCode = chunk?.resetCode;
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
    if (readEnd === "nothing") return;
    outcome.stoppedBy = readEnd === "stop" ? code! : 0;
    if (readEnd === "stop") stream.stop(code!);
    else await stream.closeRead();
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
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
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

export const endOf = (mux: Mux): Promise<"end" | MuxErrorCode> =>
  mux.closed.then(() => "end" as const, (error) => error.code);

/** Plays a plan to its end and checks what holds whatever happens. */
export async function run(plan: Plan): Promise<Run> {
  const it = new Run(plan.line, plan.options);
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
      if (it.muxes[side].protocol === "v2") assertCodes(id, outcome, other, it.closing[1 - side]!);
      if (outcome.readEnd !== null) continue;
      // The end of the stream: the other side has said so, and all of its bytes came before.
      assert(other?.endedWriting || it.closing[1 - side], `stream ${id} ended by itself`);
      // What v1 cannot tell from an end in order.
      const isV1 = it.muxes[side].protocol === "v1";
      if (isV1 && (other?.aborted || ends[1 - side] === "timeout")) continue;
      assertEquals(outcome.read, written, `stream ${id}: an end, but not all`);
    }
  }
  return it;
}

/** The codes that came are those that were given. */
function assertCodes(
  id: number,
  { readEnd, readCode, writeCode }: Outcome,
  other: Outcome | undefined,
  closing: boolean,
): void {
  if (readEnd === "reset") {
    assert(other?.endedWriting || closing, `stream ${id} was reset by nobody`);
    // A close() that takes too long, of the session too, has the same word.
    const given = other?.resetBy ?? 0;
    assert(
      readCode === given || closing && readCode === 0,
      `stream ${id}: ${readCode}, not ${given}`,
    );
  }
  if (writeCode !== undefined) {
    assertEquals(writeCode, other?.stoppedBy, `stream ${id}: the code of a stop`);
  }
}

/** What holds besides where all was written, read and closed in order, and the line did not break. */
export async function assertAllArrived(plan: Plan, { muxes, outcomes, wire }: Run): Promise<void> {
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
}

/** Checks many plans, the same ones each time. */
export function check(
  mux: string,
  title: string,
  plans: fc.Arbitrary<Plan>,
  runs: number,
  then: (plan: Plan) => Promise<void>,
): void {
  test(`${mux}: ${title}`, { timeout: 60_000 }, async () => {
    const property = fc.asyncProperty(plans, then);
    const unhandled = await unhandledDuring(() =>
      fc.assert(property, { numRuns: runs, seed: 20261120, endOnFailure: true })
    );
    assertEquals(unhandled, []);
  });
}
