/** How what streams of v2 write gets across: in which order, in which records, and all of it. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import { client, server } from "@trunkline/sockets/mux";
import { closeBoth, muxPair, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { lines } from "./mux2_line.ts";
import { Peer2, PSK2 } from "./mux2_peer.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

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
