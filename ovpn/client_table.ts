/**
 * The clients of a server, as they come and go.
 *
 * @module
 */
import { requireLimits } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { persist } from "./_persist.ts";
import { killOfEra, statusOfEra } from "./_status_kill.ts";
import type { ManagementClient } from "./client.ts";
import { CommandError, ManagementError } from "./errors.ts";
import type { ManagementEvent } from "./event.ts";
import type { StatusClient } from "./status.ts";
import { type TableChange, TableChanges } from "./table_changes.ts";
import { type Snapshot, TableRows } from "./table_rows.ts";
import { isSame, type TableClient } from "./table_row.ts";

export type { ResyncReason, TableChange } from "./table_changes.ts";
export type { TableClient } from "./table_row.ts";

/** Options of a {@linkcode ClientTable}. `signal` closes it. */
export interface ClientTableOptions extends WaitOptions {
  /**
   * How long after a status report the next one is asked for, in milliseconds. Without `--management-client-auth` OpenVPN does not tell
   * that a client has left: then it is seen so late. @default 10000
   */
  readonly refreshMs?: number | undefined;
  /** How long after an event that leaves something open a report is asked for, in milliseconds: one for all events until then. @default 1000 */
  readonly settleMs?: number | undefined;
  /** Every how many seconds OpenVPN is to tell the bytes of its clients; 0 turns that off. @default as it is */
  readonly byteCountSeconds?: number | undefined;
  /** How many changes are kept for a slow consumer; one more, and a `resync` takes the place of all. @default 1024 */
  readonly maxBufferedChanges?: number | undefined;
}

/** Options of {@linkcode ClientTable.kill}. */
export interface KillOptions extends WaitOptions {
  /** What is sent to the client: `RESTART`, after which it may come again, or `HALT`, with a text behind a comma. @default "RESTART" */
  readonly message?: string | undefined;
}

/**
 * What became of {@linkcode ClientTable.kill}: OpenVPN has told the client to go; it was gone already; or its CID is another
 * client's now, which was left alone.
 */
export type KillResult = "killed" | "gone" | "replaced";

const TABLE_DEFAULTS = { refreshMs: 10_000, settleMs: 1000, maxBufferedChanges: 1024 } as const;
/** How often a report is asked for again because events told otherwise while it came. */
const MAX_ATTEMPTS = 5;

/**
 * A live table of the clients of a server, from its events, status reports and byte counts.
 *
 * 1. Of each change the table tells; a consumer that is too slow gets one `resync` in place of what it missed.
 * 2. There is one report on its way at most. What events tell while it is counts more than the report.
 * 3. After a restart CIDs belong to others. The table is emptied, and a row of it is never one client's and then another's. For that it
 *    turns `STATE` events on; without them, and without client-auth, a report that contradicts shows it.
 * 4. Any number of tables can be made of one connection. The table does not close it, and ends with it; the rows stay as they were.
 *
 * It needs OpenVPN 2.4 or later, whose reports have CIDs. If nobody has read the client's events yet, what came before is gone for others: make
 * it after them.
 *
 * @example
 * ```ts
 * import { ClientTable, dial } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = simulateDaemon({ mode: "server", clientAuth: false }); // in life: an OpenVPN
 * daemon.clientConnects({ commonName: "alice", address: "2001:db8::2" });
 * const client = await dial(await daemon.listen());
 * const table = new ClientTable(client);
 * await table.refresh();
 * for (const row of table.clients.values()) {
 *   console.log(row.commonName, row.virtualAddress); // alice 10.8.0.2
 *   console.log(await table.kill(row, { message: "HALT" })); // killed
 * }
 * table.close();
 * await client.close();
 * await daemon.close();
 * ```
 */
export class ClientTable implements Disposable {
  readonly #client: ManagementClient;
  readonly #rows: TableRows;
  readonly #changes: TableChanges;
  readonly #refreshMs: number;
  readonly #settleMs: number;
  /** Sends again what OpenVPN has not been told yet. */
  readonly #settings: (() => void)[] = [];
  readonly #closing = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  readonly #onAbort = (): void => this.close();
  readonly #signal: AbortSignal | undefined;
  #events: AsyncIterableIterator<ManagementEvent, undefined>;
  /** The next report, by the clock. */
  #poll: ReturnType<typeof setTimeout> | undefined;
  /** The next report, because of an event. */
  #soon: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<Snapshot> | undefined;
  /** Begins after the one that is running. */
  #next: Promise<Snapshot> | undefined;

