/**
 * Measures round trips.
 *
 * @module
 */
import type { MuxError } from "../errors.ts";

/** A round trip that was measured longer ago is measured anew when it is asked for, in milliseconds. */
const RECENT_MS = 250;
/** So many round trips are remembered: the shortest of them is the one that did not wait in queues. */
const REMEMBERED = 8;

export class PingTimer {
  /** The last one, in milliseconds. */
  rtt: number | undefined;
  readonly #say: (number: number) => void;
  #number = 0;
  #sentAt = 0;
  #measuredAt = -Infinity;
  readonly #last: number[] = [];
  #waiting: PromiseWithResolvers<number> | undefined;

  constructor(say: (number: number) => void) {
    this.#say = say;
  }

  /** The shortest of the last round trips; has a newer one measured if the last one is old. */
  shortest(): number | undefined {
    if (this.#waiting === undefined && performance.now() - this.#measuredAt > RECENT_MS) {
      this.send();
    }
    return this.#last.length === 0 ? undefined : Math.min(...this.#last);
  }

  /** Sends one, whether another is on its way or not. */
  send(): void {
    if (this.#waiting === undefined) this.measure();
    else this.#say(this.#number);
  }

  /** Nothing could be sent before: what waits is measured from now on. */
  restart(): void {
    this.#sentAt = performance.now();
    this.send();
  }

  /** The round trip, by the ping that is on its way or a new one. */
  measure(): Promise<number> {
    if (this.#waiting === undefined) {
      this.#waiting = Promise.withResolvers();
      // Most are nobody's.
      this.#waiting.promise.catch(() => {});
      this.#number = (this.#number + 1) >>> 0;
      this.#sentAt = performance.now();
      this.#say(this.#number);
    }
    return this.#waiting.promise;
  }

  onPong(number: number): void {
    if (this.#waiting === undefined || number !== this.#number) return;
    this.#measuredAt = performance.now();
    this.rtt = this.#measuredAt - this.#sentAt;
    this.#last.push(this.rtt);
    if (this.#last.length > REMEMBERED) this.#last.shift();
    this.#waiting.resolve(this.rtt);
    this.#waiting = undefined;
  }

  /** Nothing comes any more. */
  end(error: MuxError): void {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}
