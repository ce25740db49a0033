/** The recorded sessions of gomux, with one of their sides played by a session of ours: once the server, once the client. */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { client, type Mux, MuxError, type MuxStream, server } from "@trunkline/sockets/mux";
import { codeOf, readAll } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT, Peer, randomOf } from "./mux_peer.ts";
import { loadSession, otherSide, playSide, type Side } from "./mux_recordings.ts";
import { toHex } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

/** What an application has in a session that is played. */
interface Stage {
  readonly mux: Mux;
  readonly peer: Peer;
  /** What its side of the recording sent on a stream. */
  payload(id: number): Uint8Array;
  /** Keeps what the application has read of a stream. */
  got(stream: MuxStream, bytes: Uint8Array): void;
}

interface Play {
  /** The application on each side. What it does follows the note of the recording. */
  readonly server: (stage: Stage) => Promise<void>;
  readonly client: (stage: Stage) => Promise<void>;
  /** The end of streams by ours, where gomux ends them otherwise: it never removes a stream by itself, nor closes those of its mux. */
  readonly closes?: Partial<Record<Side, Record<number, string[]>>>;
  /** True: the grants of the recording are played too, and the peer makes none. */
  readonly grants?: boolean;
  /** The end of the session, if not in order. */
  readonly end?: string;
}

/** Reads exactly `length` bytes, which are there one after the other. */
async function readBytes(stream: MuxStream, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const chunk = await stream.read();
    assert(chunk !== null && at + chunk.length <= length, `${at} of ${length} bytes`);
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** Reads to the end and keeps it. */
async function readToEnd({ got }: Stage, stream: MuxStream): Promise<Uint8Array> {
  const bytes = await readAll(stream);
  got(stream, bytes);
  return bytes;
}

/** Accepts so many streams and sends back what comes on them, to the end. */
async function echo(stage: Stage, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, async () => {
    const stream = await stage.mux.acceptStream();
    const bytes = await readToEnd(stage, stream);
    await stream.write(bytes);
    await stream.closeWrite();
    await stream.closed;
  }));
}

/** Opens streams for `ids` and wants back what is written to them. */
async function askEcho(stage: Stage, ids: readonly number[]): Promise<void> {
  await Promise.all(ids.map(async (id) => {
    const stream = await stage.mux.openStream();
    assertEquals(stream.id, id);
    await Promise.all([stream.write(stage.payload(id)), stream.closeWrite()]);
    await readToEnd(stage, stream);
    await stream.close();
  }));
}

/** The code of a read that fails behind what was there. */
async function readToError({ got }: Stage, stream: MuxStream, length: number): Promise<string> {
  got(stream, await readBytes(stream, length));
  return await codeOf(stream.read());
}

const BOTH_ENDED = ["CloseRead", "CloseStream"];
const withIds = (ids: readonly number[], closes: string[]) =>
  Object.fromEntries(ids.map((id) => [id, closes]));

