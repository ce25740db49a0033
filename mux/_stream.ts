/**
 * One stream of a session: its two windows, what waits to be read and to be written, and how it ends (spec-mux: streams).
 *
 * @module
 */
import { MAX_TIMEOUT_MS } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { ByteQueue } from "./_byte_queue.ts";
import { Queue } from "../adapters/queue.ts";
import { abortedError, type Waiter, waitIn } from "./_wait.ts";
import type { Settle, Source } from "./_sender.ts";
import { CREDIT_BYTES, WINDOW_BYTES } from "./config.ts";
import { MuxError, type MuxErrorCode } from "./errors.ts";
import { FLAG, MAX_PAYLOAD_BYTES } from "./frame.ts";
import type { MuxStream } from "./stream.ts";

/** What a stream needs of its session. */
export interface Link {
  readonly closeTimeoutMs: number;
  /** Sends a frame without a payload. */
  control(id: number, flags: number): void;
  /** There is something to grant, see `takeCredit()`. */
  credit(source: Source): void;
  /** There is something to send, see `takeData()`. */
  data(source: Source): void;
  /** The stream is over, and has nothing to send. */
  forget(stream: StreamCore): void;
}

type Read = Waiter<Uint8Array | null> & { readonly most: number };

interface Write extends Settle {
  readonly bytes: Uint8Array;
  /** Of `bytes` when they were given: less if somebody has transferred them since. */
  readonly size: number;
  taken: number;
}

export class StreamCore implements Source {
  readonly id: number;
  readonly closed: Promise<void>;
  readyToSend = false;
  creditQueued = false;
  /** What its user holds, once there is one. */
  facade: MuxStream | undefined;
  readonly #link: Link;
  #tellReadError: ((error: MuxError) => void) | undefined;
  #tellWriteError: ((error: MuxError) => void) | undefined;
  #settleClosed!: { resolve(): void; reject(error: MuxError): void };
  #settled = false;

  readonly #received = new ByteQueue();
  readonly #reads = new Queue<Read>();
  /** What the peer may still send. */
  #receiveWindow = WINDOW_BYTES;
  /** Read, or thrown away, and not granted again yet. */
  #consumed = 0;
  /** How reading ends, behind what was received: in order (null) or by an error. */
  #readEnd: null | MuxError | undefined;
  #readDeadline = new Deadline(() => this.#expireReads());

  readonly #writes = new Queue<Write>();
  /** Those that were taken whole and wait for the transport. */
  readonly #taken = new Set<Write>();
  /** Bytes given to `write()` that were not sent. */
  #queued = 0;
  #sendWindow = WINDOW_BYTES;
  /** Why nothing can be written any more. */
  #writeEnd: MuxError | undefined;
  /** The frame that goes behind what is queued. */
  #farewell: 3 | 5 | undefined;
  #flushed: PromiseWithResolvers<void> | undefined;
  #writeDeadline = new Deadline(() => this.#expireWrites());

  /** Both ends of each direction: reading is over with the peer's CLOSE_READ or our CLOSE_WRITE, writing the other way round. */
  #inDone = false;
  #outDone = false;
  #forgotten = false;
  #close: Promise<void> | undefined;

  constructor(id: number, link: Link) {
    this.id = id;
    this.#link = link;
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    this.closed.catch(() => {});
  }

  get queued(): number {
    return this.#queued;
  }

  // Reading.

