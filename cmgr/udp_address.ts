/**
 * Addresses of UDP.
 *
 * @module
 */
import { isIP, parseAddress } from "../adapters/address.ts";
import { resolveHost } from "../adapters/resolve.ts";
import { waitFor } from "./errors.ts";
import { ConnectError, type InetAddress, type WaitOptions } from "../adapters/types.ts";

/** Options of {@linkcode resolveUdpAddr}. */
export interface ResolveOptions extends WaitOptions {
  /** Which addresses a name may have. @default either */
  readonly family?: 4 | 6 | undefined;
}

/**
 * Makes an address of `host:port`, with the IP address of a name; Go's `Xlate_udp_addr`.
 *
 * @throws {ConnectError} `invalid-address`; `not-found` for a name that has no address; `aborted`, `timeout`
 *
 * @example
 * ```ts
 * import { resolveUdpAddr } from "@trunkline/sockets/cmgr";
 *
 * console.log(await resolveUdpAddr("[::1]:53")); // { hostname: "::1", port: 53 }
 * ```
 */
export async function resolveUdpAddr(
  text: string,
  options: ResolveOptions = {},
): Promise<InetAddress> {
  const { hostname, port } = parseUdpAddr(text);
  return { hostname: await resolveHost(hostname, options), port };
}

function parseUdpAddr(text: string): InetAddress {
  const address = parseAddress(text);
  if (!("path" in address)) return address;
  throw new ConnectError("invalid-address", `UDP address ${JSON.stringify(text)}: a path`);
}

/** How long a name's address is used again, in milliseconds. */
const NAME_LIFE_MS = 60_000;
/** How many names are remembered. */
const MAX_NAMES = 1024;

/** Names are resolved once, and then again after a while (spec 4, row 19). */
export class UdpNames {
  readonly #known = new Map<
    string,
    { readonly address: InetAddress | Promise<InetAddress>; readonly at: number }
  >();

  /** @throws {ConnectError} as {@linkcode resolveUdpAddr} @throws {ManagerError} `aborted`, `timeout` */
  resolve(
    text: string,
    { family, signal }: ResolveOptions,
  ): InetAddress | Promise<InetAddress> {
    const address = this.#resolve(text, family);
    // At once for an IP address, so that what is sent there leaves in the order of the calls; for a name others may wait, too.
    if (!(address instanceof Promise)) return address;
    return waitFor(address, signal, `resolving ${JSON.stringify(text)}`);
  }

  #resolve(text: string, family: 4 | 6 | undefined): InetAddress | Promise<InetAddress> {
    const now = performance.now();
    const key = `${family ?? ""} ${text}`;
    const known = this.#known.get(key);
    if (known !== undefined && now - known.at < NAME_LIFE_MS) return known.address;
    const parsed = parseUdpAddr(text);
    const address = isIP(parsed.hostname) ? parsed : resolveUdpAddr(text, { family });
    this.#known.delete(key);
    if (this.#known.size >= MAX_NAMES) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, { address, at: now });
    if (!(address instanceof Promise)) return address;
    address.catch(() => {
      if (this.#known.get(key)?.address === address) this.#known.delete(key);
    });
    return address;
  }
}
