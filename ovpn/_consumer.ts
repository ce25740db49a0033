/**
 * One consumer of what comes: an iteration that waits, comes to an end, fails, or is left.
 *
 * @module
 */
import { ManagementError } from "./errors.ts";

interface Waiter<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: ManagementError): void;
}

/** What is held until it is read, and how much of it, is for the subclass to say. */
export abstract class Consumer<T> implements AsyncIterableIterator<T, undefined> {
  readonly #what: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onEnd: () => void;
  readonly #waiters: Waiter<T>[] = [];
  /** Nothing more will come. */
  #ended = false;
  /** What is held is not wanted any more. */
  #left = false;
  #error: ManagementError | undefined;

  /** `what` is waited for, says the error of a signal; `onEnd` is called when nothing more is to come, and maybe once more. */
  constructor(what: string, signal: AbortSignal | undefined, onEnd: () => void) {
    this.#what = what;
    this.#signal = signal;
    this.#onEnd = onEnd;
    if (signal?.aborted) {
      // The subclass has nothing to let go of yet.
      this.#error = this.#aborted();
      this.#left = true;
    } else {
      signal?.addEventListener("abort", this.#abort);
    }
  }

  /** Takes the next of what is held; `undefined` if there is none. */
  protected abstract take(): T | undefined;

  /** Lets go of what is held. */
  protected abstract clear(): void;

  /** Gives what is held to those who wait for it. */
  protected wake(): void {
    while (this.#waiters.length > 0) {
      const value = this.take();
      if (value === undefined) return;
      this.#waiters.shift()?.resolve({ done: false, value });
    }
  }

  /** Why it ends, if it fails. */
  get error(): ManagementError | undefined {
    return this.#error;
  }

  /** Nothing more will come: it ends after what is held, and fails if there is an `error`. */
  end(error?: ManagementError): void {
    this.#ended = true;
    this.#error ??= error;
    this.#signal?.removeEventListener("abort", this.#abort);
    for (const { resolve, reject } of this.#waiters.splice(0)) {
      if (this.#error === undefined) resolve({ done: true, value: undefined });
      else reject(this.#error);
    }
    this.#onEnd();
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const value = this.#left ? undefined : this.take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#leave();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  readonly #abort = (): void => this.#leave(this.#aborted());

  #aborted(): ManagementError {
    const cause = this.#signal?.reason;
    return new ManagementError("aborted", `waiting for ${this.#what}: aborted`, { cause });
  }

  #leave(error?: ManagementError): void {
    this.#left = true;
    this.clear();
    this.end(error);
  }
}
