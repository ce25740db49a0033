/** What a peer sees of a session frame by frame, also when it takes nothing. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  FLAG,
  type Mux,
  type MuxOptions,
  type MuxStream,
  sealFrame,
} from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { codeOf, PSK, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, Peer } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;
const KEY = deriveKey(PSK);

function check(
  title: string,
  body: (mux: Mux, far: Conn) => Promise<void>,
  options: Partial<MuxOptions> = {},
) {
  test(`mux scenario: ${title}`, { timeout: 60_000 }, async () => {
    const unhandled = await unhandledDuring(async () => {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = client(near, { psk: PSK, ...options });
      await body(mux, far);
      mux.abort();
      await mux.closed.catch(() => {});
      assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      far.abort();
    });
    assertEquals(unhandled, []);
  });
}

/** Waits until the session has taken what was sent to it. */
async function taken(mux: Mux, peer: Peer): Promise<void> {
  const frames = mux.stats().framesReceived;
  await peer.send({ id: 0, flags: FLAG.KEEPALIVE });
  while (mux.stats().framesReceived === frames) await sleep(1);
}

/** The kinds of the frames on a stream, but for grants. */
const kinds = (peer: Peer, stream: MuxStream): number[] =>
  peer.frames.filter(({ id, flags }) =>
    id === stream.id && flags !== FLAG.WINDOW_UPDATE && flags !== FLAG.KEEPALIVE
  ).map(({ flags }) => flags);

check("an end by the peer makes us send none of that kind", async (mux, far) => {
  const peer = new Peer(far, KEY);
  const [half, gone, unread] = [
    ...[await mux.openStream(), await mux.openStream(), await mux.openStream()],
  ];
  await peer.send({ id: half!.id, flags: FLAG.CLOSE_READ });
  await peer.send({ id: gone!.id, flags: FLAG.CLOSE_STREAM });
  await peer.send({ id: unread!.id, flags: FLAG.CLOSE_WRITE });
  await taken(mux, peer);
  await gone!.closeWrite();
  await gone!.closeRead();
  await gone!.close();
  gone!.abort();
  await unread!.closeWrite();
  await half!.closeRead();
  await mux.openStream();
  await peer.until(() => peer.seen(6).opened, "the next open");
  assertEquals(kinds(peer, half!), [FLAG.OPEN_STREAM]);
  assertEquals(kinds(peer, gone!), [FLAG.OPEN_STREAM]);
  assertEquals(kinds(peer, unread!), [FLAG.OPEN_STREAM]);
});

check("a stream that never sent anything sends its open and its end", async (mux, far) => {
  const peer = new Peer(far, KEY);
  const closed = await mux.openStream();
  const aborted = await mux.openStream();
  await closed.close();
  aborted.abort();
  await mux.close();
  await peer.end();
  assertEquals(kinds(peer, aborted), [FLAG.OPEN_STREAM, FLAG.CLOSE_STREAM]);
  assertEquals(kinds(peer, closed), [FLAG.OPEN_STREAM, FLAG.CLOSE_STREAM, FLAG.CLOSE_MUX]);
});

check(
  "what is read is granted again, exactly, a quarter of the window at a time",
  async (mux, far) => {
    const peer = new Peer(far, KEY);
    const stream = await mux.openStream();
    for (let i = 0; i < 2; i++) {
      await peer.send({ id: 0, flags: FLAG.DATA, payload: new Uint8Array(65536) });
    }
    const reader = stream.readable.getReader({ mode: "byob" });
    let read = 0;
    for (const size of [10_000, 20_000, 2767, 1, 30_000, 40_000, 28_304]) {
      for (let left = size; left > 0;) {
        const { value } = await reader.read(new Uint8Array(left));
        left -= value!.length;
        read += value!.length;
      }
      // An open of another stream is behind all that was granted before.
      const marker = await mux.openStream();
      await marker.write(utf8("x"));
      await peer.until(() => peer.seen(marker.id).bytes === 1, "the next stream");
      const held = read - peer.seen(0).credit;
      assert(held >= 0 && held < 32768, `${held} of ${read} bytes are held back`);
      if (read === 32768) assertEquals(held, 0);
    }
    assertEquals(read, WINDOW);
  },
);

