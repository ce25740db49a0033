/**
 * One manager for all connections of a daemon.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import { requireLimit } from "../adapters/limits.ts";
import type {
  Address,
  Conn,
  Duplex,
  InetAddress,
  Listener,
  TlsListenOptions,
  Transport,
  WaitOptions,
} from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { Accepting } from "./_accepting.ts";
import {
  bindAt,
  familyOf,
  type ListenKind,
  pathOf,
  portOf,
  reachOf,
  requireKind,
} from "./_binding.ts";
import { encodeText } from "./_bytes.ts";
import { ConnSession } from "./_conn_session.ts";
import { type Outlet, outletOf } from "./_host.ts";
import { openWithin } from "./_opening.ts";
import { requireId, Roster } from "./_roster.ts";
import { openMulticast, openUdp } from "./_udp_opening.ts";
import { DatagramSession, type DatagramSessionInit } from "./_udp_session.ts";
import { broadcast, type BroadcastOptions, type BroadcastResult } from "./broadcast.ts";
import { Channel, type Sink } from "./channel.ts";
import { attempt, ManagerError } from "./errors.ts";
import {
  type CloseIdOptions,
  type ConnectSessionOptions,
  connOptions,
  definedOf,
  type ListenerOptions,
  listenerSettings,
  type ManagerOptions,
  type OpenManagerOptions,
  reconnectSettings,
  refuseTls,
  requireManagerOptions,
  type SessionOptions,
  sessionSettings,
  type ShutdownOptions,
  tlsOptions,
} from "./options.ts";
import type { Session, StreamSession } from "./session.ts";
import { type ManagerStats, statsLines } from "./stats.ts";
import { UdpNames } from "./udp_address.ts";

/** Default of `timeoutMs`. */
export const CONNECT_TIMEOUT_MS = 30_000;
/** Default of `graceMs`. */
export const GRACE_MS = 5000;

/**
 * Listens, connects, and tells everything that happens through one channel, with sessions addressed by name (spec 4).
 *
 * 1. Events of a session come in order: `accepted` if a listener took it, `new`, its data, and exactly one `disconnected`, the last.
 * 2. Who does not take events slows the peers whose events they are, and no others; who does not read what we write fills a bounded queue.
 * 3. An id belongs to one session of the manager at a time, and is free when that has ended; the event's `session` stays what it was.
 * 4. Nobody need wait for a `write()` or a `close()`: that the peer is gone is told by `disconnected`, and is no unhandled rejection. A write that
 *    a full queue refuses is counted in `stats()`.
 *
 * @example
 * ```ts
 * import { ConnectionManager } from "@trunkline/sockets/cmgr";
 *
 * const manager = await ConnectionManager.open({ port: "any" });
 * const { port } = manager.address("l0") as { port: number };
 * await manager.connect(`127.0.0.1:${port}`, "me");
 * await manager.writeStr("me", "hello");
 * for await (const event of manager.events) {
 *   console.log(event.state, event.id); // new me, accepted a1, new a1, data a1
 *   if (event.state === "data") break;
 * }
 * await manager.shutdown();
 * ```
 */
export class ConnectionManager implements AsyncDisposable {
  /** The events of whatever was given no sink of its own. It ends after `shutdown()`, with the last of them. */
  readonly events: Channel;
  readonly #options: ManagerOptions;
  readonly #transport: Transport;
  readonly #roster: Roster;
  readonly #names = new UdpNames();
  readonly #stop = new AbortController();
  /** Ends what `shutdown()` waits for. */
  readonly #hurry = new AbortController();
  #shutdown: Promise<void> | undefined;

  /**
   * Makes a manager that does nothing yet; its options are the defaults of its listeners and connections.
   *
   * @throws {RangeError | TypeError} if an option is none
   */
  constructor(options: ManagerOptions = {}) {
    this.#options = options;
    this.#transport = options.transport ?? auto;
    this.events = new Channel(options.capacity);
    requireManagerOptions(options);
    this.#roster = new Roster(options, (error) => this.#onError(error));
  }

