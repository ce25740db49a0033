/** What a peer of v2 sees of a session frame by frame, also when it takes nothing. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair, wrapConn } from "@trunkline/sockets/auto";
import { client, type Mux, type MuxOptions, type MuxStream, server } from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { codeOf, PSK, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { control, data, meet, type MeetOptions, type Peer, TYPE } from "./mux2_scenario_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;

/** With a client and its peer. */
function check(
  title: string,
  body: (mux: Mux, peer: Peer) => Promise<void>,
  options: MeetOptions = {},
) {
  test(`mux v2 scenario: ${title}`, { timeout: 60_000 }, async () => {
    const unhandled = await unhandledDuring(async () => {
      const { mux, peer } = await meet(client, options);
      await body(mux, peer);
      mux.abort();
      await mux.closed.catch(() => {});
      assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      peer.conn.abort();
    });
    assertEquals(unhandled, []);
  });
}

/** The types of the frames on a stream, but for grants. */
const types = (peer: Peer, { id }: MuxStream): number[] =>
  peer.frames.filter((frame) => frame.id === id && frame.type < TYPE.WINDOW).map(({ type }) =>
    type
  );

/** Waits until the session has taken what was sent to it. */
async function taken(peer: Peer): Promise<void> {
  const pongs = peer.count(TYPE.PONG);
  peer.send(control(TYPE.PING, 0, 1));
  await peer.until(() => peer.count(TYPE.PONG) > pongs, "a pong");
}

const three = (mux: Mux) => Promise.all([mux.openStream(), mux.openStream(), mux.openStream()]);

check("an end by the peer makes us send none of that kind", async (mux, peer) => {
  const [half, gone, unread] = await three(mux);
  const reset = await mux.openStream();
  peer.send(
    ...[control(TYPE.FIN, half.id), control(TYPE.CLOSE, gone.id)],
    ...[control(TYPE.STOP, unread.id, 5), control(TYPE.RESET, reset.id, 6)],
  );
  await taken(peer);
  for (const stream of [gone, reset]) {
    await stream.closeWrite();
    await stream.closeRead();
    await stream.close();
    stream.abort();
    stream.reset(9);
    stream.stop(9);
  }
  await unread.closeWrite();
  await half.closeRead();
  await taken(peer);
  assertEquals(types(peer, gone), [TYPE.OPEN]);
  assertEquals(types(peer, reset), [TYPE.OPEN]);
  assertEquals(types(peer, unread), [TYPE.OPEN]);
  assertEquals(types(peer, half), [TYPE.OPEN]);
});

check("a stream that never sent anything sends its open and its end", async (mux, peer) => {
  const [closed, aborted, reset] = await three(mux);
  await closed.close();
  aborted.abort();
  reset.reset(0xffffffff);
  await mux.close();
  await peer.end();
  assertEquals(types(peer, closed), [TYPE.OPEN, TYPE.CLOSE]);
  assertEquals(types(peer, aborted), [TYPE.OPEN, TYPE.RESET]);
  assertEquals(types(peer, reset), [TYPE.OPEN, TYPE.RESET]);
  const codes = peer.frames.filter(({ type }) => type === TYPE.RESET).map(({ first }) => first);
  assertEquals(codes, [0, 0xffffffff]);
  assertEquals(peer.frames.at(-1)!.type, TYPE.END);
});

check("what is read is granted again, exactly, half a window at a time", async (mux, peer) => {
  const stream = await mux.openStream();
  for (let i = 0; i < 4; i++) peer.send(data(stream.id, new Uint8Array(WINDOW / 4)));
  const reader = stream.readable.getReader({ mode: "byob" });
  let read = 0;
  let granted = 0;
  for (const size of [10_000, 20_000, 35_535, 1, 30_000, 35_536]) {
    for (let left = size; left > 0;) {
      const { value } = await reader.read(new Uint8Array(left));
      left -= value!.length;
      read += value!.length;
    }
    await taken(peer);
    if (read - granted >= WINDOW / 2) granted = read;
    assertEquals(peer.seen(stream.id).credit, granted, `after ${read} bytes`);
  }
  assertEquals([read, granted], [WINDOW, WINDOW]);
  assertEquals(peer.count(TYPE.WINDOW), 2);
  // It does not grow.
}, { maxStreamWindowBytes: WINDOW });

