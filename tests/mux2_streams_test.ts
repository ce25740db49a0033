/** What streams and sessions of v2 can do that those of v1 cannot. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import { client, type Mux, MuxError, type MuxOptions, server } from "@trunkline/sockets/mux";
import { closeBoth, codeOf, muxPair, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;

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
