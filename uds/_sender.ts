/**
 * Joins the messages of a turn, and those that come while one write is under way, into one.
 *
 * @module
 */
import type { Conn } from "../adapters/types.ts";
import { type Outgoing, putEnvelope, sizeOf } from "./_envelope.ts";
import { uvarintLength } from "./_uvarint.ts";

/** Data of this size is left where it is until it is written. */
const LARGE_BYTES = 32 * 1024;
/** Room for messages that are joined. */
const BATCH_BYTES = 64 * 1024;
/** The same of the first one: most clients say little. */
const FIRST_BATCH_BYTES = 1024;
/** What who has much to send sends at a time. */
export const CHUNK_BYTES: number = 64 * 1024;
/** While more than this is queued for a peer, it is not asked to cause more. */
const UNREAD_BYTES = 1024 * 1024;
/** Who has much to send waits while more than this is queued, so that small messages wait for no more than this. */
const HIGH_WATER_BYTES = 256 * 1024;

/** One for each connection. */
export class Sender {
  readonly #conn: Conn;
  readonly #onError: (error: unknown) => void;
  /** Parts of batches, and large data, in their order. */
  #pieces: Uint8Array[] = [];
  /** Batches that have no more room. */
  #full: Uint8Array[] = [];
  #batch: Uint8Array;
  /** Where what is in no piece yet begins, and ends. */
  #from = 0;
  #length = 0;
  /** A batch that was written, to be used again. */
  #spare: Uint8Array | undefined;
  /** Bytes that are queued or being written. */
  #queued = 0;
  #scheduled = false;
  #writing = false;
  #stopped = false;
  #whenLow: (() => void)[] = [];
  #whenRead: (() => void)[] = [];
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

  /** Bytes that the connection does not have yet. */
  get queued(): number {
    return this.#queued;
  }

  /** Whether the peer does not read what it has caused. */
  get unread(): boolean {
    return this.#queued > UNREAD_BYTES;
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

  /** Resolves when it is not `unread`. */
  read(): Promise<void> {
    if (!this.unread || this.#stopped) return Promise.resolve();
    return new Promise((resolve) => this.#whenRead.push(resolve));
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
    this.#from = this.#length = 0;
    for (const waiting of [this.#whenLow, this.#whenRead, this.#whenIdle]) {
      for (const resolve of waiting.splice(0)) resolve();
    }
  }

  /** The batch, with room for so many more bytes. */
  #room(bytes: number): Uint8Array {
    if (this.#length + bytes > this.#batch.length) {
      this.#cut();
      this.#full.push(this.#batch);
      const spare = bytes <= BATCH_BYTES ? this.#spare : undefined;
      this.#batch = spare ?? new Uint8Array(Math.max(BATCH_BYTES, bytes));
      this.#spare = undefined;
      this.#from = this.#length = 0;
    }
    return this.#batch;
  }

  /** What has come to the batch becomes a piece. */
  #cut(): void {
    if (this.#from < this.#length) {
      this.#pieces.push(this.#batch.subarray(this.#from, this.#length));
    }
    this.#from = this.#length;
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
      await this.#writeAll(pieces);
      this.#spare ??= full.find(({ length }) => length === BATCH_BYTES);
      if (this.#queued === 0) this.#from = this.#length = 0;
      this.#wake();
    }
    this.#writing = false;
    if (this.#queued === 0) { for (const resolve of this.#whenIdle.splice(0)) resolve(); }
  }

  /** The connection joins them as it is best there. */
  async #writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    let last: Promise<void> | undefined;
    for (const piece of pieces) {
      last = this.#conn.write(piece);
      // The last one tells of all: they are written in their order.
      last.then(() => {
        this.#queued -= piece.length;
        this.#wake();
      }, () => {});
    }
    await last;
  }

  /** Lets go on who waited for what was written. */
  #wake(): void {
    const room = HIGH_WATER_BYTES - this.#queued;
    const next = this.#whenLow.splice(0, Math.max(0, Math.ceil(room / CHUNK_BYTES)));
    for (const resolve of next) resolve();
    if (!this.unread) { for (const resolve of this.#whenRead.splice(0)) resolve(); }
  }
}
