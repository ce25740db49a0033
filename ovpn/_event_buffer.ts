/**
 * Events that wait for a consumer: at most so many, and what matters is never lost unseen.
 *
 * @module
 */
import { MAX_MESSAGE_BYTES } from "./demux.ts";
import type { ManagementEvent } from "./event.ts";

/** Events that a slow consumer can do without; those of the first kind come in bulk, and go first. */
const DISPENSABLE: readonly ReadonlySet<string>[] = [
  new Set(["LOG", "BYTECOUNT", "BYTECOUNT_CLI"]),
  new Set(["STATE", "ECHO", "NOTIFY", "connect-failed"]),
];
/** Holes are not worth their removal while they are fewer. */
const MIN_HOLES = 32;

/**
 * First in, first out. When it is full the oldest dispensable event gives way to the next one, if that is worth as much, and a `dropped`
 * event is where the first that gave way would have been. Each step takes constant time, on average.
 */
export class EventBuffer {
  readonly #limit: number;
  readonly #onDrop: () => void;
  /** Those that gave way, or were taken, leave a hole. */
  #slots: (ManagementEvent | undefined)[] = [];
  #head = 0;
  /** How many slots are no holes. */
  #held = 0;
  /** What they count against the limit. */
  #weight = 0;
  /** Where the dispensable ones of each kind are. */
  #places: readonly Places[] = DISPENSABLE.map(() => new Places());
  /** The `dropped` event that is in a slot now. */
  #notice: { at: number; readonly counts: Map<string, number> } | undefined;

  constructor(limit: number, onDrop: () => void) {
    this.#limit = limit;
    this.#onDrop = onDrop;
  }

  /** False if there is no room for what must not be lost. */
  push(event: ManagementEvent): boolean {
    const kind = kindOf(event);
    const weight = weightOf(event);
    // One that is larger than the limit has the buffer for itself.
    while (this.#weight > 0 && this.#weight + weight > this.#limit) {
      if (this.#dropOldest(kind < 0 ? DISPENSABLE.length : kind + 1)) continue;
      if (kind >= 0) this.#drop(event, undefined);
      return kind >= 0;
    }
    if (this.#slots.length > 2 * this.#held + MIN_HOLES) this.#compact();
    this.#places[kind]?.push(this.#slots.length);
    this.#slots.push(event);
    this.#held++;
    this.#weight += weight;
    return true;
  }

  shift(): ManagementEvent | undefined {
    const at = this.#first();
    const event = this.#slots[at];
    if (event === undefined) return undefined;
    this.#slots[at] = undefined;
    this.#head = at + 1;
    this.#weight -= weightOf(event);
    if (this.#notice?.at === at) this.#notice = undefined;
    if (--this.#held === 0) this.clear();
    return event;
  }

  clear(): void {
    this.#slots = [];
    this.#head = 0;
    this.#held = 0;
    this.#weight = 0;
    this.#places = DISPENSABLE.map(() => new Places());
    this.#notice = undefined;
  }

  /** Where the oldest one is. */
  #first(): number {
    while (this.#head < this.#slots.length && this.#slots[this.#head] === undefined) this.#head++;
    return this.#head;
  }

  /** Of the first so many kinds; false if there is none. */
  #dropOldest(kinds: number): boolean {
    const first = this.#first();
    for (const places of this.#places.slice(0, kinds)) {
      const at = places.next(first);
      if (at === undefined) continue;
      this.#drop(this.#slots[at]!, at);
      return true;
    }
    return false;
  }

  /** Drops the event of the slot `at`, or one that never got a slot. */
  #drop(event: ManagementEvent, at: number | undefined): void {
    this.#onDrop();
    if (at !== undefined) {
      this.#slots[at] = undefined;
      this.#held--;
      this.#weight -= weightOf(event);
    }
    this.#notice ??= { at: Infinity, counts: new Map() };
    const { counts } = this.#notice;
    counts.set(event.type, (counts.get(event.type) ?? 0) + 1);
    this.#placeNotice(at);
  }

  /** The notice stands where the first loss is. */
  #placeNotice(at: number = this.#slots.length): void {
    const notice = this.#notice!;
    if (at > notice.at) return;
    if (notice.at !== Infinity) {
      this.#slots[notice.at] = undefined;
      this.#held--;
    }
    notice.at = at;
    this.#slots[at] = { type: "dropped", raw: new Uint8Array(), counts: notice.counts };
    this.#held++;
  }

  #compact(): void {
    const slots = this.#slots;
    const noticeAt = this.#notice?.at;
    this.#slots = [];
    this.#head = 0;
    this.#places = DISPENSABLE.map(() => new Places());
    for (const [at, event] of slots.entries()) {
      if (event === undefined) continue;
      if (at === noticeAt) this.#notice!.at = this.#slots.length;
      this.#places[kindOf(event)]?.push(this.#slots.length);
      this.#slots.push(event);
    }
  }
}

/** Slots in their order; those that were taken meanwhile are before the first one that is held. */
class Places {
  readonly #at: number[] = [];
  #next = 0;

  push(at: number): void {
    this.#at.push(at);
  }

  /** Takes the next one from `first` on. */
  next(first: number): number | undefined {
    let at = this.#at[this.#next++];
    while (at !== undefined && at < first) at = this.#at[this.#next++];
    if (at === undefined) this.#next = this.#at.length;
    return at;
  }
}

/** Its index in `DISPENSABLE`, or -1. */
function kindOf({ type }: ManagementEvent): number {
  return DISPENSABLE.findIndex((types) => types.has(type));
}

/** A gathered event counts for as many as it could have been messages, so that the limit bounds the memory too. */
function weightOf({ type, raw }: ManagementEvent): number {
  return type === "dropped" ? 0 : Math.max(1, Math.ceil(raw.length / MAX_MESSAGE_BYTES));
}
