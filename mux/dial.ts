/**
 * Sessions over a connection that one has, or that is made here.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type {
  Address,
  Conn,
  ConnectOptions,
  Duplex,
  Listener,
  ListenOptions,
  Transport,
  WaitOptions,
} from "../adapters/types.ts";
import { type Config, configOf, type MuxOptions } from "./config.ts";
import { Mux } from "./session.ts";

/** Options of {@linkcode dial}. */
export interface MuxDialOptions extends MuxOptions, ConnectOptions {
  /** Where connections come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "connect"> | undefined;
}

/** Options of {@linkcode listen}. */
export interface MuxListenOptions extends MuxOptions, ListenOptions {
  /** Where listeners come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "listen"> | undefined;
}

/**
 * The side that has made the connection, whatever that is: a Conn, or any two streams of bytes. One side is to be the client, the other
 * the server, since they number their streams by that.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { client, server } from "@trunkline/sockets/mux";
 *
 * const [ours, theirs] = connPair();
 * const psk = "32 random bytes are better";
 * const near = client(ours, { psk });
 * const far = server(theirs, { psk });
 * const stream = await near.openStream();
 * await stream.write(new TextEncoder().encode("hello"));
 * const accepted = await far.acceptStream();
 * console.log(new TextDecoder().decode((await accepted.read())!)); // hello
 * await near.close();
 * ```
 *
 * @throws {TypeError} for an option that is missing, or none of what it may be
 * @throws {RangeError} for a limit that is none
 */
export function client(duplex: Duplex | Conn, options: MuxOptions): Mux {
  return new Mux(duplex, true, configOf(options, true));
}

/**
 * The side that was connected to; see {@linkcode client}.
 *
 * @throws {TypeError} for an option that is missing, or none of what it may be
 * @throws {RangeError} for a limit that is none
 */
export function server(duplex: Duplex | Conn, options: MuxOptions): Mux {
  return new Mux(duplex, false, configOf(options, false));
}

/**
 * Connects, and is the client. Whether the psk is right shows later: see `Mux.ready`.
 *
 * @throws {ConnectError} if there is no connection
 */
export async function dial(address: Address | string, options: MuxDialOptions): Promise<Mux> {
  const config = configOf(options, true);
  const conn = await (options.transport ?? auto).connect(address, options);
  try {
    return new Mux(conn, true, config);
  } catch (error) {
    conn.abort(error);
    throw error;
  }
}

/** Accepts sessions. Iterating it yields each; that ends when it is closed. */
export class MuxListener implements AsyncIterable<Mux>, AsyncDisposable {
  readonly #listener: Listener;
  readonly #config: Config;

  /** Takes over a listener. */
  constructor(listener: Listener, options: MuxOptions) {
    this.#listener = listener;
    this.#config = configOf(options, false);
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
   * Waits for the next connection. Whether the client knows the psk shows later.
   *
   * @throws {ConnectError} `closed`, `aborted`, or what `accept` failed with
   */
  async accept(options?: WaitOptions): Promise<Mux> {
    return new Mux(await this.#listener.accept(options), false, this.#config);
  }

  /** Yields each session until the listener is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Mux, void> {
    for await (const conn of this.#listener) yield new Mux(conn, false, this.#config);
  }

  /** Stops listening. Sessions that were accepted live on. */
  close(): Promise<void> {
    return this.#listener.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Listens, and is the server of each that connects.
 *
 * @throws {ConnectError} if that address cannot be listened on
 * @throws {TypeError} for an option that is missing, or none of what it may be
 * @throws {RangeError} for a limit that is none
 */
export async function listen(
  address: Address | string,
  options: MuxListenOptions,
): Promise<MuxListener> {
  // Before there is anything that would have to be closed again. What its owner may wipe by then is copied.
  const { psk } = configOf(options, false);
  const { identity } = options;
  const own: MuxListenOptions = {
    ...options,
    psk,
    onWarning: undefined,
    identity: identity && { privateKey: new Uint8Array(identity.privateKey) },
    knownPeers: Array.isArray(options.knownPeers) ? [...options.knownPeers] : options.knownPeers,
  };
  return new MuxListener(await (options.transport ?? auto).listen(address, options), own);
}
