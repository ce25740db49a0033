/** wrapConn(): any pair of web streams as a Conn. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { connPair, wrapConn } from "../adapters/auto.ts";
import { ConnectError } from "../adapters/types.ts";
import { fill, pattern, readAll, readExactly, rejectsWith, same, sleep } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

const check = (title: string, body: () => Promise<void>) => test(title, { timeout: 20_000 }, body);

const sink = (close?: () => Promise<void>) =>
  new WritableStream<Uint8Array>(close ? { close } : {});

/** A stream that gives `chunks`, then fails with `error` if there is one, and else stays open. */
function source(chunks: readonly Uint8Array[], error?: unknown): ReadableStream<Uint8Array> {
  const left = [...chunks];
  return new ReadableStream({
    pull(controller) {
      const chunk = left.shift();
      if (chunk !== undefined) controller.enqueue(chunk);
      else if (error !== undefined) controller.error(error);
      else return new Promise(() => {});
    },
  }, { highWaterMark: 0 });
}

check("a TransformStream becomes an echo", async () => {
  const conn = wrapConn(new TransformStream<Uint8Array, Uint8Array>());
  const writing = conn.write(pattern(100_000));
  same(await readExactly(conn, 100_000), pattern(100_000));
  await writing;
  const rest = conn.write(pattern(7));
  const closing = conn.closeWrite();
  same(await readAll(conn), pattern(7));
  await Promise.all([rest, closing, conn.closed]);
});

check("a stopped reader of the stream stops the writer", async () => {
  const conn = wrapConn(new TransformStream<Uint8Array, Uint8Array>());
  const { written } = await fill(conn);
  assert(written <= 256 * 1024, `${written} bytes taken`);
  conn.abort();
});

check("a sink that resolves before it has room slows write() all the same", async () => {
  const waiting: (() => void)[] = [];
  const writable = new WritableStream<Uint8Array>({
    write: () => new Promise((resolve) => waiting.push(resolve)),
  });
  const conn = wrapConn({ readable: source([]), writable });
  let done = false;
  const writing = conn.write(pattern(5)).then(() => done = true);
  await sleep(5);
  assertEquals([done, conn.queued], [false, 5]);
  waiting.shift()!();
  await writing;
  assertEquals(conn.queued, 0);
  conn.abort();
});

check("a Conn is given back as it is", () => {
  const [a, b] = connPair();
  assertStrictEquals(wrapConn(a), a);
  assertStrictEquals(wrapConn(a, { lingerMs: 1 }), a);
  a.abort();
  b.abort();
  return Promise.resolve();
});

check("the addresses are those of the options", () => {
  const local = { path: "\0here" };
  const remote = { hostname: "::1", port: 9 };
  const conn = wrapConn({ readable: source([]), writable: sink() }, { local, remote });
  assertEquals([conn.local, conn.remote], [local, remote]);
  conn.abort();
  return rejectsWith(conn.read(), "aborted").then(({ message }) => {
    assert(message.includes("[::1]:9"), message);
  });
});

check("empty chunks are no data and no end", async () => {
  const empty = new Uint8Array(0);
  const readable = source([empty, empty, pattern(3), empty, pattern(2, 4)]);
  const conn = wrapConn({ readable, writable: sink() });
  same((await conn.read())!, pattern(3));
  same((await conn.read())!, pattern(2, 4));
  conn.abort();
});

check("readable takes views of a larger buffer without losing their owner's bytes", async () => {
  const whole = pattern(100);
  const conn = wrapConn({ readable: source([whole.subarray(10, 20)]), writable: sink() });
  const reader = conn.readable.getReader({ mode: "byob" });
  const { value } = await reader.read(new Uint8Array(50));
  same(value!, pattern(100).subarray(10, 20));
  assertEquals(whole.length, 100);
  conn.abort();
  await reader.read(new Uint8Array(1)).catch(() => {});
});

check("what came before the stream's error is delivered before it", async () => {
  const failure = new Error("the tape tore");
  const conn = wrapConn({ readable: source([pattern(5), pattern(6)], failure), writable: sink() });
  same((await conn.read())!, pattern(5));
  same((await conn.read())!, pattern(6));
  const error = await rejectsWith(conn.read(), "other");
  assertStrictEquals(error.cause, failure);
  assert(error.message.includes("the tape tore"), error.message);
  assertStrictEquals(await conn.closed.catch((e) => e), error);
  assertStrictEquals(await conn.write(pattern(1)).catch((e) => e), error);
  assertStrictEquals(await conn.read().catch((e) => e), error);
});

check("an error with a code keeps its kind; a ConnectError stays itself", async () => {
  const coded = Object.assign(new Error("x"), { code: "ECONNRESET" });
  await rejectsWith(wrapConn({ readable: source([], coded), writable: sink() }).read(), "reset");
  const own = new ConnectError("refused", "mine");
  const conn = wrapConn({ readable: source([], own), writable: sink() });
  assertStrictEquals(await conn.read().catch((e) => e), own);
});

check("after a failed write the peer's bytes can still be read", async () => {
  const readable = source([pattern(8), pattern(9)], new Error("end of the line"));
  const failure = Object.assign(new Error("x"), { code: "EPIPE" });
  const writable = new WritableStream<Uint8Array>({ write: () => Promise.reject(failure) });
  const conn = wrapConn({ readable, writable });
  const error = await rejectsWith(conn.write(pattern(1)), "broken-pipe");
  assertStrictEquals(await conn.closed.catch((e) => e), error);
  same((await conn.read())!, pattern(8));
  same((await conn.read())!, pattern(9));
  // The first error is the one that sticks.
  assertStrictEquals(await conn.read().catch((e) => e), error);
  await conn.close();
});