  /**
   * Begins to follow, and asks for a report; `refresh()` tells when it is there.
   *
   * @throws {RangeError} if a limit is not positive or a time more than 2147483647 ms
   */
  constructor(client: ManagementClient, options: ClientTableOptions = {}) {
    const { refreshMs = TABLE_DEFAULTS.refreshMs, settleMs = TABLE_DEFAULTS.settleMs } = options;
    const { maxBufferedChanges = TABLE_DEFAULTS.maxBufferedChanges, byteCountSeconds } = options;
    requireLimits({ refreshMs, settleMs, maxBufferedChanges });
    if (byteCountSeconds !== undefined && !isInterval(byteCountSeconds)) {
      throw new RangeError(`byteCountSeconds is ${byteCountSeconds}, expected a whole number`);
    }
    this.#client = client;
    this.#refreshMs = refreshMs;
    this.#settleMs = settleMs;
    this.#signal = options.signal;
    this.#changes = new TableChanges(maxBufferedChanges, () => this.clients.values());
    this.#rows = new TableRows(this.#changes);
    this.#events = client.subscribe();
    if (this.#signal?.aborted) {
      this.close();
      return;
    }
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
    const { signal } = this.#closing;
    this.#settings.push(persist((wait) => client.setStateEvents(true, wait), { signal }));
    if (byteCountSeconds !== undefined) {
      const send = (wait: WaitOptions) => client.setByteCountEvents(byteCountSeconds, wait);
      this.#settings.push(persist(send, { signal }));
    }
    this.refresh().catch(() => {});
    this.#follow();
  }

  /** The clients by CID, as the table has them now; it changes while it is read. */
  get clients(): ReadonlyMap<string, TableClient> {
    return this.#rows.clients;
  }

  /** Resolves when the table follows no longer: after `close()`, or with the connection. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** What happens to the table. Every iteration begins with a `resync` of the clients that there are. It ends with the table. */
  get changes(): AsyncIterable<TableChange> {
    return { [Symbol.asyncIterator]: () => this.subscribe() };
  }

  /** As `changes`, but begins to collect at once; `return()` ends that, and so does `signal`, with `aborted`. */
  subscribe({ signal }: WaitOptions = {}): AsyncIterableIterator<TableChange, undefined> {
    return this.#changes.subscribe(signal);
  }

  /**
   * Asks for a status report and waits until the table has it. A report that is on its way is not enough; those who wait meanwhile share
   * the next one.
   *
   * @throws {CommandError} while OpenVPN is held
   * @throws {ManagementError} `aborted` for `signal`; `closed`; `protocol` if this is no server, or one without CIDs; what ended the
   * connection
   */
  async refresh({ signal }: WaitOptions = {}): Promise<void> {
    await this.#fresh(signal);
  }

