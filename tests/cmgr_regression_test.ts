/** Mistakes that a connection manager once made, and does not make again. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  auto,
  bindDatagram,
  connPair,
  listen,
  type TlsListenOptions,
  type Transport,
} from "@trunkline/sockets/auto";
import {
  ConnectionManager,
  type ManagerError,
  type SessionEvent,
  type UdpSession,
} from "@trunkline/sockets/cmgr";
import { Queue } from "../adapters/queue.ts";
import {
  brief,
  check,
  codeOf,
  portOf,
  type Scene,
  take,
  takeUntil,
  text,
  thrown,
  until,
  utf8,
  within,
} from "./cmgr_support.ts";
import { pem } from "./adapter_fixtures.ts";
import { readAll, readExactly } from "./adapter_suite.ts";
import { timersLeft } from "./cmgr_model_timers.ts";

const SERVER: TlsListenOptions = { cert: pem("server.crt"), key: pem("server.key") };
/** Longer than a test waits. */
const LONG_MS = 60_000;
const NEVER = new Promise<never>(() => {});

/** A stream that takes nothing, and gives nothing. */
const stuck = () => ({
  readable: new ReadableStream<Uint8Array>(),
  writable: new WritableStream<Uint8Array>({ write: () => NEVER }),
});

/** A session `x` that reconnects, and its peer. */
async function reconnecting(scene: Scene, delayMs: number) {
  const listener = await listen("127.0.0.1:0");
  scene.after(() => listener.close());
  const manager = scene.manager();
  const reconnect = { minDelayMs: delayMs, maxDelayMs: delayMs };
  await manager.connect(listener.addr, "x", undefined, { reconnect });
  const peer = await within(listener.accept(), "a connection");
  scene.after(() => peer.abort());
  return { manager, peer };
}

/** The brief events up to the end of all. */
async function rest(manager: ConnectionManager): Promise<string[]> {
  const events: SessionEvent[] = [];
  const read = async () => {
    for await (const event of manager.events) events.push(event);
  };
  await within(read(), "the end of all events");
  return brief(events);
}

check("reloadTls() keeps the handshakeTimeout that was asked for", async (scene) => {
  const given: TlsListenOptions[] = [];
  const transport: Transport = {
    ...auto,
    listen: async (address, options) =>
      Object.assign(await auto.listen(address, options), {
        reloadTls: (tls: TlsListenOptions) => given.push(tls),
      }),
  };
  const manager = scene.manager({ transport, handshakeTimeout: 300 });
  await manager.listen("tls", "any", "127.0.0.1", undefined, { tls: SERVER });
  const options = { tls: SERVER, handshakeTimeout: 400 };
  await manager.listen("tls", "any", "127.0.0.1", undefined, options);
  manager.serve(await transport.listen("127.0.0.1:0"), undefined, { handshakeTimeout: 500 });
  for (const id of ["l0", "l1", "l2"]) manager.reloadTls(id, SERVER);
  assertEquals(given.map((tls) => tls.handshakeTimeoutMs), [300, 400, 500]);
  manager.reloadTls("l0", { ...SERVER, handshakeTimeoutMs: 7 });
  assertEquals(given.at(-1), { ...SERVER, handshakeTimeoutMs: 7 });
});

check("adopt() takes flushTimeoutMs, its own and the manager's", async (scene) => {
  const own = scene.manager().adopt(stuck(), "x", undefined, { flushTimeoutMs: 20 });
  const inherited = scene.manager({ flushTimeoutMs: 20 }).adopt(stuck(), "x");
  for (const session of [own, inherited]) {
    session.writeStr("nobody takes it");
    assertEquals(await codeOf(session.close()), "timeout");
  }
});

check("a drain ends when the peer of a session that reconnects has ended", async (scene) => {
  const { manager, peer } = await reconnecting(scene, 1);
  const down = manager.shutdown({ drainMs: LONG_MS });
  await peer.close();
  await within(down, "the drain");
  assertEquals(await rest(manager), ["new x", "disconnected x eof"]);
});

check("shutdown() with a drain ends a session that is reconnecting as closed", async (scene) => {
  const { manager, peer } = await reconnecting(scene, LONG_MS);
  await peer.close();
  await takeUntil(manager.events, "reconnecting");
  await within(manager.shutdown({ drainMs: LONG_MS }), "the drain");
  assertEquals(await rest(manager), ["disconnected x closed"]);
});

