/**
 * Sockets by node's built-in modules: `node:net`, `node:tls`, `node:dgram`. For Node 22.18 or newer; it runs on Deno and Bun as
 * well, whose own adapters use parts of it.
 *
 * @example
 * ```ts
 * import { connect, listen } from "@trunkline/sockets/node";
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
import { datagramAddress } from "./_datagram.ts";
import { abortable, abortError, connectError, toConnectError } from "./_errors.ts";
import { requireNetPermission } from "./_deno_permission.ts";
import { checkMaxPending } from "./_inbox.ts";
import { bindNodeDatagram } from "./_node_datagram.ts";
import { builtin } from "./_node_builtins.ts";
import { NodeListener, once } from "./_node_listener.ts";
import { NodeRawSocket } from "./_node_socket.ts";
import { clientOptions, startTls } from "./_node_tls.ts";
import { checkOptions } from "./_options.ts";
import { openConn } from "./_socket_conn.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { formatAddress, toAddress } from "./address.ts";
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
export { BACKLOG, MAX_PENDING_CONNECTIONS } from "./_node_listener.ts";

/**
 * Connects to `address`; with `tls` it resolves after the handshake and the check of the certificate.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}; no time limit but that of `signal`
 */
export async function connect(
  address: Address | string,
  options: ConnectOptions = {},
): Promise<Conn> {
  checkOptions(options);
  const to = toAddress(address);
  const doing = `connecting to ${formatAddress(to)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in to) checkUnixPath(to.path);
  else if (to.port === 0) throw connectError("invalid-address", doing);

  const tls = options.tls && clientOptions(options.tls === true ? {} : options.tls, to);
  const path = "path" in to ? { remote: to.path } : undefined;
  const target = "path" in to
    ? { path: to.path }
    : { host: to.hostname, port: to.port, localAddress: options.localAddress };
  let destroy: (() => void) | undefined;
  try {
    const socket = builtin("node:net").connect({ ...target, allowHalfOpen: true });
    destroy = () => socket.destroy();
    await abortable(once(socket, "connect"), signal, doing);
    if (!tls) return openConn(new NodeRawSocket(socket, path), options);
    const starting = startTls(socket, tls, path);
    destroy = () => starting.destroy();
    return openConn(await abortable(starting.secured, signal, doing), options);
  } catch (error) {
    destroy?.();
    throw toConnectError(error, doing);
  }
}

/**
 * Listens on `address`. A unix path gets its socket file with `mode`, takes over a stale one, and never a live one.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}
 */
export async function listen(
  address: Address | string,
  options: ListenOptions = {},
): Promise<Listener> {
  checkOptions(options);
  checkMaxPending(options.maxPending);
  const at = toAddress(address);
  const doing = `listening on ${formatAddress(at)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in at) {
    const { listener, unlink } = await bindUnix(
      at.path,
      options.mode ?? SOCKET_MODE,
      (path) => NodeListener.start(at, { path }, options),
      async (path) => (await connect({ path }, { signal })).abort(),
      (bound) => bound.close(),
    );
    listener.unlink = unlink;
    return listener;
  }
  try {
    await requireNetPermission(at, doing);
    return await NodeListener.start(at, { host: at.hostname, port: at.port }, options);
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

/**
 * Binds a UDP socket to `address`.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}
 */
export async function bindDatagram(
  address: InetAddress | string,
  options: DatagramOptions = {},
): Promise<Datagram> {
  return await bindNodeDatagram(datagramAddress(address), options);
}

/** This adapter as a value. */
export const node: Transport = { connect, listen, bindDatagram };
