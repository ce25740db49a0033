/**
 * A stream of a session, as its users see it.
 *
 * @module
 */
import type { Address, Conn, PeerCredentials, TlsInfo, WaitOptions } from "../adapters/types.ts";
import type { StreamCore } from "./_stream.ts";
import { until } from "./_wait.ts";
import { requirePriority } from "./config.ts";
import type { MuxErrorCode } from "./errors.ts";

/** Bytes that `writable` holds before it says that it is full. */
const WRITABLE_BYTES = 64 * 1024;

/**
 * One byte stream of a session. It is a {@linkcode Conn}: whatever runs over a connection runs over a stream.
 *
 * 1. Bytes arrive in the order written. What came before an error is read before the error.
 * 2. `read()` gives `null` at the end that the peer chose: its `closeWrite()` or `close()`. Any other end is an error.
 * 3. A reader that does not read holds at most its window (131072 bytes on v1), and slows its own stream only.
 * 4. `closed` is settled once, and ignoring it never makes an unhandled rejection.
 *
 * Use either the pair `readable` / `writable` or `read()` / `write()` for a direction, not both at once.
 */
export class MuxStream implements Conn {
  readonly #core: StreamCore;
  readonly #conn: Conn;
  #readable: ReadableStream<Uint8Array> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;

  /** Streams come from `openStream()` and `acceptStream()`. */
  constructor(core: StreamCore, conn: Conn) {
    this.#core = core;
    this.#conn = conn;
  }

  /** Its number: even if the client has opened it, odd if the server has. */
  get id(): number {
    return this.#core.id;
  }

  /** Our end of the session's transport, if it tells. */
  get local(): Address | undefined {
    return this.#conn.local;
  }

  /** The peer's end of the session's transport, if it tells. */
  get remote(): Address | undefined {
    return this.#conn.remote;
  }

  /** What the session's transport agreed on, if it is TLS. */
  get tls(): TlsInfo | undefined {
    return this.#conn.tls;
  }

  /** Bytes given to `write()` that have not been sent. */
  get queued(): number {
    return this.#core.queued;
  }

  /**
   * Resolves when both directions have ended in order, or by our own `close()` or `closeRead()`; rejects if something that was written
   * can no longer arrive, after `abort()`, and when the session ends before.
   */
  get closed(): Promise<void> {
    return this.#core.closed;
  }

  /**
   * The next bytes, at least one, or `null` at the end. A wait that `signal` or a deadline ends loses nothing.
   *
   * @throws {MuxError} `aborted`, `timeout`, `stream-closed`, or what ended the session
   */
  read(options?: WaitOptions): Promise<Uint8Array | null> {
    return this.#core.read(options);
  }

  /**
   * Writes all of `bytes`; resolves when they are sealed and on their way. Do not change `bytes` until then. A write that `signal` or a
   * deadline ends says in `written` how much of it was sent: the rest never is, and the stream goes on behind it.
   *
   * @throws {MuxError} `aborted`, `timeout`, `stream-closed`, `write-closed`, `peer-closed-stream`, or what ended the session
   */
  write(bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    return this.#core.write(bytes, options);
  }

