/**
 * Points in time at which reads or writes begin to fail.
 *
 * @module
 */
import { MAX_TIMEOUT_MS } from "../adapters/limits.ts";

/** Numbers from here on are points in time, not spans: a hundred years from now would be less. */
const FIRST_TIMESTAMP_MS = 1e12;

/** A point in time, and what to do then. */
export class Deadline {
  expired = false;
  readonly #onExpire: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(onExpire: () => void) {
    this.#onExpire = onExpire;
  }

  set(when: Date | number | undefined): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.expired = false;
    if (when === undefined) return;
    const at = Number(when);
    if (Number.isNaN(at)) throw new RangeError("a deadline that is no time");
    const absolute = typeof when !== "number" || at >= FIRST_TIMESTAMP_MS;
    this.#wait(performance.now() + (absolute ? at - Date.now() : at));
  }

  #wait(until: number): void {
    const left = until - performance.now();
    if (left <= 0) {
      this.expired = true;
      this.#onExpire();
      return;
    }
    this.#timer = setTimeout(() => this.#wait(until), Math.min(left, MAX_TIMEOUT_MS));
  }
}
