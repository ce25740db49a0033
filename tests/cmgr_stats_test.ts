/** What a connection manager tells of itself: statistics, metrics, refusals, and the ends that times and limits bring. */
import { assert, assertEquals } from "@std/assert";
import { connPair, listen } from "@trunkline/sockets/auto";
import {
  Channel,
  type ConnectionManager,
  type ManagerError,
  type Meter,
  type MetricAttributes,
  type Refusal,
} from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  portOf,
  type Scene,
  take,
  takeUntil,
  thrown,
  until,
  utf8,
} from "./cmgr_support.ts";
import { readAll, readExactly, sleep } from "./adapter_suite.ts";

/** A meter that adds up, by name and attributes. */
class FakeMeter implements Meter {
  readonly sums: Record<string, number> = {};
  readonly kinds: Record<string, string> = {};
  #make(name: string, kind: string) {
    this.kinds[name] = kind;
    return {
      add: (value: number, attributes: MetricAttributes = {}) => {
        assert(kind === "upDown" || value >= 0, `${name} goes up only, by ${value}`);
        const key = [name, ...Object.values(attributes)].join(" ");
        this.sums[key] = (this.sums[key] ?? 0) + value;
      },
    };
  }
  createCounter(name: string) {
    return this.#make(name, "counter");
  }
  createUpDownCounter(name: string) {
    return this.#make(name, "upDown");
  }
}

/** A client that is refused: whether it sees that as it connects or after it, is the system's affair. */
async function dialInVain(scene: Scene, manager: ConnectionManager): Promise<void> {
  await scene.dial(manager).then(readAll).catch(() => {});
}

check("stats() tells all of a session, as JSON can carry it", async (scene) => {
  const before = Date.now() - 1;
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await client.write(utf8("hello"));
  const [accepted] = await takeUntil(manager.events, "data");
  await manager.writeStr("a1", "answer");
  await readExactly(client, 6);
  await until(() => manager.session("a1")!.queued === 0);
  const stats = manager.stats();
  assertEquals(JSON.parse(JSON.stringify(stats)), stats);
  const { since, lastActivity, ...session } = stats.sessions[0]!;
  assertEquals(session, {
    id: "a1",
    kind: "tcp",
    listener: "l0",
    from: accepted!.from,
    local: `127.0.0.1:${portOf(manager)}`,
    state: "open",
    bytesIn: 5,
    bytesOut: 6,
    messagesIn: 1,
    messagesOut: 1,
    refused: 0,
    queued: 0,
    dropped: 0,
    reconnects: 0,
  });
  const now = Date.now() + 1;
  assert(
    before <= since && since <= lastActivity && lastActivity <= now,
    `${since} ${lastActivity}`,
  );
  const { ended, events, queued } = stats;
  assertEquals(ended, { eof: 0, reset: 0, closed: 0, timeout: 0, error: 0 });
  assertEquals([events, queued], [0, 0]);
});

check("stats() tells where listeners are, and what they took and refused", async (scene) => {
  const manager = await scene.listening();
  await manager.listenTcp("any");
  await scene.dial(manager);
  await take(manager.events, 2);
  const refused = { "max-sessions": 0, "per-address": 0, "accept-rate": 0, family: 0 };
  assertEquals(manager.stats().listeners, [
    {
      id: "l0",
      kind: "tcp",
      address: `127.0.0.1:${portOf(manager)}`,
      accepted: 1,
      sessions: 1,
      refused,
      dropped: 0,
    },
    {
      id: "l1",
      kind: "tcp",
      address: `[::]:${portOf(manager, "l1")}`,
      accepted: 0,
      sessions: 0,
      refused,
      dropped: 0,
    },
  ]);
});

check("spec 4 row 29: listStats() prints to the console, UDP sockets too", async (scene) => {
  const manager = await scene.listening();
  await manager.listen("udp", "any", "127.0.0.1");
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => lines.push(line);
  try {
    manager.listStats();
  } finally {
    console.log = log;
  }
  assertEquals(lines, [
    "1 tcp listeners:",
    `\tl0 on 127.0.0.1:${portOf(manager)}`,
    `\tu0 UDP on 127.0.0.1:${portOf(manager, "u0")}      0     0`,
    "0 tcp connections:",
  ]);
});

