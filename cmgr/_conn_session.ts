/**
 * A session over a connection, and over those that follow it.
 *
 * @module
 */
import { formatAddress } from "../adapters/address.ts";
import { backoffMs } from "../adapters/backoff.ts";
import { pause } from "../adapters/pause.ts";
import {
  type Address,
  type Conn,
  ConnectError,
  type PeerCredentials,
  type TlsInfo,
  type WaitOptions,
} from "../adapters/types.ts";
import { encodeText, requireBytes, writeFirst } from "./_bytes.ts";
import type { Outlet, SessionHost } from "./_host.ts";
import { Outgoing } from "./_outgoing.ts";
import { attempt, failed, heard, ManagerError, waitFor } from "./errors.ts";
import {
  type DisconnectReason,
  type EventParts,
  SessionEvent,
  type SessionState,
} from "./event.ts";
import { cut, encodeFrame, type FrameDecoder, frameDecoder, type Framing } from "./framing.ts";
import { RECEIVED, SENT } from "./metrics.ts";
import type { ReconnectSettings, SessionSettings } from "./options.ts";
import type { CloseSessionOptions, StreamSession } from "./session.ts";
import { epochMs, type SessionStats } from "./stats.ts";

/** How one connection of a session ended. */
interface End {
  readonly reason: DisconnectReason;
  readonly error?: Error | undefined;
}

/** Opens the next connection. */
export interface Redial extends ReconnectSettings {
  connect(signal: AbortSignal): Promise<Conn>;
  /** Fires when there are to be no more connections. */
  readonly over: AbortSignal;
}

/** What a session is made of. */
export interface ConnSessionInit {
  readonly id: string;
  readonly conn: Conn;
  /** `stream` if it was adopted. */
  readonly kind?: "stream" | undefined;
  readonly listener?: string | undefined;
  readonly settings: SessionSettings;
  readonly outlet: Outlet;
  readonly redial?: Redial | undefined;
  /** Resolves when the session that had the id before has told its end. */
  readonly after?: Promise<void> | undefined;
  /** Told when the events that come before its data have found a place. */
  readonly onTold?: (() => void) | undefined;
}

export class ConnSession implements StreamSession {
  readonly id: string;
  readonly kind: StreamSession["kind"];
  readonly listener: string | undefined;
  context: unknown = undefined;
  /** Resolves when the last event has found a place. */
  readonly done: Promise<void>;
  readonly #host: SessionHost;
  readonly #settings: SessionSettings;
  readonly #outlet: Outlet;
  readonly #redial: Redial | undefined;
  readonly #since: number = performance.now();
  #from = "";
  #conn: Conn;
  #outgoing: Outgoing;
  #decoder: FrameDecoder | undefined;
  #state: SessionStats["state"] = "open";
  /** What we decided about the connection, and its end is to be told as. */
  #verdict: End | undefined;
  #closing: Promise<void> | undefined;
  #discarding = false;
  /** We have ended our side. */
  #finished = false;
  /** Ends what waits for the next connection. */
  #stop: AbortController | undefined;
  #activeAt: number = this.#since;
  /** Since when an event waits for its place; 0 if none does. */
  #waitingSince = 0;
  #openedAt: number = this.#since;
  #failures = 0;
  #reconnects = 0;
  #bytesIn = 0;
  #sentBefore = 0;
  #messagesIn = 0;
  #messagesOut = 0;
  #refused = 0;

  constructor(host: SessionHost, init: ConnSessionInit) {
    this.#host = host;
    this.id = init.id;
    this.listener = init.listener;
    this.#settings = init.settings;
    this.#outlet = init.outlet;
    this.#redial = init.redial;
    this.#conn = init.conn;
    this.kind = init.kind ?? kindOf(init.conn);
    this.#outgoing = this.#open(init.conn);
    this.done = this.#run(init);
  }

