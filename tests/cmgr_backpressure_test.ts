/** Who does not take slows whom it concerns, and nobody else; nothing is kept without a limit (spec 4, rows 24 and 26). */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { auto } from "../adapters/auto.ts";
import type { Datagram, Transport } from "../adapters/types.ts";
import {
  Channel,
  ConnectionManager,
  discard,
  type ManagerError,
  type ManagerOptions,
  type SessionEvent,
  type UdpSession,
} from "../cmgr/mod.ts";
import { fill, pattern, readExactly, same, sleep } from "./adapter_suite.ts";
import { Held, HeldDatagram, turn, until } from "./cmgr_model_held.ts";
import { MemoryNet, pipe } from "./cmgr_model_net.ts";
import { joined } from "./cmgr_model_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

const NARROW = { capacity: 1, piece: 60 };
const MEMORY = new MemoryNet(NARROW);

function check(
  title: string,
  body: (manager: ConnectionManager) => Promise<void>,
  options: ManagerOptions = {},
): void {
  test(`cmgr backpressure: ${title}`, { timeout: 20_000 }, async () => {
    const manager = new ConnectionManager(options);
    const unhandled = await unhandledDuring(async () => {
      try {
        await body(manager);
      } finally {
        await manager.shutdown({ graceMs: 0 });
        assertEquals(manager.stats().queued, 0);
      }
    });
    assertEquals(unhandled, []);
  });
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(() => "", (error: ManagerError) => error.code);
}

/** What has become of a promise by now. */
async function stateOf(promise: Promise<unknown>): Promise<string> {
  return await Promise.race([
    codeOf(promise).then((code) => code || "resolved"),
    turn().then(() => "waits"),
  ]);
}

async function take(channel: Channel, count: number): Promise<SessionEvent[]> {
  const events: SessionEvent[] = [];
  while (events.length < count) events.push((await channel.receive())!);
  return events;
}
const statesOf = (events: readonly SessionEvent[]): string[] =>
  events.map(({ id, state }) => `${id} ${state}`);

check(
  "a channel keeps as many events as it has room for, and their sessions read no more",
  async (manager) => {
    const channel = new Channel(3);
    const [near, peer] = pipe(NARROW);
    const session = manager.adopt(near, "x", channel);
    const all = pattern(6000);
    const written = peer.write(all);
    await turn();
    // Of three places one is for `new`; behind those that have one, one waits.
    assertEquals([channel.length, session.stats().messagesIn, session.stats().bytesIn], [
      3,
      3,
      180,
    ]);
    const [, ...data] = await take(channel, 101);
    same(joined(data.map((event) => event.data)), all);
    await written;
    assertEquals(channel.length, 0);
  },
);

check("a channel keeps so many bytes of events, and one more", async (manager) => {
  const channel = new Channel(1000, { maxBytes: 100 });
  const [near, peer] = pipe(NARROW);
  const session = manager.adopt(near, "x", channel);
  peer.write(pattern(6000));
  await turn();
  assertEquals([channel.length, session.stats().messagesIn], [3, 3]);
  await take(channel, 2);
  await turn();
  assertEquals([channel.length, session.stats().messagesIn], [2, 4]);
});

check(
  "a peer whose events nobody takes cannot go on writing, and nothing of it is lost",
  async (manager) => {
    const channel = new Channel(2);
    const id = await manager.listen("tcp", "any", "127.0.0.1", channel);
    const peer = await auto.connect(manager.address(id));
    const { written, last } = await fill(peer);
    const told = await take(channel, 2);
    assertEquals(statesOf(told), ["a1 accepted", "a1 new"]);
    const block = pattern(64 * 1024);
    for (let at = 0; at < written;) {
      const { data } = (await channel.receive())!;
      const wrong = data.findIndex((byte, i) => byte !== block[(at + i) % block.length]);
      assertEquals(wrong, -1);
      at += data.length;
    }
    await last;
    peer.abort();
  },
);

