/** What uds bounds against a peer that is hostile, slow or only careless: memory, time, and what is told of it. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { type ConnectError, connPair, listen, type Listener } from "@trunkline/sockets/auto";
import {
  Client,
  type ClientOptions,
  dialServer,
  type RemoteError,
  Server,
  ServerMsg,
  type ServerOptions,
  socketAddress,
} from "@trunkline/sockets/uds";
import { encodeServerHello } from "../uds/_hello.ts";
import { encodeCall, encodeChunk, MORE, TYPE, WireClient } from "./uds_wire.ts";
import { unhandledDuring } from "./unhandled.ts";
import { sleep } from "./adapter_suite.ts";
import { bytes, connected, rejection } from "./uds_service.ts";

function newServer(options: ServerOptions = {}): Server {
  const server = new Server(undefined, options);
  server.register("Echo", (request) => request.data);
  server.register(
    "Hang",
    (_, { signal }) =>
      new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve())),
  );
  return server;
}

function start(client: ClientOptions = {}, options: ServerOptions = {}) {
  return connected(newServer(options), client);
}

/** A client, and the other end of its connection, which the test plays; it has answered uds.hello by its id 0. */
async function greeted(options: ClientOptions = {}) {
  const [ours, theirs] = connPair();
  const client = new Client(ours, options);
  const first = client.call("first", undefined, { timeoutMs: 20_000 });
  await theirs.read();
  await theirs.write(new ServerMsg({ id: 0, data: encodeServerHello() }).encode());
  await theirs.read();
  await theirs.write(new ServerMsg({ id: 1 }).encode());
  await first;
  (async () => {
    while (await theirs.read() !== null);
  })().catch(() => {});
  const send = (id: number, type: number, ...data: number[]) =>
    theirs.write(new ServerMsg({ id, type, data: Uint8Array.from(data) }).encode());
  return { client, theirs, send };
}

test("the end of a message that is not whole settles the call, and the stream", async () => {
  const call = await greeted();
  const answer = rejection(call.client.call("x", undefined, { timeoutMs: 20_000 }));
  await call.send(2, TYPE.REPLY, MORE, 0, 65);
  await call.send(2, TYPE.END, 0, 0);
  assertEquals((await answer).code, "protocol");
  await call.client.close();

  const stream = await greeted();
  const { readable } = await stream.client.stream("x");
  const read = rejection(readable.getReader().read());
  await stream.send(2, TYPE.CHUNK, MORE, 65);
  await stream.send(2, TYPE.END, 0, 0);
  assertEquals((await read).code, "protocol");
  await stream.client.close();
});

test("pieces take no more memory than a message has, and empty ones are refused", async () => {
  const server = newServer({ maxMessage: 100_000 });
  const wire = WireClient.of(server);
  await wire.greet();
  await wire.sendRaw(encodeCall({ id: 1, handler: "Echo", flags: MORE, data: new Uint8Array(1) }));
  for (let i = 0; i < 60; i++) {
    const part = new Uint8Array(34_000);
    let at = 0;
    for (let j = 0; j < 1000; j++) {
      const piece = encodeChunk(1, new Uint8Array(1), MORE);
      part.set(piece, at);
      at += piece.length;
    }
    await wire.sendRaw(part.subarray(0, at));
  }
  await wire.sendRaw(encodeChunk(1, new Uint8Array(1)));
  await wire.reply(1, TYPE.REPLY);
  wire.close();
  const empty = WireClient.of(server);
  await empty.greet();
  await empty.sendRaw(
    encodeCall({ id: 1, handler: "Echo", flags: MORE, data: new Uint8Array(1) }),
  );
  await empty.sendRaw(encodeChunk(1, new Uint8Array(), MORE));
  await empty.ended;
  await server.close();
});

test("a message that is too large ends its call alone, in pieces too, on both sides", async () => {
  const { server, client, close } = start({}, { maxMessage: 100_000 });
  await client.call("Echo", undefined, { timeoutMs: 20_000 });
  const beside = client.call("Echo", new Uint8Array(100_000));
  const large = await rejection<RemoteError>(client.call("Echo", new Uint8Array(1_000_000)));
  assertEquals(large.remoteCode, "too-large");
  assertEquals((await beside).length, 100_000);
  server.register("Give", () => new Uint8Array(90_000));
  await close();

  const small = start({ maxMessage: 50_000 }, {});
  small.server.register("Give", () => new Uint8Array(1_000_000));
  await small.client.call("Echo", undefined, { timeoutMs: 20_000 });
  assertEquals((await rejection(small.client.call("Give"))).code, "too-large");
  assertEquals((await small.client.call("Echo", bytes("on"))).length, 2);
  await small.close();
});