  /** Makes one that listens; Go's `NewManager`. @throws as `listenTcp()` */
  static async open(all: OpenManagerOptions): Promise<ConnectionManager> {
    const { port, sink, signal, ...options } = all;
    const manager = new ConnectionManager(options);
    await manager.listenTcp(port, sink, { signal });
    return manager;
  }

  /**
   * Listens; gives the listener's id, `l0` of the first one, or that of a UDP socket, `u0`. `port` is a number, its digits or `any`, which takes
   * a free one; with `""` and 0 nothing is opened, and the id is `""`. `iface` is an IP address of ours or `""` for all; of `unix` one of
   * both is the path.
   *
   * @throws {ConnectError} what the system says: `in-use`, `permission` and so on
   * @throws {ManagerError} `closed`
   * @throws {RangeError | TypeError} if an argument or an option is none
   */
  async listen(
    kind: ListenKind,
    port: number | string,
    iface: string = "",
    sink?: Sink,
    options: ListenerOptions = {},
  ): Promise<string> {
    this.#requireOpen("listening");
    requireKind(kind);
    if (kind !== "tls") refuseTls(options);
    if (kind.startsWith("udp")) return await this.#bindUdp(kind, port, iface, sink, options);
    const all = this.#with(options);
    const { backlog, reusePort, mode, signal, handshakeTimeout } = all;
    const open = async (address: Address) =>
      await this.#transport.listen(address, {
        ...definedOf({ backlog, reusePort, mode, signal }),
        ...connOptions(all),
        ...(kind === "tls" && { tls: tlsOptions(all) }),
      });
    // Before there is anything to close again.
    const outlet = this.#outlet(sink);
    const settings = listenerSettings(all);
    const session = sessionSettings(all);
    const at = kind === "unix" ? undefined : portOf(port);
    if (kind !== "unix" && at === undefined) return "";
    const listener = kind === "unix"
      ? await open({ path: pathOf(port, iface) })
      : await bindAt(kind, iface, at!, open);
    const family = familyOf(kind);
    return this.#accept(listener, { kind, outlet, settings, session, family, handshakeTimeout });
  }

  /** Listens for TCP on every address. @throws as {@linkcode ConnectionManager.listen} */
  listenTcp(port: number | string, sink?: Sink, options?: ListenerOptions): Promise<string> {
    return this.listen("tcp", port, "", sink, options);
  }

  /** Takes UDP datagrams on every address; gives the id of the socket, `u0` of the first. @throws as {@linkcode ConnectionManager.listen} */
  listenUdp(port: number | string, sink?: Sink, options?: ListenerOptions): Promise<string> {
    return this.listen("udp", port, "", sink, options);
  }

  /** Listens on a unix socket. @throws as {@linkcode ConnectionManager.listen} */
  listenUnix(path: string, sink?: Sink, options?: ListenerOptions): Promise<string> {
    return this.listen("unix", "", path, sink, options);
  }

  /** Listens for TLS on every address; see `reloadTls()`. @throws as {@linkcode ConnectionManager.listen}; `tls` for a bad certificate or key */
  listenTls(
    port: number | string,
    tls: TlsListenOptions,
    sink?: Sink,
    options?: ListenerOptions,
  ): Promise<string> {
    return this.listen("tls", port, "", sink, { ...options, tls });
  }

  /**
   * Takes the datagrams of a multicast group, `239.1.2.3:5000`; gives the id of the socket, `m0` of the first. `iface` is the name or an IP address
   * of an interface, `""` for the system's choice.
   *
   * @throws {ConnectError} as {@linkcode ConnectionManager.listen}; `invalid-address` if the group is none, or there is no such interface
   */
  async listenMulticast(
    iface: string,
    group: string,
    sink?: Sink,
    options: ListenerOptions = {},
  ): Promise<string> {
    this.#requireOpen("listening");
    refuseTls(options);
    const outlet = this.#outlet(sink);
    const all = this.#with(options);
    const { maxQueuedBytes } = sessionSettings(all);
    const address = await this.#names.resolve(group, { signal: options.signal });
    const datagram = await openMulticast(this.#transport, iface, address, all);
    return await this.#receive("m", { datagram, outlet, maxQueuedBytes, family: undefined });
  }

  /** Takes the connections of a listener that one has, of `activatedListeners()` say, and closes it in the end. @throws {ManagerError} `closed` */
  serve(listener: Listener, sink?: Sink, options: ListenerOptions = {}): string {
    this.#requireOpen("serving a listener");
    refuseTls(options);
    const all = this.#with(options);
    return this.#accept(listener, {
      kind: "path" in listener.addr ? "unix" : "tcp",
      outlet: this.#outlet(sink),
      settings: listenerSettings(all),
      session: sessionSettings(all),
      family: undefined,
      handshakeTimeout: all.handshakeTimeout,
    });
  }

  #accept(
    listener: Listener,
    init: Omit<ConstructorParameters<typeof Accepting>[1], "id" | "listener">,
  ): string {
    if (this.#shutdown !== undefined) {
      listener.close();
      this.#requireOpen("listening");
    }
    const id = this.#roster.newId("l");
    this.#roster.listeners.set(id, new Accepting(this.#roster, { ...init, id, listener }));
    return id;
  }

  async #bindUdp(
    kind: ListenKind,
    port: number | string,
    iface: string,
    sink: Sink | undefined,
    options: ListenerOptions,
  ): Promise<string> {
    const outlet = this.#outlet(sink);
    const all = this.#with(options);
    const { maxQueuedBytes } = sessionSettings(all);
    const at = portOf(port);
    if (at === undefined) return "";
    const datagram = await openUdp(this.#transport, kind, iface, at, all);
    return await this.#receive("u", { datagram, outlet, maxQueuedBytes, family: familyOf(kind) });
  }

  async #receive(letter: "u" | "m", init: Omit<DatagramSessionInit, "id">): Promise<string> {
    const { crowded } = this.#roster;
    if (crowded || this.#shutdown !== undefined) await init.datagram.close();
    this.#requireOpen("listening");
    if (crowded) throw new ManagerError("too-many-sessions", "opening a UDP socket");
    const id = this.#roster.newId(letter);
    this.#roster.add(new DatagramSession(this.#roster, { ...init, id }));
    return id;
  }

  /**
   * Opens a connection, to `host:port`, `[IPv6]:port`, `/path` or `unix:path`, and gives it the name `id`. With `reconnect` it is opened again
   * whenever it is lost; what had not left by then is lost with it.
   *
   * @throws {ConnectError} why there is no connection: `refused`, `timeout`, `tls`, `aborted` and so on; the id is free then
   * @throws {ManagerError} `invalid-id`, `duplicate-id`, `too-many-sessions`, `closed`
   */
  async connect(
    target: Address | string,
    id: string,
    sink?: Sink,
    options: ConnectSessionOptions = {},
  ): Promise<StreamSession> {
    this.#requireOpen("connecting");
    const outlet = this.#outlet(sink);
    const all = this.#with(options);
    const settings = sessionSettings(all);
    const reconnect = reconnectSettings(options.reconnect);
    const { tls, localAddress, signal } = options;
    const timeoutMs = options.timeoutMs ?? CONNECT_TIMEOUT_MS;
    requireLimit("timeoutMs", timeoutMs);
    const open = (signal: AbortSignal | undefined) =>
      openWithin(this.#transport, target, {
        ...definedOf({ tls, localAddress }),
        ...connOptions(all),
        timeoutMs,
        signals: [signal, this.#stop.signal],
      });
    requireId(id);
    // How the old one ends is told by its own `disconnected`.
    if (options.replace) await this.#roster.session(id)?.close({ signal }).catch(() => {});
    const give = this.#roster.reserve(id);
    try {
      const conn = await open(signal);
      if (this.#shutdown !== undefined) conn.abort();
      this.#requireOpen("connecting");
      const redial = reconnect && { ...reconnect, connect: open, over: this.#stop.signal };
      const after = this.#roster.leaving(id);
      give();
      return this.#roster.add(
        new ConnSession(this.#roster, { id, conn, settings, outlet, redial, after }),
      );
    } finally {
      give();
    }
  }

  /** Makes a session of a connection that one has, or of any stream, one of a mux say. @throws {ManagerError} as {@linkcode ConnectionManager.connect} */
  adopt(
    duplex: Duplex | Conn,
    id: string,
    sink?: Sink,
    options: SessionOptions = {},
  ): StreamSession {
    this.#requireOpen("adopting a connection");
    const outlet = this.#outlet(sink);
    const all = this.#with(options);
    const settings = sessionSettings(all);
    this.#roster.reserve(id)();
    const after = this.#roster.leaving(id);
    const conn = wrapConn(duplex, connOptions(all));
    const init = { id, conn, kind: "stream", settings, outlet, after } as const;
    return this.#roster.add(new ConnSession(this.#roster, init));
  }

  /** Writes to a session, or from a UDP socket to the peer that it is bound to. @throws as the session's `write()`; `no-such-session` */
  write(id: string, bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    return attempt(() => this.#require(id).write(bytes, options));
  }

  /** The same with the first `n` of `bytes`: none if `n` is not positive. @throws {RangeError} if there are fewer */
  writeN(id: string, bytes: Uint8Array, n: number, options?: WaitOptions): Promise<void> {
    return attempt(() => this.#require(id).writeN(bytes, n, options));
  }

  /** The same with a text, in UTF-8. */
  writeStr(id: string, text: string, options?: WaitOptions): Promise<void> {
    return attempt(() => this.#require(id).writeStr(text, options));
  }

  /**
   * Writes to every session, and from every UDP socket that is bound to a peer. Waits for nobody: a session that does not take it
   * fills its queue, or see `slow`.
   *
   * @throws {TypeError} if `bytes` is no Uint8Array; what `filter` throws
   */
  writeToAll(bytes: Uint8Array, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    return attempt(() =>
      Promise.resolve(broadcast(this.#roster.sessions.values(), bytes, options))
    );
  }

  /** Sends a datagram from a UDP socket to `host:port`; a name is resolved, and remembered for a minute; `signal` ends that. @throws as `writeTo()` of the session */
  writeUdp(
    id: string,
    to: string,
    data: Uint8Array | string,
    { signal }: WaitOptions = {},
  ): Promise<void> {
    return attempt(() => {
      const session = this.#requireUdp(id);
      const address = () => this.#names.resolve(to, { family: reachOf(session.local), signal });
      return session.sendTo(address, typeof data === "string" ? encodeText(data) : data);
    });
  }

  /** The same to an address. */
  writeUdpAddr(id: string, address: InetAddress, data: Uint8Array | string): Promise<void> {
    return attempt(() =>
      this.#requireUdp(id).writeTo(address, typeof data === "string" ? encodeText(data) : data)
    );
  }

  /** Closes a session, or a listener, whose sessions go on. @throws {ManagerError} `no-such-session` */
  close(id: string, { sessions = false, ...options }: CloseIdOptions = {}): Promise<void> {
    return attempt(async () => {
      const listener = this.#roster.listeners.get(id);
      if (listener === undefined) return await this.#require(id).close(options);
      this.#roster.listeners.delete(id);
      const closing = [listener.close()];
      for (const session of sessions ? this.#roster.sessions.values() : []) {
        const its = session.kind !== "udp" && session.listener === id;
        if (its) closing.push(session.close(options));
      }
      await Promise.all(closing);
    });
  }

  /** The session of that name, or `undefined`. */
  session(id: string): Session | undefined {
    return this.#roster.session(id);
  }

  /** All sessions, and UDP sockets. */
  sessions(): Session[] {
    return [...this.#roster.sessions.values()];
  }

  /** Where a listener or UDP socket is, with its real port; a session's own address. @throws {ManagerError} `no-such-session` */
  address(id: string): Address {
    const address = this.#roster.listeners.get(id)?.address ?? this.#require(id).local;
    if (address !== undefined) return address;
    throw new ManagerError("no-such-session", `session ${id} has no address`);
  }

  /** Uses another certificate from the next handshake on. @throws {ConnectError} `tls`: the old one stays; `unsupported` without TLS */
  reloadTls(id: string, tls: TlsListenOptions): void {
    const listener = this.#roster.listeners.get(id);
    if (listener === undefined) throw new ManagerError("no-such-session", `no listener is ${id}`);
    listener.reloadTls(tls);
  }

  /** What there is and what has happened, as plain objects. */
  stats(): ManagerStats {
    return this.#roster.stats(this.events.length);
  }

  /** Prints what there is as Go's `List_stats` does, a line at a time (spec 4, row 29). */
  listStats(write: (line: string) => void = console.log): void {
    for (const line of statsLines(this.stats())) write(line);
  }

  /**
   * Closes all listeners, then all sessions, and resolves when what was written has left, or was given up. Their events can still be taken, and
   * `events` ends after the last. May be called while an event is handled, and again.
   *
   * @throws {RangeError} if a time is none
   */
  shutdown({ drainMs = 0, graceMs = GRACE_MS, signal }: ShutdownOptions = {}): Promise<void> {
    return attempt(() => {
      if (drainMs !== 0) requireLimit("drainMs", drainMs);
      if (graceMs !== 0) requireLimit("graceMs", graceMs);
      const hurry = () => this.#hurry.abort();
      if (signal?.aborted) hurry();
      signal?.addEventListener("abort", hurry, { once: true });
      this.#shutdown ??= this.#close(drainMs, graceMs, this.#hurry.signal);
      return this.#shutdown.finally(() => signal?.removeEventListener("abort", hurry));
    });
  }

  async #close(drainMs: number, graceMs: number, signal: AbortSignal): Promise<void> {
    const roster = this.#roster;
    // A microtask later `#shutdown` is set, which keeps new ones from coming.
    await Promise.resolve();
    this.#stop.abort(new ManagerError("closed", "the manager was shut down"));
    const ids = [...roster.listeners.keys()];
    await Promise.allSettled(ids.map((id) => this.close(id)));
    if (drainMs > 0) await roster.emptied(drainMs, signal);
    await roster.closeAll(graceMs, signal);
    roster.told().then(() => this.events.close());
  }

  /** As `shutdown()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }

  /** Its own, or else the manager's. */
  #with<Options extends object>(own: Options): Options & ManagerOptions {
    return { ...this.#options, ...definedOf(own) } as Options & ManagerOptions;
  }

  #outlet(sink: Sink = this.events): Outlet {
    return outletOf(sink, this.#options.onError && ((error) => this.#onError(error)));
  }

  #onError(error: unknown): void {
    try {
      this.#options.onError?.(error as Error);
    } catch {
      // There is nobody left to tell.
    }
  }

  #require(id: string): ConnSession | DatagramSession {
    const session = this.#roster.session(id);
    if (session !== undefined) return session;
    throw new ManagerError("no-such-session", `there is no session ${JSON.stringify(id)}`);
  }

  #requireUdp(id: string): DatagramSession {
    const session = this.#require(id);
    if (session.kind === "udp") return session;
    throw new ManagerError("no-such-session", `session ${id} is no UDP socket`);
  }

  #requireOpen(doing: string): void {
    if (this.#shutdown === undefined) return;
    throw new ManagerError("closed", `${doing}: the manager was shut down`);
  }
}
