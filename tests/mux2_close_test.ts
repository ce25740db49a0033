/** How sessions of v2 begin and end: before, during and after the handshake, by either side, by time and by the transport. */
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import { client, type MuxError, type MuxStats, server } from "@trunkline/sockets/mux";
import { closeBoth, codeOf, muxPair, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";
import { frame } from "./mux2_reader.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;
const BOTH = { psk: PSK2, protocol: ["v2", "v1"] } as const;
const ROLES = [["client", client], ["server", server]] as const;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** A test that leaves no rejection unhandled. */
function check(name: string, body: () => Promise<void>): void {
  it(name, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

const EMPTY: Partial<MuxStats> = {
  suite: undefined,
  streams: 0,
  pendingOpens: 0,
  waitingOpens: 0,
  pendingAccepts: 0,
  refusedStreams: 0,
  bytesReceived: 0,
  bytesSent: 0,
  framesReceived: 0,
  framesSent: 0,
  transportWrites: 0,
  rtt: undefined,
};

const pick = (stats: MuxStats) =>
  Object.fromEntries(Object.keys(EMPTY).map((name) => [name, stats[name as keyof MuxStats]]));

describe("before the handshake is done", () => {
  for (const [name, role] of ROLES) {
    check(`a ${name} has no peer, no streams and nothing to tell`, async () => {
      const [near, far] = connPair({ lingerMs: 100 });
      const mux = role(near, V2);
      assertEquals(mux.peerKey, undefined);
      assertEquals(mux.streams, []);
      assertEquals(pick(mux.stats()), EMPTY);
      mux.abort();
      far.abort();
      await codeOf(mux.closed);
      assertEquals(pick(mux.stats()), EMPTY);
    });

    check(`openStream() and acceptStream() of a ${name} wait`, async () => {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = role(near, V2);
      const [opening, accepting] = [mux.openStream({ priority: 1 }), mux.acceptStream()];
      const given = [
        codeOf(mux.openStream({ signal: AbortSignal.timeout(20) })),
        codeOf(mux.acceptStream({ signal: AbortSignal.timeout(20) })),
        codeOf(mux.openStream({ signal: AbortSignal.abort() })),
        codeOf(mux.acceptStream({ signal: AbortSignal.abort() })),
      ];
      assertEquals(mux.stats().waitingOpens >= 2, true);
      assertEquals(await Promise.all(given), ["timeout", "timeout", "aborted", "aborted"]);
      assertEquals(mux.stats().waitingOpens, 1);
      const other = (name === "client" ? server : client)(far, V2);
      const [theirs, ours] = await Promise.all([other.acceptStream(), other.openStream()]);
      assertEquals([(await opening).id, theirs.priority], [theirs.id, 1]);
      assertEquals((await accepting).id, ours.id);
      assertEquals(mux.streams.length, 2);
      await closeBoth(mux, other);
    });

    check(`a ${name} can be closed`, async () => {
      for (const options of [V2, name === "server" ? BOTH : V2]) {
        const [near, far] = connPair({ lingerMs: 100 });
        const mux = role(near, options);
        const calls = [mux.ready, mux.openStream(), mux.acceptStream(), mux.ping(), mux.goAway()]
          .map(codeOf);
        const closing = mux.close();
        assertEquals(await readAll(far).then(() => far.close()), undefined);
        await closing;
        await mux.close();
        await mux.closed;
        assertEquals(await Promise.all(calls), new Array(5).fill("closed"));
        for (const late of [mux.openStream(), mux.acceptStream(), mux.ping(), mux.goAway()]) {
          assertEquals(await codeOf(late), "closed");
        }
        for await (const _ of mux) throw new Error("a stream");
        assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      }
    });

    check(`a ${name} can be aborted`, async () => {
      for (const options of [V2, name === "server" ? BOTH : V2]) {
        const [near, far] = connPair({ lingerMs: 100 });
        const mux = role(near, options);
        const calls = [mux.ready, mux.openStream(), mux.acceptStream(), mux.ping(), mux.goAway()]
          .map(codeOf);
        const why = new Error("why");
        mux.abort(why);
        mux.abort();
        const error: MuxError = await mux.closed.then(() => undefined, (it) => it);
        assertEquals([error.code, error.cause], ["closed", why]);
        assertEquals(await codeOf(mux.close()), "closed");
        assertEquals(await Promise.all(calls), new Array(5).fill("closed"));
        await readAll(far).catch(() => {});
        far.abort();
      }
    });

    check(`a ${name} waits no longer than handshakeTimeoutMs`, async () => {
      const [again, silent] = connPair({ lingerMs: 100 });
      const other = role(again, { ...V2, handshakeTimeoutMs: 50 });
      for (const call of [other.ready, other.closed, other.openStream()]) {
        assertEquals(await codeOf(call), "timeout");
      }
      assertEquals(await codeOf(other.close()), "timeout");
      silent.abort();
    });

    check(`the end of the transport of a ${name} says so`, async () => {
      for (const way of ["close", "abort"] as const) {
        const [near, far] = connPair({ lingerMs: 100 });
        const mux = role(near, V2);
        far[way]();
        const code = name === "client" ? "auth-failed" : "truncated";
        assertEquals([await codeOf(mux.ready), await codeOf(mux.closed)], [code, code]);
        assertEquals(await codeOf(mux.openStream()), code);
        assertEquals(await codeOf(mux.close()), code);
      }
    });
  }

  check("a server of both protocols tells which one once it is ready", async () => {
    for (const protocol of ["v1", "v2"] as const) {
      const [near, far] = muxPair({ psk: PSK2, protocol }, BOTH);
      assertEquals([far.protocol, far.stats().protocol], [undefined, undefined]);
      const opened = near.openStream();
      await far.ready;
      assertEquals([far.protocol, far.stats().protocol], [protocol, protocol]);
      await opened;
      assertEquals([near.protocol, near.stats().protocol], [protocol, protocol]);
      await closeBoth(near, far);
      assertEquals(far.protocol, protocol);
    }
  });

  check(
    "a server of both protocols waits as long as idleTimeoutMs for the first byte, then hurries",
    async () => {
      const [near, far] = connPair({ lingerMs: 100 });
      const mux = server(near, { ...BOTH, handshakeTimeoutMs: 60, idleTimeoutMs: 100_000 });
      await pause(150);
      assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
      const peer = client(far, V2);
      await Promise.all([mux.ready, peer.ready]);
      await closeBoth(mux, peer);
      for (const bytes of [utf8("M"), utf8("MUX2"), Uint8Array.of(1)]) {
        const [ours, theirs] = connPair({ lingerMs: 100 });
        const slow = server(ours, { ...BOTH, handshakeTimeoutMs: 60 });
        await theirs.write(bytes);
        assertEquals(await codeOf(slow.closed), "timeout");
        theirs.abort();
      }
      const [ours, theirs] = connPair({ lingerMs: 100 });
      const silent = server(ours, { ...BOTH, idleTimeoutMs: 60 });
      assertEquals(await codeOf(silent.closed), "timeout");
      theirs.abort();
    },
  );
});

describe("a session that is closed or aborted while it begins", () => {
  for (const way of ["close", "abort"] as const) {
    for (const side of [0, 1] as const) {
      check(`${way}() of side ${side} at any moment`, async () => {
        for (let turns = 0; turns < 110; turns++) {
          const pair = muxPair({ ...V2, closeTimeoutMs: 1000 });
          const [mux, other] = [pair[side]!, pair[1 - side]!];
          const opening = mux.openStream().then(() => "opened", (error) => error.code);
          for (let i = 0; i < turns; i++) await undefined;
          const ended = way === "close" ? mux.close() : mux.abort();
          const how = await mux.closed.then(() => "in order", (error) => error.code);
          await Promise.resolve(ended).catch(() => {});
          // A peer that never began is told of no farewell, so that it may take ours for a cut.
          assert(
            way === "abort" ? how === "closed" : ["in order", "truncated"].includes(how),
            `${turns}: ${how}`,
          );
          if (way === "close") assertEquals(how, "in order", `after ${turns} turns`);
          assert(["opened", "closed"].includes(await opening), `${await opening}`);
          const theirs = await other.closed.then(() => "in order", (error) => error.code);
          assert(["in order", "truncated", "auth-failed"].includes(theirs), theirs);
          assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
          assertEquals(leftovers(other.stats()), NOTHING_LEFT);
        }
      });
    }
  }
});

describe("a session", () => {
  check("says all of itself once it is ready, and afterwards", async () => {
    const [near, far] = muxPair(V2);
    await Promise.all([near.ready, far.ready]);
    for (const mux of [near, far]) {
      await mux.ping();
      const stats = mux.stats();
      assertEquals(
        [stats.protocol, stats.suite, stats.peerCounts, stats.streams],
        ["v2", "ChaChaPoly_BLAKE2b", true, 0],
      );
      assert(stats.rtt! >= 0 && typeof stats.aead === "string");
      assertEquals([mux.protocol, mux.peerKey], ["v2", undefined]);
    }
    const [stream, accepted] = await streamPair(near, far);
    await stream.write(new Uint8Array(1000));
    assertEquals((await accepted.read())!.length, 1000);
    assertEquals([near.stats().bytesSent, far.stats().bytesReceived], [1000, 1000]);
    assertEquals([near.stats().bytesReceived, far.stats().bytesSent], [0, 0]);
    await closeBoth(near, far);
    assertEquals(near.stats().framesSent, far.stats().framesReceived);
    assertEquals(far.stats().framesSent, near.stats().framesReceived);
    assertEquals([near.stats().bytesSent, near.protocol], [1000, "v2"]);
  });

  check("is closed by both at once", async () => {
    for (let i = 0; i < 20; i++) {
      const [near, far] = muxPair(V2);
      const [stream, accepted] = await streamPair(near, far);
      const reading = accepted.read();
      await stream.write(utf8("last words"));
      assertEquals(text(await reading), "last words");
      await closeBoth(near, far);
      await Promise.all([near.closed, far.closed]);
    }
  });

  check("sends all before its farewell, and the peer reads it behind that", async () => {
    for (const side of [0, 1] as const) {
      const pair = muxPair(V2);
      const [mux, other] = [pair[side]!, pair[1 - side]!];
      const bytes = crypto.getRandomValues(new Uint8Array(60_000));
      const stream = await mux.openStream();
      const writing = stream.write(bytes);
      const late = await mux.openStream();
      const closing = mux.close();
      await Promise.all([writing, closing, other.closed]);
      const accepted = await other.acceptStream();
      assertEquals(await readAll(accepted), bytes);
      assertEquals((await other.acceptStream()).id, late.id);
      assertEquals(await codeOf(other.acceptStream()), "peer-closed");
      assertEquals(await codeOf(other.openStream()), "peer-closed");
      assertEquals(await codeOf(other.ping()), "peer-closed");
      assertEquals(await codeOf(mux.ping()), "closed");
    }
  });

  check("that is aborted breaks the transport", async () => {
    for (const side of [0, 1] as const) {
      const pair = muxPair(V2);
      const [mux, other] = [pair[side]!, pair[1 - side]!];
      const [stream, accepted] = await streamPair(mux, other);
      mux.abort();
      assertEquals(await codeOf(stream.read()), "closed");
      assertEquals(await codeOf(accepted.read()), "truncated");
      assertEquals([await codeOf(mux.closed), await codeOf(other.closed)], ["closed", "truncated"]);
    }
  });

  check("gives close() up after closeTimeoutMs", async () => {
    const { ends: [near, far], there } = lines();
    const [mux, other] = [client(near, { ...V2, closeTimeoutMs: 100 }), server(far, V2)];
    const [stream] = await streamPair(mux, other);
    there.hold();
    const writing = stream.write(new Uint8Array(100_000));
    writing.catch(() => {});
    assertEquals(await codeOf(mux.close()), "timeout");
    assertEquals(await codeOf(mux.closed), "timeout");
    there.release();
    other.abort();
    await codeOf(other.closed);
  });

  check("gives up a peer that answers no farewell", async () => {
    const [near, far] = connPair({ lingerMs: 100 });
    const mux = client(near, { ...V2, closeTimeoutMs: 80 });
    const peer = await Peer2.server(far);
    peer.polite = false;
    // It neither answers nor ends.
    peer.conn.close = () => Promise.resolve();
    await mux.ready;
    assertEquals(await codeOf(mux.close()), "timeout");
    assertEquals(await codeOf(mux.closed), "timeout");
    far.abort();
  });

  check("ends with its signal's wait alone", async () => {
    const [near, far] = muxPair(V2);
    await near.ready;
    assertEquals(await codeOf(near.close({ signal: AbortSignal.abort() })), "aborted");
    await Promise.all([near.closed, far.closed]);
  });
});

describe("time", () => {
  check("a peer that is silent for idleTimeoutMs is given up, and told", async () => {
    for (const [name, role] of ROLES) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = role(near, { ...V2, idleTimeoutMs: 100 });
      const peer = await (name === "client" ? Peer2.server : Peer2.client)(far);
      await peer.send(frame("PING", 0, [1]));
      peer.answering = false;
      await mux.ready;
      assertEquals(await codeOf(mux.closed), "timeout");
      await peer.end();
      assertEquals(peer.frames.at(-1)?.type, "END");
      assertEquals(peer.frames.at(-1)?.values[0], 4);
    }
  });

  check("each side keeps the other's idleTimeoutMs", async () => {
    const [near, far] = muxPair({ ...V2, idleTimeoutMs: 150 }, V2);
    await near.ready;
    await pause(600);
    await near.ping();
    await closeBoth(near, far);
    const [one, other] = muxPair(V2, { ...V2, idleTimeoutMs: 150 });
    await one.ready;
    await pause(600);
    await one.ping();
    await closeBoth(one, other);
  });

  check("a keepalive is a ping, every keepaliveMs", async () => {
    for (const [name, role] of ROLES) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = role(near, { ...V2, keepaliveMs: 20 });
      const peer = await (name === "client" ? Peer2.server : Peer2.client)(far);
      await peer.send(frame("PING", 0, [1]));
      await mux.ready;
      for (let i = 0; i < 6; i++) await peer.expect("PING");
      await mux.close();
    }
  });
});
