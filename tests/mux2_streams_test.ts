/** What streams and sessions of v2 can do that those of v1 cannot. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import { client, type Mux, MuxError, type MuxOptions, server } from "@trunkline/sockets/mux";
import { closeBoth, codeOf, muxPair, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function errorOf(promise: Promise<unknown>): Promise<MuxError> {
  const error = await promise.then(() => undefined, (it) => it);
  assert(error instanceof MuxError, `${error}`);
  return error;
}

/** Both ways round. */
function pairs(options: Partial<MuxOptions> = {}): { near: Mux; far: Mux }[] {
  const [one, other] = [muxPair({ ...V2, ...options }), muxPair({ ...V2, ...options })];
  return [{ near: one[0], far: one[1] }, { near: other[1], far: other[0] }];
}

/** Waits for what is on its way. */
async function settle(near: Mux, far: Mux): Promise<void> {
  await near.ping();
  await far.ping();
}

const JUNK = [-1, 2 ** 32, 0.5, NaN, Infinity, "1", null, undefined, {}] as unknown as number[];

describe("reset()", () => {
  it("tells the peer its code, behind what was read before", { timeout: 60_000 }, async () => {
    for (const code of [0, 1, 2 ** 31, 2 ** 32 - 1]) {
      for (const { near, far } of pairs()) {
        const [stream, accepted] = await streamPair(near, far);
        await stream.write(utf8("so far"));
        await settle(near, far);
        stream.reset(code);
        await settle(near, far);
        assertEquals(text(await accepted.read()), "so far");
        for (const call of [accepted.read(), accepted.write(utf8("x")), accepted.closed]) {
          const error = await errorOf(call);
          assertEquals([error.code, error.resetCode], ["reset", code]);
        }
        for (const call of [stream.read(), stream.write(utf8("x")), stream.closed]) {
          assertEquals(await codeOf(call), "stream-closed");
        }
        assertEquals([near.streams.length, far.streams.length], [0, 0]);
        await closeBoth(near, far);
      }
    }
  });

  it("of a stream that is over does nothing", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    await Promise.all([stream.close(), accepted.close()]);
    stream.reset(5);
    stream.stop(5);
    stream.abort();
    await stream.closed;
    await closeBoth(near, far);
  });

  it("tells who waits, and gives up what was not sent", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, windowBytes: 1000 });
    const [stream, accepted] = await streamPair(near, far);
    const calls = [errorOf(accepted.write(new Uint8Array(5000)))];
    const read = stream.write(new Uint8Array(5000));
    read.catch(() => {});
    assertEquals((await accepted.read())!.length, 1000);
    stream.reset(7);
    assertEquals(await codeOf(read), "stream-closed");
    calls.push(errorOf(readAll(accepted)));
    for (const error of await Promise.all(calls)) {
      assertEquals([error.code, error.resetCode], ["reset", 7]);
    }
    await closeBoth(near, far);
  });

  it("errors the web streams of the peer", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    const reader = accepted.readable.getReader();
    const writer = accepted.writable.getWriter();
    writer.closed.catch(() => {});
    const reading = errorOf(reader.read());
    stream.reset(9);
    assertEquals((await reading).resetCode, 9);
    assertEquals((await errorOf(writer.closed)).resetCode, 9);
    await closeBoth(near, far);
  });

  it("reaches a stream that nobody has accepted yet", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const stream = await near.openStream();
    await stream.write(utf8("hello"));
    stream.reset(3);
    await settle(near, far);
    const accepted = await far.acceptStream();
    assertEquals(text(await accepted.read()), "hello");
    assertEquals(await codeOf(accepted.read()), "reset");
    await closeBoth(near, far);
  });
});

describe("abort()", () => {
  it("is a reset with code 0", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    stream.abort(new Error("why"));
    const error = await errorOf(accepted.read());
    assertEquals([error.code, error.resetCode], ["reset", 0]);
    await closeBoth(near, far);
  });
});

