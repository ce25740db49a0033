/** Bytes that were fed to a real gomux server, and raw recordings, fed to sessions of ours: what is read, and how it ends. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  type Aead,
  client,
  FLAG,
  type Mux,
  type MuxErrorCode,
  type MuxStream,
  nobleAead,
  server,
} from "@trunkline/sockets/mux";
import { codeOf } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, Peer, randomOf } from "./mux_peer.ts";
import { loadSession, otherSide, type Recorded, type Side } from "./mux_recordings.ts";
import { fixture, fixtureJson, fromHex, toHex } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

interface Case {
  readonly name: string;
  readonly note: string;
  readonly psk: string;
  readonly key_hex: string;
  readonly input_hex?: string;
  readonly input_bin?: string;
  readonly observed: {
    readonly mux: string;
    readonly accepted_streams_in_order:
      | readonly {
        readonly data: { readonly bytes: number; readonly hex?: string };
        readonly end: string;
      }[]
      | null;
    readonly window_update_total: number;
  };
}

/** How a stream or a session stands: alive, ended in order, or failed. */
type End = "open" | "end" | MuxErrorCode;

interface Wanted {
  /** Of the session. */
  readonly end: End;
  /** How many bytes are read on each stream, and what comes then. */
  readonly streams: readonly (readonly [bytes: number, end: End])[];
  readonly strayFrames?: number;
}

const alive = (...streams: Wanted["streams"]): Wanted => ({ end: "open", streams });
const fails = (end: End, ...bytes: number[]): Wanted => ({
  end,
  streams: bytes.map((length) => [length, end]),
});

const BEHAVIOUR: Record<string, Wanted> = {
  plain: alive([6, "end"]),
  "zero-length-data": alive([6, "open"]),
  "data-before-open": { ...alive([6, "open"]), strayFrames: 1 },
  "unknown-stream-all-flags": { ...alive([6, "open"]), strayFrames: 5 },
  "unknown-flag-8": alive([6, "open"]),
  "unknown-flag-max": alive([6, "open"]),
  "unknown-flag-oversize": fails("protocol", 6),
  "keepalive-odd-fields": alive([6, "open"]),
  "open-with-length": alive([6, "open"]),
  "closemux-with-fields": { end: "end", streams: [[6, "peer-closed"]] },
  // gomux orphans the first stream.
  "dup-open": fails("protocol", 5),
  // gomux accepts a stream that may be its own next one.
  "odd-id-from-client": fails("protocol"),
  "half-close": alive([4, "end"]),
  "close-then-data": alive([4, "end"]),
  "close-then-reopen": alive([3, "end"], [3, "end"]),
  // gomux delivers it twice.
  "duplicate-data-replay": fails("protocol", 3),
  "oversize-data": fails("protocol", 6),
  // A legal length, but nothing was sent that could be granted again: gomux would add it up until it wraps, had it survived the length.
  "oversize-windowupdate": fails("window", 6),
  "oversize-windowupdate-131072": fails("window", 6),
  "max-data": alive([131072, "open"]),
  "truncated-header": alive([6, "open"]),
  "wrong-psk": fails("auth-failed", 6),
  ...Object.fromEntries(
    [0, 4, 8, 12, 35, 36, 41, 42, 57].map((at) => [`tamper-byte-${at}`, fails("auth-failed", 2)]),
  ),
  "swapped-tag": fails("auth-failed", 0),
  "spliced-id": fails("auth-failed", 0),
  garbage: fails("protocol"),
};

/** Reads a stream until it ends, and tells how; "open" if that is told from outside. */
async function readOut(stream: MuxStream, quiet: Promise<void>): Promise<[Uint8Array, End]> {
  const bytes: number[] = [];
  const stop = new AbortController();
  quiet.then(() => stop.abort());
  for (;;) {
    try {
      const chunk = await stream.read({ signal: stop.signal });
      if (chunk === null) return [Uint8Array.from(bytes), "end"];
      for (const byte of chunk) bytes.push(byte);
    } catch (error) {
      const { code } = error as { code: MuxErrorCode };
      return [Uint8Array.from(bytes), code === "aborted" ? "open" : code];
    }
  }
}

const endOf = (mux: Mux): Promise<End> =>
  mux.closed.then(() => "end" as const, (error) => error.code);

