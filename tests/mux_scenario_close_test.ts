/**
 * Ours as the side that closes, towards a peer that does as gomux does: it grants what it reads at once, also on the way to the end, and
 * says nothing at the end of the session but that of its transport.
 */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connect, connPair, listen, wrapConn } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  FLAG,
  type Mux,
  type MuxOptions,
  sealFrame,
  server,
} from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { closeBoth, codeOf, muxPair, PSK, streamPair, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, Peer } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";
import { timersAfter } from "./timers.ts";

const WINDOW = 131072;
const KEY = deriveKey(PSK);

const check = (title: string, body: () => Promise<void>) =>
  test(`mux scenario: closing: ${title}`, { timeout: 60_000 }, async () => {
    assertEquals(await unhandledDuring(body), []);
  });

/** Both ends of a TCP connection: in memory nothing is reset. */
async function tcpPair(): Promise<[Conn, Conn]> {
  const listener = await listen("127.0.0.1:0");
  const near = await connect(listener.addr);
  const far = await listener.accept();
  await listener.close();
  return [near, far];
}

/** Takes its time for each chunk, so that the last frames wait in the kernel when the session is done. */
function slowly(conn: Conn): Conn {
  const slow = new TransformStream<Uint8Array, Uint8Array>({
    async transform(chunk, out) {
      await sleep(1);
      out.enqueue(chunk);
    },
  });
  return wrapConn({ readable: conn.readable.pipeThrough(slow), writable: conn.writable });
}

interface Meeting {
  readonly mux: Mux;
  readonly peer: Peer;
  /** The transport of the peer. */
  readonly far: Conn;
}

async function meet(
  role: typeof client,
  slow = false,
  options: Partial<MuxOptions> = {},
): Promise<Meeting> {
  const [near, far] = await tcpPair();
  const peer = new Peer(slow ? slowly(far) : far, KEY);
  const mux = role(near, { psk: PSK, closeTimeoutMs: 20_000, ...options });
  // A server waits for a first frame, and answers it.
  await peer.send({ id: 0, flags: FLAG.KEEPALIVE });
  await peer.until(() => peer.frames.length > 0, "a keepalive");
  return { mux, peer, far };
}

/** The peer has it all: each stream to its end, then the farewell, then the end of the transport, in order. */
async function assertWhole(
  { mux, peer, far }: Meeting,
  payloads: ReadonlyMap<number, Uint8Array>,
): Promise<void> {
  await peer.end();
  await far.closed;
  for (const [id, payload] of payloads) {
    assert(peer.seen(id).opened);
    const came = peer.received(id);
    assert(came.length === payload.length, `stream ${id}: ${came.length} bytes`);
    assert(came.every((byte, at) => byte === payload[at]), `stream ${id}: other bytes`);
    assertEquals(peer.seen(id).closes, ["CloseStream"]);
  }
  assertEquals(peer.frames.at(-1)!.flags, FLAG.CLOSE_MUX);
  assertEquals(peer.frames.filter(({ flags }) => flags === FLAG.CLOSE_MUX).length, 1);
  await mux.closed;
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
}

/** Opens so many streams, writes to each and closes all and the session at once. */
async function writeAndClose(mux: Mux, count: number, size: number): Promise<{
  readonly payloads: Map<number, Uint8Array>;
  readonly done: Promise<unknown>;
}> {
  const payloads = new Map<number, Uint8Array>();
  const pending: Promise<void>[] = [];
  for (let i = 0; i < count; i++) {
    const stream = await mux.openStream();
    const payload = pattern(size, i);
    payloads.set(stream.id, payload);
    pending.push(stream.write(payload), stream.close());
  }
  return { payloads, done: Promise.all([...pending, mux.close()]) };
}