  /** The next bytes, at most `most`; null at the end. */
  read({ signal }: WaitOptions = {}, most: number = Infinity): Promise<Uint8Array | null> {
    if (signal?.aborted) return Promise.reject(abortedError(signal, this.#doing("read")));
    if (this.#readDeadline.expired) return Promise.reject(this.#timedOut("read"));
    if (this.#received.length > 0 && this.#reads.length === 0) {
      return Promise.resolve(this.#take(most));
    }
    if (this.#readEnd === null) return Promise.resolve(null);
    if (this.#readEnd !== undefined) return Promise.reject(this.#readEnd);
    return waitIn(this.#reads, { most }, signal, this.#doing("read"));
  }

  #take(most: number): Uint8Array {
    const bytes = this.#received.shift(most);
    this.#grant(bytes.length);
    return bytes;
  }

  #grant(bytes: number): void {
    if (this.#inDone || this.#forgotten) return;
    this.#consumed += bytes;
    if (this.#consumed >= CREDIT_BYTES) this.#link.credit(this);
  }

  /** Tells the peer that its open was seen, by a grant of nothing: harmless to gomux, which has no other word for it. */
  announce(): void {
    // Also of one that is over by now: the opener waits for it before it opens more.
    this.#link.control(this.id, FLAG.WINDOW_UPDATE);
  }

  takeCredit(): number | undefined {
    if (this.#forgotten) return undefined;
    const length = Math.min(this.#consumed, MAX_PAYLOAD_BYTES);
    if (length === 0) return undefined;
    this.#consumed -= length;
    this.#receiveWindow += length;
    if (this.#consumed >= CREDIT_BYTES) this.#link.credit(this);
    return length;
  }

  onData(payload: Uint8Array): void {
    if (payload.length > this.#receiveWindow) {
      throw new MuxError("window", `stream ${this.id}: the peer sends more than was granted`);
    }
    this.#receiveWindow -= payload.length;
    // Nobody will read it, but the peer must not stall before it hears of that.
    if (this.#readEnd !== undefined) return this.#grant(payload.length);
    this.#received.push(payload);
    while (this.#received.length > 0 && this.#reads.length > 0) {
      const { resolve, most } = this.#reads.shift()!;
      resolve(this.#take(most));
    }
  }

  /** Nothing more comes, behind what was received. */
  #endReading(end: null | MuxError): void {
    if (this.#readEnd !== undefined) return;
    this.#readEnd = end;
    if (end !== null && this.#received.length === 0) this.#tellReadError?.(end);
    for (let read = this.#reads.shift(); read; read = this.#reads.shift()) {
      if (end === null) read.resolve(null);
      else read.reject(end);
    }
  }

  /** Tells an error that ends reading, behind all that was received: a web stream has to hear of it while nobody reads. */
  hearReadError(tell: (error: MuxError) => void): void {
    this.#tellReadError = tell;
    if (this.#readEnd && this.#received.length === 0) tell(this.#readEnd);
  }

  #expireReads(): void {
    for (let read = this.#reads.shift(); read; read = this.#reads.shift()) {
      read.reject(this.#timedOut("read"));
    }
  }

  // Writing.

  write(bytes: Uint8Array, options: WaitOptions = {}): Promise<void> {
    const written = this.#write(bytes, options);
    // Whoever does not wait for each hears of it by the next one, or by `closed`.
    written.catch(() => {});
    return written;
  }

  #write(bytes: Uint8Array, { signal }: WaitOptions): Promise<void> {
    if (!(bytes instanceof Uint8Array)) {
      return Promise.reject(new TypeError("what is written is a Uint8Array"));
    }
    if (signal?.aborted) return Promise.reject(abortedError(signal, this.#doing("write"), 0));
    if (this.#writeEnd !== undefined) return Promise.reject(this.#writeEnd);
    if (this.#writeDeadline.expired) return Promise.reject(this.#timedOut("write"));
    if (bytes.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const write: Write = {
        bytes,
        size: bytes.length,
        taken: 0,
        resolve: () => (this.#taken.delete(write), resolve()),
        reject: (error) => (this.#taken.delete(write), reject(cutShort(error, write.taken))),
      };
      if (signal !== undefined) {
        const { resolve, reject } = write;
        const onAbort = () => {
          this.#takeBack(write, abortedError(signal, this.#doing("write"), write.taken));
        };
        const gone = () => signal.removeEventListener("abort", onAbort);
        write.resolve = () => (gone(), resolve());
        write.reject = (error) => (gone(), reject(error));
        signal.addEventListener("abort", onAbort, { once: true });
      }
      this.#writes.push(write);
      this.#queued += bytes.length;
      if (this.#sendWindow > 0) this.#link.data(this);
    });
  }

  get hasData(): boolean {
    return this.#queued > 0 && this.#sendWindow > 0;
  }

  takeData(most: number, taken: Settle[]): Uint8Array | undefined {
    const room = Math.min(most, this.#sendWindow, this.#queued);
    const first = this.#writes.first();
    if (room === 0 || first === undefined) return undefined;
    if (first.bytes.length !== first.size) {
      this.abort(new TypeError("the bytes of a write were transferred before they were sent"));
      return undefined;
    }
    let payload: Uint8Array;
    if (first.bytes.length - first.taken >= room) {
      payload = this.#takeFrom(first, room, taken);
    } else {
      payload = new Uint8Array(room);
      for (let at = 0; at < room;) {
        const write = this.#writes.first()!;
        if (write.bytes.length !== write.size) {
          // The next turn tells.
          payload = payload.subarray(0, at);
          break;
        }
        const part = this.#takeFrom(write, room - at, taken);
        payload.set(part, at);
        at += part.length;
      }
    }
    this.#queued -= payload.length;
    this.#sendWindow -= payload.length;
    if (this.#queued === 0) this.#sayFarewell();
    return payload;
  }

  #takeFrom(write: Write, most: number, taken: Settle[]): Uint8Array {
    const from = write.taken;
    const to = Math.min(write.bytes.length, from + most);
    write.taken = to;
    if (to === write.bytes.length) {
      this.#writes.shift();
      this.#taken.add(write);
      taken.push(write);
    }
    return from === 0 && to === write.bytes.length ? write.bytes : write.bytes.subarray(from, to);
  }

  /** Gives up what is left of a write, and waiting for it. */
  #takeBack(write: Write, error: MuxError): void {
    write.reject(error);
    if (!this.#writes.remove(write)) return;
    this.#queued -= write.size - write.taken;
    if (this.#queued === 0) this.#sayFarewell();
  }

  #expireWrites(): void {
    const writes = [...this.#taken, ...this.#writes];
    this.#writes.clear();
    this.#queued = 0;
    for (const write of writes) write.reject(this.#timedOut("write", write.taken));
    this.#sayFarewell();
  }

  onWindowUpdate(length: number): void {
    this.#sendWindow += length;
    if (this.#sendWindow > WINDOW_BYTES) {
      throw new MuxError("window", `stream ${this.id}: the peer grants more than there is`);
    }
    if (this.#queued > 0 && length > 0) this.#link.data(this);
  }

  /** Tells an end of writing that is not of the writer's own making. */
  hearWriteError(tell: (error: MuxError) => void): void {
    this.#tellWriteError = tell;
    if (this.#writeEnd !== undefined && this.#farewell === undefined) tell(this.#writeEnd);
  }

  /** Writes fail from now on, and so do those that wait. */
  #endWriting(error: MuxError): void {
    this.#writeEnd ??= error;
    this.#tellWriteError?.(error);
    this.#queued = 0;
    for (const write of [...this.#taken, ...this.#writes]) write.reject(error);
    this.#writes.clear();
    this.#flushed?.resolve();
  }

  /** Sends `flags` behind what is queued; resolves when that is done, or can no longer be. */
  #finish(flags: 3 | 5, error: MuxError): Promise<void> {
    this.#writeEnd ??= error;
    this.#farewell = flags;
    this.#flushed ??= Promise.withResolvers();
    if (this.#queued === 0) this.#sayFarewell();
    return this.#flushed.promise;
  }

  #sayFarewell(): void {
    if (this.#farewell === undefined || this.#forgotten) return;
    if (this.#farewell === FLAG.CLOSE_READ && !this.#outDone) {
      this.#link.control(this.id, FLAG.CLOSE_READ);
    }
    this.#outDone = true;
    if (this.#farewell === FLAG.CLOSE_STREAM) this.#forget(undefined);
    else this.#forgetIfDone();
    this.#flushed?.resolve();
  }

  // Ending.

  closeWrite(): Promise<void> {
    if (this.#farewell !== undefined || this.#writeEnd !== undefined) {
      return this.#flushed?.promise ?? Promise.resolve();
    }
    const error = this.#error("write-closed", "writing was closed");
    return this.#finish(FLAG.CLOSE_READ, error);
  }

  closeRead(): void {
    // An end that has come already stays as it is, but what came before it is not wanted any more.
    this.#endReading(null);
    const unread = this.#received.length;
    this.#received.clear();
    if (this.#inDone || this.#forgotten) return;
    this.#grant(unread);
    this.#link.control(this.id, FLAG.CLOSE_WRITE);
    this.#inDone = true;
    this.#forgetIfDone();
  }

  close(): Promise<void> {
    if (this.#close !== undefined) return this.#close;
    const error = this.#error("stream-closed", "it was closed");
    this.#abandonReading(error);
    if (this.#forgotten) {
      this.#writeEnd = error;
      return this.#close = Promise.resolve();
    }
    const timer = setTimeout(() => {
      const late = this.#error("timeout", `not flushed within ${this.#link.closeTimeoutMs} ms`);
      this.#endWriting(late);
      this.#forget(late);
    }, this.#link.closeTimeoutMs);
    const flushed = this.#finish(FLAG.CLOSE_STREAM, error);
    this.#writeEnd = error;
    this.#tellWriteError?.(error);
    this.#close = flushed.then(() => clearTimeout(timer)).then(() => this.closed);
    this.#close.catch(() => {});
    return this.#close;
  }

  /** Reads nothing more, and lets the peer go on meanwhile. */
  #abandonReading(error: MuxError): void {
    const unread = this.#received.length;
    this.#received.clear();
    this.#endReading(error);
    this.#readEnd = error;
    this.#grant(unread);
  }

  abort(reason?: unknown): void {
    if (this.#forgotten) return this.#received.clear();
    const error = this.#error("stream-closed", "it was aborted", reason);
    this.#abandonReading(error);
    this.#endWriting(error);
    this.#writeEnd = error;
    this.#close ??= Promise.resolve();
    this.#forget(error);
  }

  /** The peer will write no more. */
  onCloseRead(): void {
    this.#endReading(null);
    this.#inDone = true;
    this.#forgetIfDone();
  }

  /** The peer will read no more. */
  onCloseWrite(): void {
    this.#endWriting(this.#error("write-closed", "the peer reads no more"));
    this.#outDone = true;
    if (this.#farewell === FLAG.CLOSE_STREAM) this.#forget(undefined);
    else this.#forgetIfDone();
  }

  /** The peer has closed the stream. */
  onCloseStream(): void {
    const lost = this.#queued > 0;
    const error = this.#error("peer-closed-stream", "the peer has closed it");
    this.#endReading(null);
    this.#endWriting(error);
    this.#gone(lost ? error : undefined);
  }

  /** The session is over. */
  onSessionEnd(error: MuxError): void {
    this.#endReading(error);
    this.#endWriting(error);
    this.#gone(error);
  }

  /** Both directions have ended: gomux keeps such a stream until it is closed. */
  #forgetIfDone(): void {
    if (this.#inDone && this.#outDone) this.#forget(undefined);
  }

  #forget(error: MuxError | undefined): void {
    if (this.#forgotten) return;
    this.#link.control(this.id, FLAG.CLOSE_STREAM);
    this.#gone(error);
  }

  #gone(error: MuxError | undefined): void {
    if (!this.#forgotten) {
      this.#forgotten = true;
      this.#link.forget(this);
    }
    if (this.#settled) return;
    this.#settled = true;
    this.#readDeadline.set(undefined);
    this.#writeDeadline.set(undefined);
    if (error === undefined) this.#settleClosed.resolve();
    else this.#settleClosed.reject(error);
  }

  // Deadlines.

  setReadDeadline(when: Date | number | undefined): void {
    // Nothing waits any more, and a timer would keep the process alive.
    if (!this.#settled) this.#readDeadline.set(when);
  }

  setWriteDeadline(when: Date | number | undefined): void {
    if (!this.#settled) this.#writeDeadline.set(when);
  }

  #error(code: MuxErrorCode, text: string, cause?: unknown): MuxError {
    return new MuxError(code, `stream ${this.id}: ${text}`, cause === undefined ? {} : { cause });
  }

  #timedOut(what: string, written?: number): MuxError {
    const text = `stream ${this.id}: the ${what} deadline has passed`;
    return new MuxError("timeout", text, written === undefined ? {} : { written });
  }

  #doing(what: string): string {
    return `stream ${this.id}: ${what}`;
  }
}

/** `error` for one write, of which so much was sent, or on its way to the transport. */
function cutShort(error: MuxError, written: number): MuxError {
  const { code, message, cause } = error;
  return error.written === undefined ? new MuxError(code, message, { cause, written }) : error;
}

/** Numbers from here on are points in time, not spans: a hundred years from now would be less. */
const FIRST_TIMESTAMP_MS = 1e12;

/** A point in time, and what to do then. */
class Deadline {
  expired = false;
  readonly #onExpire: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(onExpire: () => void) {
    this.#onExpire = onExpire;
  }

  set(when: Date | number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.expired = false;
    if (when === undefined) return;
    const at = Number(when);
    if (Number.isNaN(at)) throw new RangeError("a deadline that is no time");
    const absolute = typeof when !== "number" || at >= FIRST_TIMESTAMP_MS;
    this.#wait(performance.now() + (absolute ? at - Date.now() : at));
  }

  #wait(until: number): void {
    const left = until - performance.now();
    if (left <= 0) {
      this.expired = true;
      this.#onExpire();
      return;
    }
    this.#timer = setTimeout(() => this.#wait(until), Math.min(left, MAX_TIMEOUT_MS));
  }
}
