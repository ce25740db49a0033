/**
 * The rows of the table of clients, kept by events and status reports.
 *
 * @module
 */
import type { StatusOfEra } from "./_status_kill.ts";
import { ManagementError } from "./errors.ts";
import type { ClientEvent, ManagementEvent } from "./event.ts";
import type { StatusClient } from "./status.ts";
import type { ResyncReason, TableChanges } from "./table_changes.ts";
import {
  envUpdate,
  mayBeFrom,
  mayBeSame,
  newRow,
  type RowUpdate,
  statusUpdate,
  type TableClient,
  updatedRow,
} from "./table_row.ts";

/** A status report, and the CIDs of which events came while it did: of these it may tell the past. */
export interface Snapshot extends StatusOfEra {
  readonly touched: ReadonlySet<string>;
}

/** `outdated`: not applied, OpenVPN has restarted meanwhile. `open`: another report should follow. */
export type Applied = "done" | "open" | "outdated";

/** Follows what it is shown. */
export class TableRows {
  readonly #rows = new Map<string, TableClient>();
  /** CIDs of clients whose `ESTABLISHED` was heard: there is one for each login. */
  readonly #established = new Set<string>();
  readonly #changes: TableChanges;
  #era = new AbortController();
  #serial = 0;
  #touched = new Set<string>();
  /** Whether all was forgotten since the last report was asked for. */
  #restarted = false;

  constructor(changes: TableChanges) {
    this.#changes = changes;
  }

  get clients(): ReadonlyMap<string, TableClient> {
    return this.#rows;
  }

  /** Fires when CIDs may belong to others. */
  get restarted(): AbortSignal {
    return this.#era.signal;
  }

