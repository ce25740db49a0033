/** What a client adds to calls: interceptors, reconnection, and errors told in full. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  Client,
  ClientMsgDecoder,
  type ClientOptions,
  dialServer,
  RemoteError,
  Server,
  ServerMsg,
  type ServerOptions,
} from "@trunkline/sockets/uds";
import { bytes, connected, rejection, text } from "./uds_service.ts";

function newServer(options: ServerOptions = {}) {
  const server = new Server(undefined, options);
  server.register("Echo", (request) => request.data);
  server.register("Meta", (_, context) => {
    context.replyMetadata = { got: context.metadata["a"] ?? "none" };
  });
  server.register("Refuse", ({ data }) => {
    throw new RemoteError("quota", "no more today", { details: data, metadata: { until: "noon" } });
  });
  server.registerStream("Echo.all", ({ readable, writable }) => readable.pipeTo(writable));
  return server;
}

function start(client: ClientOptions = {}, options: ServerOptions = {}) {
  return connected(newServer(options), client);
}

test("an error comes with its code, details and metadata, whatever was called before", async () => {
  const { client, close } = start();
  // All at once, and before anything was said but in Go's words.
  const calls = Array.from({ length: 10 }, (_, i) => client.call("Refuse", new Uint8Array([i])));
  for (const [i, call] of calls.entries()) {
    const error = await rejection<RemoteError>(call);
    assertEquals([error.remoteCode, error.message], ["quota", "no more today"]);
    assertEquals([error.details, { ...error.metadata }], [new Uint8Array([i]), { until: "noon" }]);
  }
  const again = await rejection<RemoteError>(client.call("Refuse", new Uint8Array([9])));
  assertEquals([again.remoteCode, again.details], ["quota", new Uint8Array([9])]);
  assertEquals((await rejection<RemoteError>(client.call("None"))).remoteCode, "unknown-handler");
  await close();
});

test("of many errors the last ones are explained, and the others keep their text", async () => {
  const { client, close } = start();
  const details = new Uint8Array(50_000);
  const calls = Array.from({ length: 20 }, () => client.call("Refuse", details));
  const errors = await Promise.all(calls.map((call) => rejection<RemoteError>(call)));
  assert(errors.every(({ message }) => message === "no more today"));
  const codes = errors.map(({ remoteCode }) => remoteCode);
  assertEquals(codes, [...Array(15).fill("error"), ...Array(5).fill("quota")]);
  await close();
});

test("a peer that has only Go's messages tells the text of an error", async () => {
  const [ours, theirs] = connPair();
  const client = new Client(ours, { helloTimeoutMs: 20 });
  const names: string[] = [];
  const served = (async () => {
    const decoder = new ClientMsgDecoder();
    for (let chunk; (chunk = await theirs.read()) !== null;) {
      for (const { id, handler } of decoder.push(chunk)) {
        names.push(handler);
        const data = bytes("cannot");
        if (handler !== "uds.hello") {
          await theirs.write(new ServerMsg({ id, type: 0, data }).encode());
        }
      }
    }
  })();
  const error = await rejection<RemoteError>(client.call("Any"));
  assertEquals([error.remoteCode, error.message, text(error.details)], [
    "error",
    "cannot",
    "cannot",
  ]);
  const raw = await client.callRaw("Any");
  assertEquals([raw.id, raw.type, text(raw.data)], [2, 0, "cannot"]);
  assertEquals(names, ["Any", "uds.hello", "Any"]);
  await Promise.all([client.close(), served.then(() => theirs.close())]);
});

test("metadata of an answer is heard without metadata of the call", async () => {
  const { client, close } = start();
  const heard: unknown[] = [];
  const onMetadata = (metadata: object) => heard.push({ ...metadata });
  await client.call("Meta", undefined, { onMetadata });
  await client.call("Meta", undefined, { onMetadata, metadata: { a: "1" } });
  assertEquals(heard, [{ got: "none" }, { got: "1" }]);
  await close();
});

test("interceptors stand around calls and streams, on both sides", async () => {
  const log: string[] = [];
  const { client, close } = start({
    interceptors: [
      {
        async call(call, next) {
          log.push(`outer ${call.handler}`);
          const answer = await next({
            ...call,
            options: { ...call.options, metadata: { a: "7" } },
          });
          log.push("outer done");
          return answer;
        },
        stream(call, next) {
          log.push(`stream ${call.handler}`);
          return next(call);
        },
      },
      {
        call: (call, next) =>
          call.handler === "Cached" ? Promise.resolve(bytes("cache")) : next(call),
      },
    ],
  }, {
    interceptors: [{
      async call(request, context, next) {
        log.push(`server ${context.handler} ${context.metadata["a"]}`);
        if (context.handler === "Meta") throw new RemoteError("denied", "not you");
        return await next(request, context);
      },
      async stream(stream, context, next) {
        log.push(`server ${context.handler}`);
        await next(stream, context);
        log.push("server done");
      },
    }, {}],
  });
  assertEquals(text(await client.call("Echo", bytes("hi"))), "hi");
  assertEquals(log.splice(0), ["outer Echo", "server Echo 7", "outer done"]);
  assertEquals(text(await client.call("Cached")), "cache");
  assertEquals((await rejection<RemoteError>(client.call("Meta"))).remoteCode, "denied");
  assertEquals(text((await client.callRaw("Meta")).data), "not you");
  log.length = 0;
  const { readable, writable } = await client.stream("Echo.all");
  const writer = writable.getWriter();
  const reader = readable.getReader();
  await writer.write(bytes("one"));
  assertEquals(text((await reader.read()).value!), "one");
  await writer.close();
  assertEquals((await reader.read()).done, true);
  assertEquals(log, ["stream Echo.all", "server Echo.all", "server done"]);
  await close();
});

test("a call that finds the connection ended opens another one", async () => {
  const server = newServer();
  const conns: Conn[] = [];
  const redial = () => {
    const [ours, theirs] = connPair();
    server.serveConn(theirs);
    conns.push(theirs);
    return Promise.resolve(ours);
  };
  const client = new Client(await redial(), { redial });
  assertEquals(text(await client.call("Echo", bytes("a"))), "a");
  conns[0]!.abort();
  // One that is under way, or finds it out itself.
  await client.call("Echo").catch(() => {});
  const answers = await Promise.all(
    ["b", "c"].map(async (it) => text(await client.call("Echo", bytes(it), { timeoutMs: 5000 }))),
  );
  assertEquals([answers, conns.length], [["b", "c"], 2]);
  conns[1]!.abort();
  await client.call("Echo").catch(() => {});
  const stream = await client.stream("Echo.all");
  await stream.writable.close();
  assertEquals(conns.length, 3);
  await client.close();
  await client.closed;
  assertEquals((await rejection(client.call("Echo"))).code, "closed");
  assertEquals(conns.length, 3);
  await server.close();
});

test("a server that has gone for good is a connection that cannot be had", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const path = join(directory, "socket");
  let server = new Server(path);
  server.register("Echo", (request) => request.data);
  await server.start();
  const client = await dialServer(path, { reconnect: true });
  await client.call("Echo");
  await server.close();
  const error = await rejection(client.call("Echo"));
  assert(["connection", "disconnected"].includes(error.code));
  assertEquals((await rejection(client.call("Echo"))).code, "connection");
  server = new Server(path);
  server.register("Echo", (request) => request.data);
  await server.start();
  assertEquals(await client.call("Echo", bytes("x")), bytes("x"));
  await client.close();
  await server.close();
  rmSync(directory, { recursive: true });
});

test("a wait for another connection ends with its signal, its time and close()", async () => {
  const [ours, theirs] = connPair();
  const signals: AbortSignal[] = [];
  const client = new Client(ours, {
    redial: ({ signal }) => {
      signals.push(signal);
      return new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason))
      );
    },
  });
  theirs.abort();
  await client.call("Echo").catch(() => {});
  const late = rejection(client.call("Echo", undefined, { timeoutMs: 10 }));
  const stop = new AbortController();
  const stopped = rejection(client.call("Echo", undefined, { signal: stop.signal }));
  const closed = rejection(client.call("Echo"));
  stop.abort();
  assertEquals((await stopped).code, "aborted");
  assertEquals((await late).code, "timeout");
  await client.close();
  assertEquals([(await closed).code, signals.length], ["closed", 1]);
});

test("a signal that fires while extensions are asked for leaves no stream open", async () => {
  // One of these is the turn in which the answer to uds.hello comes.
  for (let turns = 0; turns < 60; turns++) {
    const { client, server, close } = start();
    let open = 0;
    server.registerStream("Count", (_, { signal }) =>
      new Promise((resolve) => {
        open++;
        signal.addEventListener("abort", () => (open--, resolve()));
      }));
    const stop = new AbortController();
    const opening = client.stream("Count", { signal: stop.signal });
    opening.catch(() => {});
    for (let i = 0; i < turns; i++) await Promise.resolve();
    stop.abort();
    const failed = await rejection(opening.then((it) => it.readable.getReader().read()));
    assertEquals(failed.code, "aborted");
    await client.call("Echo");
    assertEquals(open, 0);
    await close();
  }
});

test("a server tells what it has from its describe() on", async () => {
  const { client, server, close } = start();
  assertEquals(
    (await rejection<RemoteError>(client.describe())).message,
    'no handler "uds.describe"',
  );
  const bytesBothWays = { request: { codec: "bytes" }, response: { codec: "bytes" } };
  const expected = [
    { name: "Echo", kind: "unary", ...bytesBothWays },
    { name: "Meta", kind: "unary", ...bytesBothWays },
    { name: "Refuse", kind: "unary", ...bytesBothWays },
    { name: "Echo.all", kind: "duplex", ...bytesBothWays },
  ];
  assertEquals(server.describe(), { handlers: expected } as unknown);
  server.register("Text", () => "", {
    kind: "unary",
    request: { codec: "empty" },
    response: { codec: "text" },
  });
  assertEquals(server.describe(), await client.describe());
  assertEquals((await client.describe()).handlers.at(-1)!.response.codec, "text");
  assertThrows(() => server.register("uds.hello", () => ""), TypeError);
  await close();
});
