/**
 * A session: the streams of one connection, from its first frame to its farewell.
 *
 * @module
 */
import type { Aead } from "../adapters/aead.ts";
import { loadAead } from "../adapters/aead_load.ts";
import type { Address, Conn, Duplex, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { Queue } from "../adapters/queue.ts";
import { Receiver } from "./_receiver.ts";
import { Sender } from "./_sender.ts";
import { type Link, StreamCore } from "./_stream.ts";
import { abortedError, until, type Waiter, waitIn } from "./_wait.ts";
import { type Limits, limitsOf, type MuxOptions } from "./config.ts";
import { MuxError } from "./errors.ts";
import { FLAG } from "./frame.ts";
import { deriveKey } from "./key.ts";
import { MuxStream } from "./stream.ts";

/** Frames for streams of the peer that may wait for a transport that takes nothing: who makes us answer without reading gets no further. */
const MAX_QUEUED_ANSWERS = 100_000;

/** What {@linkcode Mux.stats} tells. */
export interface MuxStats {
  /** Live streams. */
  readonly streams: number;
  /** Our opens that have seen no frame of the peer yet. A gomux that is silent never says more, and after 128 of them our opens wait. */
  readonly pendingOpens: number;
  /** `openStream()` calls that wait for one of those, or for `maxStreams`. */
  readonly waitingOpens: number;
  /** Streams of the peer that wait for `acceptStream()`. */
  readonly pendingAccepts: number;
  /** Streams of the peer that were refused, for want of room. */
  readonly refusedStreams: number;
  /** Frames for streams that are over: what was on its way when they ended. */
  readonly lateFrames: number;
  /** Frames for streams that never were. */
  readonly strayFrames: number;
  /** Payload received, in bytes. */
  readonly bytesReceived: number;
  /** Payload sent, in bytes. */
  readonly bytesSent: number;
  /** Frames received. */
  readonly framesReceived: number;
  /** Frames sent. */
  readonly framesSent: number;
  /** Calls of the transport's `write()`. */
  readonly transportWrites: number;
  /**
   * True if the peer counts its frames, so that replay, reorder and drop are found: one of ours does, which is known with its first frame.
   * False for gomux; undefined as long as it cannot be told.
   */
  readonly peerCounts: boolean | undefined;
  /** What does the cryptography; undefined until it is loaded. */
  readonly aead: string | undefined;
}

/**
 * Many streams over one connection. Made by `client()`, `server()`, `dial()` and `listen()`.
 *
 * 1. The transport is read all the time: a slow reader of one stream slows that stream alone.
 * 2. After a failure every call rejects with the same error, once what came before it was read.
 * 3. `closed` resolves after an orderly end, ours or the peer's; it rejects otherwise. Ignoring it never makes an unhandled rejection.
 */
export class Mux implements AsyncIterable<MuxStream>, AsyncDisposable {
  /**
   * Resolves with the first frame of the peer that can be opened, so that it is known to have the psk; rejects with what ended the session
   * before. A gomux says nothing by itself. Ignoring it is safe.
   */
  readonly ready: Promise<void>;
  /** Settles with the end of the session. */
  readonly closed: Promise<void>;
  readonly #conn: Conn;
  readonly #isClient: boolean;
  readonly #limits: Limits;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  /** Settles when nothing more can come. */
  readonly #reading: Promise<void>;
  readonly #link: Link;
  #aead: Aead | undefined;
  #settleReady!: { resolve(): void; reject(error: MuxError): void };
  #settleClosed!: { resolve(): void; reject(error: MuxError): void };

  readonly #streams = new Map<number, StreamCore>();
  #nextId: number;
  /** Of the streams that were opened by us and by the peer the last; beyond them nothing ever was. */
  #lastOpened = -1;
  #lastAccepted = -1;
  readonly #unseen = new Set<number>();
  readonly #opens = new Queue<Waiter<MuxStream>>();
  readonly #accepted = new Queue<StreamCore>();
  readonly #accepts = new Queue<Waiter<MuxStream>>();
  #refused = 0;
  #late = 0;
  #strays = 0;

  #timer: ReturnType<typeof setTimeout> | undefined;
  #handshake: ReturnType<typeof setTimeout> | undefined;
  /** Runs after a failed write. */
  #grace: ReturnType<typeof setTimeout> | undefined;
  #authenticated = false;
  #close: Promise<void> | undefined;
  /** Either side has said farewell: the end of the transport is in order. */
  #farewell = false;
  #peerClosed = false;
  /** What every call rejects with from now on. */
  #end: MuxError | undefined;

  /** Use `client()` or `server()`. */
  constructor(duplex: Duplex | Conn, isClient: boolean, options: MuxOptions) {
    const limits = this.#limits = limitsOf(options);
    const key = deriveKey(options.psk);
    this.#isClient = isClient;
    this.#nextId = isClient ? 0 : 1;
    this.ready = new Promise((resolve, reject) => this.#settleReady = { resolve, reject });
    this.ready.catch(() => {});
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    this.closed.catch(() => {});
    const aead = (options.aead ? Promise.resolve(options.aead) : loadAead()).then((it) =>
      this.#aead = it
    );
    const conn = this.#conn = wrapConn(duplex);
    this.#sender = new Sender(conn, key, aead, (error) => this.#onWriteError(error));
    this.#receiver = new Receiver(conn, key, aead, this.#sender.prefix, {
      onFirstBytes: () => this.#awaitHandshake(),
      onFrame: (id, flags, length, payload) => this.#onFrame(id, flags, length, payload),
      onEnd: (error) => this.#onEnd(error),
    });
    this.#link = {
      closeTimeoutMs: limits.closeTimeoutMs,
      control: (id, flags) => this.#control(id, flags),
      credit: (source) => this.#sender.credit(source),
      data: (source) => this.#sender.data(source),
      forget: (stream) => this.#forget(stream),
    };
    // Tells at once whether the psk is the same; gomux does not mind. A server that does not know the client yet says nothing, which
    // would be something to guess the psk by.
    if (isClient) this.#control(0, FLAG.KEEPALIVE);
    this.#watch();
    this.#reading = this.#receiver.run();
  }

  /** Our end of the transport, if it tells. */
  get local(): Address | undefined {
    return this.#conn.local;
  }

  /** The peer's end of the transport, if it tells. */
  get remote(): Address | undefined {
    return this.#conn.remote;
  }

  /** The live streams. */
  get streams(): readonly MuxStream[] {
    return [...this.#streams.values()].map((core) => this.#streamOf(core));
  }

  /**
   * Opens a stream. It can be used at once: the protocol has no answer to an open. Beyond `maxPendingOpens` and `maxStreams` it waits.
   *
   * @throws {MuxError} `aborted` or `timeout` by `signal`, `closed`, `peer-closed`, or what ended the session
   */
  openStream({ signal }: WaitOptions = {}): Promise<MuxStream> {
    const refusal = this.#refusal(signal, "opening a stream");
    if (refusal !== undefined) return Promise.reject(refusal);
    if (this.#opens.length === 0 && this.#mayOpen()) return Promise.resolve(this.#open());
    return waitIn(this.#opens, {}, signal, "opening a stream");
  }

  /**
   * Waits for a stream that the peer opens. Those that came before the end of the session are given first.
   *
   * @throws {MuxError} `aborted` or `timeout` by `signal`, `closed`, `peer-closed`, or what ended the session
   */
  acceptStream({ signal }: WaitOptions = {}): Promise<MuxStream> {
    const doing = "accepting a stream";
    if (signal?.aborted) return Promise.reject(abortedError(signal, doing));
    const core = this.#accepted.shift();
    if (core !== undefined) return Promise.resolve(this.#accept(core));
    const refusal = this.#refusal(undefined, doing);
    if (refusal !== undefined) return Promise.reject(refusal);
    return waitIn(this.#accepts, {}, signal, doing);
  }

  /** Yields each stream that the peer opens; ends with an orderly end of the session. */
  async *[Symbol.asyncIterator](): AsyncGenerator<MuxStream, void> {
    for (;;) {
      let stream: MuxStream;
      try {
        stream = await this.acceptStream();
      } catch (error) {
        const { code } = error as MuxError;
        if (code === "closed" || code === "peer-closed") return;
        throw error;
      }
      yield stream;
    }
  }

  /** Counters, for people and for graphs. */
  stats(): MuxStats {
    return {
      streams: this.#streams.size,
      pendingOpens: this.#unseen.size,
      waitingOpens: this.#opens.length,
      pendingAccepts: this.#accepted.length,
      refusedStreams: this.#refused,
      lateFrames: this.#late,
      strayFrames: this.#strays,
      bytesReceived: this.#receiver.bytes,
      bytesSent: this.#sender.bytes,
      framesReceived: this.#receiver.frames,
      framesSent: this.#sender.frames,
      transportWrites: this.#sender.writes,
      peerCounts: this.#receiver.peerCounts,
      aead: this.#aead?.name,
    };
  }

  /**
   * Sends what was written to all streams, closes them, says farewell and closes the transport in order.
   *
   * @throws {MuxError} `timeout` if that takes longer than `closeTimeoutMs`, or what ended the session before
   */
  close({ signal }: WaitOptions = {}): Promise<void> {
    this.#close ??= this.#end === undefined ? this.#doClose() : this.closed;
    // Who ignores it hears of it by `closed`.
    this.#close.catch(() => {});
    return until(this.#close, signal, "closing");
  }

  async #doClose(): Promise<void> {
    const error = new MuxError("closed", "the session is closed");
    this.#rejectWaiting(error);
    const { closeTimeoutMs } = this.#limits;
    const until = performance.now() + closeTimeoutMs;
    const late = setTimeout(() => {
      this.#fail(new MuxError("timeout", `closing: not done within ${closeTimeoutMs} ms`));
    }, closeTimeoutMs);
    const live = [...this.#streams.values()].map((core) => core.close().catch(() => {}));
    await Promise.race([Promise.all(live), this.closed.catch(() => {})]);
    if (this.#end === undefined && !this.#peerClosed) {
      this.#control(0, FLAG.CLOSE_MUX);
      // Nothing goes behind it: gomux closes its end at once, and what still came would make that a reset.
      this.#farewell = true;
      await Promise.race([this.#sender.idle(), this.closed.catch(() => {})]);
    }
    clearTimeout(late);
    if (this.#end === undefined) await this.#finish(error, until - performance.now());
    return this.closed;
  }

  /**
   * The end in order: by our farewell, or the peer's. Reads on until the peer's own end: what comes for a socket that is closed resets the
   * connection, under our last frames that are still on their way.
   */
  async #finish(error: MuxError, timeoutMs: number): Promise<void> {
    this.#settle(error);
    const late = setTimeout(() => {
      if (!this.#peerClosed) {
        const text = "closing: the peer did not end the transport, and may not have everything";
        this.#settleClosed.reject(new MuxError("timeout", text));
      }
      this.#conn.abort(error);
    }, timeoutMs);
    await this.#conn.closeWrite().catch(() => {});
    await this.#reading;
    await this.#conn.close().catch(() => {});
    clearTimeout(late);
    this.#settleClosed.resolve();
  }

  /** Gives the session up at once: the peer sees the transport break. Every pending call rejects with `closed`. */
  abort(reason?: unknown): void {
    this.#fail(new MuxError("closed", "the session was aborted", { cause: reason }));
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // Streams.

  #mayOpen(): boolean {
    const { maxPendingOpens, maxStreams } = this.#limits;
    return this.#unseen.size < maxPendingOpens && this.#streams.size < maxStreams;
  }

  #open(): MuxStream {
    // After 2^31 of them they begin anew.
    while (this.#streams.has(this.#nextId) || this.#unseen.has(this.#nextId)) {
      this.#nextId = (this.#nextId + 2) >>> 0;
    }
    const id = this.#nextId;
    this.#nextId = (id + 2) >>> 0;
    this.#lastOpened = Math.max(this.#lastOpened, id);
    const core = new StreamCore(id, this.#link);
    this.#streams.set(id, core);
    this.#unseen.add(id);
    this.#control(id, FLAG.OPEN_STREAM);
    return this.#streamOf(core);
  }

  #openWaiting(): void {
    while (this.#opens.length > 0 && this.#mayOpen()) this.#opens.shift()!.resolve(this.#open());
  }

  #accept(core: StreamCore): MuxStream {
    if (this.#end === undefined) core.announce();
    return this.#streamOf(core);
  }

  #streamOf(core: StreamCore): MuxStream {
    return core.facade ??= new MuxStream(core, this.#conn);
  }

  #forget(core: StreamCore): void {
    this.#sender.leave(core);
    this.#streams.delete(core.id);
    // One of ours tells when it has accepted or refused the stream, closed or not; a gomux may never.
    if (!this.#receiver.peerIsOurs) this.#unseen.delete(core.id);
    this.#openWaiting();
  }

  #control(id: number, flags: number): void {
    if (this.#farewell) return;
    this.#sender.control(id, flags, this.#isTheirs(id));
    if (this.#sender.queuedAnswers > MAX_QUEUED_ANSWERS && this.#close === undefined) {
      const text = `more than ${MAX_QUEUED_ANSWERS} frames wait for a peer that does not read`;
      this.#fail(new MuxError("limit", text));
    }
  }

  /** Whether the peer gives that number. */
  #isTheirs(id: number): boolean {
    return (id & 1) === (this.#isClient ? 1 : 0);
  }

  // What the peer sends.

  #onFrame(id: number, flags: number, length: number, payload: Uint8Array): void {
    if (!this.#authenticated) {
      this.#authenticated = true;
      this.#settleReady.resolve();
      clearTimeout(this.#handshake);
      if (!this.#isClient) this.#control(0, FLAG.KEEPALIVE);
    }
    if (this.#end !== undefined) return;
    if (flags === FLAG.OPEN_STREAM) return this.#onOpen(id);
    if (flags === FLAG.CLOSE_MUX) return this.#onFarewell();
    if (flags === FLAG.KEEPALIVE || flags > FLAG.CLOSE_MUX) return;
    const stream = this.#streams.get(id);
    if (this.#unseen.delete(id)) this.#openWaiting();
    if (stream === undefined) return this.#onStray(id);
    if (flags === FLAG.DATA) stream.onData(payload);
    else if (flags === FLAG.WINDOW_UPDATE) stream.onWindowUpdate(length);
    else if (flags === FLAG.CLOSE_READ) stream.onCloseRead();
    else if (flags === FLAG.CLOSE_WRITE) stream.onCloseWrite();
    else stream.onCloseStream();
  }

  #onOpen(id: number): void {
    if (!this.#isTheirs(id)) {
      const text =
        `the peer opens stream ${id}, which is a number of ours: are both clients, or both servers?`;
      throw new MuxError("protocol", text);
    }
    if (this.#streams.has(id)) {
      throw new MuxError("protocol", `the peer opens stream ${id} again`);
    }
    this.#lastAccepted = Math.max(this.#lastAccepted, id);
    const { maxStreams, maxPendingAccepts } = this.#limits;
    const full = this.#streams.size >= maxStreams || this.#accepted.length >= maxPendingAccepts;
    if (full || this.#close !== undefined) {
      this.#refused++;
      return this.#control(id, FLAG.CLOSE_STREAM);
    }
    const core = new StreamCore(id, this.#link);
    this.#streams.set(id, core);
    const waiter = this.#accepts.shift();
    if (waiter === undefined) this.#accepted.push(core);
    else waiter.resolve(this.#accept(core));
  }

  /** Leftovers for a stream that is over are legal, however many; for one that never was they are not, and gomux sends none. */
  #onStray(id: number): void {
    if (id <= (this.#isTheirs(id) ? this.#lastAccepted : this.#lastOpened)) {
      this.#late++;
      return;
    }
    if (++this.#strays > this.#limits.maxStrayFrames) {
      throw new MuxError("limit", `more than ${this.#limits.maxStrayFrames} frames for no stream`);
    }
  }

  #onFarewell(): void {
    const error = new MuxError("peer-closed", "the peer has closed the session");
    this.#farewell = this.#peerClosed = true;
    if (this.#close === undefined) {
      this.#close = this.closed;
      this.#finish(error, this.#limits.closeTimeoutMs);
    } else {
      // We are closing too: what it has not taken by now, it never will.
      for (const core of [...this.#streams.values()]) core.onSessionEnd(error);
    }
  }

  /** The transport has ended (without a cause), or failed, or brought what breaks the rules. */
  #onEnd(cause: unknown): void {
    // Behind a farewell it makes no difference how the transport ends: whether all of ours has left, writing tells.
    if (this.#farewell && !(cause instanceof MuxError)) return;
    if (this.#peerClosed) return;
    if (cause instanceof MuxError) return this.#fail(cause);
    const how = cause === undefined ? "ended without a farewell" : "failed";
    // A server of ours ends the transport of a client that has another psk, without a word.
    const hint = this.#authenticated
      ? ""
      : " before any frame of the peer: is its psk another one?";
    const options = cause === undefined ? {} : { cause };
    this.#fail(new MuxError("truncated", `the transport ${how}${hint}`, options));
  }

  /** Reading tells it too, mostly, and after all that the peer had still to say. */
  #onWriteError(cause: unknown): void {
    if (this.#end !== undefined || this.#peerClosed) return;
    const error = new MuxError("truncated", "the transport failed", { cause });
    this.#grace ??= setTimeout(() => this.#fail(error), WRITE_ERROR_GRACE_MS);
  }

  // The end.

  #fail(error: MuxError): void {
    if (this.#end !== undefined) return;
    this.#settle(error);
    this.#settleClosed.reject(error);
    this.#conn.abort(error);
  }

  #settle(error: MuxError): void {
    this.#end = error;
    this.#settleReady.reject(error);
    clearTimeout(this.#timer);
    clearTimeout(this.#handshake);
    clearTimeout(this.#grace);
    this.#sender.stop(error);
    this.#unseen.clear();
    this.#rejectWaiting(error);
    for (const core of [...this.#streams.values()]) core.onSessionEnd(error);
  }

  #rejectWaiting(error: MuxError): void {
    for (const queue of [this.#opens, this.#accepts]) {
      for (let waiter = queue.shift(); waiter; waiter = queue.shift()) waiter.reject(error);
    }
  }

  /** Why nothing can be opened or accepted. */
  #refusal(signal: AbortSignal | undefined, doing: string): MuxError | undefined {
    if (signal?.aborted) return abortedError(signal, doing);
    if (this.#end !== undefined) return this.#end;
    if (this.#close !== undefined) return new MuxError("closed", "the session is closed");
    return undefined;
  }

  // Time.

  #awaitHandshake(): void {
    if (this.#end !== undefined) return;
    const { handshakeTimeoutMs } = this.#limits;
    this.#handshake = setTimeout(() => {
      const text = `no whole frame of the peer within ${handshakeTimeoutMs} ms of its first bytes`;
      this.#fail(new MuxError("timeout", text));
    }, handshakeTimeoutMs);
  }

  /** Keeps the connection alive, and gives it up when the peer is silent for too long. */
  #watch(): void {
    const { keepaliveMs, idleTimeoutMs } = this.#limits;
    const now = performance.now();
    if (now >= this.#receiver.lastFrameAt + idleTimeoutMs) {
      return this.#fail(new MuxError("timeout", `no frame of the peer within ${idleTimeoutMs} ms`));
    }
    let written = this.#sender.lastWriteAt;
    if (now >= written + keepaliveMs) {
      this.#control(0, FLAG.KEEPALIVE);
      written = now;
      if (this.#end !== undefined) return;
    }
    const due = Math.min(written + keepaliveMs, this.#receiver.lastFrameAt + idleTimeoutMs);
    this.#timer = setTimeout(() => this.#watch(), Math.max(1, due - now));
  }
}

/** How long reading may go on after a failed write, in milliseconds. */
const WRITE_ERROR_GRACE_MS = 1000;
