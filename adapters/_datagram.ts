/**
 * What every UDP socket of this package has in common.
 *
 * @module
 */
import { connectError } from "./_errors.ts";
import { formatAddress, toInetAddress } from "./address.ts";
import type { InetAddress } from "./types.ts";

/** Default of `maxPending`: datagrams that may wait to be received. */
export const MAX_PENDING_DATAGRAMS = 1024;
/** The largest payload of a UDP datagram over IPv4: 65535 less the IP and UDP headers. */
export const MAX_DATAGRAM_BYTES = 65507;

/** Checks a datagram before it is sent; gives the words for an error. */
export function checkDatagram(data: Uint8Array, to: InetAddress, closed: boolean): string {
  const { hostname, port } = toInetAddress(to);
  const doing = `sending ${data.length} bytes to UDP ${formatAddress({ hostname, port })}`;
  if (port === 0) throw connectError("invalid-address", doing);
  if (data.length > MAX_DATAGRAM_BYTES) {
    throw new RangeError(`${doing}: at most ${MAX_DATAGRAM_BYTES} fit`);
  }
  if (closed) throw connectError("closed", doing);
  return doing;
}

/** How often a send is tried again that failed with another datagram's error. */
const STALE_ERROR_TRIES = 3;

/**
 * Calls `send` again where it fails with `ECONNREFUSED`: Bun reports the ICMP answer to an earlier datagram, perhaps to another peer, by
 * failing the next send, which then has not happened.
 */
export async function pastStaleErrors(send: () => Promise<void>): Promise<void> {
  for (let tries = 1;; tries++) {
    try {
      return await send();
    } catch (error) {
      const refused = (error as { code?: unknown }).code === "ECONNREFUSED";
      if (!refused || tries === STALE_ERROR_TRIES) throw error;
    }
  }
}
