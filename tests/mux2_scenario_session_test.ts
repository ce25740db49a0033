/** What sessions of v2 can and those of v1 cannot, and what they carry. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { ConnectionManager } from "@trunkline/sockets/cmgr";
import { generateIdentity, type MuxError, type MuxOptions } from "@trunkline/sockets/mux";
import { client, server } from "@trunkline/sockets/mux";
import { dialServer, Server } from "@trunkline/sockets/uds";
import { sleep } from "./adapter_suite.ts";
import { brief, take } from "./cmgr_support.ts";
import { closeBoth, codeOf, muxPair, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

const SUITES = ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const;
const V2 = { protocol: "v2" } as const;

/** With each suite. */
function check(title: string, body: (options: Partial<MuxOptions>) => Promise<void>): void {
  for (const suite of SUITES) {
    test(`mux v2 scenario: ${title}: ${suite}`, { timeout: 60_000 }, async () => {
      assertEquals(await unhandledDuring(() => body({ ...V2, suites: [suite] })), []);
    });
  }
}

const errorOf = (promise: Promise<unknown>): Promise<MuxError> =>
  promise.then(() => {
    throw new Error("it succeeded");
  }, (error) => error);

check("reset() and stop() tell their codes", async (options) => {
  const [near, far] = muxPair(options);
  for (const code of [0, 1, 127, 128, 0xffffffff]) {
    const [a, b] = await streamPair(near, far);
    await a.write(utf8("some of it"));
    const waiting = b.write(new Uint8Array(200_000));
    a.reset(code);
    // What came before it can be read; then it is no end.
    assertEquals(text(await b.read()), "some of it");
    for (const call of [b.read(), waiting, b.write(utf8("x")), b.closed]) {
      const error = await errorOf(call);
      assertEquals([error.code, error.resetCode], ["reset", code]);
    }
    assertEquals(await codeOf(a.read()), "stream-closed");
    assertEquals(await codeOf(a.closed), "stream-closed");

    const [c, d] = await streamPair(far, near);
    d.stop(code);
    assertEquals(await d.read(), null);
    const stopped = await errorOf(c.write(new Uint8Array(200_000)));
    assertEquals([stopped.code, stopped.resetCode], ["write-closed", code]);
    // The other direction goes on.
    await d.write(utf8("answer"));
    await d.close();
    assertEquals(text(await readAll(c)), "answer");
    await Promise.all([c.closed, d.closed]);
  }
  const [a] = await streamPair(near, far);
  for (const wrong of [-1, 1.5, 2 ** 32, NaN]) {
    assertThrows(() => a.reset(wrong), RangeError);
    assertThrows(() => a.stop(wrong), RangeError);
  }
  await closeBoth(near, far);
});

check("ping() measures a round trip, for all who ask at once", async (options) => {
  const [near, far] = muxPair(options);
  // Before the handshake is done, too.
  const times = await Promise.all([near.ping(), near.ping(), far.ping(), near.ping()]);
  assert(times.every((time) => time >= 0));
  assertEquals(new Set([times[0], times[1], times[3]]).size, 1);
  const { framesSent } = near.stats();
  await Promise.all(Array.from({ length: 100 }, () => near.ping()));
  assert(near.stats().framesSent - framesSent < 5);
  const { rtt } = near.stats();
  assert(rtt !== undefined && rtt >= 0);
  const { rtt: last } = far.stats();
  assert(last !== undefined && last >= 0);
  await closeBoth(near, far);
  assertEquals([await codeOf(near.ping()), await codeOf(far.ping())], ["closed", "closed"]);
});

check("behind goAway() the peer opens no streams, and all others go on", async (options) => {
  const [near, far] = muxPair(options, { ...options, maxPendingAccepts: 2 });
  const [a, b] = await streamPair(near, far);
  const unaccepted = await near.openStream();
  await near.openStream();
  const waiting = codeOf(near.openStream());
  await near.ping();
  await far.goAway();
  await far.goAway();
  assertEquals(await waiting, "going-away");
  assertEquals(await codeOf(near.openStream()), "going-away");
  assertEquals(await codeOf(near.openStream()), "going-away", "that stays so");
  await unaccepted.write(utf8("served"));
  assertEquals(text(await (await far.acceptStream()).read()), "served");
  for (const word of ["one", "two"]) {
    await a.write(utf8(word));
    assertEquals(text(await b.read()), word);
  }
  const [c, d] = await streamPair(far, near);
  await c.write(utf8("the other way"));
  assertEquals(text(await d.read()), "the other way");
  await closeBoth(near, far);
  assertEquals(leftovers(near.stats()), NOTHING_LEFT);
  assertEquals(leftovers(far.stats()), NOTHING_LEFT);
});

check("a stream that crosses a goAway() fails, and nobody has seen it", async (options) => {
  const [near, far] = muxPair(options);
  await Promise.all([near.ready, far.ready]);
  const going = far.goAway();
  const stream = await near.openStream();
  assertEquals(await codeOf(stream.read()), "going-away");
  assertEquals(await codeOf(stream.write(utf8("x"))), "going-away");
  await going;
  await near.ping();
  const { refusedStreams, pendingAccepts, streams } = far.stats();
  assertEquals([refusedStreams, pendingAccepts, streams], [1, 0, 0]);
  await closeBoth(near, far);
});

