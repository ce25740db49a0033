/** Too much of everything: clients, calls, messages, data that nobody reads. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connect, connPair } from "@trunkline/sockets/auto";
import {
  Client,
  CLIENT_KEEP_ALIVE,
  ClientMsg,
  type ConnectError,
  dialServer,
  type RemoteError,
  Server,
  type ServerOptions,
} from "@trunkline/sockets/uds";
import { newPaths } from "./uds_process.ts";
import { bytes, register, rejection, text, until } from "./uds_service.ts";
import { encodeCall, encodeHello, STREAM, TYPE, WireClient } from "./uds_wire.ts";
import { unhandledDuring } from "./unhandled.ts";

const newPath = newPaths();
const check = (name: string, body: () => Promise<void>) => test(name, { timeout: 30_000 }, body);

/** A server, and a client whose calls must be answered whatever others do. */
async function start(options: ServerOptions = {}) {
  const path = newPath();
  const server = new Server(path, options);
  const state = register(server);
  await server.start();
  const client = await dialServer(path);
  const served = async () => assertEquals(text(await client.call("Näme ✓")), "✓");
  const stop = async () => {
    await client.close();
    await server.close({ graceMs: 0 });
  };
  const raw = async (reading = true) => new WireClient(await connect({ path }), { reading });
  return { path, server, state, client, served, stop, raw };
}

/** `count` messages in as few writes as possible. */
async function flood(wire: WireClient, count: number, message: (i: number) => Uint8Array) {
  for (let i = 0; i < count; i += 1000) {
    await wire.sendRaw(concat(Array.from({ length: 1000 }, (_, at) => message(i + at))));
  }
}

check("floods of signs of life, of cancellations and of hellos harm nobody", async () => {
  const { served, stop, raw } = await start();
  const keepAlive = new ClientMsg({ type: CLIENT_KEEP_ALIVE }).encode();
  const wire = await raw();
  await wire.greet();
  await flood(wire, 100_000, () => keepAlive);
  await flood(wire, 50_000, (id) => new ClientMsg({ id, type: TYPE.CANCEL }).encode());
  await flood(wire, 5000, (id) => encodeHello(id));
  await wire.send({ id: 5000, handler: "Echo", data: bytes("still here") });
  assertEquals(text((await wire.reply(5000)).data), "still here");
  // One answer to each hello, and to the first.
  assertEquals(wire.replies.length, 5002);
  await served();
  wire.close();
  await stop();
});

check(
  "calls that are cancelled as soon as they are made: no more handlers than allowed",
  async () => {
    const { server, served, stop, raw } = await start({ maxConcurrent: 4, maxQueued: 4 });
    let begun = 0;
    const release: (() => void)[] = [];
    // It does not listen to its signal.
    server.register("Deaf", () => new Promise<void>((resolve) => (begun++, release.push(resolve))));
    const wire = await raw();
    await wire.greet();
    await flood(wire, 10_000, (id) =>
      concat([
        encodeCall({ id, handler: "Deaf" }),
        new ClientMsg({ id, type: TYPE.CANCEL }).encode(),
      ]));
    await wire.send({ id: 20_000, handler: "uds.hello", data: bytes("{}") });
    await wire.reply(20_000);
    assertEquals(begun, 4);
    await served();
    for (const resolve of release) resolve();
    // Their places are free again.
    await wire.send({ id: 20_001, handler: "Näme ✓" });
    assertEquals(text((await wire.reply(20_001)).data), "✓");
    wire.close();
    await stop();
  },
);

check(
  "more clients than allowed: the last ones are closed, and a place that is left is taken",
  async () => {
    const { path, client, served, stop } = await start({ maxClients: 3 });
    await served();
    const others = [await dialServer(path), await dialServer(path)];
    for (const other of others) assertEquals(text(await other.call("Näme ✓")), "✓");
    const late = await Promise.all(Array.from({ length: 20 }, () => dialServer(path)));
    for (const refused of late) {
      const { code, message } = await rejection<RemoteError>(refused.call("Näme ✓"));
      // It may be told before it has called, or by an answer.
      assert(
        ["disconnected", "connection"].includes(code) || message === "the server is closing",
        `${code}: ${message}`,
      );
      await refused.closed.catch(() => {});
      await refused.close();
    }
    await others[0]!.close();
    await until(async () => {
      const next = await dialServer(path);
      const answer = await next.call("Näme ✓").catch(() => undefined);
      await next.close();
      return answer !== undefined;
    });
    await served();
    await others[1]!.close();
    assertEquals(text(await client.call("Näme ✓")), "✓");
    await stop();
  },
);

