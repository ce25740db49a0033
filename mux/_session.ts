/**
 * What all sessions have in common, whatever their protocol: streams, who waits for them, time limits and the end.
 *
 * @module
 */
import type { Conn, WaitOptions } from "../adapters/types.ts";
import { Queue } from "../adapters/queue.ts";
import type { Receiver } from "./_receiver.ts";
import type { Control, Sender } from "./_sender.ts";
import { DEFAULT_PRIORITY, type Link, StreamCore } from "./_stream.ts";
import { abortedError, until, type Waiter, waitIn } from "./_wait.ts";
import type { Limits, OpenOptions } from "./config.ts";
import { MuxError } from "./errors.ts";
import type { MuxStats } from "./stats.ts";
import { MuxStream } from "./stream.ts";

/** Frames for streams of the peer that may wait for a transport that takes nothing: who makes us answer without reading gets no further. */
const MAX_QUEUED_ANSWERS = 100_000;
/** How long reading may go on after a failed write, in milliseconds. */
const WRITE_ERROR_GRACE_MS = 1000;
/** How long the last word to a peer that breaks the rules may take, in milliseconds. */
const LAST_WORD_MS = 1000;

type Opener = Waiter<MuxStream> & { readonly priority: number };

/** What a session tells of itself; see `Mux`, which passes all of it on. */
export abstract class Session {
  readonly ready: Promise<void>;
  readonly closed: Promise<void>;
  protected readonly conn: Conn;
  protected readonly isClient: boolean;
  protected readonly limits: Limits;
  protected abstract readonly sender: Sender;
  protected abstract readonly receiver: Receiver;
  protected abstract readonly link: Link;
  /** Live streams. */
  protected readonly live: Map<number, StreamCore> = new Map();
  protected readonly accepted: Queue<StreamCore> = new Queue();
  protected refused = 0;
  protected late = 0;
  protected authenticated = false;
  /** True if a farewell is answered by one, so that both know that the other has everything. */
  protected abstract readonly answersFarewell: boolean;
  /** True if the peer hears nothing of us yet, because it may be nobody. */
  protected abstract readonly silent: boolean;
  /** Nothing of ours goes any more: the end of the transport is in order. */
  protected farewell = false;
  /** What came in place of the answer to our farewell. */
  protected answerError: MuxError | undefined;
  /** Streams that lived when closing began. */
  #closedStreams = 0;
  readonly #opens = new Queue<Opener>();
  readonly #accepts = new Queue<Waiter<MuxStream>>();
  /** Settles when nothing more can come. */
  #reading: Promise<void> = Promise.resolve();
  #settleReady!: { resolve(): void; reject(error: MuxError): void };
  #settleClosed!: { resolve(): void; reject(error: MuxError): void };
  #timer: ReturnType<typeof setTimeout> | undefined;
  #handshake: ReturnType<typeof setTimeout> | undefined;
  /** Runs after a failed write. */
  #grace: ReturnType<typeof setTimeout> | undefined;
  #close: Promise<void> | undefined;
  #peerClosed = false;
  readonly #peerFarewell = Promise.withResolvers<void>();
  /** What every call rejects with from now on. */
  #end: MuxError | undefined;

