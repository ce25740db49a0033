/**
 * One timer for the deadlines of all calls of a connection: a timer for each would cost more than the call.
 *
 * @module
 */
import { MAX_TIMEOUT_MS } from "../adapters/limits.ts";

/** Times are those of `performance.now()`. */
export class Deadlines {
  readonly #expire: (now: number) => number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #at = Infinity;

  /** `expire` is called no later than the earliest deadline, or earlier; it ends what is due, and gives the next one. */
  constructor(expire: (now: number) => number) {
    this.#expire = expire;
  }

  /** Minds a deadline, which may be `Infinity`. */
  arm(deadline: number): void {
    if (deadline >= this.#at) return;
    clearTimeout(this.#timer);
    this.#at = deadline;
    const ms = Math.min(MAX_TIMEOUT_MS, Math.max(0, Math.ceil(deadline - performance.now())));
    this.#timer = setTimeout(() => {
      this.#at = Infinity;
      this.arm(this.#expire(performance.now()));
    }, ms);
  }

  /** Minds none any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
