/** Peers that do not read, and applications that do not take what came. */
import { assert, assertEquals } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import {
  Channel,
  ConnectionManager,
  type ManagerError,
  type SessionEvent,
  type StreamSession,
} from "@trunkline/sockets/cmgr";
import type { Socket } from "node:net";
import { check, dial, emptied, ended, Log, portOf } from "./cmgr_fault_rig.ts";
import { unhandledDuring } from "./unhandled.ts";
import { rejection, until } from "./uds_service.ts";

const MiB = 1024 * 1024;
/** More than the kernel keeps of a connection that nobody reads. */
const LOTS = 32 * MiB;

const echo = (event: SessionEvent) => {
  if (event.state === "data") event.write(event.data);
};

/** The session of a client. */
async function sessionOf(manager: ConnectionManager, client: Socket): Promise<StreamSession> {
  const from = `127.0.0.1:${client.localPort}`;
  await until(() => manager.sessions().some((it) => it.from === from));
  return manager.sessions().find((it) => it.from === from) as StreamSession;
}

/** Whether a client is answered. */
async function served(client: Socket): Promise<void> {
  await new Promise<void>((resolve) => {
    client.once("data", () => resolve());
    client.write("x");
  });
}

/** Resolves when `count` has stood still for a while, in which `turn` was done often. */
async function still(count: () => number, turn: () => Promise<void>): Promise<void> {
  for (let before = -1; before !== count();) {
    before = count();
    for (let i = 0; i < 50; i++) await turn();
  }
}

check("a peer that never reads fills its own queue, and no more; others are served", async () => {
  const log = new Log(echo);
  const manager = await ConnectionManager.open({
    port: "any",
    sink: log.sink,
    maxQueuedBytes: MiB,
    lowWaterMark: 1000,
  });
  const [deaf, other] = [await dial(portOf(manager)), await dial(portOf(manager))];
  const session = await sessionOf(manager, deaf);
  const piece = new Uint8Array(MiB / 4);
  let full: ManagerError | undefined;
  let sent = 0;
  for (; full === undefined; sent++) {
    const write = session.write(piece);
    // Not a wait for the peer: a turn of the loop, in which what there is room for leaves.
    await served(other);
    const { queued } = session;
    assert(queued <= MiB, `${queued}`);
    if (queued > 3 / 4 * MiB) full = await rejection<ManagerError>(session.write(piece));
    write.catch(() => {});
  }
  assertEquals([full.name, full.code], ["ManagerError", "queue-full"]);
  assert(/ maxQueuedBytes is 1048576$/.test(full.message), full.message);
  // It is an answer to one write: the session goes on, and all that was taken arrives.
  let got = 0;
  deaf.on("data", (data) => got += data.length);
  await until(() => got === sent * piece.length);
  await session.write(piece);
  await until(() => got === (sent + 1) * piece.length);
  assertEquals(session.queued, 0);
  for (const client of [deaf, other]) client.destroy();
  await until(() => log.over);
  await emptied(manager);
  await manager.shutdown();
});

check(
  "maxTotalQueuedBytes bounds all sessions together, and what ends gives its share back",
  async () => {
    const manager = await ConnectionManager.open({
      port: "any",
      maxQueuedBytes: LOTS,
      maxTotalQueuedBytes: 2 * LOTS - 1,
    });
    const clients = await Promise.all([1, 2, 3].map(() => dial(portOf(manager))));
    const sessions = await Promise.all(clients.map((it) => sessionOf(manager, it)));
    const lots = new Uint8Array(LOTS);
    const first = sessions[0]!.write(lots);
    const refused = await rejection<ManagerError>(sessions[1]!.write(lots));
    assertEquals(refused.code, "queue-full");
    assert(/maxTotalQueuedBytes is 67108863$/.test(refused.message), refused.message);
    clients[0]!.resetAndDestroy();
    assertEquals((await rejection<ManagerError>(first)).code, "disconnected");
    assertEquals(manager.stats().queued, 0);
    const second = sessions[1]!.write(lots);
    clients[1]!.resume();
    await second;
    await until(() => manager.stats().queued === 0);
    for (const client of clients) client.destroy();
    await until(() => manager.sessions().length === 0);
    await manager.shutdown();
  },
);

