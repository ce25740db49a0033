/**
 * Events that wait for a consumer: at most so many, and what matters most is kept.
 *
 * @module
 */
import type { ManagementEvent } from "./event.ts";

/** Events that a slow consumer can do without. */
const DISPENSABLE: ReadonlySet<string> = new Set(["LOG", "BYTECOUNT", "BYTECOUNT_CLI"]);

/**
 * First in, first out. When it is full the oldest dispensable event gives way to the next one, else the oldest of all but the last
 * `HOLD`, without which a daemon would wait for ever. Each step takes constant time, on average.
 */
export class EventBuffer {
  length = 0;
  readonly #limit: number;
  /** Those that gave way leave a hole. */
  #slots: (ManagementEvent | undefined)[] = [];
  #head = 0;
  /** Where the dispensable ones are, from `#nextDispensable` on; those that were taken meanwhile are before the head. */
  #dispensable: number[] = [];
  #nextDispensable = 0;
  #lastHold: ManagementEvent | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** True if another event had to give way. */
  push(event: ManagementEvent): boolean {
    const full = this.length >= this.#limit;
    if (full) this.#dropOne();
    if (this.#slots.length - this.length > this.#limit) this.#compact();
    if (DISPENSABLE.has(event.type)) this.#dispensable.push(this.#slots.length);
    else if (event.type === "HOLD") this.#lastHold = event;
    this.#slots.push(event);
    this.length++;
    return full;
  }

  shift(): ManagementEvent | undefined {
    const at = this.#first();
    const event = this.#slots[at];
    if (event === undefined) return undefined;
    this.#slots[at] = undefined;
    this.#head = at + 1;
    if (--this.length === 0) this.clear();
    return event;
  }

  clear(): void {
    this.length = 0;
    this.#slots = [];
    this.#head = 0;
    this.#dispensable = [];
    this.#nextDispensable = 0;
    this.#lastHold = undefined;
  }

  /** Where the oldest one is. */
  #first(): number {
    while (this.#head < this.#slots.length && this.#slots[this.#head] === undefined) this.#head++;
    return this.#head;
  }

  #dropOne(): void {
    const first = this.#first();
    let at = this.#dispensable[this.#nextDispensable++];
    while (at !== undefined && at < first) at = this.#dispensable[this.#nextDispensable++];
    if (at === undefined) {
      const oldest = this.#slots[first];
      this.#head = first + 1;
      at = first;
      if (oldest === this.#lastHold && this.length > 1) {
        // It takes the place of the one behind it.
        at = this.#first();
        this.#slots[first] = undefined;
        this.#slots[at] = oldest;
        this.length--;
        return;
      }
    }
    this.#slots[at] = undefined;
    this.length--;
  }

  #compact(): void {
    this.#slots = this.#slots.filter((event) => event !== undefined);
    this.#head = 0;
    this.#dispensable = [];
    this.#nextDispensable = 0;
    for (const [at, event] of this.#slots.entries()) {
      if (DISPENSABLE.has(event!.type)) this.#dispensable.push(at);
    }
  }
}
