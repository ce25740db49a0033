/**
 * Where events go.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import { Queue } from "../adapters/queue.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { abortedWait } from "./errors.ts";
import type { SessionEvent } from "./event.ts";

/** Default of a channel's `capacity`. */
export const CHANNEL_CAPACITY = 1024;
/** Default of a channel's `maxBytes`. */
export const CHANNEL_BYTES: number = 16 * 1024 * 1024;

/** Options of a {@linkcode Channel}. */
export interface ChannelOptions {
  /** How many bytes of `data` wait before a sender has to; the last item may be more. @default 16777216 (16 MiB) */
  readonly maxBytes?: number | undefined;
}

/** What a channel carries. */
export interface ChannelItem {
  /** Its bytes are what counts towards `maxBytes`. */
  readonly data: Uint8Array;
}

interface Sender<T> {
  readonly item: T;
  readonly taken: () => void;
}

interface Receiver<T> {
  resolve(item: T | null): void;
}

/**
 * A bounded queue, as Go's channels: who sends to a full one waits, in the order of the calls. Any number of managers may send to it, and any
 * number of loops take from it; each item is taken once. Leaving a loop early loses nothing, and does not close it.
 *
 * @example
 * ```ts
 * import { Channel, ConnectionManager } from "@trunkline/sockets/cmgr";
 * import { connPair } from "@trunkline/sockets/auto";
 *
 * const channel = new Channel(16);
 * const manager = new ConnectionManager();
 * const [conn, peer] = connPair();
 * manager.adopt(conn, "pair", channel);
 * await peer.write(new Uint8Array([1, 2]));
 * console.log((await channel.receive())?.state); // new
 * console.log((await channel.receive())?.data); // 1, 2
 * peer.abort();
 * await manager.shutdown();
 * ```
 */
export class Channel<T extends ChannelItem = SessionEvent> implements AsyncIterable<T> {
  /** How many items wait before a sender has to. */
  readonly capacity: number;
  readonly #maxBytes: number;
  readonly #items: Queue<T> = new Queue();
  readonly #senders: Queue<Sender<T>> = new Queue();
  readonly #receivers = new Set<Receiver<T>>();
  #bytes = 0;
  #closed = false;

  /**
   * Makes an empty one.
   *
   * @param capacity how many items wait before a sender has to, 1 or more
   * @throws {RangeError} if a limit is not positive
   */
  constructor(capacity: number = CHANNEL_CAPACITY, options: ChannelOptions = {}) {
    this.#maxBytes = options.maxBytes ?? CHANNEL_BYTES;
    requireLimit("capacity", capacity);
    requireLimit("maxBytes", this.#maxBytes);
    this.capacity = capacity;
  }

  /** How many items wait to be taken; those of senders that wait are not counted. */
  get length(): number {
    return this.#items.length;
  }

  /** Whether `close()` was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Sends `item`: `undefined` if there was room, otherwise a promise that resolves when there is. A closed channel drops it. */
  send(item: T): Promise<void> | undefined {
    if (this.#closed) return undefined;
    const [receiver] = this.#receivers;
    if (receiver !== undefined) {
      this.#receivers.delete(receiver);
      receiver.resolve(item);
      return undefined;
    }
    if (this.#hasRoom()) {
      this.#keep(item);
      return undefined;
    }
    return new Promise((taken) => this.#senders.push({ item, taken }));
  }

  /**
   * The next item, as soon as there is one; null when the channel is closed and empty.
   *
   * @throws {ManagerError} `aborted` or `timeout` if `signal` fires; nothing is lost then
   */
  receive({ signal }: WaitOptions = {}): Promise<T | null> {
    if (signal?.aborted) return Promise.reject(abortedWait(signal, "waiting for an event"));
    const item = this.#take();
    if (item !== undefined) return Promise.resolve(item);
    if (this.#closed) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      const receiver: Receiver<T> = {
        resolve(item) {
          signal?.removeEventListener("abort", onAbort);
          resolve(item);
        },
      };
      const onAbort = () => {
        this.#receivers.delete(receiver);
        reject(abortedWait(signal!, "waiting for an event"));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#receivers.add(receiver);
    });
  }

  #take(): T | undefined {
    const item = this.#items.shift();
    if (item === undefined) return undefined;
    this.#bytes -= item.data.length;
    if (this.#senders.length > 0) this.#refill();
    return item;
  }

  /** Ends it: what waits can still be taken, what is sent from now on, or by a sender that waits, is dropped. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { taken } of this.#senders) taken();
    this.#senders.clear();
    for (const receiver of this.#receivers) receiver.resolve(null);
    this.#receivers.clear();
  }

  /** Takes out what `drop` says, of what waits and of those who wait to send. */
  remove(drop: (item: T) => boolean): void {
    // First, so that nothing is lost if `drop` throws.
    const items = [...this.#items].filter((item) => !drop(item));
    const dropped = new Set([...this.#senders].filter(({ item }) => drop(item)));
    const senders = [...this.#senders].filter((sender) => !dropped.has(sender));
    this.#items.clear();
    this.#senders.clear();
    this.#bytes = 0;
    for (const item of items) this.#keep(item);
    for (const sender of senders) this.#senders.push(sender);
    for (const { taken } of dropped) taken();
    this.#refill();
  }

  #hasRoom(): boolean {
    return this.#items.length < this.capacity && this.#bytes < this.#maxBytes;
  }

  #keep(item: T): void {
    this.#items.push(item);
    this.#bytes += item.data.length;
  }

  #refill(): void {
    while (this.#senders.length > 0 && this.#hasRoom()) {
      const { item, taken } = this.#senders.shift()!;
      this.#keep(item);
      taken();
    }
  }

  /** Takes each item in turn, until the channel is closed and empty. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T, void> {
    const result = (value: T | null): IteratorResult<T, void> =>
      value === null ? { done: true, value: undefined } : { done: false, value };
    const waiting = new Set<Receiver<T>>();
    let left = false;
    const next = (): Promise<IteratorResult<T, void>> => {
      if (left) return Promise.resolve(result(null));
      const item = this.#take();
      if (item !== undefined) return Promise.resolve(result(item));
      if (this.#closed) return Promise.resolve(result(null));
      return new Promise((resolve) => {
        const receiver: Receiver<T> = {
          resolve(item) {
            waiting.delete(receiver);
            resolve(result(item));
          },
        };
        waiting.add(receiver);
        this.#receivers.add(receiver);
      });
    };
    // What it has not taken by then is for others.
    const leave = (): Promise<IteratorResult<T, void>> => {
      left = true;
      for (const receiver of waiting) {
        this.#receivers.delete(receiver);
        receiver.resolve(null);
      }
      return Promise.resolve(result(null));
    };
    const iterator: AsyncIterableIterator<T, void> = {
      next,
      return: leave,
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }
}

/**
 * Takes the events of a session: a {@linkcode Channel}, or a function that is called with one at a time of each session; the next of that
 * session waits for what it returns. What it throws goes to `onError` of the manager; without that, nobody has handled it.
 */
export type Sink = Channel | ((event: SessionEvent) => unknown);

/** A sink that drops all events; the sockets are read on. */
export const discard: Sink = () => {};