test("a name of more than 4096 bytes ends the connection, and is not sent", async () => {
  const { client, server, close } = start();
  assert(await rejection<Error>(client.call("n".repeat(4097))) instanceof RangeError);
  const wire = WireClient.of(server);
  await wire.send({ id: 1, handler: "n".repeat(4097) });
  await wire.ended;
  assertEquals(
    (await rejection<RemoteError>(client.call("n".repeat(4096)))).remoteCode,
    "unknown-handler",
  );
  await close();
});

test("what a handler has written is sent before the end, whether it waited or not", async () => {
  const { client, server, close } = start();
  server.registerStream("Rows", ({ writable }) => {
    const writer = writable.getWriter();
    for (let i = 0; i < 100; i++) writer.write(new Uint8Array([i]));
    writer.close();
  });
  const { readable } = await client.stream("Rows");
  assertEquals((await Array.fromAsync(readable)).map(([it]) => it), [...Array(100).keys()]);
  await close();
});

test("writes that nobody waits for end no process, on both sides", async () => {
  const { client, server, close } = start();
  server.registerStream("Endless", async ({ writable }, { signal }) => {
    const writer = writable.getWriter();
    while (!signal.aborted) {
      writer.write(new Uint8Array(50_000));
      await sleep(1);
    }
    writer.write(new Uint8Array(1));
  });
  server.registerStream("Short", () => {});
  const reasons = await unhandledDuring(async () => {
    const endless = await client.stream("Endless");
    const reader = endless.readable.getReader();
    await reader.read();
    await reader.cancel();
    const short = await client.stream("Short");
    const writer = short.writable.getWriter();
    for (let i = 0; i < 20; i++) writer.write(new Uint8Array(50_000));
    await writer.closed.catch(() => {});
    writer.write(new Uint8Array(1));
    await sleep(20);
  });
  assertEquals(reasons, []);
  await close();
});

test("metadata of a stream's end is heard", async () => {
  const { client, server, close } = start();
  server.registerStream("Meta", (_, context) => {
    context.replyMetadata = { rows: "3" };
  });
  let heard: unknown;
  const { readable } = await client.stream("Meta", { onMetadata: (it) => heard = { ...it } });
  await Array.fromAsync(readable);
  assertEquals(heard, { rows: "3" });
  await close();
});

test("a call with metadata, and a stream, wait for a server that is slow to greet", async () => {
  const [ours, theirs] = connPair();
  const client = new Client(ours, { helloTimeoutMs: 10 });
  const heard = client.call("Tenant", undefined, { metadata: { tenant: "42" } });
  const streaming = client.stream("Echo.all");
  // What Go's messages can say is said meanwhile.
  const plain = client.call("Plain", undefined, { timeoutMs: 20_000 });
  await sleep(50);
  const server = newServer();
  server.register("Tenant", (_, { metadata }) => metadata["tenant"]);
  server.register("Plain", () => "plain");
  server.registerStream("Echo.all", ({ readable, writable }) => readable.pipeTo(writable));
  server.serveConn(theirs);
  assertEquals(await heard, bytes("42"));
  assertEquals(await plain, bytes("plain"));
  const { writable, readable } = await streaming;
  await writable.close();
  await Array.fromAsync(readable);
  await client.close();
  await server.close();
});

test("a call that waits for admission or another connection hears of the end", async () => {
  const never = () => new Promise<never>(() => {});
  const [ours, theirs] = connPair();
  const lost = new Client(ours, { peerCred: "try", authorize: never });
  const waiting = rejection(lost.call("x"));
  theirs.abort();
  assertEquals((await waiting).code, "connection");
  await lost.close();

  const closed = new Client(connPair()[0], { peerCred: "try", authorize: never });
  const other = rejection(closed.call("x"));
  await closed.close();
  assertEquals((await other).code, "closed");

  const [mine, gone] = connPair();
  const redialing = new Client(mine, { redial: never });
  gone.abort();
  await redialing.call("x").catch(() => {});
  const third = rejection(redialing.call("x"));
  await redialing.close();
  assertEquals((await third).code, "closed");
  assertEquals((await rejection(redialing.call("x"))).code, "closed");
});

