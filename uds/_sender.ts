/**
 * Joins the messages of a turn, and those that come while one write is under way, into one.
 *
 * @module
 */
import type { Conn } from "../adapters/types.ts";
import { type Outgoing, putEnvelope, sizeOf } from "./_envelope.ts";
import { uvarintLength } from "./_uvarint.ts";

/** Data of this size is written from where it is, and not copied. */
const LARGE_BYTES = 32 * 1024;
/** Room for messages that are joined. */
const BATCH_BYTES = 64 * 1024;
/** The same of the first one: most clients say little. */
const FIRST_BATCH_BYTES = 1024;
/** What who has much to send sends at a time. */
export const CHUNK_BYTES: number = 64 * 1024;
/** Who has much to send waits while more than this is queued, so that small messages wait for no more than this. */
const HIGH_WATER_BYTES = 256 * 1024;

/** One for each connection. */
export class Sender {
  readonly #conn: Conn;
  readonly #onError: (error: unknown) => void;
  /** Full batches, and large data, in their order. */
  #pieces: Uint8Array[] = [];
  /** The memory of those batches. */
  #full: Uint8Array[] = [];
  #batch: Uint8Array;
  #length = 0;
  /** A batch that was written, to be used again. */
  #spare: Uint8Array | undefined;
  /** Bytes that are queued or being written. */
  #queued = 0;
  #scheduled = false;
  #writing = false;
  #stopped = false;
  #whenLow: (() => void)[] = [];
  #whenIdle: (() => void)[] = [];

  constructor(conn: Conn, onError: (error: unknown) => void) {
    this.#conn = conn;
    this.#onError = onError;
    this.#batch = new Uint8Array(FIRST_BATCH_BYTES);
  }

  /** Whether who has much to send should wait. */
  get full(): boolean {
    return this.#queued > HIGH_WATER_BYTES;
  }

  /** Queues a message. `data` must not change until it was written. */
  send(message: Outgoing): void {
    if (this.#stopped) return;
    const { data } = message;
    const size = sizeOf(message);
    const whole = uvarintLength(size) + size;
    const large = data.length >= LARGE_BYTES;
    const bytes = this.#room(large ? whole - data.length : whole);
    this.#length = putEnvelope(bytes, this.#length, size, message);
    if (large) {
      this.#cut();
      this.#pieces.push(data);
    } else {
      bytes.set(data, this.#length);
      this.#length += data.length;
    }
    this.#queued += whole;
    this.#schedule();
  }

  /** Resolves when less is queued than who has much to send should care about; the first to wait is the first to go on. */
  low(): Promise<void> {
    if (!this.full || this.#stopped) return Promise.resolve();
    return new Promise((resolve) => this.#whenLow.push(resolve));
  }

  /** Resolves when all that is queued is with the connection. */
  idle(): Promise<void> {
    if (this.#queued === 0 || this.#stopped) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Sends nothing more. */
  stop(): void {
    this.#stopped = true;
    this.#pieces = [];
    this.#full = [];
    this.#length = 0;
    for (const resolve of [...this.#whenLow.splice(0), ...this.#whenIdle.splice(0)]) resolve();
  }

  /** The batch, with room for so many more bytes. */
  #room(bytes: number): Uint8Array {
    if (this.#length + bytes > this.#batch.length) {
      this.#cut();
      if (bytes > this.#batch.length) this.#batch = new Uint8Array(bytes);
    }
    return this.#batch;
  }

  /** Ends the batch. */
  #cut(): void {
    if (this.#length === 0) return;
    this.#pieces.push(this.#batch.subarray(0, this.#length));
    this.#full.push(this.#batch);
    this.#batch = this.#spare ?? new Uint8Array(BATCH_BYTES);
    this.#spare = undefined;
    this.#length = 0;
  }

  #schedule(): void {
    if (this.#scheduled || this.#writing) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#write().catch(this.#onError);
    });
  }

  async #write(): Promise<void> {
    this.#writing = true;
    // Who was told to go on may have nothing to send any more: then it is the turn of the next.
    while ((this.#queued > 0 || this.#whenLow.length > 0) && !this.#stopped) {
      this.#cut();
      const [pieces, full] = [this.#pieces, this.#full];
      [this.#pieces, this.#full] = [[], []];
      let bytes = 0;
      let last: Promise<void> | undefined;
      for (const piece of pieces) {
        bytes += piece.length;
        last = this.#conn.write(piece);
        // The last one tells of all: they are written in their order.
        last.catch(() => {});
      }
      await last;
      this.#spare ??= full.find(({ length }) => length === BATCH_BYTES);
      this.#queued -= bytes;
      const room = HIGH_WATER_BYTES - this.#queued;
      const next = this.#whenLow.splice(0, Math.max(0, Math.ceil(room / CHUNK_BYTES)));
      for (const resolve of next) resolve();
    }
    this.#writing = false;
    if (this.#queued === 0) { for (const resolve of this.#whenIdle.splice(0)) resolve(); }
  }
}
