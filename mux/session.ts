/**
 * A session, as its users see it.
 *
 * @module
 */
import type { Address, Conn, Duplex, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { Opening } from "./_opening.ts";
import type { Session } from "./_session.ts";
import { until } from "./_wait.ts";
import { type Config, type MuxProtocol, type OpenOptions, requirePriority } from "./config.ts";
import { MuxError } from "./errors.ts";
import { emptyStats, type MuxStats } from "./stats.ts";
import type { MuxStream } from "./stream.ts";
import { SessionV1 } from "./v1/session.ts";
import { SessionV2 } from "./v2/session.ts";

/**
 * Many streams over one connection. Made by `client()`, `server()`, `dial()` and `listen()`.
 *
 * 1. The transport is read all the time: a slow reader of one stream slows that stream alone.
 * 2. After a failure every call rejects with the same error, once what came before it was read.
 * 3. `closed` resolves after an orderly end, ours or the peer's; it rejects otherwise. Ignoring it never makes an unhandled rejection.
 */
export class Mux implements AsyncIterable<MuxStream>, AsyncDisposable {
  /**
   * Resolves as soon as the peer is known to have the psk: with its first frame that can be opened (v1; a gomux says nothing by itself), or
   * with what shows that the handshake is not one of another time (v2). Rejects with what ended the session before. Ignoring it is safe.
   */
  readonly ready: Promise<void>;
  /** Settles with the end of the session. */
  readonly closed: Promise<void>;
  readonly #conn: Conn;
  /** Undefined as long as it is being made. */
  #session: Session | undefined;
  readonly #opening: Opening | undefined;
  #waitingOpens = 0;

  /** Use `client()` or `server()`. */
  constructor(duplex: Duplex | Conn, isClient: boolean, config: Config) {
    const conn = this.#conn = wrapConn(duplex);
    const { protocols } = config;
    if (protocols.length === 1 && protocols[0] === "v1") {
      const session = this.#session = new SessionV1(conn, isClient, config, new Uint8Array(0));
      this.ready = session.ready;
      this.closed = session.closed;
      return;
    }
    const opening = this.#opening = new Opening(conn, isClient, config);
    opening.session.then((session) => this.#session = session, () => {});
    this.ready = opening.session.then((session) => session.ready);
    this.closed = opening.session.then((session) => session.closed, () => opening.closed);
    for (const promise of [this.ready, this.closed]) promise.catch(() => {});
  }

  /** What is spoken. Of a server that allows both it is known with the client's first bytes, before `ready` resolves. */
  get protocol(): MuxProtocol | undefined {
    return this.#opening === undefined ? "v1" : this.#opening.protocol;
  }

  /** The public key of the peer, 32 bytes, where both sides have an `identity`; undefined before `ready` resolves. */
  get peerKey(): Uint8Array | undefined {
    return this.#session instanceof SessionV2 ? this.#session.peerKey?.slice() : undefined;
  }

  /** Our end of the transport, if it tells. */
  get local(): Address | undefined {
    return this.#conn.local;
  }

  /** The peer's end of the transport, if it tells. */
  get remote(): Address | undefined {
    return this.#conn.remote;
  }

  /** The live streams. */
  get streams(): readonly MuxStream[] {
    return this.#session?.streams ?? [];
  }

  /**
   * Opens a stream. It can be used at once: neither protocol has an answer to an open. It waits for the handshake of v2, beyond `maxStreams`,
   * and beyond `maxPendingOpens` (v1) or as many as the peer takes (v2).
   *
   * @throws {RangeError} for a priority that is none
   * @throws {MuxError} `aborted` or `timeout` by `signal`, `closed`, `peer-closed`, `going-away`, or what ended the session
   */
  async openStream(options: OpenOptions = {}): Promise<MuxStream> {
    if (options.priority !== undefined) requirePriority(options.priority);
    if (this.#session !== undefined) return await this.#session.openStream(options);
    this.#waitingOpens++;
    try {
      const session = await this.#begun(options.signal, "opening a stream");
      return await session.openStream(options);
    } finally {
      this.#waitingOpens--;
    }
  }

  /**
   * Waits for a stream that the peer opens. Those that came before the end of the session are given first.
   *
   * @throws {MuxError} `aborted` or `timeout` by `signal`, `closed`, `peer-closed`, or what ended the session
   */
  async acceptStream(options: WaitOptions = {}): Promise<MuxStream> {
    const session = this.#session ?? await this.#begun(options.signal, "accepting a stream");
    return await session.acceptStream(options);
  }

  #begun(signal: AbortSignal | undefined, doing: string): Promise<Session> {
    return until(this.#opening!.session, signal, doing);
  }

  /** Yields each stream that the peer opens; ends with an orderly end of the session. */
  async *[Symbol.asyncIterator](): AsyncGenerator<MuxStream, void> {
    for (;;) {
      let stream: MuxStream;
      try {
        stream = await this.acceptStream();
      } catch (error) {
        const { code } = error as MuxError;
        if (code === "closed" || code === "peer-closed") return;
        throw error;
      }
      yield stream;
    }
  }

  /**
   * Measures the round trip to the peer and back, in milliseconds. Calls that come while one is under way share it.
   *
   * @throws {MuxError} `unsupported` on v1; `aborted` or `timeout` by `signal`, or what ended the session
   */
  async ping(options: WaitOptions = {}): Promise<number> {
    const session = this.#session ?? await this.#begun(options.signal, "ping");
    return await requireV2(session, "ping()").ping(options);
  }

  /**
   * Takes no new streams of the peer: its `openStream()` rejects with `going-away` from now on, and those that were on their way fail with
   * it. All others go on. For a server that is about to end: `goAway()`, let the work end, `close()`.
   *
   * @throws {MuxError} `unsupported` on v1; `aborted` or `timeout` by `signal`, or what ended the session before its handshake was done
   */
  async goAway({ signal }: WaitOptions = {}): Promise<void> {
    const session = this.#session ?? await this.#begun(signal, "goAway");
    requireV2(session, "goAway()").goAway();
  }

  /** Counters, for people and for graphs. */
  stats(): MuxStats {
    return this.#session?.stats() ?? emptyStats(this.protocol, this.#waitingOpens);
  }

  /**
   * Sends what was written to all streams, closes them, says farewell and closes the transport in order. A session whose handshake is not
   * done is given up.
   *
   * @throws {MuxError} `timeout` if that takes longer than `closeTimeoutMs`, `truncated` if the peer's farewell is missing (v2), or what
   * ended the session before
   */
  close(options: WaitOptions = {}): Promise<void> {
    if (this.#session !== undefined) return this.#session.close(options);
    const closed = this.#opening!.close();
    closed.catch(() => {});
    return until(closed, options.signal, "closing");
  }

  /** Gives the session up at once: the peer sees the transport break. Every pending call rejects with `closed`. */
  abort(reason?: unknown): void {
    if (this.#session !== undefined) this.#session.abort(reason);
    else this.#opening!.abort(reason);
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function requireV2(session: Session, what: string): SessionV2 {
  if (session instanceof SessionV2) return session;
  throw new MuxError("unsupported", `${what}: the protocol of the session, v1, has no such thing`);
}