check("a peer that never reads ends by stallTimeout, others do not", async () => {
  const log = new Log(echo);
  const manager = await ConnectionManager.open({
    port: "any",
    sink: log.sink,
    stallTimeout: 200,
  });
  const [deaf, idle] = [await dial(portOf(manager)), await dial(portOf(manager))];
  const session = await sessionOf(manager, deaf);
  const write = rejection<ManagerError>(session.write(new Uint8Array(16 * MiB)));
  await until(() => log.end(session.id) !== undefined);
  const { reason, error } = log.end(session.id)!;
  assertEquals([reason, (error as ManagerError).code], ["timeout", "stalled"]);
  assertEquals(((await write).cause as ManagerError).code, "stalled");
  await served(idle);
  for (const client of [deaf, idle]) client.destroy();
  await until(() => log.over);
  assertEquals(log.reasons.timeout, 1);
  await manager.shutdown();
});

check("a slow peer that reads a little is not stalled", async () => {
  const log = new Log();
  const manager = await ConnectionManager.open({ port: "any", sink: log.sink, stallTimeout: 1500 });
  const slow = await dial(portOf(manager));
  const session = await sessionOf(manager, slow);
  const write = session.write(new Uint8Array(12 * MiB));
  // It takes longer than the limit, and moves all the time.
  let got = 0;
  while (got < 12 * MiB) {
    const chunk = slow.read() as Uint8Array | null;
    got += chunk?.length ?? 0;
    if (got < 8 * MiB || chunk === null) {
      await new Promise((resolve) => setTimeout(resolve, chunk === null ? 1 : 4));
    }
  }
  await write;
  assertEquals(log.end(session.id), undefined);
  slow.destroy();
  await until(() => log.over);
  await manager.shutdown();
});

check("a channel that nobody takes from pauses its own sockets, within bounds", async () => {
  const stuck = new Channel(4, { maxBytes: MiB });
  const log = new Log(echo);
  const manager = await ConnectionManager.open({ port: "any", sink: log.sink });
  const id = await manager.listenTcp("any", stuck);
  const other = await dial(portOf(manager));
  const clients = await Promise.all([1, 2, 3].map(() => dial(portOf(manager, id))));
  // They flood it for as long as they can.
  for (const client of clients) client.write(new Uint8Array(LOTS));
  const received = () =>
    manager.stats().sessions.filter(({ listener }) => listener === id)
      .reduce((sum, { bytesIn }) => sum + bytesIn, 0);
  await still(received, () => served(other));
  assertEquals(stuck.length, 4);
  assert(received() < 4 * MiB, `${received()}`);
  // The acceptor goes on: a newcomer has its session.
  const late = await dial(portOf(manager, id));
  await sessionOf(manager, late);
  late.destroy();
  // Whoever takes gets it all, in order.
  const taken = new Log();
  const taking = taken.take(stuck);
  await until(() => received() >= 3 * LOTS);
  for (const client of clients) client.end();
  await until(() => taken.counts.disconnected === 4);
  assertEquals(taken.wrong, []);
  stuck.close();
  await taking;
  other.destroy();
  await manager.shutdown();
});

check(
  "maxPending sessions whose events nobody takes keep the next from being accepted, not those of other listeners",
  async () => {
    const stuck = new Channel(1);
    const log = new Log(echo);
    const manager = await ConnectionManager.open({ port: "any", sink: log.sink });
    const id = await manager.listenTcp("any", stuck, { maxPending: 8 });
    const other = await dial(portOf(manager));
    const clients: Socket[] = [];
    for (let i = 0; i < 12; i++) clients.push(await dial(portOf(manager, id)));
    const accepted = () => manager.stats().listeners.find((it) => it.id === id)!.accepted;
    await still(accepted, () => served(other));
    // One told completely has made room.
    assert(accepted() <= 9, `${accepted()}`);
    const taken = new Log();
    const taking = taken.take(stuck);
    await until(() => accepted() === 12);
    for (const client of clients) client.destroy();
    await until(() => taken.counts.disconnected === 12);
    assertEquals(taken.wrong, []);
    stuck.close();
    await taking;
    other.destroy();
    await manager.shutdown();
  },
);

