/** What a connection manager writes, to one session and to all: what is sent, kept, refused and counted. */
import { assert, assertEquals } from "@std/assert";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { Channel, type ConnectionManager, type SlowPolicy } from "@trunkline/sockets/cmgr";
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
import { pattern, readAll, readExactly, same } from "./adapter_suite.ts";

const MIB = 1024 * 1024;

/** A session over a pair in memory, which takes one write, of any size, for who does not read. */
async function inMemory(
  scene: Scene,
  manager: ConnectionManager,
  id: string,
  sink?: Channel,
): Promise<Conn> {
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  manager.adopt(conn, id, sink);
  await until(() => (sink ?? manager.events).length > 0);
  await take(sink ?? manager.events, 1);
  return peer;
}

check("write() waits above lowWaterMark, until it is no more", async (scene) => {
  const manager = scene.manager({ lowWaterMark: 100_000 });
  const peer = await inMemory(scene, manager, "x");
  const session = manager.session("x")!;
  await within(session.write(new Uint8Array(100_000)), "a write below the mark");
  let done = false;
  const waiting = session.write(new Uint8Array(500_000)).then(() => done = true);
  await until(() => session.queued > 100_000);
  assertEquals(done, false);
  const reading = readExactly(peer, 600_000);
  await within(waiting, "the write");
  assert(session.queued <= 100_000, `${session.queued} bytes wait`);
  await reading;
  await until(() => session.queued === 0);
});

check("writes of one session leave in the order of the calls", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const whole = pattern(2 * MIB);
  for (let at = 0, size = 1; at < whole.length; at += size, size = (size * 7) % 65_537) {
    manager.write("a1", whole.subarray(at, at + size));
  }
  manager.close("a1");
  same(await readAll(client), whole);
});

check("what goes beyond maxQueuedBytes is refused whole, and counted", async (scene) => {
  const manager = scene.manager({ maxQueuedBytes: 300_000, lowWaterMark: 1000 });
  const peer = await inMemory(scene, manager, "x");
  const session = manager.session("x")!;
  await session.write(pattern(70_000));
  session.write(pattern(200_000));
  assertEquals(await codeOf(session.write(new Uint8Array(200_000).fill(1))), "queue-full");
  assertEquals(await codeOf(manager.writeStr("x", "y".repeat(100_001))), "queue-full");
  session.write(pattern(100, 9));
  same(await readExactly(peer, 70_000), pattern(70_000));
  same(await readExactly(peer, 200_000), pattern(200_000));
  same(await readExactly(peer, 100), pattern(100, 9));
  await until(() => session.queued === 0);
  const { messagesOut, bytesOut, refused } = session.stats();
  assertEquals([messagesOut, bytesOut, refused], [3, 270_100, 2]);
});

check("maxTotalQueuedBytes is for all sessions together, and given back", async (scene) => {
  const manager = scene.manager({ maxTotalQueuedBytes: 500_000 });
  const peers = [await inMemory(scene, manager, "x"), await inMemory(scene, manager, "y")];
  await manager.write("x", new Uint8Array(70_000));
  manager.write("x", new Uint8Array(400_000));
  const queued = manager.stats().queued;
  assert(queued > 200_000 && queued <= 400_000, `${queued}`);
  assertEquals(await codeOf(manager.write("y", new Uint8Array(400_000))), "queue-full");
  peers[0]!.abort();
  await takeUntil(manager.events, "disconnected");
  assertEquals(manager.stats().queued, 0);
  manager.write("y", new Uint8Array(400_000).fill(7));
  assertEquals((await readExactly(peers[1]!, 400_000)).every((it) => it === 7), true);
});

check("spec 4 row 22: bytes that have left are counted, the others are queued", async (scene) => {
  const manager = scene.manager();
  const peer = await inMemory(scene, manager, "x");
  const session = manager.session("x")!;
  await session.write(new Uint8Array(70_000));
  session.write(new Uint8Array(2 * MIB));
  const { bytesOut, queued } = session.stats();
  assert(queued > MIB && bytesOut + queued <= 2 * MIB + 70_000, `${bytesOut} and ${queued}`);
  await readExactly(peer, 2 * MIB + 70_000);
  await until(() => session.queued === 0);
  assertEquals(session.stats().bytesOut, 2 * MIB + 70_000);
});

check("spec 4 row 23: the end of a session says why writing failed", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [event] = await take(manager.events, 2);
  event!.write(new Uint8Array(8 * MIB));
  client.abort();
  const [end] = await takeUntil(manager.events, "disconnected");
  assert(end!.reason !== "closed" && end!.reason !== "timeout", end!.reason);
  assertEquals(await codeOf(event!.writeStr("late")), "disconnected");
  assertEquals(manager.stats().queued, 0);
});

