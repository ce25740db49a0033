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
import { abortable, abortError, connectError, toConnectError } from "./_errors.ts";
import { Inbox } from "./_inbox.ts";
import { bindNodeDatagram } from "./_node_datagram.ts";
import { builtin, type NodeServer, type NodeSocket, runtimeGlobal } from "./_node_builtins.ts";
import { NodeRawSocket } from "./_node_socket.ts";
import { openConn } from "./_socket_conn.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { formatAddress, inetAddress, isIP, toAddress, toInetAddress } from "./address.ts";
import type {
  Address,
  Conn,
  ConnectOptions,
  Datagram,
  DatagramOptions,
  InetAddress,
  Listener,
  ListenOptions,
  TlsConnectOptions,
  TlsListenOptions,
  TlsOptions,
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
/** Default of `handshakeTimeoutMs`. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * Connects to `address`; with `tls` it resolves after the handshake and the check of the certificate.
 *
 * @throws {ConnectError} see {@linkcode ConnectErrorCode}; no time limit but that of `signal`
 */
export async function connect(
  address: Address | string,
  options: ConnectOptions = {},
): Promise<Conn> {
  const to = toAddress(address);
  const doing = `connecting to ${formatAddress(to)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in to) checkUnixPath(to.path);

  const target = "path" in to ? { path: to.path } : {
    host: to.hostname,
    port: to.port,
    localAddress: options.localAddress,
  };
  const tls = options.tls === true ? {} : options.tls || undefined;
  let socket: NodeSocket;
  try {
    socket = tls === undefined
      ? builtin("node:net").connect({ ...target, allowHalfOpen: true })
      : builtin("node:tls").connect({ ...target, allowHalfOpen: true, ...clientTls(tls, to) });
  } catch (error) {
    throw toConnectError(error, doing);
  }
  const connected = once(socket, tls === undefined ? "connect" : "secureConnect");
  try {
    await abortable(connected, signal, doing);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  const raw = new NodeRawSocket(socket, "path" in to ? { remote: to.path } : undefined);
  return openConn(raw, options);
}

/** Waits for `event`; an error first rejects. The error listener stays, since late errors must not end the process. */
function once(socket: NodeSocket | NodeServer, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once(event, () => resolve());
    socket.on("error", (error: Error) => reject(error));
    socket.once("close", () => reject(connectError("reset", "waiting for the connection")));
  });
}

function commonTls(tls: TlsOptions): Record<string, unknown> {
  return {
    ...(tls.ca !== undefined && { ca: tls.ca }),
    ...(tls.cert !== undefined && { cert: tls.cert }),
    ...(tls.key !== undefined && { key: tls.key }),
    ...(tls.alpn !== undefined && { ALPNProtocols: tls.alpn }),
    minVersion: tls.minVersion ?? "TLSv1.2",
  };
}

function clientTls(tls: TlsConnectOptions, to: Address): Record<string, unknown> {
  const name = tls.serverName ?? ("path" in to ? undefined : to.hostname);
  if (name === undefined) {
    throw new TypeError(
      `connecting to ${formatAddress(to)}: TLS over a unix socket needs serverName`,
    );
  }
  return {
    ...commonTls(tls),
    // SNI carries no IP literals; `host` is what the certificate is then compared with.
    ...(isIP(name) ? { host: name } : { servername: name }),
    rejectUnauthorized: tls.verify ?? true,
  };
}

function serverTls(tls: TlsListenOptions): Record<string, unknown> {
  return {
    ...commonTls(tls),
    requestCert: tls.requireClientCert ?? false,
    rejectUnauthorized: tls.requireClientCert ?? false,
    handshakeTimeout: tls.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
  };
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
  const at = toAddress(address);
  const doing = `listening on ${formatAddress(at)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in at) {
    const { listener, unlink } = await bindUnix(
      at.path,
      options.mode ?? SOCKET_MODE,
      (path) => startServer({ path }, options, doing),
      async (path) => (await connect({ path }, { signal })).abort(),
      (server) => server.close(),
    );
    return new NodeListener(listener, at, options, unlink);
  }
  const target = { host: at.hostname, port: at.port };
  const server = await startServer(target, options, doing);
  const bound = server.address() as { address: string; port: number };
  return new NodeListener(server, inetAddress(bound.address, bound.port), options);
}

async function startServer(
  target: Record<string, unknown>,
  options: ListenOptions,
  doing: string,
): Promise<NodeServer> {
  let server: NodeServer;
  try {
    server = options.tls === undefined
      ? builtin("node:net").createServer({ allowHalfOpen: true })
      : builtin("node:tls").createServer({ allowHalfOpen: true, ...serverTls(options.tls) });
    await checkDenoPermission(target);
    const listening = once(server, "listening");
    server.listen({
      ...target,
      backlog: options.backlog ?? BACKLOG,
      ...(options.reusePort && { reusePort: true }),
    });
    await abortable(listening, options.signal, doing, () => server.close());
  } catch (error) {
    throw toConnectError(error, doing);
  }
  return server;
}

/**
 * Without the permission, node:net on Deno throws from a later turn, where nobody can catch it, and not as an
 * `error` event; so it is asked first.
 */
async function checkDenoPermission(target: Record<string, unknown>): Promise<void> {
  const deno = runtimeGlobal<DenoPermissions>("Deno");
  if (deno === undefined || typeof target.host !== "string") return;
  const host = formatAddress({ hostname: target.host, port: Number(target.port) });
  const { state } = await deno.permissions.query({ name: "net", host });
  if (state !== "granted") {
    throw connectError("permission", `listening on ${host} (needs --allow-net=${host})`);
  }
}

interface DenoPermissions {
  readonly permissions: { query(descriptor: unknown): Promise<{ readonly state: string }> };
}

class NodeListener implements Listener {
  readonly addr: Address;
  readonly #server: NodeServer;
  readonly #inbox: Inbox<Conn>;
  readonly #unlink: (() => Promise<void>) | undefined;
  #tlsFailures = 0;
  #close: Promise<void> | undefined;

  constructor(
    server: NodeServer,
    addr: Address,
    options: ListenOptions,
    unlink?: () => Promise<void>,
  ) {
    this.addr = addr;
    this.#server = server;
    this.#unlink = unlink;
    this.#inbox = new Inbox(options.maxPending ?? MAX_PENDING_CONNECTIONS, this.#doing);
    const path = "path" in addr ? { local: addr.path } : undefined;
    server.on(
      options.tls === undefined ? "connection" : "secureConnection",
      (socket: NodeSocket) => {
        const conn = openConn(new NodeRawSocket(socket, path), options);
        if (!this.#inbox.push(conn)) conn.abort();
      },
    );
    server.on("tlsClientError", () => this.#tlsFailures++);
    server.on("error", (error: Error) => this.#inbox.fail(toConnectError(error, this.#doing)));
  }

  get #doing(): string {
    return `accepting on ${formatAddress(this.addr)}`;
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
    // The kernel stops listening at once; node's own callback would wait for every connection to end.
    this.#server.close();
    await this.#unlink?.();
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
export function bindDatagram(
  address: InetAddress | string,
  options: DatagramOptions = {},
): Promise<Datagram> {
  return bindNodeDatagram(toInetAddress(address), options);
}

/** This adapter as a value. */
export const node: Transport = { connect, listen, bindDatagram };
