/**
 * Where a listener or a UDP socket is to be.
 *
 * @module
 */
import { isIP, isIPv6, parseAddress } from "../adapters/address.ts";
import { requireChoice } from "../adapters/limits.ts";
import {
  type Address,
  ConnectError,
  type InetAddress,
  type UnixAddress,
} from "../adapters/types.ts";

/** What a manager listens by: `tcp4` takes IPv4 alone, `tcp6` IPv6 alone, `tcp` and `tls` both; so do those of UDP. */
export type ListenKind = "tcp" | "tcp4" | "tcp6" | "tls" | "unix" | "udp" | "udp4" | "udp6";

const KINDS: readonly ListenKind[] = [
  "tcp",
  "tcp4",
  "tcp6",
  "tls",
  "unix",
  "udp",
  "udp4",
  "udp6",
];

/** @throws {TypeError} */
export function requireKind(kind: ListenKind): void {
  requireChoice("kind", kind, KINDS);
}

/** The family that alone is taken. */
export function familyOf(kind: ListenKind): 4 | 6 | undefined {
  return kind.endsWith("4") ? 4 : kind.endsWith("6") ? 6 : undefined;
}

/** A port as callers write it: a number, its digits, `any` for a free one; `undefined` for none: `""`, 0. @throws {RangeError} */
export function portOf(port: number | string): number | undefined {
  if (port === "any") return 0;
  const number = port === "" ? 0 : /^\d{1,5}$/.test(`${port}`) ? Number(port) : NaN;
  if (Number.isInteger(number) && number >= 0 && number <= 65535) return number || undefined;
  throw new RangeError(`port is ${JSON.stringify(port)}, expected 1 to 65535, or "any"`);
}

/** The path of a unix socket, which may stand in either place. @throws {ConnectError} if there is none */
export function pathOf(port: number | string, iface: string): string {
  const path = iface !== "" ? iface : typeof port === "string" && port !== "any" ? port : "";
  if (path.startsWith("unix:")) return (parseAddress(path) as UnixAddress).path;
  if (path !== "") return path;
  throw new ConnectError("invalid-address", "listening by unix: the path is missing");
}

/**
 * Opens at `iface`, or at every address: by IPv6, which takes IPv4 as well, and where there is no IPv6 by IPv4.
 */
export async function bindAt<T>(
  kind: ListenKind,
  iface: string,
  port: number,
  open: (address: InetAddress) => Promise<T>,
): Promise<T> {
  const family = familyOf(kind);
  if (family !== undefined && isIP(iface) && isIPv6(iface) !== (family === 6)) {
    const text = `listening by ${kind}: ${iface} is no address of IPv${family}`;
    throw new ConnectError("invalid-address", text);
  }
  if (iface !== "") return await open({ hostname: iface, port });
  if (family === 4) return await open({ hostname: "0.0.0.0", port });
  try {
    return await open({ hostname: "::", port });
  } catch (error) {
    if (family === 6 || !lacksIpv6(error)) throw error;
    return await open({ hostname: "0.0.0.0", port });
  }
}

function lacksIpv6(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  const { code } = (error.cause ?? {}) as { code?: unknown };
  return error.code === "unreachable" || code === "EAFNOSUPPORT";
}

/** The family of the addresses that a socket at `address` can reach; either if it is at every address. */
export function reachOf(address: Address): 4 | 6 | undefined {
  if ("path" in address || address.hostname === "::") return undefined;
  return address.hostname.includes(":") ? 6 : 4;
}