  /**
   * Kills a client: not whoever has its CID, but this one, by its name, its address and the time that it connected, of which a status report
   * is asked for before. It needs neither an IPv4 address nor a name without colons. A client whose address has
   * changed since the row was made counts as `replaced`: take its new row.
   *
   * @throws {TypeError} if the message has control characters, @throws {RangeError} if it has more than 256 bytes
   * @throws {ManagementError} as {@linkcode ClientTable.refresh} does; `stale` if events contradict the reports again and again
   */
  async kill(client: TableClient, { message, signal }: KillOptions = {}): Promise<KillResult> {
    const { clientId } = client;
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const { status, touched, era } = await this.#fresh(signal);
      if (touched.has(clientId)) continue;
      const found = status.clients.find((it) => it.clientId === clientId);
      if (found === undefined) return "gone";
      const row = this.clients.get(clientId);
      if (row === undefined || !isTarget(client, row, found)) return "replaced";
      return await this.#killRow(row, era, { message, signal });
    }
    throw new ManagementError("stale", `killing client ${clientId}: it changes all the time`);
  }

  /** Ends the table: waits reject with `closed`, iterations end. The connection stays open, and `STATE` events on. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    clearTimeout(this.#poll);
    clearTimeout(this.#soon);
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#closing.abort(new ManagementError("closed", "the table of clients is closed"));
    this.#events.return?.();
    this.#changes.end();
    this.#closed.resolve();
  }

  /** The same as `close()`. */
  [Symbol.dispose](): void {
    this.close();
  }

  async #follow(): Promise<void> {
    for (;;) {
      try {
        for await (const event of this.#events) {
          // Called then, they wait for the set-up, and go out before what is called after that.
          if (event.type === "connected" || event.type === "resumed") {
            for (const again of this.#settings) again();
          }
          if (event.type === "resumed") this.refresh().catch(() => {});
          else if (this.#rows.see(event)) this.#refreshSoon();
        }
        return this.close();
      } catch {
        // More came at once than may wait: who came and went is not known.
        if (this.#closing.signal.aborted) return;
        this.#events = this.#client.subscribe();
        this.#rows.forget("lost");
        this.#refreshSoon();
      }
    }
  }

  #refreshSoon(): void {
    if (this.#closing.signal.aborted) return;
    this.#soon ??= setTimeout(() => this.#fresh().catch(() => {}), this.#settleMs);
  }

  /** A report that was asked for after this call. */
  async #fresh(signal?: AbortSignal): Promise<Snapshot> {
    if (signal?.aborted) throw abortedError(signal);
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
    if (this.#running !== undefined) {
      this.#next ??= this.#running.catch(() => {}).then(() => this.#query());
    }
    const report = this.#next ?? (this.#running = this.#query());
    report.catch(() => {});
    const ended = Promise.withResolvers<never>();
    const onAbort = () => ended.reject(abortedError(signal!));
    const onClose = () => ended.reject(this.#closing.signal.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#closing.signal.addEventListener("abort", onClose, { once: true });
    try {
      return await Promise.race([report, ended.promise]);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#closing.signal.removeEventListener("abort", onClose);
    }
  }

  async #query(): Promise<Snapshot> {
    if (this.#next !== undefined) [this.#running, this.#next] = [this.#next, undefined];
    clearTimeout(this.#poll);
    clearTimeout(this.#soon);
    this.#soon = undefined;
    try {
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const touched = this.#rows.beginSnapshot();
        const report = await statusOfEra(this.#client, { signal: this.#closing.signal });
        // All events that came before the report are taken first: they are buffered, and this waits for a turn.
        await new Promise((resolve) => setTimeout(resolve, 0));
        this.#closing.signal.throwIfAborted();
        const snapshot = { ...report, touched };
        const applied = this.#rows.apply(snapshot);
        if (applied === "outdated") continue;
        if (applied === "open") this.#refreshSoon();
        return snapshot;
      }
      throw new ManagementError("stale", "status: OpenVPN restarts again and again");
    } finally {
      this.#running = undefined;
      if (!this.#closing.signal.aborted) {
        this.#poll = setTimeout(() => this.#fresh().catch(() => {}), this.#refreshMs);
      }
    }
  }

  async #killRow(
    row: TableClient,
    era: object | undefined,
    { message, signal }: KillOptions,
  ): Promise<KillResult> {
    // Takes the command out of the queue.
    const { restarted } = this.#rows;
    const signals = [restarted, this.#closing.signal, ...signal === undefined ? [] : [signal]];
    try {
      await killOfEra(this.#client, row.clientId, message, {
        era,
        signal: AbortSignal.any(signals),
      });
    } catch (error) {
      if (signal?.aborted) throw abortedError(signal);
      this.#closing.signal.throwIfAborted();
      const gone = error instanceof CommandError ||
        error instanceof ManagementError && error.code === "stale";
      if (restarted.aborted || gone) return "gone";
      throw error;
    }
    this.#rows.leave(row);
    this.#refreshSoon();
    return "killed";
  }
}

/** Whether a report shows, and the table has, the client of `wanted`. */
function isTarget(wanted: TableClient, row: TableClient, found: StatusClient): boolean {
  // The name is settled when it is let in.
  const named = wanted.state === "pending" ? { ...wanted, commonName: row.commonName } : wanted;
  // A row that was made of events alone lacks the time; then only the serial, which does not outlive a resync, knows it.
  return (row.serial === wanted.serial || wanted.since !== undefined) &&
    isSame({ ...named, since: wanted.since ?? row.since }, found);
}

function isInterval(seconds: number): boolean {
  return Number.isInteger(seconds) && seconds >= 0 && seconds <= 0x7fffffff;
}

function abortedError(signal: AbortSignal): ManagementError {
  return new ManagementError("aborted", "the table of clients: aborted", { cause: signal.reason });
}
