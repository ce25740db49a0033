/** What peers send that they should not: garbage, half a handshake, endless frames, too many datagrams. */
import { assert, assertEquals } from "@std/assert";
import {
  type ConnectError,
  ConnectionManager,
  type ListenerOptions,
  type ManagerError,
  type SessionEvent,
} from "@trunkline/sockets/cmgr";
import { createSocket } from "node:dgram";
import type { Socket } from "node:net";
import { pem } from "./adapter_fixtures.ts";
import { check, dial, emptied, ended, Log, openFiles, portOf } from "./cmgr_fault_rig.ts";
import { rejection, until } from "./uds_service.ts";

const CERTIFICATE = { cert: pem("server.crt"), key: pem("server.key") };
const TRUST = { ca: pem("ca.crt"), serverName: "localhost" };
/** The record that begins a TLS handshake, and none of what it promises. */
const HALF_A_HELLO = new Uint8Array([0x16, 3, 1, 2, 0, 1, 0]);

/** For what has begun a handshake, and then says nothing. */
const SOON: ListenerOptions = { handshakeTimeout: 500 };

const echo = (event: SessionEvent) => {
  if (event.state === "data") event.write(event.data);
};

async function listenTls(options: ListenerOptions = {}) {
  const errors: unknown[] = [];
  const log = new Log(echo);
  const manager = new ConnectionManager({ onError: (error) => errors.push(error) });
  await manager.listenTls("any", CERTIFICATE, log.sink, options);
  const target = `127.0.0.1:${portOf(manager)}`;
  /** A client that speaks TLS is served. */
  const served = async () => {
    const got = new Log();
    const session = await manager.connect(target, "client", got.sink, { tls: TRUST });
    await session.writeStr("hello");
    await until(() => got.counts.data > 0);
    await session.close();
    await until(() => got.over);
  };
  const dropped = () => manager.stats().listeners[0]!.dropped;
  return { manager, log, errors, served, dropped, port: portOf(manager) };
}

