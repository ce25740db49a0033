/** Sessions of ours with an implementation of v2 that has nothing of ours: each message, record and frame is what the specification says. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { concat } from "@std/bytes";
import { connPair } from "@trunkline/sockets/auto";
import {
  client,
  generateIdentity,
  type Mux,
  MuxError,
  type MuxOptions,
  server,
} from "@trunkline/sockets/mux";
import { codeOf, readAll, text, utf8 } from "./mux_pair.ts";
import { Peer2, type PeerOptions, PSK2 } from "./mux2_peer.ts";
import { frame, HELLO_NUMBERS } from "./mux2_reader.ts";

const OURS = { psk: PSK2, protocol: "v2" } as const;

/** Our session as client or server, and the peer behind its handshake. */
async function withPeer(
  isClient: boolean,
  options: Partial<MuxOptions> = {},
  peerOptions: PeerOptions = {},
): Promise<[Mux, Peer2]> {
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = (isClient ? client : server)(near, { ...OURS, ...options });
  const peer = await (isClient ? Peer2.server : Peer2.client)(far, peerOptions);
  return [mux, peer];
}

/** The same, live on both sides. */
async function live(...args: Parameters<typeof withPeer>): Promise<[Mux, Peer2]> {
  const [mux, peer] = await withPeer(...args);
  await peer.send(frame("PING", 0, [1]));
  await mux.ready;
  await peer.expect("PONG");
  return [mux, peer];
}