describe("stop()", () => {
  it(
    "tells the peer's writes its code; the other direction goes on",
    { timeout: 60_000 },
    async () => {
      for (const code of [0, 77, 2 ** 32 - 1]) {
        for (const { near, far } of pairs()) {
          const [stream, accepted] = await streamPair(near, far);
          await accepted.write(utf8("unread"));
          stream.stop(code);
          assertEquals(await stream.read(), null);
          await settle(near, far);
          const error = await errorOf(accepted.write(utf8("x")));
          assertEquals([error.code, error.resetCode], ["write-closed", code]);
          await stream.write(utf8("still here"));
          await stream.closeWrite();
          assertEquals(text(await readAll(accepted)), "still here");
          await Promise.all([stream.closed, accepted.closed.catch(() => {})]);
          await settle(near, far);
          assertEquals([near.streams.length, far.streams.length], [0, 0]);
          await closeBoth(near, far);
        }
      }
    },
  );

  it("wakes a write that waits", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, windowBytes: 1000 });
    const [stream, accepted] = await streamPair(near, far);
    const writing = errorOf(accepted.write(new Uint8Array(5000)));
    await settle(near, far);
    stream.stop(4);
    const error = await writing;
    assertEquals([error.code, error.resetCode, error.written], ["write-closed", 4, 1000]);
    await closeBoth(near, far);
  });
});

describe("codes that are none", () => {
  it("are refused, and nothing happens", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    for (const code of JUNK) {
      assertThrows(() => stream.reset(code), RangeError, "a code of");
      assertThrows(() => stream.stop(code), RangeError, "a code of");
    }
    await stream.write(utf8("hello"));
    assertEquals(text(await accepted.read()), "hello");
    await closeBoth(near, far);
  });
});

describe("on v1", () => {
  it("codes, pings, goaways and round trips are unsupported", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ psk: PSK2 });
    const [stream, accepted] = await streamPair(near, far);
    for (const act of [() => stream.reset(1), () => accepted.stop(1), () => near.stats().rtt]) {
      assertEquals(assertThrows(act, MuxError).code, "unsupported");
    }
    assertEquals(await codeOf(near.ping()), "unsupported");
    assertEquals(await codeOf(near.goAway()), "unsupported");
    assert(!("rtt" in { ...near.stats() }));
    await stream.write(utf8("hello"));
    assertEquals(text(await accepted.read()), "hello");
    await closeBoth(near, far);
  });
});

describe("ping()", () => {
  it("measures the way there and back", { timeout: 60_000 }, async () => {
    const { ends: [near, far] } = lines(20);
    const [ours, theirs] = [client(near, V2), server(far, V2)];
    for (const mux of [ours, theirs]) {
      const rtt = await mux.ping();
      assert(rtt >= 30, `${rtt}`);
      assertEquals(mux.stats().rtt, rtt);
    }
    await closeBoth(ours, theirs);
  });

  it("is shared by all who ask at once", { timeout: 60_000 }, async () => {
    const near = connPair({ lingerMs: 500 });
    const mux = client(near[0], V2);
    const peer = await Peer2.server(near[1]);
    await mux.ready;
    await mux.ping();
    const before = peer.frames.filter(({ type }) => type === "PING").length;
    const all = await Promise.all(Array.from({ length: 20 }, () => mux.ping()));
    assertEquals(new Set(all).size, 1);
    assertEquals(peer.frames.filter(({ type }) => type === "PING").length, before + 1);
    await mux.close();
  });

  it("waits for the handshake, a signal or the end", { timeout: 60_000 }, async () => {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = client(near, V2);
    const early = mux.ping();
    assertEquals(await codeOf(mux.ping({ signal: AbortSignal.abort() })), "aborted");
    assertEquals(await codeOf(mux.ping({ signal: AbortSignal.timeout(20) })), "timeout");
    const peer = await Peer2.server(far);
    assert(await early >= 0);
    peer.answering = false;
    assertEquals(await codeOf(mux.ping({ signal: AbortSignal.timeout(20) })), "timeout");
    assertEquals(await codeOf(mux.ping({ signal: AbortSignal.abort() })), "aborted");
    const waiting = codeOf(mux.ping());
    mux.abort();
    assertEquals(await waiting, "closed");
    assertEquals(await codeOf(mux.ping()), "closed");
    await peer.end();
  });

  it("is answered behind a mass of data", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    const reading = readAll(accepted);
    const writing = stream.write(new Uint8Array(8 << 20));
    assert(await near.ping() >= 0);
    assert(await far.ping() >= 0);
    await writing;
    await stream.closeWrite();
    assertEquals((await reading).length, 8 << 20);
    await closeBoth(near, far);
  });
});