check("reading goes on while all of our writes wait for the peer's window", async (mux, peer) => {
  peer.granting = false;
  const streams = await Promise.all(Array.from({ length: 20 }, () => mux.openStream()));
  const writing = streams.map((stream) => stream.write(new Uint8Array(2 * WINDOW)));
  for (const { id } of streams) await peer.until(() => peer.seen(id).bytes === WINDOW, "windows");
  const mine = new Uint8Array(60_000).fill(7);
  for (let round = 0; round < 3; round++) {
    for (const { id } of streams) peer.send(data(id, mine));
    for (const stream of streams) {
      for (let left = mine.length; left > 0;) left -= (await stream.read())!.length;
    }
  }
  peer.send(...streams.map(({ id }) => control(TYPE.WINDOW, id, WINDOW)));
  await Promise.all(writing);
  for (const stream of streams) assertEquals(stream.queued, 0);
});

/** Writes more than a transport takes that nobody reads from. */
async function stuff(mux: Mux): Promise<{
  readonly streams: readonly MuxStream[];
  readonly writing: readonly Promise<string>[];
}> {
  const streams = await Promise.all(Array.from({ length: 30 }, () => mux.openStream()));
  const writing = streams.map((stream) => codeOf(stream.write(new Uint8Array(WINDOW + 1))));
  await sleep(20);
  assert(mux.stats().bytesSent < 30 * WINDOW);
  return { streams, writing };
}

check("pings while the transport takes nothing: reading goes on", async (mux, peer) => {
  const { streams, writing } = await stuff(mux);
  const ping = control(TYPE.PING, 0, 3);
  for (let i = 0; i < 50; i++) await peer.send(...Array(100).fill(ping));
  await peer.send(data(streams[0]!.id, utf8("read me")));
  assertEquals(text(await streams[0]!.read()), "read me");
  // All are answered, once it reads.
  peer.granting = false;
  peer.read();
  await peer.until(() => peer.count(TYPE.PONG) === 5000, "the pongs");
  mux.abort();
  assertEquals(new Set(await Promise.all(writing)), new Set(["closed"]));
}, { reading: false });

check("pings of a peer that never reads the answers are limited", async (mux, peer) => {
  const { writing } = await stuff(mux);
  const ping = control(TYPE.PING, 0, 3);
  const flood = async () => {
    for (let i = 0; i < 60; i++) await peer.send(...Array(2000).fill(ping));
  };
  flood();
  assertEquals(await codeOf(mux.closed), "limit");
  assertEquals(new Set(await Promise.all(writing)), new Set(["limit"]));
}, { reading: false });

check(
  "a write on a transport that takes nothing ends by its deadline and by its signal",
  async (mux) => {
    const stop = new AbortController();
    const streams = await Promise.all(Array.from({ length: 30 }, () => mux.openStream()));
    const writing = streams.map((stream, i) => {
      const options = i % 2 === 0 ? {} : { signal: stop.signal };
      return codeOf(stream.write(new Uint8Array(2 * WINDOW), options));
    });
    await sleep(5);
    for (const [i, stream] of streams.entries()) if (i % 2 === 0) stream.setWriteDeadline(5);
    stop.abort();
    const codes = await Promise.all(writing);
    assertEquals(codes, streams.map((_, i) => i % 2 === 0 ? "timeout" : "aborted"));
    assertEquals(streams.map(({ queued }) => queued), streams.map(() => 0));
  },
  { reading: false },
);

check("close() on a transport that takes nothing is a timeout", async (mux) => {
  const { streams, writing } = await stuff(mux);
  assertEquals(await codeOf(mux.close()), "timeout");
  assertEquals(await codeOf(mux.closed), "timeout");
  assertEquals(new Set(await Promise.all(writing)), new Set(["timeout"]));
  assertEquals(await codeOf(streams[29]!.closed), "timeout");
}, { reading: false, closeTimeoutMs: 30 });

check("abort() on a transport that takes nothing needs no time", async (mux) => {
  const { streams, writing } = await stuff(mux);
  mux.abort();
  assertEquals(await codeOf(mux.closed), "closed");
  assertEquals(new Set(await Promise.all(writing)), new Set(["closed"]));
  assertEquals(await codeOf(streams[29]!.closed), "closed");
}, { reading: false });

const endings: Readonly<Record<string, (stream: MuxStream, stop: AbortController) => void>> = {
  aborted: (_, stop) => stop.abort(),
  timeout: (stream) => stream.setWriteDeadline(1),
  "stream-closed": (stream) => stream.abort(),
};