/** Opens a stream of ours and hears of it on the wire: all that was fed has been taken by then. */
async function probe(mux: Mux, peer: Peer): Promise<void> {
  const frames = mux.stats().framesReceived;
  await peer.send({ id: 0, flags: FLAG.KEEPALIVE });
  while (mux.stats().framesReceived === frames) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

async function feed(vector: Case, wanted: Wanted, cut: () => number): Promise<void> {
  const input = vector.input_bin ? fixture(vector.input_bin) : fromHex(vector.input_hex!);
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = server(near, { psk: vector.psk });
  const peer = new Peer(far, fromHex(vector.key_hex), cut);
  const quiet = Promise.withResolvers<void>();
  const results: Promise<[Uint8Array, End]>[] = [];
  const accepting = (async () => {
    for await (const stream of mux) results.push(readOut(stream, quiet.promise));
  })().catch(() => {});
  await peer.sendRaw(input);
  if (wanted.end === "open" && vector.name !== "truncated-header") await probe(mux, peer);
  else if (wanted.end !== "open") assertEquals(await endOf(mux), wanted.end);
  else while (mux.stats().bytesReceived < 6) await new Promise((done) => setTimeout(done, 1));
  quiet.resolve();
  // The reads that are under way first.
  await new Promise((resolve) => setTimeout(resolve, 1));

  const read = await Promise.all(results);
  const ends = read.map(([bytes, end]) => [bytes.length, end] as const);
  assertEquals(ends, [...wanted.streams]);
  for (const [i, [bytes]] of read.entries()) {
    const { hex } = vector.observed.accepted_streams_in_order![i]!.data;
    if (hex !== undefined) assert(hex.startsWith(toHex(bytes)), `stream ${i}: ${toHex(bytes)}`);
  }
  const { strayFrames, refusedStreams } = mux.stats();
  assertEquals([strayFrames, refusedStreams], [wanted.strayFrames ?? 0, 0]);
  if (wanted.end === "open") {
    await peer.conn.close();
    assertEquals(await endOf(mux), "truncated");
  }
  await accepting;
  await peer.end();
  let credit = 0;
  for (const { flags, length } of peer.frames) {
    const known: number[] = [FLAG.KEEPALIVE, FLAG.WINDOW_UPDATE];
    assert(known.includes(flags), `an answer with flags ${flags}`);
    if (flags === FLAG.WINDOW_UPDATE) credit += length;
  }
  assert(credit <= vector.observed.window_update_total, `${credit} bytes granted`);
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
}

const { cases: CASES } = fixtureJson<{ cases: Case[] }>("behaviour.json");

for (const [i, vector] of CASES.entries()) {
  test(`mux: what gomux was fed: ${vector.name}`, { timeout: 20_000 }, async () => {
    const wanted = BEHAVIOUR[vector.name];
    assert(wanted !== undefined, vector.note);
    // What gomux survives, and is not stricter in ours on purpose, ours does too.
    const stricter = ["dup-open", "odd-id-from-client", "duplicate-data-replay"];
    if (vector.observed.mux === "(alive)" && !stricter.includes(vector.name)) {
      assertEquals(wanted.end, "open");
    }
    const random = randomOf(i);
    const cuts = [() => Infinity, () => 1 + Math.floor(random() * 99)];
    if (vector.input_hex !== undefined) cuts.push(() => 1);
    assertEquals(
      await unhandledDuring(async () => {
        for (const cut of cuts) await feed(vector, wanted, cut);
      }),
      [],
    );
  });
}

test("mux: every case that gomux was fed has an outcome here", () => {
  assertEquals(CASES.map(({ name }) => name).toSorted(), Object.keys(BEHAVIOUR).toSorted());
});

const WINDOW_BYTES = 131072;

/** What a recording must do to a session that only reads, and has its streams open: it was made for another peer, which sent and granted. */
function outcomeOf(recorded: Recorded, side: Side): End {
  const { frames, streams } = recorded[side];
  if (frames.some(({ flags }) => flags === FLAG.WINDOW_UPDATE)) return "window";
  if (streams.some(({ length }) => length > WINDOW_BYTES)) return "window";
  return frames.some(({ flags }) => flags === FLAG.CLOSE_MUX) ? "end" : "truncated";
}

/** Feeds one side's bytes as they are; nothing is read before the end, so that nothing is granted. */
async function feedRaw(recorded: Recorded, side: Side, cut: () => number): Promise<void> {
  const [near, far] = connPair({ lingerMs: 500 });
  const ours = otherSide(side);
  const mux = (ours === "client" ? client : server)(near, { psk: recorded.psk });
  const peer = new Peer(far, recorded.key, cut);
  peer.granting = false;
  const streams = new Map<number, MuxStream>();
  for (const { id, opened } of recorded[ours].streams) {
    if (!opened) continue;
    const stream = await mux.openStream();
    assertEquals(stream.id, id);
    streams.set(id, stream);
  }
  await peer.sendRaw(recorded[side].bytes);
  await peer.conn.closeWrite().catch(() => {});
  const end = outcomeOf(recorded, side);
  assertEquals(await endOf(mux), end);

  for (;;) {
    const next = await mux.acceptStream().catch(() => undefined);
    if (next === undefined) break;
    streams.set(next.id, next);
  }
  for (const [id, stream] of streams) {
    const payload = recorded[side].payload(id);
    const [bytes, how] = await readOut(stream, new Promise(() => {}));
    assertEquals(toHex(bytes), toHex(payload.subarray(0, bytes.length)), `prefix of stream ${id}`);
    if (end !== "window") assertEquals(bytes.length, payload.length);
    const closes = recorded[side].streams.find((it) => it.id === id)!.closes;
    if (how === "end") assert(closes.includes("CloseRead") || closes.includes("CloseStream"));
    else assertEquals(how, end === "end" ? "peer-closed" : end);
  }
  await peer.end();
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
}

const SESSIONS = [
  ...["hello", "half-close", "server-opens", "many-echo", "bulk-window", "window-stall"],
  ...["close-read", "mux-close-open-streams", "big-read", "cut-mid-frame"],
];

for (const [i, name] of SESSIONS.entries()) {
  test(
    `mux: the raw bytes of the recorded session ${name}, cut anywhere`,
    { timeout: 60_000 },
    async () => {
      const recorded = loadSession(name);
      const random = randomOf(i);
      assertEquals(
        await unhandledDuring(async () => {
          for (const side of ["client", "server"] as const) {
            const most = Math.max(20, recorded[side].bytes.length / 20);
            const cuts = [() => Infinity];
            for (let run = 0; run < 5; run++) cuts.push(() => 1 + Math.floor(random() * most));
            for (const cut of cuts) await feedRaw(recorded, side, cut);
          }
        }),
        [],
      );
    },
  );
}

test("mux: a recorded session of another psk says nothing before it is refused", {
  timeout: 20_000,
}, async () => {
  for (const side of ["client", "server"] as const) {
    const { bytes, frames } = loadSession("half-close")[side];
    assert(frames.length > 0);
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = (side === "client" ? server : client)(near, { psk: "open sesame" });
    const peer = new Peer(far, new Uint8Array(32));
    await peer.sendRaw(bytes);
    assertEquals(await codeOf(mux.closed), "auth-failed");
    await peer.end();
    assertEquals(mux.stats().framesReceived, 0);
    if (side === "client") assertEquals(mux.stats().framesSent, 0);
  }
});

test("mux: grants are added up, and never wrap", { timeout: 20_000 }, async () => {
  const { psk, key } = loadSession("hello");
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = server(near, { psk });
  const peer = new Peer(far, key);
  peer.granting = false;
  await peer.send({ id: 0, flags: FLAG.OPEN_STREAM });
  const stream = await mux.acceptStream();
  await stream.write(new Uint8Array(70_000));
  await peer.until(() => peer.seen(0).bytes === 70_000, "what was written");
  for (const length of [65536, 4464, 0]) {
    await peer.send({ id: 0, flags: FLAG.WINDOW_UPDATE, length });
  }
  await probe(mux, peer);
  await peer.send({ id: 0, flags: FLAG.WINDOW_UPDATE, length: 1 });
  assertEquals(await codeOf(mux.closed), "window");
  assertEquals(await codeOf(stream.write(new Uint8Array(1))), "window");
  assertEquals(await codeOf(stream.read()), "window");
});

test(
  "mux: more than the window is refused, and what fits is still read",
  { timeout: 20_000 },
  async () => {
    const { psk, key } = loadSession("hello");
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = server(near, { psk });
    const peer = new Peer(far, key);
    await peer.send({ id: 0, flags: FLAG.OPEN_STREAM });
    for (const length of [65536, 65535, 1, 1]) {
      await peer.send({ id: 0, flags: FLAG.DATA, payload: new Uint8Array(length).fill(length) });
    }
    assertEquals(await codeOf(mux.closed), "window");
    const [bytes, end] = await readOut(await mux.acceptStream(), new Promise(() => {}));
    assertEquals([bytes.length, bytes[WINDOW_BYTES - 1], end], [WINDOW_BYTES, 1, "window"]);
  },
);

test(
  "mux: a write that the session's end cuts short tells what was sent, also while the rest is sealed",
  {
    timeout: 20_000,
  },
  async () => {
    const { psk, key } = loadSession("hello");
    const [near, far] = connPair({ lingerMs: 500 });
    let stuck: (() => void) | undefined;
    const aead: Aead = {
      ...nobleAead,
      seal: async (boxes) => {
        if (boxes.some(({ input }) => input.length === 8928)) {
          await new Promise<never>(() => stuck!());
        }
        await nobleAead.seal(boxes);
      },
    };
    const mux = client(near, { psk, aead });
    const peer = new Peer(far, key);
    peer.granting = false;
    const stream = await mux.openStream();
    const error = stream.write(new Uint8Array(140_000)).then(() => undefined, (error) => error);
    await peer.until(() => peer.seen(0).bytes === 131072, "a full window");
    const sealing = new Promise<void>((resolve) => stuck = resolve);
    await peer.grant(0, 131072);
    await sealing;
    mux.abort();
    const { code, written } = await error;
    assertEquals(code, "closed");
    assert(written >= 131072, `${written} bytes`);
  },
);
