/**
 * One connection to OpenVPN after the other.
 *
 * @module
 */
import { MAX_TIMEOUT_MS, requireLimit } from "../adapters/limits.ts";
import type { Conn, Duplex, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { backoffMs } from "../adapters/backoff.ts";
import type { Broadcast } from "./_broadcast.ts";
import { CLIENT_COMMANDS, ClientRegistry } from "./_client_registry.ts";
import { pause } from "../adapters/pause.ts";
import { LATE_REPLY_RETRY_MS } from "./_late_reply.ts";
import { Resumption } from "./_resumption.ts";
import { type EventSink, type Link, Session, type Turn } from "./_session.ts";
import type { ClientOptions, CommandOptions, CommandReply } from "./client_options.ts";
import { ServerCommands } from "./commands_server.ts";
import { type ConnectionGap, ownEvent } from "./connection_events.ts";
import { ManagementError } from "./errors.ts";
import type { HoldEvent, ManagementEvent } from "./event.ts";

/** Where connections come from. */
export type Connector = (wait: WaitOptions) => Promise<Duplex | Conn>;

/** The options of a `ReconnectingClient`, with all numbers. */
export interface ReconnectSettings {
  readonly client: ClientOptions;
  readonly timeoutMs: number;
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly maxAttempts: number;
  readonly hold: HoldPolicy;
}

/** What to do about a hold; see `ReconnectOptions.hold`. */
export type HoldPolicy = "leave" | "again" | "release";

/** OpenVPN's own longest pause between attempts (`--connect-retry`), in seconds: a hold says no more. */
const MAX_HOLD_SECONDS = 300;
const LOGIN_ERRORS: ReadonlySet<string> = new Set(["password-required", "wrong-password"]);
/** How often in a row the login may fail: a process that is just starting may hang up on a right password. */
export const MAX_LOGIN_FAILURES = 3;

/** The typed commands over any link. */
class Commands extends ServerCommands {
  constructor(link: Link, events: Broadcast) {
    super(link, events);
  }
}

/** A connection, from its first byte on. */
interface Era {
  readonly session: Session;
  /** Whether anything was heard of it. */
  heard: boolean;
  /** Whether OpenVPN has said that it would exit. */
  exiting: boolean;
  over: boolean;
}

interface Waiter {
  /** Of the call. */
  readonly order: number;
  /** The connection that it may be sent over, if not any. */
  readonly only: Era | undefined;
  run(session: Session): void;
  /** Without an error because that connection is over. */
  reject(error?: Error): void;
}

/** See {@linkcode ReconnectingClient} for what it guarantees. */
export class Reconnector implements Link {
  readonly ready: Promise<void>;
  readonly closed: Promise<void>;
  /** Whether an end of the connection is known to hurt OpenVPN. */
  dropHurts: boolean;
  readonly #connect: Connector;
  readonly #options: ReconnectSettings;
  readonly #events: Broadcast;
  readonly #resumption = new Resumption();
  readonly #closing = new AbortController();
  readonly #ready = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #era: Era | undefined;
  /** Takes commands. */
  #session: Session | undefined;
  readonly #waiters = new Set<Waiter>();
  /** Why there is none. */
  #error: Error | undefined;
  /** Why there will never be one again. */
  #end: ManagementError | undefined;
  #connectedBefore = false;
  /** The CIDs that were told, over all connections. */
  readonly #clientIds = new Set<string>();
  #strayReplies = 0;
  #calls = 0;
  /** Ends the release of a hold that is under way. */
  #release = new AbortController();

  constructor(connect: Connector, options: ReconnectSettings, events: Broadcast) {
    this.#connect = connect;
    this.#options = options;
    this.#events = events;
    this.dropHurts = options.client.onTimeout === "keep";
    [this.ready, this.closed] = [this.#ready.promise, this.#closed.promise];
    this.ready.catch(() => {});
    this.closed.catch(() => {});
    this.#run();
  }

  get managementVersion(): number | undefined {
    return this.#era?.session.managementVersion;
  }

  get strayReplies(): number {
    return this.#strayReplies + (this.#era?.session.strayReplies ?? 0);
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** What was not sent when its connection ended is sent over the next one. */
  async execute(name: string, turn: Turn, options: CommandOptions = {}): Promise<CommandReply> {
    const { signal, timeoutMs = this.#options.timeoutMs } = options;
    requireLimit("timeoutMs", timeoutMs);
    const deadline = performance.now() + timeoutMs;
    const order = this.#calls++;
    const namesClient = CLIENT_COMMANDS.has(name);
    let session: Session | undefined;
    let taken = false;
    let parameters: readonly string[] = [];
    const noting = (turn: Turn): Turn => (peer) => {
      taken = true;
      const step = turn(peer);
      if ("ask" in step) return { ask: step.ask, then: noting(step.then) };
      ({ parameters } = step);
      return step;
    };
    const send = async (next: Session): Promise<CommandReply> => {
      session = next;
      const reply = await next.execute(name, noting(turn), options);
      if (name === "log" && parameters.slice(1, 3).includes("on")) {
        this.#resumption.allow = options.allow;
      }
      return reply;
    };
    for (;;) {
      try {
        if (this.#session !== undefined) return await send(this.#session);
        const era = this.#era?.heard && !this.#era.over ? this.#era : undefined;
        if (namesClient && this.#connectedBefore && era === undefined) throw notCarried(name);
        const only = namesClient ? era : undefined;
        return await this.#later(name, send, { order, only, signal, deadline });
      } catch (error) {
        const ended = session !== undefined && session !== this.#session;
        if (taken || namesClient || signal?.aborted || !ended) throw error;
        session = undefined;
      }
    }
  }

  /** Sends over the next connection, or over that of the era `only`, in the order of the calls. */
  async #later(
    name: string,
    send: (session: Session) => Promise<CommandReply>,
    { order, only, signal, deadline }: Pick<Waiter, "order" | "only"> & WaitOptions & {
      readonly deadline: number;
    },
  ): Promise<CommandReply> {
    if (this.#end !== undefined) throw this.#end;
    const { promise, resolve, reject } = Promise.withResolvers<CommandReply>();
    const stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      this.#waiters.delete(waiter);
    };
    const waiter: Waiter = {
      order,
      only,
      // At once: what is called later must not overtake it.
      run: (session) => {
        stop();
        resolve(send(session));
      },
      reject: (error = notCarried(name)) => {
        stop();
        reject(error);
      },
    };
    const onAbort = () => {
      const text = `${name}: aborted`;
      waiter.reject(new ManagementError("aborted", text, { cause: signal!.reason }));
    };
    const timer = setTimeout(() => {
      const text = `${name}: there was no connection to OpenVPN in time`;
      waiter.reject(new ManagementError("disconnected", text, { cause: this.#error }));
    }, Math.max(0, deadline - performance.now()));
    this.#waiters.add(waiter);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    return await promise;
  }

  async #run(): Promise<void> {
    const { minDelayMs, maxDelayMs, maxAttempts } = this.#options;
    let attempts = 0;
    let failures = 0;
    let logins = 0;
    /** The end of the last connection that took commands. */
    let lostAt: number | undefined;
    while (this.#end === undefined) {
      const { error, resumedAt } = await this.#serve(++attempts, lostAt);
      const now = performance.now();
      if (resumedAt !== undefined) {
        lostAt = now;
        attempts = 0;
      }
      // One that OpenVPN ends again and again is no success, either.
      failures = resumedAt !== undefined && now - resumedAt >= maxDelayMs ? 1 : failures + 1;
      const login = error instanceof ManagementError && LOGIN_ERRORS.has(error.code);
      logins = login ? logins + 1 : 0;
      const final = logins >= MAX_LOGIN_FAILURES || attempts >= maxAttempts;
      const retryMs = final ? undefined : backoffMs(failures, minDelayMs, maxDelayMs);
      this.#leave(error, attempts, retryMs);
      if (this.#end !== undefined) return;
      if (retryMs === undefined) return this.#finish(error);
      await pause(retryMs, this.#closing.signal);
    }
  }

  /** One connection, from the attempt to its end. */
  async #serve(
    attempts: number,
    lostAt: number | undefined,
  ): Promise<{ readonly error: Error; readonly resumedAt?: number }> {
    let resumedAt: number | undefined;
    try {
      const duplex = await this.#dial();
      if (this.#end !== undefined) {
        wrapConn(duplex).abort(this.#end);
        throw this.#end;
      }
      const era = this.#era = this.#open(duplex, attempts);
      const { session } = era;
      await session.ready;
      const resumed = await this.#resumption.resume(
        new Commands(session, this.#events),
        // Whoever waits for commands gives up by himself, and an end would do more harm.
        this.dropHurts ? MAX_TIMEOUT_MS : this.#options.timeoutMs,
      );
      if (era.over || this.#end !== undefined) resumed.forget();
      else {
        resumedAt = performance.now();
        const ms = lostAt === undefined ? undefined : Math.round(resumedAt - lostAt);
        const gap = ms === undefined ? undefined : { ...resumed.gap, ms };
        this.#resume(session, resumed.refused, gap);
      }
      await session.closed;
      throw new ManagementError("disconnected", "OpenVPN has closed the connection");
    } catch (error) {
      return { error: error as Error, ...(resumedAt !== undefined && { resumedAt }) };
    }
  }

  async #dial(): Promise<Duplex | Conn> {
    const { signal } = this.#closing;
    const opening = (async () => await this.#connect({ signal }))();
    const ended = Promise.withResolvers<never>();
    const onAbort = () => {
      ended.reject(signal.reason);
      // It did not hear the signal.
      opening.then((late) => wrapConn(late).abort(signal.reason)).catch(() => {});
    };
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([opening, ended.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #open(duplex: Duplex | Conn, attempts: number): Era {
    const sink: EventSink = {
      push: (event) => {
        if (!era.heard) {
          this.#events.restart();
          this.#events.push(ownEvent("connected", { attempts }));
        }
        era.heard = true;
        this.#see(event, era);
        this.#events.push(event);
      },
      did: (parameters, reply) => {
        if (reply !== undefined) this.#resumption.did(parameters, reply.lines);
      },
      end: () => {
        era.over = true;
        this.#session = undefined;
        this.#release.abort();
        for (const waiter of [...this.#waiters]) if (waiter.only === era) waiter.reject();
      },
    };
    const clients = new ClientRegistry(this.#clientIds);
    const session = new Session(duplex, this.#options.client, sink, clients);
    const era = { session, heard: false, exiting: false, over: false };
    session.keep = this.dropHurts;
    return era;
  }

  #see(event: ManagementEvent, era: Era): void {
    this.#resumption.see(event);
    if (event.type === "FATAL" || event.type === "STATE" && event.name === "EXITING") {
      era.exiting = true;
    } else if (event.type === "HOLD") this.#onHold(event);
  }

  #onHold({ waitSeconds = 0 }: HoldEvent): void {
    this.#release.abort();
    const { hold } = this.#options;
    if (hold === "leave" || hold === "again" && !this.#resumption.released) return;
    const ms = Math.min(waitSeconds, MAX_HOLD_SECONDS) * 1000;
    this.#releaseAfter(ms, (this.#release = new AbortController()).signal);
  }

  /** `signal` fires when that hold is over, or its connection. */
  async #releaseAfter(ms: number, signal: AbortSignal): Promise<void> {
    await pause(ms, signal);
    try {
      if (!signal.aborted) await new Commands(this, this.#events).holdRelease({ signal });
    } catch (error) {
      // Another reply is late, or the set-up takes its time.
      const { code } = error as ManagementError;
      const again = code === "timeout" || code === "disconnected";
      if (again && !signal.aborted) await this.#releaseAfter(LATE_REPLY_RETRY_MS, signal);
    }
  }

  #resume(
    session: Session,
    refused: readonly ManagementError[],
    gap: ConnectionGap | undefined,
  ): void {
    if (gap?.restartedByDisconnect) this.dropHurts = session.keep = true;
    if (gap?.daemon === "same") session.clients.continueRun();
    this.#error = undefined;
    this.#session = session;
    this.#connectedBefore = true;
    this.#ready.resolve();
    const waiters = [...this.#waiters].sort((a, b) => a.order - b.order);
    for (const waiter of waiters) waiter.run(session);
    this.#events.push(ownEvent("resumed", { gap, refused }));
  }

  /** A connection is over, or there was none. */
  #leave(error: Error, attempts: number, retryMs: number | undefined): void {
    const era = this.#era;
    this.#era = this.#session = undefined;
    this.#error = error;
    this.#strayReplies += era?.session.strayReplies ?? 0;
    // Nothing is left open, whatever it was that failed.
    era?.session.close();
    if (this.#end !== undefined) return;
    this.#events.push(
      era?.heard
        ? ownEvent("disconnected", { error, exiting: era.exiting, retryMs })
        : ownEvent("connect-failed", { error, attempts, retryMs }),
    );
  }

  /** It was given up. */
  #finish(cause: Error): void {
    const error = cause instanceof ManagementError
      ? cause
      : new ManagementError("connection", "there is no connection to OpenVPN", { cause });
    this.#stop(error);
    this.#closed.reject(error);
  }

  #stop(error: ManagementError): void {
    this.#end = error;
    this.#ready.reject(error);
    for (const waiter of [...this.#waiters]) waiter.reject(error);
    this.#events.end();
  }

  async close(): Promise<void> {
    if (this.#end === undefined) {
      const error = new ManagementError("closed", "the client is closed");
      this.#end = error;
      this.#release.abort();
      this.#closing.abort(error);
      await this.#era?.session.close();
      this.#stop(error);
      this.#closed.resolve();
    }
    await this.closed.catch(() => {});
  }
}

function notCarried(name: string): ManagementError {
  const text = "there is no connection, and over the next one the same ids may be another client's";
  return new ManagementError("disconnected", `${name}: ${text}`);
}