for (const role of [client, server]) {
  for (const slow of [false, true]) {
    const who = `${role.name}, to a peer that is ${slow ? "slow" : "fast"}`;
    check(`nothing is lost of 40 streams with a full window each: ${who}`, async () => {
      for (let run = 0; run < 4; run++) {
        const meeting = await meet(role, slow);
        const { payloads, done } = await writeAndClose(meeting.mux, 40, WINDOW);
        await done;
        await assertWhole(meeting, payloads);
      }
    });
  }

  check(`what is beyond the window follows when the peer grants: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    peer.granting = false;
    const { payloads, done } = await writeAndClose(mux, 5, 3 * WINDOW);
    for (const id of payloads.keys()) await peer.until(() => peer.seen(id).bytes === WINDOW, "it");
    assert(!peer.farewell);
    assertEquals(peer.frames.filter(({ flags }) => flags === FLAG.CLOSE_STREAM), []);
    peer.granting = true;
    for (const id of payloads.keys()) await peer.grant(id, WINDOW);
    await done;
    await assertWhole(meeting, payloads);
  });

  check(`a peer that sends until it hears of the end is not reset: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    const chatty = await mux.openStream();
    const theirs = role === client ? 1 : 0;
    await peer.send({ id: theirs, flags: FLAG.OPEN_STREAM });
    await mux.acceptStream();
    const { payloads, done } = await writeAndClose(mux, 20, WINDOW);
    const talk = async () => {
      for (const id of [chatty.id, theirs]) {
        // It keeps to its window, and to what it knows.
        const room = () => WINDOW + peer.seen(id).credit;
        for (let sent = 0; !peer.farewell; await sleep(0)) {
          if (sent + 9000 > room() || peer.seen(id).closes.length > 0) break;
          sent += 9000;
          await peer.send({ id, flags: FLAG.DATA, payload: new Uint8Array(9000) });
        }
      }
      // What was on its way when the farewell came.
      await peer.until(() => peer.farewell, "the farewell");
      for (let i = 0; i < 50; i++) {
        await peer.send({ id: chatty.id, flags: FLAG.DATA, payload: new Uint8Array(1000) });
        await peer.send({ id: theirs, flags: FLAG.WINDOW_UPDATE, length: 1000 });
      }
    };
    await Promise.all([talk(), done]);
    await assertWhole(meeting, payloads);
    assertEquals(mux.stats().strayFrames, 0);
  });

  check(`a peer that closes as soon as it hears of the end has it all: ${role.name}`, async () => {
    for (let run = 0; run < 10; run++) {
      const meeting = await meet(role);
      const { mux, peer, far } = meeting;
      const gone = peer.until(() => peer.farewell, "the farewell").then(() => far.close());
      const { payloads, done } = await writeAndClose(mux, 10, 20_000);
      await Promise.all([done, gone]);
      await assertWhole(meeting, payloads);
    }
  });

  check(`streams of the peer that nobody accepted are closed too: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    const first = role === client ? 1 : 0;
    for (const id of [first, first + 2]) {
      await peer.send({ id, flags: FLAG.OPEN_STREAM });
      await peer.send({ id, flags: FLAG.DATA, payload: new Uint8Array(WINDOW / 2) });
    }
    while (mux.stats().bytesReceived < WINDOW) await sleep(1);
    await mux.close();
    for (const id of [first, first + 2]) {
      await peer.until(() => peer.seen(id).closes.length > 0 || peer.ended, "the ends");
      assertEquals(peer.seen(id).closes, ["CloseStream"]);
    }
    await assertWhole(meeting, new Map());
  });
}

check("a farewell of both sides at once is in order, and the peer's is not answered", async () => {
  for (let run = 0; run < 20; run++) {
    const { mux, peer, far } = await meet(client);
    const stream = await mux.openStream();
    await stream.write(utf8("x"));
    await peer.until(() => peer.seen(0).bytes === 1, "a byte");
    const theirs = peer.send({ id: 0, flags: FLAG.CLOSE_MUX });
    if (run % 2 === 0) await sleep(run / 2);
    await Promise.all([mux.close(), mux.closed, theirs]);
    await peer.end();
    await far.close();
    assert(peer.frames.filter(({ flags }) => flags === FLAG.CLOSE_MUX).length <= 1);
    assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  }
});

check("a peer that dies meanwhile is told as such", async () => {
  const { mux, peer, far } = await meet(client);
  peer.granting = false;
  const stream = await mux.openStream();
  const written = codeOf(stream.write(new Uint8Array(2 * WINDOW)));
  const closing = codeOf(mux.close());
  await peer.until(() => peer.seen(0).bytes === WINDOW, "a full window");
  far.abort();
  assertEquals([await closing, await codeOf(mux.closed)], ["truncated", "truncated"]);
  assertEquals([await written, await codeOf(stream.closed)], ["truncated", "truncated"]);
});

check("a peer that never ends its transport is waited for so long, and then told", async () => {
  const [near, far] = connPair({ lingerMs: 20 });
  const mux = client(near, { psk: PSK, closeTimeoutMs: 100 });
  await mux.openStream();
  const ended = (async () => {
    while (await far.read() !== null);
  })();
  assertEquals(await codeOf(mux.close()), "timeout");
  assertEquals(await codeOf(mux.closed), "timeout");
  await ended.catch(() => {});
  far.abort();
});

check("after any end no timer is left", async () => {
  const ends: ((near: Mux, far: Mux) => unknown)[] = [
    (near, far) => closeBoth(near, far),
    (near) => near.close(),
    (near) => near.abort(),
  ];
  for (const end of ends) {
    const left = await timersAfter(async () => {
      const [near, far] = muxPair();
      const [a, b] = await streamPair(near, far);
      const [c] = await streamPair(far, near);
      for (const stream of [a, b, c]) stream.setDeadline(1e7);
      await a.write(new Uint8Array(WINDOW));
      const full = a.write(utf8("x")).catch(() => {});
      const closing = a.close().catch(() => {});
      await c.closeWrite();
      await b.closeRead();
      await Promise.all([full, closing]);
      await end(near, far);
      await Promise.allSettled([near.closed, far.closed]);
      await sleep(20);
    });
    assertEquals(left, 0);
  }
});

check("nothing is sent behind the farewell", async () => {
  const [near, far] = connPair({ lingerMs: 200 });
  const mux = client(near, { psk: PSK });
  const stream = await mux.openStream();
  const written = stream.write(new Uint8Array(131_072));
  await sleep(5);
  const closed = mux.close();
  await sleep(5);
  const nonce = crypto.getRandomValues(new Uint8Array(24));
  await far.write(sealFrame({ id: 1, flags: FLAG.OPEN_STREAM }, deriveKey(PSK), nonce));
  await sleep(20);
  const peer = new Peer(far, deriveKey(PSK));
  await Promise.all([written, closed, peer.end()]);
  assertEquals(peer.frames.map(({ flags }) => flags).slice(-2), [
    FLAG.CLOSE_STREAM,
    FLAG.CLOSE_MUX,
  ]);
  assertEquals(peer.frames.at(-2)!.id, 0);
});
