/**
 * One source of events, any number of consumers that read at their own pace.
 *
 * @module
 */
import { Consumer } from "./_consumer.ts";
import { EventBuffer } from "./_event_buffer.ts";
import { ManagementError } from "./errors.ts";
import type { ManagementEvent } from "./event.ts";

/** Hands every event to every consumer; none of them holds more than `limit`. One that is too slow for that is left behind. */
export class Broadcast {
  /** Events that were dropped because a consumer was slow, over all consumers. */
  dropped = 0;
  readonly #limit: number;
  readonly #consumers = new Set<EventConsumer>();
  /** What came before the first consumer. */
  #backlog: EventConsumer | undefined;
  #ended = false;

  constructor(limit: number) {
    this.#limit = limit;
    this.#backlog = this.#create(undefined);
  }

  push(event: ManagementEvent): void {
    this.#backlog?.push(event);
    for (const consumer of this.#consumers) consumer.push(event);
  }

  /** Forgets what came before the first consumer, if there was none yet. */
  restart(): void {
    if (this.#backlog !== undefined) this.#backlog = this.#create(undefined);
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
    if (this.#ended) consumer.end();
    else if (whole) this.#consumers.add(consumer);
    return consumer;
  }

  #create(signal: AbortSignal | undefined): EventConsumer {
    const consumer: EventConsumer = new EventConsumer(
      this.#limit,
      signal,
      () => this.dropped++,
      () => this.#consumers.delete(consumer),
    );
    return consumer;
  }
}

class EventConsumer extends Consumer<ManagementEvent> {
  readonly #limit: number;
  readonly #onDrop: () => void;
  #events: EventBuffer;

  constructor(
    limit: number,
    signal: AbortSignal | undefined,
    onDrop: () => void,
    onEnd: () => void,
  ) {
    super("an event", signal, onEnd);
    this.#limit = limit;
    this.#onDrop = onDrop;
    this.#events = new EventBuffer(limit, onDrop);
  }

  /** True if nothing has been lost: it can go on. */
  takeOver(other: EventConsumer): boolean {
    this.#events = other.#events;
    if (other.error !== undefined) this.end(other.error);
    return other.error === undefined;
  }

  push(event: ManagementEvent): void {
    if (this.error === undefined && this.#events.push(event)) return this.wake();
    this.#onDrop();
    const text = `${this.#limit} wait to be read, and none of them may be dropped`;
    this.end(new ManagementError("overflow", `reading events: ${text}`));
  }

  protected override take(): ManagementEvent | undefined {
    return this.#events.shift();
  }

  protected override clear(): void {
    this.#events.clear();
  }
}
