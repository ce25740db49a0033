/** A connection in memory that is as slow, as choppy and as short-lived as a seed makes it. */
import { type Conn, wrapConn } from "@trunkline/sockets/auto";
import { randomOf } from "./mux_peer.ts";

/** Where a link breaks. */
export interface Cut {
  /** Whose bytes are counted: those of the first end, or of the second. */
  readonly direction: 0 | 1;
  /** After so many of them. */
  readonly after: number;
  /** True: it ends, as if in order. False: it fails. */
  readonly quiet: boolean;
}

export interface LinkPlan {
  readonly seed: number;
  /** Bytes that each direction holds before writes wait. */
  readonly capacity: number;
  /** The longest chunk that is read. */
  readonly chunk: number;
  /** How often, of a thousand reads, the line stands still for some milliseconds. */
  readonly stalls: number;
  readonly cut?: Cut | undefined;
}

/** The pause of one read: mostly none, often some microtasks or a turn, sometimes milliseconds. */
async function pause(random: () => number, stalls: number): Promise<void> {
  const luck = random();
  if (luck < stalls / 1000) await new Promise((resolve) => setTimeout(resolve, 1 + random() * 6));
  else if (luck < 0.1) await new Promise((resolve) => setTimeout(resolve, 0));
  else if (luck < 0.4) { for (let left = random() * 12; left > 0; left--) await undefined; }
}

/** One direction. */
class Pipe {
  /** All that was read from it. */
  readonly delivered: Uint8Array[] = [];
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  readonly #random: () => number;
  readonly #plan: LinkPlan;
  #held: Uint8Array = new Uint8Array(0);
  #left: number;
  #ended = false;
  #cut = false;
  #failure: Error | undefined;
  #wake: (() => void)[] = [];

  constructor(plan: LinkPlan, direction: 0 | 1, onCut: () => void) {
    this.#plan = plan;
    this.#random = randomOf(2 * plan.seed + direction);
    this.#left = plan.cut?.direction === direction ? plan.cut.after : Infinity;
    this.readable = new ReadableStream({
      pull: async (controller) => {
        const chunk = await this.#next(onCut);
        if (chunk === null) controller.close();
        else controller.enqueue(chunk);
      },
      cancel: (reason) => this.fail(reason),
    }, { highWaterMark: 0 });
    this.writable = new WritableStream({
      write: (bytes) => this.#write(bytes),
      close: () => this.#change(() => this.#ended = true),
      abort: (reason) => this.fail(reason),
    }, { highWaterMark: 1 });
  }

  #change(act: () => void): void {
    act();
    for (const wake of this.#wake.splice(0)) wake();
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  /** Whoever waits, or comes later, is told of it. */
  fail(reason: unknown): void {
    this.#change(() => this.#failure ??= new Error("the link is broken", { cause: reason }));
  }

  /** Drops what is held, and what comes from now on; ends, or fails. */
  cut(quiet: boolean): void {
    this.#cut = true;
    if (!quiet) return this.fail(undefined);
    this.#change(() => {
      this.#held = new Uint8Array(0);
      this.#ended = true;
    });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#cut) return;
    this.#change(() => {
      const held = new Uint8Array(this.#held.length + bytes.length);
      held.set(this.#held);
      held.set(bytes, this.#held.length);
      this.#held = held;
    });
    while (this.#held.length > this.#plan.capacity && !this.#ended) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#changed();
    }
  }

  async #next(onCut: () => void): Promise<Uint8Array | null> {
    await pause(this.#random, this.#plan.stalls);
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#left === 0 && !this.#cut) onCut();
      else if (this.#held.length > 0) break;
      else if (this.#ended) return null;
      else await this.#changed();
    }
    const most = Math.min(this.#left, 1 + Math.floor(this.#random() * this.#plan.chunk));
    const chunk = this.#held.slice(0, most);
    this.#change(() => this.#held = this.#held.subarray(chunk.length));
    this.#left -= chunk.length;
    this.delivered.push(chunk);
    return chunk;
  }
}

export interface Link {
  readonly ends: readonly [Conn, Conn];
  /** The bytes of the first end, and those of the second, as far as they were read. */
  readonly delivered: readonly [readonly Uint8Array[], readonly Uint8Array[]];
  /** True once it was cut. */
  readonly broken: () => boolean;
}

export function link(plan: LinkPlan): Link {
  let broken = false;
  const onCut = () => {
    broken = true;
    for (const pipe of pipes) pipe.cut(plan.cut!.quiet);
  };
  const pipes = [new Pipe(plan, 0, onCut), new Pipe(plan, 1, onCut)] as const;
  const [there, back] = pipes;
  const options = { lingerMs: 200, flushTimeoutMs: 1000 };
  return {
    ends: [
      wrapConn({ readable: back.readable, writable: there.writable }, options),
      wrapConn({ readable: there.readable, writable: back.writable }, options),
    ],
    delivered: [there.delivered, back.delivered],
    broken: () => broken,
  };
}
