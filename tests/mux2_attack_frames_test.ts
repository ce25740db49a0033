/** A peer that has the psk, and keeps to no rule: frames that are none, or not now. Each ends the session with a code that tells why, on both sides. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import type { MuxOptions, MuxStream } from "@trunkline/sockets/mux";
import { TYPE } from "../mux/v2/frame.ts";
import { codeOf, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { dataFrame, frame, numbers, peered, type RoguePeer } from "./mux2_rogue.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
/** What the peer is told: 1 protocol, 2 window, 3 limit. */
const END_CODES: Readonly<Record<string, number>> = { protocol: 1, window: 2, limit: 3 };
const SIDES = [[true, "server"], [false, "client"]] as const;

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

async function drain(stream: MuxStream): Promise<void> {
  while (await stream.read() !== null);
}

/** What the peer sends, behind an open of a stream of its own, `id`; `ours` is the number of one of the session. */
type Bad = (peer: RoguePeer, id: number, ours: number) => readonly Uint8Array[];

async function assertEnds(bad: Bad, code: string, what: string, options: Options = {}) {
  for (const [isClient] of SIDES) {
    const { mux, peer, theirs } = await peered(isClient, options);
    const running = peer.run();
    await peer.send(frame(TYPE.OPEN, theirs, 3), dataFrame(theirs, utf8("before")));
    const stream = await mux.acceptStream();
    assertEquals(text(await stream.read()), "before");
    const opened = await mux.openStream();
    await peer.came(TYPE.OPEN, opened.id);
    const reading = codeOf(opened.read());
    await peer.conn.write(concat(bad(peer, theirs, opened.id)));
    assertEquals(await codeOf(mux.closed), code, what);
    assertEquals([await reading, await codeOf(drain(stream))], [code, code], what);
    assertEquals(await codeOf(opened.write(utf8("more"))), code, what);
    assertEquals(await codeOf(mux.ping()), code, what);
    assertEquals(leftovers(mux.stats()), NOTHING_LEFT, what);
    assertEquals((await peer.came(TYPE.END)).first, END_CODES[code], what);
    await running;
  }
}

const RAW = (...bytes: readonly number[]): Bad => (peer) => [peer.seal(Uint8Array.of(...bytes))];
const BAD: readonly (readonly [string, string, Bad])[] = [
  ["a frame that goes beyond its record", "protocol", RAW(TYPE.DATA, 0, 9, 1, 2)],
  ["a frame that ends within its number", "protocol", RAW(TYPE.FIN, 0x80)],
  ["a frame without a length", "protocol", RAW(TYPE.FIN, 0)],
  ["a frame that has not the number it needs", "protocol", RAW(TYPE.PING, 0, 0)],
  ["a frame whose number goes beyond it", "protocol", RAW(TYPE.PING, 0, 1, 0x80, 1)],
  ["a number of 33 bits", "protocol", RAW(TYPE.PING, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x1f)],
  ["a number of six bytes", "protocol", RAW(TYPE.PING, 0, 6, 0x80, 0x80, 0x80, 0x80, 0x80, 0)],
  ["data without data", "protocol", (peer, id) => [peer.seal(dataFrame(id, new Uint8Array(0)))]],
  ["a window opened by nothing", "protocol", (peer, _, ours) => [
    peer.seal(frame(TYPE.WINDOW, ours, 0)),
  ]],
  ["a window beyond 2^31-1", "window", (peer, _, ours) => [
    peer.seal(frame(TYPE.WINDOW, ours, 2 ** 31 - 131072)),
  ]],
  ["a window beyond 2^31-1 by two grants", "window", (peer, _, ours) => [
    peer.seal(frame(TYPE.WINDOW, ours, 2 ** 30)),
    peer.seal(frame(TYPE.WINDOW, ours, 2 ** 30)),
  ]],
  ["a window of 2^32-1", "window", (peer, id) => [peer.seal(frame(TYPE.WINDOW, id, 2 ** 32 - 1))]],
  [
    "more data than the window allows",
    "window",
    (peer, id) => Array.from({ length: 3 }, () => peer.seal(dataFrame(id, new Uint8Array(50_000)))),
  ],
  ["more data than is left of the window by one byte", "window", (peer, id) => [
    ...Array.from({ length: 2 }, () => peer.seal(dataFrame(id, new Uint8Array(60_000)))),
    peer.seal(dataFrame(id, new Uint8Array(131072 - 6 - 120_000 + 1))),
  ]],
  ["an open of a number of ours", "protocol", (peer, _, ours) => [
    peer.seal(frame(TYPE.OPEN, ours + 2, 3)),
  ]],
  ["an open of the same number again", "protocol", (peer, id) => [
    peer.seal(frame(TYPE.OPEN, id, 3)),
  ]],
  ["an open that skips a number", "protocol", (peer, id) => [
    peer.seal(frame(TYPE.OPEN, id + 4, 3)),
  ]],
  ["an open with a priority that is none", "protocol", (peer, id) => [
    peer.seal(frame(TYPE.OPEN, id + 2, 8)),
  ]],
  ["a record shorter than a tag", "protocol", () => [new Uint8Array(2 + 15).fill(15, 1, 2)]],
  ["a record of no bytes", "protocol", () => [new Uint8Array(2)]],
];
/** Each of these for a stream that never was, of either side. */
const STREAM_FRAMES: readonly (readonly [string, (id: number) => Uint8Array])[] = [
  ["data", (id) => dataFrame(id, utf8("x"))],
  ["FIN", (id) => frame(TYPE.FIN, id)],
  ["STOP", (id) => frame(TYPE.STOP, id, 0)],
  ["CLOSE", (id) => frame(TYPE.CLOSE, id)],
  ["RESET", (id) => frame(TYPE.RESET, id, 0)],
  ["WINDOW", (id) => frame(TYPE.WINDOW, id, 1)],
];

