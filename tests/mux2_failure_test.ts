/** What ends a session of v2 against its will: a peer that breaks the rules, a transport or an Aead that fails. */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import {
  type Aead,
  client,
  type MuxError,
  type MuxOptions,
  nobleAead,
  server,
} from "@trunkline/sockets/mux";
import { codeOf, muxPair, streamPair, text, utf8 } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";
import { frame } from "./mux2_reader.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;

/** A test that leaves no rejection unhandled. */
function check(name: string, body: () => Promise<void>): void {
  it(name, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

describe("what breaks the rules", () => {
  check("fails both sides with the same code", async () => {
    const ends: readonly (readonly [string, number, (peer: Peer2) => Promise<void>])[] = [
      ["protocol", 1, (peer) => peer.send(frame("OPEN", 5, [0]))],
      ["limit", 3, (peer) => peer.send(frame("OPEN", 1, [0]), frame("OPEN", 3, [0]))],
    ];
    for (const [code, number, act] of ends) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = client(near, { ...V2, maxStreams: 1 });
      const peer = await Peer2.server(far);
      await mux.ready;
      const stream = await mux.openStream();
      await act(peer);
      for (const call of [mux.closed, stream.read(), stream.closed, mux.ping(), mux.openStream()]) {
        assertEquals(await codeOf(call), code);
      }
      await peer.end();
      assertEquals(peer.frames.at(-1)?.values[0], number);
    }
  });

  check("is told with its code to all that waits", async () => {
    const names = ["protocol", "window", "limit", "timeout"];
    for (const [i, name] of names.entries()) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = server(near, V2);
      const peer = await Peer2.client(far);
      await peer.send(frame("OPEN", 0, [3]), frame("DATA", 0, utf8("so far")));
      const stream = await mux.acceptStream();
      await peer.send(frame("END", 0, [i + 1, 0]));
      assertEquals(await codeOf(mux.closed), name);
      assertEquals(text(await stream.read()), "so far");
      for (const call of [stream.read(), stream.closed, mux.acceptStream()]) {
        const error: MuxError = await call.then(() => undefined, (it) => it);
        assertEquals([error.code, error.resetCode], [name, i + 1]);
      }
      await peer.end();
    }
  });
});

describe("a transport that breaks", () => {
  const broken = new Error("broken");
  /** Both sessions behind lines that can be broken, at a phase. */
  const begin = async (phase: string, options: Partial<MuxOptions> = {}) => {
    const { ends: [near, far], there, back } = lines(phase === "handshake" ? 20 : 0);
    const [mux, other] = [client(near, { ...V2, ...options }), server(far, { ...V2, ...options })];
    if (phase !== "handshake") await Promise.all([mux.ready, other.ready]);
    const streams = phase === "streams" ? await streamPair(mux, other) : undefined;
    return { mux, other, there, back, streams };
  };

  for (const phase of ["handshake", "ready", "streams"]) {
    for (const how of ["reads end", "reads fail", "writes fail"]) {
      check(`${phase}: ${how}`, async () => {
        const { mux, other, there, back, streams } = await begin(phase);
        const calls = [mux.acceptStream(), mux.ready, mux.closed, streams?.[0].read()];
        for (const call of calls) call?.catch(() => {});
        if (how === "reads end") back.end();
        else if (how === "reads fail") back.breakReading(broken);
        else there.breakWriting(broken);
        if (how === "writes fail") mux.ping().catch(() => {});
        const code = phase === "handshake" ? "auth-failed" : "truncated";
        if (how === "writes fail" && phase === "handshake") {
          // What it had to say was said before: the answer comes.
          await codeOf(mux.closed);
        } else assertEquals(await codeOf(mux.closed), code);
        await Promise.allSettled(calls);
        other.abort();
        await Promise.allSettled([other.closed]);
        assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      });
    }
  }

  check("writes of the first message", async () => {
    const { ends: [near], there } = lines();
    there.breakWriting(broken);
    const mux = client(near, V2);
    assertEquals(await codeOf(mux.ready), "auth-failed");
    assertEquals(await codeOf(mux.closed), "auth-failed");
  });

  check("is stuck: the handshake's time ends it", async () => {
    const { ends: [near, far], there } = lines();
    there.hold();
    const mux = client(near, { ...V2, handshakeTimeoutMs: 50 });
    assertEquals(await codeOf(mux.closed), "timeout");
    there.release();
    far.abort();
  });

  check("is half open: nothing comes any more, and the time ends it", async () => {
    const { ends: [near, far], back } = lines();
    const [mux, other] = [client(near, { ...V2, idleTimeoutMs: 120 }), server(far, V2)];
    await streamPair(mux, other);
    back.hold();
    assertEquals(await codeOf(mux.closed), "timeout");
    assertEquals(await codeOf(other.closed), "timeout");
    back.release();
  });
});

describe("an Aead that fails", () => {
  const failing = (what: "seal" | "open", how: "throws" | "rejects", after: number): Aead => {
    let calls = 0;
    const fail = (): never | Promise<never> => {
      const error = new EvalError("no key any more");
      if (how === "throws") throw error;
      return Promise.reject(error);
    };
    return {
      name: "failing",
      seal: (boxes) => what === "seal" && calls++ >= after ? fail() : nobleAead.seal(boxes),
      open: (boxes) => what === "open" && calls++ >= after ? fail() : nobleAead.open(boxes),
    };
  };
  for (const what of ["seal", "open"] as const) {
    for (const how of ["throws", "rejects"] as const) {
      check(`${what}() ${how}: the session fails, with the cause`, async () => {
        for (const after of [0, 3]) {
          const [near, far] = muxPair({ ...V2, aead: failing(what, how, after) }, V2);
          const stream = near.openStream();
          stream.then(async (it) => {
            for (let i = 0; i < 10; i++) {
              await it.write(utf8("hello"));
              await near.ping();
            }
          }).catch(() => {});
          const error: MuxError & { cause: Error } = await near.closed.then(
            () => undefined,
            (it) => it,
          );
          assertEquals([error.code, error.cause?.message], ["truncated", "no key any more"]);
          await codeOf(far.closed);
          await Promise.allSettled([stream]);
          assertEquals(leftovers(near.stats()), NOTHING_LEFT);
        }
      });
    }
  }
});
