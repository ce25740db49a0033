/**
 * Sockets of whichever runtime this is: picks the adapter of Deno, Bun or Node at each call.
 *
 * @example
 * ```ts
 * import { connect, listen } from "@trunkline/sockets/auto";
 *
 * const listener = await listen("127.0.0.1:0");
 * const client = await connect(listener.addr);
 * const served = await listener.accept();
 * await client.write(new TextEncoder().encode("hello"));
 * console.log(new TextDecoder().decode((await served.read())!)); // hello
 * await Promise.all([client.close(), served.close()]);
 * await listener.close();
 * ```
 *
 * @module
 */
import { runtimeGlobal } from "./_node_builtins.ts";
import { bun } from "./bun.ts";
import { deno } from "./deno.ts";
import { node } from "./node.ts";
import type {
  Address,
  Conn,
  ConnectOptions,
  Datagram,
  DatagramOptions,
  InetAddress,
  Listener,
  ListenOptions,
  Transport,
} from "./types.ts";

export * from "./types.ts";
export * from "./activation.ts";
export { formatAddress, parseAddress } from "./address.ts";
export { resolveHost, type ResolveOptions } from "./resolve.ts";
export { connPair, wrapConn, type WrapOptions } from "./wrap.ts";

function transport(): Transport {
  // Node, or a runtime that has node's modules; in any other the calls fail with `unsupported`.
  if (runtimeGlobal("Bun") !== undefined) return bun;
  return runtimeGlobal("Deno") !== undefined ? deno : node;
}

/**
 * Connects to `address`; with `tls` it resolves after the handshake and the check of the certificate.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}; no time limit but that of `signal`
 */
export function connect(address: Address | string, options?: ConnectOptions): Promise<Conn> {
  return transport().connect(address, options);
}

/**
 * Listens on `address`. A unix path gets its socket file with `mode`, takes over a stale one, and never a live one.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}
 */
export function listen(address: Address | string, options?: ListenOptions): Promise<Listener> {
  return transport().listen(address, options);
}

/**
 * Binds a UDP socket to `address`.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}
 */
export function bindDatagram(
  address: InetAddress | string,
  options?: DatagramOptions,
): Promise<Datagram> {
  return transport().bindDatagram(address, options);
}

/** This adapter as a value. */
export const auto: Transport = { connect, listen, bindDatagram };
