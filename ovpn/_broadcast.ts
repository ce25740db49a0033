/**
 * One source of events, any number of consumers that read at their own pace.
 *
 * @module
 */
import { EventBuffer } from "./_event_buffer.ts";
import { ManagementError } from "./errors.ts";
import type { ManagementEvent } from "./event.ts";

/** Hands every event to every consumer; none of them holds more than `limit`. One that is too slow for that is left behind. */
export class Broadcast {
  /** Events that were dropped because a consumer was slow, over all consumers. */
  dropped = 0;
  readonly #limit: number;
  readonly #consumers = new Set<Consumer>();
  /** What came before the first consumer. */
  #backlog: Consumer | undefined;
  #ended = false;

  constructor(limit: number) {
    this.#limit = limit;
    this.#backlog = this.#create(undefined);
  }

  push(event: ManagementEvent): void {
    this.#backlog?.push(event);
    for (const consumer of this.#consumers) consumer.push(event);
  }

  /** Lets every consumer come to an end after what it holds. */
  end(): void {
    this.#ended = true;
    this.#backlog?.end();
    for (const consumer of this.#consumers) consumer.end();
    this.#consumers.clear();
  }

  /** The first consumer gets what came before it too. */
  subscribe(signal: AbortSignal | undefined): AsyncIterableIterator<ManagementEvent, undefined> {
    const consumer = this.#create(signal);
    if (signal?.aborted) return consumer;
    const whole = this.#backlog === undefined || consumer.takeOver(this.#backlog);
    this.#backlog = undefined;
    if (this.#ended || !whole) consumer.end();
    else this.#consumers.add(consumer);
    return consumer;
  }

  #create(signal: AbortSignal | undefined): Consumer {
    return new Consumer(
      this.#limit,
      signal,
      () => this.dropped++,
      (it) => this.#consumers.delete(it),
    );
  }
}

type Result = IteratorResult<ManagementEvent, undefined>;
const DONE: Result = { done: true, value: undefined };

interface Waiter {
  resolve(result: Result): void;
  reject(error: ManagementError): void;
}

class Consumer implements AsyncIterableIterator<ManagementEvent, undefined> {
  readonly #limit: number;
  readonly #signal: AbortSignal | undefined;
  readonly #onDrop: () => void;
  readonly #onLeave: (it: Consumer) => void;
  #events: EventBuffer;
  #ended = false;
  #error: ManagementError | undefined;
  readonly #waiters: Waiter[] = [];

  constructor(
    limit: number,
    signal: AbortSignal | undefined,
    onDrop: () => void,
    onLeave: (it: Consumer) => void,
  ) {
    this.#limit = limit;
    this.#events = new EventBuffer(limit, onDrop);
    this.#signal = signal;
    this.#onDrop = onDrop;
    this.#onLeave = onLeave;
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort);
  }

  /** True if nothing has been lost: it can go on. */
  takeOver(other: Consumer): boolean {
    this.#events = other.#events;
    this.#error = other.#error;
    return this.#error === undefined;
  }

  push(event: ManagementEvent): void {
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) return waiter.resolve({ done: false, value: event });
    if (this.#error === undefined && this.#events.push(event)) return;
    this.#onDrop();
    this.#error ??= new ManagementError(
      "overflow",
      `reading events: ${this.#limit} wait to be read, and none of them may be dropped`,
    );
    this.end();
    this.#onLeave(this);
  }

  end(): void {
    this.#ended = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    for (const waiter of this.#waiters.splice(0)) {
      if (this.#error === undefined) waiter.resolve(DONE);
      else waiter.reject(this.#error);
    }
  }

  readonly #abort = (): void => {
    this.#error = new ManagementError("aborted", "waiting for an event: aborted", {
      cause: this.#signal?.reason,
    });
    this.return();
  };

  next(): Promise<Result> {
    const value = this.#events.shift();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<Result> {
    this.#events.clear();
    this.end();
    this.#onLeave(this);
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
