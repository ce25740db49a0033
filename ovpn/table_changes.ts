/**
 * Changes of the table of clients, for any number of consumers at their own pace.
 *
 * @module
 */
import { ManagementError } from "./errors.ts";
import type { TableClient } from "./table_row.ts";

/** Why a consumer has to begin anew: it has just begun, OpenVPN has restarted, events were lost, or it was too slow. */
export type ResyncReason = "start" | "restart" | "lost" | "slow";

/** What has happened to a table. */
export type TableChange =
  | {
    /** A client came. */
    readonly type: "added";
    /** Its row. */
    readonly client: TableClient;
  }
  | {
    /** Something is known of it now, or has changed. */
    readonly type: "changed";
    /** Its row now. */
    readonly client: TableClient;
    /** Its row before. */
    readonly previous: TableClient;
  }
  | {
    /** A client has left. */
    readonly type: "removed";
    /** Its last row. */
    readonly client: TableClient;
  }
  | {
    /** Forget what was told before: these are the clients now. */
    readonly type: "resync";
    /** Why. */
    readonly reason: ResyncReason;
    /** All of them. */
    readonly clients: readonly TableClient[];
  };

type Result = IteratorResult<TableChange, undefined>;
const DONE: Result = { done: true, value: undefined };

interface Waiter {
  resolve(result: Result): void;
  reject(error: ManagementError): void;
}

/** Hands changes to consumers. None holds more than `limit` of them; one that would gets a single `resync`, made when it reads. */
export class TableChanges {
  readonly #limit: number;
  readonly #rows: () => Iterable<TableClient>;
  readonly #consumers = new Set<Consumer>();
  #ended = false;

  constructor(limit: number, rows: () => Iterable<TableClient>) {
    this.#limit = limit;
    this.#rows = rows;
  }

  push(change: TableChange): void {
    for (const consumer of this.#consumers) consumer.push(change);
  }

  resync(reason: ResyncReason): void {
    for (const consumer of this.#consumers) consumer.resync(reason);
  }

  end(): void {
    this.#ended = true;
    for (const consumer of this.#consumers) consumer.end();
    this.#consumers.clear();
  }

  subscribe(signal: AbortSignal | undefined): AsyncIterableIterator<TableChange, undefined> {
    const leave = (it: Consumer) => this.#consumers.delete(it);
    const consumer = new Consumer(this.#limit, this.#rows, signal, leave);
    if (this.#ended) consumer.end();
    else if (!signal?.aborted) this.#consumers.add(consumer);
    return consumer;
  }
}

class Consumer implements AsyncIterableIterator<TableChange, undefined> {
  readonly #limit: number;
  readonly #rows: () => Iterable<TableClient>;
  readonly #signal: AbortSignal | undefined;
  readonly #leave: (it: Consumer) => void;
  #queue: TableChange[] = [];
  #head = 0;
  /** Stands for everything that has happened until it is read. */
  #resync: ResyncReason | undefined = "start";
  #ended = false;
  #error: ManagementError | undefined;
  readonly #waiters: Waiter[] = [];

  constructor(
    limit: number,
    rows: () => Iterable<TableClient>,
    signal: AbortSignal | undefined,
    leave: (it: Consumer) => void,
  ) {
    this.#limit = limit;
    this.#rows = rows;
    this.#signal = signal;
    this.#leave = leave;
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort);
  }

  push(change: TableChange): void {
    if (this.#resync !== undefined) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) return waiter.resolve({ done: false, value: change });
    if (this.#queue.length - this.#head >= this.#limit) return this.resync("slow");
    this.#queue.push(change);
  }

  resync(reason: ResyncReason): void {
    this.#clear();
    this.#resync = reason;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter.resolve({ done: false, value: this.#takeResync(reason) });
  }

  #takeResync(reason: ResyncReason): TableChange {
    this.#resync = undefined;
    return { type: "resync", reason, clients: [...this.#rows()] };
  }

  #clear(): void {
    this.#queue = [];
    this.#head = 0;
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
    this.#error = new ManagementError("aborted", "waiting for a change: aborted", {
      cause: this.#signal?.reason,
    });
    this.return();
  };

  next(): Promise<Result> {
    if (this.#resync !== undefined) {
      return Promise.resolve({ done: false, value: this.#takeResync(this.#resync) });
    }
    const value = this.#queue[this.#head];
    if (value !== undefined) {
      if (++this.#head === this.#queue.length) this.#clear();
      return Promise.resolve({ done: false, value });
    }
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  return(): Promise<Result> {
    this.#clear();
    this.#resync = undefined;
    this.end();
    this.#leave(this);
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