check("a listener goes on accepting until maxPending sessions wait to be told", async (manager) => {
  const channel = new Channel(1);
  const id = await manager.listen("tcp", "any", "127.0.0.1", channel);
  const other = new Channel(100);
  const otherId = await manager.listen("tcp", "any", "127.0.0.1", other);
  for (let i = 0; i < 5; i++) await MEMORY.connect(manager.address(id));
  const accepted = () => manager.stats().listeners.map((it) => it.accepted);
  await until(() => accepted()[0] === 3);
  await turn();
  assertEquals(accepted(), [3, 0]);
  const peer = await MEMORY.connect(manager.address(otherId));
  peer.write(pattern(10));
  const events = await take(other, 3);
  assertEquals(events.map(({ state }) => state), ["accepted", "new", "data"]);
  const states = statesOf(await take(channel, 10)).sort();
  const ids = [1, 2, 3, 5, 6].map((number) => `a${number}`);
  assertEquals(states, ids.flatMap((id) => [`${id} accepted`, `${id} new`]));
  assertEquals(accepted(), [5, 1]);
  // And again as many.
  for (let i = 0; i < 5; i++) await MEMORY.connect(manager.address(id));
  await until(() => accepted()[0]! >= 8);
  await turn();
  assertEquals(accepted(), [8, 1]);
  await take(channel, 10);
}, { transport: MEMORY, maxPending: 3 });

check(
  "who has much to tell waits for its turn, and does not take that of others",
  async (manager) => {
    const channel = new Channel(1);
    const [noisyEnd, noisy] = pipe(NARROW);
    const [quietEnd, quiet] = pipe(NARROW);
    manager.adopt(noisyEnd, "noisy", channel);
    manager.adopt(quietEnd, "quiet", channel);
    await take(channel, 2);
    noisy.write(pattern(100_000));
    await turn();
    quiet.write(pattern(1));
    await turn();
    assertEquals(statesOf(await take(channel, 4)), [
      ...["noisy data", "noisy data", "quiet data", "noisy data"],
    ]);
  },
);

check(
  "sessions with another sink go on, and so does a session's other direction",
  async (manager) => {
    const stopped = new Channel(1);
    const [stoppedEnd, stoppedPeer] = pipe(NARROW);
    const session = manager.adopt(stoppedEnd, "stopped", stopped);
    stoppedPeer.write(pattern(1000));
    const [openEnd, openPeer] = pipe(NARROW);
    manager.adopt(openEnd, "open", manager.events);
    openPeer.write(pattern(600));
    assertEquals((await take(manager.events, 11)).length, 11);
    session.write(pattern(200, 7));
    same(await readExactly(stoppedPeer, 200), pattern(200, 7));
    assertEquals(stopped.length, 1);
  },
);

check(
  "a callback gets one event of a session at a time, and keeps no other session",
  async (manager) => {
    const gates = new Map<string, PromiseWithResolvers<void>>();
    const seen: string[] = [];
    const sink = ({ id, state }: SessionEvent) => {
      seen.push(`${id} ${state}`);
      return id === "slow" && state === "data" ? gates.get(id)!.promise : undefined;
    };
    gates.set("slow", Promise.withResolvers());
    const [slowEnd, slow] = pipe(NARROW);
    const [fastEnd, fast] = pipe(NARROW);
    const session = manager.adopt(slowEnd, "slow", sink);
    slow.write(pattern(180));
    await turn();
    manager.adopt(fastEnd, "fast", sink);
    fast.write(pattern(180));
    await turn();
    const fastSeen = ["fast new", "fast data", "fast data", "fast data"];
    assertEquals(seen, ["slow new", "slow data", ...fastSeen]);
    assertEquals(session.stats().messagesIn, 1);
    gates.get("slow")!.resolve();
    await turn();
    assertEquals(seen, ["slow new", "slow data", ...fastSeen, "slow data", "slow data"]);
  },
);

check("discard reads on, and drops", async (manager) => {
  const [near, peer] = pipe(NARROW);
  const session = manager.adopt(near, "x", discard);
  await peer.write(pattern(6000));
  await until(() => session.stats().bytesIn === 6000);
});