check("closeWrite() ends our side: the peer sees it, and goes on", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [event] = await take(manager.events, 2);
  const { session } = event!;
  assert(session.kind !== "udp");
  session.writeStr("last");
  await session.closeWrite();
  assertEquals(text(await readAll(client)), "last");
  assertEquals(await codeOf(session.writeStr("late")), "disconnected");
  await session.closeWrite(); // once more does nothing
  await client.write(utf8("still"));
  await client.close();
  const events = brief(await take(manager.events, 2));
  assertEquals(events, ["data a1 still", "disconnected a1 eof"]);
});

check("spec 4 row 24: writeToAll() is for accepted and connected sessions alike", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  await manager.listen("udp", "any", "127.0.0.1");
  const peers = [client, await inMemory(scene, manager, "x"), await inMemory(scene, manager, "y")];
  assertEquals(await manager.writeToAll(utf8("to all")), { sent: 3, skipped: 0, failed: 0 });
  for (const peer of peers) assertEquals(text(await readExactly(peer, 6)), "to all");
});

check("writeToAll() goes to those whom the filter chooses", async (scene) => {
  const manager = scene.manager();
  const peers = [await inMemory(scene, manager, "x"), await inMemory(scene, manager, "y")];
  for (const session of manager.sessions()) session.context = { room: session.id };
  const filter = ({ context }: { context: unknown }) => (context as { room: string }).room === "y";
  assertEquals(await manager.writeToAll(utf8("to y"), { filter }), {
    sent: 1,
    skipped: 0,
    failed: 0,
  });
  await manager.writeToAll(utf8("all"));
  assertEquals(text(await readExactly(peers[0]!, 3)), "all");
  assertEquals(text(await readExactly(peers[1]!, 7)), "to yall");
});

check("a filter that throws leaves everybody without", async (scene) => {
  const manager = scene.manager();
  const peer = await inMemory(scene, manager, "x");
  await inMemory(scene, manager, "y");
  const filter = ({ id }: { id: string }) => {
    if (id === "y") throw new Error("mine");
    return true;
  };
  assertEquals(await codeOf(manager.writeToAll(utf8("lost"), { filter })), "Error");
  await manager.writeToAll(utf8("all"));
  assertEquals(text(await readExactly(peer, 3)), "all");
});

check("`slow` says what becomes of who takes nothing; the others get all", async (scene) => {
  const blocks = 8;
  const expected: Record<SlowPolicy, string[]> = {
    // The first has left. Of the others, 100 kB each, five fit into 500 kB.
    buffer: [...Array(6).fill("sent"), "failed", "failed"],
    // Above the low-water mark it gets no more.
    skip: ["sent", "sent", "sent", ...Array(5).fill("skipped")],
    // It is closed, and is none of them then.
    close: ["sent", "sent", "sent", "failed", ...Array(4).fill("gone")],
  };
  for (const slow of ["buffer", "skip", "close"] as const) {
    const manager = scene.manager({ maxQueuedBytes: 500_000, lowWaterMark: 150_000 });
    const quick = await inMemory(scene, manager, "quick");
    const sink = new Channel(8);
    await inMemory(scene, manager, "slow", sink);
    const outcomes: string[] = [];
    for (let i = 0; i < blocks; i++) {
      const { sent, skipped, failed } = await manager.writeToAll(pattern(100_000, i), { slow });
      const others = sent - 1;
      outcomes.push(
        others === 1 ? "sent" : skipped === 1 ? "skipped" : failed === 1 ? "failed" : "gone",
      );
      same(await readExactly(quick, 100_000), pattern(100_000, i));
      await until(() => manager.session("quick")!.queued === 0);
    }
    assertEquals(outcomes, expected[slow], slow);
    if (slow !== "close") continue;
    const [end] = await take(sink, 1);
    assertEquals([end!.state, end!.reason], ["disconnected", "closed"]);
    assertEquals((end!.error as { code?: string }).code, "slow");
    assertEquals(manager.session("slow"), undefined);
  }
});

check("writeToAll() refuses a policy that is none", async (scene) => {
  const manager = scene.manager();
  const slow = "drop" as SlowPolicy;
  assertEquals(await codeOf(manager.writeToAll(utf8("x"), { slow })), "TypeError");
});

check("writeToAll() passes over who is not connected, or ends its side", async (scene) => {
  const manager = scene.manager();
  const peer = await inMemory(scene, manager, "x");
  const session = manager.session("x")!;
  assert(session.kind !== "udp");
  await session.closeWrite();
  assertEquals(await manager.writeToAll(utf8("lost")), { sent: 0, skipped: 1, failed: 0 });
  assertEquals((await readAll(peer)).length, 0);
});
