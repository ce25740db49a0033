/**
 * What every UDP socket of this package has in common.
 *
 * @module
 */
import { connectError } from "./_errors.ts";
import { formatAddress, inetAddress, isIP, isIPv6, toAddress } from "./address.ts";
import { resolveHost } from "./resolve.ts";
import { ConnectError, type InetAddress } from "./types.ts";

/** Default of `maxPending`: datagrams that may wait to be received. */
export const MAX_PENDING_DATAGRAMS = 1024;
/** The largest payload of a UDP datagram over IPv4: 65535 less the IP and UDP headers. */
export const MAX_DATAGRAM_BYTES = 65507;

/** Checks an address that a caller gave in either form. */
export function datagramAddress(address: InetAddress | string): InetAddress {
  const at = toAddress(address);
  // Mapped addresses (::ffff:127.0.0.1) are IPv4 to whoever asks us, and IPv6 to sockets alone.
  if (!("path" in at)) return inetAddress(at.hostname, at.port);
  throw new ConnectError("invalid-address", `UDP at ${formatAddress(at)}: a path is for streams`);
}

/** Checks a datagram before it is sent; gives its target, and the words for an error. */
export function checkDatagram(
  data: Uint8Array,
  address: InetAddress | string,
  closed: boolean,
): { readonly to: InetAddress; readonly doing: string } {
  const to = datagramAddress(address);
  if (!(data instanceof Uint8Array)) {
    throw new TypeError(`sending to UDP ${formatAddress(to)}: the data is no Uint8Array`);
  }
  const doing = `sending ${data.length} bytes to UDP ${formatAddress(to)}`;
  if (to.port === 0) throw connectError("invalid-address", doing);
  if (data.length > MAX_DATAGRAM_BYTES) {
    throw new RangeError(`${doing}: at most ${MAX_DATAGRAM_BYTES} fit`);
  }
  if (closed) throw connectError("closed", doing);
  return { to, doing };
}

/**
 * The IP literal that a socket bound to `bound` has to be given for `host`: Bun takes no names, and Node's dual-stack sockets
 * (bound to `::`) no plain IPv4. No promise where nothing has to be looked up.
 */
export function targetLiteral(
  bound: InetAddress,
  host: string,
  doing: string,
): string | Promise<string> {
  const six = isIPv6(bound.hostname);
  const dual = bound.hostname === "::";
  const literal = (ip: string): string => {
    if (isIPv6(ip) === six) return ip;
    if (dual) return `::ffff:${ip}`;
    throw connectError("unreachable", doing);
  };
  if (isIP(host)) return literal(host);
  return resolveHost(host, { family: dual ? undefined : six ? 6 : 4 }).then(literal);
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
