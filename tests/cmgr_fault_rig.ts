/** What the tests of faults of a manager have in common. */
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import type {
  Channel,
  ConnectionManager,
  DisconnectReason,
  Session,
  SessionEvent,
  SessionState,
} from "@trunkline/sockets/cmgr";
import { until } from "./uds_service.ts";

export const check = (name: string, body: () => Promise<void>): void =>
  void test(name, { timeout: 30_000 }, body);

/** What may come before an event of its session; "" is nothing. */
const BEFORE: Readonly<Record<SessionState, readonly string[]>> = {
  accepted: [""],
  new: ["", "accepted", "reconnecting"],
  data: ["new", "data"],
  eof: ["new", "data"],
  reconnecting: ["new", "data", "eof", "reconnecting"],
  disconnected: ["new", "data", "eof", "reconnecting"],
};

/** A sink that looks at the order of each session's events, and counts them. */
export class Log {
  readonly counts: Record<SessionState, number> = {
    accepted: 0,
    new: 0,
    data: 0,
    eof: 0,
    reconnecting: 0,
    disconnected: 0,
  };
  readonly reasons: Record<DisconnectReason, number> = {
    eof: 0,
    reset: 0,
    closed: 0,
    timeout: 0,
    error: 0,
  };
  /** All but data. */
  readonly events: SessionEvent[] = [];
  /** Events that came when they must not. */
  readonly wrong: string[] = [];
  readonly #last = new Map<Session, SessionState>();
  readonly sink: (event: SessionEvent) => unknown;

  /** @param next what becomes of the event */
  constructor(next: (event: SessionEvent) => unknown = () => {}) {
    this.sink = (event) => {
      const { state, session, reason } = event;
      const before = this.#last.get(session) ?? "";
      const fits = BEFORE[state].includes(before) || session.kind === "udp";
      if (!fits) this.wrong.push(`${event.id}: ${state} after ${before || "nothing"}`);
      this.#last.set(session, state);
      this.counts[state]++;
      if (state === "disconnected") this.reasons[reason!]++;
      if (state !== "data") this.events.push(event);
      return next(event);
    };
  }

  /** Takes all events of a channel, until that ends. */
  async take(events: Channel): Promise<void> {
    for await (const event of events) this.sink(event);
  }

  /** The end of the session of that name, if it was told. */
  end(id: string): SessionEvent | undefined {
    return this.events.find((it) => it.id === id && it.state === "disconnected");
  }

  /** Lets go of all sessions that have ended, and of their events. */
  forget(): void {
    this.events.length = 0;
    for (const [session, state] of this.#last) {
      if (state === "disconnected") this.#last.delete(session);
    }
  }

  /** Whether all that began has ended, but for UDP sockets. */
  get over(): boolean {
    for (const [{ kind }, state] of this.#last) {
      if (kind !== "udp" && state !== "disconnected") return false;
    }
    return true;
  }
}

/** Resolves when nothing is left of the sessions of a manager, which still lives. */
export async function emptied(manager: ConnectionManager): Promise<void> {
  await until(() => {
    const { sessions, queued, listeners } = manager.stats();
    return sessions.length === 0 && queued === 0 && listeners.every((it) => it.sessions === 0);
  });
}

/** The port of a listener or UDP socket. */
export function portOf(manager: ConnectionManager, id: string = "l0"): number {
  return (manager.address(id) as { readonly port: number }).port;
}

/** A client that reads only when it is told to; it is destroyed if there is no connection, or it is refused at once. */
export function dial(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  return new Promise((resolve) => {
    socket.once("connect", () => resolve(socket));
    socket.once("close", () => resolve(socket));
  });
}

/** Resolves when the peer has ended the connection, in whatever way. */
export function ended(socket: Socket): Promise<void> {
  socket.resume();
  if (socket.closed || socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    socket.once("end", () => socket.destroy());
    socket.once("close", () => resolve());
  });
}

/** How many files the process has open; 0 where the system does not tell. */
export function openFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}

type Timer = ReturnType<typeof setTimeout>;

/** Watches the timers that are set while `body` runs, which is given how many have neither fired nor been cleared. */
export async function watchTimers(body: (live: () => number) => Promise<void>): Promise<void> {
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const live = new Set<Timer>();
  const own = {
    setTimeout(call: (...args: unknown[]) => void, ms: number, ...args: unknown[]) {
      const timer: Timer = setTimeout(() => (live.delete(timer), call(...args)), ms);
      live.add(timer);
      return timer;
    },
    setInterval(call: (...args: unknown[]) => void, ms: number, ...args: unknown[]) {
      const timer = setInterval(call, ms, ...args);
      live.add(timer);
      return timer;
    },
    clearTimeout: (timer: Timer) => (live.delete(timer), clearTimeout(timer)),
    clearInterval: (timer: Timer) => (live.delete(timer), clearInterval(timer)),
  };
  Object.assign(globalThis, own);
  try {
    await body(() => live.size);
  } finally {
    Object.assign(globalThis, { setTimeout, setInterval, clearTimeout, clearInterval });
  }
}
