/**
 * The status report of a simulated OpenVPN.
 *
 * @module
 */
import type { ServedClient } from "./testing_served_client.ts";
import { type Core, leadingInteger } from "./testing_core.ts";

const CLIENT_COLUMNS =
  "Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher";
const ROUTE_COLUMNS = "Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)";

/** The lines of `status format`, up to `END` or one `ERROR:`. */
export function statusLines(
  core: Core,
  clients: readonly ServedClient[],
  format: string | undefined,
): string[] {
  const version = format === undefined ? 1 : leadingInteger(format);
  const now = core.now();
  // The number is for servers.
  if (!core.server) return peerToPeer(core, now);
  if (version === 1) return [...firstFormat(clients, now), "END"];
  if (version !== 2 && version !== 3) return ["ERROR: bad status format version number"];
  // Nothing is escaped (spec 1.6).
  const row = (...values: (string | number)[]) => values.join(version === 2 ? "," : "\t");
  return [
    row("TITLE", core.title),
    row("TIME", asciiTime(now), now),
    row("HEADER", "CLIENT_LIST", ...CLIENT_COLUMNS.split(",")),
    ...clients.map((client) =>
      row(
        "CLIENT_LIST",
        client.commonName,
        client.realAddress,
        client.virtualAddress,
        client.virtualAddress6,
        client.bytesIn,
        client.bytesOut,
        asciiTime(client.since),
        client.since,
        client.username ?? "UNDEF",
        client.clientId,
        client.clientId,
        client.established ? "AES-256-GCM" : "BF-CBC",
      )
    ),
    row("HEADER", "ROUTING_TABLE", ...ROUTE_COLUMNS.split(",")),
    ...routes(clients).map(([address, { commonName, realAddress, since }]) =>
      row("ROUTING_TABLE", address, commonName, realAddress, asciiTime(since), since)
    ),
    row("GLOBAL_STATS", "Max bcast/mcast queue length", 0),
    row("GLOBAL_STATS", "dco_enabled", 0),
    "END",
  ];
}

/** Seconds since 1970 as a report shows them. A real one shows local time. */
export function asciiTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
}

function routes(clients: readonly ServedClient[]): [string, ServedClient][] {
  return clients.flatMap((client) =>
    [client.virtualAddress6, client.virtualAddress]
      .filter((address) => address !== "")
      .map((address): [string, ServedClient] => [address, client])
  );
}

function firstFormat(clients: readonly ServedClient[], now: number): string[] {
  return [
    "OpenVPN CLIENT LIST",
    `Updated,${asciiTime(now)}`,
    "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since",
    ...clients.map(({ commonName, realAddress, bytesIn, bytesOut, since }) =>
      [commonName, realAddress, bytesIn, bytesOut, asciiTime(since)].join(",")
    ),
    "ROUTING TABLE",
    "Virtual Address,Common Name,Real Address,Last Ref",
    ...routes(clients).map(([address, { commonName, realAddress, since }]) =>
      [address, commonName, realAddress, asciiTime(since)].join(",")
    ),
    "GLOBAL STATS",
    "Max bcast/mcast queue length,0",
  ];
}

function peerToPeer({ bytesIn, bytesOut }: Core, now: number): string[] {
  return [
    "OpenVPN STATISTICS",
    `Updated,${asciiTime(now)}`,
    "TUN/TAP read bytes,0",
    "TUN/TAP write bytes,0",
    `TCP/UDP read bytes,${bytesIn}`,
    `TCP/UDP write bytes,${bytesOut}`,
    "Auth read bytes,0",
    "END",
  ];
}