  /** Takes an event; true if a report should tell the rest. */
  see(event: ManagementEvent): boolean {
    switch (event.type) {
      case "HOLD":
        this.forget("restart");
        return false;
      case "STATE":
        if (event.name === "RECONNECTING" || event.name === "EXITING") this.forget("restart");
        return event.name === "CONNECTED";
      case "BYTECOUNT_CLI":
        this.#update(event.clientId, {
          bytesReceived: event.bytesIn,
          bytesSent: event.bytesOut,
        });
        return false;
      case "CLIENT":
        this.#touched.add(event.clientId);
        return this.#onClient(event);
      case "connected":
        // What was told before may not hold any more; a report follows when commands are sent again.
        if (this.#rows.size > 0) this.forget("lost");
        return false;
      case "dropped":
        // One of them may have told of a restart.
        return event.counts.has("STATE");
      case "unknown":
        return event.keyword === "CLIENT";
      default:
        return false;
    }
  }

  /** All clients are gone, or nothing is known of them. */
  forget(reason: ResyncReason): void {
    this.#restarted = true;
    this.#clear();
    this.#changes.resync(reason);
  }

  #clear(): void {
    this.#era.abort();
    this.#era = new AbortController();
    this.#rows.clear();
    this.#established.clear();
  }

  #onClient(event: ClientEvent): boolean {
    const { clientId } = event;
    const row = this.#rows.get(clientId);
    switch (event.kind) {
      case "CONNECT": {
        const update = envUpdate(event);
        // The same key again, or from somewhere else: OpenVPN has started anew, and nothing has told us.
        if (row?.keyId === event.keyId || row && !mayBeFrom(row, update)) this.forget("restart");
        this.#established.delete(clientId);
        this.#merge(clientId, { ...update, keyId: event.keyId }, "pending");
        return true;
      }
      case "REAUTH":
        // The name may be that of the certificate again, so that none of it is taken.
        if (row === undefined) this.#merge(clientId, { keyId: event.keyId }, "connected");
        else this.#update(clientId, { keyId: event.keyId });
        return row === undefined;
      case "ESTABLISHED": {
        const update = envUpdate(event);
        if (this.#established.has(clientId) || row && !mayBeFrom(row, update)) {
          this.forget("restart");
        }
        this.#established.add(clientId);
        const state = this.#rows.get(clientId)?.state === "leaving" ? "leaving" : "connected";
        this.#merge(clientId, { ...update, state }, state);
        return true;
      }
      case "ADDRESS":
        if (event.primary) this.#update(clientId, addressUpdate(event.address));
        return row === undefined;
      case "DISCONNECT": {
        const { bytesReceived = 0, bytesSent = 0 } = envUpdate(event);
        if (row !== undefined) this.#remove(updatedRow(row, { bytesReceived, bytesSent }));
        return false;
      }
      case "CR_RESPONSE":
        return row === undefined;
    }
  }

  #merge(clientId: string, update: RowUpdate, state: TableClient["state"]): void {
    const row = this.#rows.get(clientId);
    if (row === undefined) return this.#add(newRow(++this.#serial, clientId, { state, ...update }));
    // A report tells more of it.
    const { realAddress = update.realAddress } = row;
    this.#update(clientId, { ...update, realAddress });
  }

  #add(row: TableClient): void {
    this.#rows.set(row.clientId, row);
    this.#changes.push({ type: "added", client: row });
  }

  #update(clientId: string, update: RowUpdate): void {
    const previous = this.#rows.get(clientId);
    if (previous === undefined) return;
    const client = updatedRow(previous, update);
    if (client === previous) return;
    this.#rows.set(clientId, client);
    this.#changes.push({ type: "changed", client, previous });
  }

  #remove(row: TableClient): void {
    this.#rows.delete(row.clientId);
    this.#established.delete(row.clientId);
    this.#changes.push({ type: "removed", client: row });
  }

  /** To be called before a report is asked for. */
  beginSnapshot(): ReadonlySet<string> {
    this.#restarted = false;
    return this.#touched = new Set();
  }

  /**
   * Takes a report, when all events that came before it were taken.
   *
   * @throws {ManagementError} `protocol` if it does not tell which clients a server has
   */
  apply({ status, touched }: Snapshot): Applied {
    if (this.#restarted) return "outdated";
    if (status.format === "p2p") {
      throw new ManagementError("protocol", "status: this OpenVPN is no server");
    }
    const seen = new Map<string, StatusClient>();
    for (const client of status.clients) {
      if (client.clientId === undefined) {
        throw new ManagementError("protocol", "status: this OpenVPN does not tell client ids");
      }
      seen.set(client.clientId, client);
    }
    const contradicts = [...this.#rows.values()].some((row) => {
      const client = touched.has(row.clientId) ? undefined : seen.get(row.clientId);
      return client !== undefined && !mayBeSame(row, client);
    });
    if (contradicts) this.#clear();
    let open = contradicts;
    for (const [clientId, client] of seen) {
      // After a contradiction all rows are gone, and the next report brings these.
      if (touched.has(clientId)) open = true;
      else this.#onStatus(clientId, client);
    }
    // One whose line could not be read is not gone.
    if (status.unparsed.length === 0) {
      for (const row of [...this.#rows.values()]) {
        if (!seen.has(row.clientId) && !touched.has(row.clientId)) this.#remove(row);
      }
    }
    if (contradicts) this.#changes.resync("restart");
    return open ? "open" : "done";
  }

  #onStatus(clientId: string, client: StatusClient): void {
    const row = this.#rows.get(clientId);
    const update = statusUpdate(client, row);
    if (row === undefined) this.#add(newRow(++this.#serial, clientId, update));
    else this.#update(clientId, update);
  }

  /** It was told to go. */
  leave({ clientId, serial }: TableClient): void {
    if (this.#rows.get(clientId)?.serial === serial) this.#update(clientId, { state: "leaving" });
  }
}

/** An address of the tunnel; a network or an Ethernet address is none. */
function addressUpdate(address: string): RowUpdate {
  if (address.includes("/") || /^(?:[\da-f]{2}:){5}[\da-f]{2}(?:@\d+)?$/i.test(address)) return {};
  return address.includes(":") ? { virtualAddress6: address } : { virtualAddress: address };
}
