/** Where the events of a connection manager go, and who hears of what goes wrong there. */
import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { Channel, type SessionEvent } from "@trunkline/sockets/cmgr";
import { brief, check, portOf, take, takeUntil, text, until, utf8 } from "./cmgr_support.ts";
import { RUNTIME } from "./adapter_kinds.ts";
import { readExactly } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

check("each listener and connection may have a sink of its own", async (scene) => {
  const [mine, theirs] = [new Channel(8), new Channel(8)];
  const manager = scene.manager();
  await manager.listen("tcp", "any", "127.0.0.1", theirs);
  await manager.connect(`127.0.0.1:${portOf(manager)}`, "me", mine);
  await manager.writeStr("me", "hello");
  assertEquals(brief(await take(mine, 1)), ["new me"]);
  assertEquals(brief(await take(theirs, 3)), ["accepted a1", "new a1", "data a1 hello"]);
  assertEquals([manager.events.length, mine.length, theirs.length], [0, 0, 0]);
});

check("one channel may be the sink of two managers, and outlives them", async (scene) => {
  const shared = new Channel(16);
  const managers = [scene.manager(), scene.manager()];
  for (const [i, manager] of managers.entries()) {
    const [conn, peer] = connPair();
    scene.after(() => peer.abort());
    manager.adopt(conn, `of ${i}`, shared);
    await peer.write(utf8("x"));
  }
  const events = await take(shared, 4);
  assertEquals(brief(events).sort(), ["data of 0 x", "data of 1 x", "new of 0", "new of 1"]);
  const shutdown = managers.map((it) => it.shutdown({ graceMs: 10 }));
  const ends = brief(await take(shared, 2)).sort();
  assertEquals(ends, ["disconnected of 0 closed", "disconnected of 1 closed"]);
  await Promise.all(shutdown);
  assertEquals([shared.closed, shared.length], [false, 0]);
});

check("a callback is called with one event of a session at a time, in order", async (scene) => {
  const manager = scene.manager({ chunkSize: 1 });
  const [conn, peer] = connPair();
  const seen: string[] = [];
  let busy = 0;
  manager.adopt(conn, "x", async (event) => {
    assertEquals(++busy, 1);
    await new Promise((resolve) => setTimeout(resolve, event.data[0] === 49 ? 20 : 1));
    seen.push(...brief([event]));
    busy--;
  });
  await peer.write(utf8("12"));
  await peer.write(utf8("3"));
  await peer.close();
  await until(() => seen.length === 5);
  assertEquals(seen, ["new x", "data x 1", "data x 2", "data x 3", "disconnected x eof"]);
});

check("a callback that takes its time keeps no other session", async (scene) => {
  const manager = scene.manager();
  const seen: string[] = [];
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  await manager.listen("tcp", "any", "127.0.0.1", async (event) => {
    seen.push(...brief([event]));
    if (event.id === "a1" && event.state === "data") await held;
  });
  const slow = await scene.dial(manager);
  await slow.write(utf8("slow"));
  await until(() => seen.includes("data a1 slow"));
  const other = await scene.dial(manager);
  await other.write(utf8("other"));
  await until(() => seen.includes("data a2 other"));
  await slow.closeWrite();
  assert(!seen.includes("disconnected a1 eof"));
  release();
  await until(() => seen.includes("disconnected a1 eof"));
});

check("a callback may write, and close its session, while it handles an event", async (scene) => {
  const manager = scene.manager();
  const seen: string[] = [];
  await manager.listen("tcp", "any", "127.0.0.1", async (event) => {
    seen.push(...brief([event]));
    if (event.state !== "data") return;
    await event.writeStr("bye");
    await event.session.close();
  });
  const client = await scene.dial(manager);
  await client.write(utf8("x"));
  assertEquals(text(await readExactly(client, 3)), "bye");
  await until(() => seen.length === 4);
  assertEquals(seen, ["accepted a1", "new a1", "data a1 x", "disconnected a1 closed"]);
});

