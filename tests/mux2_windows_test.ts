/** Windows of v2 that grow with the way there and back, and how many streams may live and wait. */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import {
  client,
  type Mux,
  MuxError,
  type MuxOptions,
  type MuxStream,
  server,
} from "@trunkline/sockets/mux";
import { closeBoth, codeOf, muxPair, readAll, streamPair } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";
import { frame } from "./mux2_reader.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;
const KIB = 1024;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Whether a promise is settled after all that can happen without it. */
async function waits(promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([promise.then(() => false, () => false), pause(30).then(() => true)]);
}

/** A reader of ours, behind a line of so many milliseconds, and a peer that sends as much as it may. */
async function sendAll(
  options: Partial<MuxOptions>,
  delayMs: number,
  streams: number,
  mib: number,
) {
  const { ends: [near, far] } = lines(delayMs);
  const mux = server(near, { ...V2, ...options });
  const peer = await Peer2.client(far);
  const credit = new Map<number, number>();
  const sent = new Map<number, number>();
  const largest = new Map<number, number>();
  const most = mib * 1024 * KIB;
  const piece = new Uint8Array(16 * KIB);
  for (let i = 0; i < streams; i++) {
    credit.set(2 * i, peer.theirs.get(1)!);
    sent.set(2 * i, 0);
    await peer.send(frame("OPEN", 2 * i, [3]));
  }
  const read = (async () => {
    const all: Promise<Uint8Array>[] = [];
    for (let i = 0; i < streams; i++) all.push(readAll(await mux.acceptStream()));
    return (await Promise.all(all)).map(({ length }) => length);
  })();
  let seen = 0;
  let grantedInAll = 0;
  const sum = (map: Map<number, number>) => [...map.values()].reduce((a, b) => a + b, 0);
  let largestInAll = 0;
  for (const done = new Set<number>(); done.size < streams;) {
    for (; seen < peer.frames.length; seen++) {
      const { type, id, values } = peer.frames[seen]!;
      if (type !== "WINDOW") continue;
      credit.set(id, credit.get(id)! + values[0]!);
      grantedInAll += values[0]!;
    }
    for (const [id, open] of credit) {
      // What is open when nothing is on its way is the size of the window, nearly: the most that was ever sent at once.
      largest.set(id, Math.max(largest.get(id) ?? 0, open));
      largestInAll = Math.max(largestInAll, sum(credit));
      for (let left = Math.min(open, most - sent.get(id)!); left > 0;) {
        const body = piece.subarray(0, Math.min(left, piece.length));
        await peer.send(frame("DATA", id, body));
        left -= body.length;
        sent.set(id, sent.get(id)! + body.length);
        credit.set(id, credit.get(id)! - body.length);
      }
      if (sent.get(id) === most && !done.has(id)) {
        done.add(id);
        await peer.send(frame("FIN", id));
      }
    }
    const now = peer.frames.length;
    if (done.size < streams) await peer.until(() => peer.frames.length > now, "more");
  }
  assertEquals(await read, new Array(streams).fill(most));
  return {
    mux,
    peer,
    largest: [...largest.values()],
    grantedInAll,
    sentInAll: sum(sent),
    largestInAll,
  };
}

async function over({ mux, peer }: { mux: Mux; peer: Peer2 }): Promise<void> {
  mux.abort();
  await peer.end();
}