describe("goAway()", () => {
  it("lets what lives go on, and refuses what is new", { timeout: 60_000 }, async () => {
    for (const { near, far } of pairs()) {
      const [stream, accepted] = await streamPair(near, far);
      const waiting = await near.openStream();
      await settle(near, far);
      await far.goAway();
      await far.goAway();
      await settle(near, far);
      assertEquals(await codeOf(near.openStream()), "going-away");
      // Those that it had before.
      const later = await far.acceptStream();
      assertEquals(later.id, waiting.id);
      for (const [ours, theirs] of [[stream, accepted], [waiting, later]] as const) {
        await ours.write(utf8("to the end"));
        await ours.closeWrite();
        assertEquals(text(await readAll(theirs)), "to the end");
      }
      // And its own.
      const [back] = await streamPair(far, near);
      await back.close();
      await closeBoth(near, far);
    }
  });

  it("fails what was on its way, and nobody sees it", { timeout: 60_000 }, async () => {
    const { ends: [one, other] } = lines(20);
    const [near, far] = [client(one, V2), server(other, V2)];
    const [stream] = await streamPair(near, far);
    await far.goAway();
    const late = await near.openStream();
    const closed = errorOf(late.closed);
    const writing = late.write(utf8("is anybody there"));
    writing.catch(() => {});
    assertEquals((await closed).code, "going-away");
    assertEquals(await codeOf(late.read()), "going-away");
    assertEquals(await codeOf(late.write(utf8("x"))), "going-away");
    await settle(near, far);
    assertEquals([far.stats().refusedStreams, far.stats().pendingAccepts], [1, 0]);
    assertEquals(near.streams, [stream]);
    await stream.close();
    await closeBoth(near, far);
  });

  it("fails who waits to open", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair({ ...V2, maxStreams: 1 });
    await streamPair(near, far);
    const waiting = [codeOf(near.openStream()), codeOf(near.openStream())];
    await settle(near, far);
    await far.goAway();
    assertEquals(await Promise.all(waiting), ["going-away", "going-away"]);
    await closeBoth(near, far);
  });

  it("of both sides, before the handshake and during close()", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    await Promise.all([near.goAway(), far.goAway()]);
    await settle(near, far);
    assertEquals([await codeOf(near.openStream()), await codeOf(far.openStream())], [
      "going-away",
      "going-away",
    ]);
    const closing = near.close();
    await near.goAway();
    await Promise.all([closing, far.close()]);
  });

  it("of a session that never began rejects", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2, { ...V2, psk: `${PSK2}!` });
    assertEquals(await codeOf(near.goAway()), "auth-failed");
    assertEquals(await codeOf(far.goAway()), "auth-failed");
  });
});