/** A transport that takes nothing any more once it is told so. */
function stoppable(): { readonly conns: readonly [Conn, Conn]; stop(): void } {
  const [near, far] = connPair({ lingerMs: 200 });
  let stopped = false;
  const writable = new WritableStream<Uint8Array>({
    write: (bytes) => stopped ? new Promise<void>(() => {}) : near.write(bytes),
  });
  const conn = wrapConn({ readable: near.readable, writable }, { lingerMs: 20 });
  return { conns: [conn, far], stop: () => stopped = true };
}

for (const [code, end] of Object.entries(endings)) {
  test(`mux v2 scenario: a write that waits behind a stuck transport ends: ${code}`, async () => {
    const { conns, stop: stopTransport } = stoppable();
    const { mux, peer } = await meet(client, { conns });
    const [filler, stream] = await three(mux);
    await taken(peer);
    stopTransport();
    const stop = new AbortController();
    let result = "pending";
    // The transport has the beginning of the one; what is sealed behind that has all of the other.
    filler.write(new Uint8Array(WINDOW)).catch(() => {});
    stream.write(new Uint8Array(3), { signal: stop.signal }).then(
      () => result = "sent",
      ({ code, written }) => result = `${code}, ${written} written`,
    );
    while (stream.queued > 0) await sleep(1);
    await sleep(5);
    assertEquals(result, "pending", "taken, and not with the transport");
    end(stream, stop);
    await sleep(20);
    assertEquals(result, `${code}, 3 written`);
    mux.abort();
    peer.conn.abort();
  });
}

check("keepalives go out while writers wait for the peer's window", async (mux, peer) => {
  peer.granting = false;
  const stream = await mux.openStream();
  const writing = codeOf(stream.write(new Uint8Array(2 * WINDOW)));
  await peer.until(() => peer.seen(stream.id).bytes === WINDOW, "a full window");
  const before = peer.count(TYPE.PING);
  await peer.until(() => peer.count(TYPE.PING) >= before + 3, "three pings");
  assertEquals(stream.queued, WINDOW);
  mux.abort();
  assertEquals(await writing, "closed");
}, { keepaliveMs: 10 });

check(
  "pings that are not answered are ended by their signals, and go on to be one",
  async (mux, peer) => {
    await peer.until(() => peer.count(TYPE.PING) === 1, "the first ping");
    await mux.ping();
    peer.answering = false;
    const before = peer.count(TYPE.PING);
    const signal = AbortSignal.timeout(10);
    const [late, aborted] = [codeOf(mux.ping({ signal })), new AbortController()];
    const given = codeOf(mux.ping({ signal: aborted.signal }));
    const shared = [mux.ping(), mux.ping(), mux.ping()];
    aborted.abort();
    assertEquals([await late, await given], ["timeout", "aborted"]);
    assertEquals(await codeOf(mux.ping({ signal: AbortSignal.abort() })), "aborted");
    assertEquals(peer.count(TYPE.PING), before + 1, "they share one");
    const number = peer.frames.findLast(({ type }) => type === TYPE.PING)!.first;
    // Not the answer to any ping, then it.
    peer.send(control(TYPE.PONG, 0, number + 1));
    await taken(peer);
    assertEquals(await Promise.race([shared[0], "none"]), "none");
    peer.send(control(TYPE.PONG, 0, number));
    const times = await Promise.all(shared);
    assert(times.every((time) => time === times[0] && time >= 0));
    assertEquals(mux.stats().rtt, times[0]);
    const last = codeOf(mux.ping());
    mux.abort();
    assertEquals(await last, "closed");
    assertEquals(await codeOf(mux.ping()), "closed");
  },
);

/** What is wrong with what a peer sends, and what both sides call it. */
const breaches: Readonly<Record<string, { readonly frames: Uint8Array[]; readonly code: string }>> =
  {
    "more than the window": {
      frames: [0, 1, 2, 3].map(() => data(0, new Uint8Array(WINDOW / 4))).concat(
        data(0, utf8("x")),
      ),
      code: "window",
    },
    "a window of more than there is": {
      frames: [control(TYPE.WINDOW, 0, 2 ** 31)],
      code: "window",
    },
    "a window that would wrap": {
      frames: [control(TYPE.WINDOW, 0, 0x7fff0000), control(TYPE.WINDOW, 0, 0x7fff0000)],
      code: "window",
    },
    "a grant of nothing": { frames: [control(TYPE.WINDOW, 0, 0)], code: "protocol" },
    "a frame for a stream of ours that never was": {
      frames: [control(TYPE.FIN, 2)],
      code: "protocol",
    },
    "a frame for a stream of its own that never was": {
      frames: [control(TYPE.FIN, 1)],
      code: "protocol",
    },
    "a stream with a number of ours": { frames: [control(TYPE.OPEN, 2, 3)], code: "protocol" },
    "a stream with a number that is not its next": {
      frames: [control(TYPE.OPEN, 3, 3)],
      code: "protocol",
    },
    "a stream twice": {
      frames: [control(TYPE.OPEN, 1, 3), control(TYPE.OPEN, 1, 3)],
      code: "protocol",
    },
    "more streams than it was allowed": {
      frames: [1, 3, 5].map((id) => control(TYPE.OPEN, id, 3)),
      code: "limit",
    },
    "data without data": { frames: [data(0, new Uint8Array(0))], code: "protocol" },
  };
