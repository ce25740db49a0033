/**
 * Addresses of UDP.
 *
 * @module
 */
import { parseAddress } from "../adapters/address.ts";
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
  const address = parseAddress(text);
  if ("path" in address) {
    throw new ConnectError("invalid-address", `UDP address ${JSON.stringify(text)}: a path`);
  }
  const hostname = await resolveHost(address.hostname, options);
  return { hostname, port: address.port };
}

/** How long a name's address is used again, in milliseconds. */
const NAME_LIFE_MS = 60_000;
/** How many names are remembered. */
const MAX_NAMES = 1024;

/** Names are resolved once, and then again after a while (spec 4, row 19). */
export class UdpNames {
  readonly #known = new Map<
    string,
    { readonly address: Promise<InetAddress>; readonly at: number }
  >();

  /** @throws {ConnectError} as {@linkcode resolveUdpAddr} @throws {ManagerError} `aborted`, `timeout` */
  resolve(text: string, { family, signal }: ResolveOptions): Promise<InetAddress> {
    // Others may wait for the same name.
    return waitFor(this.#resolve(text, family), signal, `resolving ${JSON.stringify(text)}`);
  }

  #resolve(text: string, family: 4 | 6 | undefined): Promise<InetAddress> {
    const now = performance.now();
    const key = `${family ?? ""} ${text}`;
    const known = this.#known.get(key);
    if (known !== undefined && now - known.at < NAME_LIFE_MS) return known.address;
    const address = resolveUdpAddr(text, { family });
    this.#known.delete(key);
    if (this.#known.size >= MAX_NAMES) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, { address, at: now });
    address.catch(() => {
      if (this.#known.get(key)?.address === address) this.#known.delete(key);
    });
    return address;
  }
}
