/**
 * Decides what is sent next and writes it: control frames first, then what is granted, then the streams in turn, by their priority.
 *
 * @module
 */
import type { Aead, SealBox } from "../adapters/aead.ts";
import type { Conn } from "../adapters/types.ts";
import { MAX_PRIORITY } from "./config.ts";
import type { MuxError } from "./errors.ts";
import { Queue } from "../adapters/queue.ts";

/** Whoever waits for something to be sent. */
export interface Settle {
  resolve(): void;
  reject(error: MuxError): void;
}

/** A stream, as the sender sees it. */
export interface Source {
  readonly id: number;
  /** From 0, which is sent first, to 7. */
  readonly priority: number;
  /** Set and cleared by the sender. */
  readyToSend: boolean;
  /** Set and cleared by the sender. */
  creditQueued: boolean;
  /** How many bytes it can send now, at most `most`. */
  sendable(most: number): number;
  /** Takes so many, as `sendable()` said. The writes that are taken whole with it are added to `taken`. */
  takeData(count: number, taken: Settle[]): Uint8Array;
  /** The same, copied to `into`. */
  copyData(into: Uint8Array, at: number, count: number, taken: Settle[]): void;
  /** True if there is more to send now. */
  readonly hasData: boolean;
  /** The increment to grant, undefined if there is none any more. */
  takeCredit(): number | undefined;
}

/** A frame without payload that waits. */
export interface Control {
  readonly id: number;
  /** The number that its protocol has for it. */
  readonly type: number;
  /** What it carries, if anything. */
  readonly values: readonly number[];
  /** The peer has provoked it. */
  readonly answer: boolean;
}

/** What is sealed and written at once. */
export interface Batch {
  readonly boxes: readonly SealBox[];
  /** All of them, with what goes between. */
  readonly whole: Uint8Array;
}

/** How a protocol lays frames out. */
export interface Packer {
  /**
   * Takes what is next from `outbox`, as much as is written at once; undefined if there is nothing. The memory of the batch before the last
   * one may be used again.
   */
  pack(outbox: Outbox): Batch | undefined;
  /** Lets the memory go that it keeps for the next batch. */
  release(): void;
  /** Frames and payload bytes so far. */
  readonly frames: number;
  readonly bytes: number;
}

/** What waits to be sent, in its order. */
export class Outbox {
  queuedAnswers = 0;
  /** The writes of the batch that is being packed and sealed. */
  readonly taken: Settle[] = [];
  readonly #controls = new Queue<Control>();
  readonly #creditors = new Queue<Source>();
  /** One queue for each priority. */
  readonly #ready: readonly Queue<Source>[] = Array.from(
    { length: MAX_PRIORITY + 1 },
    () => new Queue<Source>(),
  );
  #readySources = 0;

  get empty(): boolean {
    return this.#controls.length + this.#creditors.length + this.#readySources === 0;
  }

  /** The end of a stream is queued when its last data are taken: so controls are to be taken first. */
  control(): Control | undefined {
    const control = this.#controls.shift();
    if (control?.answer) this.queuedAnswers--;
    return control;
  }

  /** A grant: of a stream, and how much. */
  credit(): { readonly id: number; readonly increment: number } | undefined {
    for (let source = this.#creditors.shift(); source; source = this.#creditors.shift()) {
      source.creditQueued = false;
      const increment = source.takeCredit();
      if (increment !== undefined) return { id: source.id, increment };
    }
    return undefined;
  }

  /** The stream whose turn it is. Whoever took of its data says so with `took()`. */
  source(): Source | undefined {
    if (this.#readySources === 0) return undefined;
    for (const queue of this.#ready) {
      const source = queue.first();
      if (source !== undefined) return source;
    }
    return undefined;
  }

  /** Its turn is over: it goes behind the others if it has more. */
  took(source: Source): void {
    // It may have left meanwhile.
    if (!source.readyToSend) return;
    this.#removeReady(source);
    if (source.hasData) this.#addReady(source);
  }

  addControl(control: Control): void {
    if (control.answer) this.queuedAnswers++;
    this.#controls.push(control);
  }

  addCredit(source: Source): void {
    source.creditQueued = true;
    this.#creditors.push(source);
  }

  addData(source: Source): void {
    this.#addReady(source);
  }

  remove(source: Source): void {
    if (source.creditQueued) this.#creditors.remove(source);
    source.creditQueued = false;
    if (source.readyToSend) this.#removeReady(source);
  }

  requeue(source: Source): void {
    if (!source.readyToSend) return;
    this.#removeReady(source);
    this.#addReady(source);
  }

  clear(error: MuxError): void {
    for (const write of this.taken.splice(0)) write.reject(error);
    for (const queue of [this.#controls, this.#creditors, ...this.#ready]) queue.clear();
    this.#readySources = 0;
  }

  #addReady(source: Source): void {
    source.readyToSend = true;
    this.#readySources++;
    this.#ready[source.priority]!.push(source);
  }

  #removeReady(source: Source): void {
    source.readyToSend = false;
    // Its priority may be another one by now.
    const at = this.#ready[source.priority]!;
    if (at.remove(source) || this.#ready.some((queue) => queue.remove(source))) {
      this.#readySources--;
    }
  }
}

