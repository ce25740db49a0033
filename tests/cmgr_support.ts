/** What the tests of the connection manager share. */
import { assert, assertRejects, assertThrows } from "@std/assert";
import { test } from "node:test";
import { type Address, type Conn, connect, type InetAddress } from "@trunkline/sockets/auto";
import {
  type Channel,
  ConnectionManager,
  type ManagerOptions,
  type SessionEvent,
  type SessionState,
} from "@trunkline/sockets/cmgr";

/** How long a test waits for what is to happen: long enough for a busy machine, and never for ever. */
const PATIENCE_MS = 10_000;

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** What a test opens; closed after it, whatever comes of it. */
export class Scene {
  readonly #ends: (() => unknown)[] = [];

  /** A manager that does nothing yet. */
  manager(options: ManagerOptions = {}): ConnectionManager {
    const manager = new ConnectionManager(options);
    this.after(() => manager.shutdown({ graceMs: 100 }));
    return manager;
  }

  /** A manager that listens for TCP on the loopback address, as `l0`. */
  async listening(options: ManagerOptions = {}): Promise<ConnectionManager> {
    const manager = this.manager(options);
    await manager.listen("tcp", "any", "127.0.0.1");
    return manager;
  }

  /** A plain connection, that of a client say. */
  async client(to: Address | string): Promise<Conn> {
    const conn = await connect(to);
    this.after(() => conn.abort());
    return conn;
  }

  /** A client of a manager's listener. */
  dial(manager: ConnectionManager, listener = "l0"): Promise<Conn> {
    return this.client({ hostname: "127.0.0.1", port: portOf(manager, listener) });
  }

  /** Calls `end` after the test, the last one first. */
  after(end: () => unknown): void {
    this.#ends.unshift(end);
  }

  async end(): Promise<void> {
    for (const end of this.#ends) await end();
  }
}

/** A test with a scene of its own. */
export function check(
  title: string,
  body: (scene: Scene) => Promise<void>,
  options: { readonly skip?: boolean } = {},
): void {
  test(title, { timeout: 30_000, ...options }, async () => {
    const scene = new Scene();
    try {
      await body(scene);
    } finally {
      await scene.end();
    }
  });
}

/** The port of a listener or a UDP socket. */
export function portOf(manager: ConnectionManager, id = "l0"): number {
  return (manager.address(id) as InetAddress).port;
}

/** The next `count` events. */
export async function take(channel: Channel, count: number): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  while (events.length < count) events.push(await next(channel, events));
  return events;
}

/** The events up to the first one of that state, and of that session if one is named. */
export async function takeUntil(
  channel: Channel,
  state: SessionState,
  id?: string,
): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  for (;;) {
    const event = await next(channel, events);
    events.push(event);
    if (event.state === state && (id === undefined || event.id === id)) return events;
  }
}

async function next(channel: Channel, before: readonly SessionEvent[]): Promise<SessionEvent> {
  const event = await within(channel.receive(), () => `an event after ${brief(before)}`);
  assert(event !== null, `the channel has ended after ${brief(before)}`);
  return event;
}

/** What `promise` gives, or a failure that says what was waited for in vain. */
export async function within<T>(promise: Promise<T>, what: string | (() => string)): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`waited in vain for ${typeof what === "string" ? what : what()}`));
    }, PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits until `condition` holds. */
export async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !condition();) {
    assert(performance.now() < end, `waited in vain until ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Events in short: `accepted a1`, `data a1 hello`, `disconnected a1 eof`. */
export function brief(events: readonly SessionEvent[]): string[] {
  return events.map(({ state, id, data, reason }) =>
    [state, id, state === "data" ? text(data) : reason].filter((it) => it !== undefined).join(" ")
  );
}

/** The code that `promise` rejects with, or the name of an error that has none. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await within(assertRejects(() => promise, Error), "a rejection");
  return (error as Error & { readonly code?: string }).code ?? error.name;
}

/** The same of what `call` throws. */
export function thrown(call: () => unknown): string {
  const error = assertThrows(call, Error) as Error & { readonly code?: string };
  return error.code ?? error.name;
}