check("close() waits for nobody who takes events", async (manager) => {
  const channel = new Channel(1);
  const [near, peer] = pipe(NARROW);
  const session = manager.adopt(near, "x", channel);
  peer.write(pattern(300));
  await turn();
  session.write(pattern(10));
  const closing = session.close();
  assertEquals((await readExactly(peer, 10)).length, 10);
  await closing;
  assertEquals(manager.session("x"), undefined);
  // What had come before can still be taken.
  assertEquals(statesOf(await take(channel, 3)), ["x new", "x data", "x disconnected"]);
});

check(
  "close() with discard takes back what nobody has taken, of this session alone",
  async (manager) => {
    const channel = new Channel(3);
    const [near, peer] = pipe(NARROW);
    const [otherEnd, otherPeer] = pipe(NARROW);
    const session = manager.adopt(near, "x", channel);
    peer.write(pattern(600));
    await turn();
    manager.adopt(otherEnd, "other", channel);
    otherPeer.write(pattern(1));
    const closing = session.close({ discard: true });
    peer.abort();
    await closing.catch(() => {});
    const told = statesOf(await take(channel, 4));
    assertEquals(told.filter((it) => it.startsWith("x")), ["x new", "x disconnected"]);
    assertEquals(told.filter((it) => it.startsWith("other")), ["other new", "other data"]);
  },
);

check(
  "write() resolves while no more than lowWaterMark bytes wait, and not before",
  async (manager) => {
    const held = new Held();
    const session = manager.adopt(held.conn, "x", discard);
    const first = session.write(pattern(100));
    const [second, third] = [session.write(pattern(50)), manager.write("x", pattern(60))];
    assertEquals(await Promise.all([first, second, third].map(stateOf)), [
      "resolved",
      "waits",
      "waits",
    ]);
    assertEquals([session.queued, manager.stats().queued], [210, 210]);
    await held.take();
    // 110 bytes are one too many, or ten.
    assertEquals([session.queued, await stateOf(second), await stateOf(third)], [
      110,
      "waits",
      "waits",
    ]);
    await held.take();
    assertEquals([session.queued, await stateOf(second), await stateOf(third)], [
      0,
      "resolved",
      "resolved",
    ]);
    // Exactly as many as may wait.
    session.write(pattern(60));
    const beyond = session.write(pattern(100));
    assertEquals(await stateOf(beyond), "waits");
    await held.take();
    assertEquals([session.queued, await stateOf(beyond)], [100, "resolved"]);
    assertEquals(session.stats().bytesOut, 270);
  },
  { lowWaterMark: 100 },
);

check("a signal ends the wait of write() alone", async (manager) => {
  const held = new Held();
  const session = manager.adopt(held.conn, "x", discard);
  const stop = new AbortController();
  const waiting = session.write(pattern(100), { signal: stop.signal });
  const late = session.write(pattern(5), { signal: AbortSignal.timeout(1) });
  stop.abort();
  assertEquals([await codeOf(waiting), await codeOf(late)], ["aborted", "timeout"]);
  const before = session.write(pattern(5, 1), { signal: AbortSignal.abort() });
  assertEquals(await codeOf(before), "aborted");
  await held.take();
  await held.take();
  same(joined(held.got), joined([pattern(100), pattern(5), pattern(5, 1)]));
}, { lowWaterMark: 10 });

check("a write that waits is told when its session ends", async (manager) => {
  const held = new Held();
  const session = manager.adopt(held.conn, "x");
  const waiting = session.write(pattern(100));
  held.conn.abort();
  assertEquals(await codeOf(waiting), "disconnected");
  assertEquals([session.queued, manager.stats().queued, session.stats().bytesOut], [0, 0, 0]);
  assertEquals(await codeOf(session.write(pattern(1))), "disconnected");
  assertEquals(statesOf(await take(manager.events, 2)), ["x new", "x disconnected"]);
}, { lowWaterMark: 10 });

