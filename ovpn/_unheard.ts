/**
 * Clients of a server that wait for an answer to a `CONNECT` which nobody has heard: OpenVPN does not say it again (spec 5.3.8).
 *
 * @module
 */
import { pause } from "../adapters/pause.ts";
import { LATE_REPLY_RETRY_MS } from "./_late_reply.ts";
import { killOfEra, statusOfEra } from "./_status_kill.ts";
import type { ManagementClient } from "./client.ts";
import { ManagementError } from "./errors.ts";

/** Options of {@linkcode restartUnheard}. */
export interface SearchOptions {
  /** Ends it. */
  readonly signal: AbortSignal;
}

/**
 * Has those clients log in again: they would wait for a minute. `heard` are the CIDs whose `CONNECT` has come. Rejects when `signal` fires. A
 * reply that is late need not end the connection (`onTimeout: "keep"`): then it begins again.
 */
export async function restartUnheard(
  client: ManagementClient,
  heard: ReadonlySet<string>,
  options: SearchOptions,
): Promise<void> {
  for (;;) {
    try {
      return await search(client, heard, options);
    } catch (error) {
      if (!(error instanceof ManagementError && error.code === "timeout")) throw error;
    }
    await pause(LATE_REPLY_RETRY_MS, options.signal);
    options.signal.throwIfAborted();
  }
}

async function search(
  client: ManagementClient,
  heard: ReadonlySet<string>,
  { signal }: SearchOptions,
): Promise<void> {
  const { status, era } = await statusOfEra(client, { signal });
  // All events that came before the report are taken first.
  await new Promise((resolve) => setTimeout(resolve, 0));
  for (const { clientId, username, authenticated } of status.clients) {
    // Without a name there was no CONNECT yet.
    if (clientId === undefined || username === undefined || authenticated !== false) continue;
    if (heard.has(clientId)) continue;
    signal.throwIfAborted();
    try {
      await killOfEra(client, clientId, undefined, { era, signal });
    } catch (error) {
      // Otherwise it has left, or came again.
      if (!(error instanceof ManagementError) || error.code === "timeout") throw error;
    }
  }
}
