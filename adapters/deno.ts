/**
 * Sockets of Deno: its own for TCP and unix streams, node's built-in modules for TLS, UDP and the options that Deno's own
 * calls lack. Permissions: `--allow-net` for what is connected or listened to; a unix path needs `--allow-read` and
 * `--allow-write` of it as well.
 *
 * @example
 * ```ts
 * import { connect, listen } from "@trunkline/sockets/deno";
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
import { abortable, abortError, connectError, noTls, toConnectError } from "./_errors.ts";
import { checkMaxPending, Inbox } from "./_inbox.ts";
import { runtimeGlobal } from "./_node_builtins.ts";
import { checkOptions } from "./_options.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { openConn } from "./_socket_conn.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { formatAddress, inetAddress, toAddress } from "./address.ts";
import { BACKLOG, bindDatagram, connect as nodeConnect, listen as nodeListen } from "./node.ts";
import type {
  Address,
  Conn,
  ConnectOptions,
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
export { bindDatagram };

/** The part of Deno's API that is used here. */
interface DenoConn {
  readonly localAddr: DenoAddr;
  readonly remoteAddr: DenoAddr;
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
  setNoDelay?(on: boolean): void;
  setKeepAlive?(on: boolean): void;
}
interface DenoAddr {
  readonly hostname?: string;
  readonly port?: number;
  readonly path?: string | null;
}
interface DenoListener {
  readonly addr: DenoAddr;
  accept(): Promise<DenoConn>;
  close(): void;
}
interface DenoLike {
  connect(options: Record<string, unknown>): Promise<DenoConn>;
  listen(options: Record<string, unknown>): DenoListener;
}

function denoLike(doing: string): DenoLike {
  const deno = runtimeGlobal<DenoLike>("Deno");
  if (deno === undefined) throw connectError("unsupported", `${doing} with Deno`);
  return deno;
}

/** First and largest size of the memory that is read into: it grows while reads fill it, so an idle connection holds little. */
const READ_BYTES = { first: 4 * 1024, most: 256 * 1024 } as const;
/** Room below which a new block is taken. */
const LEAST_ROOM = 1024;

class DenoRawSocket implements RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly #conn: DenoConn;
  #size: number = READ_BYTES.first;
  #room = new Uint8Array(0);
  #destroyed = false;

  constructor(conn: DenoConn, local?: Address, remote?: Address) {
    this.#conn = conn;
    this.local = local ?? address(conn.localAddr);
    this.remote = remote ?? address(conn.remoteAddr);
  }

  async read(into?: Uint8Array): Promise<Uint8Array | null> {
    if (into !== undefined) {
      const count = await this.#conn.read(into);
      return count === null ? null : into.subarray(0, count);
    }
    if (this.#room.length < LEAST_ROOM) this.#room = new Uint8Array(this.#size);
    const room = this.#room;
    const count = await this.#conn.read(room);
    if (count === null) return null;
    if (count === room.length) this.#size = Math.min(this.#size * 2, READ_BYTES.most);
    this.#room = room.subarray(count);
    return room.subarray(0, count);
  }

  async write(bytes: Uint8Array): Promise<void> {
    // A write may take a part of the bytes only.
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.#conn.write(sent === 0 ? bytes : bytes.subarray(sent));
    }
  }

  shutdown(): Promise<void> {
    return this.#conn.closeWrite();
  }

  destroy(): void {
    // Closing twice throws BadResource. Deno has no way to reset a connection.
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#conn.close();
  }

  setNoDelay(on: boolean): void {
    this.#conn.setNoDelay?.(on);
  }

  setKeepAlive(on: boolean): void {
    // The idle time cannot be set: it is the system's, 2 hours on Linux.
    this.#conn.setKeepAlive?.(on);
  }

  /** Deno tells no file descriptor; `credentials: true` makes a socket of node:net, which does. */
  peerCredentials(): undefined {}
}

