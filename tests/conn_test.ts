/** What every Conn promises (adapters/types.ts), on a pair in memory; sockets: adapter_suite.ts. */
import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { connect, connPair, listen } from "../adapters/auto.ts";
import type { CloseOptions, Conn } from "../adapters/types.ts";
import { fill, pattern, readAll, readExactly, rejectsWith, same, sleep } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

const MIB = 1024 * 1024;
/** What a pair may hold for a reader that does not read: 64 KiB, and what is on its way there. */
const PAIR_HOLDS = 256 * 1024;

const check = (title: string, body: () => Promise<void>) => test(title, { timeout: 20_000 }, body);

async function withPair(
  body: (a: Conn, b: Conn) => Promise<void>,
  options?: CloseOptions,
): Promise<void> {
  const [a, b] = connPair(options);
  try {
    await body(a, b);
  } finally {
    a.abort();
    b.abort();
  }
}

check(
  "connPair() echoes in both directions and knows no addresses",
  () =>
    withPair(async (a, b) => {
      a.write(pattern(100));
      same(await readExactly(b, 100), pattern(100));
      b.write(pattern(50, 7));
      same(await readExactly(a, 50), pattern(50, 7));
      for (const conn of [a, b]) {
        assertEquals([conn.local, conn.remote, conn.tls], [undefined, undefined, undefined]);
        assertEquals(conn.peerCredentials(), undefined);
        conn.setNoDelay();
        conn.setKeepAlive(1000);
      }
    }),
);

check(
  "a writer may use its buffer again once write() has resolved",
  () =>
    withPair(async (a, b) => {
      const buffer = new Uint8Array(10).fill(1);
      await a.write(buffer);
      buffer.fill(2);
      await a.write(buffer);
      buffer.fill(3);
      const received = await readExactly(b, 20);
      assertEquals([...received], [...Array(10).fill(1), ...Array(10).fill(2)]);
      // And a reader owns what it got: the writer's buffer is another one.
      received.fill(9);
      assertEquals(buffer[0], 3);
    }),
);

check("closeWrite() ends one direction and leaves the other open", () =>
  withPair(async (a, b) => {
    a.write(pattern(3));
    const first = a.closeWrite();
    assertStrictEquals(a.closeWrite(), first);
    await rejectsWith(a.write(pattern(1)), "closed");
    same(await readAll(b), pattern(3));
    await first;
    assertEquals(await b.read(), null);
    b.write(pattern(200_000));
    same(await readExactly(a, 200_000), pattern(200_000));
    let closed = false;
    a.closed.then(() => closed = true);
    await sleep(5);
    assertEquals(closed, false);
    b.closeWrite();
    assertEquals(await a.read(), null);
    await Promise.all([a.closed, b.closed]);
  }));

check(
  "close() delivers what was written, and throws away what nobody reads",
  () =>
    withPair(async (a, b) => {
      b.write(pattern(MIB, 5));
      a.write(pattern(2 * MIB));
      const closing = a.close();
      assertStrictEquals(a.close(), closing);
      same(await readAll(b), pattern(2 * MIB));
      await b.closeWrite();
      await closing;
      await a.closed;
      await b.closed;
      await a[Symbol.asyncDispose]();
    }),
);

check("close() rejects pending and later calls with closed", () =>
  withPair(async (a, b) => {
    const reads = [a.read(), a.read()];
    const closing = a.close();
    for (const read of reads) await rejectsWith(read, "closed");
    await rejectsWith(a.read(), "closed");
    await rejectsWith(a.write(pattern(1)), "closed");
    await b.close();
    await closing;
    a.abort();
    await a.closed;
    await rejectsWith(a.read(), "closed");
  }));

check(
  "close() waits lingerMs for a peer that stays, then is done in order",
  () =>
    withPair(async (a, b) => {
      await a.close();
      await a.closed;
      assertEquals(await b.read().catch((error) => error.code), null);
    }, { lingerMs: 20 }),
);

check(
  "close() gives a peer that does not read flushTimeoutMs, then rejects with timeout",
  () =>
    withPair(async (a) => {
      const { last } = await fill(a);
      const error = await rejectsWith(a.close(), "timeout");
      assert(error.message.includes("65536 bytes"), error.message);
      assertStrictEquals(await last.catch((e) => e), error);
      assertStrictEquals(await a.closed.catch((e) => e), error);
      assertEquals(a.queued, 0);
    }, { flushTimeoutMs: 20 }),
);

