/** What SocketConn asks of a runtime's socket, and when: the contract of RawSocket. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import type { RawSocket } from "../adapters/_raw_socket.ts";
import { openConn } from "../adapters/_socket_conn.ts";
import type { Conn, ConnOptions } from "../adapters/types.ts";
import { pattern, rejectsWith, same, sleep } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

/** A socket whose calls are answered by the test, and which notes what was asked. */
class FakeSocket implements RawSocket {
  readonly local = undefined;
  readonly remote = { hostname: "192.0.2.1", port: 7 };
  readonly asked: string[] = [];
  readonly written: Uint8Array[] = [];
  /** A shutdown that never settles, whatever happens. */
  stuck = false;
  into: Uint8Array | undefined;
  answerRead: ((chunk: Uint8Array | null | Error) => void) | undefined;
  answerWrite: ((error?: Error) => void) | undefined;
  shutdownError: Error | undefined;

  read(into?: Uint8Array): Promise<Uint8Array | null> {
    this.into = into;
    assertEquals(this.answerRead, undefined, "a second read at the same time");
    this.asked.push("read");
    return new Promise((resolve, reject) => {
      this.answerRead = (chunk) => {
        this.answerRead = undefined;
        if (chunk instanceof Error) reject(chunk);
        else resolve(chunk);
      };
    });
  }
  write(bytes: Uint8Array): Promise<void> {
    assertEquals(this.answerWrite, undefined, "a second write at the same time");
    this.written.push(bytes);
    this.asked.push(`write ${bytes.length}`);
    return new Promise((resolve, reject) => {
      this.answerWrite = (error) => {
        this.answerWrite = undefined;
        if (error) reject(error);
        else resolve();
      };
    });
  }
  shutdown(): Promise<void> {
    assertEquals(this.answerWrite, undefined, "FIN while a write is under way");
    this.asked.push("shutdown");
    if (this.stuck) return new Promise(() => {});
    return this.shutdownError ? Promise.reject(this.shutdownError) : Promise.resolve();
  }
  destroy(reset: boolean): void {
    this.asked.push(reset ? "reset" : "destroy");
  }
  setNoDelay(on: boolean): void {
    this.asked.push(`noDelay ${on}`);
  }
  setKeepAlive(on: boolean, delayMs: number): void {
    this.asked.push(`keepAlive ${on} ${delayMs}`);
  }
  peerCredentials(): undefined {
    this.asked.push("credentials");
  }
}

/** Opens a connection and forgets what that asked of the socket. */
function open(raw: FakeSocket, options: ConnOptions = {}): Conn {
  const conn = openConn(raw, options);
  raw.asked.length = 0;
  return conn;
}

const failure = (code: string) => Object.assign(new Error("x"), { code });

test("options: Nagle is told off or on, whatever the runtime's default; keep-alive only when asked for", () => {
  const asked = (options: Parameters<typeof openConn>[1]) => {
    const raw = new FakeSocket();
    openConn(raw, options);
    return raw.asked;
  };
  assertEquals(asked({}), ["noDelay true"]);
  assertEquals(asked({ noDelay: false }), ["noDelay false"]);
  assertEquals(asked({ noDelay: undefined, keepAlive: undefined }), ["noDelay true"]);
  assertEquals(asked({ keepAlive: false }), ["noDelay true"]);
  assertEquals(asked({ keepAlive: true }), ["noDelay true", "keepAlive true 0"]);
  assertEquals(asked({ noDelay: false, keepAlive: 15_000 }), [
    "noDelay false",
    "keepAlive true 15000",
  ]);
});

test("setNoDelay(), setKeepAlive() and peerCredentials() ask nothing of a released socket", () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  conn.setNoDelay();
  conn.setNoDelay(false);
  conn.setKeepAlive(7000);
  conn.setKeepAlive(false);
  conn.peerCredentials();
  conn.abort();
  conn.setNoDelay();
  conn.setKeepAlive(true);
  assertEquals(conn.peerCredentials(), undefined);
  assertEquals(raw.asked, [
    "noDelay true",
    "noDelay false",
    "keepAlive true 7000",
    "keepAlive false 0",
    "credentials",
    "reset",
  ]);
});

test("nothing is read before somebody wants it, and one chunk for each read", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  await sleep(1);
  assertEquals(raw.asked, []);
  const first = conn.read();
  const second = conn.read();
  assertEquals(raw.asked, ["read"]);
  raw.answerRead!(pattern(3));
  same((await first)!, pattern(3));
  await sleep(1);
  assertEquals(raw.asked, ["read", "read"]);
  raw.answerRead!(null);
  assertEquals(await second, null);
  assertEquals(await conn.read(), null);
  assertEquals(raw.asked, ["read", "read"]);
  conn.abort();
});