function address({ hostname, port, path }: DenoAddr): Address | undefined {
  if (hostname !== undefined && port !== undefined) return inetAddress(hostname, port);
  return path ? { path } : undefined;
}

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
  // Deno's own connectTls resolves before the certificate is checked and tells nothing of it, and there is no localAddress.
  if (options.tls || options.localAddress !== undefined || options.credentials) {
    return nodeConnect(address, options);
  }
  const to = toAddress(address);
  const doing = `connecting to ${formatAddress(to)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  if ("path" in to) checkUnixPath(to.path);
  else if (to.port === 0) throw connectError("invalid-address", doing);
  // Deno's own `signal` ends the attempt, which would keep the process alive. It is ignored for unix sockets, so ours decides.
  const target = "path" in to
    ? { transport: "unix", path: to.path }
    : { ...to, transport: "tcp", ...(signal && { signal }) };
  const connecting = denoLike(doing).connect(target);
  const conn = await abortable(connecting, signal, doing, (late) => late.close());
  return openConn(new DenoRawSocket(conn, undefined, "path" in to ? to : undefined), options);
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
  // Deno's own TLS cannot ask for client certificates, and its reusePort needs an unstable flag.
  if (options.tls !== undefined || options.reusePort || options.credentials) {
    return nodeListen(address, options);
  }
  const at = toAddress(address);
  // Nor does its listener for unix sockets know a backlog.
  if ("path" in at && options.backlog !== undefined) return nodeListen(at, options);
  const doing = `listening on ${formatAddress(at)}`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  const deno = denoLike(doing);
  if ("path" in at) {
    const { listener, unlink } = await bindUnix(
      at.path,
      options.mode ?? SOCKET_MODE,
      (path) => Promise.resolve(deno.listen({ transport: "unix", path })),
      async (path) => (await connect({ path }, { signal })).abort(),
      (listener) => listener.close(),
    );
    return new DenoListenerAdapter(listener, at, options, unlink);
  }
  try {
    const listener = deno.listen({
      ...at,
      transport: "tcp",
      tcpBacklog: options.backlog ?? BACKLOG,
    });
    const { hostname = at.hostname, port = at.port } = listener.addr;
    return new DenoListenerAdapter(listener, inetAddress(hostname, port), options);
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

class DenoListenerAdapter implements Listener {
  readonly addr: Address;
  /** Never counts: what nobody accepts stays with the kernel. */
  readonly dropped = 0;
  readonly #listener: DenoListener;
  readonly #options: ListenOptions;
  readonly #inbox: Inbox<Conn>;
  readonly #unlink: (() => Promise<void>) | undefined;
  #accepting: Promise<void> | undefined;
  #close: Promise<void> | undefined;

  constructor(
    listener: DenoListener,
    addr: Address,
    options: ListenOptions,
    unlink?: () => Promise<void>,
  ) {
    this.addr = addr;
    this.#listener = listener;
    this.#options = options;
    this.#unlink = unlink;
    // One connection can come for a waiter that has gone; it is kept for the next.
    this.#inbox = new Inbox(1, this.#doing);
  }

  get #doing(): string {
    return `accepting on ${formatAddress(this.addr)}`;
  }
  get closed(): Promise<void> {
    return this.#inbox.closed;
  }

  accept(options?: WaitOptions): Promise<Conn> {
    const taken = this.#inbox.take(options);
    if (this.#inbox.wanted) this.#accepting ??= this.#acceptWanted();
    return taken;
  }

  async #acceptWanted(): Promise<void> {
    try {
      while (this.#inbox.wanted) {
        const accepted = await this.#listener.accept().catch(unlessGone);
        if (accepted === undefined) continue;
        const unix = "path" in this.addr ? this.addr : undefined;
        const conn = openConn(new DenoRawSocket(accepted, unix), this.#options);
        if (!this.#inbox.push(conn)) conn.abort();
      }
    } catch (error) {
      // Too many open files, say: told to those who wait, and tried again at the next call.
      this.#inbox.fail(toConnectError(error, this.#doing));
    }
    this.#accepting = undefined;
  }

  reloadTls(): never {
    throw noTls(this.addr);
  }

  close(): Promise<void> {
    return this.#close ??= this.#doClose();
  }

  async #doClose(): Promise<void> {
    if (this.#unlink !== undefined) await this.#unlink();
    this.#listener.close();
    for (const conn of this.#inbox.end(connectError("closed", this.#doing))) conn.abort();
    // The port is free only after a pending accept has been rejected.
    await this.#accepting;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Conn, void> {
    return this.#inbox.iterate(() => this.accept());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A client that was gone before it was accepted is its own trouble, and not that of the listener. */
function unlessGone(error: { readonly code?: unknown }): undefined {
  if (error.code !== "ENOTCONN" && error.code !== "ECONNABORTED") throw error;
}

/** This adapter as a value. */
export const deno: Transport = { connect, listen, bindDatagram };
