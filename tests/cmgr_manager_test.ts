/** The public names of the connection manager: its methods, ids, constants and what they refuse. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Address,
  connPair,
  type InetAddress,
  type TlsListenOptions,
} from "@trunkline/sockets/auto";
import * as cmgr from "@trunkline/sockets/cmgr";
import {
  Channel,
  ConnectionManager,
  type ConnectSessionOptions,
  LISTENER,
  type ListenerOptions,
  type ListenKind,
  type Session,
  type SessionEvent,
  type Sink,
} from "@trunkline/sockets/cmgr";
import { test } from "node:test";
import {
  brief,
  check,
  codeOf,
  portOf,
  take,
  takeUntil,
  text,
  thrown,
  until,
  utf8,
} from "./cmgr_support.ts";
import { readAll, readExactly } from "./adapter_suite.ts";

test("the constants are Go's, and ours come after them", () => {
  const { ST_NEW, ST_DATA, ST_DISC, ST_ACCEPTED, ST_EOF, ST_RECONNECTING, ST_CLOSING } = cmgr;
  assertEquals([ST_NEW, ST_DATA, ST_DISC, ST_ACCEPTED], [0, 1, 2, 3]);
  assertEquals([ST_EOF, ST_RECONNECTING, ST_CLOSING, LISTENER], [4, 5, 1, "l0"]);
});

/** The methods that the Go package has, and ours beside them, as the compiler is to see them. */
interface Methods {
  listen(
    kind: ListenKind,
    port: number | string,
    iface: string,
    sink?: Sink,
    options?: ListenerOptions,
  ): Promise<string>;
  listenTcp(port: number | string, sink?: Sink): Promise<string>;
  listenUdp(port: number | string, sink?: Sink): Promise<string>;
  listenUnix(path: string, sink?: Sink): Promise<string>;
  listenTls(port: number | string, tls: TlsListenOptions, sink?: Sink): Promise<string>;
  listenMulticast(iface: string, group: string, sink?: Sink): Promise<string>;
  connect(
    target: string,
    id: string,
    sink?: Sink,
    options?: ConnectSessionOptions,
  ): Promise<Session>;
  write(id: string, bytes: Uint8Array): Promise<void>;
  writeN(id: string, bytes: Uint8Array, n: number): Promise<void>;
  writeStr(id: string, text: string): Promise<void>;
  writeToAll(
    bytes: Uint8Array,
    options?: { filter?: (session: Session) => boolean; slow?: "buffer" | "skip" | "close" },
  ): Promise<{ sent: number; skipped: number; failed: number }>;
  writeUdp(id: string, to: string, data: Uint8Array | string): Promise<void>;
  writeUdpAddr(id: string, addr: InetAddress, data: Uint8Array | string): Promise<void>;
  close(id: string): Promise<void>;
  address(id: string): Address;
  session(id: string): Session | undefined;
  sessions(): Session[];
  stats(): object;
  listStats(write?: (line: string) => void): void;
  shutdown(options?: { graceMs?: number }): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
  readonly events: AsyncIterable<SessionEvent>;
}

test("the methods are those of the Go package, and ours", () => {
  const manager: Methods = new ConnectionManager();
  const { listen, writeUdpAddr, events } = manager;
  assert(typeof listen === "function" && typeof writeUdpAddr === "function");
  assert(typeof manager[Symbol.asyncDispose] === "function");
  assert(typeof events[Symbol.asyncIterator] === "function");
  const open: (options: { port: string }) => Promise<Methods> = ConnectionManager.open;
  const resolve: (text: string) => Promise<InetAddress> = cmgr.resolveUdpAddr;
  assert(typeof open === "function" && typeof resolve === "function");
});

check("open() makes a manager that listens; its options are the manager's", async (scene) => {
  const sink = new Channel(4);
  const manager = await ConnectionManager.open({ port: "any", sink, chunkSize: 2 });
  scene.after(() => manager.shutdown({ graceMs: 100 }));
  const client = await scene.dial(manager, LISTENER);
  await client.write(utf8("abc"));
  const events = brief(await take(sink, 4));
  assertEquals(events, ["accepted a1", "new a1", "data a1 ab", "data a1 c"]);
  assertEquals(manager.events.length, 0);
});