for (const [what, code, bad] of BAD) {
  check(`protocol: ${what} is ${code}`, () => assertEnds(bad, code, what));
}

check(
  "protocol: an end with a code that there is not is protocol, and is not answered",
  async () => {
    for (const code of [5, 99, 2 ** 32 - 1]) {
      for (const [isClient] of SIDES) {
        const { mux, peer } = await peered(isClient);
        const running = peer.run();
        await peer.send(frame(TYPE.END, 0, code, 0));
        const [result] = await Promise.allSettled([mux.closed]);
        const { reason } = result as PromiseRejectedResult;
        assertEquals([reason.code, reason.resetCode], ["protocol", code]);
        await running;
        assert(!peer.frames.some(({ type }) => type === TYPE.END));
      }
    }
  },
);

for (const [name, make] of STREAM_FRAMES) {
  check(`protocol: ${name} for a stream that never was is protocol`, async () => {
    for (const whose of ["theirs", "ours"] as const) {
      const bad: Bad = (peer, id, ours) => [peer.seal(make((whose === "ours" ? ours : id) + 2))];
      await assertEnds(bad, "protocol", `${name}, ${whose}`);
      const far: Bad = (peer, id, ours) => [
        peer.seal(make((whose === "ours" ? ours : id) + 2 ** 31)),
      ];
      await assertEnds(far, "protocol", `${name}, ${whose}, far`);
    }
  });
}

check("protocol: data behind the end of what was written is protocol", async () => {
  for (const [isClient] of SIDES) {
    const { mux, peer, theirs } = await peered(isClient);
    const running = peer.run();
    await peer.send(frame(TYPE.OPEN, theirs, 3), frame(TYPE.FIN, theirs));
    const stream = await mux.acceptStream();
    assertEquals(await stream.read(), null);
    await peer.send(dataFrame(theirs, utf8("more")));
    assertEquals(await codeOf(mux.closed), "protocol");
    assertEquals((await peer.came(TYPE.END)).first, END_CODES["protocol"]);
    await running;
  }
});