check("a datagram to a name leaves before close(), which leaves no timer", async (scene) => {
  const other = await bindDatagram({ hostname: "127.0.0.1", port: 0 });
  scene.after(() => other.close());
  const manager = scene.manager();
  await manager.listen("udp", "any", "127.0.0.1");
  const left = await timersLeft(async () => {
    const written = manager.writeUdp("u0", `localhost:${other.addr.port}`, "before");
    await within(manager.close("u0"), "close()");
    await written;
  });
  assertEquals(left, 0);
  assertEquals(text((await within(other.receive(), "the datagram")).data), "before");
});

check("a UDP socket that is given up waits for no datagram", async (scene) => {
  const transport: Transport = {
    ...auto,
    bindDatagram: async (address, options) =>
      Object.assign(await auto.bindDatagram(address, options), { send: () => NEVER }),
  };
  const manager = scene.manager({ transport });
  await manager.listen("udp", "any", "127.0.0.1");
  manager.writeUdp("u0", "127.0.0.1:9", "never sent");
  const left = await timersLeft(async () => {
    assertEquals(await codeOf(manager.close("u0", { signal: AbortSignal.abort() })), "aborted");
    assertEquals(brief(await take(manager.events, 1)), ["disconnected u0 closed"]);
  });
  assertEquals(left, 0);
});

check("a signal ends close() with an error of the manager", async (scene) => {
  const manager = scene.manager();
  for (
    const [signal, code] of [[AbortSignal.timeout(1), "timeout"], [
      AbortSignal.abort(),
      "aborted",
    ]] as const
  ) {
    const session = manager.adopt(stuck(), code);
    session.writeStr("nobody takes it");
    const error = await within(session.close({ signal }).catch((error) => error), "close()");
    assertEquals([error.name, error.code], ["ManagerError", code]);
    const [end] = (await takeUntil(manager.events, "disconnected", code)).slice(-1);
    assertEquals([end!.reason, (end!.error as { code?: string }).code], ["closed", code]);
  }
});

check("an interface of the other family is refused, and nothing is opened", async (scene) => {
  const manager = scene.manager();
  for (const family of [4, 6] as const) {
    for (const kind of [`tcp${family}`, `udp${family}`] as const) {
      const wrong = manager.listen(kind, "any", family === 4 ? "::1" : "127.0.0.1");
      assertEquals(await codeOf(wrong), "invalid-address", kind);
    }
  }
  const { listeners, sessions } = manager.stats();
  assertEquals([listeners, sessions], [[], []]);
});

check("datagrams of the other family are counted", async (scene) => {
  const manager = scene.manager();
  await manager.listen("udp6", "any");
  const other = await bindDatagram({ hostname: "127.0.0.1", port: 0 });
  scene.after(() => other.close());
  await other.send(utf8("x"), { hostname: "127.0.0.1", port: portOf(manager, "u0") });
  await until(() => manager.session("u0")!.stats().dropped === 1);
  assertEquals(manager.events.length, 0);
});

check("a queue lets go of what was taken", async () => {
  const bun = (globalThis as { Bun?: { gc(wait: boolean): void } }).Bun;
  if (bun === undefined) setFlagsFromString("--expose-gc");
  const collect: () => void = bun === undefined ? runInNewContext("gc") : () => bun.gc(true);
  const queue = new Queue<object>();
  const taken = (() => {
    for (let i = 0; i < 101; i++) queue.push({ i });
    return Array.from({ length: 100 }, () => new WeakRef(queue.shift()!));
  })();
  // Not in the same turn, in which they are kept; some may stay on a stack.
  await until(() => {
    collect();
    return taken.filter((it) => it.deref() !== undefined).length < 10;
  });
  assertEquals(queue.length, 1);
});

check("replace takes over the place of the old session at maxSessions", async (scene) => {
  const server = await scene.listening();
  const manager = scene.manager({ maxSessions: 1 });
  await manager.connect(server.address("l0"), "up");
  const next = await manager.connect(server.address("l0"), "up", undefined, { replace: true });
  assertStrictEquals(manager.session("up"), next);
  const events = brief(await take(manager.events, 3));
  assertEquals(events, ["new up", "disconnected up closed", "new up"]);
  assertEquals(await codeOf(manager.connect(server.address("l0"), "b")), "too-many-sessions");
});

check("the handler of disconnected connects again at maxSessions", async (scene) => {
  const server = await scene.listening();
  const manager = scene.manager({ maxSessions: 1 });
  const again = Promise.withResolvers<void>();
  let ends = 0;
  const connect = () =>
    manager.connect(server.address("l0"), "up", async ({ state }) => {
      if (state === "disconnected" && ++ends === 1) {
        await connect().then(() => again.resolve(), again.reject);
      }
    });
  await connect();
  await takeUntil(server.events, "new", "a1");
  await server.close("a1");
  await within(again.promise, "the next connection");
  await takeUntil(server.events, "new", "a2");
  assertEquals(manager.sessions().map(({ id }) => id), ["up"]);
});