check("spec 4 row 4: ids count up per manager, each kind from its own beginning", async (scene) => {
  const manager = scene.manager();
  const ids: string[] = [];
  for (const kind of ["tcp", "udp", "tcp", "udp"] as const) {
    ids.push(await manager.listen(kind, "any", "127.0.0.1"));
  }
  assertEquals(ids, ["l0", "u0", "l1", "u1"]);
  for (const listener of ["l1", "l0", "l1"]) {
    await scene.dial(manager, listener);
    await take(manager.events, 2);
  }
  assertEquals(manager.sessions().map(({ id }) => id), ["u0", "u1", "a1", "a2", "a3"]);
  const listeners = manager.sessions().map((it) => it.kind === "udp" ? null : it.listener);
  assertEquals(listeners, [null, null, "l1", "l0", "l1"]);
});

check("ids of what has gone are not given again", async (scene) => {
  const manager = await scene.listening();
  for (let i = 1; i <= 3; i++) {
    (await scene.dial(manager)).abort();
    const events = await takeUntil(manager.events, "disconnected");
    assertEquals(events.map(({ id }) => id).filter((id) => id !== `a${i}`), []);
  }
  await manager.close("l0");
  assertEquals(await manager.listenTcp("any"), "l1");
});

check("a port is a number, its digits or any", async (scene) => {
  const manager = scene.manager();
  await manager.listen("tcp", "any", "127.0.0.1");
  const port = portOf(manager);
  assert(port > 0);
  await manager.close("l0");
  for (const again of [port, String(port)]) {
    const id = await manager.listen("tcp", again, "127.0.0.1");
    assertEquals(manager.address(id), { hostname: "127.0.0.1", port });
    await manager.close(id);
  }
});

check("ports and kinds that are none are refused", async (scene) => {
  const manager = scene.manager();
  const wrong = [
    -1,
    65536,
    1.5,
    NaN,
    Infinity,
    "http",
    "-1",
    "65536",
    "0x1f90",
    "1e3",
    " 80 ",
    "+80",
  ];
  for (const port of wrong) {
    assertEquals(await codeOf(manager.listenTcp(port)), "RangeError");
    assertEquals(await codeOf(manager.listenUdp(port)), "RangeError");
  }
  for (const kind of ["", "TCP", "sctp", "tcp5"]) {
    assertEquals(await codeOf(manager.listen(kind as ListenKind, "any")), "TypeError");
  }
  assertEquals(await codeOf(manager.listen("tls", "any")), "TypeError");
  assertEquals(await codeOf(manager.listen("tcp", "any", "not an address")), "invalid-address");
  assertEquals(await codeOf(manager.listenTcp("any", {} as Sink)), "TypeError");
  assertEquals(manager.stats().listeners, []);
});

check("limits that are none are refused when they are given", async (scene) => {
  const names = [
    "capacity",
    "maxSessions",
    "maxTotalQueuedBytes",
    "maxQueuedBytes",
    "lowWaterMark",
    "idleTimeout",
    "stallTimeout",
    "chunkSize",
    "maxFrameBytes",
    "maxPending",
    "acceptRate",
    "maxSessionsPerAddress",
  ];
  for (const name of names) {
    for (const value of [0, -1, NaN, "5"]) {
      assertThrows(() => new ConnectionManager({ [name]: value }), RangeError, `${name} is`);
    }
  }
  const manager = scene.manager();
  for (const value of [0, -1, NaN, 2 ** 31]) {
    const connecting = manager.connect("127.0.0.1:1", "x", undefined, { timeoutMs: value });
    assertEquals(await codeOf(connecting), "RangeError");
  }
  for (const value of [-1, NaN, 2 ** 31]) {
    assertEquals(await codeOf(manager.shutdown({ graceMs: value })), "RangeError");
    assertEquals(await codeOf(manager.shutdown({ drainMs: value })), "RangeError");
  }
  assertEquals(await manager.listen("tcp", "any", "127.0.0.1"), "l0");
});

check("spec 4 row 32: tcp4 and tcp6 take one family", async (scene) => {
  const manager = scene.manager();
  const four = await manager.listen("tcp4", "any", "");
  const six = await manager.listen("tcp6", "any", "");
  await scene.client({ hostname: "127.0.0.1", port: portOf(manager, four) });
  await take(manager.events, 2);
  await scene.client({ hostname: "::1", port: portOf(manager, six) });
  const [accepted] = await take(manager.events, 2);
  assert(accepted!.from.startsWith("[::1]:"), accepted!.from);
  assertEquals(
    await codeOf(scene.client({ hostname: "::1", port: portOf(manager, four) })),
    "refused",
  );
  // It may listen by both: then one by IPv4 is not taken, and counted.
  const refused = () => manager.stats().listeners[1]!.refused.family;
  const four6 = scene.client({ hostname: "127.0.0.1", port: portOf(manager, six) });
  const taken = await four6.then(() => true, () => false);
  if (taken) await until(() => refused() === 1);
  assertEquals([manager.sessions().length, manager.events.length], [2, 0]);
});

