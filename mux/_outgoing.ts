/**
 * What waits to be written to one stream: whole writes, which the sender takes piece by piece.
 *
 * @module
 */
import { Queue } from "../adapters/queue.ts";
import { MuxError } from "./errors.ts";
import type { Settle } from "./_sender.ts";

/** One call of `write()`. There may be a million of them in a second. */
export class Write implements Settle {
  readonly bytes: Uint8Array;
  /** Of `bytes` when they were given: less if somebody has transferred them since. */
  readonly size: number;
  taken = 0;
  settled = false;
  /** Ends the wait for a signal. */
  onSettle: (() => void) | undefined;
  readonly #owner: Outgoing;
  readonly #settle: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(bytes: Uint8Array, owner: Outgoing) {
    this.bytes = bytes;
    this.size = bytes.length;
    this.#owner = owner;
  }

  get promise(): Promise<void> {
    return this.#settle.promise;
  }

  resolve(): void {
    this.#end();
    this.#settle.resolve();
  }

  reject(error: MuxError): void {
    this.#end();
    // Only now, since it costs a promise.
    handled(this.promise);
    this.#settle.reject(cutShort(error, this.taken));
  }

  #end(): void {
    if (this.settled) return;
    this.settled = true;
    if (this.taken === this.size) this.#owner.onTakenSettled();
    this.onSettle?.();
  }
}

export class Outgoing {
  /** Bytes given to `add()` that were not taken. */
  queued = 0;
  readonly #waiting = new Queue<Write>();
  /** Those that were taken whole, as long as one of them waits for the transport. */
  #taken: Write[] = [];
  #settled = 0;

  /** Calls `onAbort` when `signal` fires before the write is settled. */
  add(
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
    onAbort: (write: Write) => void,
  ): Promise<void> {
    const write = new Write(bytes, this);
    if (signal !== undefined) {
      const aborted = () => onAbort(write);
      write.onSettle = () => signal.removeEventListener("abort", aborted);
      signal.addEventListener("abort", aborted, { once: true });
    }
    this.#waiting.push(write);
    this.queued += bytes.length;
    return write.promise;
  }

  onTakenSettled(): void {
    if (++this.#settled < this.#taken.length) return;
    this.#taken = [];
    this.#settled = 0;
  }

  /** How many bytes `copy()` can take now, at most `most`. Undefined if the first ones were transferred meanwhile: they are lost. */
  available(most: number): number | undefined {
    const first = this.#waiting.first()!;
    const wanted = Math.min(most, this.queued);
    // Most often it is one, for which no iterator is made.
    if (first.bytes.length === first.size && first.size - first.taken >= wanted) return wanted;
    let sum = 0;
    for (const { bytes, size, taken } of this.#waiting) {
      if (bytes.length !== size) return sum === 0 ? undefined : sum;
      sum += size - taken;
      if (sum >= most) return most;
    }
    return sum;
  }

  /** Takes exactly so many bytes, as `available()` allowed, to `into`. The writes that are taken whole with it are added to `taken`. */
  copy(into: Uint8Array, at: number, count: number, taken: Settle[]): void {
    for (const end = at + count; at < end;) {
      const part = this.#takeFrom(this.#waiting.first()!, end - at, taken);
      into.set(part, at);
      at += part.length;
    }
    this.queued -= count;
  }

  /** The same as a view if it lies in one write, in new memory otherwise. */
  take(count: number, taken: Settle[]): Uint8Array {
    const first = this.#waiting.first()!;
    if (first.size - first.taken >= count) {
      this.queued -= count;
      return this.#takeFrom(first, count, taken);
    }
    const joined = new Uint8Array(count);
    this.copy(joined, 0, count, taken);
    return joined;
  }

  #takeFrom(write: Write, most: number, taken: Settle[]): Uint8Array {
    const from = write.taken;
    const to = Math.min(write.size, from + most);
    write.taken = to;
    if (to === write.size) {
      this.#waiting.shift();
      this.#taken.push(write);
      taken.push(write);
    }
    return from === 0 && to === write.size ? write.bytes : write.bytes.subarray(from, to);
  }

  /** Gives up what is left of a write, and waiting for it. */
  takeBack(write: Write, error: MuxError): void {
    write.reject(error);
    if (this.#waiting.remove(write)) this.queued -= write.size - write.taken;
  }

  /** Gives all of them up; `errorOf` gets how much of each was taken. */
  reject(errorOf: (taken: number) => MuxError): void {
    const writes = [...this.#taken, ...this.#waiting];
    this.#waiting.clear();
    this.queued = 0;
    for (const write of writes) if (!write.settled) write.reject(errorOf(write.taken));
  }
}

/** `promise`, which may be ignored. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** `error` for one write, of which so much was sent, or on its way to the transport. */
function cutShort(error: MuxError, written: number): MuxError {
  if (error.written !== undefined) return error;
  const { code, message, cause, resetCode } = error;
  return new MuxError(code, message, { cause, written, resetCode });
}
