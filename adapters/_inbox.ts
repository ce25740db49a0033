/**
 * A bounded queue between a source that pushes (accepted connections, datagrams) and callers that wait.
 *
 * @module
 */
import { abortError } from "./_errors.ts";
import type { ConnectError, WaitOptions } from "./types.ts";

interface Waiter<T> {
  resolve(item: T): void;
  reject(error: ConnectError): void;
}

/** Refuses a limit that is none, before anything is opened. */
export function checkMaxPending(limit: number | undefined): void {
  if (limit !== undefined && !(limit >= 1)) {
    throw new RangeError(`maxPending is ${limit}, expected 1 or more`);
  }
}

/** How long an iteration waits after a trouble that may pass, so that it does not spin. */
const RETRY_MS = 100;

/** Items in order of arrival; waiters are served in order of their calls. */
export class Inbox<T> {
  /** Items that `push` refused. */
  dropped = 0;
  /** Settles when the inbox ends; see `Listener.closed`. */
  readonly closed: Promise<void>;
  readonly #limit: number;
  readonly #doing: string;
  readonly #items: T[] = [];
  readonly #waiters = new Set<Waiter<T>>();
  #ended: ConnectError | undefined;
  #settle!: { resolve(): void; reject(error: ConnectError): void };

  constructor(limit: number, doing: string) {
    checkMaxPending(limit);
    this.#limit = limit;
    this.#doing = doing;
    this.closed = new Promise((resolve, reject) => this.#settle = { resolve, reject });
    this.closed.catch(() => {});
  }

  /** True if somebody waits for an item that has not come yet. */
  get wanted(): boolean {
    return this.#waiters.size > 0;
  }

  /** Hands `item` to the first waiter or keeps it; false if there is no room or the inbox has ended. */
  push(item: T): boolean {
    if (this.#ended !== undefined) return false;
    const [waiter] = this.#waiters;
    if (waiter !== undefined) waiter.resolve(item);
    else if (this.#items.length < this.#limit) this.#items.push(item);
    else {
      this.dropped++;
      return false;
    }
    return true;
  }

  /** Waits for the next item. */
  take({ signal }: WaitOptions = {}): Promise<T> {
    if (signal?.aborted) return Promise.reject(abortError(signal, this.#doing));
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift()!);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiters.delete(waiter);
        signal?.removeEventListener("abort", onAbort);
      };
      const onAbort = () => waiter.reject(abortError(signal!, this.#doing));
      const waiter: Waiter<T> = {
        resolve: (item) => (leave(), resolve(item)),
        reject: (error) => (leave(), reject(error)),
      };
      this.#waiters.add(waiter);
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Tells the waiters of a trouble that may pass (too many open files); later calls wait again. */
  fail(error: ConnectError): void {
    for (const waiter of this.#waiters) waiter.reject(error);
  }

  /** Ends it for good, returns what nobody took. `broken` makes `closed` reject. */
  end(error: ConnectError, broken = false): T[] {
    if (this.#ended !== undefined) return [];
    this.#ended = error;
    this.fail(error);
    if (broken) this.#settle.reject(error);
    else this.#settle.resolve();
    return this.#items.splice(0);
  }

  /**
   * Yields items until the inbox is closed; an error that broke it is thrown. A trouble that may pass must not end a server, so the
   * iteration goes on after it.
   */
  async *iterate(take: () => Promise<T> = () => this.take()): AsyncGenerator<T, void> {
    for (;;) {
      let item: T;
      try {
        item = await take();
      } catch (error) {
        if (this.#ended?.code === "closed") return;
        if (this.#ended !== undefined) throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        continue;
      }
      yield item;
    }
  }
}
