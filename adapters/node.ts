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
import { checkMaxPending, Inbox } from "./_inbox.ts";
import { bindNodeDatagram } from "./_node_datagram.ts";
import { builtin, type NodeServer, type NodeSocket } from "./_node_builtins.ts";
import { NodeRawSocket } from "./_node_socket.ts";
import { clientOptions, createTlsServer, startTls } from "./_node_tls.ts";
import { checkOptions } from "./_options.ts";
import { openConn, type RawSocket } from "./_socket_conn.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { formatAddress, inetAddress, toAddress } from "./address.ts";
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
  WaitOptions,
} from "./types.ts";

export * from "./types.ts";
export { formatAddress, parseAddress } from "./address.ts";
export { connPair, wrapConn, type WrapOptions } from "./wrap.ts";

/** Default of `maxPending`: connections that may wait to be accepted. */
export const MAX_PENDING_CONNECTIONS = 512;
/** Default of `backlog`. */
export const BACKLOG = 511;

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

/** Waits for `event`; an error first rejects. The error listener stays, since late errors must not end the process. */
function once(emitter: NodeSocket | NodeServer, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    emitter.once(event, () => resolve());
    emitter.on("error", (error: Error) => reject(error));
    emitter.once("close", () => reject(connectError("reset", "waiting for the connection")));
  });
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
    return await NodeListener.start(at, { host: at.hostname, port: at.port }, options);
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

class NodeListener implements Listener {
  /** Removes the socket file. */
  unlink: (() => Promise<void>) | undefined;
  #addr: Address;
  readonly #server: NodeServer;
  readonly #inbox: Inbox<Conn>;
  #tlsFailures = 0;
  /** Connections in a TLS handshake, which nobody else would end when the listener closes. */
  readonly #handshaking = new Set<NodeSocket>();
  #close: Promise<void> | undefined;

  private constructor(addr: Address, options: ListenOptions) {
    this.#addr = addr;
    this.#inbox = new Inbox(options.maxPending ?? MAX_PENDING_CONNECTIONS, this.#doing);
    const path = "path" in addr ? { local: addr.path } : undefined;
    const accept = (raw: RawSocket, connection: NodeSocket) => {
      this.#handshaking.delete(connection);
      const conn = openConn(raw, options);
      if (!this.#inbox.push(conn)) conn.abort();
    };
    this.#server = options.tls === undefined
      ? builtin("node:net").createServer({ allowHalfOpen: true })
        .on("connection", (socket: NodeSocket) => accept(new NodeRawSocket(socket, path), socket))
      : createTlsServer(options.tls, path, accept, () => this.#tlsFailures++)
        .on("connection", (socket: NodeSocket) => {
          this.#handshaking.add(socket);
          socket.once("close", () => this.#handshaking.delete(socket));
        });
  }

  /** Starts to listen on `target` for what callers know as `addr`. */
  static async start(
    addr: Address,
    target: Record<string, unknown>,
    options: ListenOptions,
  ): Promise<NodeListener> {
    const doing = `listening on ${formatAddress(addr)}`;
    if (!("path" in addr)) await requireNetPermission(addr, doing);
    const listener = new NodeListener(addr, options);
    const server = listener.#server;
    const listening = once(server, "listening");
    const { backlog = BACKLOG, reusePort } = options;
    server.listen({ ...target, backlog, ...(reusePort && { reusePort }) });
    await abortable(listening, options.signal, doing, () => server.close());
    const bound = server.address();
    if (bound !== null && typeof bound === "object") {
      listener.#addr = inetAddress(bound.address, bound.port);
    }
    server.on(
      "error",
      (error: Error) => listener.#inbox.fail(toConnectError(error, listener.#doing)),
    );
    return listener;
  }

  get addr(): Address {
    return this.#addr;
  }
  get #doing(): string {
    return `accepting on ${formatAddress(this.#addr)}`;
  }
  get dropped(): number {
    return this.#inbox.dropped + this.#tlsFailures;
  }
  get closed(): Promise<void> {
    return this.#inbox.closed;
  }

  accept(options?: WaitOptions): Promise<Conn> {
    return this.#inbox.take(options);
  }

  close(): Promise<void> {
    return this.#close ??= this.#doClose();
  }

  async #doClose(): Promise<void> {
    if (this.unlink !== undefined) await this.unlink();
    // The kernel stops listening at once; node's own callback would wait for every connection to end.
    this.#server.close();
    for (const socket of this.#handshaking) socket.destroy();
    for (const conn of this.#inbox.end(connectError("closed", this.#doing))) conn.abort();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Conn, void> {
    return this.#inbox.iterate();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
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
