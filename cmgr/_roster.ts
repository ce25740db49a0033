/**
 * The sessions and listeners of a manager by their ids.
 *
 * @module
 */
import { pause } from "../adapters/pause.ts";
import { requireLimits } from "../adapters/limits.ts";
import type { Conn } from "../adapters/types.ts";
import type { Accepting, AcceptingHost } from "./_accepting.ts";
import { Budget } from "./_budget.ts";
import { ConnSession } from "./_conn_session.ts";
import type { SessionHost } from "./_host.ts";
import type { DatagramSession } from "./_udp_session.ts";
import { ManagerError } from "./errors.ts";
import type { DisconnectReason } from "./event.ts";
import { type Instruments, instruments } from "./metrics.ts";
import type { ManagerOptions, Refusal } from "./options.ts";
import type { ManagerStats } from "./stats.ts";

type AnySession = ConnSession | DatagramSession;

/** Ids that a manager gives itself: accepted, listeners, UDP, multicast. */
const OWN_ID = /^[alum]\d+$/;
const MAX_ID_LENGTH = 256;
/** How often it is looked for sessions that stand still, in milliseconds, at the most and at the least. */
const WATCH_MS = { least: 10, most: 1000 } as const;

export class Roster implements SessionHost, AcceptingHost {
  readonly listeners: Map<string, Accepting> = new Map();
  readonly sessions: Map<string, AnySession> = new Map();
  readonly budget: Budget;
  readonly instruments: Instruments | undefined;
  readonly #options: ManagerOptions;
  readonly #maxSessions: number;
  readonly #onError: (error: unknown) => void;
  /** Ids of connections that are being opened. */
  readonly #reserved = new Set<string>();
  /** Sessions whose ids are free, and whose last events are not taken yet; the last one of each id. */
  readonly #leaving = new Map<string, AnySession>();
  /** All whose last event has found no place yet. */
  readonly #untold = new Map<AnySession, (() => void) | undefined>();
  readonly #lingering = new Set<Conn>();
  /** The next numbers of the ids that we give; Go begins with a1, and with l0. */
  readonly #next = { a: 1, l: 0, u: 0, m: 0 };
  readonly #ended = { eof: 0, reset: 0, closed: 0, timeout: 0, error: 0 };
  #watch: ReturnType<typeof setInterval> | undefined;
  #watchMs = Infinity;
  /** Told whenever an id has become free. */
  #onLeft: (() => void) | undefined;
  #onTold: (() => void) | undefined;

  constructor(options: ManagerOptions, onError: (error: unknown) => void) {
    const limits = {
      maxSessions: options.maxSessions ?? 65_536,
      maxTotalQueuedBytes: options.maxTotalQueuedBytes ?? 256 * 1024 * 1024,
    };
    requireLimits(limits);
    this.#options = options;
    this.#maxSessions = limits.maxSessions;
    this.#onError = onError;
    if (options.metrics !== undefined) this.instruments = instruments(options.metrics, onError);
    this.budget = new Budget(
      limits.maxTotalQueuedBytes,
      limits.maxSessions,
      this.instruments?.queued,
    );
  }

  newId(letter: "a" | "l" | "u" | "m"): string {
    return `${letter}${this.#next[letter]++}`;
  }

  session(id: string): AnySession | undefined {
    return this.sessions.get(id);
  }

  /** Resolves when the session that had the id before has told its end. */
  leaving(id: string): Promise<void> | undefined {
    return this.#leaving.get(id)?.done;
  }

  get crowded(): boolean {
    return this.#crowdedBut(0);
  }

