/** What the model has found, one test for each. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { auto, connPair } from "../adapters/auto.ts";
import { type Conn, ConnectError, type Transport } from "../adapters/types.ts";
import { ConnectionManager, discard, type SessionEvent } from "../cmgr/mod.ts";
import { sleep } from "./adapter_suite.ts";
import { MemoryNet } from "./cmgr_model_net.ts";

const check = (title: string, body: () => Promise<void>) =>
  test(`cmgr model: ${title}`, { timeout: 20_000 }, body);

async function ofState(manager: ConnectionManager, state: string): Promise<SessionEvent> {
  for await (const event of manager.events) if (event.state === state) return event;
  throw new Error(`no event ${state}`);
}

check("a session that is closed at the very moment at which it ends has ended", async () => {
  for (let microtasks = 0; microtasks < 60; microtasks++) {
    const manager = new ConnectionManager();
    const [near, peer] = connPair();
    const session = manager.adopt(near, "x", discard);
    await sleep(0);
    peer.closeWrite();
    for (let left = microtasks; left > 0; left--) await undefined;
    session.close();
    await sleep(0);
    peer.close();
    await manager.shutdown();
    assertEquals(session.stats().state, "ended", `after ${microtasks} microtasks`);
  }
});

check("close() while a connection is being opened again is followed by the end alone", async () => {
  const net = new MemoryNet({ capacity: 1000, piece: 1000 });
  const listener = await net.listen("127.0.0.1:0");
  let begun = false;
  const transport: Transport = {
    ...{ listen: () => net.listen("127.0.0.1:0"), bindDatagram: () => net.bindDatagram() },
    connect: async (address, { signal } = {}) => {
      if (!begun) return await net.connect(address);
      return await new Promise((_, reject) => {
        const aborted = new ConnectError("aborted", "connecting: aborted");
        signal?.addEventListener("abort", () => reject(aborted), { once: true });
        dialing.resolve();
      });
    },
  };
  const dialing = Promise.withResolvers<void>();
  const manager = new ConnectionManager({ transport });
  const session = await manager.connect(listener.addr, "x", undefined, {
    reconnect: { minDelayMs: 1 },
  });
  begun = true;
  (await listener.accept()).abort();
  await dialing.promise;
  await session.close();
  await manager.shutdown();
  const states: string[] = [];
  for await (const { state } of manager.events) states.push(state);
  assertEquals(states, ["new", "reconnecting", "disconnected"]);
});

check("close() does not wait for the pause before the next attempt", async () => {
  const transport = new MemoryNet({ capacity: 1000, piece: 1000 });
  const listener = await transport.listen("127.0.0.1:0");
  const manager = new ConnectionManager({ transport });
  const reconnect = { minDelayMs: 60_000, maxDelayMs: 60_000 };
  const session = await manager.connect(listener.addr, "x", undefined, { reconnect });
  (await listener.accept()).abort();
  await ofState(manager, "reconnecting");
  await session.close();
  assertEquals((await ofState(manager, "disconnected")).reason, "closed");
  await listener.close();
  await manager.shutdown();
});

check("a session whose side we have ended can write again when it is connected again", async () => {
  const transport = new MemoryNet({ capacity: 1000, piece: 1000 });
  const listener = await transport.listen("127.0.0.1:0");
  const manager = new ConnectionManager({ transport });
  const reconnect = { minDelayMs: 1 };
  const session = await manager.connect(listener.addr, "x", undefined, { reconnect });
  await session.closeWrite();
  await (await listener.accept()).close();
  await ofState(manager, "reconnecting");
  await ofState(manager, "new");
  await session.write(new Uint8Array([7]));
  const peer = await listener.accept();
  assertEquals(await peer.read(), new Uint8Array([7]));
  peer.abort();
  await listener.close();
  await manager.shutdown({ graceMs: 0 });
});

check("replace opens the new connection, however the old one ends", async () => {
  const transport = new MemoryNet({ capacity: 1, piece: 1 });
  const listener = await transport.listen("127.0.0.1:0");
  const manager = new ConnectionManager({ transport, flushTimeoutMs: 10 });
  const old = await manager.connect(listener.addr, "x", discard);
  // Nobody reads that, so it cannot be closed in order.
  old.write(new Uint8Array(1000));
  const session = await manager.connect(listener.addr, "x", discard, { replace: true });
  assertEquals(manager.session("x"), session);
  await listener.close();
  await manager.shutdown({ graceMs: 0 });
});

check("a session whose side we have ended is idle like any other", async () => {
  const manager = new ConnectionManager({ idleTimeout: 20, allowHalfOpen: true });
  const [near, peer] = connPair();
  const session = manager.adopt(near, "x");
  await session.closeWrite();
  assertEquals((await ofState(manager, "disconnected")).reason, "timeout");
  peer.abort();
  await manager.shutdown();
});

check("a session that ends its side after its peer's reset is told as reset", async () => {
  const manager = new ConnectionManager({ allowHalfOpen: true });
  const [near, peer] = connPair();
  const session = manager.adopt(near, "x");
  peer.closeWrite();
  await ofState(manager, "eof");
  peer.abort();
  await sleep(0);
  session.closeWrite();
  const { reason, error } = await ofState(manager, "disconnected");
  assertEquals([reason, (error as ConnectError | undefined)?.code], ["reset", "reset"]);
  await manager.shutdown();
});

check("a write that fails when the peer has just ended is told by the end", async () => {
  for (let microtasks = 0; microtasks < 40; microtasks++) {
    const manager = new ConnectionManager();
    let end: () => void;
    const readable = new ReadableStream({ start: (it) => void (end = () => it.close()) });
    const writable = new WritableStream({
      async write() {
        end();
        for (let left = microtasks; left > 0; left--) await undefined;
        throw new ConnectError("broken-pipe", "writing: the peer has gone");
      },
    });
    const session = manager.adopt({ readable, writable }, "x");
    await session.write(new Uint8Array(1));
    const { error } = await ofState(manager, "disconnected");
    assertEquals(error?.name, "ConnectError", `after ${microtasks} microtasks`);
    assertEquals(session.stats().bytesOut, 0);
    await manager.shutdown();
  }
});

check(
  "a slow session that a broadcast ends as its connection is lost is not connected again",
  async () => {
    for (let microtasks = 0; microtasks < 20; microtasks++) {
      const lost = Promise.withResolvers<never>();
      const pending = new Promise<never>(() => {});
      const connOf = (read: Promise<never>): Conn => {
        const closing = () => Promise.resolve();
        const conn: Partial<Conn> = { queued: 10, closed: closing(), read: () => read };
        const rest = { write: () => pending, close: closing, closeWrite: closing, abort: () => {} };
        return { ...conn, ...rest } as Conn;
      };
      const conns = [connOf(lost.promise)];
      const manager = new ConnectionManager({
        transport: { ...auto, connect: () => Promise.resolve(conns.pop() ?? connOf(pending)) },
        lowWaterMark: 1,
      });
      const reconnect = { minDelayMs: 1 };
      const session = await manager.connect("127.0.0.1:1", "x", discard, { reconnect });
      session.write(new Uint8Array(10));
      await sleep(0);
      lost.reject(new ConnectError("reset", "reading: reset"));
      for (let left = microtasks; left > 0; left--) await undefined;
      await manager.writeToAll(new Uint8Array(1), { slow: "close" });
      await sleep(5);
      const open = session.stats().state === "open";
      assertEquals(manager.session("x"), open ? session : undefined, `after ${microtasks}`);
      await manager.shutdown({ graceMs: 0 });
    }
  },
);
