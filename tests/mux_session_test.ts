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
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
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
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

/** On both protocols. */
function check(title: string, body: (speaks: Speaks) => Promise<void>): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux}: ${title}`, { timeout: 60_000 }, async () => {
      assertEquals(await unhandledDuring(() => body(speaks)), []);
    });
  }
}

check("streams are opened from both sides at once, with numbers of their own", async (speaks) => {
  const [near, far] = muxPair(speaks);
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

check("iterating yields the streams of the peer, and ends with the session", async (speaks) => {
  const [near, far] = muxPair(speaks);
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

check(
  "close() loses nothing: 40 streams with a full window each, closed at once",
  async (speaks) => {
    const payload = pattern(131072, 5);
    for (let run = 0; run < 100; run++) {
      const [near, far] = muxPair(speaks);
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
  },
);

check("close() waits for a peer that is slow to read", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const payload = pattern(600_000, 1);
  const stream = await near.openStream();
  const written = stream.write(payload);
  const closed = near.close();
  const accepted = await far.acceptStream();
  await sleep(20);
  assertEquals(await readAll(accepted), payload);
  await Promise.all([written, closed]);
});

check("close() gives up a peer that does not read", async (speaks) => {
  const [near, far] = muxPair({ ...speaks, closeTimeoutMs: 50 });
  const stream = await near.openStream();
  const written = codeOf(stream.write(new Uint8Array(200_000)));
  assertEquals(await codeOf(near.close()), "timeout");
  assertEquals(await codeOf(near.closed), "timeout");
  assertEquals(await written, "timeout");
  // V2 has a last word for it.
  assertEquals(await codeOf(far.closed), { v1: "truncated", v2: "timeout" }[speaks.protocol]);
});

check("what came before the peer's farewell is accepted and read after it", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const open = await near.openStream();
  await open.write(utf8("open"));
  const closed = await near.openStream();
  await closed.write(utf8("closed"));
  await closed.close();
  await far.ready;
  const late = await far.openStream();
  const waiting = late.read();
  waiting.catch(() => {});
  await near.close();
  await far.closed;
  assertEquals(await codeOf(far.openStream()), "peer-closed");
  // It crossed the farewell, and nobody has seen it: v2 tells that from an end.
  if (speaks.protocol === "v1") assertEquals(await waiting, null);
  else assertEquals(await codeOf(waiting), "going-away");
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

check("both sides may close at the same time, again, and by `using`", async (speaks) => {
  const [near, far] = muxPair(speaks);
  await streamPair(near, far);
  await Promise.all([near.close(), far.close(), near.close()]);
  await near[Symbol.asyncDispose]();
  await Promise.all([near.closed, far.closed]);
  near.abort();
  await near.closed;
});

check("abort() is a break to the peer, and everybody who waits is told", async (speaks) => {
  const [near, far] = muxPair(speaks);
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

check("another psk is auth-failed for the server, and an end for the client", async (speaks) => {
  const [near, far] = muxPair({ ...speaks, psk: "one" }, { ...speaks, psk: "two" });
  assertEquals(await codeOf(far.closed), "auth-failed");
  // Before the handshake is done an end of the transport means that.
  assertEquals(await codeOf(near.closed), { v1: "truncated", v2: "auth-failed" }[speaks.protocol]);
});

check("a server tells nothing before it knows the client", async (speaks) => {
  const [ours, theirs] = connPair();
  const mux = server(theirs, { psk: PSK, ...speaks });
  const read = ours.read();
  assertEquals(await Promise.race([read, sleep(30).then(() => "silence")]), "silence");
  ours.abort();
  await codeOf(read);
  assertEquals(await codeOf(mux.closed), "truncated");
});

test(
  "mux: a peer may count as networks do, or begin elsewhere, or take nonces of any other kind",
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

check("two clients joined by mistake are a protocol error", async (speaks) => {
  const [a, b] = connPair();
  const sessions = [client(a, { psk: PSK, ...speaks }), client(b, { psk: PSK, ...speaks })];
  for (const session of sessions) session.openStream().catch(() => {});
  const codes = await Promise.all(sessions.map((session) => codeOf(session.closed)));
  assert(codes.includes("protocol"), codes.join());
});

check("opens that nobody accepts wait at home, and tell so", async (speaks) => {
  // It is we who count them, or the peer who says how many it takes.
  const { protocol } = speaks;
  const limit = { v1: { maxPendingOpens: 3 }, v2: { maxPendingAccepts: 3 } }[protocol];
  const [near, far] = muxPair({ ...speaks, ...limit });
  const opening = Array.from({ length: 5 }, () => near.openStream());
  await Promise.all(opening.slice(0, 3));
  await sleep(10);
  assertEquals(near.stats().pendingOpens, { v1: 3, v2: 0 }[protocol]);
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

check("300 unaccepted streams stall nobody", async (speaks) => {
  const [near, far] = muxPair({ ...speaks, maxPendingOpens: 1000 });
  const [a, b] = await streamPair(near, far);
  const opened = await Promise.all(Array.from({ length: 300 }, () => near.openStream()));
  await a.write(utf8("still here"));
  assertEquals(text(await b.read()), "still here");
  assertEquals(far.stats().pendingAccepts, 300);
  for (const stream of opened) assertEquals((await far.acceptStream()).id, stream.id);
  await closeBoth(near, far);
});

check(
  "more than maxPendingAccepts streams are refused, and then it works again",
  async (speaks) => {
    const [near, far] = muxPair({ ...speaks, maxPendingAccepts: 2 });
    const opening = Array.from({ length: 3 }, () => near.openStream());
    await Promise.all(opening.slice(0, 2));
    if (speaks.protocol === "v1") {
      const third = await opening[2]!;
      assertEquals(await third.read(), null);
      assertEquals(await codeOf(third.write(utf8("x"))), "peer-closed-stream");
      assertEquals(far.stats().refusedStreams, 1);
    } else {
      // The peer has said how many it takes: the surplus one waits, and nothing is refused.
      await sleep(10);
      assertEquals([near.stats().waitingOpens, far.stats().pendingAccepts], [1, 2]);
    }
    await far.acceptStream();
    await far.acceptStream();
    if (speaks.protocol === "v2") {
      assertEquals((await far.acceptStream()).id, (await opening[2]!).id);
      assertEquals([near.stats().waitingOpens, far.stats().refusedStreams], [0, 0]);
    }
    const [a, b] = await streamPair(near, far);
    await a.write(utf8("again"));
    assertEquals(text(await b.read()), "again");
    await closeBoth(near, far);
  },
);

check("more than maxStreams wait on our side and are refused on the other", async (speaks) => {
  const [near, far] = muxPair({ ...speaks, maxStreams: 2 }, { ...speaks, maxStreams: 1 });
  const opening = Array.from({ length: 3 }, () => near.openStream());
  const a = await opening[0]!;
  await sleep(10);
  assertEquals(far.stats().streams, 1);
  if (speaks.protocol === "v1") {
    // The second was refused: there is room for the third, which is refused as well.
    assertEquals(far.stats().refusedStreams, 2);
    await Promise.all(opening);
    await a.close();
  } else {
    // The peer takes one at a time.
    for (const [i, stream] of opening.entries()) {
      await (await stream).close();
      await far.acceptStream();
      await sleep(5);
      const { waitingOpens } = near.stats();
      assertEquals([waitingOpens, far.stats().refusedStreams], [Math.max(0, 1 - i), 0]);
    }
  }
  await closeBoth(near, far);
});

check("a thousand streams, both ways at once", async (speaks) => {
  const [near, far] = muxPair(speaks);
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

check("many small writes in one turn are few writes of the transport", async (speaks) => {
  const [near, far] = muxPair(speaks);
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

check(
  "no transport write is empty, and a keepalive goes out when nothing else does",
  async (speaks) => {
    const [near, far] = muxPair({ ...speaks, keepaliveMs: 20 });
    await near.openStream();
    await far.acceptStream();
    const before = far.stats().framesReceived;
    await sleep(120);
    assert(far.stats().framesReceived >= before + 2);
    await closeBoth(near, far);
  },
);

check(
  "a silent peer is given up after idleTimeoutMs, and one that speaks is not",
  async (speaks) => {
    const [ours, theirs] = connPair();
    // One that says nothing at all has not shaken hands.
    const limit = { v1: { idleTimeoutMs: 50 }, v2: { handshakeTimeoutMs: 50 } }[speaks.protocol];
    const mux = client(ours, { psk: PSK, ...speaks, ...limit });
    assertEquals(await codeOf(mux.closed), "timeout");
    theirs.abort();
    const [near, far] = muxPair({ ...speaks, idleTimeoutMs: 150, keepaliveMs: 30 });
    await sleep(400);
    await streamPair(near, far);
    await closeBoth(near, far);
  },
);

check("half a first frame does not hold a server for ever", async (speaks) => {
  const hello = Uint8Array.of(...utf8("MUX2"), 1, 1, 0xff, 0xff);
  const halves = { v1: [10], v2: [1, 7, 8, 9, 20] }[speaks.protocol];
  for (const half of halves) {
    const [ours, theirs] = connPair();
    const mux = server(theirs, { psk: PSK, ...speaks, suites: undefined, handshakeTimeoutMs: 50 });
    const bytes = new Uint8Array(half);
    if (speaks.protocol === "v2") bytes.set(hello.subarray(0, half));
    if (half > hello.length) bytes[9] = 100;
    await ours.write(bytes);
    assertEquals(await codeOf(mux.closed), "timeout");
    ours.abort();
  }
});

check("signals end openStream() and acceptStream(), before and while", async (speaks) => {
  const [near, far] = muxPair(speaks);
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
  async (speaks) => {
    const there = new TransformStream<Uint8Array, Uint8Array>();
    const back = new TransformStream<Uint8Array, Uint8Array>();
    const options = { psk: PSK, ...speaks };
    const near = client({ readable: back.readable, writable: there.writable }, options);
    const far = server({ readable: there.readable, writable: back.writable }, options);
    const [outer, outerFar] = await streamPair(near, far);
    const inner = client(outer, { ...speaks, psk: "inner" });
    const innerFar = server(outerFar, { ...speaks, psk: "inner" });
    const [a, b] = await streamPair(inner, innerFar);
    await a.write(pattern(300_000, 2).slice(0, 100_000));
    await a.close();
    assertEquals(await readAll(b), pattern(100_000, 2));
    await closeBoth(inner, innerFar);
    await closeBoth(near, far);
  },
);

check("dial() and listen() over TCP", async (speaks) => {
  const options = { psk: PSK, ...speaks };
  const listener = await listen("127.0.0.1:0", options);
  const near = await dial(listener.addr, options);
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
  assertEquals(await codeOf(dial(listener.addr, options)), "refused");
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

check("no error, inspection or count shows the key", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [stream] = await streamPair(near, far);
  const key = { v1: deriveKey(PSK), v2: deriveNoisePsk(utf8(PSK)) }[speaks.protocol];
  const secrets = [PSK, [...key.subarray(0, 4)].join(", ")];
  near.abort();
  const [error] = await Promise.allSettled([near.closed]);
  const shown = inspect([near, stream, error, near.stats()], { depth: 12, showHidden: true });
  for (const secret of secrets) assert(!shown.includes(secret));
  await codeOf(far.closed);
});
