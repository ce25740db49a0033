/**
 * What waits to be written to one stream: whole writes, which the sender takes piece by piece.
 *
 * @module
 */
import { Queue } from "../adapters/queue.ts";
import { MuxError } from "./errors.ts";
import type { Settle } from "./_sender.ts";

export interface Write extends Settle {
  readonly bytes: Uint8Array;
  /** Of `bytes` when they were given: less if somebody has transferred them since. */
  readonly size: number;
  taken: number;
}

export class Outgoing {
  /** Bytes given to `add()` that were not taken. */
  queued = 0;
  readonly #waiting = new Queue<Write>();
  /** Those that were taken whole and wait for the transport. */
  readonly #taken = new Set<Write>();

  /** Calls `onAbort` when `signal` fires before the write is settled. */
  add(
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
    onAbort: (write: Write) => void,
  ): Promise<void> {
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
        const aborted = () => onAbort(write);
        const gone = () => signal.removeEventListener("abort", aborted);
        write.resolve = () => (gone(), resolve());
        write.reject = (error) => (gone(), reject(error));
        signal.addEventListener("abort", aborted, { once: true });
      }
      this.#waiting.push(write);
      this.queued += bytes.length;
    });
  }

  /** How many bytes `copy()` can take now, at most `most`. Undefined if the first ones were transferred meanwhile: they are lost. */
  available(most: number): number | undefined {
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
      this.#taken.add(write);
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
    for (const write of writes) write.reject(errorOf(write.taken));
  }
}

/** `error` for one write, of which so much was sent, or on its way to the transport. */
function cutShort(error: MuxError, written: number): MuxError {
  if (error.written !== undefined) return error;
  const { code, message, cause, resetCode } = error;
  return new MuxError(code, message, { cause, written, resetCode });
}
