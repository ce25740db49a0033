/** Faults that were found once: each has a test that it is none any more. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  Client,
  ClientMsg,
  ClientMsgDecoder,
  type ClientOptions,
  RemoteError,
  Server,
  ServerMsg,
  type ServerOptions,
} from "@trunkline/sockets/uds";
import { sleep } from "./adapter_suite.ts";
import { encodeCall, encodeChunk, encodeHello, MORE, STREAM, WireClient } from "./uds_wire.ts";
import { unhandledDuring } from "./unhandled.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);
const check = (name: string, body: () => Promise<void>) => test(name, { timeout: 8000 }, body);

function start(client: ClientOptions = {}, options: ServerOptions = {}) {
  const [ours, theirs] = connPair();
  const server = new Server(undefined, options);
  server.register("Echo", (request) => request.data);
  server.register("Text", () => "hello");
  server.serveConn(theirs);
  return { server, client: new Client(ours, client) };
}

check("cancelling a stream in its handler frees one place, not two", async () => {
  const { client, server } = start({}, { maxConcurrent: 1 });
  server.registerStream("Cancel", async ({ readable }) => {
    await readable.cancel();
  });
  let running = 0;
  let most = 0;
  server.register("Slow", async () => {
    most = Math.max(most, ++running);
    await sleep(20);
    running--;
  });
  for (let i = 0; i < 3; i++) {
    await (await client.stream("Cancel")).readable.getReader().read().catch(() => {});
  }
  await Promise.all([1, 2, 3, 4].map(() => client.call("Slow")));
  await client.close();
  await server.close({ graceMs: 0 });
  assertEquals(most, 1);
});

check(
  "a client that does not read gets no more answers made than fit (one read of many calls)",
  async () => {
    const { client, server } = start();
    let made = 0;
    server.register("Large", () => (made++, new Uint8Array(100_000)));
    const wire = WireClient.of(server, { reading: false });
    const calls = Array.from(
      { length: 5000 },
      (_, id) => new ClientMsg({ id, handler: "Large" }).encode(),
    );
    const all = new Uint8Array(calls.reduce((sum, it) => sum + it.length, 0));
    let at = 0;
    for (const call of calls) {
      all.set(call, at);
      at += call.length;
    }
    wire.sendRaw(all);
    await client.call("Text");
    await sleep(50);
    await client.call("Text");
    const count = made;
    wire.close();
    await client.close();
    await server.close({ graceMs: 0 });
    assert(count < 50, `${count} answers of 100 kB are held`);
  },
);

check("a late answer to the hello: what the server then says is understood", async () => {
  const server = new Server(undefined);
  server.register("Text", () => "hello");
  server.register("Large", () => new Uint8Array(100_000));
  const [ours, far] = connPair();
  const [near, theirs] = connPair();
  server.serveConn(theirs);
  const hold = Promise.withResolvers<void>();
  far.readable.pipeTo(near.writable).catch(() => {});
  (async () => {
    await hold.promise;
    await near.readable.pipeTo(far.writable);
  })().catch(() => {});
  const client = new Client(ours, { helloTimeoutMs: 20 });
  const first = client.call("Text", undefined, { timeoutMs: 5000 });
  await sleep(60);
  hold.resolve();
  assertEquals(text(await first), "hello");
  const answer = await client.call("Large");
  assertEquals(answer.length, 100_000);
  await server.close();
  await client.closed;
});

for (const limit of [1000, 65_536, 65_540, 100_000]) {
  check(`data of maxMessage bytes goes, or its call alone is refused: ${limit}`, async () => {
    const { client, server } = start({ maxMessage: limit }, { maxMessage: limit });
    server.register("Full", () => new Uint8Array(limit));
    const outcomes: string[] = [];
    for (
      const call of [
        () => client.call("Echo", new Uint8Array(limit)),
        () => client.call("Echo", new Uint8Array(limit), { timeoutMs: 5000 }),
        () => client.call("Full"),
        () => client.call("Full", undefined, { metadata: { a: "x".repeat(15_000) } }),
        () => client.call("Text"),
      ]
    ) {
      outcomes.push(await call().then(() => "ok", (error) => error.remoteCode ?? error.code));
    }
    await client.close();
    await server.close({ graceMs: 0 });
    for (const it of outcomes) assert(["ok", "too-large"].includes(it), outcomes.join());
    assertEquals(outcomes.at(-1), "ok");
  });
}

check("what a handler gives that cannot be sent fails its call alone", async () => {
  const { client, server } = start();
  const bad: [string, (context: { replyMetadata: unknown }) => unknown][] = [
    ["object", () => ({})],
    ["number", () => 7],
    ["array", () => [1, 2]],
    ["buffer", () => new ArrayBuffer(3)],
    ["metadata null", (context) => (context.replyMetadata = null, "")],
    ["metadata large", (context) => (context.replyMetadata = { a: "x".repeat(20_000) }, "")],
    ["metadata symbol", (context) => (context.replyMetadata = { a: Symbol() }, "")],
    ["throws nothing", () => {
      throw undefined;
    }],
    ["throws bare", () => {
      throw Object.create(null);
    }],
    ["throws metadata", () => {
      throw new RemoteError("x", "y", { metadata: { a: "x".repeat(20_000) } });
    }],
    ["throws details", () => {
      throw new RemoteError("x", "y", { details: "text" as unknown as Uint8Array });
    }],
    ["throws message", () => {
      throw Object.assign(new Error(), { message: 7 });
    }],
  ];
  for (const [name, body] of bad) {
    // deno-lint-ignore no-explicit-any
    server.register(name, (_, context) => body(context as any) as any);
    // deno-lint-ignore no-explicit-any require-await
    server.register(`${name}, later`, async (_, context) => body(context as any) as any);
  }
  const wrong: string[] = [];
  const reasons = await unhandledDuring(async () => {
    for (const [name] of bad) {
      for (const handler of [name, `${name}, later`]) {
        for (const options of [{}, { timeoutMs: 300 }]) {
          const rich = "timeoutMs" in options;
          const timeout = sleep(400).then(() => "HANGS");
          const got = client.call(handler, undefined, options).then(
            (it) => `answer of ${it.length}: ${text(it)}`,
            (error) => error.remoteCode ?? error.code,
          );
          const result = await Promise.race([got, timeout]);
          const good = ["handler", "error", ...name.startsWith("throws") ? ["x"] : []];
          if (!good.includes(result)) wrong.push(`${handler}${rich ? " (rich)" : ""}: ${result}`);
        }
      }
    }
  });
  await client.close();
  await server.close({ graceMs: 0 });
  assertEquals([wrong, reasons.map(String)], [[], []]);
});

check("empty messages of a stream that nobody reads do not fill memory", async () => {
  const { client, server } = start();
  let given: (() => void) | undefined;
  server.registerStream("Stop", () => new Promise<void>((resolve) => given = resolve));
  const wire = WireClient.of(server);
  await wire.greet();
  await wire.sendRaw(encodeCall({ id: 1, handler: "Stop", flags: STREAM, window: 1000 }));
  const one = encodeChunk(1, new Uint8Array());
  const many = new Uint8Array(one.length * 20_000);
  for (let at = 0; at < many.length; at += one.length) many.set(one, at);
  let sent = 0;
  const stalled = Symbol();
  for (; sent < 60; sent++) {
    const ended = await Promise.race([
      wire.sendRaw(many).then(() => client.call("Text")),
      wire.ended.then(() => stalled),
    ]);
    if (ended === stalled) break;
  }
  given?.();
  wire.close();
  await client.close();
  await server.close({ graceMs: 0 });
  assert(sent < 60, `${sent * 20_000} empty messages are held`);
});

check("a stream that ends in the middle of a message gives its room back", async () => {
  const { client, server } = start({}, { maxBuffered: 600_000 });
  const release: (() => void)[] = [];
  server.registerStream("Early", () => new Promise<void>((resolve) => release.push(resolve)));
  for (let i = 0; i < 4; i++) {
    const { readable, writable } = await client.stream("Early");
    const writer = writable.getWriter();
    writer.closed.catch(() => {});
    writer.write(new Uint8Array(30_000_000)).catch(() => {});
    for (let turn = 0; turn < 5; turn++) await client.call("Text");
    release[i]!();
    await readable.getReader().read();
  }
  const large = client.call("Echo", new Uint8Array(800_000), { timeoutMs: 2000 });
  const result = await large.then((it) => it.length, (error) => error.code);
  await client.close();
  await server.close({ graceMs: 0 });
  assertEquals(result, 800_000);
});

check("a handler's stream is over with its call", async () => {
  const { client, server } = start();
  const reading = Promise.withResolvers<unknown>();
  server.registerStream("Leave", ({ readable }) => {
    reading.resolve(readable.getReader().read().then(() => "done", () => "failed"));
  });
  const { readable } = await client.stream("Leave");
  await readable.getReader().read();
  const result = await Promise.race([
    reading.promise.then((it) => it),
    sleep(500).then(() => "hangs"),
  ]);
  await client.close();
  await server.close({ graceMs: 0 });
  assert(result !== "hangs");
});

check("many calls that wait are begun without a deep stack", async () => {
  const { client, server } = start({ maxPending: 100_000 }, {
    maxConcurrent: 1,
    maxQueued: 20_000,
  });
  const first = Promise.withResolvers<void>();
  server.register("First", () => first.promise);
  const reasons = await unhandledDuring(async () => {
    const all = [
      client.call("First"),
      ...Array.from({ length: 10_000 }, () => client.call("Text")),
    ];
    const settled = Promise.allSettled(all);
    await sleep(300);
    first.resolve();
    const result = await Promise.race([settled, sleep(3000)]);
    assert(Array.isArray(result), "calls hang");
    assertEquals(result.filter(({ status }) => status === "rejected").length, 0);
  });
  await client.close();
  await server.close({ graceMs: 0 });
  assertEquals(reasons, []);
});

check("a long deadline from the wire does not fire at once", async () => {
  const { client, server } = start();
  server.register("Slow", async () => {
    await sleep(30);
    return "ok";
  });
  const wire = WireClient.of(server);
  await wire.greet();
  await wire.sendRaw(encodeCall({ id: 1, handler: "Slow", timeoutMs: 3_000_000_000, window: 100 }));
  const { type } = await wire.reply(1);
  wire.close();
  await client.close();
  await server.close({ graceMs: 0 });
  assertEquals(type, 17);
});

for (const type of ["plain", "reply", "reply twice"] as const) {
  check(`a stream that a server answers wrongly ends: ${type}`, async () => {
    const [ours, theirs] = connPair();
    const client = new Client(ours);
    const opening = client.stream("X");
    await theirs.read();
    await theirs.write(new ServerMsg({ id: 0, data: bytes('{"version":1}') }).encode());
    const { readable } = await opening;
    await theirs.read();
    const reply = (id: number, more: number) =>
      new ServerMsg({ id, type: 17, data: new Uint8Array([more, 0, 1]) }).encode();
    const reading = readable.getReader().read().then(() => "done", () => "failed");
    if (type === "plain") await theirs.write(new ServerMsg({ id: 1, data: bytes("x") }).encode());
    else await theirs.write(reply(1, type === "reply" ? 0 : MORE));
    const result = await Promise.race([reading, sleep(500).then(() => "hangs")]);
    theirs.abort();
    await client.close();
    assert(result !== "hangs");
  });
}

check("one guess of a token for each connection", async () => {
  const { server } = start({}, { token: "secret" });
  const wire = WireClient.of(server);
  const guesses = ["a", "b", "c", "secret"].map((it, id) => encodeHello(id, it));
  await wire.sendRaw(Uint8Array.of(...guesses.flatMap((it) => [...it])));
  await wire.ended;
  await server.close({ graceMs: 0 });
  assertEquals(wire.replies.filter(({ type }) => type === 1).length, 0);
  assert(wire.replies.length <= 1);
});

check("what stands right behind the answer to the hello is understood", async () => {
  const [ours, theirs] = connPair();
  const client = new Client(ours);
  const rich = client.call("A", undefined, { timeoutMs: 5000 });
  const plain = client.call("B");
  const ids = new Map<string, number>();
  const decoder = new ClientMsgDecoder();
  while (ids.size < 2) {
    for (const it of decoder.push((await theirs.read())!)) ids.set(it.handler, Number(it.id));
  }
  await theirs.write(Uint8Array.of(
    ...new ServerMsg({ id: ids.get("uds.hello")!, data: bytes('{"version":1}') }).encode(),
    ...new ServerMsg({ id: ids.get("B")!, type: 17, data: new Uint8Array([0, 0, 65]) }).encode(),
  ));
  const result = await plain.then(text, (error) => error.code);
  theirs.abort();
  await rich.catch(() => {});
  await client.close();
  assertEquals(result, "A");
});

for (const way of ["close", "server", "abort", "done"] as const) {
  check(`the streams of a call that is over are settled: ${way}`, async () => {
    const { client, server } = start();
    const leave = Promise.withResolvers<void>();
    server.registerStream("Stop", () => leave.promise);
    const stop = new AbortController();
    const { readable, writable } = await client.stream("Stop", { signal: stop.signal });
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    const both = Promise.allSettled([reader.closed, writer.closed]);
    if (way === "close") await client.close();
    else if (way === "server") await server.close({ graceMs: 0 });
    else if (way === "abort") stop.abort();
    else leave.resolve();
    const result = await Promise.race([both.then(() => "settled"), sleep(500).then(() => "hangs")]);
    await client.close();
    await server.close({ graceMs: 0 });
    assertEquals(result, "settled");
  });
}

test("a client that does not read holds up close() no longer than CLOSE_TIMEOUT_MS", {
  timeout: 15_000,
}, async () => {
  const { client, server } = start();
  let made = 0;
  server.register("Large", () => (made++, new Uint8Array(200_000)));
  const wire = WireClient.of(server, { reading: false });
  // The first one fits into the connection, the second one stays where it is.
  for (let id = 0; id < 2; id++) {
    await wire.send({ id, handler: "Large" });
    while (made <= id) await client.call("Text");
    await sleep(10);
  }
  const closed = server.close({ graceMs: 0 }).then(() => "closed");
  const result = await Promise.race([closed, sleep(8000).then(() => "hangs")]);
  wire.close();
  await closed;
  assertEquals(result, "closed");
});