for (const [framing, room] of [["raw", 100], ["lines", 99], ["length-prefixed", 96]] as const) {
  check(
    `queue-full is exact, and nothing leaves of what is refused: ${framing}`,
    async (manager) => {
      const held = new Held();
      const session = manager.adopt(held.conn, "x", discard);
      assertEquals(await codeOf(session.write(pattern(room + 1))), "queue-full");
      assertEquals([session.queued, session.stats().messagesOut], [0, 0]);
      assertEquals(await codeOf(session.write(pattern(room))), "");
      const overhead = 100 - room;
      assertEquals(
        await codeOf(session.write(new Uint8Array(framing === "raw" ? 1 : 0))),
        "queue-full",
      );
      assertEquals([session.queued, session.stats().messagesOut], [100, 1]);
      await held.take();
      session.write(pattern(room - 10 - overhead));
      assertEquals(await codeOf(session.write(pattern(11))), "queue-full");
      assertEquals(await codeOf(session.write(pattern(10))), "");
      assertEquals(session.queued, 100);
      await held.take();
      await held.take();
      assertEquals([joined(held.got).length, session.stats().messagesOut], [200, 3]);
    },
    { framing, maxQueuedBytes: 100 },
  );
}

check(
  "maxTotalQueuedBytes is shared by all sessions, each has its part of it, and it is given back by those that end",
  async (manager) => {
    const [one, two] = [new Held(), new Held()];
    const first = manager.adopt(one.conn, "one", discard);
    const second = manager.adopt(two.conn, "two", discard);
    await first.write(pattern(60));
    assertEquals(await codeOf(second.write(pattern(51))), "queue-full");
    // One of two has its half, though the other holds more than that.
    assertEquals(await codeOf(second.write(pattern(50))), "");
    assertEquals([manager.stats().queued, second.queued], [110, 50]);
    assertEquals(await codeOf(second.write(pattern(1))), "queue-full");
    assertEquals(await codeOf(first.write(pattern(1))), "queue-full");
    one.conn.abort();
    await until(() => manager.stats().queued === 50);
    assertEquals(await codeOf(second.write(pattern(50))), "");
    await two.take();
    await two.take();
    assertEquals(manager.stats().queued, 0);
  },
  { maxTotalQueuedBytes: 100, maxSessions: 2 },
);

check(
  "a peer that does not read ends its session by stallTimeout, and its end says so",
  async (manager) => {
    const held = new Held();
    const session = manager.adopt(held.conn, "x");
    const waiting = session.write(pattern(100));
    const [, end] = await take(manager.events, 2);
    assertEquals([end!.state, end!.reason, (end!.error as ManagerError).code], [
      ...["disconnected", "timeout", "stalled"],
    ]);
    assertEquals(await codeOf(waiting), "disconnected");
    assertEquals([manager.stats().queued, manager.session("x")], [0, undefined]);
  },
  { stallTimeout: 20, lowWaterMark: 10 },
);

check(
  "a session whose event nobody takes is ended by stallTimeout, and told when somebody does",
  async (manager) => {
    const channel = new Channel(1);
    const [near, peer] = pipe(NARROW);
    manager.adopt(near, "x", channel);
    peer.write(pattern(600));
    await until(() => manager.session("x") === undefined);
    const events = await take(channel, 3);
    assertEquals(statesOf(events), ["x new", "x data", "x disconnected"]);
    const { reason, error } = events[2]!;
    assertEquals([reason, (error as ManagerError).code], ["timeout", "stalled"]);
  },
  { stallTimeout: 20 },
);

check("a session that has nothing to move is not stalled", async (manager) => {
  const [near, peer] = pipe(NARROW);
  const session = manager.adopt(near, "x");
  await take(manager.events, 1);
  await sleep(60);
  assertEquals(session.stats().state, "open");
  peer.abort();
}, { stallTimeout: 10 });

check(
  "a session whose name was that of another, whose end nobody takes, is ended by stallTimeout",
  async (manager) => {
    const channel = new Channel(1);
    const [first, firstPeer] = pipe(NARROW);
    manager.adopt(first, "x", channel);
    firstPeer.abort();
    await until(() => manager.session("x") === undefined);
    const [second, secondPeer] = pipe(NARROW);
    const session = manager.adopt(second, "x", discard);
    secondPeer.write(pattern(600));
    await until(() => manager.session("x") === undefined);
    assertEquals(session.stats().messagesIn, 0);
    assertEquals(statesOf(await take(channel, 2)), ["x new", "x disconnected"]);
  },
  { stallTimeout: 20 },
);

