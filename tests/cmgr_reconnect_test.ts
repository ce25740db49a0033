/** Connections that a connection manager opens again. */
import { assert, assertEquals } from "@std/assert";
import { type Conn, listen, type Listener } from "@trunkline/sockets/auto";
import type {
  ConnectionManager,
  ManagerError,
  ReconnectOptions,
  SessionEvent,
  StreamSession,
} from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  type Scene,
  take,
  takeUntil,
  text,
  until,
  utf8,
  within,
} from "./cmgr_support.ts";
import { readExactly } from "./adapter_suite.ts";

const SOON: ReconnectOptions = { minDelayMs: 1, maxDelayMs: 10 };
const NEVER: ReconnectOptions = { minDelayMs: 100_000, maxDelayMs: 100_000 };

/** A session `x` that reconnects, its peer, and where the next one comes from. */
async function connected(scene: Scene, reconnect: ReconnectOptions | true, options = {}): Promise<{
  manager: ConnectionManager;
  session: StreamSession;
  listener: Listener;
  peer: Conn;
}> {
  const listener = await listen("127.0.0.1:0");
  scene.after(() => listener.close());
  const manager = scene.manager();
  const session = await manager.connect(listener.addr, "x", undefined, { reconnect, ...options });
  const peer = await accept(scene, listener);
  assertEquals(brief(await take(manager.events, 1)), ["new x"]);
  return { manager, session, listener, peer };
}

async function accept(scene: Scene, listener: Listener): Promise<Conn> {
  const peer = await within(listener.accept(), "a connection");
  scene.after(() => peer.abort());
  return peer;
}

const states = (events: readonly SessionEvent[]) => events.map(({ state }) => state);

check("a lost connection is opened again under the same name and session", async (scene) => {
  const { manager, session, listener, peer } = await connected(scene, SOON);
  session.context = "kept";
  await peer.write(utf8("one"));
  await peer.close();
  const next = await accept(scene, listener);
  await next.write(utf8("two"));
  const events = await take(manager.events, 4);
  assertEquals(brief(events), ["data x one", "reconnecting x eof", "new x", "data x two"]);
  assertEquals(events[1]!.code, 5);
  assert(/^attempt 1 in \d+ ms: /.test(events[1]!.info), events[1]!.info);
  for (const event of events) assertEquals(event.session, session);
  await events[3]!.writeStr("answer");
  assertEquals(text(await readExactly(next, 6)), "answer");
  const { reconnects, bytesIn, bytesOut } = session.stats();
  assertEquals([reconnects, bytesIn, bytesOut, session.context], [1, 6, 6, "kept"]);
});

check("it is opened again each time it is lost", async (scene) => {
  const { manager, session, listener, peer } = await connected(scene, SOON);
  let current = peer;
  for (let i = 0; i < 5; i++) {
    current.abort();
    assertEquals(states(await take(manager.events, 2)), ["reconnecting", "new"]);
    current = await accept(scene, listener);
  }
  assertEquals(session.stats().reconnects, 5);
  await session.close();
  assertEquals(brief(await take(manager.events, 1)), ["disconnected x closed"]);
});

check("while there is no connection, writes are refused and the name is taken", async (scene) => {
  const { manager, session, peer } = await connected(scene, NEVER);
  peer.abort();
  await takeUntil(manager.events, "reconnecting");
  assertEquals([session.stats().state, manager.session("x")], ["reconnecting", session]);
  assertEquals(await codeOf(session.writeStr("lost")), "reconnecting");
  assertEquals(await codeOf(manager.connect("127.0.0.1:1", "x")), "duplicate-id");
  assertEquals(await manager.writeToAll(utf8("lost")), { sent: 0, skipped: 1, failed: 0 });
  await within(session.close(), "close() during the pause");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected x closed"]);
  assertEquals(manager.session("x"), undefined);
});

check("maxAttempts in a row that fail end the session with what the last said", async (scene) => {
  const { manager, listener, peer } = await connected(scene, { ...SOON, maxAttempts: 3 });
  await listener.close();
  peer.abort();
  const events = await takeUntil(manager.events, "disconnected");
  assertEquals(states(events), [...Array(3).fill("reconnecting"), "disconnected"]);
  const infos = events.slice(0, 3).map(({ info }) => info.split(" in ")[0]);
  assertEquals(infos, ["attempt 1", "attempt 2", "attempt 3"]);
  assertEquals((events[3]!.error as { code?: string }).code, "refused");
  assertEquals(manager.session("x"), undefined);
});

check("a first attempt that fails is told to the caller, and not repeated", async (scene) => {
  const listener = await listen("127.0.0.1:0");
  await listener.close();
  const manager = scene.manager();
  const connecting = manager.connect(listener.addr, "x", undefined, { reconnect: SOON });
  assertEquals(await codeOf(connecting), "refused");
  assertEquals([manager.sessions(), manager.events.length], [[], 0]);
});

check("the signal of connect() is for the first attempt alone", async (scene) => {
  const stop = new AbortController();
  const { manager, listener, peer } = await connected(scene, SOON, { signal: stop.signal });
  stop.abort();
  peer.abort();
  assertEquals(states(await take(manager.events, 2)), ["reconnecting", "new"]);
  await accept(scene, listener);
});

check("idle and stall times open it again, and close() never does", async (scene) => {
  const { manager, session, listener } = await connected(scene, SOON, { idleTimeout: 100 });
  const [event] = await takeUntil(manager.events, "reconnecting");
  assertEquals([event!.reason, (event!.error as ManagerError).code], ["timeout", "idle"]);
  await accept(scene, listener);
  await takeUntil(manager.events, "new");
  await session.close();
  const events = brief(await takeUntil(manager.events, "disconnected"));
  assertEquals(events.at(-1), "disconnected x closed");
});

check("a half-frame is forgotten with its connection", async (scene) => {
  const options = { framing: "lines" };
  const { manager, listener, peer } = await connected(scene, SOON, options);
  await peer.write(utf8("whole\nhalf"));
  await until(() => manager.session("x")!.stats().bytesIn === 10);
  peer.abort();
  const next = await accept(scene, listener);
  await next.write(utf8("new\n"));
  const data = brief(await takeUntil(manager.events, "new")).concat(
    brief(await take(manager.events, 1)),
  ).filter((it) => it.startsWith("data") && it !== "data x half");
  assertEquals(data, ["data x whole", "data x new"]);
});

check("times of reconnect that are none are refused", async (scene) => {
  const manager = scene.manager();
  const wrong: ReconnectOptions[] = [
    { minDelayMs: 0 },
    { maxDelayMs: -1 },
    { maxAttempts: 0 },
    { minDelayMs: 5, maxDelayMs: 4 },
    { maxDelayMs: 2 ** 31 },
  ];
  for (const reconnect of wrong) {
    const connecting = manager.connect("127.0.0.1:1", "x", undefined, { reconnect });
    assertEquals(await codeOf(connecting), "RangeError", JSON.stringify(reconnect));
  }
});
