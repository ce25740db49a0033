/** Streams among their siblings: when they leave the session, and how their calls are ended. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  FLAG,
  type Mux,
  type MuxError,
  type MuxStream,
} from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import {
  closeBoth,
  codeOf,
  muxPair,
  PSK,
  readAll,
  type Speaks,
  spoken,
  streamPair,
  text,
  utf8,
} from "./mux_pair.ts";
import { Peer } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;

/** With two sessions on each protocol, which are closed behind it. */
function check(
  title: string,
  body: (near: Mux, far: Mux, speaks: Speaks) => Promise<void>,
): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux} scenario: ${title}`, { timeout: 60_000 }, async () => {
      const unhandled = await unhandledDuring(async () => {
        const [near, far] = muxPair({ ...speaks, closeTimeoutMs: 5000 });
        await body(near, far, speaks);
        await closeBoth(near, far);
        assertEquals([near.stats().streams, far.stats().streams], [0, 0]);
      });
      assertEquals(unhandled, []);
    });
  }
}

/** A write of more than the window, once as much of it has left as can. */
async function fill(stream: MuxStream): Promise<{ readonly full: Promise<void> }> {
  const full = stream.write(new Uint8Array(2 * WINDOW));
  full.catch(() => {});
  while (stream.queued > WINDOW) await sleep(1);
  return { full };
}

/** Waits until the other side has taken what was sent. */
async function settled(near: Mux, far: Mux): Promise<void> {
  const behind = () =>
    near.stats().framesSent !== far.stats().framesReceived ||
    far.stats().framesSent !== near.stats().framesReceived;
  do await sleep(2); while (behind());
}

check("live streams are in the list of both sides, and no others", async (near, far) => {
  const listed = () => [near.streams.map(({ id }) => id), far.streams.map(({ id }) => id)];
  const pairs: [MuxStream, MuxStream][] = [];
  for (let i = 0; i < 6; i++) pairs.push(await streamPair(near, far));
  await settled(near, far);
  assertEquals(listed(), [[0, 2, 4, 6, 8, 10], [0, 2, 4, 6, 8, 10]]);
  const [closed, aborted, theirs, halfWritten, halfRead, both] = pairs;
  await closed![0].close();
  aborted![0].abort();
  await theirs![1].close();
  await settled(near, far);
  assertEquals(listed(), [[6, 8, 10], [6, 8, 10]]);
  await halfWritten![0].closeWrite();
  await halfRead![0].closeRead();
  await both![0].closeWrite();
  await settled(near, far);
  assertEquals(listed(), [[6, 8, 10], [6, 8, 10]], "half-closed, they stay");
  await both![0].closeRead();
  await settled(near, far);
  assertEquals(listed(), [[6, 8], [6, 8]], "both halves, by the same side");
  await halfWritten![1].closeWrite();
  await halfRead![1].closeRead();
  await settled(near, far);
  assertEquals(listed(), [[], []], "both halves, one by each side");
});

check("the end of a stream leaves its siblings as they are", async (near, far) => {
  const pairs = [await streamPair(near, far), await streamPair(far, near)];
  const ends: ((stream: MuxStream) => unknown)[] = [
    ...[(it: MuxStream) => it.close(), (it: MuxStream) => it.abort()],
    ...[(it: MuxStream) => it.closeRead(), (it: MuxStream) => it.closeWrite()],
  ];
  for (const end of ends) {
    for (const side of [0, 1] as const) {
      const doomed = await streamPair(near, far);
      const { full } = await fill(doomed[1 - side]!);
      const ended = end(doomed[side]);
      for (const [a, b] of pairs) {
        await Promise.all([a.write(utf8("to")), b.write(utf8("fro"))]);
        assertEquals([text(await b.read()), text(await a.read())], ["to", "fro"]);
      }
      for (const stream of doomed) stream.abort();
      await Promise.allSettled([ended, full]);
    }
  }
});

check("streams that nobody wrote to end like all others", async (near, far, speaks) => {
  const [a, b] = await streamPair(near, far);
  await a.close();
  await Promise.all([a.closed, b.closed]);
  assertEquals(await b.read(), null);
  const [c, d] = await streamPair(near, far);
  c.abort();
  assertEquals(await codeOf(c.closed), "stream-closed");
  if (speaks.protocol === "v1") await d.closed;
  else assertEquals(await codeOf(d.closed), "reset");
  // Nor accepted.
  const e = await near.openStream();
  await e.close();
  const f = await far.acceptStream();
  await Promise.all([e.closed, f.closed]);
});

check("abort() ends a close() that waits for its peer", async (near, far, speaks) => {
  const [a] = await streamPair(near, far);
  const { full } = await fill(a);
  const closing = codeOf(a.close());
  a.abort();
  assertEquals([await closing, await codeOf(full)], ["stream-closed", "stream-closed"]);
  const [own, other] = muxPair(speaks);
  const [c] = await streamPair(own, other);
  const filled = await fill(c);
  const ending = codeOf(own.close());
  own.abort();
  assertEquals([await ending, await codeOf(filled.full)], ["closed", "closed"]);
  assertEquals(await codeOf(other.closed), "truncated");
});

check("streams and sessions may be closed twice, by both sides at once", async (near, far) => {
  for (let run = 0; run < 50; run++) {
    const [a, b] = await streamPair(near, far);
    await Promise.all([a.write(utf8("x")), b.write(utf8("y"))]);
    const closing = [a.close(), a.close()];
    for (let left = run; left > 0; left--) await undefined;
    await Promise.all([...closing, b.close(), b.close(), a.closed, b.closed]);
  }
  await Promise.all([near.close(), far.close(), near.close(), far.close()]);
});

check(
  "deadlines: none, far, past, and past but taken back, for each direction",
  async (near, far) => {
    const [a, b] = await streamPair(near, far);
    const past = (): readonly (Date | number)[] => [0, -5, new Date(1), Date.now() - 1];
    const later = (): readonly (Date | number | undefined)[] => [
      ...[undefined, 60_000, new Date(Date.now() + 60_000), Date.now() + 60_000],
    ];
    const works = async (writes: boolean, reads: boolean) => {
      const written = a.write(utf8("ping"));
      if (writes) await written;
      else assertEquals(await codeOf(written), "timeout");
      await b.write(utf8("pong"));
      if (reads) assertEquals(text(await a.read()), "pong");
      else assertEquals(await codeOf(a.read()), "timeout");
      a.setReadDeadline(undefined);
      if (!reads) assertEquals(text(await a.read()), "pong", "it is not lost");
      if (writes) assertEquals(text(await b.read()), "ping");
    };
    for (const when of later()) {
      a.setDeadline(when);
      await works(true, true);
    }
    for (const [i, when] of past().entries()) {
      a.setDeadline(when);
      await works(false, false);
      a.setDeadline(when);
      a.setReadDeadline(later()[i]);
      await works(false, true);
      a.setDeadline(when);
      a.setWriteDeadline(later()[i]);
      await works(true, false);
      a.setDeadline(when);
      a.setDeadline(later()[i]);
      await works(true, true);
    }
  },
);

check("signals: before a call, during it, after it, and never", async (near, far) => {
  const before = AbortSignal.abort(new Error("why"));
  const [a, b] = await streamPair(near, far);
  const calls: ((signal: AbortSignal) => Promise<unknown>)[] = [
    (signal) => near.openStream({ signal }),
    (signal) => near.acceptStream({ signal }),
    (signal) => a.read({ signal }),
    (signal) => a.write(utf8("x"), { signal }),
  ];
  for (const call of calls) {
    const [result] = await Promise.allSettled([call(before)]);
    const { code, cause } = (result as PromiseRejectedResult).reason as MuxError;
    assertEquals([code, (cause as Error).message], ["aborted", "why"]);
  }
  assertEquals(near.stats().streams, 1);

  const { full } = await fill(a);
  for (const call of [calls[1]!, calls[2]!, calls[3]!]) {
    const during = new AbortController();
    const ended = codeOf(call(during.signal));
    await sleep(2);
    during.abort();
    assertEquals(await ended, "aborted");
  }
  assertEquals(a.queued, WINDOW, "the write that was taken back, and no other");

  const after = new AbortController();
  const { signal } = after;
  const opened = await near.openStream({ signal });
  const accepted = await far.acceptStream({ signal });
  await opened.write(utf8("one"), { signal });
  assertEquals(text(await accepted.read({ signal })), "one");
  after.abort();
  await opened.write(utf8("two"));
  assertEquals(text(await accepted.read()), "two");
  let read = 0;
  while (read < 2 * WINDOW) read += (await b.read())!.length;
  await full;
});

check("close() after a deadline that has passed still reaches the peer", async (near, far) => {
  const [a, b] = await streamPair(near, far);
  await a.write(utf8("before"));
  a.setDeadline(-1);
  assertEquals(await codeOf(a.write(utf8("late"))), "timeout");
  await a.close();
  assertEquals(text(await readAll(b)), "before");
  await b.closed;
  // And one that passes while close() waits ends the writes, not the close.
  const [c, d] = await streamPair(near, far);
  const { full } = await fill(c);
  const closing = c.close();
  c.setWriteDeadline(5);
  assertEquals(await codeOf(full), "timeout");
  await closing;
  assertEquals((await readAll(d)).length, WINDOW);
});

check(
  "a reader with room for a byte reads all, and is not dear to its peer",
  async (near, far, speaks) => {
    const [a, b] = await streamPair(near, far);
    const payload = pattern(3 * 32768, 3);
    await a.write(payload);
    await settled(near, far);
    const before = far.stats().framesSent;
    const reader = b.readable.getReader({ mode: "byob" });
    let view = new Uint8Array(1);
    for (const byte of payload) {
      const { done, value } = await reader.read(view);
      assert(!done && value.length === 1 && value[0] === byte);
      view = new Uint8Array(value.buffer);
    }
    await settled(near, far);
    const frames = far.stats().framesSent - before;
    // A quarter of the window at a time, or half of it (v2), with which goes a ping at times.
    if (speaks.protocol === "v1") assertEquals(frames, 3, "grants");
    else assert(frames === 1 || frames === 2, `${frames} grants and pings`);
    await a.closeWrite();
    assert((await reader.read(view)).done);
  },
);

test(
  "mux scenario: a stream's close() and a write race, 500 times",
  { timeout: 60_000 },
  async () => {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = client(near, { psk: PSK });
    const peer = new Peer(far, deriveKey(PSK));
    const taken = new Map<number, number>();
    for (let run = 0; run < 500; run++) {
      const stream = await mux.openStream();
      const size = run % 7 === 0 ? 70_000 : 5;
      let bytes = 0;
      const writing = (async () => {
        // In memory nothing but promises is at work: without an end no timer would have its turn.
        for (let left = size > 5 ? 3 : 100; left > 0; left--) {
          await stream.write(new Uint8Array(size));
          bytes += size;
        }
      })().catch((error: MuxError) => void (bytes += error.written ?? 0));
      for (let left = run % 23; left > 0; left--) await undefined;
      if (run % 5 === 4) await sleep(0);
      if (run % 3 === 0) stream.abort();
      else if (run % 3 === 1) await stream.close();
      else {
        await stream.closeWrite();
        await stream.closeRead();
      }
      await writing;
      taken.set(stream.id, bytes);
    }
    await mux.close();
    await peer.end();
    for (const [id, bytes] of taken) {
      const frames = peer.frames.filter((frame) =>
        frame.id === id && frame.flags !== FLAG.KEEPALIVE
      );
      const kinds = frames.map(({ flags }) => flags).filter((flags) =>
        flags !== FLAG.WINDOW_UPDATE
      );
      const first = kinds.findIndex((flags) => flags > FLAG.OPEN_STREAM);
      const ofStream = id === 0 ? kinds.filter((flags) => flags !== FLAG.CLOSE_MUX) : kinds;
      assertEquals(kinds[0], FLAG.OPEN_STREAM);
      assertEquals(ofStream.at(-1), FLAG.CLOSE_STREAM, `stream ${id} is an orphan`);
      assert(!kinds.slice(first).includes(FLAG.DATA), `stream ${id}: data behind its end`);
      assertEquals(peer.seen(id).bytes, bytes, `stream ${id}`);
    }
  },
);

/** How a write ends that is in a batch, while the one before is with a transport that nobody reads. */
async function endOfTakenWrite(
  end: (stream: MuxStream, stop: AbortController) => void,
): Promise<string> {
  const [near, far] = connPair({ lingerMs: 20 });
  const mux = client(near, { psk: PSK });
  const streams = await Promise.all(Array.from({ length: 21 }, () => mux.openStream()));
  const stream = streams.pop()!;
  await sleep(20);
  // Nine frames are a batch: the transport holds one, the second waits for it, this write is in the third.
  for (const filler of streams) filler.write(new Uint8Array(65_536)).catch(() => {});
  const stop = new AbortController();
  let result = "pending";
  stream.write(new Uint8Array(3), { signal: stop.signal }).then(
    () => result = "sent",
    ({ code, written }) => result = `${code}, ${written} written`,
  );
  while (stream.queued > 0) await sleep(1);
  await sleep(20);
  assertEquals(result, "pending", "taken, and not with the transport");
  end(stream, stop);
  await sleep(50);
  const ended = result;
  mux.abort();
  far.abort();
  return ended;
}

test("mux scenario: a signal ends a write that waits behind a stuck transport", async () => {
  assertEquals(await endOfTakenWrite((_, stop) => stop.abort()), "aborted, 3 written");
});

test("mux scenario: a deadline ends a write that waits behind a stuck transport", async () => {
  assertEquals(await endOfTakenWrite((stream) => stream.setWriteDeadline(1)), "timeout, 3 written");
});

test("mux scenario: abort() of its stream ends a write that waits behind a stuck transport", async () => {
  assertEquals(await endOfTakenWrite((stream) => stream.abort()), "stream-closed, 3 written");
});
