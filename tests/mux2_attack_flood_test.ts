/** A peer that has the psk and sends too much: streams, pings, records with nothing in them. What it makes us hold has a limit. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import type { MuxOptions, MuxStream } from "@trunkline/sockets/mux";
import { TYPE } from "../mux/v2/frame.ts";
import { codeOf, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { dataFrame, frame, peered, type RoguePeer } from "./mux2_rogue.ts";
import { unhandledDuring } from "./unhandled.ts";

const LIMIT = 3;
const MAX_PLAIN_BYTES = 65535 - 16;

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

function opens(from: number, count: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => frame(TYPE.OPEN, from + 2 * i, 3));
}

check("flood: more streams than were allowed are limit", async () => {
  const limits: readonly Partial<MuxOptions>[] = [
    { maxStreams: 4 },
    { maxPendingAccepts: 4 },
    { maxStreams: 4, maxPendingAccepts: 100 },
  ];
  for (const options of limits) {
    for (const isClient of [true, false]) {
      const { mux, peer, theirs } = await peered(isClient, options);
      const running = peer.run();
      await peer.send(...opens(theirs, 4));
      assertEquals(
        await Promise.all([1, 2, 3, 4].map(() => mux.acceptStream())).then((it) => it.length),
        4,
      );
      if (options.maxStreams === undefined) {
        // It is allowed as many more as were taken.
        assertEquals((await peer.came(TYPE.MAX_STREAMS)).first, 5);
      } else {
        await peer.send(...opens(theirs + 8, 1));
        assertEquals(await codeOf(mux.closed), "limit");
        assertEquals((await peer.came(TYPE.END)).first, LIMIT);
        assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      }
      mux.abort();
      await running;
    }
  }
});

check("flood: streams that nobody takes are limit, also if each was reset at once", async () => {
  for (const isClient of [true, false]) {
    const { mux, peer, theirs } = await peered(isClient, { maxPendingAccepts: 8 });
    const running = peer.run();
    await peer.send(
      ...opens(theirs, 8).flatMap((open, i) => [
        open,
        frame(TYPE.RESET, theirs + 2 * i, 8),
      ]),
    );
    await peer.send(frame(TYPE.OPEN, theirs + 16, 3));
    assertEquals(await codeOf(mux.closed), "limit");
    // What was there before can still be taken, and tells that it was reset.
    const stream = await mux.acceptStream();
    const [result] = await Promise.allSettled([stream.read()]);
    assertEquals((result as PromiseRejectedResult).reason.resetCode, 8);
    await running;
  }
});

check(
  "flood: ten thousand streams, each reset at once, are never more than were allowed",
  async () => {
    for (const isClient of [true, false]) {
      const { mux, peer, theirs } = await peered(isClient, {
        maxStreams: 50,
        maxPendingAccepts: 50,
      });
      const running = peer.run();
      let most = 0;
      const taken: MuxStream[] = [];
      const taking = (async () => {
        for await (const stream of mux) {
          most = Math.max(most, mux.stats().streams, mux.stats().pendingAccepts);
          taken.push(stream);
          await stream.read();
        }
      })().catch(() => {});
      for (let i = 0; i < 10_000; i++) {
        const allowed = () =>
          peer.frames.findLast(({ type }) => type === TYPE.MAX_STREAMS)?.first ?? 50;
        while (i >= allowed() && !peer.ended) {
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
        assert(!peer.ended);
        const id = theirs + 2 * i;
        await peer.send(
          frame(TYPE.OPEN, id, 3),
          dataFrame(id, utf8("x")),
          frame(TYPE.RESET, id, 8),
        );
      }
      await mux.ping();
      assert(most <= 50, `${most}`);
      assertEquals(mux.stats().streams, 0);
      await mux.close();
      await Promise.all([taking, running]);
      assertEquals(taken.length, 10_000);
    }
  },
);

check("flood: streams that are over count until what came of them was read", async () => {
  for (const end of [TYPE.RESET, TYPE.CLOSE]) {
    const { mux, peer, theirs } = await peered(false, { maxStreams: 4 });
    const running = peer.run();
    for (let i = 0; i < 4; i++) {
      const id = theirs + 2 * i;
      const last = end === TYPE.RESET ? frame(end, id, 8) : frame(end, id);
      await peer.send(frame(TYPE.OPEN, id, 3), dataFrame(id, utf8("x")), last);
    }
    const streams = await Promise.all([1, 2, 3, 4].map(() => mux.acceptStream()));
    await mux.ping();
    assertEquals(peer.frames.some(({ type }) => type === TYPE.MAX_STREAMS), false);
    await streams[0]!.read();
    assertEquals((await peer.came(TYPE.MAX_STREAMS)).first, 5);
    // Throwing it away does as well.
    streams[1]!.abort();
    await streams[2]!.close();
    await streams[3]!.closeRead();
    await peer.send(frame(TYPE.OPEN, theirs + 8, 3));
    await mux.acceptStream();
    mux.abort();
    await running;
  }
});

check("flood: pings of a peer that does not read the answers are limit", async () => {
  for (const isClient of [true, false]) {
    const { mux, peer } = await peered(isClient);
    const many = concat(Array(16_000).fill(frame(TYPE.PING, 0, 1)));
    const closed = codeOf(mux.closed);
    let over = false;
    closed.finally(() => over = true);
    for (let i = 0; i < 100 && !over; i++) await peer.send(many).catch(() => {});
    assertEquals(await closed, "limit");
    assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
    // The transport ends, though the last word cannot be written.
    await peer.run();
  }
});

check("flood: records with nothing in them, or padding alone, change nothing", async () => {
  for (const isClient of [true, false]) {
    const { mux, peer, theirs } = await peered(isClient);
    const running = peer.run();
    for (let i = 0; i < 2000; i++) await peer.send(new Uint8Array(i % 3));
    for (let i = 0; i < 20; i++) await peer.send(new Uint8Array(MAX_PLAIN_BYTES));
    await mux.ready;
    const { framesReceived, bytesReceived } = mux.stats();
    assert(framesReceived <= 2 && bytesReceived === 0);
    await peer.send(frame(TYPE.OPEN, theirs, 3), dataFrame(theirs, utf8("still here")));
    assertEquals(text(await (await mux.acceptStream()).read()), "still here");
    await mux.close();
    await running;
  }
});

/** Bytes of the memory behind what a stream gives back. */
async function held(peer: RoguePeer, stream: MuxStream, wanted: number): Promise<number> {
  const buffers = new Set<ArrayBufferLike>();
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  while (bytes < wanted) {
    const chunk = await stream.read();
    chunks.push(chunk!);
    bytes += chunk!.length;
    buffers.add(chunk!.buffer);
  }
  assert(!peer.ended);
  return [...buffers].reduce((sum, buffer) => sum + buffer.byteLength, 0);
}

