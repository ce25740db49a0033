/**
 * What was written to a connection and has not left yet.
 *
 * @module
 */
import type { Conn, WaitOptions } from "../adapters/types.ts";
import type { SessionHost } from "./_host.ts";
import { abortedWait, heard, ManagerError } from "./errors.ts";
import { SENT } from "./metrics.ts";
import type { SessionSettings } from "./options.ts";

/** A longer write is handed over in pieces of this size, so that it is seen to move. */
const PIECE_BYTES = 256 * 1024;

const DONE = Promise.resolve();

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

export class Outgoing {
  /** Bytes that have left. */
  sent = 0;
  /** When some left, or began to wait while none did. */
  movedAt = 0;
  #queued = 0;
  readonly #conn: Conn;
  readonly #id: string;
  readonly #settings: SessionSettings;
  readonly #host: SessionHost;
  #waiters: Set<Waiter> | undefined;
  /** What ended it; an error of it is made for who hears of it, since most end with nobody there. */
  #end: { readonly cause: unknown } | undefined;
  readonly #onSent: () => void;
  readonly #onLost: (cause: Error) => void;

  /** `id` is the session's, for errors. */
  constructor(conn: Conn, settings: SessionSettings, host: SessionHost, id: string) {
    this.#conn = conn;
    this.#id = id;
    this.#settings = settings;
    this.#host = host;
    // One each for all writes: what has left, the connection tells.
    this.#onSent = () => {
      const sent = this.#release(this.#conn.queued);
      this.sent += sent;
      if (sent > 0) host.instruments?.io.add(sent, SENT);
      // Nobody asks while nothing waits; asking the clock costs more than all else here.
      if (this.#queued > 0) this.movedAt = performance.now();
      if (this.#waiters !== undefined && this.#queued <= settings.lowWaterMark) this.#wake();
    };
    // The rest of what the peer sent may still be read, but whoever waits here could be who has to.
    this.#onLost = (cause) => this.end(cause);
  }

  get queued(): number {
    return this.#queued;
  }

  /** Whether so much waits that `write()` would wait too. */
  get slow(): boolean {
    return this.#queued > this.#settings.lowWaterMark;
  }

  /** Hands `bytes` to the connection, at the time `now`. @throws {ManagerError} `queue-full`, or what ended it */
  post(bytes: Uint8Array, now: number): void {
    const size = bytes.length;
    if (this.#end !== undefined) throw disconnected(this.#id, this.#end.cause);
    if (size === 0) return;
    if (this.#queued + size > this.#settings.maxQueuedBytes) {
      const { maxQueuedBytes } = this.#settings;
      throw full(this.#id, size, this.#queued, `maxQueuedBytes is ${maxQueuedBytes}`);
    }
    if (!this.#host.budget.take(size, this.#queued)) {
      const { queued, limit } = this.#host.budget;
      throw full(this.#id, size, queued, `maxTotalQueuedBytes is ${limit}`);
    }
    if (this.#queued === 0) this.movedAt = now;
    this.#queued += size;
    for (let at = 0; at < size; at += PIECE_BYTES) {
      const piece = size <= PIECE_BYTES ? bytes : bytes.subarray(at, at + PIECE_BYTES);
      this.#conn.write(piece).then(this.#onSent, this.#onLost);
    }
  }

  /** Waits until no more than `lowWaterMark` bytes are left. */
  settled({ signal }: WaitOptions): Promise<void> {
    if (!this.slow) return DONE;
    const doing = `writing to session ${this.#id}`;
    if (signal?.aborted) return heard(Promise.reject(abortedWait(signal, doing)));
    return heard(
      new Promise<void>((resolve, reject) => {
        const leave = () => {
          this.#waiters?.delete(waiter);
          signal?.removeEventListener("abort", onAbort);
        };
        const waiter: Waiter = {
          resolve: () => (leave(), resolve()),
          reject: (error) => (leave(), reject(error)),
        };
        const onAbort = () => waiter.reject(abortedWait(signal!, doing));
        signal?.addEventListener("abort", onAbort, { once: true });
        (this.#waiters ??= new Set()).add(waiter);
      }),
    );
  }

  /** The connection is over: nothing leaves any more, and whoever waits hears of it. */
  end(cause: unknown): void {
    if (this.#end !== undefined) return;
    this.#end = { cause };
    this.#release(0);
    for (const waiter of this.#waiters ?? []) waiter.reject(disconnected(this.#id, cause));
  }

  #release(left: number): number {
    const gone = this.#queued - Math.min(left, this.#queued);
    this.#queued -= gone;
    this.#host.budget.give(gone);
    return gone;
  }

  #wake(): void {
    for (const waiter of this.#waiters!) waiter.resolve();
    this.#waiters = undefined;
  }
}

/** The error of what the end of a connection has overtaken. */
export function disconnected(sessionId: string, cause: unknown): ManagerError {
  const text = `writing to session ${sessionId}: its connection has ended`;
  return new ManagerError("disconnected", text, { cause, sessionId });
}

function full(id: string, size: number, queued: number, limit: string): ManagerError {
  const text =
    `writing to session ${id}: ${size} bytes more than the ${queued} that wait to leave, and ${limit}`;
  return new ManagerError("queue-full", text);
}