check(
  "a peer that goes while nobody takes its events: stallTimeout sees it, and its data stays",
  async () => {
    const stuck = new Channel(3);
    const manager = await ConnectionManager.open({ port: "any", sink: stuck, stallTimeout: 200 });
    const client = await dial(portOf(manager));
    client.write(new Uint8Array(MiB));
    await until(() => stuck.length === 3);
    client.destroy();
    await until(() => manager.sessions().length === 0);
    const log = new Log();
    for (let event; (event = await stuck.receive()) !== null;) {
      log.sink(event);
      if (event.state === "disconnected") break;
    }
    assertEquals(log.wrong, []);
    assert(log.counts.data >= 1);
    assertEquals(log.counts.disconnected, 1);
    await manager.shutdown();
  },
);

check("peers that vanish while they are paused end once the consumer is back", async () => {
  const stuck = new Channel(1);
  const manager = await ConnectionManager.open({ port: "any", sink: stuck });
  const clients = await Promise.all(Array.from({ length: 50 }, () => dial(portOf(manager))));
  await until(() => manager.sessions().length === 50);
  for (const [i, client] of clients.entries()) {
    client.write(new Uint8Array(100_000));
    if (i % 2 === 0) client.end();
    else client.resetAndDestroy();
  }
  const log = new Log();
  while (log.counts.disconnected < 50) log.sink((await stuck.receive())!);
  assertEquals(log.wrong, []);
  await emptied(manager);
  for (const client of clients) client.destroy();
  await manager.shutdown();
});

check(
  "a loop that awaits each answer goes on when the peer that did not read is gone",
  async () => {
    const manager = await ConnectionManager.open({ port: "any", lowWaterMark: 1000 });
    const codes: string[] = [];
    const log = new Log();
    const taking = (async () => {
      for await (const event of manager.events) {
        log.sink(event);
        if (event.state !== "data") continue;
        try {
          for (let i = 0; i < 4; i++) await event.write(new Uint8Array(4 * MiB));
        } catch (error) {
          codes.push((error as ManagerError).code);
        }
      }
    })();
    const deaf = await dial(portOf(manager));
    deaf.write("x");
    await until(() => manager.stats().queued > 0);
    // The loop stands: nobody is told of anything.
    const other = await dial(portOf(manager));
    deaf.resetAndDestroy();
    await until(() => log.counts.accepted === 2);
    other.resume();
    other.destroy();
    await until(() => log.over);
    assertEquals(codes.every((it) => it === "disconnected"), true, codes.join());
    assert(codes.length > 0);
    await manager.shutdown();
    await taking;
  },
);

check(
  "a loop that awaits each answer goes on when a peer that never reads has stalled",
  async () => {
    const manager = await ConnectionManager.open({
      port: "any",
      lowWaterMark: 1000,
      stallTimeout: 200,
    });
    const log = new Log();
    let failed = 0;
    const taking = (async () => {
      for await (const event of manager.events) {
        log.sink(event);
        if (event.state === "data") {
          await event.write(new Uint8Array(16 * MiB)).catch(() => failed++);
        }
      }
    })();
    const deaf = await dial(portOf(manager));
    deaf.write("x");
    await until(() => log.over && log.counts.accepted === 1);
    assertEquals([failed, log.reasons.timeout], [1, 1]);
    deaf.destroy();
    await manager.shutdown();
    await taking;
  },
);

