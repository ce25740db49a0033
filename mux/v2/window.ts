/**
 * Windows that grow.
 *
 * @module
 */
import type { ReceiveWindow } from "../_window.ts";

/** What windows that grow need of their session. */
export interface WindowGrowth {
  /** Of each stream at first, and at most, in bytes. */
  readonly first: number;
  readonly most: number;
  /** The round trip in milliseconds, undefined if none was measured yet. */
  rtt(): number | undefined;
  /** Takes as much of `bytes` as all streams together may still grow by. */
  reserve(bytes: number): number;
  release(bytes: number): void;
}

/** Half a window that is read within so many round trips was too small: the sender has waited for us. */
const GROW_WITHIN_ROUND_TRIPS = 2;
/** However short a round trip is, this is about what two busy processes need to get to their turn. */
const MIN_ROUND_TRIP_MS = 2;

/** A window that doubles as long as it is what holds the sender back (spec-mux2: windows). */
export class GrowingWindow implements ReceiveWindow {
  readonly #growth: WindowGrowth;
  #size: number;
  #open: number;
  #consumed = 0;
  #grantedAt = performance.now();
  #ended = false;

  constructor(growth: WindowGrowth) {
    this.#growth = growth;
    this.#size = this.#open = growth.first;
  }

  receive(bytes: number): boolean {
    if (bytes > this.#open) return false;
    this.#open -= bytes;
    return true;
  }

  consume(bytes: number): boolean {
    this.#consumed += bytes;
    return this.due;
  }

  get due(): boolean {
    return 2 * this.#consumed >= this.#size;
  }

  take(): number {
    if (this.#consumed === 0 || this.#ended) return 0;
    const now = performance.now();
    const rtt = this.#growth.rtt();
    let increment = this.#consumed;
    const within = GROW_WITHIN_ROUND_TRIPS * Math.max(rtt ?? 0, MIN_ROUND_TRIP_MS);
    if (rtt !== undefined && now - this.#grantedAt < within) {
      const more = this.#growth.reserve(Math.min(this.#size, this.#growth.most - this.#size));
      this.#size += more;
      increment += more;
    }
    this.#grantedAt = now;
    this.#consumed = 0;
    this.#open += increment;
    return increment;
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#growth.release(this.#size - this.#growth.first);
  }
}