check("spec 4 row 33: by default both families are taken, IPv4 peers as such", async (scene) => {
  const manager = scene.manager();
  const id = await manager.listenTcp("any");
  assertEquals(manager.address(id), { hostname: "::", port: portOf(manager) });
  await scene.client({ hostname: "127.0.0.1", port: portOf(manager) });
  const [four] = await take(manager.events, 2);
  await scene.client({ hostname: "::1", port: portOf(manager) });
  const [six] = await take(manager.events, 2);
  assert(/^127\.0\.0\.1:\d+$/.test(four!.from), four!.from);
  assert(/^\[::1\]:\d+$/.test(six!.from), six!.from);
});

check("address() tells where listeners and sessions are", async (scene) => {
  const manager = await scene.listening();
  const { address: client } = (await scene.dial(manager), (await take(manager.events, 2))[0]!);
  assertEquals(manager.address("a1"), manager.address("l0"));
  const session = manager.session("a1")!;
  assertEquals([session.remote, session.local], [client, manager.address("l0")]);
  assertEquals(thrown(() => manager.address("l1")), "no-such-session");
  manager.adopt(connPair()[0], "memory");
  assertEquals(thrown(() => manager.address("memory")), "no-such-session");
});

check("spec 4 row 6: names as the manager gives them, and odd ones, are refused", async (scene) => {
  const manager = await scene.listening();
  const target = `127.0.0.1:${portOf(manager)}`;
  const wrong = ["a1", "l0", "u7", "m99", "a007", "", "x".repeat(257), "a\nb", "\x7f", 5, null];
  for (const id of wrong as string[]) {
    assertEquals(await codeOf(manager.connect(target, id)), "invalid-id", `${id}`);
    assertEquals(thrown(() => manager.adopt(connPair()[0], id)), "invalid-id");
  }
  assertEquals([manager.sessions(), manager.events.length], [[], 0]);
  for (const id of ["a", "1", "ab1", "A1", "a1 ", "x".repeat(256), "näme ✓"]) {
    assertEquals((await manager.connect(target, id)).id, id);
  }
});

check("a name is taken from the call of connect() on, and free when that fails", async (scene) => {
  const manager = await scene.listening();
  const target = `127.0.0.1:${portOf(manager)}`;
  const first = manager.connect(target, "x");
  assertEquals(await codeOf(manager.connect(target, "x")), "duplicate-id");
  assertEquals(thrown(() => manager.adopt(connPair()[0], "x")), "duplicate-id");
  await first;
  await manager.close("x");
  const failing = manager.connect("127.0.0.1:1", "x", undefined, { signal: AbortSignal.abort() });
  assertEquals(await codeOf(failing), "aborted");
  assertEquals((await manager.connect(target, "x")).id, "x");
});

check("replace closes nothing if the name is refused", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const target = `127.0.0.1:${portOf(manager)}`;
  const connecting = manager.connect(target, "a1", undefined, { replace: true });
  assertEquals(await codeOf(connecting), "invalid-id");
  await manager.writeStr("a1", "alive");
  assertEquals(text(await readExactly(client, 5)), "alive");
});

check("a session that has ended is told of before another of its name begins", async (scene) => {
  const server = await scene.listening();
  const sink = new Channel(1);
  const manager = scene.manager();
  const target = `127.0.0.1:${portOf(server)}`;
  const first = await manager.connect(target, "x", sink);
  await first.close();
  // Its `disconnected` waits for a place behind `new`; the name is free already.
  const second = await manager.connect(target, "x", sink);
  const events = await take(sink, 3);
  assertEquals(brief(events), ["new x", "disconnected x closed", "new x"]);
  assertEquals(events.map(({ session }) => session === second), [false, false, true]);
  assert(first !== second);
});

check("connect() ends with its signal and its time; the name is free then", async (scene) => {
  // It takes connections, and answers no handshake.
  const silent = await scene.listening();
  const manager = scene.manager();
  const target = `127.0.0.1:${portOf(silent)}`;
  const connect = (options: cmgr.ConnectSessionOptions) =>
    codeOf(manager.connect(target, "x", undefined, { tls: { verify: false }, ...options }));
  assertEquals(await connect({ timeoutMs: 50 }), "timeout");
  assertEquals(await connect({ signal: AbortSignal.timeout(50) }), "timeout");
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 20);
  assertEquals(await connect({ signal: stop.signal }), "aborted");
  assertEquals(await connect({ signal: stop.signal }), "aborted");
  assertEquals(manager.sessions(), []);
  assertEquals((await manager.connect(target, "x")).id, "x");
});

