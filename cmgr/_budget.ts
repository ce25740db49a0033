/**
 * How much may wait to leave, of all sessions of a manager.
 *
 * @module
 */
import type { MetricInstrument } from "./metrics.ts";

export class Budget {
  /** Bytes that may wait. */
  readonly limit: number;
  /** Bytes that wait. */
  queued = 0;
  readonly #share: number;
  readonly #metric: MetricInstrument | undefined;

  /** `sessions` is how many there may be. */
  constructor(limit: number, sessions: number, metric: MetricInstrument | undefined) {
    this.limit = limit;
    this.#share = limit / sessions;
    this.#metric = metric;
  }

  /**
   * False, and nothing is taken, if there is no room for `bytes` more of a session that has `own` in it. Each has its share in any case, so that
   * those which do not read cannot keep the others from being written to: together that is twice the limit at the most.
   */
  take(bytes: number, own: number): boolean {
    if (this.queued + bytes > this.limit && own + bytes > this.#share) {
      return false;
    }
    this.queued += bytes;
    this.#metric?.add(bytes);
    return true;
  }

  give(bytes: number): void {
    this.queued -= bytes;
    if (bytes > 0) this.#metric?.add(-bytes);
  }
}