  get from(): string {
    return this.#from;
  }
  get local(): Address | undefined {
    return this.#conn.local;
  }
  get remote(): Address | undefined {
    return this.#conn.remote;
  }
  get tls(): TlsInfo | undefined {
    return this.#conn.tls;
  }
  get queued(): number {
    return this.#outgoing.queued;
  }
  /** How a message is sent. */
  get framing(): Framing {
    return this.#settings.framing;
  }
  /** Whether so much waits to leave that `write()` would wait. */
  get slow(): boolean {
    return this.#outgoing.slow;
  }
  /** Whether there is a connection that can be written to. */
  get writable(): boolean {
    return this.#connected && !this.#finished;
  }
  get #connected(): boolean {
    return this.#state === "open" || this.#state === "half-open";
  }

  /** How long it may stand still, or do nothing. */
  get patienceMs(): number {
    return Math.min(this.#settings.idleTimeout, this.#settings.stallTimeout);
  }

  #open(conn: Conn): Outgoing {
    this.#conn = conn;
    this.#from = addressText(conn);
    this.#openedAt = this.#activeAt = performance.now();
    const { framing, maxFrameBytes } = this.#settings;
    this.#decoder = framing === "raw" ? undefined : frameDecoder(framing, maxFrameBytes);
    return this.#outgoing = new Outgoing(conn, this.#settings, this.#host, this.id);
  }

  async #run({ after, onTold }: ConnSessionInit): Promise<void> {
    // Nothing is read meanwhile, as with an event that finds no place.
    if (after !== undefined) this.#waitingSince = performance.now();
    await after;
    this.#waitingSince = 0;
    if (this.listener !== undefined) {
      await this.#tell("accepted", {
        info: `connection [${this.id}] accepted from: ${this.#from}`,
      });
    }
    let end: End | undefined;
    while (end === undefined) {
      await this.#tell("new", { info: this.#from });
      onTold?.();
      const last = await this.#converse();
      this.#disconnect(last);
      end = await this.#reconnect(this.#verdict ?? last);
    }
    this.#state = "ended";
    this.#host.leave(this);
    await this.#tell("disconnected", { ...end, info: end.reason });
    this.#host.gone(this, end.reason);
  }

  /** Takes what comes, until the connection is over. */
  async #converse(): Promise<End> {
    const conn = this.#conn;
    try {
      for (;;) {
        const chunk = await conn.read();
        if (chunk === null) break;
        const told = this.#received(chunk);
        if (told !== undefined) await told;
      }
      const rest = this.#decoder?.finish();
      if (rest !== undefined) await this.#message(rest);
      if (this.#settings.allowHalfOpen && this.#closing === undefined) {
        this.#state = "half-open";
        await this.#tell("eof");
        await conn.closed;
      }
    } catch (error) {
      return await this.#endOf(error);
    }
    if (this.#verdict !== undefined) return this.#verdict;
    if (this.#closing !== undefined) return await this.#closed();
    this.#state = "closing";
    // Of a write that failed before, `closed` alone tells.
    const error = await failureOf(conn.close().then(() => conn.closed));
    return this.#verdict ?? { reason: "eof", error };
  }

  async #endOf(error: unknown): Promise<End> {
    if (this.#verdict !== undefined) return this.#verdict;
    if (this.#closing !== undefined) return await this.#closed();
    if (error instanceof ConnectError) return { reason: REASONS[error.code] ?? "error", error };
    // A frame that cannot be; what was written before is of no use to such a peer.
    this.#conn.abort(error);
    return { reason: "error", error: error as Error };
  }

  async #closed(): Promise<End> {
    const error = await failureOf(this.#closing);
    return this.#verdict ?? { reason: "closed", error };
  }

  #received(chunk: Uint8Array): Promise<void> | undefined {
    this.#bytesIn += chunk.length;
    this.#activeAt = performance.now();
    this.#host.instruments?.io.add(chunk.length, RECEIVED);
    if (this.#decoder !== undefined) return this.#messages(this.#decoder.push(chunk));
    const { chunkSize } = this.#settings;
    return chunk.length <= chunkSize ? this.#message(chunk) : this.#messages(cut(chunk, chunkSize));
  }

  #message(data: Uint8Array): Promise<void> | undefined {
    if (this.#discarding) return undefined;
    this.#messagesIn++;
    this.#host.instruments?.messages.add(1, RECEIVED);
    return this.#tell("data", { data });
  }

  #messages(all: Iterator<Uint8Array, void>): Promise<void> | undefined {
    for (let it = all.next(); !it.done; it = all.next()) {
      const told = this.#message(it.value);
      if (told !== undefined) return this.#messagesAfter(told, all);
    }
    return undefined;
  }

  async #messagesAfter(told: Promise<void>, rest: Iterator<Uint8Array, void>): Promise<void> {
    await told;
    for (let it = rest.next(); !it.done; it = rest.next()) await this.#message(it.value);
  }

  #tell(state: SessionState, parts?: EventParts): Promise<void> | undefined {
    const told = this.#outlet.send(new SessionEvent(state, this, parts));
    if (told === undefined) return undefined;
    this.#waitingSince = performance.now();
    return told.then(() => {
      this.#waitingSince = 0;
    });
  }

  /** Nothing leaves any more. */
  #disconnect({ error }: End): void {
    this.#outgoing.end(error);
    this.#sentBefore += this.#outgoing.sent;
    this.#outgoing.sent = 0;
  }

  /** Opens the next connection; gives the end of the session if there is to be none. */
  async #reconnect(end: End): Promise<End | undefined> {
    const redial = this.#redial;
    if (redial === undefined || end.reason === "closed" || this.#stopped) return end;
    this.#state = "reconnecting";
    const stop = this.#stop = new AbortController();
    const onOver = () => stop.abort();
    redial.over.addEventListener("abort", onOver, { once: true });
    try {
      return await this.#redialUntil(redial, stop.signal, end);
    } finally {
      redial.over.removeEventListener("abort", onOver);
    }
  }

  get #stopped(): boolean {
    return this.#closing !== undefined || this.#redial!.over.aborted;
  }

  async #redialUntil(redial: Redial, signal: AbortSignal, end: End): Promise<End | undefined> {
    const { minDelayMs, maxDelayMs, maxAttempts } = redial;
    // One that held for longer than the pause before it was no failure.
    const lasted = performance.now() - this.#openedAt;
    if (lasted >= backoffMs(this.#failures, minDelayMs, maxDelayMs, () => 0)) this.#failures = 0;
    for (let tries = 0; tries < maxAttempts; tries++) {
      const delayMs = backoffMs(++this.#failures, minDelayMs, maxDelayMs);
      const info = `attempt ${tries + 1} in ${delayMs} ms: ${end.error?.message ?? end.reason}`;
      await this.#tell("reconnecting", { ...end, info });
      await pause(delayMs, signal);
      if (this.#stopped) break;
      try {
        const conn = await redial.connect(signal);
        if (this.#stopped) {
          conn.abort();
          break;
        }
        this.#verdict = undefined;
        this.#finished = false;
        this.#state = "open";
        this.#reconnects++;
        this.#host.instruments?.reconnects.add(1);
        this.#open(conn);
        return undefined;
      } catch (error) {
        if (this.#stopped) break;
        end = { reason: "error", error: error as Error };
      }
    }
    return this.#stopped ? { reason: "closed" } : end;
  }

  write(bytes: Uint8Array, options: WaitOptions = {}): Promise<void> {
    return attempt(() => {
      this.post(bytes);
      return this.#outgoing.settled(options);
    });
  }

  writeN(bytes: Uint8Array, n: number, options?: WaitOptions): Promise<void> {
    return attempt(() => writeFirst(bytes, n, (first) => this.write(first, options)));
  }

  writeStr(text: string, options?: WaitOptions): Promise<void> {
    return attempt(() => this.write(encodeText(text), options));
  }

  /** Writes without waiting; `frame` is the message as it is sent, if that is there. @throws {ManagerError | TypeError} as `write()` */
  post(message: Uint8Array, frame?: Uint8Array): void {
    requireBytes(message);
    if (!this.writable) throw this.#unwritable();
    const bytes = frame ?? encodeFrame(this.framing, message);
    const now = performance.now();
    try {
      this.#outgoing.post(bytes, now);
    } catch (error) {
      if ((error as ManagerError).code === "queue-full") {
        this.#refused++;
        this.#host.instruments?.overflow.add(1);
      }
      throw error;
    }
    this.#activeAt = now;
    this.#messagesOut++;
    this.#host.instruments?.messages.add(1, SENT);
  }

  #unwritable(): ManagerError {
    const doing = `writing to session ${this.id}`;
    const about = { sessionId: this.id, cause: this.#verdict?.error };
    return this.#state === "reconnecting"
      ? new ManagerError("reconnecting", `${doing}: the next connection is not there yet`, about)
      : new ManagerError("disconnected", `${doing}: our side has ended`, about);
  }

  closeWrite(): Promise<void> {
    if (this.#state === "reconnecting" || this.#state === "ended") {
      return failed(this.#unwritable());
    }
    this.#finished = true;
    return heard(this.#conn.closeWrite());
  }

  close({ discard = false, signal }: CloseSessionOptions = {}): Promise<void> {
    if (discard) {
      this.#discarding = true;
      this.#outlet.remove?.((it) => it.session === this && it.state === "data");
    }
    if (this.#closing === undefined) {
      const lost = this.#state === "reconnecting";
      // At once: what is written from now on is refused.
      if (this.#state !== "ended") this.#state = "closing";
      this.#closing = heard(this.#close(lost));
    }
    const giveUp = (error: ManagerError) => this.end("closed", error);
    return heard(waitFor(this.#closing, signal, `closing session ${this.id}`, giveUp));
  }

  async #close(lost: boolean): Promise<void> {
    // A microtask later `#closing` is set, which is what the end is told by, and it may have ended in between.
    await Promise.resolve();
    if (this.#state === "ended") return;
    this.#stop?.abort();
    if (!lost) {
      const conn = this.#conn;
      conn.close();
      this.#host.linger(conn);
      // What is written has left then; to wait for the peer's end as well is the connection's business.
      await conn.closeWrite().finally(() => this.#host.leave(this));
    }
    this.#host.leave(this);
  }

  /** Gives the connection up. */
  end(reason: DisconnectReason, error: ManagerError): void {
    if (this.#state === "ended") return;
    this.#verdict ??= { reason, error };
    if (this.#redial === undefined || reason === "closed") {
      // Not only when its events have found their places: its id is of no use any more.
      this.#state = "closing";
      this.#host.leave(this);
    }
    // First, so that whoever writes hears why, and not only that it was given up.
    this.#outgoing.end(error);
    this.#conn.abort(error);
  }

  /** Ends it if it has stood still, or idle, for too long. */
  check(now: number): void {
    const { idleTimeout, stallTimeout } = this.#settings;
    const { queued, movedAt } = this.#outgoing;
    if (this.#waitingSince > 0) {
      if (now - this.#waitingSince > stallTimeout) {
        this.#late("stalled", `nobody took its event for ${stallTimeout} ms`);
      }
    } else if (queued > 0) {
      if (now - movedAt > stallTimeout) {
        this.#late(
          "stalled",
          `none of ${queued} bytes could be handed over for ${stallTimeout} ms`,
        );
      }
    } else if (this.#connected && now - this.#activeAt > idleTimeout) {
      this.#late("idle", `nothing came or went for ${idleTimeout} ms`);
    }
  }

  #late(code: "idle" | "stalled", what: string): void {
    this.end("timeout", new ManagerError(code, `session ${this.id}: ${what}`));
  }

  peerCredentials(): PeerCredentials | undefined {
    return this.#conn.peerCredentials();
  }

  stats(): SessionStats {
    const { local } = this.#conn;
    return {
      id: this.id,
      kind: this.kind,
      listener: this.listener ?? null,
      from: this.#from,
      local: local === undefined ? null : formatAddress(local),
      state: this.#state,
      bytesIn: this.#bytesIn,
      bytesOut: this.#sentBefore + this.#outgoing.sent,
      messagesIn: this.#messagesIn,
      messagesOut: this.#messagesOut,
      refused: this.#refused,
      queued: this.#outgoing.queued,
      dropped: 0,
      reconnects: this.#reconnects,
      since: epochMs(this.#since),
      lastActivity: epochMs(this.#activeAt),
    };
  }
}

/** What a connection's own error is told as; `error` if it is not here. */
const REASONS: Readonly<Partial<Record<ConnectError["code"], DisconnectReason>>> = {
  reset: "reset",
  "broken-pipe": "reset",
  timeout: "timeout",
  closed: "closed",
};

function kindOf({ tls, remote, local }: Conn): StreamSession["kind"] {
  if (tls !== undefined) return "tls";
  return "path" in (remote ?? local ?? {}) ? "unix" : "tcp";
}

/** The peer; of a unix socket that was accepted the path it came by, for it has no address. */
export function addressText({ remote, local }: Conn): string {
  const address = remote ?? local;
  return address === undefined ? "stream" : formatAddress(address);
}

/** What a promise fails with, if it does. */
async function failureOf(promise: Promise<void> | undefined): Promise<Error | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    return error as Error;
  }
}