check("bind() refuses what is no address, and takes a text", async (scene) => {
  const manager = scene.manager();
  await manager.listen("udp", "any", "127.0.0.1");
  const session = manager.session("u0") as UdpSession;
  for (const address of [undefined, null]) {
    assertEquals(thrown(() => session.bind(address as unknown as string)), "TypeError");
  }
  for (
    const address of [
      5,
      {},
      "nonsense",
      "/a/path",
      "127.0.0.1:0",
      { hostname: "127.0.0.1", port: 0 },
      { hostname: "127.0.0.1", port: 70_000 },
      { hostname: "no name", port: 9 },
    ]
  ) {
    const bind = () => session.bind(address as string);
    assertEquals(thrown(bind), "invalid-address", JSON.stringify(address));
  }
  assertEquals([session.remote, session.from, manager.stats().sessions[0]!.from], [
    undefined,
    "",
    "",
  ]);
  session.bind("[::1]:9");
  assertEquals([session.remote, session.from], [{ hostname: "::1", port: 9 }, "[::1]:9"]);
  const mine = { hostname: "127.0.0.1", port: 9 };
  session.bind(mine);
  Object.assign(mine, { port: "none" });
  manager.listStats(() => {});
  assertEquals(session.from, "127.0.0.1:9");
  await manager.close("u0");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected u0 closed"]);
});

check("UDP sockets count towards maxSessions, and are limited by it", async (scene) => {
  const manager = scene.manager({ maxSessions: 2 });
  await manager.listen("udp", "any", "127.0.0.1");
  await manager.listen("udp", "any", "127.0.0.1");
  assertEquals(await codeOf(manager.listen("udp", "any", "127.0.0.1")), "too-many-sessions");
  assertEquals(thrown(() => manager.adopt(connPair()[0], "x")), "too-many-sessions");
  await manager.close("u1");
  await takeUntil(manager.events, "disconnected");
  assertEquals(await manager.listen("udp", "any", "127.0.0.1"), "u2");
});

check("tls is refused by listenMulticast() and serve()", async (scene) => {
  const manager = scene.manager();
  const multicast = manager.listenMulticast("", "239.7.7.7:9", undefined, { tls: SERVER });
  assertEquals(await codeOf(multicast), "TypeError");
  const listener = await listen("127.0.0.1:0");
  scene.after(() => listener.close());
  const serve = () => manager.serve(listener, undefined, { tls: SERVER });
  assertEquals(thrown(serve), "TypeError");
  assertEquals([manager.sessions(), manager.stats().listeners], [[], []]);
});

check("a group needs a port", async (scene) => {
  const manager = scene.manager();
  assertEquals(await codeOf(manager.listenMulticast("", "239.7.7.7:0")), "invalid-address");
  assertEquals(manager.sessions(), []);
});

check("the signal of a second shutdown() hurries the first", async (scene) => {
  const drains = scene.manager();
  drains.adopt(connPair()[0], "x");
  const flushes = scene.manager();
  flushes.adopt(stuck(), "x").writeStr("nobody takes it");
  const downs = [
    drains.shutdown({ drainMs: LONG_MS, graceMs: LONG_MS }),
    flushes.shutdown({ graceMs: LONG_MS }),
  ];
  const stop = new AbortController();
  for (const manager of [drains, flushes]) downs.push(manager.shutdown({ signal: stop.signal }));
  stop.abort();
  await within(Promise.all(downs), "both");
  for (const manager of [drains, flushes]) {
    assertEquals(await rest(manager), ["new x", "disconnected x closed"]);
  }
});

check("a write right after close() is refused, and not sent", async (scene) => {
  const manager = scene.manager();
  for (const id of ["session", "manager"]) {
    const [conn, peer] = connPair();
    scene.after(() => peer.abort());
    const session = manager.adopt(conn, id);
    session.writeStr("before");
    const closing = id === "session" ? session.close() : manager.close(id);
    const after = [session.writeStr("after"), manager.writeStr(id, "after")];
    assertEquals(session.stats().state, "closing");
    for (const write of after) assertEquals(await codeOf(write), "disconnected");
    assertEquals(text(await within(readAll(peer), "what was sent")), "before");
    await closing;
  }
});