check("metrics add up to what has happened, and to nothing when all is over", async (scene) => {
  const meter = new FakeMeter();
  const manager = await scene.listening({ metrics: meter });
  const client = await scene.dial(manager);
  await client.write(utf8("hello"));
  await takeUntil(manager.events, "data");
  await manager.writeStr("a1", "answer!");
  assertEquals(meter.sums["cmgr.sessions tcp"], 1);
  await client.close();
  await takeUntil(manager.events, "disconnected");
  await until(() => meter.sums["cmgr.sessions tcp"] === 0);
  assertEquals(meter.sums, {
    "cmgr.sessions tcp": 0,
    "cmgr.sessions.ended eof": 1,
    "cmgr.io receive": 5,
    "cmgr.io transmit": 7,
    "cmgr.messages receive": 1,
    "cmgr.messages transmit": 1,
    "cmgr.queued": 0,
  });
  assertEquals(meter.kinds["cmgr.sessions"], "upDown");
});

check("metrics count refusals of connections and of messages", async (scene) => {
  const meter = new FakeMeter();
  const manager = await scene.listening({ metrics: meter, maxSessions: 1, maxQueuedBytes: 10 });
  await scene.dial(manager);
  await take(manager.events, 2);
  await dialInVain(scene, manager);
  await until(() => meter.sums["cmgr.connections.refused l0 max-sessions"] === 1);
  assertEquals(await codeOf(manager.write("a1", new Uint8Array(11))), "queue-full");
  assertEquals(meter.sums["cmgr.messages.refused"], 1);
});

check("metrics of UDP", async (scene) => {
  const meter = new FakeMeter();
  const manager = scene.manager({ metrics: meter });
  const id = await manager.listen("udp", "any", "127.0.0.1");
  await manager.writeUdp(id, `127.0.0.1:${portOf(manager, id)}`, "myself");
  await take(manager.events, 1);
  await manager.close(id);
  await takeUntil(manager.events, "disconnected");
  await until(() => meter.sums["cmgr.sessions udp"] === 0);
  assertEquals(meter.sums, {
    "cmgr.sessions udp": 0,
    "cmgr.sessions.ended closed": 1,
    "cmgr.io receive": 6,
    "cmgr.io transmit": 6,
    "cmgr.messages receive": 1,
    "cmgr.messages transmit": 1,
    "cmgr.queued": 0,
  });
});

check("a meter that throws ends nothing, and onError hears of it", async (scene) => {
  const errors: Error[] = [];
  const broken = {
    add: () => {
      throw new Error("broken meter");
    },
  };
  const metrics = { createCounter: () => broken, createUpDownCounter: () => broken };
  const manager = await scene.listening({ metrics, onError: (error) => errors.push(error) });
  const client = await scene.dial(manager);
  await client.write(utf8("x"));
  await takeUntil(manager.events, "data");
  assert(errors.length > 0);
  assertEquals([...new Set(errors.map(({ message }) => message))], ["broken meter"]);
});

check("limits refuse connections, and make room when sessions end", async (scene) => {
  for (
    const [options, reason] of [
      [{ maxSessions: 2 }, "max-sessions"],
      [{ maxSessionsPerAddress: 2 }, "per-address"],
    ] as const
  ) {
    const refusals: Refusal[] = [];
    const onRefused = (refusal: Refusal) => refusals.push(refusal);
    const manager = await scene.listening({ ...options, onRefused });
    await scene.dial(manager);
    const second = await scene.dial(manager);
    await take(manager.events, 4);
    await dialInVain(scene, manager);
    await until(() => refusals.length === 1);
    const { listener, from } = refusals[0]!;
    assertEquals([refusals[0]!.reason, listener, from.split(":")[0]], [
      reason,
      "l0",
      "127.0.0.1",
    ]);
    assertEquals(manager.stats().listeners[0]!.refused[reason], 1);
    await second.close();
    await takeUntil(manager.events, "disconnected");
    await until(() => manager.stats().listeners[0]!.sessions === 1);
    await scene.dial(manager);
    assertEquals(brief(await take(manager.events, 2)), ["accepted a3", "new a3"]);
  }
});