describe("windows", () => {
  it("grow with a long way, up to maxStreamWindowBytes", { timeout: 60_000 }, async () => {
    const limits = { windowBytes: 16 * KIB, maxStreamWindowBytes: 200 * KIB };
    const told = await sendAll(limits, 15, 1, 4);
    // All that was granted beyond what was sent has made the window larger.
    const size = 16 * KIB + told.grantedInAll - told.sentInAll;
    assert(size <= 200 * KIB, `${size}`);
    assert(told.largest[0]! > 64 * KIB, `${told.largest[0]}`);
    await over(told);
  });

  it("do not grow beyond maxSessionWindowBytes together", { timeout: 60_000 }, async () => {
    const limits = { windowBytes: 16 * KIB, maxSessionWindowBytes: 100 * KIB };
    const told = await sendAll(limits, 10, 3, 1);
    const sizes = 3 * 16 * KIB + told.grantedInAll - told.sentInAll;
    assert(sizes <= 3 * 16 * KIB + 100 * KIB, `${sizes}`);
    assert(told.largestInAll > 3 * 16 * KIB, `${told.largestInAll}`);
    await over(told);
  });

  it("do not grow at all where that is not allowed", { timeout: 60_000 }, async () => {
    const windowBytes = 32 * KIB;
    for (const limits of [{ maxStreamWindowBytes: windowBytes }, { maxSessionWindowBytes: 0.5 }]) {
      const told = await sendAll({ windowBytes, ...limits }, 5, 1, 1);
      assert(told.grantedInAll <= told.sentInAll + 1, `${told.grantedInAll}`);
      await over(told);
    }
  });

  it("give what they grew by back at the end of their stream", { timeout: 60_000 }, async () => {
    // Room for one of them to grow, and for no other.
    const limits = {
      windowBytes: 16 * KIB,
      maxStreamWindowBytes: 64 * KIB,
      maxSessionWindowBytes: 48 * KIB,
    };
    const { ends: [near, far] } = lines(10);
    const [ours, theirs] = [client(near, V2), server(far, { ...V2, ...limits })];
    /** How much comes, and is not read, of a stream of which so much was read. */
    const unreadBehind = async (bytes: number) => {
      const before = theirs.stats().bytesReceived;
      const [stream, accepted] = await streamPair(ours, theirs);
      stream.write(new Uint8Array(bytes + 400 * KIB)).catch(() => {});
      let read = 0;
      while (read < bytes) read += (await accepted.read())!.length;
      let received = -1;
      for (let still = 0; still < 3;) {
        await pause(30);
        const now = theirs.stats().bytesReceived;
        still = now === received ? still + 1 : 0;
        received = now;
      }
      const end = async () => {
        stream.abort();
        await accepted.closed.catch(() => {});
        // What came of it counts until nobody can read it any more.
        accepted.abort();
      };
      return { unread: received - before - read, end };
    };
    for (let round = 0; round < 3; round++) {
      const grown = await unreadBehind(512 * KIB);
      assert(grown.unread > 32 * KIB && grown.unread <= 64 * KIB, `${grown.unread}`);
      const other = await unreadBehind(100 * KIB);
      assert(other.unread <= 16 * KIB, `${other.unread}`);
      await Promise.all([grown.end(), other.end()]);
    }
    await closeBoth(ours, theirs);
  });

  it("of one byte let all through, both ways", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, windowBytes: 1 });
    const [stream, accepted] = await streamPair(near, far);
    const bytes = crypto.getRandomValues(new Uint8Array(300));
    const reading = Promise.all([readAll(accepted), readAll(stream)]);
    await Promise.all([stream.write(bytes), accepted.write(bytes)]);
    await Promise.all([stream.closeWrite(), accepted.closeWrite()]);
    assertEquals(await reading, [bytes, bytes]);
    await closeBoth(near, far);
  });

  it("of each side are its own", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, windowBytes: 1000 }, { ...V2, windowBytes: 70_000 });
    const [stream, accepted] = await streamPair(near, far);
    const writes = [stream.write(new Uint8Array(100_000)), accepted.write(new Uint8Array(100_000))];
    for (const write of writes) write.catch(() => {});
    while (stream.queued !== 30_000 || accepted.queued !== 99_000) await pause(5);
    await pause(30);
    assertEquals([stream.queued, accepted.queued], [30_000, 99_000]);
    near.abort();
    await Promise.allSettled([near.closed, far.closed, ...writes]);
  });
});

