/**
 * Changes of the table of clients, for any number of consumers at their own pace.
 *
 * @module
 */
import { Consumer } from "./_consumer.ts";
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

/** Hands changes to consumers. None holds more than `limit` of them; one that would gets a single `resync`, made when it reads. */
export class TableChanges {
  readonly #limit: number;
  readonly #rows: () => Iterable<TableClient>;
  readonly #consumers = new Set<ChangeConsumer>();
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
    const consumer: ChangeConsumer = new ChangeConsumer(
      this.#limit,
      this.#rows,
      signal,
      () => this.#consumers.delete(consumer),
    );
    if (this.#ended) consumer.end();
    else if (!signal?.aborted) this.#consumers.add(consumer);
    return consumer;
  }
}

class ChangeConsumer extends Consumer<TableChange> {
  readonly #limit: number;
  readonly #rows: () => Iterable<TableClient>;
  #queue: TableChange[] = [];
  #head = 0;
  /** Stands for everything that has happened until it is read. */
  #resync: ResyncReason | undefined = "start";

  constructor(
    limit: number,
    rows: () => Iterable<TableClient>,
    signal: AbortSignal | undefined,
    onEnd: () => void,
  ) {
    super("a change", signal, onEnd);
    this.#limit = limit;
    this.#rows = rows;
  }

  push(change: TableChange): void {
    if (this.#resync !== undefined) return;
    if (this.#queue.length - this.#head >= this.#limit) return this.resync("slow");
    this.#queue.push(change);
    this.wake();
  }

  resync(reason: ResyncReason): void {
    this.clear();
    this.#resync = reason;
    this.wake();
  }

  protected override take(): TableChange | undefined {
    if (this.#resync !== undefined) {
      const reason = this.#resync;
      this.#resync = undefined;
      return { type: "resync", reason, clients: [...this.#rows()] };
    }
    const change = this.#queue[this.#head];
    if (change !== undefined && ++this.#head === this.#queue.length) this.clear();
    return change;
  }

  protected override clear(): void {
    this.#queue = [];
    this.#head = 0;
    this.#resync = undefined;
  }
}