const CODES = ["", "protocol", "window", "limit", "timeout"];

for (const [what, { frames, code }] of Object.entries(breaches)) {
  check(`${what} is an error of kind ${code} on both sides`, async (mux, peer) => {
    const stream = await mux.openStream();
    await peer.until(() => peer.seen(0).opened, "the open");
    peer.granting = false;
    for (const frame of frames) peer.send(frame);
    assertEquals([await codeOf(mux.closed), await codeOf(stream.closed)], [code, code]);
    await peer.until(() => peer.farewell, "the last word");
    const { type, first } = peer.frames.at(-1)!;
    assertEquals([type, CODES[first]], [TYPE.END, code]);
    await peer.end();
  }, { maxPendingAccepts: 2 });
}

for (const [number, name] of [...CODES.entries(), [77, "protocol"] as const].slice(1)) {
  check(`a peer that gives up with code ${number} is told so: ${name}`, async (mux, peer) => {
    const stream = await mux.openStream();
    const waiting = [codeOf(stream.read()), codeOf(mux.acceptStream()), codeOf(stream.closed)];
    peer.send(control(TYPE.END, 0, number, 0));
    const error = await mux.closed.then(() => undefined, (error) => error);
    assertEquals([error.code, error.resetCode], [name, number]);
    assertEquals(await Promise.all(waiting), [name, name, name]);
    await peer.end();
    assert(!peer.farewell, "it is not answered");
  });
}

check("behind the peer's goAway() no stream can be opened, and others go on", async (mux, peer) => {
  const served = await mux.openStream();
  const crossed = await mux.openStream();
  const waiting = codeOf(crossed.read());
  peer.send(control(TYPE.GOAWAY, 0, crossed.id));
  assertEquals([await waiting, await codeOf(crossed.closed)], ["going-away", "going-away"]);
  assertEquals(await codeOf(mux.openStream()), "going-away");
  await served.write(utf8("ping"));
  peer.send(data(served.id, utf8("pong")), control(TYPE.OPEN, 1, 3));
  assertEquals(text(await served.read()), "pong");
  assertEquals((await mux.acceptStream()).id, 1);
  assertEquals(mux.stats().streams, 2);
});

check("frames for streams that are over are ignored, however many", async (mux, peer) => {
  const stream = await mux.openStream();
  await stream.close();
  const frames = [
    ...[data(0, utf8("x")), control(TYPE.FIN, 0), control(TYPE.STOP, 0, 0)],
    ...[control(TYPE.CLOSE, 0), control(TYPE.RESET, 0, 1), control(TYPE.WINDOW, 0, 1)],
  ];
  for (let i = 0; i < 250; i++) peer.send(...frames);
  await taken(peer);
  assertEquals([mux.stats().lateFrames, mux.stats().strayFrames], [1500, 0]);
});

check("a peer that is silent is given up, and told so", async (mux, peer) => {
  peer.answering = false;
  assertEquals(await codeOf(mux.closed), "timeout");
  await peer.until(() => peer.farewell, "the last word");
  assertEquals(CODES[peer.frames.at(-1)!.first], "timeout");
  // Before that it was asked.
  assert(peer.count(TYPE.PING) >= 3);
}, { idleTimeoutMs: 100, keepaliveMs: 20 });