test("memory to read into is that of the first reader, if it cannot go away", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const into = new Uint8Array(8);
  const { signal } = new AbortController();
  const given: (Uint8Array | undefined)[] = [];
  const reads = [{ into }, {}, { into, signal }, { into: new Uint8Array(0) }, { into }].map((it) =>
    conn.read(it)
  );
  for (const read of reads) {
    given.push(raw.into);
    raw.answerRead!(pattern(3));
    await read;
    await sleep(1);
  }
  assertEquals(given, [into, undefined, undefined, undefined, into]);
  assert(given[0] === into && given[4] === into);
  conn.abort();
});

test("a chunk that comes for a reader that has gone is kept for the next", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const controller = new AbortController();
  const gone = conn.read({ signal: controller.signal });
  controller.abort();
  await rejectsWith(gone, "aborted");
  raw.answerRead!(pattern(4));
  await sleep(1);
  same((await conn.read())!, pattern(4));
  conn.abort();
});

test("small writes that wait are joined, in order and up to 256 KiB", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const writes = [10, 20_000, 30_000, 220_000, 300_000, 5].map((size, i) =>
    conn.write(pattern(size, i))
  );
  assertEquals(conn.queued, 570_015);
  for (const size of [10, 50_000, 220_000, 300_000, 5]) {
    assertEquals(raw.asked.at(-1), `write ${size}`);
    raw.answerWrite!();
    await sleep(1);
  }
  await Promise.all(writes);
  assertEquals([conn.queued, raw.written.length], [0, 5]);
  same(raw.written[1]!.subarray(20_000), pattern(30_000, 2));
  conn.abort();
});

test("closeWrite() shuts down after the last write, once", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  conn.write(pattern(5));
  conn.write(pattern(6));
  const closing = conn.closeWrite();
  conn.closeWrite();
  raw.answerWrite!();
  await sleep(1);
  assertEquals(raw.asked, ["write 5", "write 6"]);
  raw.answerWrite!();
  await closing;
  assertEquals(raw.asked, ["write 5", "write 6", "shutdown"]);
  conn.abort();
});

test("a socket is released once both directions have ended, and only once", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  await conn.closeWrite();
  const end = conn.read();
  raw.answerRead!(null);
  assertEquals(await end, null);
  await conn.closed;
  await conn.close();
  conn.abort();
  assertEquals(raw.asked, ["shutdown", "read", "destroy"]);
});

test("close() reads to the peer's end and drops what comes", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const closing = conn.close();
  await sleep(1);
  raw.answerRead!(pattern(1000));
  await sleep(1);
  assertEquals(raw.asked, ["shutdown", "read", "read"]);
  raw.answerRead!(null);
  await closing;
  assertEquals(raw.asked.at(-1), "destroy");
});

test("close() goes on with a read that was pending, and minds no reset of a peer that is done", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const reading = conn.read();
  const closing = conn.close();
  await rejectsWith(reading, "closed");
  assertEquals(raw.asked, ["read", "shutdown"]);
  raw.answerRead!(failure("ECONNRESET"));
  await closing;
});

test("a FIN to a peer that has gone is no error, any other failure of it is", async () => {
  for (const code of ["EPIPE", "ENOTCONN", "ERR_STREAM_DESTROYED"]) {
    const raw = new FakeSocket();
    raw.shutdownError = failure(code);
    const conn = open(raw);
    await conn.closeWrite();
    conn.abort();
  }
  const raw = new FakeSocket();
  raw.shutdownError = failure("EIO");
  const conn = open(raw);
  const error = await rejectsWith(conn.close(), "other");
  assertStrictEquals(error.cause, raw.shutdownError);
  assertStrictEquals(await conn.closed.catch((e) => e), error);
  assertEquals(raw.asked.at(-1), "destroy");
});

test("a failed read rejects all readers and writers with one error, and releases", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const pending = [conn.read(), conn.read(), conn.write(pattern(5)), conn.write(pattern(6))];
  raw.answerRead!(failure("ECONNRESET"));
  const error = await rejectsWith(conn.closed, "reset");
  assert(error.message.includes("192.0.2.1:7"), error.message);
  for (const promise of pending) assertStrictEquals(await promise.catch((e) => e), error);
  assertEquals(raw.asked, ["read", "write 5", "destroy"]);
  // An answer that comes after the release changes nothing.
  raw.answerWrite!(failure("EPIPE"));
  await sleep(1);
  assertEquals(conn.queued, 0);
});

test("what comes after abort() is dropped", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const reading = conn.read();
  const writing = conn.write(pattern(5));
  conn.abort();
  await rejectsWith(reading, "aborted");
  await rejectsWith(writing, "aborted");
  raw.answerRead!(pattern(9));
  raw.answerWrite!();
  await sleep(1);
  await rejectsWith(conn.read(), "aborted");
  assertEquals(raw.asked, ["read", "write 5", "reset"]);
});

