/**
 * One stream of a session: its two windows, what waits to be read and to be written, and how it ends (spec-mux: streams).
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import { ByteQueue } from "./_byte_queue.ts";
import { Deadline } from "./_deadline.ts";
import { handled, Outgoing, type Write } from "./_outgoing.ts";
import { Queue } from "../adapters/queue.ts";
import { abortedError, type Waiter, waitIn } from "./_wait.ts";
import type { Settle, Source } from "./_sender.ts";
import type { ReceiveWindow } from "./_window.ts";
import { MuxError, type MuxErrorCode } from "./errors.ts";
import type { MuxStream } from "./stream.ts";

/** What a stream needs of its session, which knows what its protocol says for it. */
export interface Link {
  readonly closeTimeoutMs: number;
  /** False if there is no word for `reset()`, none for codes, and leftovers of any kind are legal. */
  readonly isV2: boolean;
  /** What we may send at first, and what the peer may ever allow, in bytes. */
  readonly sendWindow: number;
  readonly maxSendWindow: number;
  receiveWindow(): ReceiveWindow;
  /** Tells that it is accepted. */
  announce(id: number): void;
  /** Tells that we write no more. */
  endWriting(id: number): void;
  /** Tells that we read no more. */
  stopReading(id: number, code: number): void;
  /** Tells that it is over: `inOrder` if all that was written was sent, `known` if both directions have ended before. */
  end(id: number, inOrder: boolean, known: boolean, code: number): void;
  /** There is something to grant, see `takeCredit()`. */
  credit(source: Source): void;
  /** There is something to send. */
  data(source: Source): void;
  /** Its priority is another one. */
  requeue(source: Source): void;
  /** The stream is over, and has nothing to send. */
  forget(stream: StreamCore): void;
  /** And what came of it was read, or thrown away. */
  release(stream: StreamCore): void;
}

/** What ends writing behind all that was written: our direction alone, or the stream. */
type Farewell = "writing" | "stream";

type Read = Waiter<Uint8Array | null> & { readonly most: number };

/** Of 0 (first) to 7; the same as of an HTTP response that says nothing (RFC 9218). */
export const DEFAULT_PRIORITY = 3;

export class StreamCore implements Source {
  readonly id: number;
  readonly closed: Promise<void>;
  priority: number;
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
  readonly #receiveWindow: ReceiveWindow;
  /** How reading ends, behind what was received: in order (null) or by an error. */
  #readEnd: null | MuxError | undefined;
  #readDeadline = new Deadline(() => this.#expireReads());

  readonly #outgoing = new Outgoing();
  #sendWindow: number;
  /** Why nothing can be written any more. */
  #writeEnd: MuxError | undefined;
  /** Said behind what is queued. */
  #farewell: Farewell | undefined;
  #flushed: PromiseWithResolvers<void> | undefined;
  #writeDeadline = new Deadline(() => this.#expireWrites());

  /** Each direction ends by the writer's word or by the reader's. */
  #inDone = false;
  #outDone = false;
  /** The peer has said that it writes no more. */
  #peerEnded = false;
  #forgotten = false;
  #released = false;
  #close: Promise<void> | undefined;

  constructor(id: number, link: Link, priority: number = DEFAULT_PRIORITY) {
    this.id = id;
    this.#link = link;
    this.priority = priority;
    this.#sendWindow = link.sendWindow;
    this.#receiveWindow = link.receiveWindow();
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    this.closed.catch(() => {});
  }

  get queued(): number {
    return this.#outgoing.queued;
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
    this.#release();
    return bytes;
  }