check("reading goes on while all of our writes wait for the peer's window", async (mux, far) => {
  const peer = new Peer(far, KEY);
  peer.granting = false;
  const streams = await Promise.all(Array.from({ length: 20 }, () => mux.openStream()));
  const writing = streams.map((stream) => stream.write(new Uint8Array(2 * WINDOW)));
  for (const { id } of streams) await peer.until(() => peer.seen(id).bytes === WINDOW, "windows");
  const mine = new Uint8Array(60_000).fill(7);
  for (let round = 0; round < 3; round++) {
    for (const { id } of streams) await peer.send({ id, flags: FLAG.DATA, payload: mine });
    for (const stream of streams) {
      for (let left = mine.length; left > 0;) left -= (await stream.read())!.length;
    }
  }
  for (const { id } of streams) await peer.grant(id, WINDOW);
  await Promise.all(writing);
  for (const stream of streams) assertEquals(stream.queued, 0);
});

check(
  "reading goes on while the transport takes nothing, and nobody is asked to answer",
  async (mux, far) => {
    const streams = await Promise.all(Array.from({ length: 30 }, () => mux.openStream()));
    const writing = streams.map((stream) => codeOf(stream.write(new Uint8Array(WINDOW + 1))));
    await sleep(5);
    // A hundredth of what was written: nobody reads it.
    assert(mux.stats().bytesSent < 30 * WINDOW);
    const sent = mux.stats().framesSent;
    for (let i = 0; i < 5000; i++) {
      const nonce = crypto.getRandomValues(new Uint8Array(24));
      const flags = i % 2 === 0 ? FLAG.KEEPALIVE : 99;
      await far.write(sealFrame({ id: i, flags }, KEY, nonce));
    }
    const nonce = crypto.getRandomValues(new Uint8Array(24));
    await far.write(sealFrame({ id: 0, flags: FLAG.DATA, payload: utf8("read me") }, KEY, nonce));
    assertEquals(text(await streams[0]!.read()), "read me");
    assertEquals([mux.stats().framesSent, mux.stats().strayFrames], [sent, 0]);
    mux.abort();
    assertEquals(new Set(await Promise.all(writing)), new Set(["closed"]));
  },
);

check(
  "a write on a transport that takes nothing ends by its deadline and by its signal",
  async (mux) => {
    const stop = new AbortController();
    const streams = await Promise.all(Array.from({ length: 30 }, () => mux.openStream()));
    const writing = streams.map((stream, i) => {
      const options = i % 2 === 0 ? {} : { signal: stop.signal };
      return stream.write(new Uint8Array(2 * WINDOW), options).then(
        () => "sent",
        ({ code }) => code,
      );
    });
    await sleep(5);
    for (const [i, stream] of streams.entries()) if (i % 2 === 0) stream.setWriteDeadline(5);
    stop.abort();
    const codes = await Promise.all(writing);
    assertEquals(codes, streams.map((_, i) => i % 2 === 0 ? "timeout" : "aborted"));
    assertEquals(streams.map(({ queued }) => queued), streams.map(() => 0));
  },
);

check(
  "close() on a transport that takes nothing is a timeout, and abort() needs no time",
  async (mux) => {
    for (const end of ["close", "abort"] as const) {
      const [near, far] = connPair({ lingerMs: 500 });
      const it = end === "close" ? client(near, { psk: PSK, closeTimeoutMs: 30 }) : mux;
      const streams = await Promise.all(Array.from({ length: 30 }, () => it.openStream()));
      const writing = streams.map((stream) => stream.write(new Uint8Array(WINDOW)).catch(() => {}));
      await sleep(5);
      const code = end === "close" ? "timeout" : "closed";
      if (end === "close") assertEquals(await codeOf(it.close()), code);
      else it.abort();
      assertEquals(await codeOf(it.closed), code);
      await Promise.all(writing);
      assertEquals(await codeOf(streams[29]!.closed), code);
      far.abort();
    }
  },
);

check("keepalives go out while writers wait for the peer's window", async (mux, far) => {
  const peer = new Peer(far, KEY);
  peer.granting = false;
  const stream = await mux.openStream();
  const writing = codeOf(stream.write(new Uint8Array(2 * WINDOW)));
  await peer.until(() => peer.seen(0).bytes === WINDOW, "a full window");
  const keepalives = () => peer.frames.filter(({ flags }) => flags === FLAG.KEEPALIVE).length;
  const before = keepalives();
  await peer.until(() => keepalives() >= before + 3, "three keepalives");
  assertEquals(stream.queued, WINDOW);
  mux.abort();
  assertEquals(await writing, "closed");
}, { keepaliveMs: 10 });
