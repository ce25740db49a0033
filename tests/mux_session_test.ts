/** A session as a whole: opening, accepting, limits, time, and its end. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { inspect } from "node:util";
import { connPair } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  dial,
  FLAG,
  listen,
  type MuxStream,
  sealFrame,
  server,
} from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { closeBoth, codeOf, muxPair, PSK, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

const check = (title: string, body: () => Promise<void>) =>
  test(`mux: ${title}`, { timeout: 60_000 }, async () => {
    assertEquals(await unhandledDuring(body), []);
  });

check("streams are opened from both sides at once, with numbers of their own", async () => {
  const [near, far] = muxPair();
  const opened = await Promise.all([
    ...[near.openStream(), near.openStream(), far.openStream(), far.openStream()],
  ]);
  assertEquals(opened.map(({ id }) => id), [0, 2, 1, 3]);
  const accepted = await Promise.all([
    ...[far.acceptStream(), far.acceptStream(), near.acceptStream(), near.acceptStream()],
  ]);
  assertEquals(accepted.map(({ id }) => id), [0, 2, 1, 3]);
  await Promise.all(opened.map((stream) => stream.write(utf8(`${stream.id}`))));
  for (const stream of accepted) assertEquals(text(await stream.read()), `${stream.id}`);
  assertEquals(near.streams.map(({ id }) => id), [0, 2, 1, 3]);
  assertStrictEquals(near.streams[0], opened[0]);
  await closeBoth(near, far);
  assertEquals([near.streams, far.streams], [[], []]);
});

check("iterating yields the streams of the peer, and ends with the session", async () => {
  const [near, far] = muxPair();
  const seen: (string | null)[] = [];
  const iterating = (async () => {
    for await (const stream of far) seen.push(text(await stream.read()));
  })();
  for (const word of ["a", "b"]) {
    const stream = await near.openStream();
    await stream.write(utf8(word));
    await stream.close();
  }
  await near.close();
  await iterating;
  assertEquals(seen, ["a", "b"]);
});

check("close() loses nothing: 40 streams with a full window each, closed at once", async () => {
  const payload = pattern(131072, 5);
  for (let run = 0; run < 100; run++) {
    const [near, far] = muxPair();
    const streams = await Promise.all(Array.from({ length: 40 }, () => near.openStream()));
    const written = streams.map((stream) => stream.write(payload));
    for (const stream of streams) stream.close();
    const closed = near.close();
    const received: Promise<Uint8Array>[] = [];
    for await (const stream of far) received.push(readAll(stream));
    for (const bytes of await Promise.all(received)) assertEquals(bytes, payload);
    assertEquals(received.length, 40);
    await Promise.all([...written, closed, far.closed]);
  }
});

check("close() waits for a peer that is slow to read", async () => {
  const [near, far] = muxPair();
  const payload = pattern(600_000, 1);
  const stream = await near.openStream();
  const written = stream.write(payload);
  const closed = near.close();
  const accepted = await far.acceptStream();
  await sleep(20);
  assertEquals(await readAll(accepted), payload);
  await Promise.all([written, closed]);
});

check("close() gives up a peer that does not read", async () => {
  const [near, far] = muxPair({ closeTimeoutMs: 50 });
  const stream = await near.openStream();
  const written = codeOf(stream.write(new Uint8Array(200_000)));
  assertEquals(await codeOf(near.close()), "timeout");
  assertEquals(await codeOf(near.closed), "timeout");
  assertEquals(await written, "timeout");
  assertEquals(await codeOf(far.closed), "truncated");
});

check("what came before the peer's farewell is accepted and read after it", async () => {
  const [near, far] = muxPair();
  const open = await near.openStream();
  await open.write(utf8("open"));
  const closed = await near.openStream();
  await closed.write(utf8("closed"));
  await closed.close();
  const waiting = far.openStream().then((stream) => stream.read());
  await near.close();
  await far.closed;
  assertEquals(await codeOf(far.openStream()), "peer-closed");
  assertEquals(await waiting, null);
  const first = await far.acceptStream();
  const second = await far.acceptStream();
  assertEquals(text(await first.read()), "open");
  // The farewell closed it in order.
  assertEquals(await first.read(), null);
  assertEquals(text(await second.read()), "closed");
  assertEquals(await second.read(), null);
  assertEquals(await codeOf(far.acceptStream()), "peer-closed");
  assertEquals(await codeOf(near.openStream()), "closed");
  assertEquals(await codeOf(near.acceptStream()), "closed");
});

check("both sides may close at the same time, again, and by `using`", async () => {
  const [near, far] = muxPair();
  await streamPair(near, far);
  await Promise.all([near.close(), far.close(), near.close()]);
  await near[Symbol.asyncDispose]();
  await Promise.all([near.closed, far.closed]);
  near.abort();
  await near.closed;
});

check("abort() is a break to the peer, and everybody who waits is told", async () => {
  const [near, far] = muxPair();
  const [a, b] = await streamPair(near, far);
  await b.write(utf8("before"));
  await b.write(new Uint8Array(0));
  assertEquals(text(await a.read()), "before");
  await a.write(utf8("last words"));
  const waiting = [codeOf(a.read()), codeOf(a.write(new Uint8Array(1_000_000)))];
  const accepting = codeOf(near.acceptStream());
  await sleep(5);
  near.abort(new Error("why"));
  assertEquals(await Promise.all(waiting), ["closed", "closed"]);
  assertEquals(await accepting, "closed");
  assertEquals(await codeOf(near.closed), "closed");
  assertEquals(await codeOf(a.closed), "closed");
  assertEquals(await codeOf(far.closed), "truncated");
  // What came before the break is read before it.
  assertEquals(text(await b.read())?.startsWith("last words"), true);
  assertEquals(await codeOf(readAll(b)), "truncated");
  assertEquals(await codeOf(far.acceptStream()), "truncated");
});

check("another psk is auth-failed for the server, and an end for the client", async () => {
  const [near, far] = muxPair({ psk: "one" }, { psk: "two" });
  assertEquals(await codeOf(far.closed), "auth-failed");
  assertEquals(await codeOf(near.closed), "truncated");
});

check("a server tells nothing before it knows the client", async () => {
  const [ours, theirs] = connPair();
  const mux = server(theirs, { psk: PSK });
  const read = ours.read();
  assertEquals(await Promise.race([read, sleep(30).then(() => "silence")]), "silence");
  ours.abort();
  await codeOf(read);
  assertEquals(await codeOf(mux.closed), "truncated");
});

check(
  "a peer may count as networks do, or begin elsewhere, or take nonces of any other kind",
  async () => {
    const styles: readonly ((nonce: DataView, i: number) => void)[] = [
      (nonce, i) => nonce.setBigUint64(16, BigInt(i)),
      (nonce, i) => nonce.setBigUint64(16, 2n ** 32n - 2n + BigInt(i), true),
      (nonce, i) => nonce.setUint32(0, i, true),
      (nonce, i) => nonce.setFloat64(8, Math.random() + i),
    ];
    for (const style of styles) {
      const [ours, theirs] = connPair();
      const mux = server(theirs, { psk: PSK });
      for (let i = 0; i < 5; i++) {
        const nonce = new Uint8Array(24);
        style(new DataView(nonce.buffer), i);
        await ours.write(sealFrame({ id: 2 * i, flags: FLAG.OPEN_STREAM }, deriveKey(PSK), nonce));
        assertEquals((await mux.acceptStream()).id, 2 * i);
      }
      mux.abort();
      ours.abort();
    }
  },
);

check("two clients joined by mistake are a protocol error", async () => {
  const [a, b] = connPair();
  const sessions = [client(a, { psk: PSK }), client(b, { psk: PSK })];
  sessions.map((session) => session.openStream());
  const codes = await Promise.all(sessions.map((session) => codeOf(session.closed)));
  assert(codes.includes("protocol"), codes.join());
});

check("opens that nobody accepts wait at home, and tell so", async () => {
  const [near, far] = muxPair({ maxPendingOpens: 3 });
  const opening = Array.from({ length: 5 }, () => near.openStream());
  await Promise.all(opening.slice(0, 3));
  await sleep(10);
  assertEquals(near.stats().pendingOpens, 3);
  assertEquals(near.stats().waitingOpens, 2);
  const stop = new AbortController();
  const given = codeOf(near.openStream({ signal: stop.signal }));
  stop.abort();
  assertEquals(await given, "aborted");
  const accepted = await far.acceptStream();
  await opening[3];
  assertEquals(near.stats().waitingOpens, 1);
  assertEquals(accepted.id, 0);
  // One that is closed waits for its acceptor all the same, who has a limit too.
  await (await opening[1]!).close();
  await sleep(10);
  assertEquals(near.stats().waitingOpens, 1);
  await far.acceptStream();
  await opening[4];
  await closeBoth(near, far);
});

check("300 unaccepted streams stall nobody", async () => {
  const [near, far] = muxPair({ maxPendingOpens: 1000 });
  const [a, b] = await streamPair(near, far);
  const opened = await Promise.all(Array.from({ length: 300 }, () => near.openStream()));
  await a.write(utf8("still here"));
  assertEquals(text(await b.read()), "still here");
  assertEquals(far.stats().pendingAccepts, 300);
  for (const stream of opened) assertEquals((await far.acceptStream()).id, stream.id);
  await closeBoth(near, far);
});

check("more than maxPendingAccepts streams are refused, and then it works again", async () => {
  const [near, far] = muxPair({ maxPendingAccepts: 2 });
  const streams = await Promise.all(Array.from({ length: 3 }, () => near.openStream()));
  assertEquals(await streams[2]!.read(), null);
  assertEquals(await codeOf(streams[2]!.write(utf8("x"))), "peer-closed-stream");
  assertEquals(far.stats().refusedStreams, 1);
  await far.acceptStream();
  await far.acceptStream();
  const [a, b] = await streamPair(near, far);
  await a.write(utf8("again"));
  assertEquals(text(await b.read()), "again");
  await closeBoth(near, far);
});

check("more than maxStreams wait on our side and are refused on the other", async () => {
  const [near, far] = muxPair({ maxStreams: 2 }, { maxStreams: 1 });
  const [a] = await Promise.all([near.openStream(), near.openStream()]);
  const third = near.openStream();
  await sleep(10);
  // The second was refused: there is room for the third, which is refused as well.
  assertEquals(far.stats().streams, 1);
  assertEquals(far.stats().refusedStreams, 2);
  await third;
  await a.close();
  await closeBoth(near, far);
});

check("a thousand streams, both ways at once", async () => {
  const [near, far] = muxPair();
  const payload = pattern(20_000, 3);
  const echo = async (stream: MuxStream) => {
    const writing: Promise<void>[] = [];
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
      writing.push(stream.write(chunk));
    }
    await Promise.all(writing);
    await stream.close();
  };
  const echoing = (async () => {
    const all: Promise<void>[] = [];
    for await (const stream of far) all.push(echo(stream));
    await Promise.all(all);
  })();
  await Promise.all(Array.from({ length: 1000 }, async () => {
    const stream = await near.openStream();
    const written = stream.write(payload).then(() => stream.closeWrite());
    assertEquals(await readAll(stream), payload);
    await written;
  }));
  assertEquals([near.stats().streams, far.stats().streams], [0, 0]);
  await closeBoth(near, far);
  await echoing;
});

check("many small writes in one turn are few writes of the transport", async () => {
  const [near, far] = muxPair();
  const [a, b] = await streamPair(near, far);
  const before = near.stats();
  await Promise.all(Array.from({ length: 1000 }, (_, i) => a.write(utf8(`${i},`))));
  const { transportWrites, framesSent } = near.stats();
  assert(transportWrites - before.transportWrites <= 3, `${transportWrites}`);
  assert(framesSent - before.framesSent <= 3);
  await a.close();
  assertEquals(text(await readAll(b))?.split(",").length, 1001);
  await closeBoth(near, far);
});

check("no transport write is empty, and a keepalive goes out when nothing else does", async () => {
  const [near, far] = muxPair({ keepaliveMs: 20 });
  await near.openStream();
  await far.acceptStream();
  const before = far.stats().framesReceived;
  await sleep(120);
  assert(far.stats().framesReceived >= before + 2);
  await closeBoth(near, far);
});

check("a silent peer is given up after idleTimeoutMs, and one that speaks is not", async () => {
  const [ours, theirs] = connPair();
  const mux = client(ours, { psk: PSK, idleTimeoutMs: 50 });
  assertEquals(await codeOf(mux.closed), "timeout");
  theirs.abort();
  const [near, far] = muxPair({ idleTimeoutMs: 150, keepaliveMs: 30 });
  await sleep(400);
  await streamPair(near, far);
  await closeBoth(near, far);
});

check("half a first frame does not hold a server for ever", async () => {
  const [ours, theirs] = connPair();
  const mux = server(theirs, { psk: PSK, handshakeTimeoutMs: 50 });
  await ours.write(new Uint8Array(10));
  assertEquals(await codeOf(mux.closed), "timeout");
  ours.abort();
});

check("signals end openStream() and acceptStream(), before and while", async () => {
  const [near, far] = muxPair();
  assertEquals(await codeOf(near.openStream({ signal: AbortSignal.abort() })), "aborted");
  assertEquals(await codeOf(near.acceptStream({ signal: AbortSignal.abort() })), "aborted");
  const waits = near.acceptStream({ signal: AbortSignal.timeout(10) });
  const [first] = await Promise.all([codeOf(waits), sleep(30)]);
  assertEquals(first, "timeout");
  const opened = await far.openStream();
  assertEquals((await near.acceptStream()).id, opened.id, "the wait that ended took none");
  await closeBoth(near, far);
});

check(
  "it runs over any pair of streams, over a stream of its own, and twice in one process",
  async () => {
    const there = new TransformStream<Uint8Array, Uint8Array>();
    const back = new TransformStream<Uint8Array, Uint8Array>();
    const near = client({ readable: back.readable, writable: there.writable }, { psk: PSK });
    const far = server({ readable: there.readable, writable: back.writable }, { psk: PSK });
    const [outer, outerFar] = await streamPair(near, far);
    const inner = client(outer, { psk: "inner" });
    const innerFar = server(outerFar, { psk: "inner" });
    const [a, b] = await streamPair(inner, innerFar);
    await a.write(pattern(300_000, 2).slice(0, 100_000));
    await a.close();
    assertEquals(await readAll(b), pattern(100_000, 2));
    await closeBoth(inner, innerFar);
    await closeBoth(near, far);
  },
);

check("dial() and listen() over TCP", async () => {
  const listener = await listen("127.0.0.1:0", { psk: PSK });
  const near = await dial(listener.addr, { psk: PSK });
  const far = await listener.accept();
  assertEquals(near.remote, listener.addr);
  const [a, b] = await streamPair(near, far);
  assertEquals(a.remote, near.remote);
  const payload = pattern(1_000_000, 8);
  const written = a.write(payload).then(() => a.close());
  assertEquals(await readAll(b), payload);
  await written;
  await closeBoth(near, far);
  await listener.close();
  assertEquals(await codeOf(dial(listener.addr, { psk: PSK })), "refused");
  assertEquals(await codeOf(listener.accept()), "closed");
});

test("mux: limits that are none are RangeErrors, and a psk that is none a TypeError", async () => {
  const [conn] = connPair();
  for (const name of ["maxStreams", "maxPendingOpens", "keepaliveMs", "closeTimeoutMs"]) {
    for (const value of [0, -1, NaN]) {
      assertThrows(() => client(conn, { psk: PSK, [name]: value }), RangeError, name);
    }
  }
  assertThrows(() => client(conn, { psk: PSK, idleTimeoutMs: Infinity }), RangeError);
  assertThrows(() => client(conn, { psk: Object(7) }), TypeError);
  assertEquals(
    await codeOf(listen("127.0.0.1:0", { psk: PSK, maxStreams: 0 })),
    "RangeError: maxStreams is 0, expected more than 0",
  );
  conn.abort();
});

check("no error, inspection or count shows the key", async () => {
  const [near, far] = muxPair();
  const [stream] = await streamPair(near, far);
  const secrets = [PSK, [...deriveKey(PSK).subarray(0, 4)].join(", ")];
  near.abort();
  const [error] = await Promise.allSettled([near.closed]);
  const shown = inspect([near, stream, error, near.stats()], { depth: 12, showHidden: true });
  for (const secret of secrets) assert(!shown.includes(secret));
  await codeOf(far.closed);
});