for (
  const [slow, result, states] of [
    ["buffer", { sent: 2, skipped: 0, failed: 1 }, ["open", "open", "open"]],
    ["skip", { sent: 1, skipped: 2, failed: 0 }, ["open", "open", "open"]],
    ["close", { sent: 1, skipped: 0, failed: 2 }, ["open", "ended", "ended"]],
  ] as const
) {
  check(`a broadcast finds sessions slow: ${slow}`, async (manager) => {
    const ends = [new Held(), new Held(), new Held()];
    const sessions = ends.map(({ conn }, i) => manager.adopt(conn, `s${i}`));
    await take(manager.events, 3);
    const [, slowOne, fullOne] = sessions;
    slowOne!.write(pattern(60));
    fullOne!.write(pattern(100));
    // Neither a UDP socket without a peer nor a filter's choice counts.
    manager.adopt(new Held().conn, "not chosen", discard);
    const filter = ({ id }: { readonly id: string }) => id !== "not chosen";
    assertEquals(await manager.writeToAll(pattern(10), { slow, filter }), result);
    await turn();
    assertEquals(sessions.map((it) => it.stats().state), [...states]);
    if (slow !== "close") return;
    const told = await take(manager.events, 2);
    assertEquals(statesOf(told), ["s1 disconnected", "s2 disconnected"]);
    for (const { reason, error } of told) {
      assertEquals([reason, (error as ManagerError).code], ["closed", "slow"]);
    }
    assertEquals(manager.stats().queued, 10);
  }, { lowWaterMark: 50, maxQueuedBytes: 105 });
}

/** The last that was bound. */
let datagram: HeldDatagram;
const bindDatagram: Transport["bindDatagram"] = () =>
  Promise.resolve(datagram = new HeldDatagram() as HeldDatagram & Datagram);

/** What a datagram counts besides its bytes. */
const OVERHEAD = 64;

check("UDP sends are bounded too, empty ones as well", async (manager) => {
  const session = manager.session(await manager.listenUdp("any")) as UdpSession;
  const to = { hostname: "127.0.0.1", port: 10 };
  const takeAll = () => datagram.sent.splice(0).forEach(({ resolve }) => resolve());
  const first = session.writeTo(to, pattern(100));
  const second = manager.writeUdpAddr(session.id, to, pattern(36));
  assertEquals([session.queued, manager.stats().queued], [264, 264]);
  assertEquals(await codeOf(session.writeTo(to, pattern(0))), "queue-full");
  assertEquals(await stateOf(first), "waits");
  assertEquals(datagram.sent.length, 2);
  takeAll();
  await Promise.all([first, second]);
  const { queued, messagesOut, bytesOut } = session.stats();
  assertEquals([queued, messagesOut, bytesOut], [0, 2, 136]);
  session.bind(to);
  for (let left = 5; left > 0; left--) session.write(new Uint8Array());
  assertEquals(await codeOf(session.write(new Uint8Array())), "queue-full");
  assertEquals(await manager.writeToAll(pattern(1)), { sent: 0, skipped: 0, failed: 1 });
  takeAll();
  await turn();
  assertEquals(await manager.writeToAll(pattern(1)), { sent: 1, skipped: 0, failed: 0 });
  takeAll();
  await turn();
}, { transport: { ...auto, bindDatagram }, maxQueuedBytes: 264 + OVERHEAD - 1 });

check("a broadcast ends a UDP socket that is slow as any other session", async (manager) => {
  const session = manager.session(await manager.listenUdp("any")) as UdpSession;
  session.bind({ hostname: "127.0.0.1", port: 10 });
  session.write(pattern(100));
  assertEquals(await manager.writeToAll(pattern(1), { slow: "close" }), {
    ...{ sent: 0, skipped: 0, failed: 1 },
  });
  assertEquals(manager.session("u0"), undefined);
  const [{ state, reason, error }] = await take(manager.events, 1) as [SessionEvent];
  assertEquals([state, reason, (error as ManagerError).code], ["disconnected", "closed", "slow"]);
}, { transport: { ...auto, bindDatagram }, maxQueuedBytes: 200 });