export class Sender {
  lastWriteAt: number = performance.now();
  writes = 0;
  readonly #conn: Conn;
  readonly #aead: Promise<Aead>;
  readonly #packer: Packer;
  readonly #onError: (error: unknown) => void;
  readonly #outbox = new Outbox();
  #running = false;
  #stopped = false;
  #whenIdle: (() => void)[] = [];

  constructor(
    conn: Conn,
    aead: Promise<Aead>,
    packer: Packer,
    onError: (error: unknown) => void,
  ) {
    this.#conn = conn;
    this.#aead = aead;
    this.#packer = packer;
    this.#onError = onError;
  }

  get frames(): number {
    return this.#packer.frames;
  }

  get bytes(): number {
    return this.#packer.bytes;
  }

  /** True if something waits to be sent, or is being sent. */
  get busy(): boolean {
    return this.#running;
  }

  /** Frames that wait and that the peer has provoked. */
  get queuedAnswers(): number {
    return this.#outbox.queuedAnswers;
  }

  control(id: number, type: number, values: readonly number[], answer: boolean): void {
    if (this.#stopped) return;
    this.#outbox.addControl({ id, type, values, answer });
    this.#start();
  }

  credit(source: Source): void {
    if (source.creditQueued || this.#stopped) return;
    this.#outbox.addCredit(source);
    this.#start();
  }

  data(source: Source): void {
    if (source.readyToSend || this.#stopped) return;
    this.#outbox.addData(source);
    this.#start();
  }

  /** Its priority is another one. */
  requeue(source: Source): void {
    this.#outbox.requeue(source);
  }

  /** Forgets a stream that has nothing to send any more; it may be many that wait for a transport which takes nothing. */
  leave(source: Source): void {
    this.#outbox.remove(source);
  }

  /** Resolves when all that waits is with the transport; never, if that fails or `stop()` is called. */
  idle(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Sends nothing more but `last`; who waits is told `error`. */
  stop(error: MuxError, last?: Control): void {
    this.#stopped = true;
    this.#outbox.clear(error);
    if (last === undefined) return;
    this.#outbox.addControl(last);
    this.#start();
  }

  /** Nothing was sent for long: the memory for it can be had again. */
  release(): void {
    this.#packer.release();
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    // After what else happens in this turn: many small writes become one.
    queueMicrotask(() => this.#run().catch((error) => this.#onError(error)));
  }

  async #run(): Promise<void> {
    const aead = await this.#aead;
    const { taken } = this.#outbox;
    let writing: Promise<void> | undefined;
    for (;;) {
      const batch = this.#packer.pack(this.#outbox);
      if (batch === undefined) {
        await writing;
        if (!this.#outbox.empty) continue;
        break;
      }
      const sealing = aead.seal(batch.boxes);
      if (sealing !== undefined) await sealing;
      await writing;
      for (const write of taken.splice(0)) write.resolve();
      // A turn for whoever was told, so that what follows is there when the next batch is packed, and not half of it.
      await undefined;
      this.lastWriteAt = performance.now();
      this.writes++;
      writing = this.#conn.write(batch.whole);
      // Awaited above, a batch later.
      writing.catch(() => {});
    }
    this.#running = false;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }
}
