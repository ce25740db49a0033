/** Bytes that are none of the protocol end the connection that they came over, and nothing else. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connect, connPair } from "@trunkline/sockets/auto";
import { Client, ClientMsg, dialServer, Server, ServerMsg } from "@trunkline/sockets/uds";
import { newPaths } from "./uds_process.ts";
import { bytes, register, rejection, text } from "./uds_service.ts";
import {
  encodeCall,
  encodeChunk,
  encodeHello,
  MORE,
  STREAM,
  TYPE,
  uint,
  WireClient,
} from "./uds_wire.ts";
import { unhandledDuring } from "./unhandled.ts";

const MAX_MESSAGE = 400_000;
const newPath = newPaths();
const HELLO = encodeHello(0);
const stream = (id: number) => encodeCall({ id, handler: "Ignore", flags: STREAM, window: 1000 });
const call = (id: number, handler: string, data?: Uint8Array) =>
  new ClientMsg({ id, handler, ...(data === undefined ? {} : { data }) }).encode();
const extension = (type: number, data: Uint8Array = new Uint8Array(), id = 1) =>
  new ClientMsg({ id, type, data }).encode();

/** The beginning of a handshake of TLS 1.3. */
const TLS_HELLO = new Uint8Array([
  ...[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
  ...Array.from({ length: 506 }, (_, i) => i * 7 % 256),
]);

function randomBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) {
    seed = Math.imul(seed, 1_664_525) + 1_013_904_223 | 0;
    bytes[i] = seed >>> 24;
  }
  return bytes;
}

/** What a client sends that must not, or not then. */
const BAD: Readonly<Record<string, Uint8Array>> = {
  "nothing but ones": new Uint8Array(1000).fill(0xff),
  "nothing but zeros": new Uint8Array(1000),
  "a size of 2^63": new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
  "a size of 11 bytes": new Uint8Array(11).fill(0x80),
  "a request of HTTP": bytes(
    "GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: test\r\n\r\n".repeat(4),
  ),
  "a handshake of TLS": TLS_HELLO,
  "a message of no bytes": new Uint8Array([0]),
  "a size that is not that of the parts": new Uint8Array([6, 0, 1, 1, 65, 9, 1]),
  "a type that nobody knows": extension(2),
  "an extension that nobody knows": concat([HELLO, stream(1), extension(99)]),
  "a call of ours before the hello": encodeCall({ id: 0, handler: "Echo" }),
  "a piece before the hello": encodeChunk(0, new Uint8Array(3)),
  "a window before the hello": extension(TYPE.WINDOW, uint(1000)),
  "a cancellation before the hello": extension(TYPE.CANCEL),
  "an end before the hello": extension(TYPE.END),
  "a hello that is no JSON": call(0, "uds.hello", bytes("{")),
  "a hello that is nothing": call(0, "uds.hello", bytes("null")),
  "a hello with a number for a token": call(0, "uds.hello", bytes('{"token":1}')),
  "one id twice": concat([call(7, "Hang"), call(7, "Hang")]),
  "one id twice, of two kinds": concat([HELLO, call(7, "Hang"), stream(7)]),
  "a message that is too large": call(0, "Echo", new Uint8Array(MAX_MESSAGE + 500_000)),
  "more than the window": concat([
    HELLO,
    stream(1),
    ...Array.from({ length: 5 }, () => encodeChunk(1, new Uint8Array(60_000))),
  ]),
  "a piece of nothing": concat([HELLO, call(1, "Hang"), encodeChunk(1, new Uint8Array(3))]),
  "data behind its end": concat([
    HELLO,
    stream(1),
    extension(TYPE.END),
    encodeChunk(1, new Uint8Array(3)),
  ]),
  "an end in the middle of a message": concat([
    HELLO,
    stream(1),
    encodeChunk(1, new Uint8Array(3), MORE),
    extension(TYPE.END),
  ]),
  "a call without its header": concat([HELLO, extension(TYPE.CALL)]),
  "a call with half a header": concat([HELLO, extension(TYPE.CALL, new Uint8Array([0, 0, 0, 5]))]),
  "a call with too much metadata": concat([
    HELLO,
    extension(TYPE.CALL, new Uint8Array([0, 0, 0, 0xff, 0xff, 3])),
  ]),
  "flags of 64 bits": concat([
    HELLO,
    stream(1),
    extension(TYPE.CHUNK, new Uint8Array(9).fill(0xff)),
  ]),
  "a piece without flags": concat([HELLO, stream(1), extension(TYPE.CHUNK)]),
};

