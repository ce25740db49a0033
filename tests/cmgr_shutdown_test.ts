/** How a connection manager ends. */
import { assert, assertEquals } from "@std/assert";
import { bindDatagram, connPair, listen, type Listener } from "@trunkline/sockets/auto";
import { Channel, ConnectionManager, discard } from "@trunkline/sockets/cmgr";
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
  within,
} from "./cmgr_support.ts";
import { readAll } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

check("shutdown() closes all there is; events end after the last", async (scene) => {
  const manager = await scene.listening();
  await manager.listen("udp", "any", "127.0.0.1");
  const address = manager.address("l0");
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const ended = readAll(client).then(() => client.close());
  await within(manager.shutdown(), "shutdown()");
  await ended;
  const { listeners, sessions } = manager.stats();
  assertEquals([listeners, sessions, manager.sessions()], [[], [], []]);
  const ends = brief(await take(manager.events, 2)).sort();
  assertEquals(ends, ["disconnected a1 closed", "disconnected u0 closed"]);
  assertEquals(await within(manager.events.receive(), "the end of the events"), null);
  assertEquals(await codeOf(scene.client(address)), "refused");
});

check("shutdown() of a manager that never did anything", async () => {
  const manager = new ConnectionManager();
  await manager.shutdown();
  assertEquals(await within(manager.events.receive(), "the end"), null);
});

check("shutdown() sends what was written before", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const bytes = new Uint8Array(8 * 1024 * 1024).fill(7);
  manager.write("a1", bytes);
  const [all] = await Promise.all([
    readAll(client).finally(() => client.close()),
    manager.shutdown(),
  ]);
  assertEquals([all.length, all.every((it) => it === 7)], [bytes.length, true]);
});

check("shutdown() gives a peer up that takes nothing for graceMs", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  await take(manager.events, 2);
  manager.write("a1", new Uint8Array(15 * 1024 * 1024));
  await within(manager.shutdown({ graceMs: 30 }), "shutdown()");
  const [end] = await take(manager.events, 1);
  assertEquals([end!.state, end!.reason], ["disconnected", "closed"]);
  assertEquals([manager.stats().queued, await manager.events.receive()], [0, null]);
});

check("shutdown({ graceMs: 0 }) waits for nothing", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  await take(manager.events, 2);
  await within(manager.shutdown({ graceMs: 0 }), "shutdown()");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 closed"]);
});

check("shutdown({ drainMs }) lets sessions end by themselves, and takes no more", async (scene) => {
  const manager = await scene.listening();
  const address = manager.address("l0");
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const shutdown = manager.shutdown({ drainMs: 20_000, graceMs: 100 });
  await until(() => manager.stats().listeners.length === 0);
  await client.write(utf8("still"));
  const [event] = await take(manager.events, 1);
  await event!.writeStr("served");
  assertEquals(await codeOf(scene.client(address)), "refused");
  await client.closeWrite();
  assertEquals(text(await readAll(client)), "served");
  // By itself, long before the 20 seconds.
  await within(shutdown, "shutdown()");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 eof"]);
});

check("shutdown({ drainMs }) closes what is left after that time", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  await take(manager.events, 2);
  await within(manager.shutdown({ drainMs: 20, graceMs: 20 }), "shutdown()");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 closed"]);
});

check("shutdown() may be called again, and is what `await using` calls", async (scene) => {
  const manager = await scene.listening();
  const all = [
    manager.shutdown(),
    manager.shutdown({ graceMs: 1 }),
    manager[Symbol.asyncDispose](),
  ];
  await within(Promise.all(all), "all of them");
  await manager.shutdown();
});

check("shutdown() may be awaited in a handler, of any state", async (scene) => {
  for (const state of ["accepted", "new", "data", "disconnected"]) {
    const manager = scene.manager();
    const seen: string[] = [];
    let shutdown: Promise<void> | undefined;
    await manager.listen("tcp", "any", "127.0.0.1", async (event) => {
      seen.push(event.state);
      if (event.state === state) await (shutdown ??= manager.shutdown({ graceMs: 20 }));
    });
    const client = await scene.dial(manager);
    await client.write(utf8("x"));
    if (state === "disconnected") await client.close();
    await until(() => shutdown !== undefined);
    await within(shutdown!, `shutdown() in ${state}`);
    await until(() => seen.includes("disconnected"));
    assertEquals(seen.filter((it) => it === "disconnected").length, 1);
  }
});

check("after shutdown() every call that opens something is refused", async (scene) => {
  const manager = await scene.listening();
  await manager.shutdown();
  const opened = [
    manager.listen("tcp", "any", "127.0.0.1"),
    manager.listenTcp("any"),
    manager.listenUdp("any"),
    manager.listenUnix("/nowhere/x.sock"),
    manager.listenMulticast("", "239.1.2.3:5000"),
    manager.connect("127.0.0.1:1", "x"),
  ];
  for (const promise of opened) assertEquals(await codeOf(promise), "closed");
  const [conn] = connPair();
  assertEquals(thrown(() => manager.adopt(conn, "x")), "closed");
  assertEquals(thrown(() => manager.serve({} as Listener)), "closed");
  assertEquals(await codeOf(manager.writeStr("x", "lost")), "no-such-session");
  assertEquals(await manager.writeToAll(utf8("x")), { sent: 0, skipped: 0, failed: 0 });
  conn.abort();
});

check("shutdown() ends connects that are pending", async (scene) => {
  // It takes connections, and never answers their handshake.
  const silent = await scene.listening();
  const manager = scene.manager();
  const target = `127.0.0.1:${portOf(silent)}`;
  const connecting = codeOf(manager.connect(target, "x", undefined, { tls: { verify: false } }));
  await takeUntil(silent.events, "accepted");
  await within(manager.shutdown(), "shutdown()");
  const code = await connecting;
  assert(code === "closed" || code === "aborted", code);
  assertEquals([manager.sessions(), await manager.events.receive()], [[], null]);
});