check("listen() with a signal that has fired opens nothing", async (scene) => {
  const manager = scene.manager();
  const signal = AbortSignal.abort();
  for (const kind of ["tcp", "udp"] as const) {
    const listening = manager.listen(kind, "any", "127.0.0.1", undefined, { signal });
    assertEquals(await codeOf(listening), "aborted");
  }
  assertEquals([manager.stats().listeners, manager.sessions()], [[], []]);
});

check("write(), writeStr() and writeN() send what they are given", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  await manager.write("a1", utf8("bytes "));
  await manager.writeStr("a1", "text ✓ ");
  await manager.writeN("a1", utf8("some of it"), 4);
  const session = manager.session("a1")!;
  await session.writeStr(" and of the session");
  await manager.close("a1");
  assertEquals(text(await readAll(client)), "bytes text ✓ some and of the session");
});

check("writes of what is no bytes are refused, and send nothing", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [event] = await take(manager.events, 2);
  for (const wrong of ["text", null, undefined, 5, [1], new ArrayBuffer(2)]) {
    const bytes = wrong as unknown as Uint8Array;
    assertEquals(await codeOf(manager.write("a1", bytes)), "TypeError");
    assertEquals(await codeOf(manager.writeN("a1", bytes, 1)), "TypeError");
    assertEquals(await codeOf(manager.writeToAll(bytes)), "TypeError");
    assertEquals(await codeOf(event!.write(bytes)), "TypeError");
  }
  assertEquals(await codeOf(manager.writeStr("a1", 5 as unknown as string)), "TypeError");
  await manager.writeStr("a1", "end");
  assertEquals(text(await readExactly(client, 3)), "end");
});

check("close(listener, { sessions: true }) closes its sessions, and no others", async (scene) => {
  const manager = await scene.listening();
  const other = await manager.listen("tcp", "any", "127.0.0.1");
  const clients = [await scene.dial(manager), await scene.dial(manager)];
  await take(manager.events, 4);
  const stays = await scene.dial(manager, other);
  await take(manager.events, 2);
  await manager.writeToAll(utf8("last words"));
  await manager.close("l0", { sessions: true });
  for (const client of clients) assertEquals(text(await readAll(client)), "last words");
  const ends = brief(await take(manager.events, 2));
  assertEquals(ends.sort(), ["disconnected a1 closed", "disconnected a2 closed"]);
  await manager.writeStr("a3", "!");
  assertEquals(text(await readExactly(stays, 11)), "last words!");
});

check("spec 4 row 14: what came before close() can be taken, or discarded", async (scene) => {
  for (const discard of [false, true]) {
    const manager = await scene.listening();
    const client = await scene.dial(manager);
    await client.write(utf8("before"));
    await until(() => manager.events.length === 3);
    await manager.close("a1", { discard });
    const events = brief(await takeUntil(manager.events, "disconnected"));
    const data = discard ? [] : ["data a1 before"];
    assertEquals(events, ["accepted a1", "new a1", ...data, "disconnected a1 closed"]);
  }
});

check("close() of a session may be called again, also while it closes", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  const [event] = await take(manager.events, 2);
  const { session } = event!;
  await Promise.all([session.close(), session.close(), manager.close("a1").catch(() => {})]);
  await session.close();
  await takeUntil(manager.events, "disconnected");
  await session.close({ discard: true });
  assertEquals(session.stats().state, "ended");
});

check("session.context is the application's, and each event has its session", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [accepted] = await take(manager.events, 2);
  assertEquals(accepted!.session.context, undefined);
  accepted!.session.context = { user: "somebody" };
  await client.write(utf8("x"));
  client.abort();
  const events: SessionEvent[] = await takeUntil(manager.events, "disconnected");
  for (const { session } of events) assertEquals(session.context, { user: "somebody" });
  assertEquals(manager.session("a1"), undefined);
});

check("two managers in one process know nothing of each other", async (scene) => {
  const [one, two] = [await scene.listening(), await scene.listening()];
  const clients = [await scene.dial(one), await scene.dial(two)];
  for (const manager of [one, two]) {
    assertEquals(brief(await take(manager.events, 2)), ["accepted a1", "new a1"]);
  }
  await one.writeStr("a1", "one");
  await two.writeStr("a1", "two");
  assertEquals(text(await readExactly(clients[0]!, 3)), "one");
  await one.shutdown({ graceMs: 100 });
  assertEquals(text(await readExactly(clients[1]!, 3)), "two");
  await clients[1]!.write(utf8("alive"));
  assertEquals(brief(await take(two.events, 1)), ["data a1 alive"]);
});
