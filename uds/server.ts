/**
 * Answers calls.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import type { Conn, Duplex, Listener, Transport, WaitOptions } from "../adapters/types.ts";
import { listenAt } from "./_transport.ts";
import { Served } from "./_served.ts";
import { needsCredentials } from "./admission.ts";
import { UdsError } from "./errors.ts";
import { interceptedHandler, type ServerInterceptor } from "./interceptor.ts";
import {
  DESCRIBE,
  encodeDescription,
  type MethodDescription,
  plainDescription,
  type ServiceDescription,
} from "./description.ts";
import type { Handler, Registered, StreamHandler } from "./context.ts";
import { type ServerOptions, type ServerSettings, serverSettings } from "./server_options.ts";

/** Options of {@linkcode Server}. */
export interface ListenServerOptions extends ServerOptions {
  /** Permission bits of the socket file. For more than our own user there is `authorize`, too. @default 0o600 */
  readonly mode?: number | undefined;
  /**
   * Where listeners come from, or `unixgram` for clients of the Go package itself: on Deno with `--unstable-net`, and on Bun. Nothing is said
   * then that it does not know, and answers have at most about 4090 bytes. @default the adapter of the runtime
   */
  readonly transport?: Pick<Transport, "listen"> | "unixgram" | undefined;
}

/** Options of {@linkcode Server.close}. */
export interface CloseServerOptions {
  /** How long calls that were begun may take, in milliseconds; then they are answered with `closing`. @default 5000 */
  readonly graceMs?: number | undefined;
}

/**
 * Answers calls, over its own socket, listeners and connections that one has, or several of these.
 *
 * 1. Each call is answered once: by its handler, or by an error that says why not. A client that goes, a cancelled call and a deadline fire the
 *    `signal` of the handler's context.
 * 2. Messages of the Go package are answered as it would; what else a client of ours says it says after a call of `uds.hello`.
 * 3. A client that breaks the protocol, or a limit of it, loses its connection, and no other client notices.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { dialServer, Server } from "@trunkline/sockets/uds";
 *
 * const server = new Server(undefined); // in life: new Server("my-service"), and start()
 * server.register("Echo", (request) => request.data);
 * const [ours, theirs] = connPair();
 * server.serveConn(theirs);
 * const client = await dialServer(ours); // in life: dialServer("my-service")
 * console.log(await client.call("Echo", new Uint8Array([1, 2]))); // 1, 2
 * await client.close();
 * await server.close();
 * ```
 */
export class Server implements AsyncDisposable {
  readonly #name: string | undefined;
  readonly #settings: ServerSettings;
  readonly #transport: ListenServerOptions["transport"];
  readonly #mode: number | undefined;
  readonly #interceptors: readonly ServerInterceptor[];
  readonly #handlers = new Map<string, Registered>();
  readonly #clients = new Set<Served>();
  readonly #listeners = new Set<Listener>();
  #closed = false;

  /**
   * Makes a server; it does nothing before `start()`, `serve()` or `serveConn()`. `name` is a name, a path or an abstract name, see
   * {@linkcode socketAddress}; none for one that only serves what it is given.
   *
   * @throws {RangeError} if a limit is not positive
   */
  constructor(
    name: string | undefined,
    options: ListenServerOptions = {},
  ) {
    this.#name = name;
    this.#settings = serverSettings(options, options.transport !== "unixgram");
    this.#transport = options.transport;
    this.#mode = options.mode;
    this.#interceptors = options.interceptors ?? [];
  }

  /**
   * Adds a handler; `description` is what `describe()` tells of it.
   *
   * @throws {TypeError} if there is one of that name, or it begins with `uds.`
   */
  register(name: string, handler: Handler, description?: MethodDescription): void {
    this.#own(name, { call: handler, description });
  }