async function finish(mux: Mux, peer: Peer2): Promise<void> {
  const closing = mux.close();
  await peer.end();
  await closing;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const data = (length: number) => Uint8Array.from({ length }, (_, i) => i * 31 + length);

for (const isClient of [true, false]) {
  const role = isClient ? "client" : "server";
  const first = isClient ? 0 : 1;
  const theirFirst = 1 - first;

  for (const [pattern, suite] of HELLO_NUMBERS) {
    it(`a ${role} of ours speaks ${pattern} with ${suite}`, { timeout: 60_000 }, async () => {
      const [me, you] = [await generateIdentity(), await generateIdentity()];
      const options = pattern === "NNpsk0" ? {} : { identity: me, knownPeers: [you.publicKey] };
      const peerOptions = pattern === "NNpsk0" ? {} : { privateKey: you.privateKey };
      const [mux, peer] = await live(isClient, { ...options, suites: [suite] }, {
        ...peerOptions,
        pattern,
        suite,
      });
      assertEquals(mux.protocol, "v2");
      assertEquals(mux.stats().suite, suite);
      assertEquals(mux.peerKey, pattern === "NNpsk0" ? undefined : you.publicKey);
      assertEquals(peer.theirKey, pattern === "NNpsk0" ? undefined : me.publicKey);
      assertEquals([...peer.theirs], [[1, 131072], [2, 4096], [3, 65536], [4, 2 ** 30], [
        5,
        180_000,
      ]]);

      const stream = await mux.openStream({ priority: 5 });
      assertEquals(stream.id, first);
      await stream.write(utf8("hello"));
      assertEquals((await peer.expect("OPEN")).values, [5]);
      const message = await peer.expect("DATA");
      assertEquals([message.id, text(message.body)], [first, "hello"]);
      await peer.send(frame("DATA", first, utf8("you there")), frame("FIN", first));
      assertEquals(text(await readAll(stream)), "you there");
      await stream.closeWrite();
      assertEquals((await peer.expect("FIN")).id, first);
      await stream.closed;

      await peer.send(frame("OPEN", theirFirst, [2]), frame("DATA", theirFirst, utf8("and I")));
      const accepted = await mux.acceptStream();
      assertEquals([accepted.id, accepted.priority], [theirFirst, 2]);
      assertEquals(text(await accepted.read()), "and I");
      await peer.send(frame("FIN", theirFirst));
      await accepted.close();
      assertEquals((await peer.expect("CLOSE")).id, theirFirst);

      const closing = mux.close();
      assertEquals((await peer.expect("GOAWAY")).values, [theirFirst + 2]);
      assertEquals((await peer.expect("END")).values, [0, theirFirst + 2]);
      await closing;
      await mux.closed;
    });
  }

  describe(`a ${role} of ours says`, () => {
    it("its settings", { timeout: 60_000 }, async () => {
      const [mux, peer] = await live(isClient, {
        windowBytes: 70_000,
        maxStreams: 9.9,
        maxPendingAccepts: 5.5,
        rekeyRecords: 7,
        rekeyBytes: 1000,
        idleTimeoutMs: 2000.7,
      });
      assertEquals([...peer.theirs], [[1, 70_000], [2, 5], [3, 7], [4, 1000], [5, 2000]]);
      await finish(mux, peer);
    });

    it("at least and at most what the format has", { timeout: 60_000 }, async () => {
      const [mux, peer] = await live(isClient, {
        maxStreams: Infinity,
        maxPendingAccepts: Infinity,
      });
      assertEquals(peer.theirs.get(2), 2 ** 32 - 1);
      await finish(mux, peer);
      const [tiny, other] = await live(isClient, { maxStreams: 0.5 });
      assertEquals(other.theirs.get(2), 1);
      await finish(tiny, other);
    });

    it("codes of streams as they are", { timeout: 60_000 }, async () => {
      const [mux, peer] = await live(isClient);
      for (const code of [0, 1, 127, 128, 2 ** 31, 2 ** 32 - 1]) {
        const stopped = await mux.openStream();
        stopped.stop(code);
        const { id, values } = await peer.expect("STOP");
        assertEquals([id, values], [stopped.id, [code]]);
        stopped.reset(code);
        assertEquals((await peer.expect("RESET")).values, [code]);
        const aborted = await mux.openStream();
        aborted.abort("why");
        assertEquals((await peer.expect("RESET")).values, [0]);
      }
      await finish(mux, peer);
    });

    it("records of which each is a multiple of padBytes", { timeout: 60_000 }, async () => {
      for (const padBytes of [1, 2, 10, 17, 100, 1000, 4096, 32768]) {
        const [mux, peer] = await live(isClient, { padBytes });
        const stream = await mux.openStream();
        const whole = data(200_000);
        for (const size of [1, 10, 999, 5000]) await stream.write(whole.subarray(0, size));
        await stream.write(whole);
        await peer.until(() => peer.received(stream.id).length >= 206_010, "all of it");
        assertEquals(peer.received(stream.id).subarray(6010), whole);
        await finish(mux, peer);
        for (const plain of peer.plains) {
          assert(
            plain.length > 0 && plain.length % padBytes === 0,
            `${plain.length} of ${padBytes}`,
          );
          assert(plain.length <= 65519);
        }
      }
    });
  });

  describe(`a ${role} of ours changes its key`, () => {
    const limits: readonly (readonly [number | undefined, number | undefined])[] = [
      ...[[1, undefined], [2, undefined], [undefined, 1], [3, 70_000], [1, 1]] as const,
    ];
    for (const suite of ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const) {
      it(`after what each side has announced, ${suite}`, { timeout: 60_000 }, async () => {
        for (const [rekeyRecords, rekeyBytes] of limits) {
          for (const settings of [[], [3, 1], [4, 1], [3, 5, 4, 40]]) {
            const options = { suites: [suite], rekeyRecords, rekeyBytes };
            const [mux, peer] = await live(isClient, options, { suite, settings });
            const stream = await mux.openStream();
            const whole = data(300_000);
            const writing = stream.write(whole);
            for (let i = 0; i < 20; i++) await peer.send(frame("DATA", stream.id, data(i + 1)));
            await peer.send(frame("FIN", stream.id));
            assertEquals((await readAll(stream)).length, 210);
            await writing;
            await peer.until(() => peer.received(stream.id).length === whole.length, "all of it");
            assertEquals(peer.received(stream.id), whole);
            await finish(mux, peer);
          }
        }
      });
    }
  });

  describe(`a ${role} of ours is told`, () => {
    const told = async (...frames: readonly Uint8Array[]): Promise<[MuxError, Peer2]> => {
      const [mux, peer] = await live(isClient);
      await mux.openStream();
      await peer.send(...frames);
      const error = await mux.closed.then(() => undefined, (it) => it);
      await peer.end();
      assert(error instanceof MuxError, `${error}`);
      return [error, peer];
    };

    const ends = (peer: Peer2) =>
      peer.frames.filter(({ type }) => type === "END").map(({ values }) => values[0]);

    const wrong: readonly (readonly [string, string, number, readonly Uint8Array[]])[] = [
      ["a stream out of turn", "protocol", 1, [frame("OPEN", theirFirst + 2, [3])]],
      ["a stream twice", "protocol", 1, [
        frame("OPEN", theirFirst, [3]),
        frame("OPEN", theirFirst, [3]),
      ]],
      ["a stream with a number of ours", "protocol", 1, [frame("OPEN", first + 2, [3])]],
      ["a priority of 8", "protocol", 1, [frame("OPEN", theirFirst, [8])]],
      ["an open that says no priority", "protocol", 1, [frame("OPEN", theirFirst)]],
      ["data of a stream that never was", "protocol", 1, [frame("DATA", theirFirst, utf8("x"))]],
      ["an end of ours that never was", "protocol", 1, [frame("CLOSE", first + 2)]],
      ["no data in a frame of data", "protocol", 1, [frame("DATA", first)]],
      ["a window opened by nothing", "protocol", 1, [frame("WINDOW", first, [0])]],
      ["a window beyond all", "window", 2, [frame("WINDOW", first, [2 ** 31])]],
      ["a number of 33 bits", "protocol", 1, [frame("PING", 0, [2 ** 32])]],
      ["a frame beyond its record", "protocol", 1, [Uint8Array.of(1, first, 5, 1)]],
      ["half a number", "protocol", 1, [Uint8Array.of(1, 0x80)]],
      ["a type alone", "protocol", 1, [Uint8Array.of(9)]],
      ["more than the window", "window", 2, [
        ...Array.from({ length: 3 }, () => frame("DATA", first, data(20_000))),
      ]],
    ];
    for (const [what, code, number, frames] of wrong) {
      it(`${what}: ${code} on both sides`, { timeout: 60_000 }, async () => {
        if (code === "window" && frames.length > 1) {
          const [mux, peer] = await live(isClient, { windowBytes: 59_999 });
          await mux.openStream();
          await peer.send(...frames);
          assertEquals(await codeOf(mux.closed), "window");
          await peer.end();
          return assertEquals(ends(peer), [number]);
        }
        const [error, peer] = await told(...frames);
        assertEquals(error.code, code, error.message);
        assertEquals(ends(peer), [number]);
      });
    }

    it("more streams than it takes: limit on both sides", { timeout: 60_000 }, async () => {
      const [mux, peer] = await live(isClient, { maxStreams: 2 });
      await peer.send(frame("OPEN", theirFirst, [3]), frame("OPEN", theirFirst + 2, [3]));
      await peer.send(frame("OPEN", theirFirst + 4, [3]));
      assertEquals(await codeOf(mux.closed), "limit");
      await peer.end();
      assertEquals(ends(peer), [3]);
    });

    it("each code of an end", { timeout: 60_000 }, async () => {
      const codes = ["protocol", "window", "limit", "timeout", "protocol"];
      for (const [i, code] of codes.entries()) {
        const [error, peer] = await told(frame("END", 0, [i + 1, first + 2]));
        assertEquals([error.code, error.resetCode], [code, i + 1]);
        assertEquals(ends(peer), []);
      }
    });

    it("a record that is none: protocol, or auth-failed", { timeout: 60_000 }, async () => {
      const [mux, peer] = await live(isClient);
      await peer.conn.write(Uint8Array.of(0, 15, 1, 2, 3));
      assertEquals(await codeOf(mux.closed), "protocol");
      await peer.end();
      const [other, forger] = await live(isClient);
      await forger.conn.write(concat([Uint8Array.of(0, 16), new Uint8Array(16)]));
      assertEquals(await codeOf(other.closed), "auth-failed");
      await forger.end();
    });

    it(
      "types that it does not know, padding and empty records: nothing",
      { timeout: 60_000 },
      async () => {
        const [mux, peer] = await live(isClient);
        const stream = await mux.openStream();
        const padded = concat([frame("DATA", stream.id, utf8("b")), new Uint8Array(40).fill(0)]);
        await peer.send();
        await peer.send(new Uint8Array(1));
        await peer.send(
          Uint8Array.of(13, 0, 0),
          Uint8Array.of(127, 0, 3, 1, 2, 3),
          Uint8Array.of(255, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 9),
          frame("DATA", stream.id, utf8("a")),
        );
        // Behind the padding all is nothing, whatever it is.
        await peer.send(padded, Uint8Array.of(1, 0x80));
        // More numbers than are known.
        await peer.send(frame("FIN", stream.id, [1, 2, 3]));
        assertEquals(text(await readAll(stream)), "ab");
        await finish(mux, peer);
      },
    );
  });

  it(
    `a ${role} of ours takes settings that it does not know, and none`,
    { timeout: 60_000 },
    async () => {
      for (const settings of [[], [99, 7], [6, 2 ** 32 - 1, 1, 5, 2, 3], [1, 1, 1, 100]]) {
        const [mux, peer] = await live(isClient, {}, { settings });
        peer.answering = false;
        const stream = await mux.openStream();
        const writing = stream.write(data(200_000));
        writing.catch(() => {});
        const window = settings.length === 0 || settings[0] === 99
          ? 131072
          : settings.at(-1) === 3
          ? 5
          : 100;
        await peer.until(() => peer.received(stream.id).length === window, "the window");
        // Nothing beyond it: a ping comes back behind all that could be sent.
        await peer.send(frame("PING", 0, [77]));
        while ((await peer.expect("PONG")).values[0] !== 77);
        assertEquals(peer.received(stream.id).length, window);
        mux.abort();
        await peer.end();
      }
    },
  );

  it(`a ${role} of ours refuses settings that are none`, { timeout: 60_000 }, async () => {
    const bad = [[1], [1, 0], [1, 2 ** 31], [2, 0], [3, 0], [3, 65537], [4, 2 ** 30 + 1], [5, 0]];
    for (const settings of [...bad, [1, 5, 2], [2 ** 32, 1]]) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = (isClient ? client : server)(near, OURS);
      const played = (isClient ? Peer2.server : Peer2.client)(far, { settings });
      assertEquals(await codeOf(mux.ready), "protocol", `${settings}`);
      assertEquals(await codeOf(mux.closed), "protocol", `${settings}`);
      await played.then((peer) => peer.end(), () => far.close().catch(() => {}));
    }
  });
}