check(
  "what is no TLS handshake ends its own connection, is counted, and told as no session",
  async () => {
    const { manager, log, errors, served, dropped, port } = await listenTls(SOON);
    const files = openFiles();
    const garbage = [
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      new Uint8Array(100_000).fill(0xff),
      new Uint8Array([0x16, 3, 1, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
      new Uint8Array([0x15, 3, 3, 0, 2, 2, 40]),
      "\0",
    ];
    const clients: Socket[] = [];
    for (let i = 0; i < 100; i++) {
      const client = await dial(port);
      clients.push(client);
      client.end(garbage[i % garbage.length]!);
    }
    await Promise.all(clients.map(ended));
    await until(() => dropped() === 100);
    await served();
    assertEquals([errors, log.wrong], [[], []]);
    assertEquals(log.counts.accepted, 1);
    await emptied(manager);
    await until(() => openFiles() <= files);
    await manager.shutdown();
  },
);

check(
  "connections that end within the handshake, in order or not, leave nothing behind",
  async () => {
    const { manager, log, errors, served, dropped, port } = await listenTls(SOON);
    const files = openFiles();
    const clients = await Promise.all(Array.from({ length: 100 }, () => dial(port)));
    const ends = clients.map((client, i) => {
      client.write(HALF_A_HELLO, () => i % 2 === 0 ? client.end() : client.resetAndDestroy());
      return ended(client);
    });
    await Promise.all(ends);
    // Who was reset before it was accepted is no handshake.
    await until(() => dropped() >= 50);
    await served();
    assertEquals([errors, log.wrong, log.counts.accepted], [[], [], 1]);
    await emptied(manager);
    await until(() => openFiles() <= files);
    await manager.shutdown();
  },
);

check(
  "handshakes that come byte by byte, or not at all, end by handshakeTimeout; others are served meanwhile",
  async () => {
    const { manager, log, errors, served, dropped, port } = await listenTls({
      handshakeTimeout: 400,
    });
    const clients = await Promise.all(Array.from({ length: 40 }, () => dial(port)));
    const drip = setInterval(() => {
      for (const client of clients.slice(20)) if (client.writable) client.write("\x16");
    }, 100);
    const ends = clients.map(ended);
    await served();
    await Promise.all(ends);
    clearInterval(drip);
    await until(() => dropped() === 40);
    assertEquals([errors, log.wrong, log.counts.accepted], [[], [], 1]);
    await emptied(manager);
    await manager.shutdown();
  },
);

check("shutdown() does not wait for handshakes", async () => {
  const { manager, port } = await listenTls({ handshakeTimeout: 600_000 });
  const clients = await Promise.all(Array.from({ length: 10 }, () => dial(port)));
  for (const client of clients) client.write(HALF_A_HELLO);
  await manager.shutdown();
  await Promise.all(clients.map(ended));
});

check(
  "a client whose peer speaks no TLS, or never answers, fails and leaves its name free",
  async () => {
    const manager = new ConnectionManager();
    const log = new Log((event) => event.state === "new" && event.writeStr("220 no TLS here\r\n"));
    await manager.listenTcp("any", log.sink);
    const target = `127.0.0.1:${portOf(manager)}`;
    const error = await rejection<ConnectError>(
      manager.connect(target, "client", undefined, { tls: TRUST }),
    );
    assertEquals([error.name, error.code], ["ConnectError", "tls"]);
    await manager.listenTcp("any", () => {});
    const silent = `127.0.0.1:${portOf(manager, "l1")}`;
    const late = await rejection<ConnectError>(
      manager.connect(silent, "client", undefined, { tls: TRUST, timeoutMs: 200 }),
    );
    assertEquals(late.code, "timeout");
    assertEquals(manager.session("client"), undefined);
    await emptied(manager);
    await manager.shutdown();
  },
);

check(
  "a line without end, and a frame that claims to be huge, end their sessions within bounds",
  async () => {
    const log = new Log();
    const manager = new ConnectionManager({ maxFrameBytes: 10_000 });
    await manager.listenTcp("any", log.sink, { framing: "lines" });
    await manager.listenTcp("any", log.sink, { framing: "length-prefixed" });
    const lines = await dial(portOf(manager));
    const frames = await dial(portOf(manager, "l1"));
    lines.write("fine\n");
    frames.write(new Uint8Array([0, 0, 0, 1, 7]));
    await until(() => log.counts.data === 2);
    const endless = setInterval(() => lines.writable && lines.write(new Uint8Array(4000)), 1);
    frames.write(new Uint8Array([0xff, 0xff, 0xff, 0xff]));
    await Promise.all([lines, frames].map(ended));
    clearInterval(endless);
    await until(() => log.over);
    for (const { state, reason, error } of log.events) {
      if (state !== "disconnected") continue;
      assertEquals([reason, (error as ManagerError).code], ["error", "frame-too-large"]);
    }
    assertEquals([log.wrong, log.counts.data, log.counts.disconnected], [[], 2, 2]);
    await emptied(manager);
    await manager.shutdown();
  },
);

check(
  "floods of empty lines and frames are told one by one, and slow down as any data",
  async () => {
    const COUNT = 20_000;
    const manager = new ConnectionManager({ capacity: 16 });
    await manager.listenTcp("any", undefined, { framing: "lines" });
    await manager.listenTcp("any", undefined, { framing: "length-prefixed" });
    const lines = await dial(portOf(manager));
    const frames = await dial(portOf(manager, "l1"));
    lines.end("\n".repeat(COUNT));
    frames.end(new Uint8Array(4 * COUNT));
    const log = new Log();
    for await (const event of manager.events) {
      assert(manager.events.length <= 16);
      log.sink(event);
      if (log.counts.disconnected === 2) break;
    }
    assertEquals([log.wrong, log.counts.data], [[], 2 * COUNT]);
    await manager.shutdown();
  },
);

check(
  "a flood of datagrams that nobody takes is bounded, counted, and others are served",
  async () => {
    const SENT = 5000;
    const log = new Log(echo);
    const manager = await ConnectionManager.open({ port: "any", sink: log.sink });
    // It takes the first, and is busy with it.
    let release = () => {};
    let taken = 0;
    const busy = new Promise<void>((resolve) => release = resolve);
    const id = await manager.listen("udp4", "any", "127.0.0.1", () => {
      taken++;
      return busy;
    }, { maxPendingDatagrams: 100 });
    const port = portOf(manager, id);
    const other = await dial(portOf(manager));
    const flooder = createSocket("udp4");
    const data = new Uint8Array(1000);
    let echoes = 0;
    other.on("data", () => echoes++);
    for (let i = 0; i < SENT; i += 50) {
      const sent = Array.from(
        { length: 50 },
        () =>
          new Promise<void>((resolve) => flooder.send(data, port, "127.0.0.1", () => resolve())),
      );
      await Promise.all(sent);
      other.write("x");
      const before = echoes;
      await until(() => echoes > before);
    }
    const stats = () => manager.stats().sessions.find((it) => it.id === id)!;
    await until(() => stats().dropped > 0);
    // One is with the sink, `maxPendingDatagrams` wait; the rest is dropped by us, or by the kernel.
    assertEquals([taken, stats().messagesIn], [1, 1]);
    assert(stats().dropped <= SENT - 101, `${stats().dropped}`);
    release();
    await until(() => taken === 101);
    // It hears what comes from here on.
    flooder.send(data, port, "127.0.0.1");
    await until(() => taken >= 102);
    flooder.close();
    other.destroy();
    await until(() => log.over);
    await manager.shutdown();
  },
);

check("sends of datagrams are bounded: what goes beyond is refused at once", async () => {
  const manager = new ConnectionManager({ maxQueuedBytes: 100_000 });
  const id = await manager.listen("udp4", "any", "127.0.0.1", () => {});
  const sink = createSocket("udp4");
  await new Promise<void>((resolve) => sink.bind(0, "127.0.0.1", resolve));
  const to = { hostname: "127.0.0.1", port: sink.address().port };
  const sends = Array.from(
    { length: 500 },
    () => manager.writeUdpAddr(id, to, new Uint8Array(1000)),
  );
  assert(manager.stats().queued <= 100_000);
  const results = await Promise.allSettled(sends);
  const refused = results.filter((it) => it.status === "rejected");
  assertEquals(refused.length, 500 - Math.floor(100_000 / 1064));
  for (const { reason } of refused) assertEquals((reason as ManagerError).code, "queue-full");
  assertEquals(manager.stats().queued, 0);
  await manager.writeUdpAddr(id, to, new Uint8Array(1000));
  await manager.shutdown();
  sink.close();
});