test("one deadline holds for the dial, the greeting and the call", async () => {
  const server = newServer();
  let told = Infinity;
  server.register("Slow", (_, { deadline, signal }) => {
    told = deadline! - Date.now();
    return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  });
  const [ours, theirs] = connPair();
  const client = new Client(ours, {
    redial: async () => {
      await sleep(200);
      const [ours, theirs] = connPair();
      server.serveConn(theirs);
      return ours;
    },
  });
  theirs.abort();
  await client.call("x").catch(() => {});
  const error = await rejection(client.call("Slow", undefined, { timeoutMs: 300 }));
  assertEquals(error.code, "timeout");
  assert(told <= 110, `${told}`);
  await client.close();
  await server.close();
});

test("a deadline is a timeout, whoever notices it first", async () => {
  const { send, client } = await greeted();
  const late = rejection(client.call("x", undefined, { timeoutMs: 20_000 }));
  await send(2, TYPE.FAILURE, 8, ...bytes("deadline"), 1, 65, 0);
  assertEquals((await late).code, "timeout");
  await client.close();
});

test("no handler begins when its client has left", async () => {
  const server = newServer({ maxMessage: 1_000_000, maxBuffered: 100_000 });
  let ran = 0;
  server.register("Big", () => new Uint8Array(900_000));
  server.register("Effect", () => {
    ran++;
  });
  const wire = WireClient.of(server);
  await wire.greet();
  await wire.sendRaw(encodeCall({ id: 1, handler: "Big", window: 64 }));
  await wire.sendRaw(encodeCall({ id: 2, handler: "Effect", window: 64 }));
  await wire.reply(1);
  wire.close();
  await sleep(20);
  assertEquals(ran, 0);
  await server.close();
});

test("a server that takes no token gets no call, the second time neither", async () => {
  const [ours, theirs] = connPair();
  const client = new Client(ours, { token: "t" });
  const first = rejection(client.call("first"));
  await theirs.read();
  await theirs.write(new ServerMsg({ id: 0, type: 0 }).encode());
  assertEquals((await first).code, "unauthorized");
  assertEquals((await rejection(client.call("second"))).code, "unauthorized");
  assertThrows(() => new Client(ours, { token: "t", extensions: false }), TypeError);
  theirs.abort();
  await client.close();
});

test("calls that were given up, but not read by the server, are no more than maxBuffered", async () => {
  const [ours] = connPair();
  const client = new Client(ours, { timeoutMs: 2, maxBuffered: 120_000, maxPending: 4 });
  const codes = new Set<string>();
  for (let i = 0; i < 60; i++) {
    codes.add((await rejection(client.call("x", new Uint8Array(60_000)))).code);
  }
  assert(codes.has("overloaded"), [...codes].join());
  await client.close();
});

test("requests that are handled are no more than maxBuffered and one", async () => {
  const server = newServer({ maxMessage: 100_000, maxBuffered: 300_000 });
  let running = 0;
  server.register("Count", () => {
    running++;
    return new Promise<void>(() => {});
  });
  const wire = WireClient.of(server);
  for (let id = 0; id < 20; id++) {
    await wire.send({ id, handler: "Count", data: new Uint8Array(100_000) });
  }
  await wire.reply(19);
  assertEquals(running, 4);
  wire.close();
  await server.close({ graceMs: 0 });
});

test("options that would be ignored are refused", async () => {
  const [ours] = connPair();
  const redial = () => Promise.resolve(ours);
  for (
    const dialing of [
      () => dialServer(ours, { reconnect: true }),
      () => dialServer(ours, { transport: { connect: () => Promise.resolve(ours) } }),
      () => dialServer("x", { reconnect: true, redial }),
      () => dialServer(undefined as unknown as string),
    ]
  ) assert(await rejection<Error>(dialing()) instanceof TypeError);
  const server = new Server(undefined);
  for (const name of ["uds.hello", "uds.describe", "uds.mine"]) {
    assertThrows(() => server.register(name, () => ""), TypeError);
  }
  assertThrows(() => server.register("x", undefined as unknown as () => ""), TypeError);
  ours.abort();
});

test("extensions: false never asks, over a name too", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const path = join(directory, "socket");
  const server = new Server(path);
  server.register("Echo", (request) => request.data);
  server.registerStream("All", () => {});
  await server.start();
  const client = await dialServer(path, { extensions: false });
  assertEquals(await client.call("Echo", bytes("x"), { timeoutMs: 20_000 }), bytes("x"));
  assertEquals((await rejection(client.stream("All"))).code, "unsupported");
  await client.close();
  await server.close();
  rmSync(directory, { recursive: true });
});

