/** One stream: its directions, its windows, its waits, its web streams. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import type { Mux, MuxError, MuxStream } from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import {
  closeBoth,
  codeOf,
  muxPair,
  readAll,
  type Speaks,
  spoken,
  streamPair,
  text,
  utf8,
} from "./mux_pair.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;

/** With both ends of a stream on each protocol, and nothing left at the end. */
function check(
  title: string,
  body: (a: MuxStream, b: MuxStream, near: Mux, far: Mux, speaks: Speaks) => Promise<void>,
): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux} stream: ${title}`, { timeout: 60_000 }, async () => {
      const unhandled = await unhandledDuring(async () => {
        const [near, far] = muxPair({ ...speaks, closeTimeoutMs: 5000 });
        const [a, b] = await streamPair(near, far);
        await body(a, b, near, far, speaks);
        await closeBoth(near, far);
        assertEquals([near.stats().streams, far.stats().streams], [0, 0]);
      });
      assertEquals(unhandled, []);
    });
  }
}

/** Writes until nothing more is taken. */
async function fill(stream: MuxStream): Promise<{ readonly written: Promise<void> }> {
  const written = stream.write(new Uint8Array(3 * WINDOW));
  written.catch(() => {});
  for (let before = -1; stream.queued !== before; await sleep(5)) before = stream.queued;
  return { written };
}

check("closeWrite() ends one direction, and the other goes on", async (a, b, near) => {
  await a.write(utf8("question"));
  await a.closeWrite();
  await a.closeWrite();
  assertEquals(await codeOf(a.write(utf8("x"))), "write-closed");
  assertEquals(text(await readAll(b)), "question");
  assertEquals(await b.read(), null);
  assertEquals(near.streams.length, 1, "half of it is open");
  await b.write(utf8("answer"));
  await b.closeWrite();
  assertEquals(text(await readAll(a)), "answer");
  await Promise.all([a.closed, b.closed]);
  assertEquals(near.streams.length, 0, "both halves have ended");
});

check("closeRead() ends the peer's writes, and ours go on", async (a, b) => {
  await b.write(utf8("unwanted"));
  const { written: full } = await fill(b);
  await a.closeRead();
  await a.closeRead();
  assertEquals(await a.read(), null);
  assertEquals(await codeOf(full), "write-closed");
  assertEquals(await codeOf(b.write(utf8("x"))), "write-closed");
  await a.write(utf8("ours"));
  await a.closeWrite();
  assertEquals(text(await readAll(b)), "ours");
});

check("close() sends what was written; both sides say why nothing goes any more", async (a, b) => {
  const written = a.write(utf8("last"));
  await b.write(utf8("unread"));
  await a.close();
  await a.close();
  await written;
  assertEquals(await codeOf(a.read()), "stream-closed");
  assertEquals(await codeOf(a.write(utf8("x"))), "stream-closed");
  await sleep(5);
  assertEquals(await codeOf(b.write(utf8("x"))), "peer-closed-stream");
  assertEquals(text(await b.read()), "last");
  assertEquals(await b.read(), null);
  await Promise.all([a.closed, b.closed, b.close()]);
});

check("close() flushes though the peer writes and does not read yet", async (a, b) => {
  const { written: fromPeer } = await fill(b);
  const ours = a.write(pattern(2 * WINDOW, 4));
  const closed = a.close();
  await sleep(5);
  assertEquals(await readAll(b), pattern(2 * WINDOW, 4));
  await Promise.all([ours, closed]);
  // It was let through to nobody, or failed with the stream; it does not hang.
  await fromPeer.catch(() => {});
});

check(
  "close() of a stream that the peer never reads is a timeout, and the session lives",
  async (_a, _b, near, far, speaks) => {
    const [own, other] = muxPair({ ...speaks, closeTimeoutMs: 30 });
    const [stream, streamFar] = await streamPair(own, other);
    const { written } = await fill(stream);
    assertEquals(await codeOf(stream.close()), "timeout");
    assertEquals(await codeOf(written), "timeout");
    await sleep(5);
    // What came is not all, which v1 cannot say.
    const reading = readAll(streamFar);
    if (speaks.protocol === "v1") assertEquals((await reading).length, WINDOW);
    else assertEquals(await codeOf(reading), "reset");
    const [again, againFar] = await streamPair(own, other);
    await again.write(utf8("alive"));
    assertEquals(text(await againFar.read()), "alive");
    await closeBoth(own, other);
    assertEquals([near.streams.length, far.streams.length], [1, 1]);
  },
);

check(
  "abort() ends every wait at once; the peer sees an end",
  async (a, b, _near, _far, speaks) => {
    const { written: full } = await fill(a);
    const reading = codeOf(a.read());
    a.abort(new Error("why"));
    a.abort();
    assertEquals(await reading, "stream-closed");
    assertEquals(await codeOf(full), "stream-closed");
    assertEquals(await codeOf(a.closed), "stream-closed");
    assertEquals(await codeOf(a.write(utf8("x"))), "stream-closed");
    if (speaks.protocol === "v1") return assertEquals((await readAll(b)).length, WINDOW);
    // A reset, behind what came before it.
    let read = 0;
    while (read < WINDOW) read += (await b.read())!.length;
    for (const call of [b.read(), b.write(utf8("x")), b.closed]) {
      const { code, resetCode } = await call.then(() => {}, (error) => error);
      assertEquals([code, resetCode], ["reset", 0]);
    }
  },
);

check("a slow reader stops its writer after a window, and nobody else", async (a, b, near, far) => {
  const { written: full } = await fill(a);
  assertEquals(a.queued, 2 * WINDOW);
  const [c, d] = await streamPair(near, far);
  const payload = pattern(1_000_000, 1);
  const written = c.write(payload);
  let read = 0;
  while (read < payload.length) read += (await d.read())!.length;
  await written;
  assertEquals(a.queued, 2 * WINDOW, "the first one still waits");
  await c.close();
  await a.closeRead();
  let late = 0;
  while (late < 3 * WINDOW) late += (await b.read())!.length;
  await full;
});

check("windows are full again after much was sent both ways", async (a, b) => {
  const payload = pattern(3_000_000, 7);
  const send = (stream: MuxStream) => stream.write(payload).then(() => stream.closeWrite());
  const [, , fromA, fromB] = await Promise.all([send(a), send(b), readAll(b), readAll(a)]);
  assertEquals(fromA, payload);
  assertEquals(fromB, payload);
});

check("a window's worth goes out without the peer's doing, a byte more does not", async (a, b) => {
  let done = false;
  await a.write(new Uint8Array(WINDOW));
  const more = a.write(new Uint8Array(1)).then(() => done = true);
  await sleep(5);
  assert(!done);
  let read = 0;
  while (read < WINDOW + 1) read += (await b.read())!.length;
  await more;
});

check("many tiny pieces that nobody reads are held in little memory", async (a, b) => {
  for (let i = 0; i < 3000; i++) await a.write(Uint8Array.of(i));
  await a.closeWrite();
  await sleep(5);
  let pieces = 0;
  let at = 0;
  for (let chunk = await b.read(); chunk; chunk = await b.read()) {
    pieces++;
    for (const byte of chunk) assertEquals(byte, at++ & 255);
  }
  assertEquals(at, 3000);
  assert(pieces < 20, `${pieces} pieces`);
});

check("reads are served in the order of their calls", async (a, b) => {
  const reads = [b.read(), b.read(), b.read()];
  for (const word of ["one", "two"]) {
    await a.write(utf8(word));
    await sleep(2);
  }
  await a.closeWrite();
  assertEquals((await Promise.all(reads)).map(text), ["one", "two", null]);
});

check("a signal ends a read, and nothing is lost", async (a, b) => {
  const stop = new AbortController();
  const first = codeOf(b.read({ signal: stop.signal }));
  const second = b.read();
  stop.abort();
  assertEquals(await first, "aborted");
  await a.write(utf8("kept"));
  assertEquals(text(await second), "kept");
  assertEquals(await codeOf(b.read({ signal: AbortSignal.abort() })), "aborted");
});

check("a signal takes back what was not sent of a write, and says how much was", async (a, b) => {
  const stop = new AbortController();
  const full = a.write(new Uint8Array(3 * WINDOW).fill(1), { signal: stop.signal });
  const behind = a.write(utf8("behind"));
  while (a.queued > 2 * WINDOW + 6) await sleep(1);
  stop.abort();
  const [result] = await Promise.allSettled([full]);
  const { code, written } = (result as PromiseRejectedResult).reason as MuxError;
  assertEquals([code, written], ["aborted", WINDOW]);
  const reading = readAll(b);
  await behind;
  await a.closeWrite();
  assertEquals((await reading).length, WINDOW + 6);
});

check("deadlines wake who waits, and can be taken back", async (a, b) => {
  const reading = codeOf(b.read());
  b.setReadDeadline(10);
  assertEquals(await reading, "timeout");
  assertEquals(await codeOf(b.read()), "timeout");
  b.setReadDeadline(undefined);
  await a.write(utf8("still works"));
  assertEquals(text(await b.read()), "still works");

  const { written: full } = await fill(a);
  a.setWriteDeadline(new Date(Date.now() + 10));
  const [result] = await Promise.allSettled([full]);
  const { code, written } = (result as PromiseRejectedResult).reason as MuxError;
  // Of the eleven bytes before, nothing was granted again yet.
  assertEquals([code, written], ["timeout", WINDOW - 11]);
  assertEquals(await codeOf(a.write(utf8("x"))), "timeout");
  a.setDeadline(Date.now() + 1_000_000);
  await b.closeRead();
  await sleep(2);
  assertEquals(await codeOf(a.write(utf8("x"))), "write-closed");
  for (const past of [-1, 0, new Date(0), Date.now() - 1000]) {
    a.setReadDeadline(past);
    assertEquals(await codeOf(a.read()), "timeout");
  }
  a.setDeadline(undefined);
});

check("it pipes as web streams, and BYOB readers work", async (a, b) => {
  const payload = pattern(400_000, 6);
  const upper = new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, out) => out.enqueue(chunk.map((byte) => byte ^ 255)),
  });
  const echoed = b.readable.pipeThrough(upper).pipeTo(b.writable);
  const writer = a.writable.getWriter();
  const written = writer.write(payload).then(() => writer.close());
  const reader = a.readable.getReader({ mode: "byob" });
  let at = 0;
  for (;;) {
    const { done, value } = await reader.read(new Uint8Array(10_000));
    if (done) break;
    for (const byte of value) if (byte !== (payload[at++]! ^ 255)) throw new Error(`at ${at}`);
  }
  assertEquals(at, payload.length);
  await Promise.all([written, echoed]);
});

check(
  "cancelling readable is closeRead(), aborting writable is abort()",
  async (a, b, near, far, speaks) => {
    await a.readable.cancel();
    await sleep(5);
    assertEquals(await codeOf(b.write(utf8("x"))), "write-closed");
    const [c, d] = await streamPair(near, far);
    await c.writable.abort(new Error("no"));
    assertEquals(await codeOf(c.closed), "stream-closed");
    if (speaks.protocol === "v1") assertEquals(await d.read(), null);
    else assertEquals(await codeOf(d.read()), "reset");
  },
);

check(
  "small writes are fair among streams: none waits for the bulk of another",
  async (a, b, near, far) => {
    const [c, d] = await streamPair(near, far);
    const order: string[] = [];
    const bulk = a.write(new Uint8Array(WINDOW)).then(() => order.push("bulk"));
    const small = c.write(utf8("small")).then(() => order.push("small"));
    await Promise.all([bulk, small, b.read(), d.read()]);
    // In the same batch, which is sealed as one.
    assertEquals(order.toSorted(), ["bulk", "small"]);
    await c.close();
  },
);

check("what is no bytes is refused, and nothing at all is written at once", async (a) => {
  const wrong = a.write("text" as unknown as Uint8Array);
  assertEquals(await codeOf(wrong), "TypeError: what is written is a Uint8Array");
  await a.write(new Uint8Array(0));
  assertEquals(a.queued, 0);
});