test("mux v2 scenario: frames are the same however their bytes are cut", async () => {
  const runs: unknown[] = [];
  for (const most of [1, 2, 3, 17, 18, 19, 700, Infinity]) {
    const { mux, peer } = await meet(client, { cut: () => most });
    const stream = await mux.openStream();
    const payload = Uint8Array.from({ length: 2000 }, (_, i) => i);
    const records = [
      peer.seal(data(0, payload.subarray(0, 1)), data(0, payload.subarray(1, 500))),
      // A tag alone, and nothing but padding.
      ...[peer.seal(), peer.seal(new Uint8Array(100))],
      peer.seal(control(TYPE.OPEN, 1, 3), data(0, payload.subarray(500)), new Uint8Array(3)),
      peer.seal(Uint8Array.of(200, 0, 2, 1, 2), control(TYPE.FIN, 0)),
    ];
    for (
      const record of most === Infinity
        ? [Uint8Array.from(records.flatMap((it) => [...it]))]
        : records
    ) {
      peer.sendRaw(record);
    }
    const read: number[] = [];
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) read.push(...chunk);
    runs.push([read, (await mux.acceptStream()).id]);
    assertEquals(runs.at(-1), [[...payload], 1]);
    mux.abort();
    peer.conn.abort();
  }
});

/** What another one than a v2 peer sends first, and what it is called. */
async function greet(
  role: typeof client,
  bytes: Uint8Array,
  options: Partial<MuxOptions> = {},
): Promise<string> {
  const [near, far] = connPair({ lingerMs: 200 });
  const mux = role(near, { psk: PSK, protocol: "v2", ...options });
  const writing = far.write(bytes).then(() => far.closeWrite()).catch(() => {});
  const code = await codeOf(mux.closed);
  await writing;
  far.abort();
  return code;
}

test("mux v2 scenario: bytes that are no handshake are typed errors, whatever they are", async () => {
  const hello = (version: number, suite: number) =>
    Uint8Array.of(...utf8("MUX2"), version, suite, 0xff, 0xff, 0, 48, ...new Uint8Array(48));
  assertEquals(await greet(server, hello(1, 1)), "auth-failed");
  assertEquals(await greet(server, hello(1, 2)), "auth-failed");
  assertEquals(await greet(server, hello(2, 1)), "protocol", "another version");
  for (const suite of [0, 3, 4, 5, 255]) {
    assertEquals(await greet(server, hello(1, suite)), "protocol");
  }
  const only = { suites: ["AESGCM_SHA256"] } as const;
  assertEquals(await greet(server, hello(1, 1), only), "protocol", "a suite that is not allowed");
  assertEquals(await greet(server, utf8("GET / HTTP/1.1\r\n\r\n")), "protocol");
  assertEquals(await greet(server, hello(1, 1).subarray(0, 30)), "truncated");
  assertEquals(await greet(client, utf8("HTTP/1.1 400 Bad Request\r\n\r\n")), "protocol");
  assertEquals(await greet(client, Uint8Array.of(0, 48, ...new Uint8Array(48))), "auth-failed");
  assertEquals(await greet(client, new Uint8Array(0)), "auth-failed", "nothing");
});

check("bytes that are no record are typed errors", async (mux, peer) => {
  peer.sendRaw(new Uint8Array(300).fill(1));
  assertEquals(await codeOf(mux.closed), "auth-failed");
});

check("a record that is too short is a typed error", async (mux, peer) => {
  peer.sendRaw(Uint8Array.of(0, 15, ...new Uint8Array(15)));
  assertEquals(await codeOf(mux.closed), "protocol");
});

test("mux v2 scenario: two servers joined by mistake wait for each other, for so long", async () => {
  const options = { psk: PSK, protocol: "v2", handshakeTimeoutMs: 30 } as const;
  const sessions = connPair().map((conn) => server(conn, options));
  const opening = sessions.map((session) => codeOf(session.openStream()));
  const codes = await Promise.all([...sessions.map(({ closed }) => codeOf(closed)), ...opening]);
  assert(codes.includes("timeout"), codes.join());
  assert(codes.every((code) => code === "timeout" || code === "truncated"), codes.join());
});

test("mux v2 scenario: a handshake byte by byte has no more time than another one", async () => {
  const [near, far] = connPair();
  const mux = server(near, { psk: PSK, protocol: "v2", handshakeTimeoutMs: 100 });
  const drip = async () => {
    const hello = Uint8Array.of(...utf8("MUX2"), 1, 1, 0xff, 0xff, 0, 200, ...new Uint8Array(200));
    for (const byte of hello) {
      await far.write(Uint8Array.of(byte));
      await sleep(5);
    }
  };
  const dripping = drip().catch(() => {});
  assertEquals(await codeOf(mux.closed), "timeout");
  far.abort();
  await dripping;
});
