/**
 * A status report, and kills of the clients in it: after a restart their CIDs belong to others.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import type { ManagementClient } from "./client.ts";
import { type Decide, order, sendDecided } from "./client_core.ts";
import { StatusFormat } from "./commands_general.ts";
import { ManagementError } from "./errors.ts";
import { parseStatus, type Status } from "./status.ts";

/** A report, and for how long its CIDs are good. */
export interface StatusOfEra {
  readonly status: Status;
  /** See `ClientRegistry.era`. */
  readonly era: object | undefined;
}

/** As `client.status()`. */
export async function statusOfEra(
  client: ManagementClient,
  options: WaitOptions,
): Promise<StatusOfEra> {
  let era: object | undefined;
  const ask: Decide = (_, clients) => {
    era = clients.era;
    return order(["status", StatusFormat.V3]);
  };
  const { lines } = await sendDecided(client, "status", ask, options);
  return { status: parseStatus(lines), era };
}

/**
 * As `client.clientKill()`, but of a client in that report: neither over another connection nor after a restart, even one that came
 * with what OpenVPN said last, of which only the connection knows yet.
 *
 * @throws {ManagementError} `stale`
 */
export async function killOfEra(
  client: ManagementClient,
  clientId: string,
  message: string | undefined,
  { era, signal }: WaitOptions & Pick<StatusOfEra, "era">,
): Promise<void> {
  const decide: Decide = (_, clients) => {
    if (clients.era !== era) {
      throw new ManagementError("stale", "client-kill: OpenVPN has restarted");
    }
    return order(["client-kill", clientId], message === undefined ? [] : [message]);
  };
  await sendDecided(client, "client-kill", decide, {
    signal,
    // The report has told whose it is now.
    allow: ["reused-client", "ended-client"],
  });
}