check("flood: data in records that are padding otherwise are not held with them", async () => {
  const window = 131072;
  // How many bytes of data, in a record of how many.
  for (
    const [data, record] of [[1, 16383], [1, MAX_PLAIN_BYTES], [4096, MAX_PLAIN_BYTES], [
      4097,
      MAX_PLAIN_BYTES,
    ]] as const
  ) {
    for (const isClient of [true, false]) {
      const { mux, peer, theirs } = await peered(isClient);
      const running = peer.run();
      await peer.send(frame(TYPE.OPEN, theirs, 3));
      const stream = await mux.acceptStream();
      const times = Math.min(50, Math.floor(window / data));
      for (let i = 0; i < times; i++) {
        const plain = new Uint8Array(record);
        plain.set(dataFrame(theirs, new Uint8Array(data).fill(1)));
        await peer.send(plain);
      }
      await mux.ping();
      const bytes = await held(peer, stream, times * data);
      // What the window allows, and the first record, of which nobody knew yet that it would wait.
      assert(bytes <= 2 * window, `${times} times ${data} of ${record} bytes hold ${bytes}`);
      await mux.close();
      await running;
    }
  }
});

check("flood: late frames are counted, and held nowhere", async () => {
  const { mux, peer, theirs } = await peered(false);
  const running = peer.run();
  await peer.send(frame(TYPE.OPEN, theirs, 3));
  (await mux.acceptStream()).reset(1);
  await peer.came(TYPE.RESET, theirs);
  const late = Array.from({ length: 2000 }, () => dataFrame(theirs, utf8("late")));
  for (let i = 0; i < 50; i++) await peer.send(...late);
  await mux.ping();
  const { lateFrames, streams } = mux.stats();
  assertEquals([lateFrames, streams], [100_000, 0]);
  await mux.close();
  await running;
});

check(
  "flood: goaways, grants of streams and of windows, told again and again, are taken",
  async () => {
    for (const isClient of [true, false]) {
      const { mux, peer, theirs } = await peered(isClient);
      const running = peer.run();
      if (!isClient) await peer.send(frame(TYPE.PING, 0, 1));
      await mux.ready;
      const stream = await mux.openStream();
      await peer.came(TYPE.OPEN, stream.id);
      const many = Array.from({ length: 1000 }, (_, i) => [
        frame(TYPE.MAX_STREAMS, 0, i % 7),
        frame(TYPE.WINDOW, stream.id, 1),
        frame(TYPE.GOAWAY, 0, stream.id + 2),
      ]).flat();
      for (let i = 0; i < 20; i++) await peer.send(...many);
      assertEquals(await codeOf(mux.openStream()), "going-away");
      await stream.write(utf8("goes on"));
      assertEquals(text((await peer.came(TYPE.DATA, stream.id)).data), "goes on");
      await peer.send(frame(TYPE.OPEN, theirs, 3), frame(TYPE.CLOSE, theirs));
      assertEquals(await (await mux.acceptStream()).read(), null);
      await mux.close();
      await running;
    }
  },
);