  #grant(bytes: number): void {
    if (this.#inDone || this.#forgotten) return;
    if (this.#receiveWindow.consume(bytes)) this.#link.credit(this);
  }

  /** Tells the peer that its open was seen. */
  announce(): void {
    // Also of one that is over by now: the opener waits for it before it opens more.
    this.#link.announce(this.id);
  }

  takeCredit(): number | undefined {
    if (this.#forgotten) return undefined;
    const increment = this.#receiveWindow.take();
    if (increment === 0) return undefined;
    if (this.#receiveWindow.due) this.#link.credit(this);
    return increment;
  }

  onData(payload: Uint8Array): void {
    if (this.#peerEnded && this.#link.isV2) {
      throw new MuxError(
        "protocol",
        `stream ${this.id}: data behind the end of the peer's writing`,
      );
    }
    if (!this.#receiveWindow.receive(payload.length)) {
      throw new MuxError("window", `stream ${this.id}: the peer sends more than was granted`);
    }
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

  /** Whoever does not wait for each write hears of it by the next one, or by `closed`. */
  write(bytes: Uint8Array, { signal }: WaitOptions = {}): Promise<void> {
    const refusal = this.#writeRefusal(bytes, signal);
    if (refusal !== undefined) return handled(Promise.reject(refusal));
    if (bytes.length === 0) return Promise.resolve();
    const written = this.#outgoing.add(bytes, signal, (write) => {
      this.#takeBack(write, abortedError(signal!, this.#doing("write"), write.taken));
    });
    if (this.#sendWindow > 0) this.#link.data(this);
    return written;
  }

  #writeRefusal(bytes: Uint8Array, signal: AbortSignal | undefined): Error | undefined {
    if (!(bytes instanceof Uint8Array)) return new TypeError("what is written is a Uint8Array");
    if (signal?.aborted) return abortedError(signal, this.#doing("write"), 0);
    if (this.#writeEnd !== undefined) return this.#writeEnd;
    return this.#writeDeadline.expired ? this.#timedOut("write") : undefined;
  }

  get hasData(): boolean {
    return this.#outgoing.queued > 0 && this.#sendWindow > 0;
  }

  sendable(most: number): number {
    if (!this.hasData) return 0;
    const bytes = this.#outgoing.available(Math.min(most, this.#sendWindow));
    if (bytes !== undefined) return bytes;
    this.abort(new TypeError("the bytes of a write were transferred before they were sent"));
    return 0;
  }

  takeData(count: number, taken: Settle[]): Uint8Array {
    const payload = this.#outgoing.take(count, taken);
    this.#onTaken(count);
    return payload;
  }

  copyData(into: Uint8Array, at: number, count: number, taken: Settle[]): void {
    this.#outgoing.copy(into, at, count, taken);
    this.#onTaken(count);
  }

  #onTaken(count: number): void {
    this.#sendWindow -= count;
    if (this.#outgoing.queued === 0) this.#sayFarewell();
  }

  /** Gives up what is left of a write, and waiting for it. */
  #takeBack(write: Write, error: MuxError): void {
    this.#outgoing.takeBack(write, error);
    if (this.#outgoing.queued === 0) this.#sayFarewell();
  }

  #expireWrites(): void {
    this.#outgoing.reject((taken) => this.#timedOut("write", taken));
    this.#sayFarewell();
  }

  onWindowUpdate(length: number): void {
    this.#sendWindow += length;
    if (this.#sendWindow > this.#link.maxSendWindow) {
      throw new MuxError("window", `stream ${this.id}: the peer grants more than there is`);
    }
    if (this.hasData && length > 0) this.#link.data(this);
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
    this.#outgoing.reject(() => error);
    this.#flushed?.resolve();
  }

  /** Says `farewell` behind what is queued; resolves when that is done, or can no longer be. */
  #finish(farewell: Farewell, error: MuxError): Promise<void> {
    this.#writeEnd ??= error;
    this.#farewell = farewell;
    this.#flushed ??= Promise.withResolvers();
    if (this.#outgoing.queued === 0) this.#sayFarewell();
    return this.#flushed.promise;
  }

  #sayFarewell(): void {
    if (this.#farewell === undefined || this.#forgotten) return;
    if (this.#farewell === "writing" && !this.#outDone) this.#link.endWriting(this.id);
    this.#outDone = true;
    if (this.#farewell === "stream") this.#forget(undefined);
    else this.#forgetIfDone();
    this.#flushed?.resolve();
  }

  // Ending.

  closeWrite(): Promise<void> {
    if (this.#farewell !== undefined || this.#writeEnd !== undefined) {
      return this.#flushed?.promise ?? Promise.resolve();
    }
    const error = this.#error("write-closed", "writing was closed");
    return this.#finish("writing", error);
  }

  closeRead(code: number = 0): void {
    // An end that has come already stays as it is, but what came before it is not wanted any more.
    this.#endReading(null);
    const unread = this.#received.length;
    this.#received.clear();
    this.#release();
    if (this.#inDone || this.#forgotten) return;
    this.#grant(unread);
    this.#link.stopReading(this.id, code);
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
    const flushed = this.#finish("stream", error);
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
    this.#release();
  }

  abort(reason?: unknown, code: number = 0): void {
    if (this.#forgotten) {
      this.#received.clear();
      return this.#release();
    }
    const error = this.#error("stream-closed", "it was aborted", reason);
    this.#abandonReading(error);
    this.#endWriting(error);
    this.#writeEnd = error;
    this.#close ??= Promise.resolve();
    this.#forget(error, code);
  }

  /** The same, and the peer is told `code`, if the protocol has a word for it. */
  reset(code: number): void {
    this.#requireResets();
    this.abort(undefined, code);
  }

  /** As `closeRead()`, and the peer is told `code`. */
  stop(code: number): void {
    this.#requireResets();
    this.closeRead(code);
  }

  #requireResets(): void {
    if (!this.#link.isV2) throw this.#error("unsupported", "its protocol, v1, has no codes");
  }

  /** The peer will write no more. */
  onCloseRead(): void {
    this.#endReading(null);
    this.#peerEnded = this.#inDone = true;
    this.#forgetIfDone();
  }

  /** The peer will read no more. */
  onCloseWrite(resetCode?: number): void {
    const text = `stream ${this.id}: the peer reads no more`;
    this.#endWriting(new MuxError("write-closed", text, { resetCode }));
    this.#outDone = true;
    if (this.#farewell === "stream") this.#forget(undefined);
    else this.#forgetIfDone();
  }

  /** The peer has closed the stream. */
  onCloseStream(): void {
    const lost = this.#outgoing.queued > 0;
    const error = this.#error("peer-closed-stream", "the peer has closed it");
    this.#endReading(null);
    this.#endWriting(error);
    this.#gone(lost ? error : undefined);
  }

  /** The peer has given the stream up: what came is not all. */
  onReset(resetCode: number): void {
    const text = `stream ${this.id}: the peer has reset it with code ${resetCode}`;
    this.onSessionEnd(new MuxError("reset", text, { resetCode }));
  }

  /** It ends with its session, or by the peer. */
  onSessionEnd(error: MuxError): void {
    this.#endReading(error);
    this.#endWriting(error);
    this.#gone(error);
  }

  /** Both directions have ended: gomux keeps such a stream until it is closed. */
  #forgetIfDone(): void {
    if (this.#inDone && this.#outDone && !this.#forgotten) {
      this.#link.end(this.id, true, true, 0);
      this.#gone(undefined);
    }
  }

  #forget(error: MuxError | undefined, code: number = 0): void {
    if (this.#forgotten) return;
    this.#link.end(this.id, error === undefined, false, code);
    this.#gone(error);
  }

  #gone(error: MuxError | undefined): void {
    if (!this.#forgotten) {
      this.#forgotten = true;
      this.#link.forget(this);
      this.#release();
    }
    if (this.#settled) return;
    this.#settled = true;
    this.#readDeadline.set(undefined);
    this.#writeDeadline.set(undefined);
    if (error === undefined) this.#settleClosed.resolve();
    else this.#settleClosed.reject(error);
  }

  /** What is over counts until what came of it was read: otherwise a peer could have any amount of it held. */
  #release(): void {
    if (this.#released || !this.#forgotten || this.#received.length > 0) return;
    this.#released = true;
    this.#receiveWindow.end();
    this.#link.release(this);
  }

  setPriority(priority: number): void {
    this.priority = priority;
    this.#link.requeue(this);
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
