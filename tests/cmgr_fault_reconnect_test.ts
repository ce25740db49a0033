/** Connections that are opened again: servers that come and go, or accept and drop. */
import { assert, assertEquals } from "@std/assert";
import {
  type ConnectError,
  ConnectionManager,
  type ManagerError,
  type SessionEvent,
  type StreamSession,
} from "@trunkline/sockets/cmgr";
import { createServer, type Server, type Socket } from "node:net";
import { check, emptied, Log, portOf, watchTimers } from "./cmgr_fault_rig.ts";
import { rejection, until } from "./uds_service.ts";

/** A server that can go away and come back at its port. */
class Flaky {
  port = 0;
  accepted = 0;
  readonly #on: (socket: Socket) => void;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  /** @param on what becomes of a connection */
  constructor(on: (socket: Socket) => void = (socket) => void socket.resume()) {
    this.#on = on;
  }

  start(): Promise<void> {
    const server = this.#server = createServer((socket) => {
      this.accepted++;
      this.#sockets.add(socket);
      socket.on("error", () => {}).once("close", () => this.#sockets.delete(socket));
      this.#on(socket);
    });
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.port, "127.0.0.1", () => {
        this.port = (server.address() as { readonly port: number }).port;
        resolve();
      });
    });
  }

  drop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stop(): Promise<void> {
    this.drop();
    return new Promise((resolve) => this.#server!.close(() => resolve()));
  }

  get target(): string {
    return `127.0.0.1:${this.port}`;
  }
}

/** The pauses that `reconnecting` has announced. */
function delays(events: readonly SessionEvent[]): number[] {
  return events.filter(({ state }) => state === "reconnecting")
    .map(({ info }) => Number(/in (\d+) ms/.exec(info)![1]));
}

check("a server that is away and comes back: the same session, with its id, in order", async () => {
  const server = new Flaky((socket) => socket.on("data", (data) => socket.write(data)));
  await server.start();
  const log = new Log();
  const manager = new ConnectionManager();
  const reconnect = { minDelayMs: 10, maxDelayMs: 40 };
  const session = await manager.connect(server.target, "peer", log.sink, { reconnect });
  for (let round = 1; round <= 5; round++) {
    await session.writeStr("hello");
    await until(() => log.counts.data === round);
    await server.stop();
    // A refused attempt, too.
    const told = log.counts.reconnecting;
    await until(() => log.counts.reconnecting >= told + 2);
    assertEquals(session.stats().state, "reconnecting");
    const lost = await rejection<ManagerError>(session.writeStr("lost"));
    assertEquals(lost.code, "reconnecting");
    assertEquals(await manager.writeToAll(new Uint8Array(1)), { sent: 0, skipped: 1, failed: 0 });
    await server.start();
    await until(() => log.counts.new === round + 1);
    assertEquals(manager.session("peer"), session);
    assertEquals(session.stats().reconnects, round);
  }
  assert(log.events.every((it) => it.session === session && it.id === "peer"));
  await session.close();
  await until(() => log.over);
  assertEquals([log.wrong, log.counts.disconnected, log.reasons.closed], [[], 1, 1]);
  await emptied(manager);
  await manager.shutdown();
  await server.stop();
});

check(
  "a server that accepts and drops at once is not asked ever faster: the pauses double up to the cap, with jitter",
  async () => {
    const server = new Flaky((socket) => socket.destroy());
    await server.start();
    const log = new Log();
    const manager = new ConnectionManager();
    const reconnect = { minDelayMs: 16, maxDelayMs: 128 };
    const session = await manager.connect(server.target, "peer", log.sink, { reconnect });
    await until(() => log.counts.reconnecting >= 9);
    await session.close();
    await until(() => log.over);
    const pauses = delays(log.events);
    for (const [i, pause] of pauses.entries()) {
      const most = Math.min(128, 16 * 2 ** i);
      assert(pause >= most / 2 && pause <= most, `pause ${i} is ${pause}, of ${pauses.join()}`);
    }
    // By chance all alike in one of a hundred million runs.
    assert(new Set(pauses.slice(4)).size > 1, pauses.join());
    assertEquals(log.wrong, []);
    await manager.shutdown();
    await server.stop();
  },
);

