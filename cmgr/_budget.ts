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
  readonly #metric: MetricInstrument | undefined;

  constructor(limit: number, metric: MetricInstrument | undefined) {
    this.limit = limit;
    this.#metric = metric;
  }

  /** False, and nothing is taken, if there is no room for as many. */
  take(bytes: number): boolean {
    if (this.queued + bytes > this.limit) return false;
    this.queued += bytes;
    this.#metric?.add(bytes);
    return true;
  }

  give(bytes: number): void {
    this.queued -= bytes;
    if (bytes > 0) this.#metric?.add(-bytes);
  }
}