test("a server tells what nobody else hears: a listener that broke, a token that is gone", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const heard: unknown[] = [];
  const onError = (error: unknown) => heard.push(error);
  const broken = new Error("broken");
  const failing: Listener = await listen(join(directory, "other"));
  const transport = {
    listen: () => {
      const listener = { ...failing, close: () => failing.close() };
      return Promise.resolve(Object.assign(listener, {
        [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(broken) }),
      }) as unknown as Listener);
    },
  };
  const server = new Server(join(directory, "socket"), { transport, onError });
  await server.start();
  while (heard.length < 1) await sleep(1);
  assertEquals(heard[0], broken);
  await server.close();
  await failing.close();

  const tokens = newServer({ tokenFile: join(directory, "none"), onError });
  const [ours, theirs] = connPair();
  tokens.serveConn(theirs);
  const client = new Client(ours, { token: "t" });
  assertEquals((await rejection(client.call("Echo"))).code, "unauthorized");
  assertEquals((heard[1] as ConnectError).code, "not-found");
  await client.close();
  await tokens.close();
  rmSync(directory, { recursive: true });
});

test("a runtime directory that others can enter is refused", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const before = process.env["XDG_RUNTIME_DIR"];
  process.env["XDG_RUNTIME_DIR"] = directory;
  try {
    assertEquals(await socketAddress("name"), { path: `${directory}/name` });
    chmodSync(directory, 0o750);
    assertEquals((await rejection<ConnectError>(socketAddress("name"))).code, "permission");
  } finally {
    if (before === undefined) delete process.env["XDG_RUNTIME_DIR"];
    else process.env["XDG_RUNTIME_DIR"] = before;
    rmSync(directory, { recursive: true });
  }
});

test("no call is made before its server was admitted, however long that takes", async () => {
  const [ours, theirs] = connPair();
  const admission = Promise.withResolvers<boolean>();
  const authorize = () => admission.promise;
  const client = new Client(ours, { peerCred: "try", helloTimeoutMs: 5, authorize });
  let heard = 0;
  theirs.read().then((chunk) => heard += chunk?.length ?? 0, () => {});
  const calls = [{}, { timeoutMs: 20_000 }, { metadata: {} }].map((options) =>
    rejection(client.call("secret", bytes("secret"), options))
  );
  await sleep(50);
  admission.resolve(false);
  for (const error of await Promise.all(calls)) assertEquals(error.code, "unauthorized");
  assertEquals(heard, 0);
  theirs.abort();
  await client.close();
});

test("a handler that writes behind its own close() has done with it", async () => {
  const { client, server, close } = start();
  server.registerStream("Behind", ({ writable }) => {
    const writer = writable.getWriter();
    writer.write(bytes("a"));
    writer.close();
    writer.write(bytes("b"));
  });
  const { readable } = await client.stream("Behind", { timeoutMs: 20_000 });
  assertEquals(await Array.fromAsync(readable), [bytes("a")]);
  await close();
});

test("a client that closes while it connects again leaves no connection", async () => {
  for (let turns = 0; turns < 8; turns++) {
    const dialed = Promise.withResolvers<ReturnType<typeof connPair>[0]>();
    const [ours, gone] = connPair();
    const [next, theirs] = connPair();
    const client = new Client(ours, { redial: () => dialed.promise });
    // Hears of the end of what was dialed, whether it was used or not.
    const ended = (async () => {
      while (await theirs.read().catch(() => null) !== null);
      theirs.abort();
    })();
    gone.abort();
    await client.call("x").catch(() => {});
    const call = rejection(client.call("x"));
    await sleep(0);
    dialed.resolve(next);
    for (let i = 0; i < turns; i++) await Promise.resolve();
    await client.close();
    assertEquals((await call).code, "closed");
    assertEquals((await rejection(client.call("x"))).code, "closed");
    await ended;
  }
});

test("a reader hears of a failure behind what it has read", async () => {
  const { client, server, close } = start();
  server.registerStream("Two", async ({ writable }) => {
    const writer = writable.getWriter();
    await writer.write(bytes("a"));
    await writer.write(bytes("b"));
    throw new Error("no luck");
  });
  const { readable } = await client.stream("Two");
  const reader = readable.getReader();
  await reader.read();
  await reader.read();
  assertEquals((await rejection(reader.closed)).message, "handler(Two) error: no luck");
  await close();
});