describe("streams of the peer", () => {
  const sides = (options: Partial<MuxOptions>) =>
    [["client", "server"], ["server", "client"]].map(([name]) => {
      const pair = muxPair({ ...V2, ...options });
      return {
        name,
        near: pair[name === "client" ? 0 : 1]!,
        far: pair[name === "client" ? 1 : 0]!,
      };
    });

  for (const maxStreams of [1, 2, 3, 2.5]) {
    it(`live ${maxStreams} at once, and more wait for an end`, { timeout: 60_000 }, async () => {
      for (const { near, far } of sides({ maxStreams })) {
        const whole = Math.floor(maxStreams);
        const open: [MuxStream, MuxStream][] = [];
        for (let i = 0; i < whole; i++) open.push(await streamPair(near, far));
        for (let i = 0; i < 10; i++) {
          const opening = near.openStream();
          assert(await waits(opening), `${i}`);
          assertEquals(near.stats().waitingOpens, 1);
          const [ours, theirs] = open.shift()!;
          await Promise.all([ours.close(), theirs.close()]);
          open.push([await opening, await far.acceptStream()]);
        }
        assertEquals(near.streams.length, whole);
        await closeBoth(near, far);
      }
    });
  }

  for (const maxPendingAccepts of [1, 2, 1.5]) {
    it(
      `wait ${maxPendingAccepts} to be accepted, and more at their side`,
      { timeout: 60_000 },
      async () => {
        for (const { near, far } of sides({ maxPendingAccepts })) {
          const whole = Math.floor(maxPendingAccepts);
          await near.ready;
          for (let i = 0; i < whole; i++) await near.openStream();
          for (let i = 0; i < 10; i++) {
            const opening = near.openStream();
            assert(await waits(opening), `${i}`);
            assertEquals(far.stats().pendingAccepts, whole);
            // That they are over makes no room: they wait as before.
            if (i === 5) {
              for (const stream of near.streams) stream.abort();
              assert(await waits(opening), "by an end");
            }
            const accepted = await far.acceptStream();
            assertEquals(accepted.id >>> 1, i);
            await opening;
          }
          assertEquals(far.stats().refusedStreams, 0);
          await closeBoth(near, far);
        }
      },
    );
  }

  it(
    "of 1 alone come one after the other, in the order of the calls",
    { timeout: 60_000 },
    async () => {
      for (const { near, far } of sides({ maxStreams: 1 })) {
        const opened: number[] = [];
        const all = Array.from({ length: 50 }, async (_, i) => {
          const stream = await near.openStream();
          opened.push(i);
          await stream.close();
        });
        for await (const stream of far) {
          await stream.close();
          if (stream.id >>> 1 === 49) break;
        }
        await Promise.all(all);
        assertEquals(opened, [...opened.keys()]);
        await closeBoth(near, far);
      }
    },
  );

  it("go on where a signal takes one out of those that wait", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, maxStreams: 1 });
    const [first, accepted] = await streamPair(near, far);
    const controller = new AbortController();
    const given = near.openStream({ signal: controller.signal });
    const next = near.openStream();
    assert(await waits(next));
    controller.abort();
    assertEquals(await codeOf(given), "aborted");
    assert(await waits(next));
    await Promise.all([first.close(), accepted.close()]);
    assertEquals((await next).id, 2);
    await closeBoth(near, far);
  });

  it("have no bound without limits", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, maxStreams: Infinity, maxPendingAccepts: Infinity });
    const opened = await Promise.all(Array.from({ length: 5000 }, () => near.openStream()));
    for (let i = 0; i < 5000; i++) assertEquals((await far.acceptStream()).id, 2 * i);
    assertEquals([near.streams.length, far.streams.length], [5000, 5000]);
    for (const stream of opened) stream.abort();
    await closeBoth(near, far);
  });

  it("that wait fail with what ends the session", { timeout: 60_000 }, async () => {
    const ends: readonly (readonly [string, (mux: Mux) => void])[] = [
      ["closed", (mux) => void mux.close().catch(() => {})],
      ["closed", (mux) => mux.abort()],
    ];
    for (const [code, end] of ends) {
      const [near, far] = muxPair({ ...V2, maxStreams: 1 });
      await streamPair(near, far);
      const opening = near.openStream();
      assert(await waits(opening));
      end(near);
      assertEquals(await codeOf(opening), code);
      far.abort();
      await Promise.allSettled([near.closed, far.closed]);
    }
    const [near, far] = muxPair({ ...V2, maxStreams: 1 });
    await streamPair(near, far);
    const opening = near.openStream().catch((error) => error);
    await far.close();
    const error = await opening;
    assert(error instanceof MuxError);
    assert(["going-away", "peer-closed"].includes(error.code), error.code);
    await near.closed;
  });
});