test("a shutdown that never settles is ended by flushTimeoutMs and by abort()", async () => {
  const raw = new FakeSocket();
  raw.stuck = true;
  const closing = open(raw, { flushTimeoutMs: 10 });
  const fin = closing.closeWrite();
  const error = await rejectsWith(closing.close(), "timeout");
  assert(error.message.includes("192.0.2.1:7"), error.message);
  for (const promise of [fin, closing.closed]) {
    assertStrictEquals(await promise.catch((e) => e), error);
  }
  assertEquals(raw.asked, ["shutdown", "reset"]);

  const other = new FakeSocket();
  other.stuck = true;
  const conn = open(other);
  const pending = [conn.closeWrite(), conn.close()];
  await sleep(1);
  conn.abort();
  for (const promise of pending) await rejectsWith(promise, "aborted");
});

test("a failed closeWrite() is the sticky error, and the peer's bytes can still be read", async () => {
  const raw = new FakeSocket();
  raw.shutdownError = failure("EIO");
  const conn = open(raw);
  const error = await rejectsWith(conn.closeWrite(), "other");
  assertStrictEquals(await conn.closed.catch((e) => e), error);
  assertStrictEquals(await conn.write(pattern(1)).catch((e) => e), error);
  const reading = conn.read();
  raw.answerRead!(pattern(4));
  same((await reading)!, pattern(4));
  const end = conn.read();
  raw.answerRead!(null);
  assertStrictEquals(await end.catch((e) => e), error);
  assertStrictEquals(await conn.read().catch((e) => e), error);
  assertEquals(raw.asked, ["shutdown", "read", "read", "destroy"]);
});

test("after a failed write the end of what the peer sent is the error, and no orderly end", async () => {
  const raw = new FakeSocket();
  const conn = open(raw);
  const reading = [conn.read(), conn.read()];
  const writing = conn.write(pattern(3));
  raw.answerWrite!(failure("EPIPE"));
  const error = await rejectsWith(writing, "broken-pipe");
  raw.answerRead!(null);
  for (const read of [...reading, conn.read()]) {
    assertStrictEquals(await read.catch((e) => e), error);
  }
  assertEquals(raw.asked.at(-1), "destroy");

  // Also where the end came first.
  const other = new FakeSocket();
  const ended = open(other);
  const end = ended.read();
  other.answerRead!(null);
  assertEquals(await end, null);
  const late = ended.write(pattern(3));
  other.answerWrite!(failure("EPIPE"));
  const sticky = await rejectsWith(late, "broken-pipe");
  assertStrictEquals(await ended.read().catch((e) => e), sticky);
});

test("whoever ignores a write() to a connection that is over ends no process", async () => {
  const unhandled = await unhandledDuring(async () => {
    const aborted = open(new FakeSocket());
    aborted.abort();
    const closed = open(new FakeSocket(), { lingerMs: 1 });
    closed.close();
    const half = open(new FakeSocket());
    half.closeWrite();
    for (const conn of [aborted, closed, half]) conn.write(pattern(1));
    half.write(pattern(1), { signal: AbortSignal.abort() });
    half.write("text" as unknown as Uint8Array);
    await sleep(5);
    half.abort();
  });
  assertEquals(unhandled, []);
});

test("web streams hear of an end that is not of their making", async () => {
  const closings = (conn: Conn) => [
    conn.readable.getReader().closed,
    conn.writable.getWriter().closed,
  ];
  const aborted = open(new FakeSocket());
  const idle = closings(aborted);
  aborted.abort();
  const error = await rejectsWith(aborted.closed, "aborted");
  for (const promise of idle) assertStrictEquals(await promise.catch((e) => e), error);

  const closed = open(new FakeSocket(), { lingerMs: 1 });
  const both = closings(closed);
  await closed.close();
  for (const promise of both) await rejectsWith(promise, "closed");

  // After a failed write there may be something to read.
  const raw = new FakeSocket();
  const failed = open(raw);
  const reader = failed.readable.getReader();
  const piping = new ReadableStream<Uint8Array>().pipeTo(failed.writable);
  failed.write(pattern(1));
  raw.answerWrite!(failure("EPIPE"));
  await rejectsWith(piping, "broken-pipe");
  const reading = reader.read();
  await sleep(1);
  raw.answerRead!(pattern(2));
  same((await reading).value!, pattern(2));
  failed.abort();
  await rejectsWith(reader.closed, "broken-pipe");

  // Streams that are asked for after the end.
  const late = open(new FakeSocket());
  late.abort();
  for (const promise of closings(late)) await rejectsWith(promise, "aborted");
});

test("cancelling readable and closeWrite() release the socket, in either order", async () => {
  for (const cancelFirst of [true, false]) {
    const raw = new FakeSocket();
    const conn = open(raw, { lingerMs: 1 });
    if (cancelFirst) await conn.readable.cancel();
    await conn.closeWrite();
    if (!cancelFirst) await conn.readable.cancel();
    await conn.closed;
    assertEquals(raw.asked, ["shutdown", "read", "destroy"]);
  }
});
