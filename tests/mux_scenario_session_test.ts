/** What becomes of a session's streams when it ends, and what it bears from a peer before. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { client, deriveKey, FLAG, sealFrame, server } from "@trunkline/sockets/mux";
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
import { leftovers, NOTHING_LEFT, Peer, randomOf } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;

/** On both protocols. */
function check(title: string, body: (speaks: Speaks) => Promise<void>): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux} scenario: ${title}`, { timeout: 60_000 }, async () => {
      assertEquals(await unhandledDuring(() => body(speaks)), []);
    });
  }
}

/** On v1 alone: the frames are its own. */
const checkV1 = (title: string, body: () => Promise<void>) =>
  test(`mux scenario: ${title}`, { timeout: 60_000 }, async () => {
    assertEquals(await unhandledDuring(body), []);
  });

check("a session is open, then closing, then closed", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const order: string[] = [];
  near.closed.then(() => order.push("closed"));
  const [a, b] = await streamPair(near, far);
  const written = a.write(pattern(2 * WINDOW, 1)).then(() => order.push("flushed"));
  order.push("open");
  const closing = near.close();
  // Closing: nothing new, and what was written goes on.
  assertEquals(await codeOf(near.openStream()), "closed");
  assertEquals(await codeOf(near.acceptStream()), "closed");
  await sleep(5);
  order.push("closing");
  assertEquals(near.stats().streams, 1);
  assertEquals(await readAll(b), pattern(2 * WINDOW, 1));
  await Promise.all([closing, written, far.closed]);
  assertEquals(order, ["open", "closing", "flushed", "closed"]);
});

check(
  "while one side closes, the other's new streams are refused and the old ones go on",
  async (speaks) => {
    const [near, far] = muxPair(speaks);
    const [a, b] = await streamPair(near, far);
    const written = a.write(pattern(3 * WINDOW, 2));
    const closing = near.close();
    const late = await far.openStream();
    if (speaks.protocol === "v1") {
      assertEquals(await late.read(), null);
      assertEquals(await codeOf(late.write(utf8("x"))), "peer-closed-stream");
    } else {
      assertEquals(await codeOf(late.read()), "going-away");
      assertEquals(await codeOf(late.write(utf8("x"))), "going-away");
      assertEquals(await codeOf(far.openStream()), "going-away");
    }
    assertEquals(near.stats().refusedStreams, 1);
    assertEquals(await readAll(b), pattern(3 * WINDOW, 2));
    await Promise.all([written, closing, far.closed]);
  },
);

check("streams that are opened during the end of a session leak nothing", async (speaks) => {
  for (let run = 0; run < 60; run++) {
    const [near, far] = muxPair({ ...speaks, maxPendingOpens: 4 });
    const settled: Promise<unknown>[] = [];
    const openSome = () => {
      for (const mux of [near, far]) {
        for (let i = 0; i < 3; i++) {
          settled.push(
            mux.openStream().then(async (stream) => {
              await stream.write(utf8("x"));
              await stream.closed;
            }).catch(() => {}),
          );
        }
      }
    };
    openSome();
    for (let left = run; left > 0; left--) await undefined;
    const ending = run % 3 === 0
      ? near.close()
      : run % 3 === 1
      ? closeBoth(near, far)
      : near.abort();
    openSome();
    for (let left = run; left > 0; left--) await undefined;
    openSome();
    await Promise.allSettled([ending, near.closed, far.closed, ...settled]);
    for (const mux of [near, far]) {
      assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      assertEquals(mux.streams, []);
    }
  }
});

check(
  "when the transport ends, every stream of both sides does, after what had come",
  async (speaks) => {
    for (const quiet of [true, false]) {
      const [ours, theirs] = connPair({ lingerMs: 500 });
      const [relayed, last] = connPair({ lingerMs: 500 });
      const near = client(ours, { psk: PSK, ...speaks });
      const far = server(last, { psk: PSK, ...speaks });
      // One who carries the bytes, until it ends the connection on both sides.
      const stop = new AbortController();
      const carry = async (from: typeof ours, to: typeof ours) => {
        const { signal } = stop;
        for (;;) await to.write((await from.read({ signal }))!);
      };
      const carrying = [carry(theirs, relayed), carry(relayed, theirs)];
      const pairs = [await streamPair(near, far), await streamPair(near, far)];
      pairs.push((await streamPair(far, near)).reverse() as typeof pairs[0]);
      for (const [a, b] of pairs) {
        await Promise.all([
          a.write(utf8("there")),
          b.write(utf8("back")),
        ]);
      }
      while (near.stats().bytesReceived < 12 || far.stats().bytesReceived < 15) await sleep(1);
      stop.abort();
      await Promise.allSettled(carrying);
      for (const conn of [theirs, relayed]) quiet ? conn.close() : conn.abort();
      assertEquals([await codeOf(near.closed), await codeOf(far.closed)], [
        "truncated",
        "truncated",
      ]);
      for (const [a, b] of pairs) {
        assertEquals([text(await a.read()), text(await b.read())], ["back", "there"]);
        for (const stream of [a, b]) {
          const all = [stream.read(), stream.write(utf8("x")), stream.closed];
          assertEquals(await Promise.all(all.map(codeOf)), ["truncated", "truncated", "truncated"]);
        }
      }
      assertEquals([near.streams, far.streams], [[], []]);
    }
  },
);

check(
  "a stream that was half-closed before its session ends is read to its end",
  async (speaks) => {
    const [near, far] = muxPair(speaks);
    const [a, b] = await streamPair(near, far);
    await a.write(utf8("all of it"));
    await a.closeWrite();
    await near.close();
    await far.closed;
    assertEquals(text(await readAll(b)), "all of it");
    await near.close();
  },
);

check("a session that is over answers everything, with typed errors", async (speaks) => {
  // What the session says, what a read of a stream does, what a write does.
  const orderly = [
    ["closed", "stream-closed", "stream-closed"],
    ["peer-closed", null, "peer-closed-stream"],
  ] as const;
  const broken = [
    ["closed", "closed", "closed"],
    ["truncated", "truncated", "truncated"],
  ] as const;
  for (const answers of [orderly, broken]) {
    const [near, far] = muxPair(speaks);
    const streams = await streamPair(near, far);
    if (answers === orderly) await near.close();
    else near.abort();
    await Promise.allSettled([near.closed, far.closed]);
    for (const [i, mux] of [near, far].entries()) {
      const stream = streams[i]!;
      const [code, read, write] = answers[i]!;
      assertEquals(await codeOf(mux.openStream()), code);
      assertEquals(await codeOf(mux.acceptStream()), code);
      const accepted = await Array.fromAsync(mux).catch(({ code }) => code);
      assertEquals(accepted, code === "truncated" ? code : []);
      if (read === null) assertEquals(await stream.read(), null);
      else assertEquals(await codeOf(stream.read()), read);
      assertEquals(await codeOf(stream.write(utf8("x"))), write);
      stream.setDeadline(5);
      await stream.closeWrite();
      await stream.closeRead();
      await stream.close();
      stream.abort();
      assertEquals([stream.queued, mux.streams, mux.stats().streams], [0, [], 0]);
      mux.abort();
      assertEquals((await Promise.allSettled([mux.close(), mux.closed])).length, 2);
    }
  }
});

check(
  "while the backlog is full, refused streams do not touch the accepted ones",
  async (speaks) => {
    const [near, far] = muxPair({ ...speaks, maxPendingAccepts: 2 });
    const [a, b] = await streamPair(near, far);
    const echo = async (word: string) => {
      await a.write(utf8(word));
      assertEquals(text(await b.read()), word);
      await b.write(utf8(word));
      assertEquals(text(await a.read()), word);
    };
    await near.openStream();
    await near.openStream();
    if (speaks.protocol === "v1") {
      for (let i = 0; i < 20; i++) {
        const refused = await near.openStream();
        assertEquals(await refused.read(), null);
        await echo(`${i}`);
      }
      assertEquals(far.stats().refusedStreams, 20);
    } else {
      // None is refused: the surplus waits for the peer to accept some.
      const waiting = Array.from({ length: 20 }, () => near.openStream());
      await echo("meanwhile");
      assertEquals([near.stats().waitingOpens, far.stats().pendingAccepts], [20, 2]);
      for (let i = 0; i < 22; i++) {
        await far.acceptStream();
        await echo(`${i}`);
      }
      await Promise.all(waiting);
      assertEquals(far.stats().refusedStreams, 0);
    }
    await closeBoth(near, far);
  },
);

checkV1("two servers joined by mistake are a protocol error, once one opens a stream", async () => {
  const [a, b] = connPair();
  const sessions = [server(a, { psk: PSK }), server(b, { psk: PSK })];
  await sessions[0]!.openStream();
  await sessions[1]!.openStream();
  const codes = await Promise.all(sessions.map((session) => codeOf(session.closed)));
  assert(codes.includes("protocol"), codes.join());
  assert(codes.every((code) => code === "protocol" || code === "truncated"), codes.join());
});

checkV1(
  "frames for streams that were are ignored; for streams that never were, so many",
  async () => {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = server(near, { psk: PSK, maxStrayFrames: 1000 });
    const peer = new Peer(far, deriveKey(PSK));
    await peer.send({ id: 0, flags: FLAG.OPEN_STREAM });
    await (await mux.acceptStream()).close();
    const flood = async (id: number, count: number) => {
      const kinds = [
        ...[FLAG.DATA, FLAG.CLOSE_READ, FLAG.CLOSE_WRITE, FLAG.CLOSE_STREAM, FLAG.WINDOW_UPDATE],
      ];
      for (let i = 0; i < count; i++) await peer.send({ id, flags: kinds[i % kinds.length]! });
      const { framesReceived } = mux.stats();
      await peer.send({ id: 0, flags: FLAG.KEEPALIVE });
      while (mux.stats().framesReceived === framesReceived) await sleep(1);
    };
    await flood(0, 1500);
    assertEquals([mux.stats().lateFrames, mux.stats().strayFrames], [1500, 0]);
    await flood(2, 500);
    await flood(1, 500);
    assertEquals(mux.stats().strayFrames, 1000);
    await peer.send({ id: 1, flags: FLAG.DATA });
    assertEquals(await codeOf(mux.closed), "limit");
    await peer.end();
  },
);

checkV1("bytes that are no frames are a typed error, whatever they are", async () => {
  const random = randomOf(7);
  for (let run = 0; run < 60; run++) {
    const [near, far] = connPair({ lingerMs: 200 });
    const mux = (run % 2 === 0 ? client : server)(near, { psk: PSK });
    const bytes = Uint8Array.from({ length: 52 + 300 * random() }, () => 256 * random());
    // Half of them look like a frame at least.
    const framed = run % 4 < 2;
    if (framed) bytes.set([0, 0, 0, 7], 5);
    const writing = far.write(bytes).then(() => far.closeWrite()).catch(() => {});
    const code = await codeOf(mux.closed);
    assertEquals(code, framed ? "auth-failed" : "protocol", `run ${run}`);
    await writing;
    far.abort();
  }
});

checkV1("frames that wait for a peer who reads nothing are limited", async () => {
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = server(near, { psk: PSK, maxPendingAccepts: 1 });
  const open = (id: number, nonce: number) =>
    sealFrame({ id, flags: FLAG.OPEN_STREAM }, deriveKey(PSK), new Uint8Array(24).fill(nonce));
  await far.write(open(0, 1));
  // Each is refused.
  const refused = concat(Array(1000).fill([open(2, 2), open(4, 3)]).flat());
  const flood = async () => {
    for (let sent = 0; sent < 120_000; sent += 2000) await far.write(refused);
  };
  flood().catch(() => {});
  assertEquals(await codeOf(mux.closed), "limit");
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  far.abort();
});