check("abort() cancels the one half and aborts the other, pending calls or not", async () => {
  const told: unknown[] = [];
  const readable = new ReadableStream<Uint8Array>({ cancel: (reason) => void told.push(reason) });
  const writable = new WritableStream<Uint8Array>({
    write: () => new Promise(() => {}),
    abort: (reason) => void told.push(reason),
  });
  const conn = wrapConn({ readable, writable });
  const pending = [conn.read(), conn.write(pattern(5))];
  await sleep(1);
  conn.abort();
  for (const promise of pending) await rejectsWith(promise, "aborted");
  assert(told.length >= 1 && told.every((reason) => reason instanceof ConnectError));
});

check("a stream that fails at its end is told by closeWrite(), close() and closed", async () => {
  const failure = new Error("disk full");
  const conn = wrapConn({ readable: source([]), writable: sink(() => Promise.reject(failure)) });
  const error = await rejectsWith(conn.closeWrite(), "other");
  assertStrictEquals(error.cause, failure);
  assertStrictEquals(await conn.closed.catch((e) => e), error);
  await conn.close();
  const other = wrapConn({ readable: source([]), writable: sink(() => Promise.reject(failure)) });
  assertStrictEquals((await rejectsWith(other.close(), "other")).cause, failure);
});

check("a locked stream is the caller's mistake, and locks no other", () => {
  const readable = source([]);
  const writable = sink();
  const reader = readable.getReader();
  assertThrows(() => wrapConn({ readable, writable }), TypeError, "locked");
  assertEquals(writable.locked, false);
  reader.releaseLock();
  writable.getWriter();
  assertThrows(() => wrapConn({ readable, writable }), TypeError, "locked");
  assertEquals(readable.locked, false);
  return Promise.resolve();
});

check("times that no timer can take are the caller's mistake", () => {
  const duplex = { readable: source([]), writable: sink() };
  for (const ms of [-1, NaN, Infinity, 2 ** 31, "5 s"]) {
    for (const name of ["flushTimeoutMs", "lingerMs"]) {
      const error = assertThrows(() => wrapConn(duplex, { [name]: ms }), RangeError);
      assert(error.message.startsWith(`${name} is ${ms}, expected `), error.message);
    }
  }
  assertThrows(() => connPair({ flushTimeoutMs: 0 }), RangeError, "flushTimeoutMs is 0");
  assertEquals([duplex.readable.locked, duplex.writable.locked], [false, false]);
  wrapConn(duplex, { flushTimeoutMs: 2 ** 31 - 1, lingerMs: 0 }).abort();
  return Promise.resolve();
});

check("streams with more members than a Duplex are wrapped all the same", async () => {
  // As a connection of Deno's own has them.
  const native = {
    ...{ readable: source([pattern(3)]), writable: sink() },
    ...{ read: () => Promise.resolve(0), write: () => Promise.resolve(0) },
    ...{ closeWrite: () => Promise.resolve(), close: () => {}, setNoDelay: () => {} },
  };
  const conn = wrapConn(native);
  same((await conn.read())!, pattern(3));
  conn.abort();
  await rejectsWith(conn.closed, "aborted");
});

check("chunks may be buffers and views of any kind, and stay their source's own", async () => {
  const bytes = pattern(8);
  const chunks: unknown[] = [bytes.slice().buffer, new DataView(bytes.buffer, 2, 3), bytes];
  const conn = wrapConn({ readable: source(chunks as Uint8Array[]), writable: sink() });
  same((await conn.read())!, bytes);
  same((await conn.read())!, bytes.subarray(2, 5));
  const { value } = await conn.readable.getReader().read();
  same(value!, pattern(8));
  same(bytes, pattern(8));
  value!.fill(0);
  same(bytes, pattern(8));
  conn.abort();
});

check("a chunk that is no bytes ends the connection with an error that says so", async () => {
  for (const [chunk, what] of [["text", "string"], [5, "number"], [null, "null"], [{}, "object"]]) {
    const readable = source([pattern(2), chunk as Uint8Array]);
    const conn = wrapConn({ readable, writable: sink() });
    same((await conn.read())!, pattern(2));
    const { message, cause } = await rejectsWith(conn.read(), "other");
    assert(
      message.includes(`gave ${what === "null" ? what : `a value of the type ${what}`}`),
      message,
    );
    assert(cause instanceof TypeError);
    await rejectsWith(conn.closed, "other");
  }
});

check("a writer may use its buffer again, though the stream holds on to what it got", async () => {
  const held: Uint8Array[] = [];
  const writable = new WritableStream<Uint8Array>({ write: (chunk) => void held.push(chunk) });
  const conn = wrapConn({ readable: source([]), writable });
  const buffer = pattern(5);
  await conn.write(buffer);
  buffer.fill(0);
  same(held[0]!, pattern(5));
  conn.abort();
});

check("streams that fail while nobody looks make no unhandled rejection", async () => {
  const unhandled = await unhandledDuring(async () => {
    const failing = { start: () => Promise.reject(new Error("at once")) };
    wrapConn({ readable: new ReadableStream(failing), writable: new WritableStream(failing) });
    const conn = wrapConn({ readable: source([], new Error("later")), writable: sink() });
    conn.closeWrite();
    await conn.read().catch(() => {});
    const dying = wrapConn({
      readable: source([]),
      writable: new WritableStream({ write: () => Promise.reject(new Error("full")) }),
    });
    dying.write(pattern(1));
    await sleep(5);
    dying.close();
  });
  assertEquals(unhandled, []);
});