check("windows are as large as each side says", async (options) => {
  const windows = [300, 5_000_000] as const;
  const fixed = (windowBytes: number) => ({
    ...options,
    windowBytes,
    maxStreamWindowBytes: windowBytes,
  });
  const [near, far] = muxPair(fixed(windows[0]), fixed(windows[1]));
  for (const [from, to, window] of [[near, far, windows[1]], [far, near, windows[0]]] as const) {
    const [a, b] = await streamPair(from, to);
    const payload = pattern(window + 1, 3);
    // All of the window without anybody who reads, and not a byte more.
    await a.write(payload.subarray(0, window));
    let done = false;
    const last = a.write(payload.subarray(window)).then(() => done = true);
    await from.ping();
    assert(!done);
    const reader = b.readable.getReader({ mode: "byob" });
    let read = 0;
    while (read < payload.length) {
      const { value } = await reader.read(new Uint8Array(window));
      assertEquals(value!, payload.subarray(read, read + value!.length) as typeof value);
      read += value!.length;
    }
    await last;
    assert(done);
  }
  await closeBoth(near, far);
});

check("sessions that end in their handshake end all who wait, on both sides", async (options) => {
  for (const end of ["close", "abort"] as const) {
    for (const side of [0, 1] as const) {
      for (let turns = 0; turns < 25; turns += 3) {
        const pair = muxPair(options);
        const waiting = pair.flatMap((mux) => [
          ...[mux.openStream(), mux.acceptStream(), mux.ping(), mux.ready, mux.goAway()],
        ]);
        for (let left = turns; left > 0; left--) await undefined;
        if (turns > 20) await sleep(1);
        pair[side]![end]();
        await Promise.allSettled([...waiting, ...pair.map(({ closed }) => closed)]);
        const codes = ["closed", "peer-closed", "truncated", "auth-failed", "going-away"];
        for (const call of waiting) {
          const [result] = await Promise.allSettled([call]);
          if (result.status === "rejected") {
            assert(codes.includes(result.reason.code), result.reason);
          }
        }
        for (const mux of pair) assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      }
    }
  }
});

test("mux v2 scenario: sessions of any kind live beside and inside each other", async () => {
  const [alice, bob] = [await generateIdentity(), await generateIdentity()];
  const outerPairs = [
    muxPair({ ...V2, suites: ["AESGCM_SHA256"], padBytes: 512 }),
    muxPair({ ...V2, rekeyRecords: 3 }, { ...V2, windowBytes: 4096 }),
    muxPair({}, { protocol: ["v2", "v1"] }),
    muxPair(V2, { protocol: ["v1", "v2"] }),
  ];
  await Promise.all(outerPairs.map(async ([near, far], i) => {
    const [outer, outerFar] = await streamPair(near, far);
    const common = { psk: `inner ${i}`, ...V2 };
    const inner = client(outer, { ...common, identity: alice, knownPeers: [bob.publicKey] });
    const innerFar = server(outerFar, { ...common, identity: bob, knownPeers: [alice.publicKey] });
    const payload = pattern(200_000, i);
    await Promise.all(Array.from({ length: 5 }, async () => {
      const stream = await inner.openStream();
      const sent = stream.write(payload).then(() => stream.closeWrite());
      const accepted = await innerFar.acceptStream();
      assertEquals(await readAll(accepted), payload);
      await accepted.write(utf8("answer"));
      await accepted.close();
      assertEquals(text(await readAll(stream)), "answer");
      await sent;
    }));
    assertEquals([inner.peerKey, innerFar.peerKey], [bob.publicKey, alice.publicKey]);
    await closeBoth(inner, innerFar);
    await Promise.all([outer.closed, outerFar.closed]);
    assertEquals([near.protocol, far.protocol], i === 2 ? ["v1", "v1"] : ["v2", "v2"]);
    await closeBoth(near, far);
  }));
});

check("calls of ./uds go over a stream", async (options) => {
  const [near, far] = muxPair(options);
  const [a, b] = await streamPair(near, far);
  const answering = new Server(undefined);
  answering.register("Echo", ({ data }) => data);
  answering.serveConn(b);
  const asking = await dialServer(a);
  const payload = pattern(300_000, 4);
  for (const size of [0, 1, payload.length]) {
    assertEquals(await asking.call("Echo", payload.subarray(0, size)), payload.slice(0, size));
  }
  await asking.close();
  await answering.close();
  await closeBoth(near, far);
});

check("a manager of ./cmgr adopts streams, and tells a reset from an end", async (options) => {
  const [near, far] = muxPair(options);
  const manager = new ConnectionManager();
  const [kept, keptFar] = await streamPair(near, far);
  const [given, givenFar] = await streamPair(near, far);
  manager.adopt(kept, "kept");
  manager.adopt(given, "given");
  assertEquals(brief(await take(manager.events, 2)), ["new kept", "new given"]);
  await manager.writeToAll(utf8("to all"));
  assertEquals([text(await keptFar.read()), text(await givenFar.read())], ["to all", "to all"]);
  await givenFar.write(utf8("answer"));
  assertEquals(brief(await take(manager.events, 1)), ["data given answer"]);
  givenFar.reset(7);
  assertEquals(brief(await take(manager.events, 1)), ["disconnected given error"]);
  await keptFar.close();
  assertEquals(brief(await take(manager.events, 1)), ["disconnected kept eof"]);
  await manager.shutdown({ graceMs: 100 });
  await closeBoth(near, far);
});