check(
  "abort() rejects what is pending with one error that carries the reason",
  () =>
    withPair(async (a, b) => {
      const { last } = await fill(a);
      const pending = [a.read(), a.read(), last, a.write(pattern(5)), a.closeWrite()];
      const there = b.write(pattern(MIB));
      const reason = new Error("enough");
      a.abort(reason);
      a.abort(new Error("again"));
      const error = await rejectsWith(a.closed, "aborted");
      assertStrictEquals(error.cause, reason);
      for (const promise of pending) assertStrictEquals(await promise.catch((e) => e), error);
      // The error is sticky, and what is called later does no harm.
      assertStrictEquals(await a.read().catch((e) => e), error);
      assertStrictEquals(await a.write(pattern(1)).catch((e) => e), error);
      assertStrictEquals(await a.closeWrite().catch((e) => e), error);
      await a.close();
      await a[Symbol.asyncDispose]();
      assertEquals(a.queued, 0);
      // The peer hears of it in both directions.
      await rejectsWith(there, "reset");
      await rejectsWith(b.closed, "reset");
    }),
);

check("abort() without a reason has no cause", () =>
  withPair(async (a) => {
    a.abort();
    assertEquals((await rejectsWith(a.closed, "aborted")).cause, undefined);
  }));

check(
  "reads are served in order, also when one in the middle is given up",
  () =>
    withPair(async (a, b) => {
      const controller = new AbortController();
      const first = b.read();
      const second = b.read({ signal: controller.signal });
      const third = b.read();
      controller.abort(new Error("mine"));
      assertEquals((await rejectsWith(second, "aborted")).cause, controller.signal.reason);
      await a.write(pattern(4, 1));
      await a.write(pattern(4, 3));
      same((await first)!, pattern(4, 1));
      same((await third)!, pattern(4, 3));
    }),
);

check(
  "a read whose signal fires while bytes come loses none of them",
  () =>
    withPair(async (a, b) => {
      for (let i = 0; i < 50; i++) {
        const controller = new AbortController();
        const read = b.read({ signal: controller.signal }).catch(() => undefined);
        const written = a.write(pattern(4, i));
        if (i % 3 === 1) await Promise.resolve();
        controller.abort();
        same(await read ?? (await b.read())!, pattern(4, i));
        await written;
      }
    }),
);

check("signals: fired before the call, and by a time limit", () =>
  withPair(async (a, b) => {
    const aborted = AbortSignal.abort(new Error("before"));
    await rejectsWith(a.read({ signal: aborted }), "aborted");
    await rejectsWith(a.write(pattern(9), { signal: aborted }), "aborted");
    // The timer of such a signal does not keep a process alive.
    const limited = rejectsWith(a.read({ signal: AbortSignal.timeout(5) }), "timeout");
    await Promise.all([limited, sleep(50)]);
    a.write(pattern(2));
    same((await b.read())!, pattern(2));
  }));

check(
  "a queued write is taken back by its signal; one under way ends the connection",
  () =>
    withPair(async (a, b) => {
      const { written, last } = await fill(a);
      const back = new AbortController();
      const taken = a.write(pattern(500), { signal: back.signal });
      const kept = a.write(pattern(7, 2));
      const queued = a.queued;
      back.abort();
      await rejectsWith(taken, "aborted");
      assertEquals(a.queued, queued - 500);
      await readExactly(b, written);
      same(await readExactly(b, 7), pattern(7, 2));
      await Promise.all([last, kept]);

      const end = new AbortController();
      await fill(a);
      const half = a.write(pattern(10), { signal: end.signal });
      // The write before it leaves, and this one is begun.
      await b.read();
      await sleep(5);
      end.abort();
      const error = await rejectsWith(half, "aborted");
      assertStrictEquals(await a.closed.catch((e) => e), error);
    }),
);

check(
  "a signal that fires after its call has settled does nothing",
  () =>
    withPair(async (a, b) => {
      const controller = new AbortController();
      const { signal } = controller;
      const writing = a.write(pattern(5), { signal });
      same((await b.read({ signal }))!, pattern(5));
      await writing;
      controller.abort();
      a.write(pattern(5, 1));
      same((await b.read())!, pattern(5, 1));
    }),
);

check("write() checks its bytes, and sends nothing for none", () =>
  withPair(async (a, b) => {
    for (const bad of ["text", [1, 2], new ArrayBuffer(2), new Uint16Array(2), null]) {
      await assertRejects(() => a.write(bad as unknown as Uint8Array), TypeError, "Uint8Array");
    }
    await a.write(new Uint8Array(0));
    assertEquals(a.queued, 0);
    a.write(pattern(20).subarray(5, 9));
    same((await b.read())!, pattern(20).subarray(5, 9));
  }));

check(
  "queued counts what waits, and a peer that does not read bounds it",
  () =>
    withPair(async (a, b) => {
      const { written } = await fill(a);
      assert(written <= PAIR_HOLDS, `${written} bytes went to a reader that does not read`);
      assert(a.queued > 0 && a.queued <= PAIR_HOLDS, `${a.queued} bytes queued`);
      const before = a.queued;
      const more = a.write(pattern(1000));
      assertEquals(a.queued, before + 1000);
      await readExactly(b, written + 1000);
      await more;
      assertEquals(a.queued, 0);
    }),
);