describe("a server that has seen no record of its client", () => {
  const unconfirmed = async (act: (mux: Mux) => unknown, options: Partial<MuxOptions> = {}) => {
    const [mux, peer] = await withPeer(false, options);
    peer.answering = false;
    await pause(10);
    let ready = false;
    mux.ready.then(() => ready = true, () => {});
    const acted = Promise.resolve(act(mux)).catch((error) => error);
    await pause(50);
    assert(!ready);
    assertEquals(peer.frames, []);
    peer.answering = true;
    return { mux, peer, acted };
  };

  it("opens no stream", { timeout: 60_000 }, async () => {
    const { mux, peer, acted } = await unconfirmed((it) => it.openStream());
    assertEquals(mux.stats().waitingOpens, 1);
    await peer.send(frame("PING", 0, [5]));
    await mux.ready;
    await acted;
    assertEquals((await peer.expect("OPEN")).id, 1);
    await finish(mux, peer);
  });

  it("pings nobody, keeps nothing alive and says no goaway", { timeout: 60_000 }, async () => {
    for (const act of [(it: Mux) => it.ping(), (it: Mux) => it.goAway(), () => {}]) {
      const { mux, peer, acted } = await unconfirmed(act, { keepaliveMs: 10 });
      await peer.send(frame("PING", 0, [5]));
      await mux.ready;
      await acted;
      await finish(mux, peer);
    }
  });

  it("can be closed", { timeout: 60_000 }, async () => {
    const { mux, peer, acted } = await unconfirmed((it) => it.close());
    await peer.end();
    assertEquals(await acted, undefined);
    await mux.closed;
  });

  it("gives up when the time is over", { timeout: 60_000 }, async () => {
    const [mux, peer] = await withPeer(false, { handshakeTimeoutMs: 80, keepaliveMs: 10 });
    peer.answering = false;
    assertEquals(await codeOf(mux.ready), "timeout");
    assertEquals(await codeOf(mux.closed), "timeout");
    await peer.end();
    assertEquals(peer.frames, []);
  });
});