const PLAYS: Record<string, Play> = {
  hello: {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      const greeting = await readBytes(stream, 15);
      await stream.write(stage.payload(0));
      assertEquals((await readAll(stream)).length, 0);
      stage.got(stream, greeting);
      await stream.close();
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      stage.got(stream, await readBytes(stream, 25));
      await stream.close();
      await stage.mux.close();
    },
  },
  "half-close": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      await readToEnd(stage, stream);
      await stream.write(stage.payload(0));
      await stream.close();
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      await stream.closeWrite();
      await readToEnd(stage, stream);
      await stream.close();
      await stage.mux.close();
    },
  },
  "server-opens": {
    server: async (stage) => {
      for (const id of [1, 3, 5]) {
        const stream = await stage.mux.openStream();
        assertEquals(stream.id, id);
        await stream.write(stage.payload(id));
        await stream.close();
      }
      await stage.mux.close();
    },
    client: async (stage) => {
      for (let i = 0; i < 3; i++) {
        const stream = await stage.mux.acceptStream();
        await readToEnd(stage, stream);
        await stream.close();
      }
    },
  },
  "many-echo": {
    server: async (stage) => {
      await Promise.all([askEcho(stage, [1, 3, 5, 7]), echo(stage, 8)]);
    },
    client: async (stage) => {
      await Promise.all([askEcho(stage, [0, 2, 4, 6, 8, 10, 12, 14]), echo(stage, 4)]);
      await stage.mux.close();
    },
    closes: {
      server: withIds([0, 2, 4, 6, 8, 10, 12, 14], BOTH_ENDED),
      client: withIds([1, 3, 5, 7], BOTH_ENDED),
    },
  },
  "bulk-window": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      const bytes = await readBytes(stream, 300011);
      stage.got(stream, bytes);
      await stream.write(bytes);
      assertEquals(await stream.read(), null);
      await stream.close();
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      stage.got(stream, await readBytes(stream, 300011));
      await stream.close();
      await stage.mux.close();
    },
  },
  "window-stall": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      // All that may come without a grant has come, and no more.
      while (stage.mux.stats().bytesReceived < 131072) await stage.peer.send({ id: 0, flags: 1 });
      assertEquals(stage.peer.seen(0).credit, 0);
      await readToEnd(stage, stream);
      await stream.close();
      await stage.mux.close();
    },
    client: async (stage) => {
      stage.peer.granting = false;
      const stream = await stage.mux.openStream();
      const payload = stage.payload(0);
      stream.setWriteDeadline(100);
      const error = await stream.write(payload).then(() => undefined, (error) => error);
      assert(error instanceof MuxError);
      assertEquals([error.code, error.written], ["timeout", 131072]);
      await stage.peer.until(() => stage.peer.seen(0).bytes === 131072, "a full window");
      stream.setWriteDeadline(undefined);
      stage.peer.granting = true;
      const written = stream.write(payload.subarray(131072));
      await stage.peer.grant(0, 131072);
      await written;
      await stream.close();
    },
  },
  "close-read": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      stage.got(stream, await readBytes(stream, 100));
      await stream.closeRead();
      await stream.write(stage.payload(0));
      await stream.close();
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      await readToEnd(stage, stream);
      assertEquals(await codeOf(stream.write(new Uint8Array(1))), "write-closed");
      await stream.close();
      await stage.mux.close();
    },
    // The peer has closed it first, and then there is nothing to say.
    closes: { client: { 0: [] } },
  },
  "mux-close-open-streams": {
    server: async (stage) => {
      const streams = [await stage.mux.acceptStream(), await stage.mux.acceptStream()];
      await stage.mux.closed;
      for (const stream of streams) {
        assertEquals(await readToError(stage, stream, 10), "peer-closed");
      }
    },
    client: async (stage) => {
      for (const id of [0, 2]) {
        await (await stage.mux.openStream()).write(stage.payload(id));
      }
      await stage.mux.close();
    },
    closes: { client: { 0: ["CloseStream"], 2: ["CloseStream"] } },
  },
  "big-read": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      stage.got(stream, await readBytes(stream, 131072));
      await stage.peer.until(() => stage.peer.seen(0).credit === 131072, "all is granted again");
      await stage.peer.conn.close();
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      // Real gomux dies of the grant that comes now; for ours it is a whole window.
      const more = stage.payload(0).subarray(0, 100_000);
      await stream.write(more);
      await stage.peer.until(() => stage.peer.seen(0).bytes === 231072, "what goes behind it");
      assertEquals(stage.peer.received(0).subarray(131072), more);
      await stage.peer.conn.close();
    },
    grants: true,
    end: "truncated",
  },
  "cut-mid-frame": {
    server: async (stage) => {
      const stream = await stage.mux.acceptStream();
      stage.got(stream, await readBytes(stream, 5));
      const read = codeOf(stream.read());
      // The rest of the recording: the beginning of a frame.
      await stage.peer.sendRaw(loadSession("cut-mid-frame").client.bytes.subarray(109));
      await stage.peer.conn.close();
      assertEquals(await read, "truncated");
    },
    client: async (stage) => {
      const stream = await stage.mux.openStream();
      await stream.write(stage.payload(0));
      await stage.peer.until(() => stage.peer.seen(0).bytes === 5, "all of it");
      const read = stream.read();
      await stage.peer.conn.close();
      assertEquals(await codeOf(read), "truncated");
    },
    end: "truncated",
  },
};

async function play(name: string, ours: Side, cut: () => number): Promise<void> {
  const { closes = {}, grants = false, end, [ours]: application } = PLAYS[name]!;
  const recorded = loadSession(name);
  const { [ours]: our, [otherSide(ours)]: their } = recorded;
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = (ours === "server" ? server : client)(near, { psk: recorded.psk });
  const peer = new Peer(far, recorded.key, cut);
  peer.granting = !grants;
  const read = new Map<number, Uint8Array>();
  const stage: Stage = {
    ...{ mux, peer, payload: (id) => our.payload(id) },
    got: ({ id }, bytes) => void read.set(id, bytes),
  };
  await Promise.all([application(stage), playSide(peer, recorded, otherSide(ours), { grants })]);
  if (end !== undefined) assertEquals(await codeOf(mux.closed), end);
  else await mux.closed;
  await peer.end();

  for (const { id, sha256, length, opened } of their.streams) {
    const bytes = read.get(id) ?? new Uint8Array(0);
    assertEquals([bytes.length, sha256Of(bytes)], [length, sha256], `read of stream ${id}`);
    if (opened) assert(!peer.seen(id).opened);
  }
  for (const { id, length, sha256, closes: recordedCloses, opened } of our.streams) {
    const sent = peer.received(id).subarray(0, length);
    assertEquals([sent.length, sha256Of(sent)], [length, sha256], `sent on stream ${id}`);
    assertEquals(peer.seen(id).opened, opened);
    assertEquals(peer.seen(id).closes, closes[ours]?.[id] ?? recordedCloses, `ends of ${id}`);
  }
  const farewell = our.frames.some(({ flags }) => flags === 7);
  assertEquals(peer.farewell, farewell, "the farewell of the session");
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  assertEquals(mux.stats().strayFrames, 0);
  for (const { flags, length } of peer.frames) {
    assert(length <= 65536, `gomux dies of a frame of length ${length} and flags ${flags}`);
  }
}

function sha256Of(bytes: Uint8Array): string {
  return toHex(new Uint8Array(createHash("sha256").update(bytes).digest()));
}

for (const [i, name] of Object.keys(PLAYS).entries()) {
  for (const ours of ["server", "client"] as const) {
    test(
      `mux: the recorded session ${name}, with our ${ours} in it`,
      { timeout: 60_000 },
      async () => {
        const random = randomOf(i);
        const anySize = () => 1 + Math.floor(random() ** 3 * 70_000);
        const cuts = [() => Infinity, anySize, anySize];
        assertEquals(
          await unhandledDuring(async () => {
            for (const cut of cuts) await play(name, ours, cut);
          }),
          [],
        );
      },
    );
  }
}
