/**
 * How many streams the peer may open: MAX_STREAMS (spec-mux2: streams).
 *
 * @module
 */
import type { Limits } from "../config.ts";
import { MAX_NUMBER } from "./frame.ts";

export class StreamQuota {
  readonly #maxLive: number;
  readonly #maxPending: number;
  /** More are told when they are so many, or when the peer has none left. */
  readonly #step: number;
  #opened = 0;
  #live = 0;
  #pending = 0;
  /** How many the peer was allowed in all. */
  #granted: number;

  constructor({ maxStreams, maxPendingAccepts }: Limits, granted: number) {
    this.#maxLive = Math.max(1, Math.floor(maxStreams));
    this.#maxPending = Math.max(1, Math.floor(maxPendingAccepts));
    this.#granted = granted;
    this.#step = Math.ceil(granted / 4);
  }

  /** False if it was not allowed. */
  opened(): boolean {
    if (this.#opened === this.#granted) return false;
    this.#opened++;
    this.#live++;
    this.#pending++;
    return true;
  }

  /** The application has taken one. */
  accepted(): void {
    this.#pending--;
  }

  /** One is over; the application may still have to take it. */
  ended(): void {
    this.#live--;
  }

  /** What the peer is to be told, if anything. */
  grant(): number | undefined {
    const room = Math.min(this.#maxLive - this.#live, this.#maxPending - this.#pending);
    const inAll = Math.min(this.#opened + room, MAX_NUMBER);
    const more = inAll - this.#granted;
    if (more <= 0 || (more < this.#step && this.#granted > this.#opened)) return undefined;
    return this.#granted = inAll;
  }
}
