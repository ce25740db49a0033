/** Calls between a client and a server of `./uds`. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  Client,
  ClientMsg,
  type ClientOptions,
  type ConnectError,
  dialServer,
  RemoteError,
  Server,
  ServerMsg,
  type ServerOptions,
  socketAddress,
} from "@trunkline/sockets/uds";
import { bytes, rejection, text } from "./uds_service.ts";

function start(client: ClientOptions = {}, server: ServerOptions = {}) {
  const [ours, theirs] = connPair();
  const it = new Server(undefined, server);
  it.register("Echo", (request) => request.data);
  it.register("Text", () => "hello");
  it.register("Nothing", () => {});
  it.register("Fail", () => {
    throw new Error("no luck");
  });
  it.register("Async", async ({ data }) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return new ServerMsg({ type: 1, data });
  });
  it.register("Meta", (_, context) => {
    context.replyMetadata = { got: context.metadata["a"] ?? "" };
    return "";
  });
  it.serveConn(theirs);
  return { server: it, client: new Client(ours, client) };
}

test("calls are answered, by data, texts, nothing and errors", async () => {
  const { client, server } = start();
  assertEquals(text(await client.call("Echo", bytes("hi"))), "hi");
  assertEquals(text(await client.call("Text")), "hello");
  assertEquals(await client.call("Nothing"), new Uint8Array());
  assertEquals(text(await client.call("Async", bytes("later"))), "later");
  const failed = await rejection<RemoteError>(client.call("Fail"));
  assert(failed instanceof RemoteError);
  assertEquals([failed.code, failed.message], ["remote", "handler(Fail) error: no luck"]);
  assertEquals((await rejection<RemoteError>(client.call("None"))).message, 'no handler "None"');
  const raw = await client.callRaw("Fail");
  assertEquals([raw.type, text(raw.data)], [0, "handler(Fail) error: no luck"]);
  const rich = await rejection<RemoteError>(client.call("None", undefined, { timeoutMs: 1000 }));
  assertEquals(rich.remoteCode, "unknown-handler");
  let metadata: unknown;
  await client.call("Meta", undefined, {
    metadata: { a: "1" },
    onMetadata: (it) => metadata = { ...it },
  });
  assertEquals(metadata, { got: "1" });
  await client.close();
  await server.close();
});

test("a large message goes in pieces, and small ones between them", async () => {
  const { client, server } = start();
  const data = new Uint8Array(3_000_000).map((_, i) => i * 7);
  const [large, ...small] = await Promise.all([
    client.call("Echo", data),
    ...Array.from({ length: 20 }, (_, i) => client.call("Echo", new Uint8Array([i]))),
  ]);
  assertEquals(large, data);
  assertEquals(small.map(([first]) => first), Array.from({ length: 20 }, (_, i) => i));
  await client.close();
  await server.close();
});

test("a plain call is what the Go package sends", async () => {
  const [ours, theirs] = connPair();
  const client = new Client(ours);
  const call = client.call("Echo", bytes("hello"));
  const sent = await theirs.read();
  assertEquals(sent, new ClientMsg({ id: 0, handler: "Echo", data: bytes("hello") }).encode());
  await theirs.write(new ServerMsg({ id: 0, data: bytes("hello") }).encode());
  assertEquals(text(await call), "hello");
  theirs.abort();
  await client.close();
});

test("a call ends with its signal and its time, and the handler hears of both", async () => {
  const { client, server } = start();
  const reasons: string[] = [];
  server.register("Slow", (_, { signal }) =>
    new Promise((resolve) => {
      signal.addEventListener("abort", () => {
        reasons.push((signal.reason as Error).message);
        resolve();
      });
    }));
  const stop = new AbortController();
  const aborted = rejection(client.call("Slow", undefined, { signal: stop.signal }));
  await client.call("Text", undefined, { timeoutMs: 1000 });
  stop.abort();
  assertEquals((await aborted).code, "aborted");
  const late = await rejection(client.call("Slow", undefined, { timeoutMs: 20 }));
  assert(["timeout", "remote"].includes(late.code));
  await client.call("Text");
  assertEquals(reasons.length, 2);
  await client.close();
  await server.close();
});

test("the end of the connection, of the client and of the server settle all calls", async () => {
  const { client, server } = start();
  server.register("Never", () => new Promise<void>(() => {}));
  const never = rejection(client.call("Never"));
  await client.call("Text");
  await client.close();
  assertEquals((await never).code, "closed");
  assertEquals((await rejection(client.call("Text"))).code, "closed");
  await server.close();

  const other = start();
  other.server.register("Never", () => new Promise<void>(() => {}));
  const open = rejection<RemoteError>(other.client.call("Never"));
  await other.client.call("Text");
  await other.server.close({ graceMs: 0 });
  assertEquals((await open).message, "the server is closing");
  assertEquals((await rejection(other.client.call("Text"))).code, "disconnected");
});

test("a token is needed before any call", async () => {
  const { client, server } = start({}, { token: "secret" });
  assertEquals(
    (await rejection<RemoteError>(client.call("Text"))).message,
    "the server said: a token is needed first",
  );
  await client.close();
  const right = start({ token: "secret" }, { token: "secret" });
  assertEquals(text(await right.client.call("Text")), "hello");
  const wrong = start({ token: "wrong" }, { token: "secret" });
  assertEquals((await rejection(wrong.client.call("Text"))).code, "unauthorized");
  for (const { client, server } of [right, wrong]) {
    await client.close();
    await server.close();
  }
  await server.close();
});

test("calls by a name, over a real socket, which is gone afterwards", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const path = join(directory, "s.sock");
  const server = new Server(path);
  server.register("Echo", ({ data }, { peer }) => {
    assert(peer === undefined || peer.pid === process.pid);
    return data;
  });
  await server.start();
  const clients = await Promise.all([dialServer(path), dialServer(path)]);
  const data = new Uint8Array(500_000).fill(3);
  for (const client of clients) {
    assertEquals(await client.call("Echo", data), data);
    assertEquals(await client.call("Echo", data, { timeoutMs: 10_000 }), data);
  }
  await clients[0]!.close();
  await server.close();
  await clients[1]!.closed;
  assertEquals((await rejection(clients[1]!.call("Echo"))).code, "disconnected");
  assertEquals((await rejection<ConnectError>(dialServer(path))).name, "ConnectError");
  rmSync(directory, { recursive: true });
});

test("names are files in a directory of ours, paths and abstract names as they are", async () => {
  assertEquals(await socketAddress("/run/x"), { path: "/run/x" });
  assertEquals(await socketAddress("./x"), { path: "./x" });
  assertEquals(await socketAddress("@x"), { path: "\0x" });
  assertEquals(await socketAddress("\0x"), { path: "\0x" });
  const named = await socketAddress("service");
  assert("path" in named && /^\/.*\/service$/.test(named.path));
  for (const name of ["", ".", ".."]) {
    assertEquals((await rejection<ConnectError>(socketAddress(name))).code, "invalid-address");
  }
});

test("a client that breaks the protocol loses its connection, and no other notices", async () => {
  const { client, server } = start({}, { maxMessage: 1000 });
  const bad = [
    new Uint8Array(64).fill(0xff),
    new ClientMsg({ type: 2 }).encode(),
    new ClientMsg({ type: 17, handler: "Echo" }).encode(),
    new ClientMsg({ handler: "Echo", data: new Uint8Array(500_000) }).encode(),
    // The same id twice, while the first is open.
    Uint8Array.of(
      ...new ClientMsg({ handler: "Wait" }).encode(),
      ...new ClientMsg({ handler: "Wait" }).encode(),
    ),
    // In the middle of a message.
    new ClientMsg({ handler: "Echo", data: new Uint8Array(9) }).encode().subarray(0, 9),
  ];
  server.register("Wait", () => new Promise<void>(() => {}));
  for (const [index, wire] of bad.entries()) {
    const [ours, theirs] = connPair();
    server.serveConn(theirs);
    // The server may be gone before it is told.
    await ours.write(wire).catch(() => {});
    if (index === bad.length - 1) await ours.closeWrite();
    while (await ours.read().catch(() => null) !== null);
    ours.abort();
  }
  assertEquals(text(await client.call("Text")), "hello");
  await client.close();
  await server.close({ graceMs: 0 });
});

test("what is too much is refused by its name, on both sides", async () => {
  const { client, server } = start({ maxMessage: 5000, maxPending: 2 }, {
    maxConcurrent: 1,
    maxQueued: 1,
  });
  const release: (() => void)[] = [];
  server.register("Wait", () => new Promise<void>((resolve) => release.push(resolve)));
  server.register("Large", () => new Uint8Array(6000));
  const waiting = [client.call("Wait"), client.call("Wait")];
  assertEquals((await rejection(client.call("Wait"))).code, "overloaded");
  while (release.length < 1) await new Promise((resolve) => setTimeout(resolve, 1));
  release[0]!();
  await waiting[0];
  while (release.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  release[1]!();
  await waiting[1];
  assertEquals((await rejection(client.call("Large"))).code, "too-large");
  assertEquals(text(await client.call("Text")), "hello");
  await client.close();

  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const other = new Client(ours);
  const all = [1, 2].map(() => other.call("Wait"));
  const refused = await rejection<RemoteError>(other.call("Wait"));
  assertEquals(refused.message, "2 calls are open already");
  const ended = all.map((call) => rejection(call));
  await server.close({ graceMs: 0 });
  assertEquals(
    (await Promise.all(ended)).map(({ message }) => message),
    Array(2).fill("the server is closing"),
  );
  for (const options of [{ maxMessage: 0 }, { maxClients: -1 }, { idleMs: 2 ** 31 }]) {
    assertThrows(() => new Server("x", options), RangeError);
  }
  for (const options of [{ maxMessage: 0 }, { timeoutMs: -1 }, { keepAliveMs: 2 ** 31 }]) {
    assertThrows(() => new Client(connPair()[0], options), RangeError);
  }
  await rejection(other.call("Echo", undefined, { metadata: { a: "x".repeat(20_000) } }));
});

test("a client that says nothing is dropped, one with an open call or signs of life is not", async () => {
  const { client, server } = start({ keepAliveMs: 10 }, { idleMs: 60 });
  const silent = start({ keepAliveMs: 1_000_000 }, { idleMs: 60 });
  silent.server.register("Slow", async () => {
    await new Promise((resolve) => setTimeout(resolve, 150));
  });
  await silent.client.call("Slow");
  await silent.client.closed;
  assertEquals(text(await client.call("Text")), "hello");
  await client.close();
  await Promise.all([server.close(), silent.server.close()]);
});

test("a server with too many clients closes the next one", async () => {
  const { client, server } = start({}, { maxClients: 1 });
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const next = new Client(ours);
  const { code } = await rejection(next.call("Text"));
  assert(["disconnected", "connection"].includes(code), code);
  assertEquals(text(await client.call("Text")), "hello");
  await client.close();
  await next.close();
  await server.close();
});

test("streams: messages in both directions, one direction or neither, with flow control", async () => {
  const { client, server } = start();
  server.registerStream("Upper", async ({ readable, writable }) => {
    const writer = writable.getWriter();
    for await (const message of readable) await writer.write(bytes(text(message).toUpperCase()));
    await writer.close();
  });
  server.registerStream("Count", async ({ writable }, { metadata }) => {
    const writer = writable.getWriter();
    for (let i = 0; i < Number(metadata["n"]); i++) await writer.write(new Uint8Array([i]));
  });
  server.registerStream("Sum", async ({ readable, writable }) => {
    let sum = 0;
    for await (const message of readable) sum += message.length;
    await writable.getWriter().write(bytes(String(sum)));
  });
  let sent = 0;
  server.registerStream("Endless", async ({ writable }) => {
    const writer = writable.getWriter();
    for (;;) {
      await writer.write(new Uint8Array(50_000));
      sent++;
    }
  });
  server.registerStream("Failing", () => {
    throw new RemoteError("mine", "no luck", { details: bytes("x") });
  });

  const upper = await client.stream("Upper");
  const writer = upper.writable.getWriter();
  const reader = upper.readable.getReader();
  for (const word of ["a", "bc", ""]) {
    await writer.write(bytes(word));
    assertEquals(text((await reader.read()).value!), word.toUpperCase());
  }
  await writer.close();
  assertEquals((await reader.read()).done, true);

  const count = await client.stream("Count", { metadata: { n: "300" } });
  assertEquals((await Array.fromAsync(count.readable)).length, 300);

  const sum = await client.stream("Sum");
  const summing = sum.writable.getWriter();
  for (let i = 0; i < 40; i++) await summing.write(new Uint8Array(100_000));
  await summing.close();
  assertEquals((await Array.fromAsync(sum.readable)).map(text), ["4000000"]);

  const endless = await client.stream("Endless");
  const endlessReader = endless.readable.getReader();
  await endlessReader.read();
  await client.call("Text");
  await new Promise((resolve) => setTimeout(resolve, 20));
  // A window, and one more on its way.
  assert(sent < 20, `${sent}`);
  assertEquals(text(await client.call("Text")), "hello");
  await endlessReader.cancel();

  const failing = await client.stream("Failing");
  const failure = await rejection<RemoteError>(failing.readable.getReader().read());
  assertEquals([failure.remoteCode, failure.message, text(failure.details)], [
    "mine",
    "no luck",
    "x",
  ]);
  assertEquals(
    (await rejection<RemoteError>((await client.stream("Echo")).readable.getReader().read()))
      .remoteCode,
    "unsupported",
  );
  assertEquals(
    (await rejection<RemoteError>(client.call("Upper"))).message,
    "Upper takes a stream",
  );
  await client.close();
  await server.close({ graceMs: 1000 });
});

test("a client that does not read its answers is not read, either", async () => {
  const { client, server } = start();
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const wire = new ClientMsg({ handler: "Echo", data: new Uint8Array(20_000) }).encode();
  let sent = 0;
  const flood = (async () => {
    for (; sent < 2000; sent++) await ours.write(wire);
  })().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert(sent > 0 && sent < 200, `${sent}`);
  assertEquals(text(await client.call("Text")), "hello");
  ours.abort();
  await flood;
  await client.close();
  await server.close();
});

test("data of exactly maxMessage goes, in both directions, and one byte more fails its call alone", async () => {
  for (const maxMessage of [1000, 65_535, 65_536, 65_540, 300_000]) {
    const { client, server } = start({ maxMessage: 400_000 }, { maxMessage });
    server.register("Give", ({ data }) => new Uint8Array(Number(text(data))));
    for (const options of [{}, { metadata: { a: "b".repeat(10_000) } }]) {
      const name = "Echo";
      assertEquals(
        (await client.call(name, new Uint8Array(maxMessage), options)).length,
        maxMessage,
      );
      const size = bytes(String(maxMessage + 1));
      const large = await rejection<RemoteError>(client.call("Give", size, options));
      assertEquals(large.remoteCode, "too-large");
      assertEquals(text(await client.call("Text", undefined, options)), "hello");
    }
    await client.close();
    await server.close();
  }
});

test("answers that are larger together than maxBuffered are sent, to a client that takes them", async () => {
  const maxMessage = 1_000_000;
  const { client, server } = start({ maxMessage }, { maxMessage });
  server.register("Large", () => new Uint8Array(maxMessage));
  const calls = Array.from(
    { length: 8 },
    () => client.call("Large", undefined, { timeoutMs: 20_000 }),
  );
  assertEquals((await Promise.all(calls)).map(({ length }) => length), Array(8).fill(maxMessage));
  await client.close();
  await server.close();
});

test("requests that wait for their turn are no more than maxBuffered", async () => {
  const { client, server } = start({}, { maxConcurrent: 1, maxBuffered: 100_000 });
  let release = () => {};
  server.register("Wait", () => new Promise<void>((resolve) => release = resolve));
  const first = client.call("Wait", new Uint8Array(60_000));
  const waiting = [client.call("Echo", new Uint8Array(60_000))];
  const refused = await rejection<RemoteError>(client.call("Echo", new Uint8Array(60_000)));
  assertEquals(refused.remoteCode, "overloaded");
  waiting.push(client.call("Echo", new Uint8Array(40_000)));
  release();
  await first;
  assertEquals((await Promise.all(waiting)).map(({ length }) => length), [60_000, 40_000]);
  await client.close();
  await server.close();
});