check("closeWrite() may be called again, and after close()", async (scene) => {
  const manager = scene.manager();
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  const session = manager.adopt(conn, "x");
  session.writeStr("all");
  await within(Promise.all([session.closeWrite(), session.closeWrite()]), "both");
  await session.closeWrite();
  assertEquals(text(await readExactly(peer, 3)), "all");
  assertEquals(await peer.read(), null);
  const closing = session.close();
  await within(session.closeWrite(), "one more");
  await peer.close();
  await within(closing, "close()");
});

check("options that are none are refused where they are given", async (scene) => {
  const wrong: [object, string][] = [
    [{ onError: 5 }, "TypeError"],
    [{ onRefused: "x" }, "TypeError"],
    [{ flushTimeoutMs: -1 }, "RangeError"],
    [{ lingerMs: -5 }, "RangeError"],
    [{ handshakeTimeout: -1 }, "RangeError"],
    [{ maxPendingDatagrams: 0 }, "RangeError"],
    [{ backlog: "x" }, "RangeError"],
    [{ chunkSize: 1.5 }, "RangeError"],
  ];
  for (const [options, name] of wrong) {
    assertEquals(thrown(() => new ConnectionManager(options)), name, JSON.stringify(options));
  }
  new ConnectionManager({ lingerMs: 0 });
  const manager = scene.manager();
  for (const reconnect of [5, "yes", null]) {
    const options = { reconnect: reconnect as unknown as true };
    const connecting = manager.connect("127.0.0.1:1", "x", undefined, options);
    assertEquals(await codeOf(connecting), "TypeError", String(reconnect));
  }
});

check("connect() with what is no signal leaves no timer", async (scene) => {
  const server = await scene.listening();
  const manager = scene.manager();
  const options = { signal: 5 as unknown as AbortSignal };
  const left = await timersLeft(async () => {
    assertEquals(
      await codeOf(manager.connect(server.address("l0"), "x", undefined, options)),
      "TypeError",
    );
  });
  assertEquals(left, 0);
  await manager.connect(server.address("l0"), "x");
});

check("unix needs a path, and makes no file of another name", async (scene) => {
  const manager = scene.manager();
  for (
    const listening of [
      manager.listen("unix", ""),
      manager.listen("unix", "any"),
      manager.listen("unix", 7000),
      manager.listenUnix(undefined as unknown as string),
    ]
  ) assertEquals(await codeOf(listening), "invalid-address");
  assert(manager.stats().listeners.length === 0);
});

check("a sink that fails because of another session is told", async (scene) => {
  const told = Promise.withResolvers<Error>();
  const manager = scene.manager({ onError: told.resolve });
  const [[gone], [conn, peer]] = [connPair(), connPair()];
  scene.after(() => peer.abort());
  const other = manager.adopt(gone, "other");
  await other.close({ signal: AbortSignal.abort() }).catch(() => {});
  manager.adopt(conn, "x", async (event) => {
    if (event.state === "data") await other.write(event.data);
  });
  await peer.write(utf8("to be passed on"));
  const error = await within(told.promise, "an error") as ManagerError;
  assertEquals([error.code, error.sessionId], ["disconnected", "other"]);
});

check("the rest of a chunk whose memory was given away is not lost in silence", async (scene) => {
  const manager = scene.manager({ chunkSize: 2 });
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  const end = Promise.withResolvers<SessionEvent>();
  let pieces = 0;
  manager.adopt(conn, "x", (event) => {
    if (event.state === "disconnected") end.resolve(event);
    if (event.state !== "data") return;
    pieces++;
    structuredClone(event.data, { transfer: [event.data.buffer as ArrayBuffer] });
  });
  // Its session may end first.
  peer.write(utf8("123456")).catch(() => {});
  const { reason, error } = await within(end.promise, "the end");
  assertEquals([pieces, reason, error?.name], [1, "error", "TypeError"]);
});

check("listenUnix() takes the names that connect() takes", async (scene) => {
  const path = join(mkdtempSync(join(tmpdir(), "trunkline-")), "x.sock");
  scene.after(() => rmSync(dirname(path), { recursive: true, force: true }));
  const manager = scene.manager();
  await manager.listenUnix(`unix:${path}`);
  assertEquals(manager.address("l0"), { path });
  assertEquals(await codeOf(manager.listenUnix("unix:")), "invalid-address");
});

check("the parts of sessions that come later never more than double the total", async (scene) => {
  const manager = scene.manager({ maxTotalQueuedBytes: 1000, maxSessions: 20 });
  for (let i = 0; i < 20; i++) {
    const session = manager.adopt(stuck(), `x ${i}`);
    while (await session.write(new Uint8Array(10)).then(() => true, () => false));
    assert(session.queued > 0, "it has had no part");
  }
  assert(manager.stats().queued <= 2000, `${manager.stats().queued} bytes wait`);
});
