/**
 * A listener of node:net or node:tls.
 *
 * @module
 */
import { abortable, connectError, noTls, toConnectError } from "./_errors.ts";
import { Inbox } from "./_inbox.ts";
import { builtin, type NodeServer, type NodeSocket } from "./_node_builtins.ts";
import { NodeRawSocket, type SocketPath } from "./_node_socket.ts";
import { TlsAcceptor } from "./_node_tls.ts";
import { checkOptions } from "./_options.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { openConn } from "./_socket_conn.ts";
import { formatAddress, inetAddress } from "./address.ts";
import type {
  Address,
  Conn,
  Listener,
  ListenOptions,
  TlsListenOptions,
  WaitOptions,
} from "./types.ts";

/** Default of `maxPending`: connections that may wait to be accepted. */
export const MAX_PENDING_CONNECTIONS = 512;
/** Default of `backlog`. */
export const BACKLOG = 511;

/** Waits for `event`; an error first rejects. The error listener stays, since late errors must not end the process. */
export function once(emitter: NodeSocket | NodeServer, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    emitter.once(event, () => resolve());
    emitter.on("error", (error: Error) => reject(error));
    emitter.once("close", () => reject(connectError("reset", "waiting for the connection")));
  });
}

/** Accepts by events; what nobody took yet waits in an inbox. */
export class NodeListener implements Listener {
  /** Removes the socket file. */
  unlink: (() => Promise<void>) | undefined;
  #addr: Address;
  readonly #doing: string;
  readonly #server: NodeServer;
  readonly #inbox: Inbox<Conn>;
  readonly #tls: TlsAcceptor | undefined;
  #tlsFailures = 0;
  /** Connections in a TLS handshake, which nobody else would end when the listener closes. */
  readonly #handshaking = new Set<NodeSocket>();
  #close: Promise<void> | undefined;

  private constructor(addr: Address, options: ListenOptions, name: string) {
    this.#addr = addr;
    this.#doing = `accepting on ${name}`;
    this.#inbox = new Inbox(options.maxPending ?? MAX_PENDING_CONNECTIONS, this.#doing);
    const accept = (raw: RawSocket, connection: NodeSocket) => {
      this.#handshaking.delete(connection);
      const conn = openConn(raw, options);
      if (!this.#inbox.push(conn)) conn.abort();
    };
    if (options.tls !== undefined) {
      this.#tls = new TlsAcceptor(this.#path, accept, () => this.#tlsFailures++);
      this.#tls.use(options.tls, `listening on ${name}`);
    }
    this.#server = builtin("node:net").createServer({ allowHalfOpen: true })
      .on("connection", (socket: NodeSocket) => {
        // Reset before it was accepted: there is nobody to talk to, and no limit of an address would count it.
        if ("port" in this.#addr && socket.remoteAddress === undefined) return socket.destroy();
        // Of a descriptor it is only known later whether it has a path.
        if (this.#tls === undefined) return accept(new NodeRawSocket(socket, this.#path), socket);
        this.#handshaking.add(socket);
        socket.once("close", () => this.#handshaking.delete(socket));
        this.#tls.shake(socket);
      });
  }

  /** Starts to listen on `target` for what callers know as `addr`, and messages as `name`. */
  static async start(
    addr: Address,
    target: Record<string, unknown>,
    options: ListenOptions,
    name: string = formatAddress(addr),
  ): Promise<NodeListener> {
    const listener = new NodeListener(addr, options, name);
    const server = listener.#server;
    const listening = once(server, "listening");
    const { backlog = BACKLOG, reusePort } = options;
    server.listen({ ...target, backlog, ...(reusePort && { reusePort }) });
    await abortable(listening, options.signal, `listening on ${name}`, () => server.close());
    const bound = server.address();
    // Of a descriptor of a unix socket Node and Deno tell null, Bun an empty object.
    if (bound !== null && typeof bound === "object" && "port" in bound) {
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
  get #path(): SocketPath | undefined {
    return "path" in this.#addr ? { local: this.#addr.path } : undefined;
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

  reloadTls(tls: TlsListenOptions): void {
    if (this.#tls === undefined) throw noTls(this.#addr);
    const doing = `reloading TLS of ${formatAddress(this.#addr)}`;
    if (this.#close !== undefined) throw connectError("closed", doing);
    checkOptions({ tls });
    this.#tls.use(tls, doing);
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