check(
  "maxAttempts refused in a row end the session with the reason; one that succeeds begins anew",
  async () => {
    const server = new Flaky();
    await server.start();
    const log = new Log();
    const manager = new ConnectionManager();
    const reconnect = { minDelayMs: 1, maxDelayMs: 2, maxAttempts: 3 };
    const session = await manager.connect(server.target, "peer", log.sink, { reconnect });
    for (let round = 0; round < 3; round++) {
      server.drop();
      await until(() => log.counts.new === round + 2);
    }
    await server.stop();
    await until(() => log.over);
    const { reason, error } = log.end("peer")!;
    assertEquals([reason, (error as ConnectError).code], ["error", "refused"]);
    const last = log.events.slice(-5).map(({ state }) => state);
    assertEquals(last.slice(1), ["reconnecting", "reconnecting", "reconnecting", "disconnected"]);
    assertEquals([log.wrong, session.stats().state], [[], "ended"]);
    // The name is free.
    await server.start();
    await manager.connect(server.target, "peer", log.sink);
    await manager.shutdown();
    await until(() => log.over);
    await server.stop();
  },
);

check(
  "close() and shutdown() while it is lost, and while the next connection is opened, end it at once",
  async () => {
    await watchTimers(async (timers) => {
      for (const how of ["close", "shutdown", "id"] as const) {
        for (const minDelayMs of [1, 600_000]) {
          const server = new Flaky();
          await server.start();
          const log = new Log();
          const manager = new ConnectionManager();
          const reconnect = { minDelayMs, maxDelayMs: 600_000 };
          const session = await manager.connect(server.target, "peer", log.sink, { reconnect });
          await server.stop();
          await until(() => log.counts.reconnecting > (minDelayMs === 1 ? 2 : 0));
          if (how === "close") await session.close();
          else if (how === "id") await manager.close("peer");
          else await manager.shutdown();
          await until(() => log.over);
          assertEquals([log.wrong, log.counts.disconnected, log.reasons.closed], [[], 1, 1]);
          assertEquals(manager.session("peer"), undefined);
          await manager.shutdown();
        }
      }
      await until(() => timers() === 0);
    });
  },
);

check("close() right after the loss, before the session knows of it, ends it once", async () => {
  const server = new Flaky();
  await server.start();
  const manager = new ConnectionManager();
  for (let turns = 0; turns < 40; turns++) {
    const log = new Log();
    const reconnect = { minDelayMs: 1 };
    const session = await manager.connect(server.target, "peer", log.sink, { reconnect });
    server.drop();
    for (let i = 0; i < turns; i++) await Promise.resolve();
    if (turns % 4 === 3) await new Promise((resolve) => setTimeout(resolve, turns % 8));
    await session.close();
    await until(() => log.over);
    assertEquals([log.wrong, log.counts.disconnected], [[], 1]);
    assertEquals(manager.sessions(), []);
  }
  await manager.shutdown();
  await server.stop();
});

check(
  "what waits to leave when the connection is lost fails, and is not sent to the next one",
  async () => {
    const first = new Flaky((socket) => socket.pause());
    await first.start();
    const log = new Log();
    const manager = new ConnectionManager();
    const reconnect = { minDelayMs: 1 };
    const session = await manager.connect(first.target, "peer", log.sink, { reconnect });
    const write = rejection<ManagerError>(session.write(new Uint8Array(32 * 1024 * 1024 - 1), {}));
    // More than a session may keep is refused at once; less of it waits.
    assertEquals((await write).code, "queue-full");
    const waiting = rejection<ManagerError>(session.write(new Uint8Array(16 * 1024 * 1024)));
    await until(() => session.queued > 0);
    const { port } = first;
    await first.stop();
    assertEquals((await waiting).code, "disconnected");
    assertEquals([session.queued, manager.stats().queued], [0, 0]);
    let got = "";
    const second = new Flaky((socket) => socket.on("data", (data) => got += data));
    second.port = port;
    await second.start();
    await until(() => log.counts.new === 2);
    await session.writeStr("fresh");
    await until(() => got.length >= 5);
    assertEquals(got, "fresh");
    await manager.shutdown();
    await second.stop();
  },
);