  /** Adds a handler of streams, to which clients of ours come by `stream()`. @throws {TypeError} as `register` */
  registerStream(name: string, handler: StreamHandler, description?: MethodDescription): void {
    this.#own(name, { stream: handler, description });
  }

  /** What handlers there are. From the first call on clients that ask by {@linkcode Client.describe} are told, too. */
  describe(): ServiceDescription {
    if (!this.#handlers.has(DESCRIBE)) {
      this.#add(DESCRIBE, { call: () => encodeDescription(this.describe()) });
    }
    const handlers = [...this.#handlers].filter(([name]) => name !== DESCRIBE);
    return {
      handlers: handlers.map(([name, { description, stream }]) => ({
        name,
        ...(description ?? plainDescription(stream !== undefined)),
      })),
    };
  }

  #own(name: string, handler: Registered): void {
    if (name.startsWith("uds.")) throw new TypeError(`names like ${name} are reserved`);
    this.#add(name, handler);
  }

  #add(name: string, handler: Registered): void {
    if (typeof name !== "string") throw new TypeError("the name of a handler is no text");
    if (typeof (handler.call ?? handler.stream) !== "function") {
      throw new TypeError(`the handler of ${JSON.stringify(name)} is no function`);
    }
    if (this.#handlers.has(name)) {
      throw new TypeError(`cannot register name ${JSON.stringify(name)} twice`);
    }
    this.#handlers.set(name, interceptedHandler(this.#interceptors, handler));
  }

  /**
   * Begins to listen at its name. A socket file is open to its owner alone, unless `mode` says otherwise.
   *
   * @throws {ConnectError} `in-use`, `permission`, ..., also of `tokenFile`; @throws {TypeError} if it has no name
   * @throws {UdsError} `unsupported` for what cannot be had: `peerCred` here, a token over `unixgram`; `closed` after `close()`
   */
  async start({ signal }: WaitOptions = {}): Promise<void> {
    this.#requireOpen();
    if (this.#name === undefined) throw new TypeError("this server has no name to listen at");
    // A file that is not there is told now, and not to clients.
    await this.#settings.token?.();
    const listener = await listenAt(this.#name, this.#transport, this.#settings, {
      signal,
      mode: this.#mode,
      maxPeers: this.#settings.maxClients,
    });
    // Closed meanwhile.
    if (this.#closed) {
      await listener.close();
      this.#requireOpen();
    }
    this.serve(listener).catch((error) => this.#settings.onError?.(error));
  }

  #requireOpen(): void {
    if (this.#closed) throw new UdsError("closed", "the server is closed");
  }

  /**
   * Serves whoever connects to a listener, which is closed with the server; resolves then, and rejects if the listener breaks. For `peerCred`
   * its connections have to tell who is at the other end: Deno's do if it listens with `credentials: true`.
   *
   * @throws {UdsError} `unsupported` if `peerCred` is `require` and cannot be had here
   */
  async serve(listener: Listener): Promise<void> {
    needsCredentials(this.#settings);
    this.#listeners.add(listener);
    try {
      if (this.#closed) return await listener.close();
      for await (const conn of listener) this.serveConn(conn);
    } finally {
      this.#listeners.delete(listener);
    }
  }

  /** Serves one connection, which is closed with the server. */
  serveConn(duplex: Duplex | Conn): void {
    const client = new Served(duplex, this.#handlers, this.#settings);
    this.#clients.add(client);
    client.closed.then(() => this.#clients.delete(client));
    if (this.#closed || this.#clients.size > this.#settings.maxClients) client.close(0);
  }

  /** Stops listening, lets calls that were begun be answered, and ends all connections. */
  async close({ graceMs = 5000 }: CloseServerOptions = {}): Promise<void> {
    if (graceMs !== 0) requireLimit("graceMs", graceMs);
    this.#closed = true;
    await Promise.all([
      ...[...this.#listeners].map((listener) => listener.close()),
      ...[...this.#clients].map((client) => client.close(graceMs)),
    ]);
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