check("acceptRate refuses who come too fast", async (scene) => {
  // One at once, and the next one in 1000 seconds.
  const manager = await scene.listening({ acceptRate: 0.001 });
  await scene.dial(manager);
  for (let i = 0; i < 2; i++) await dialInVain(scene, manager);
  await until(() => manager.stats().listeners[0]!.refused["accept-rate"] === 2);
  assertEquals(brief(await take(manager.events, 2)), ["accepted a1", "new a1"]);
});

check("maxPending leaves connections alone until `accepted` is taken", async (scene) => {
  const manager = scene.manager();
  const taken = Promise.withResolvers<void>();
  const options = { maxPending: 1 };
  await manager.listen("tcp", "any", "127.0.0.1", () => taken.promise, options);
  const accepted = () => manager.stats().listeners[0]!.accepted;
  for (let i = 0; i < 3; i++) await scene.dial(manager);
  await until(() => accepted() > 0);
  await sleep(50);
  assertEquals(accepted(), 1);
  taken.resolve();
  await until(() => accepted() === 3);
  assertEquals(manager.stats().listeners[0]!.dropped, 0);
});

check("an onRefused that throws ends nothing", async (scene) => {
  const errors: Error[] = [];
  const manager = await scene.listening({
    maxSessions: 1,
    onRefused: () => {
      throw new Error("mine");
    },
    onError: (error) => errors.push(error),
  });
  await scene.dial(manager);
  await dialInVain(scene, manager);
  await until(() => errors.length === 1);
  assertEquals(errors[0]!.message, "mine");
  assertEquals(brief(await take(manager.events, 2)), ["accepted a1", "new a1"]);
});

check("maxSessions is for connect() and adopt(), too", async (scene) => {
  const server = await listen("127.0.0.1:0");
  scene.after(() => server.close());
  const manager = scene.manager({ maxSessions: 1 });
  await manager.connect(server.addr, "x");
  assertEquals(await codeOf(manager.connect(server.addr, "y")), "too-many-sessions");
  assertEquals(thrown(() => manager.adopt(connPair()[0], "y")), "too-many-sessions");
  await manager.close("x");
  await takeUntil(manager.events, "disconnected");
  assertEquals((await manager.connect(server.addr, "y")).id, "y");
});

check("idleTimeout ends a session that does nothing, and no other", async (scene) => {
  const manager = scene.manager({ idleTimeout: 400 });
  const [conn, peer] = connPair();
  const [quiet, silent] = connPair();
  scene.after(() => (peer.abort(), silent.abort()));
  const sink = new Channel();
  manager.adopt(quiet, "quiet");
  manager.adopt(conn, "busy", sink);
  const busy = setInterval(() => manager.writeStr("busy", "x"), 10);
  const reading = readAll(peer).catch(() => {});
  try {
    const [, end] = await takeUntil(manager.events, "disconnected");
    assertEquals(brief([end!]), ["disconnected quiet timeout"]);
    assertEquals((end!.error as ManagerError).code, "idle");
    assertEquals(manager.session("busy")!.stats().state, "open");
  } finally {
    clearInterval(busy);
  }
  assertEquals(brief(await take(sink, 2)), ["new busy", "disconnected busy timeout"]);
  await reading;
});

check("stallTimeout ends a session whose peer takes nothing", async (scene) => {
  const manager = scene.manager({ stallTimeout: 100 });
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  const session = manager.adopt(conn, "x");
  const waiting = codeOf(session.write(new Uint8Array(1_000_000)));
  const end = (await takeUntil(manager.events, "disconnected")).at(-1)!;
  assertEquals([end.reason, (end.error as ManagerError).code], ["timeout", "stalled"]);
  assertEquals([await waiting, manager.stats().queued], ["disconnected", 0]);
});

check("stallTimeout ends a session whose events nobody takes; its name is free", async (scene) => {
  const manager = scene.manager({ stallTimeout: 100 });
  const sink = new Channel(1);
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  manager.adopt(conn, "x", sink);
  await peer.write(utf8("data"));
  await until(() => manager.session("x") === undefined);
  const events = await take(sink, 3);
  assertEquals(brief(events), ["new x", "data x data", "disconnected x timeout"]);
  assertEquals((events[2]!.error as ManagerError).code, "stalled");
});
