/**
 * OpenVPN connects to us: `--management IP PORT --management-client`, or with a path and `unix`.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import {
  type Address,
  type Conn,
  ConnectError,
  type Listener,
  type ListenOptions,
  type PeerCredentials,
  type Transport,
  type WaitOptions,
} from "../adapters/types.ts";
import { pause } from "../adapters/pause.ts";
import { type ClientOptions, ManagementClient } from "./client.ts";
import { ManagementError } from "./errors.ts";

/** Options of {@linkcode listen}. */
export interface ManagementListenOptions extends ListenOptions {
  /** Where listeners come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "listen"> | undefined;
}

/** Options of {@linkcode ManagementListener.serve}. */
export interface ServeOptions extends WaitOptions {
  /**
   * Gets what a handler threw and what `accept` failed with; serving goes on. Without it a `ManagementError` of a handler is
   * dropped (the client's `closed` told it), and any other error ends `serve()`, as does what `onError` itself throws.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
}

/** Options of {@linkcode listenAndServe}. */
export interface ListenAndServeOptions extends ManagementListenOptions, ServeOptions {
  /** Hears where it listens, once it does. */
  readonly onListen?: ((addr: Address) => void) | undefined;
}

/** Takes care of one OpenVPN that has connected. It is called for each, and does not hold up the next one. */
export type ConnectionHandler = (connection: IncomingConnection) => void | Promise<void>;

/** How long {@linkcode ManagementListener.serve} waits after `accept` failed (too many open files), in milliseconds. */
const ACCEPT_RETRY_MS = 100;

/**
 * An OpenVPN that has connected, before a byte was read or sent. It waits: open or close it. Closing makes that OpenVPN exit.
 */
export class IncomingConnection {
  readonly #conn: Conn;
  #client: ManagementClient | undefined;
  #closed = false;

  /** Wraps an accepted connection. */
  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /** Where it comes from; `undefined` on a unix socket. */
  get remote(): Address | undefined {
    return this.#conn.remote;
  }

  /** The address that it connected to. */
  get local(): Address | undefined {
    return this.#conn.local;
  }

  /** The process that connected, on a unix socket and where the runtime can tell; see `ListenOptions.credentials`. */
  peerCredentials(): PeerCredentials | undefined {
    return this.#conn.peerCredentials();
  }

  /**
   * Starts the session.
   *
   * @throws {TypeError} if it was opened or closed before
   */
  open(options: ClientOptions = {}): ManagementClient {
    if (this.#client !== undefined) throw new TypeError("this connection is open already");
    if (this.#closed) throw new TypeError("this connection was closed");
    return this.#client = new ManagementClient(this.#conn, options);
  }

  /** Ends the connection, opened or not. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#client?.close() ?? this.#conn.close();
  }
}

/**
 * Accepts OpenVPNs that connect to us. Iterating it yields each; that ends when it is closed.
 *
 * @example
 * ```ts
 * import { connect } from "@trunkline/sockets/auto";
 * import { listen } from "@trunkline/sockets/ovpn";
 *
 * const listener = await listen("127.0.0.1:0");
 * const daemon = await connect(listener.addr); // in life: openvpn --management-client
 * const incoming = await listener.accept();
 * const client = incoming.open();
 * await client.close();
 * await daemon.close();
 * await listener.close();
 * ```
 */
export class ManagementListener implements AsyncIterable<IncomingConnection>, AsyncDisposable {
  readonly #listener: Listener;

  /** Takes over a listener. */
  constructor(listener: Listener) {
    this.#listener = listener;
  }

  /** Where it listens, with the real port. */
  get addr(): Address {
    return this.#listener.addr;
  }

  /** Resolves after `close()`, rejects if the listener broke. Ignoring it is safe. */
  get closed(): Promise<void> {
    return this.#listener.closed;
  }

  /**
   * Waits for the next OpenVPN.
   *
   * @throws {ConnectError} `closed`, `aborted`, or what `accept` failed with
   */
  async accept(options?: WaitOptions): Promise<IncomingConnection> {
    return new IncomingConnection(await this.#listener.accept(options));
  }

  /** Yields each connection until the listener is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<IncomingConnection, void> {
    for await (const conn of this.#listener) yield new IncomingConnection(conn);
  }

  /**
   * Calls `handler` for each OpenVPN that connects; resolves when the listener is closed. What a handler opened lives on after it
   * returns; if it throws, its connection is closed.
   *
   * @throws {ConnectError} `aborted` by `signal`, or what broke the listener
   */
  async serve(handler: ConnectionHandler, { signal, onError }: ServeOptions = {}): Promise<void> {
    const stop = new AbortController();
    let failure: { readonly error: unknown } | undefined;
    const handle = async (connection: IncomingConnection): Promise<void> => {
      try {
        await handler(connection);
      } catch (error) {
        await connection.close().catch(() => {});
        if (onError !== undefined) await onError(error);
        else if (!(error instanceof ManagementError)) throw error;
      }
    };
    const fail = (error: unknown): void => {
      failure ??= { error };
      stop.abort();
    };
    const broken = this.closed.then(() => false, () => true);
    const wait = {
      signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
    };
    for (;;) {
      try {
        handle(await this.accept(wait)).catch(fail);
      } catch (error) {
        if (failure !== undefined) throw failure.error;
        // Closed first and aborted in the same turn is closed.
        const closed = error instanceof ConnectError && error.code === "closed";
        if (wait.signal.aborted && !closed) throw error;
        // Settled by now, if the listener is no more.
        const ended = await Promise.race([broken, pause(ACCEPT_RETRY_MS)]);
        if (ended === false) return;
        if (ended === true) throw error;
        await onError?.(error);
      }
    }
  }

  /** Stops listening. What was accepted lives on. */
  close(): Promise<void> {
    return this.#listener.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Listens for OpenVPNs that connect to us. A unix socket is open to its owner alone, unless `mode` says otherwise.
 *
 * @throws {ConnectError} if that address cannot be listened on
 */
export async function listen(
  address: Address | string,
  options: ManagementListenOptions = {},
): Promise<ManagementListener> {
  return new ManagementListener(await (options.transport ?? auto).listen(address, options));
}

/**
 * Listens, and calls `handler` for each OpenVPN that connects, until `signal` ends it.
 *
 * @throws {ConnectError} `aborted` by `signal`, or what kept it from listening
 */
export async function listenAndServe(
  address: Address | string,
  handler: ConnectionHandler,
  options: ListenAndServeOptions = {},
): Promise<void> {
  const listener = await listen(address, options);
  try {
    options.onListen?.(listener.addr);
    await listener.serve(handler, options);
  } finally {
    await listener.close();
  }
}