describe("priorities", () => {
  it("are those of the opener, on both sides", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    for (const priority of [undefined, 0, 1, 7]) {
      const stream = await near.openStream({ priority });
      const accepted = await far.acceptStream();
      assertEquals([stream.priority, accepted.priority], [priority ?? 3, priority ?? 3]);
    }
    await closeBoth(near, far);
  });

  it("that are none are refused", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream] = await streamPair(near, far);
    for (const priority of [-1, 8, 0.5, NaN, Infinity, "1", null] as number[]) {
      await assertRejects(() => near.openStream({ priority }), RangeError, "a priority of");
      assertThrows(() => stream.priority = priority, RangeError, "a priority of");
    }
    assertEquals([stream.priority, near.streams.length], [3, 1]);
    await closeBoth(near, far);
  });

  it(
    "are strict: what is first goes first, by turns with its like",
    { timeout: 60_000 },
    async () => {
      const { ends: [one, other], there } = lines();
      const mux = client(one, V2);
      const peer = await Peer2.server(other, { settings: [1, 1 << 30] });
      await mux.ready;
      await mux.ping();
      const priorities = [7, 3, 0, 5, 0, 3];
      const streams = await Promise.all(priorities.map((priority) => mux.openStream({ priority })));
      await mux.ping();
      // The one that is written now takes what there is at once; the others wait.
      there.hold();
      const writes = streams.map((stream) => stream.write(new Uint8Array(2 << 20).fill(stream.id)));
      await pause(20);
      const before = peer.frames.length;
      there.release();
      await Promise.all(writes);
      await peer.until(
        () => streams.every(({ id }) => peer.received(id).length === 2 << 20),
        "all",
      );
      const data = peer.frames.slice(before).filter(({ type }) => type === "DATA");
      const order = data.map(({ id }) => priorities[id / 2]!);
      // Two batches of at most 512 KiB may have been packed before all were there.
      const settled = order.slice(20);
      assertEquals(settled, settled.toSorted((a, b) => a - b));
      const firsts = data.slice(20).filter(({ id }) => priorities[id / 2] === 0).map(({ id }) =>
        id
      );
      const changes = firsts.filter((id, i) => i > 0 && id !== firsts[i - 1]).length;
      assert(changes > 10, `${changes}`);
      await mux.close();
    },
  );

  it("can be changed while it waits", { timeout: 60_000 }, async () => {
    const { ends: [one, other], there } = lines();
    const mux = client(one, V2);
    const peer = await Peer2.server(other, { settings: [1, 1 << 30] });
    await mux.ready;
    const [slow, fast] = [
      await mux.openStream({ priority: 5 }),
      await mux.openStream({ priority: 5 }),
    ];
    await mux.ping();
    there.hold();
    const writes = [slow, fast].map((stream) => stream.write(new Uint8Array(4 << 20)));
    await pause(20);
    slow.priority = 6;
    fast.priority = 1;
    assertEquals([slow.priority, fast.priority], [6, 1]);
    there.release();
    await writes[1];
    assert(slow.queued > 2 << 20, `${slow.queued}`);
    await writes[0];
    await peer.until(() => peer.received(slow.id).length === 4 << 20, "all");
    await mux.close();
  });
});