  #crowdedBut(others: number): boolean {
    return this.#untold.size + this.#reserved.size - others >= this.#maxSessions;
  }

  /** Keeps `id` for a session that is to come; gives what gives it back. @throws {ManagerError} */
  reserve(id: string): () => void {
    requireId(id);
    if (this.sessions.has(id) || this.#reserved.has(id)) {
      throw new ManagerError("duplicate-id", `there is a session ${JSON.stringify(id)} already`);
    }
    // Whoever takes over the name of one that ends takes over its place.
    if (this.#crowdedBut(this.#leaving.has(id) ? 1 : 0)) {
      const text = `session ${
        JSON.stringify(id)
      }: there are ${this.#maxSessions}, the most there may be`;
      throw new ManagerError("too-many-sessions", text);
    }
    let kept = true;
    this.#reserved.add(id);
    return () => {
      if (kept) this.#reserved.delete(id);
      kept = false;
    };
  }

  /** `onGone` is called when its last event has found a place. */
  add<T extends AnySession>(session: T, onGone?: () => void): T {
    this.sessions.set(session.id, session);
    this.#untold.set(session, onGone);
    this.instruments?.sessions.add(1, { kind: session.kind });
    if (session.kind !== "udp") this.#watchFor(session.patienceMs);
    return session;
  }

  take(conn: Conn, listener: Accepting, onTold: () => void, onGone: () => void): void {
    const { id, session: settings, outlet } = listener;
    const init = { id: this.newId("a"), conn, listener: id, settings, outlet, onTold };
    this.add(new ConnSession(this, init), onGone);
  }

  leave(session: AnySession): void {
    if (this.sessions.get(session.id) !== session) return;
    this.sessions.delete(session.id);
    this.#leaving.set(session.id, session);
    if (this.sessions.size === 0) this.#endWatch();
    this.#onLeft?.();
  }

  gone(session: AnySession, reason: DisconnectReason): void {
    this.#ended[reason]++;
    this.instruments?.sessions.add(-1, { kind: session.kind });
    this.instruments?.ended.add(1, { reason });
    if (this.#leaving.get(session.id) === session) this.#leaving.delete(session.id);
    this.#untold.get(session)?.();
    this.#untold.delete(session);
    if (this.#untold.size === 0) this.#onTold?.();
  }

  linger(conn: Conn): void {
    this.#lingering.add(conn);
    const end = () => this.#lingering.delete(conn);
    conn.closed.then(end, end);
  }

  /** Waits until all sessions but UDP sockets have ended by themselves, for that time at the most. */
  async emptied(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const empty = new Promise<void>((resolve) => {
      this.#onLeft = () => {
        for (const { kind } of this.sessions.values()) if (kind !== "udp") return;
        resolve();
      };
    });
    this.#onLeft!();
    await within(empty, ms, signal);
    this.#onLeft = undefined;
  }

  /** Closes all sessions; those that take longer are given up. */
  async closeAll(graceMs: number, signal: AbortSignal | undefined): Promise<void> {
    const closing = Promise.allSettled([...this.sessions.values()].map((it) => it.close()));
    const over = closing.then(() =>
      Promise.allSettled([...this.#lingering].map(({ closed }) => closed))
    );
    await within(over, graceMs, signal);
    const late = new ManagerError("closed", `shutting down: not closed within ${graceMs} ms`);
    for (const session of this.sessions.values()) session.end("closed", late);
    for (const conn of this.#lingering) conn.abort(late);
    await over;
  }

  /** Resolves when the last events of all have found their places. */
  told(): Promise<void> {
    if (this.#untold.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onTold = resolve);
  }

  refused(refusal: Refusal): void {
    const { listener, reason } = refusal;
    this.instruments?.refused.add(1, { listener, reason });
    try {
      this.#options.onRefused?.(refusal);
    } catch (error) {
      this.#onError(error);
    }
  }

  error(error: ManagerError): void {
    this.#onError(error);
  }

  stats(events: number): ManagerStats {
    return {
      listeners: [...this.listeners.values()].map((it) => it.stats()),
      sessions: [...this.sessions.values()].map((it) => it.stats()),
      queued: this.budget.queued,
      events,
      ended: { ...this.#ended },
    };
  }

  /** Looks at the sessions often enough for one that has so much patience. */
  #watchFor(patienceMs: number): void {
    const ms = Math.min(WATCH_MS.most, Math.max(WATCH_MS.least, patienceMs / 4));
    if (patienceMs === Infinity || ms >= this.#watchMs) return;
    this.#endWatch();
    this.#watchMs = ms;
    this.#watch = setInterval(() => {
      const now = performance.now();
      let watched = false;
      for (const session of this.sessions.values()) {
        if (session.kind === "udp") continue;
        session.check(now);
        watched = true;
      }
      if (!watched) this.#endWatch();
    }, ms);
  }

  #endWatch(): void {
    clearInterval(this.#watch);
    this.#watchMs = Infinity;
  }
}

/** @throws {ManagerError} `invalid-id` */
export function requireId(id: string): void {
  const doing = `session ${JSON.stringify(id)}`;
  if (typeof id !== "string" || id === "" || id.length > MAX_ID_LENGTH) {
    const text = `${doing}: an id is a text of 1 to ${MAX_ID_LENGTH} characters`;
    throw new ManagerError("invalid-id", text.slice(0, MAX_ID_LENGTH));
  }
  if (OWN_ID.test(id)) throw new ManagerError("invalid-id", `${doing}: the manager gives such ids`);
  if (/\p{Cc}/u.test(id)) throw new ManagerError("invalid-id", `${doing}: a control character`);
}

/** Resolves when `promise` does, `signal` fires, or the time is over. */
async function within(promise: Promise<unknown>, ms: number, signal?: AbortSignal): Promise<void> {
  const stop = new AbortController();
  const onAbort = () => stop.abort();
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  await Promise.race([promise, pause(ms, stop.signal)]);
  signal?.removeEventListener("abort", onAbort);
  stop.abort();
}