check("shutdown() while a listener is being opened leaves none", async (scene) => {
  for (const kind of ["tcp", "udp"] as const) {
    const manager = scene.manager();
    const listening = manager.listen(kind, "any", "127.0.0.1");
    await manager.shutdown();
    assertEquals(await codeOf(listening), "closed");
    assertEquals([manager.stats().listeners, manager.sessions()], [[], []]);
  }
});

check("shutdown() ends a session that waits to be connected again", async (scene) => {
  const listener = await listen("127.0.0.1:0");
  const manager = scene.manager();
  const reconnect = { minDelayMs: 20_000, maxDelayMs: 20_000 };
  await manager.connect(listener.addr, "x", undefined, { reconnect });
  (await listener.accept()).abort();
  await listener.close();
  await takeUntil(manager.events, "reconnecting");
  await within(manager.shutdown(), "shutdown()");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected x closed"]);
  assertEquals(await manager.events.receive(), null);
});

check("shutdown() does not wait for events that nobody takes", async (scene) => {
  const sink = new Channel(1);
  const manager = scene.manager();
  await manager.listen("tcp", "any", "127.0.0.1", sink);
  for (let i = 0; i < 3; i++) await scene.dial(manager);
  await until(() => manager.sessions().length === 3);
  await within(manager.shutdown({ graceMs: 20 }), "shutdown()");
  // They can be taken all the same, and the last of each is its end.
  const events = brief(await take(sink, 9));
  for (const id of ["a1", "a2", "a3"]) {
    const own = [`accepted ${id}`, `new ${id}`, `disconnected ${id} closed`];
    assertEquals(events.filter((it) => it.includes(id)), own);
  }
  assertEquals(await within(manager.events.receive(), "the end"), null);
});

check("calls that nobody waits for are no unhandled rejections", async (scene) => {
  const reasons = await unhandledDuring(async () => {
    const manager = await scene.listening({ maxQueuedBytes: 10 });
    const client = await scene.dial(manager);
    const [event] = await take(manager.events, 2);
    const udp = await manager.listen("udp", "any", "127.0.0.1", discard);
    const socket = await bindDatagram("127.0.0.1:0");
    await socket.close();
    const { addr } = socket;
    const bytes = utf8("more than ten bytes");
    const use = () => {
      for (const id of ["a1", "nobody", udp]) {
        manager.write(id, bytes);
        manager.writeN(id, bytes, 100);
        manager.writeStr(id, 5 as unknown as string);
        manager.writeUdp(id, "nonsense", "x");
        manager.writeUdp(id, "127.0.0.1:0", "x");
        manager.writeUdpAddr(id, addr, new Uint8Array(70_000));
        manager.writeUdpAddr(id, addr, bytes);
      }
      manager.writeToAll(5 as unknown as Uint8Array);
      manager.writeToAll(bytes, {
        filter: () => {
          throw new Error("mine");
        },
      });
      event!.write(bytes);
      event!.writeN(bytes, 100);
      event!.writeStr("x");
      const { session } = event!;
      session.write(bytes, { signal: AbortSignal.abort() });
      if (session.kind !== "udp") session.closeWrite();
    };
    use();
    client.abort();
    await takeUntil(manager.events, "disconnected");
    use();
    for (const id of ["a1", "nobody", udp, "l0"]) manager.close(id);
    event!.session.close();
    manager.shutdown({ graceMs: -1 });
    manager.shutdown({ graceMs: 10 });
    use();
    await manager.shutdown();
  });
  assertEquals(reasons, []);
});

check("a write that waits is told when its session ends", async (scene) => {
  const manager = await scene.listening({ lowWaterMark: 1 });
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const waiting = manager.write("a1", new Uint8Array(15 * 1024 * 1024));
  const late = codeOf(waiting);
  client.abort();
  assertEquals(await late, "disconnected");
});

check("a signal ends the wait of a write alone: the bytes are sent", async (scene) => {
  const manager = await scene.listening({ lowWaterMark: 1 });
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const bytes = new Uint8Array(12 * 1024 * 1024).fill(7);
  const stop = new AbortController();
  const waiting = manager.write("a1", bytes, { signal: stop.signal });
  stop.abort();
  assertEquals(await codeOf(waiting), "aborted");
  const late = manager.write("a1", utf8("x"), { signal: AbortSignal.timeout(1) });
  assertEquals(await codeOf(late), "timeout");
  manager.close("a1");
  assertEquals((await readAll(client)).length, bytes.length + 1);
});

check("a signal hurries close(): what has not left is given up", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  const [event] = await take(manager.events, 2);
  event!.write(new Uint8Array(15 * 1024 * 1024));
  const stop = new AbortController();
  const closing = event!.session.close({ signal: stop.signal });
  const late = codeOf(closing);
  stop.abort();
  assert(["aborted", "disconnected"].includes(await late), await late);
  assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 closed"]);
  assertEquals(manager.stats().queued, 0);
});

check("a signal hurries shutdown(), and its drain", async (scene) => {
  const times = [{ graceMs: 20_000 }, { drainMs: 20_000, graceMs: 20_000 }];
  for (const options of times) {
    const manager = await scene.listening();
    await scene.dial(manager);
    await take(manager.events, 2);
    manager.write("a1", new Uint8Array(15 * 1024 * 1024));
    const stop = new AbortController();
    const closing = manager.shutdown({ ...options, signal: stop.signal });
    stop.abort();
    await within(closing, "shutdown()");
    assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 closed"]);
  }
});