describe("records", () => {
  it("carry small data of many streams together", { timeout: 60_000 }, async () => {
    const { ends: [one, other], there } = lines();
    const mux = client(one, V2);
    const peer = await Peer2.server(other);
    await mux.ready;
    const streams = await Promise.all(Array.from({ length: 100 }, () => mux.openStream()));
    await mux.ping();
    const before = { writes: there.writes.length, records: peer.plains.length, told: mux.stats() };
    await Promise.all(streams.map((stream) => stream.write(new Uint8Array(64).fill(stream.id))));
    await peer.until(() => streams.every(({ id }) => peer.received(id).length === 64), "all");
    // The memory for sending is small at first, so that the first time takes some more.
    const writes = there.writes.length - before.writes;
    assert(writes <= 4, `${writes} writes`);
    assert(peer.plains.length - before.records <= 4);
    assertEquals(mux.stats().transportWrites - before.told.transportWrites, writes);
    assertEquals(mux.stats().framesSent - before.told.framesSent >= 100, true);
    await mux.close();
  });

  it("have at most 65519 bytes, and hold large writes in pieces", { timeout: 60_000 }, async () => {
    const [one, other] = connPair({ lingerMs: 500 });
    const mux = client(one, V2);
    const peer = await Peer2.server(other, { settings: [1, 1 << 30] });
    const stream = await mux.openStream();
    const whole = new Uint8Array(1 << 20);
    for (let at = 0; at < whole.length; at += 65536) {
      crypto.getRandomValues(whole.subarray(at, at + 65536));
    }
    await stream.write(whole);
    await peer.until(() => peer.received(stream.id).length === whole.length, "all of it");
    assertEquals(peer.received(stream.id), whole);
    const longest = Math.max(...peer.plains.map(({ length }) => length));
    assert(longest <= 65519 && longest > 60_000, `${longest}`);
    // Full ones, but for those of the first small memory.
    assert(peer.plains.length < 40, `${peer.plains.length}`);
    await mux.close();
  });
});

describe("data", () => {
  it(
    "of a Buffer is sent, and is what it was when the write was done",
    { timeout: 60_000 },
    async () => {
      const [near, far] = muxPair(V2);
      const [stream, accepted] = await streamPair(near, far);
      const shared = Buffer.from("....hello....").subarray(4, 9);
      await stream.write(shared);
      shared.fill(0);
      assertEquals(text(await accepted.read()), "hello");
      await stream.write(new Uint8Array(0));
      await stream.closeWrite();
      assertEquals(await accepted.read(), null);
      await closeBoth(near, far);
    },
  );

  it("of all lengths around the borders of records comes whole", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    const sizes = [
      1,
      4000,
      4095,
      4096,
      4097,
      16_384,
      65_507,
      65_509,
      65_510,
      65_511,
      65_519,
      65_520,
      131_072,
    ];
    const whole = Uint8Array.from({ length: sizes.reduce((a, b) => a + b) }, (_, i) => i * 13);
    const reading = readAll(accepted);
    let at = 0;
    for (const size of sizes) await stream.write(whole.subarray(at, at += size));
    await stream.closeWrite();
    assertEquals(await reading, whole);
    await closeBoth(near, far);
  });
});

describe("sessions", () => {
  it("of one process know nothing of each other", { timeout: 60_000 }, async () => {
    const all = Array.from({ length: 5 }, () => muxPair(V2));
    await Promise.all(all.map(async ([near, far], i) => {
      const [stream, accepted] = await streamPair(near, far);
      const bytes = new Uint8Array(300_000).fill(i);
      const reading = readAll(accepted);
      await stream.write(bytes);
      await stream.closeWrite();
      assertEquals(await reading, bytes);
      if (i % 2 === 0) return closeBoth(near, far);
      near.abort();
      await Promise.allSettled([near.closed, far.closed]);
    }));
  });

  it("run over web streams", { timeout: 60_000 }, async () => {
    const [there, back] = [new TransformStream(), new TransformStream()];
    const near = client({ readable: back.readable, writable: there.writable }, V2);
    const far = server({ readable: there.readable, writable: back.writable }, V2);
    const [stream, accepted] = await streamPair(near, far);
    const bytes = new Uint8Array(500_000).fill(7);
    const reading = readAll(accepted);
    await stream.write(bytes);
    await stream.closeWrite();
    assertEquals(await reading, bytes);
    await closeBoth(near, far);
  });

  it("run over a stream of a session", { timeout: 60_000 }, async () => {
    const [near, far] = muxPair(V2);
    const [stream, accepted] = await streamPair(near, far);
    const [inner, other] = [client(stream, V2), server(accepted, V2)];
    const [one, two] = await streamPair(inner, other);
    await one.write(utf8("within"));
    assertEquals(text(await two.read()), "within");
    await closeBoth(inner, other);
    await closeBoth(near, far);
  });
});