  /** Sends what was written, then the end; reading goes on. `signal` ends the wait alone. */
  closeWrite({ signal }: WaitOptions = {}): Promise<void> {
    return until(this.#core.closeWrite(), signal, `stream ${this.id}: closing`);
  }

  /** Reads no more: what was not read is thrown away, and the peer's writes fail. Writing goes on. */
  closeRead(): Promise<void> {
    this.#core.closeRead();
    return Promise.resolve();
  }

  /**
   * Sends what was written, then closes both directions. What was not read is thrown away. `signal` ends the wait alone.
   *
   * @throws {MuxError} `timeout` if the peer does not take it within `closeTimeoutMs`: behind a part of it, it then sees `reset` (v2) or an
   * ordinary end (v1)
   */
  close({ signal }: WaitOptions = {}): Promise<void> {
    return until(this.#core.close(), signal, `stream ${this.id}: closing`);
  }

  /**
   * Closes both directions at once; what was not sent is thrown away. The peer sees an error, `reset` with code 0, on v2. V1 has no word
   * for it: there the peer sees an ordinary end behind what was sent, so a message needs an end of its own to be told from half of one.
   */
  abort(reason?: unknown): void {
    this.#core.abort(reason);
  }

  /**
   * As `abort()`, and tells the peer why by a number of the application, 0 to 4294967295: its calls reject with `reset` and that
   * `resetCode`.
   *
   * @throws {MuxError} `unsupported` on v1
   * @throws {RangeError} for a code that is none
   */
  reset(code: number): void {
    requireCode(code);
    this.#core.reset(code);
  }

  /**
   * As `closeRead()`, and tells the peer why: its writes reject with `write-closed` and that `resetCode`.
   *
   * @throws {MuxError} `unsupported` on v1
   * @throws {RangeError} for a code that is none
   */
  stop(code: number): void {
    requireCode(code);
    this.#core.stop(code);
  }

  /**
   * From 0 to 7: as long as a stream of the session with a lower number has something to send, this one waits. It concerns what we send.
   * @default 3, or what the peer opened it with (v2)
   */
  get priority(): number {
    return this.#core.priority;
  }

  /** @throws {RangeError} for one that is none */
  set priority(priority: number) {
    requirePriority(priority);
    this.#core.setPriority(priority);
  }

  /** Both deadlines at once. */
  setDeadline(when: Date | number | undefined): void {
    this.setReadDeadline(when);
    this.setWriteDeadline(when);
  }

  /**
   * From `when` on reads fail with `timeout`, also those that wait; `undefined` takes that back. A number is milliseconds from now, or
   * a timestamp as `Date.now()` gives it.
   */
  setReadDeadline(when: Date | number | undefined): void {
    this.#core.setReadDeadline(when);
  }

  /** The same for writes. */
  setWriteDeadline(when: Date | number | undefined): void {
    this.#core.setWriteDeadline(when);
  }

  /** The bytes from the peer, as a byte stream: BYOB readers work. Cancelling it is `closeRead()`. */
  get readable(): ReadableStream<Uint8Array> {
    return this.#readable ??= new ReadableStream({
      type: "bytes",
      start: (controller) => {
        this.#core.hearReadError((error) => controller.error(error));
      },
      pull: async (controller) => {
        const into = controller.byobRequest;
        const view = into?.view;
        const bytes = await this.#core.read({}, view?.byteLength);
        if (bytes === null) {
          controller.close();
          into?.respond(0);
        } else if (into && view) {
          new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(bytes);
          into.respond(bytes.length);
        } else {
          controller.enqueue(bytes as Uint8Array<ArrayBuffer>);
        }
      },
      cancel: () => this.#core.closeRead(),
    }, { highWaterMark: 0 });
  }

  /** The bytes to the peer. Closing it is `closeWrite()`, aborting it is `abort()`. */
  get writable(): WritableStream<Uint8Array> {
    let controller: WritableStreamDefaultController;
    return this.#writable ??= new WritableStream<Uint8Array>({
      start: (it) => {
        controller = it;
        this.#core.hearWriteError((error) => controller.error(error));
        // `abort()` below waits for the write that is under way, which may wait for the peer. A microtask later, since the stream must
        // not end by an error within its own abort().
        const { signal } = controller;
        const onAbort = () => queueMicrotask(() => this.#core.abort(signal.reason));
        signal.addEventListener("abort", onAbort, { once: true });
      },
      write: (bytes) =>
        this.#core.write(bytes).catch((error) => {
          controller.error(error);
          // The web stream can neither write nor close any more; if ours could, the peer would wait for ever.
          const { code } = error as { readonly code?: MuxErrorCode };
          if (code === undefined || code === "timeout") this.#core.abort(error);
          throw error;
        }),
      close: () => this.#core.closeWrite(),
      abort: (reason) => this.#core.abort(reason),
    }, { highWaterMark: WRITABLE_BYTES, size: (bytes) => bytes?.byteLength ?? 1 });
  }

  /** Has no effect: small writes are joined where that costs no time. */
  setNoDelay(): void {}

  /** Has no effect: the session keeps itself alive. */
  setKeepAlive(): void {}

  /** The process at the other end of the session's transport. */
  peerCredentials(): PeerCredentials | undefined {
    return this.#conn.peerCredentials();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function requireCode(code: number): void {
  if (code >>> 0 !== code) throw new RangeError(`a code of ${code}, expected 0 to 4294967295`);
}
