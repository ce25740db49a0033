/**
 * What a manager told a simulated OpenVPN or its clients, for a test to take.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import { SimulationError } from "./testing_core.ts";

/** Items that wait; of more the oldest are dropped. */
const MAX_ITEMS = 1000;

interface Taker<T> {
  resolve(item: T): void;
  reject(error: SimulationError): void;
}

/** Items in the order they came. It keeps 1000, and drops the oldest of more. */
export class Mailbox<T> {
  readonly #items: T[] = [];
  readonly #takers = new Set<Taker<T>>();
  #ended: SimulationError | undefined;

  /** Adds an item. */
  put(item: T): void {
    const [taker] = this.#takers;
    if (taker !== undefined) {
      this.#takers.delete(taker);
      taker.resolve(item);
    } else {
      this.#items.push(item);
      if (this.#items.length > MAX_ITEMS) this.#items.shift();
    }
  }

  /** Nothing will come any more. */
  end(error: SimulationError): void {
    this.#ended ??= error;
    for (const taker of this.#takers) taker.reject(error);
    this.#takers.clear();
  }

  /**
   * Takes the oldest item, or waits for one.
   *
   * @throws {SimulationError} if `signal` fires, or nothing will come any more
   */
  take({ signal }: WaitOptions = {}): Promise<T> {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift()!);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const taker = { resolve, reject };
    const onAbort = () => {
      this.#takers.delete(taker);
      reject(
        new SimulationError("aborted", "waiting for the manager: aborted", {
          cause: signal?.reason,
        }),
      );
    };
    if (signal?.aborted) onAbort();
    else {
      this.#takers.add(taker);
      signal?.addEventListener("abort", onAbort, { once: true });
    }
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }
}