  constructor(conn: Conn, isClient: boolean, limits: Limits) {
    this.conn = conn;
    this.isClient = isClient;
    this.limits = limits;
    this.ready = new Promise((resolve, reject) => this.#settleReady = { resolve, reject });
    this.ready.catch(() => {});
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    this.closed.catch(() => {});
  }

  abstract stats(): MuxStats;

  // What the protocols do each in their way.

  /** True if a stream can be opened now. */
  protected abstract mayOpen(): boolean;
  /** Why none can be opened any more, if that is so. */
  protected abstract cannotOpen(): MuxError | undefined;
  /** Says that a stream is opened; gives its number. */
  protected abstract sayOpen(priority: number): number;
  protected abstract sayKeepalive(): void;
  /** The session is about to be closed: no new streams. */
  protected abstract sayClosing(): void;
  /** The last frame of an orderly end. */
  protected abstract sayFarewell(): void;
  /** The answer to the peer's farewell. */
  protected abstract answer(): Control | undefined;
  /** The last frame before the session is given up, if there is one for that. */
  protected abstract lastWord(error: MuxError): Control | undefined;
  /** A stream of the peer was taken by the application. */
  protected abstract onAccepted(core: StreamCore): void;
  /** Nothing is answered any more. */
  protected abstract onSettled(error: MuxError): void;
  protected abstract onForgotten(core: StreamCore): void;
  /** The transport ended or failed before the peer was known. */
  protected abstract strangerError(text: string, cause: unknown): MuxError;

  /** Behind the constructor of the protocol: reads from now on, at first what was read before. */
  protected start(head: Uint8Array): void {
    this.#watch();
    this.#reading = this.receiver.run(head);
  }

  get streams(): readonly MuxStream[] {
    return [...this.live.values()].map((core) => this.streamOf(core));
  }

  openStream({ signal, priority = DEFAULT_PRIORITY }: OpenOptions): Promise<MuxStream> {
    const doing = "opening a stream";
    const refusal = this.#refusal(signal, doing) ?? this.cannotOpen();
    if (refusal !== undefined) return Promise.reject(refusal);
    if (this.#opens.length === 0 && this.mayOpen()) return Promise.resolve(this.#open(priority));
    return waitIn<MuxStream, { priority: number }>(this.#opens, { priority }, signal, doing);
  }

  acceptStream({ signal }: WaitOptions): Promise<MuxStream> {
    const doing = "accepting a stream";
    if (signal?.aborted) return Promise.reject(abortedError(signal, doing));
    const core = this.accepted.shift();
    if (core !== undefined) return Promise.resolve(this.#accept(core));
    const refusal = this.#refusal(undefined, doing);
    if (refusal !== undefined) return Promise.reject(refusal);
    return waitIn(this.#accepts, {}, signal, doing);
  }

  close({ signal }: WaitOptions): Promise<void> {
    this.#close ??= this.#end === undefined ? this.#doClose() : this.closed;
    // Who ignores it hears of it by `closed`.
    this.#close.catch(() => {});
    return until(this.#close, signal, "closing");
  }

  async #doClose(): Promise<void> {
    const error = new MuxError("closed", "the session is closed");
    this.#rejectWaiting(error);
    const { closeTimeoutMs } = this.limits;
    const until = performance.now() + closeTimeoutMs;
    const late = setTimeout(() => {
      this.fail(new MuxError("timeout", `closing: not done within ${closeTimeoutMs} ms`));
    }, closeTimeoutMs);
    this.sayClosing();
    this.#closedStreams = this.live.size;
    const live = [...this.live.values()].map((core) => core.close().catch(() => {}));
    await Promise.race([Promise.all(live), this.closed.catch(() => {})]);
    // What is not said now never is, whoever the peer turns out to be meanwhile.
    const { silent } = this;
    if (this.#end === undefined && (!this.#peerClosed || this.answersFarewell)) {
      this.sayFarewell();
      // Nothing goes behind it: gomux closes its end at once, and what still came would make that a reset.
      this.farewell = true;
      await Promise.race([this.sender.idle(), this.closed.catch(() => {})]);
    }
    clearTimeout(late);
    if (this.#end === undefined) {
      await this.#finish(error, until - performance.now(), undefined, silent);
    }
    return this.closed;
  }

  /**
   * The end in order: by our farewell, or the peer's. Reads on until the peer's own end: what comes for a socket that is closed resets the
   * connection, under our last frames that are still on their way.
   */
  async #finish(
    error: MuxError,
    timeoutMs: number,
    answer?: Control,
    silent = false,
  ): Promise<void> {
    this.#settle(error, answer);
    if (silent) {
      await this.conn.close().catch(() => {});
      return this.#settleClosed.resolve();
    }
    const late = setTimeout(() => {
      if (!this.#peerClosed) {
        const text = "closing: the peer did not end the transport, and may not have everything";
        this.#settleClosed.reject(new MuxError("timeout", text));
      }
      this.conn.abort(error);
    }, timeoutMs);
    // Not more than until the transport is given up. A WebSocket has no half-close: what the peer has to answer would be lost behind it.
    if (answer !== undefined) await Promise.race([this.sender.idle(), this.#reading]);
    else if (this.answersFarewell) await Promise.race([this.#peerFarewell.promise, this.#reading]);
    await this.conn.closeWrite().catch(() => {});
    await this.#reading;
    await this.conn.close().catch(() => {});
    clearTimeout(late);
    if (this.answersFarewell && !this.#peerClosed) {
      const text =
        "closing: the transport ended before the peer's farewell: it may not have everything";
      this.#settleClosed.reject(this.answerError ?? new MuxError("truncated", text));
    }
    this.#settleClosed.resolve();
  }

  abort(reason?: unknown): void {
    this.fail(new MuxError("closed", "the session was aborted", { cause: reason }));
  }

  // Streams.

  #open(priority: number): MuxStream {
    const id = this.sayOpen(priority);
    const core = new StreamCore(id, this.link, priority);
    this.live.set(id, core);
    return this.streamOf(core);
  }

  /** There may be room again for who waits to open a stream. */
  protected openWaiting(): void {
    while (this.#opens.length > 0 && this.mayOpen()) {
      const opener = this.#opens.shift()!;
      opener.resolve(this.#open(opener.priority));
    }
  }

  /** None can be opened any more. */
  protected rejectOpens(error: MuxError): void {
    for (let it = this.#opens.shift(); it; it = this.#opens.shift()) it.reject(error);
  }

  /** The peer has opened a stream. */
  protected addAccepted(id: number, priority?: number): void {
    const core = new StreamCore(id, this.link, priority);
    this.live.set(id, core);
    const waiter = this.#accepts.shift();
    if (waiter === undefined) this.accepted.push(core);
    else waiter.resolve(this.#accept(core));
  }

  #accept(core: StreamCore): MuxStream {
    if (this.#end === undefined) this.onAccepted(core);
    return this.streamOf(core);
  }

  protected streamOf(core: StreamCore): MuxStream {
    return core.facade ??= new MuxStream(core, this.conn);
  }

  protected forget(core: StreamCore): void {
    this.sender.leave(core);
    this.live.delete(core.id);
    this.onForgotten(core);
    this.openWaiting();
  }

  /** Whether the peer gives that number. */
  protected isTheirs(id: number): boolean {
    return (id & 1) === (this.isClient ? 1 : 0);
  }

  protected get waitingOpens(): number {
    return this.#opens.length;
  }

  /** True if no stream of the peer is taken any more. */
  protected get closing(): boolean {
    return this.#close !== undefined;
  }

  /** What ended the session: nothing that comes matters any more. */
  protected get ended(): MuxError | undefined {
    return this.#end;
  }

  protected control(id: number, type: number, values: readonly number[], answer: boolean): void {
    if (this.farewell) return;
    this.sender.control(id, type, values, answer);
    // The end of each stream is not the peer's doing.
    const most = MAX_QUEUED_ANSWERS + this.#closedStreams;
    if (this.sender.queuedAnswers > most) {
      const text = `more than ${MAX_QUEUED_ANSWERS} frames wait for a peer that does not read`;
      this.fail(new MuxError("limit", text));
    }
  }

  // What the peer and the transport do.

  /** The peer is known to have the psk. */
  protected authenticate(): void {
    this.authenticated = true;
    this.#settleReady.resolve();
    clearTimeout(this.#handshake);
  }

  protected onFarewell(): void {
    const error = new MuxError("peer-closed", "the peer has closed the session");
    this.#peerClosed = true;
    this.#peerFarewell.resolve();
    if (this.#close === undefined) {
      this.farewell = true;
      this.#close = this.closed;
      this.#finish(error, this.limits.closeTimeoutMs, this.answer());
    } else {
      if (!this.answersFarewell) this.farewell = true;
      // We are closing too: what it has not taken by now, it never will.
      for (const core of [...this.live.values()]) core.onSessionEnd(error);
    }
  }

  /** The transport has ended (without a cause), or failed, or brought what breaks the rules. */
  protected onEnd(cause: unknown): void {
    // Behind a farewell it makes no difference how the transport ends: whether all of ours has left, writing tells.
    if (this.farewell && !(cause instanceof MuxError)) return;
    if (this.#peerClosed) return;
    const cut = cause instanceof MuxError && cause.code === "truncated" && !this.authenticated;
    if (cause instanceof MuxError && !cut) return this.fail(cause);
    const how = `the transport ${cause === undefined ? "ended without a farewell" : "failed"}`;
    this.fail(this.#transportError(how, cause));
  }

  /** Reading tells it too, mostly, and after all that the peer had still to say. */
  protected onWriteError(cause: unknown): void {
    if (this.#end !== undefined || this.#peerClosed) return;
    this.#grace ??= setTimeout(() => {
      this.fail(this.#transportError("the transport failed", cause));
    }, WRITE_ERROR_GRACE_MS);
  }

  /** What an end of the transport without a farewell says depends on whether the peer is known by then. */
  #transportError(text: string, cause: unknown): MuxError {
    if (!this.authenticated) return this.strangerError(text, cause);
    return new MuxError("truncated", text, cause === undefined ? {} : { cause });
  }

  // The end.

  protected fail(error: MuxError): void {
    if (this.#end !== undefined) return;
    const word = this.farewell ? undefined : this.lastWord(error);
    this.#settle(error, word);
    this.#settleClosed.reject(error);
    if (word === undefined) return this.conn.abort(error);
    // Not longer than that, whether the peer reads or not.
    const late = setTimeout(() => this.conn.abort(error), LAST_WORD_MS);
    this.sender.idle().then(() => this.conn.close()).catch(() => {}).then(() => clearTimeout(late));
  }

  #settle(error: MuxError, lastWord?: Control): void {
    this.#end = error;
    this.#settleReady.reject(error);
    clearTimeout(this.#timer);
    clearTimeout(this.#handshake);
    clearTimeout(this.#grace);
    this.sender.stop(error, lastWord);
    this.onSettled(error);
    this.#rejectWaiting(error);
    for (const core of [...this.live.values()]) core.onSessionEnd(error);
  }

  #rejectWaiting(error: MuxError): void {
    this.rejectOpens(error);
    for (let it = this.#accepts.shift(); it; it = this.#accepts.shift()) it.reject(error);
  }

  /** Why nothing can be opened or accepted. */
  #refusal(signal: AbortSignal | undefined, doing: string): MuxError | undefined {
    if (signal?.aborted) return abortedError(signal, doing);
    if (this.#end !== undefined) return this.#end;
    if (this.#close !== undefined) return new MuxError("closed", "the session is closed");
    return undefined;
  }

  // Time.

  /** Gives up unless the peer is known in time. */
  protected awaitHandshake(timeoutMs: number, text: string): void {
    if (this.#end !== undefined || this.authenticated) return;
    this.#handshake = setTimeout(() => this.fail(new MuxError("timeout", text)), timeoutMs);
  }

  /** Keeps the connection alive, and gives it up when the peer is silent for too long. */
  #watch(): void {
    const { keepaliveMs, idleTimeoutMs } = this.limits;
    const now = performance.now();
    if (now >= this.receiver.lastFrameAt + idleTimeoutMs) {
      return this.fail(new MuxError("timeout", `no frame of the peer within ${idleTimeoutMs} ms`));
    }
    let written = this.sender.lastWriteAt;
    if (now >= written + keepaliveMs) {
      this.sender.release();
      // What waits to leave will do as well as a keepalive behind it.
      if (!this.sender.busy) this.sayKeepalive();
      written = now;
      if (this.#end !== undefined) return;
    }
    const due = Math.min(written + keepaliveMs, this.receiver.lastFrameAt + idleTimeoutMs);
    this.#timer = setTimeout(() => this.#watch(), Math.max(1, due - now));
  }
}
