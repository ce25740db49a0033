/**
 * The text forms of an {@linkcode Address}. No runtime is needed here.
 *
 * @module
 */
import { type Address, ConnectError, type InetAddress, type UnixAddress } from "./types.ts";

/** A host name or IPv4 literal: none of the characters that would end it in `host:port` or a URL, and no control. */
const HOST = /^[^\s/\\[\]:@?#%\p{Cc}]+$/u;
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}$/;
const ZONE = /^[\w.-]+$/;

function invalid(text: string, why: string): ConnectError {
  return new ConnectError("invalid-address", `address ${JSON.stringify(text)}: ${why}`);
}

/** True if `host` is an IPv6 literal, with or without a zone id. */
export function isIPv6(host: string): boolean {
  const [literal = "", zone, ...more] = host.split("%");
  if (!literal.includes(":") || more.length > 0) return false;
  if (zone !== undefined && !ZONE.test(zone)) return false;
  return URL.canParse(`http://[${literal}]/`);
}

/** True if `host` is an IPv4 or IPv6 literal, so that no name has to be resolved. */
export function isIP(host: string): boolean {
  return IPV4.test(host) || isIPv6(host);
}

/** A host name or IP literal, or an error that shows `text`. */
export function checkHost(host: string, text: string = host): string {
  if (typeof host !== "string") throw invalid(String(host), "a hostname is needed");
  if (host.includes(":")) {
    if (!isIPv6(host)) throw invalid(text, "not an IPv6 literal");
  } else if (!HOST.test(host)) {
    throw invalid(text, "not a host name or IP literal");
  } else if (/^[\d.]+$/.test(host) && !IPV4.test(host)) {
    // Resolvers read "127.1" and "010.0.0.1" as something other than what a person sees.
    throw invalid(text, "not an IPv4 literal");
  }
  return host;
}

function checkPath(path: string): string {
  if (path === "" || path === "\0") throw invalid(path, "the path is empty");
  if (path.includes("\0", 1)) throw invalid(path, "the path holds a NUL");
  return path;
}

/**
 * Reads an address: `127.0.0.1:7505`, `name:7505`, `[::1]:7505`, `[fe80::1%eth0]:7505`, `/run/x.sock`,
 * `unix:relative.sock`, and `unix:@name` (or `"\0name"`) for a Linux abstract name.
 *
 * @throws {ConnectError} `invalid-address` for anything else
 *
 * @example
 * ```ts
 * import { parseAddress } from "@trunkline/sockets/auto";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseAddress("[::1]:7505"), { hostname: "::1", port: 7505 });
 * assertEquals(parseAddress("unix:relative.sock"), { path: "relative.sock" });
 * ```
 */
export function parseAddress(text: string): Address {
  if (typeof text !== "string") throw invalid(String(text), "not a string");
  if (text.startsWith("/") || text.startsWith("\0")) return { path: checkPath(text) };
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    return { path: checkPath(path.startsWith("@") ? `\0${path.slice(1)}` : path) };
  }
  const [, bracketed, plain, digits = ""] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === "" || port > 65535) {
    throw invalid(text, "expected host:port, [IPv6]:port, /path or unix:path");
  }
  if (bracketed !== undefined && !isIPv6(bracketed)) throw invalid(text, "not an IPv6 literal");
  return { hostname: checkHost(bracketed ?? plain ?? "", text), port };
}

/**
 * Writes an address so that {@linkcode parseAddress} reads the same one back.
 *
 * @example
 * ```ts
 * import { formatAddress } from "@trunkline/sockets/auto";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatAddress({ hostname: "::1", port: 7505 }), "[::1]:7505");
 * assertEquals(formatAddress({ path: "\0name" }), "unix:@name");
 * ```
 */
export function formatAddress(address: Address): string {
  if ("path" in address) {
    const { path } = address;
    if (path.startsWith("/")) return path;
    if (path.startsWith("\0")) return `unix:@${path.slice(1)}`;
    return path.startsWith("@") ? `unix:./${path}` : `unix:${path}`;
  }
  const { hostname, port } = address;
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/** Checks an address that a caller gave in either form. */
export function toAddress(address: Address | string): Address {
  if (typeof address === "string") return parseAddress(address);
  if (typeof address !== "object" || address === null) {
    throw new TypeError(`an address is text or an object, not ${address}`);
  }
  if ("path" in address) return { path: checkPath((address as UnixAddress).path) };
  return toInetAddress(address);
}

/** Like {@linkcode toAddress}, for UDP, which has no paths here. */
export function toInetAddress(address: InetAddress | string): InetAddress {
  const { hostname, port } =
    (typeof address === "string" ? parseAddress(address) : address) as InetAddress;
  const text = `${hostname}:${port}`;
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw invalid(text, "the port is not 0 to 65535");
  }
  return { hostname: checkHost(hostname, text), port };
}

/** An address as a runtime reports it; a v4 peer of a dual-stack socket loses its `::ffff:`. */
export function inetAddress(hostname: string, port: number): InetAddress {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(hostname);
  return { hostname: mapped?.[1] ?? hostname, port };
}