/** Sinks that fail, at once and later. */
const FAILING: readonly ((event: SessionEvent) => unknown)[] = [
  (event) => {
    throw new Error(`failed at ${event.state}`);
  },
  (event) => Promise.reject(new Error(`failed at ${event.state}`)),
];

check("what a callback throws goes to onError, and the session goes on", async (scene) => {
  for (const sink of FAILING) {
    const errors: Error[] = [];
    const manager = scene.manager({ onError: (error) => errors.push(error) });
    const [conn, peer] = connPair();
    manager.adopt(conn, "x", sink);
    await peer.write(utf8("x"));
    await peer.close();
    await until(() => errors.length === 3);
    const messages = errors.map(({ message }) => message);
    assertEquals(messages, ["failed at new", "failed at data", "failed at disconnected"]);
  }
});

test("without onError what a callback throws is an unhandled rejection", () => {
  // In a process of its own: a runner takes it for a failure of the test.
  const program = new URL("./cmgr_failing_sink_child.ts", import.meta.url).pathname;
  const flags = RUNTIME === "deno" ? ["run", "-A"] : [];
  const { stdout } = spawnSync(process.execPath, [...flags, program], { encoding: "utf8" });
  assertEquals(stdout.trim().split("\n").map((line) => JSON.parse(line)), [
    ["at once: new", "at once: disconnected"],
    ["later: new", "later: disconnected"],
  ]);
});

check("an onError that throws ends nothing", async (scene) => {
  const reasons = await unhandledDuring(async () => {
    const manager = scene.manager({
      onError: () => {
        throw new Error("again");
      },
    });
    const [conn, peer] = connPair();
    manager.adopt(conn, "x", FAILING[0]);
    await peer.close();
    await until(() => manager.stats().ended.eof === 1);
  });
  assertEquals(reasons, []);
});

check("a channel that its owner closes takes no more; the sessions go on", async (scene) => {
  const sink = new Channel(1);
  const manager = scene.manager();
  const [conn, peer] = connPair();
  manager.adopt(conn, "x", sink);
  await take(sink, 1);
  sink.close();
  for (let i = 0; i < 5; i++) await peer.write(utf8("x"));
  await until(() => manager.session("x")!.stats().bytesIn === 5);
  await manager.writeStr("x", "alive");
  assertEquals(text(await readExactly(peer, 5)), "alive");
});

check("a full channel slows its own sessions only", async (scene) => {
  const [full, free] = [new Channel(1), new Channel(8)];
  const manager = scene.manager();
  const pairs = [connPair(), connPair()];
  manager.adopt(pairs[0]![0], "slow", full);
  manager.adopt(pairs[1]![0], "quick", free);
  for (const [, peer] of pairs) {
    scene.after(() => peer.abort());
    for (let i = 0; i < 3; i++) await peer.write(utf8(`${i}`));
  }
  const quick = ["new quick", "data quick 0", "data quick 1", "data quick 2"];
  assertEquals(brief(await take(free, 4)), quick);
  assertEquals(full.length, 1);
  const slow = ["new slow", "data slow 0", "data slow 1", "data slow 2"];
  assertEquals(brief(await take(full, 4)), slow);
});

check("events can be taken by `for await`, which ends after shutdown", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const seen: string[] = [];
  for await (const event of manager.events) {
    seen.push(...brief([event]));
    if (event.state === "new") await client.write(utf8("x"));
    if (event.state === "data") manager.shutdown({ graceMs: 50 });
  }
  assertEquals(seen, ["accepted a1", "new a1", "data a1 x", "disconnected a1 closed"]);
});

check("`eof` and `disconnected` come behind the data of the peer", async (scene) => {
  for (const allowHalfOpen of [false, true]) {
    const manager = await scene.listening({ allowHalfOpen });
    const client = await scene.dial(manager);
    await client.write(new Uint8Array(2_000_000));
    await client.closeWrite();
    const events = await takeUntil(manager.events, allowHalfOpen ? "eof" : "disconnected");
    const size = events.reduce((sum, { data }) => sum + data.length, 0);
    assertEquals(size, 2_000_000);
  }
});