test(
  "bytes that are none of the protocol end their connection alone",
  { timeout: 30_000 },
  async () => {
    const path = newPath();
    const server = new Server(path, { maxMessage: MAX_MESSAGE });
    const state = register(server);
    await server.start();
    const client = await dialServer(path);
    const { readable, writable } = await client.stream("Both");
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    const random = Array.from(
      { length: 20 },
      (_, i) => [`random ${i}`, randomBytes(5000, i)] as const,
    );
    const reasons = await unhandledDuring(async () => {
      for (const [name, wire] of [...Object.entries(BAD), ...random]) {
        const bad = new WireClient(await connect({ path }));
        await bad.sendRaw(wire);
        // Some of what is random may be the beginning of a message.
        if (name.startsWith("random")) await bad.conn.closeWrite().catch(() => {});
        await bad.ended;
        bad.close();
        const [{ value }] = await Promise.all([reader.read(), writer.write(bytes(name))]);
        assertEquals(text(value!), name);
      }
    });
    assertEquals(reasons, []);
    // The handlers of those that had begun have heard of the end.
    assertEquals(state.ended, state.begun);
    await client.close();
    await server.close({ graceMs: 0 });
  },
);

test("half a message: one that ends there is dropped, and one that falls silent, too", {
  timeout: 30_000,
}, async () => {
  const path = newPath();
  const server = new Server(path, { idleMs: 100 });
  register(server);
  await server.start();
  const client = await dialServer(path, { keepAliveMs: 20 });
  const wire = concat([HELLO, call(1, "Length", new Uint8Array(1000))]);
  for (const at of [1, HELLO.length - 1, HELLO.length + 1, HELLO.length + 5, wire.length - 1]) {
    for (const silent of [false, true]) {
      const half = new WireClient(await connect({ path }));
      await half.sendRaw(wire.subarray(0, at));
      if (!silent) await half.conn.closeWrite();
      await half.ended;
      assertEquals(half.replies.length, at < HELLO.length ? 0 : 1);
      half.close();
    }
  }
  // Who never says anything ends in the same way.
  const silent = new WireClient(await connect({ path }));
  await silent.ended;
  silent.close();
  assertEquals(text(await client.call("Näme ✓")), "✓");
  await client.close();
  await server.close();
});

/** What a server sends that must not; the call has the id 0, and is no hello. */
const BAD_ANSWERS: readonly (readonly [string, string, Uint8Array])[] = [
  ["nothing but ones", "too-large", new Uint8Array(1000).fill(0xff)],
  ["random", "protocol", new Uint8Array([3, 9, 9, 9, 9, 9])],
  ["HTTP", "protocol", bytes("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(4))],
  [
    "too large",
    "too-large",
    new ServerMsg({ data: new Uint8Array(MAX_MESSAGE + 500_000) }).encode(),
  ],
  ["an extension", "protocol", new ServerMsg({ type: TYPE.REPLY }).encode()],
  ["going away", "protocol", new ServerMsg({ type: TYPE.GO_AWAY }).encode()],
  [
    "half an answer",
    "disconnected",
    new ServerMsg({ data: new Uint8Array(9) }).encode().subarray(0, 5),
  ],
  ["nothing", "disconnected", new Uint8Array()],
  // Of a call that was never made: no answer, and no harm.
  ["another id", "disconnected", new ServerMsg({ id: 7 }).encode()],
];

test("a server that does not speak the protocol ends all calls by a typed error", {
  timeout: 30_000,
}, async () => {
  const reasons = await unhandledDuring(async () => {
    for (const [name, code, answer] of BAD_ANSWERS) {
      const [ours, theirs] = connPair();
      const client = new Client(ours, { maxMessage: MAX_MESSAGE });
      const ends = [1, 2, 3].map(() => rejection(client.call("Echo")));
      const hello = rejection(client.call("Echo", undefined, { timeoutMs: 20_000 }));
      await theirs.read();
      await theirs.write(answer);
      // The client may be gone already.
      await theirs.closeWrite().catch(() => {});
      for (const error of await Promise.all([...ends, hello])) {
        assertEquals([name, error.code], [name, code]);
      }
      assertEquals((await rejection(client.call("Echo"))).code, code);
      await client.closed.catch((error) => assertEquals(error.code, code));
      theirs.abort();
      await client.close();
    }
  });
  assertEquals(reasons, []);
});

test(
  "a server that never answers, nor reads, leaves nobody waiting",
  { timeout: 30_000 },
  async () => {
    const [ours, theirs] = connPair();
    const client = new Client(ours, { timeoutMs: 60, helloTimeoutMs: 30 });
    const data = new Uint8Array(300_000);
    const stop = new AbortController();
    const ends = [
      client.call("Echo", data),
      client.call("Echo", data, { timeoutMs: 50 }),
      client.call("Echo", undefined, { signal: stop.signal }),
      client.stream("Both"),
    ].map((it: Promise<unknown>) => rejection(it));
    stop.abort();
    const codes = (await Promise.all(ends)).map(({ code }) => code);
    assertEquals(codes[2], "aborted");
    assert(
      codes.every((code) => ["timeout", "aborted", "unsupported"].includes(code)),
      codes.join(),
    );
    theirs.abort();
    await client.close();
  },
);