it("data behind the end of a stream is an error", { timeout: 60_000 }, async () => {
  const [mux, peer] = await live(false);
  await peer.send(frame("OPEN", 0, [3]), frame("FIN", 0), frame("DATA", 0, utf8("more")));
  assertEquals(await codeOf(mux.closed), "protocol");
  await peer.end();
});

it("a farewell without an answer is no orderly end", { timeout: 60_000 }, async () => {
  const [mux, peer] = await live(true);
  peer.polite = false;
  const closing = codeOf(mux.close());
  await peer.expect("END");
  await peer.conn.close();
  assertEquals([await closing, await codeOf(mux.closed)], ["truncated", "truncated"]);
  const [other, first] = await live(true);
  await first.send(frame("END", 0, [0, 0]));
  await other.closed;
  await first.end();
  assertEquals(first.frames.at(-1)?.type, "END");
});

it("a peer that says much to nobody fills no memory", { timeout: 60_000 }, async () => {
  const [mux, peer] = await live(false);
  await assertRejects(() => mux.openStream({ signal: AbortSignal.abort() }), MuxError);
  const late = 50;
  await peer.send(frame("OPEN", 0, [3]), frame("CLOSE", 0));
  for (let i = 0; i < late; i++) await peer.send(frame("DATA", 0, utf8("late")));
  await peer.send(frame("PING", 0, [9]));
  while ((await peer.expect("PONG")).values[0] !== 9);
  assertEquals(mux.stats().lateFrames, late);
  await finish(mux, peer);
});
