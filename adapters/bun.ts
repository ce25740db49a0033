/**
 * Sockets of Bun: its own for TCP, unix streams and UDP, node's built-in modules for TLS and the options that Bun's own calls lack.
 *
 * @example
 * ```ts ignore
 * import { connect, listen } from "@trunkline/sockets/bun";
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
import { bindBunDatagram } from "./_bun_datagram.ts";
import { BunRawSocket, type BunSocket, type BunSocketHandler } from "./_bun_socket.ts";
import { datagramAddress } from "./_datagram.ts";
import { abortable, abortError, connectError, noTls, toConnectError } from "./_errors.ts";
import { checkMaxPending, Inbox } from "./_inbox.ts";
import { runtimeGlobal } from "./_node_builtins.ts";
import { checkOptions } from "./_options.ts";
import { openConn } from "./_socket_conn.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { formatAddress, inetAddress, toAddress } from "./address.ts";
import {
  bindDatagram as nodeBindDatagram,
  connect as nodeConnect,
  listen as nodeListen,
  MAX_PENDING_CONNECTIONS,
} from "./node.ts";
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
export * from "./activation.ts";
export { formatAddress, parseAddress } from "./address.ts";
export { resolveHost, type ResolveOptions } from "./resolve.ts";
export { connPair, wrapConn, type WrapOptions } from "./wrap.ts";

/** The part of Bun's API that is used here. */
interface BunListener {
  readonly hostname: string;
  readonly port: number;
  stop(closeActive?: boolean): void;
}
interface BunLike {
  connect(options: Record<string, unknown>): Promise<BunSocket>;
  listen(options: Record<string, unknown>): BunListener;
}

function bunLike(doing: string): BunLike {
  const bun = runtimeGlobal<BunLike>("Bun");
  if (bun === undefined) throw connectError("unsupported", `${doing} with Bun`);
  return bun;
}

/** Bun calls one handler object for all sockets of a listener; each socket carries its own state in `data`. */
const HANDLER: BunSocketHandler = {
  binaryType: "uint8array",
  data: (socket, chunk) => socket.data?.push(chunk),
  drain: (socket) => socket.data?.drained(),
  end: (socket) => socket.data?.ended(),
  close: (socket, error) => socket.data?.gone(error),
  error: (socket, error) => socket.data?.gone(error),
};

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
  // Bun's own TLS resolves before the handshake, drops what is written before it, and tells no reason for a failure.
  if (options.tls || options.localAddress !== undefined) return nodeConnect(address, options);
  const to = toAddress(address);
  const doing = `connecting to ${formatAddress(to)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in to) checkUnixPath(to.path);
  else if (to.port === 0) throw connectError("invalid-address", doing);
  const target = "path" in to ? { unix: to.path } : to;
  let raw: BunRawSocket | undefined;
  // In a function, because Bun throws some errors at once.
  const open = async () =>
    await bunLike(doing).connect({
      ...target,
      allowHalfOpen: true,
      socket: {
        ...HANDLER,
        // Made here and not when the promise resolves: data may come before that.
        open(socket: BunSocket) {
          raw = socket.data = new BunRawSocket(socket, undefined, "path" in to ? to : undefined);
        },
        // Without it a failed attempt is printed as well.
        connectError() {},
      },
    });
  await abortable(open(), signal, doing, (late) => late.terminate());
  if (raw === undefined) throw connectError("reset", doing);
  return openConn(raw, options);
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
  // No backlog: neither Bun's own listener nor its node:net takes one.
  if (options.tls !== undefined) return nodeListen(address, options);
  const at = toAddress(address);
  const doing = `listening on ${formatAddress(at)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  const bun = bunLike(doing);
  const pending = new Inbox<Conn>(
    options.maxPending ?? MAX_PENDING_CONNECTIONS,
    `accepting on ${formatAddress(at)}`,
  );
  const start = (target: Record<string, unknown>) =>
    bun.listen({
      ...target,
      allowHalfOpen: true,
      ...(options.reusePort && { reusePort: true }),
      socket: {
        ...HANDLER,
        open(socket: BunSocket) {
          const raw = socket.data = new BunRawSocket(socket, "path" in at ? at : undefined);
          const conn = openConn(raw, options);
          if (!pending.push(conn)) conn.abort();
        },
      },
    });
  if ("path" in at) {
    const { listener, unlink } = await bindUnix(
      at.path,
      options.mode ?? SOCKET_MODE,
      (path) => Promise.resolve(start({ unix: path })),
      async (path) => (await connect({ path }, { signal })).abort(),
      (listener) => listener.stop(true),
    );
    return new BunListenerAdapter(listener, at, pending, unlink);
  }
  try {
    const listener = start({ ...at });
    return new BunListenerAdapter(listener, inetAddress(at.hostname, listener.port), pending);
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

class BunListenerAdapter implements Listener {
  readonly addr: Address;
  readonly #listener: BunListener;
  readonly #inbox: Inbox<Conn>;
  readonly #unlink: (() => Promise<void>) | undefined;
  #close: Promise<void> | undefined;

  constructor(
    listener: BunListener,
    addr: Address,
    inbox: Inbox<Conn>,
    unlink?: () => Promise<void>,
  ) {
    this.addr = addr;
    this.#listener = listener;
    this.#inbox = inbox;
    this.#unlink = unlink;
  }

  get dropped(): number {
    return this.#inbox.dropped;
  }
  get closed(): Promise<void> {
    return this.#inbox.closed;
  }

  accept(options?: WaitOptions): Promise<Conn> {
    return this.#inbox.take(options);
  }

  reloadTls(): never {
    throw noTls(this.addr);
  }

  close(): Promise<void> {
    return this.#close ??= this.#doClose();
  }

  async #doClose(): Promise<void> {
    if (this.#unlink !== undefined) await this.#unlink();
    this.#listener.stop(false);
    const closed = connectError("closed", `accepting on ${formatAddress(this.addr)}`);
    for (const conn of this.#inbox.end(closed)) conn.abort();
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
  // Bun's own UDP sockets cannot share an address.
  if (options.reuseAddress || options.reusePort) return await nodeBindDatagram(address, options);
  return await bindBunDatagram(datagramAddress(address), options);
}

/** This adapter as a value. */
export const bun: Transport = { connect, listen, bindDatagram };