check(
  "protocol: each type that there is not is skipped, and so is what frames have besides",
  async () => {
    for (const [isClient] of SIDES) {
      const { mux, peer, theirs } = await peered(isClient);
      const running = peer.run();
      for (let type = 13; type < 256; type++) {
        await peer.send(frame(type, 2 * type, 1, 2), Uint8Array.of(type, 0, 0));
      }
      await peer.send(frame(TYPE.OPEN, theirs, 3, 7, 8, 9), dataFrame(theirs, utf8("here")));
      // Padding, which may be anything.
      await peer.send(frame(TYPE.FIN, theirs, 5), new Uint8Array(100), utf8("padding"));
      const stream = await mux.acceptStream();
      assertEquals([text(await stream.read()), await stream.read()], ["here", null]);
      await peer.send(frame(TYPE.END, 0, 0, 0, 1, 2));
      await Promise.all([mux.closed, running]);
    }
  },
);

check("protocol: pongs that nobody asked for, or of another number, measure nothing", async () => {
  for (const [isClient] of SIDES) {
    const { mux, peer } = await peered(isClient);
    const pongs = [0, 1, 2, 1, 2 ** 32 - 1].map((number) => frame(TYPE.PONG, 0, number));
    if (!isClient) await peer.send(frame(TYPE.PING, 0, 7));
    await peer.send(frame(TYPE.PONG, 0, 1000), ...pongs.filter((_, i) => i > 1 && i !== 3));
    await mux.ready;
    const running = peer.run();
    assert(await mux.ping() >= 0);
    await peer.send(...pongs);
    await mux.close();
    await running;
  }
});

check("protocol: frames for a stream that is over are counted, and change nothing", async () => {
  for (const [isClient] of SIDES) {
    const { mux, peer, theirs } = await peered(isClient);
    const running = peer.run();
    await peer.send(frame(TYPE.OPEN, theirs, 3), frame(TYPE.RESET, theirs, 7));
    const stream = await mux.acceptStream();
    assertEquals(await codeOf(stream.read()), "reset");
    for (const [, make] of STREAM_FRAMES) await peer.send(make(theirs), make(theirs));
    await mux.ping();
    assertEquals(mux.stats().lateFrames, 2 * STREAM_FRAMES.length);
    await mux.close();
    await running;
  }
});

check("protocol: settings that are none end the handshake", async () => {
  const settings: readonly Uint8Array[] = [
    numbers(1, 0),
    numbers(1, 2 ** 31),
    numbers(2, 0),
    numbers(3, 0),
    numbers(3, 65537),
    numbers(4, 0),
    numbers(4, 2 ** 30 + 1),
    numbers(5, 0),
    numbers(1),
    Uint8Array.of(1, 0x80),
    Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff, 0x1f),
    Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1),
    new Uint8Array(3000).fill(0xff),
  ];
  for (const [isClient] of SIDES) {
    for (const bytes of settings) {
      const what = bytes.slice(0, 8).join();
      const [result] = await Promise.allSettled([peered(isClient, {}, bytes)]);
      // A client hears of it when the peer is done, and the server before.
      if (result.status === "rejected") continue;
      const { mux, peer } = result.value;
      const running = peer.run();
      assertEquals(await codeOf(mux.closed), "protocol", what);
      assertEquals(await codeOf(mux.ready), "protocol", what);
      assertEquals(leftovers(mux.stats()), NOTHING_LEFT, what);
      await running;
    }
  }
});

check("protocol: settings that are not known are skipped", async () => {
  for (const [isClient] of SIDES) {
    const { mux, peer } = await peered(isClient, {}, numbers(99, 1, 1, 5, 2 ** 32 - 1, 0));
    const running = peer.run();
    if (!isClient) await peer.send(frame(TYPE.PING, 0, 7));
    await mux.ready;
    const stream = await mux.openStream();
    // The window that it has told.
    const writing = stream.write(utf8("more than five"));
    assertEquals(text((await peer.came(TYPE.DATA, stream.id)).data), "more ");
    mux.abort();
    assertEquals(await codeOf(writing), "closed");
    await running;
  }
});