check("a sink that awaits its answer to a peer that is gone ends nobody", async () => {
  const reasons = await unhandledDuring(async () => {
    const log = new Log((event) => event.state === "data" && event.write(event.data));
    const manager = await ConnectionManager.open({ port: "any", sink: log.sink, lowWaterMark: 1 });
    for (let i = 0; i < 20; i++) {
      const client = await dial(portOf(manager));
      client.write(new Uint8Array(8 * MiB));
      const session = await sessionOf(manager, client);
      await until(() => session.queued > 0);
      client.resetAndDestroy();
    }
    await until(() => log.over);
    assertEquals(log.wrong, []);
    await manager.shutdown();
  });
  assertEquals(reasons, []);
});

check(
  "a broadcast to a slow session: buffered, skipped, closed; the others have it each time",
  async () => {
    const log = new Log();
    const manager = await ConnectionManager.open({
      port: "any",
      sink: log.sink,
      maxQueuedBytes: 16 * MiB,
    });
    const clients = await Promise.all([1, 2, 3].map(() => dial(portOf(manager))));
    const [slow, ...rest] = await Promise.all(clients.map((it) => sessionOf(manager, it)));
    let got = 0;
    for (const client of clients.slice(1)) client.on("data", (data) => got += data.length);
    slow!.write(new Uint8Array(15 * MiB));
    const before = slow!.queued;
    assert(before > 0);
    const bytes = new Uint8Array(MiB / 2);
    const buffered = await manager.writeToAll(bytes);
    assertEquals(buffered, { sent: 3, skipped: 0, failed: 0 });
    await until(() => rest.every((it) => it.queued === 0));
    const skipped = await manager.writeToAll(bytes, { slow: "skip" });
    assertEquals(skipped, { sent: 2, skipped: 1, failed: 0 });
    // Fast ones are read, so their queues are empty again.
    await until(() => rest.every((it) => it.queued === 0));
    let full = 0;
    for (let i = 0; i < 4; i++) {
      const { sent, failed } = await manager.writeToAll(bytes);
      assertEquals(sent + failed, 3);
      full += failed;
      await until(() => rest.every((it) => it.queued === 0));
    }
    const closed = await manager.writeToAll(bytes, { slow: "close" });
    assertEquals(closed, { sent: 2, skipped: 0, failed: 1 });
    await until(() => log.end(slow!.id) !== undefined);
    const { reason, error } = log.end(slow!.id)!;
    assertEquals([reason, (error as ManagerError).code], ["closed", "slow"]);
    assertEquals(await manager.writeToAll(bytes), { sent: 2, skipped: 0, failed: 0 });
    await until(() => got === 8 * 2 * bytes.length);
    assert(full <= 4);
    for (const client of clients) client.destroy();
    await until(() => log.over);
    await emptied(manager);
    await manager.shutdown();
  },
);

check(
  "close() of a session whose peer does not read gives up after flushTimeoutMs, and tells it",
  async () => {
    const log = new Log();
    const manager = await ConnectionManager.open({
      port: "any",
      sink: log.sink,
      flushTimeoutMs: 100,
    });
    const deaf = await dial(portOf(manager));
    const session = await sessionOf(manager, deaf);
    const write = rejection<ManagerError>(session.write(new Uint8Array(16 * MiB)));
    await rejection(session.close());
    await write;
    await until(() => log.over);
    const { reason, error } = log.end(session.id)!;
    assertEquals([reason, error !== undefined], ["closed", true]);
    await emptied(manager);
    deaf.destroy();
    await manager.shutdown();
  },
);

check("shutdown() does not wait for peers that do not read beyond graceMs", async () => {
  const manager = new ConnectionManager({ flushTimeoutMs: 600_000 });
  const [ours, theirs] = connPair();
  const [first, second] = [
    manager.adopt(ours, "one"),
    await (async () => {
      await manager.listenTcp("any");
      const client = await dial(portOf(manager));
      return { session: await sessionOf(manager, client), client };
    })(),
  ];
  const writes = [first, second.session].map((it) => rejection(it.write(new Uint8Array(16 * MiB))));
  await manager.shutdown({ graceMs: 50 });
  await Promise.all(writes);
  const log = new Log();
  await log.take(manager.events);
  assertEquals(log.wrong, []);
  assertEquals(log.over, true);
  theirs.abort();
  await ended(second.client);
});