check("more calls than allowed are refused, the others answered, those of others too", async () => {
  const { path, server, served, stop } = await start({ maxConcurrent: 2, maxQueued: 3 });
  const release: (() => void)[] = [];
  server.register("Wait", () => new Promise<void>((resolve) => release.push(resolve)));
  const client = await dialServer(path);
  for (const options of [{}, { timeoutMs: 20_000 }]) {
    release.length = 0;
    const calls = Array.from({ length: 12 }, () => client.call("Wait", undefined, options));
    const settled = Promise.allSettled(calls);
    const refused = await Promise.all(calls.slice(5).map((it) => rejection<RemoteError>(it)));
    for (const { remoteCode, message } of refused) {
      assertEquals(message, "5 calls are open already");
      assertEquals(remoteCode, "timeoutMs" in options ? "overloaded" : remoteCode);
    }
    await served();
    // No more than two at a time.
    for (let done = 0; done < 5; done++) {
      await until(() => release.length > done);
      assert(release.length <= done + 2);
      release[done]!();
      await calls[done];
    }
    assertEquals((await settled).filter(({ status }) => status === "fulfilled").length, 5);
  }
  await client.close();
  await stop();
});

check("slow handlers hold up nobody, and one that never answers ends with its client", async () => {
  const { path, state, served, stop } = await start();
  const client = await dialServer(path);
  const reasons = await unhandledDuring(async () => {
    const ends = ["Hang", "Never", "Hang", "Never"].map((name) => rejection(client.call(name)));
    for (let i = 0; i < 50; i++) await served();
    assertEquals(text(await client.call("Näme ✓")), "✓");
    await client.close();
    for (const { code } of await Promise.all(ends)) assertEquals(code, "closed");
    await until(() => state.ended === 2);
    await served();
  });
  assertEquals(reasons, []);
  await stop();
});

check("clients that never read what they asked for get no more made than fits", async () => {
  const { server, served, stop, raw } = await start();
  let made = 0;
  let over = 0;
  server.registerStream("Endless", async ({ writable }) => {
    const writer = writable.getWriter();
    try {
      for (;; made++) await writer.write(new Uint8Array(100_000));
    } finally {
      over++;
    }
  });
  const wires = await Promise.all(Array.from({ length: 10 }, () => raw(false)));
  for (const wire of wires) {
    await wire.sendRaw(concat([
      encodeHello(0),
      // As much as a client can say that it takes.
      encodeCall({ id: 1, handler: "Endless", flags: STREAM, window: 0xffff_ffff }),
      ...[2, 3, 4].map((id) => encodeCall({ id, handler: "Make", data: bytes("5000000") })),
    ]));
  }
  // What the kernel and our own queue hold is full when nothing more is made for a while.
  for (let before = -1; before !== made;) {
    before = made;
    for (let i = 0; i < 100; i++) await served();
  }
  // Less than 1.5 MB for each.
  assert(made < 150, `${made}`);
  for (const wire of wires) wire.close();
  await until(() => over === 10);
  await served();
  await stop();
});

check("data of a stream that its handler does not read stays with who sends it", async () => {
  const { client, state, served, stop } = await start();
  const { readable, writable } = await client.stream("Ignore");
  const writer = writable.getWriter();
  let sent = 0;
  const end = rejection((async () => {
    for (;; sent++) await writer.write(new Uint8Array(10_000));
  })());
  for (let before = -1; before !== sent;) {
    before = sent;
    for (let i = 0; i < 20; i++) await served();
  }
  // One window, and what was on its way.
  assert(sent < 100, `${sent}`);
  await readable.cancel();
  assertEquals((await end).code, "aborted");
  await until(() => state.ended === 1);
  await served();
  await stop();
});

check("answers of a stream that nobody reads stay with the server", async () => {
  const { server, client, served, stop } = await start();
  let made = 0;
  server.registerStream("Endless", async ({ writable }) => {
    const writer = writable.getWriter();
    for (;; made++) await writer.write(new Uint8Array(10_000));
  });
  const stop5 = Array.from({ length: 5 }, () => new AbortController());
  for (const { signal } of stop5) await client.stream("Endless", { signal });
  for (let before = -1; before !== made;) {
    before = made;
    for (let i = 0; i < 20; i++) await served();
  }
  assert(made < 500, `${made}`);
  for (const it of stop5) it.abort();
  await served();
  await stop();
});

check("clients that are told to go away while they flood leave nothing behind", async () => {
  const { path, server, served, stop, raw } = await start({ idleMs: 1000 });
  const wires = await Promise.all(Array.from({ length: 5 }, () => raw(false)));
  const floods = wires.map((wire) =>
    flood(wire, 20_000, (id) => new ClientMsg({ id, handler: "Echo", data: bytes("x") }).encode())
  );
  await served();
  await stop();
  // Each write has settled by then.
  for (const wire of wires) wire.close();
  await Promise.all(floods);
  assertEquals((await rejection<ConnectError>(dialServer(path))).name, "ConnectError");
  await server.close();
  // Also one that comes late.
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const late = new Client(ours);
  await rejection(late.call("Näme ✓"));
  await late.close();
});