check("many small writes arrive in order", () =>
  withPair(async (a, b) => {
    const writes = [...Array(5000).keys()].map((i) => a.write(pattern(4, i)));
    const received = await readExactly(b, 20_000);
    for (let i = 0; i < 5000; i++) same(received.subarray(4 * i, 4 * i + 4), pattern(4, i));
    await Promise.all(writes);
  }));

check(
  "readable: one stream, BYOB views of any size, the end after the last byte",
  () =>
    withPair(async (a, b) => {
      assertStrictEquals(b.readable, b.readable);
      assertStrictEquals(a.writable, a.writable);
      a.write(pattern(10_000));
      a.closeWrite();
      const reader = b.readable.getReader({ mode: "byob" });
      const all = new Uint8Array(10_000);
      let at = 0;
      for (;;) {
        const { done, value } = await reader.read(new Uint8Array(1 + at % 700));
        if (done) {
          assertEquals(value?.length, 0);
          break;
        }
        assert(value.length > 0);
        all.set(value, at);
        at += value.length;
      }
      assertEquals(at, 10_000);
      same(all, pattern(10_000));
      await reader.closed;
    }),
);

check(
  "readable: nothing is read ahead, and read() goes on where a reader let go",
  () =>
    withPair(async (a, b) => {
      const { readable } = b;
      await a.write(pattern(4, 1));
      await sleep(5);
      // A stream that nobody reads from took nothing.
      same((await b.read())!, pattern(4, 1));
      a.write(pattern(4, 2));
      const reader = readable.getReader();
      same((await reader.read()).value!, pattern(4, 2));
      reader.releaseLock();
      a.write(pattern(4, 3));
      same((await b.read())!, pattern(4, 3));
    }),
);

check("readable errors with the sticky error; writable too", () =>
  withPair(async (a) => {
    const reader = a.readable.getReader();
    const reading = reader.read();
    const writer = a.writable.getWriter();
    a.abort();
    const error = await rejectsWith(a.closed, "aborted");
    assertStrictEquals(await reading.catch((e) => e), error);
    assertStrictEquals(await writer.write(pattern(1)).catch((e) => e), error);
    writer.closed.catch(() => {});
    reader.closed.catch(() => {});
  }));

check(
  "cancelling readable stops reading only; with writable closed too, all is closed",
  () =>
    withPair(async (a, b) => {
      await b.readable.cancel();
      b.write(pattern(3));
      same((await a.read())!, pattern(3));
      const closing = b.writable.close();
      assertEquals(await a.read(), null);
      await Promise.all([a.close(), closing, b.closed]);
    }),
);

check("aborting writable is abort()", () =>
  withPair(async (a) => {
    const reason = new Error("no more");
    await a.writable.abort(reason);
    assertStrictEquals((await rejectsWith(a.closed, "aborted")).cause, reason);
  }));

check("pipes carry backpressure and the end", () =>
  withPair(async (a, b) => {
    // `b` echoes by streams alone.
    const echo = b.readable.pipeTo(b.writable);
    const sending = (async () => {
      for (let i = 0; i < 32; i++) await a.write(pattern(64 * 1024, i));
      await a.closeWrite();
    })();
    const received = await readAll(a);
    await Promise.all([sending, echo, a.closed, b.closed]);
    assertEquals(received.length, 2 * MIB);
    for (let i = 0; i < 32; i++) {
      same(received.subarray(i * 65536, (i + 1) * 65536), pattern(65536, i));
    }
  }));

check("nobody who ignores closed, writes or closeWrite() sees an unhandled rejection", async () => {
  const unhandled = await unhandledDuring(async () => {
    for (let i = 0; i < 3; i++) {
      const [a, b] = connPair({ flushTimeoutMs: 5, lingerMs: 5 });
      a.write(pattern(MIB));
      a.write(pattern(MIB));
      if (i === 0) a.closeWrite();
      if (i === 1) a.close();
      a.readable;
      b.writable;
      await sleep(10);
      a.abort(new Error("ignored"));
      a.closeWrite();
      a.close();
      b.closeWrite();
      b.close();
      await sleep(10);
    }
  });
  assertEquals(unhandled, []);
});

test("memory that is given away after write() fails the connection, and ends nobody", async () => {
  const listener = await listen("127.0.0.1:0");
  const client = await connect(listener.addr);
  const served = await listener.accept();
  const reasons = await unhandledDuring(async () => {
    const given = pattern(100);
    // In one turn, so that the second and the third are handed over together.
    const writes = [pattern(10), given, pattern(7)].map((bytes) => client.write(bytes));
    structuredClone(given.buffer, { transfer: [given.buffer as ArrayBuffer] });
    const outcomes = await Promise.allSettled([...writes, client.closed]);
    assertEquals(outcomes.at(-1)!.status, "rejected");
    assertEquals(client.queued, 0);
    await rejectsWith(client.write(pattern(1)), "other");
  });
  assertEquals(reasons, []);
  await Promise.all([client.close(), served.close()]);
  await listener.close();
});