check("connecting again under the same name in the disconnected handler, many times", async () => {
  const server = new Flaky((socket) => socket.destroy());
  await server.start();
  const manager = new ConnectionManager();
  const ROUNDS = 200;
  const sessions = new Set<unknown>();
  let taken = 0;
  const log = new Log((event) => {
    if (event.state !== "disconnected") return;
    sessions.add(event.session);
    // Whatever is done to the session that has ended does nothing to the one that has its name now.
    if (sessions.size < ROUNDS) {
      manager.connect(server.target, "peer", log.sink).then(() => taken++);
    }
    event.session.close();
  });
  await manager.connect(server.target, "peer", log.sink);
  await until(() => sessions.size === ROUNDS && log.over);
  await until(() => taken === ROUNDS - 1);
  assertEquals([log.wrong, log.counts.new, log.counts.disconnected], [[], ROUNDS, ROUNDS]);
  await emptied(manager);
  await manager.shutdown();
  await server.stop();
});

check("close() of the old session does not end the new one of the same name", async () => {
  const server = new Flaky();
  await server.start();
  const manager = new ConnectionManager();
  const log = new Log();
  let before: StreamSession | undefined;
  for (let i = 0; i < 50; i++) {
    const session = await manager.connect(server.target, "peer", log.sink, { replace: true });
    await before?.close();
    assertEquals(manager.session("peer"), session);
    before = session;
  }
  await before!.close();
  await until(() => log.over);
  assertEquals([log.wrong, log.counts.disconnected, log.reasons.closed], [[], 50, 50]);
  await manager.shutdown();
  await server.stop();
});

check(
  "close() and discard race with data, the peer's end and each other: one end, and nothing behind it",
  async () => {
    const log = new Log();
    const manager = new ConnectionManager({ lingerMs: 1 });
    const flood = new Uint8Array(50_000);
    const server = new Flaky((socket) => {
      for (let i = 0; i < 10; i++) socket.write(flood);
      if (Math.random() < 0.5) socket.end();
    });
    await server.start();
    for (let i = 0; i < 150; i++) {
      const session = await manager.connect(server.target, "peer", log.sink);
      if (i % 3 === 1) await until(() => session.stats().bytesIn > 0);
      if (i % 5 === 0) session.write(flood).catch(() => {});
      const closes = [session.close({ discard: i % 2 === 0 }), session.close({ discard: true })];
      if (i % 7 === 0) server.drop();
      await Promise.allSettled(closes);
      await session.close().catch(() => {});
    }
    await until(() => log.over);
    assertEquals([log.wrong, log.counts.new, log.counts.disconnected], [[], 150, 150]);
    await emptied(manager);
    assertEquals(manager.events.length, 0);
    await manager.shutdown();
    await server.stop();
  },
);

check("discard drops what nobody has taken, and keeps the end; others' events stay", async () => {
  const manager = await ConnectionManager.open({ port: "any", capacity: 8 });
  const target = `127.0.0.1:${portOf(manager)}`;
  const [one, two] = [
    await manager.connect(target, "one", () => {}),
    await manager.connect(target, "two", () => {}),
  ];
  await until(() => manager.events.length === 4);
  await Promise.all([one.write(new Uint8Array(100)), two.write(new Uint8Array(100))]);
  await until(() => manager.events.length === 6);
  await manager.session("a1")!.close({ discard: true });
  await one.close();
  await until(() => manager.sessions().every(({ id }) => id !== "a1"));
  const log = new Log();
  while (log.counts.disconnected === 0) log.sink((await manager.events.receive())!);
  // Whichever of both was accepted first.
  assertEquals([log.wrong, log.counts.accepted, log.counts.data], [[], 2, 1]);
  await manager.shutdown();
});
