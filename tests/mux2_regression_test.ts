/** What a stream gives is its own: `readable` once lost bytes, broke, or stood still, and a chunk once shared its memory with others. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { client, type Mux, type MuxStream, server } from "@trunkline/sockets/mux";
import { closeBoth, muxPair, PSK, readAll, type Speaks, spoken, text, utf8 } from "./mux_pair.ts";
import { randomOf } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

type Chunk = Uint8Array<ArrayBuffer>;

/** On both protocols. */
function check(what: string, body: (speaks: Speaks) => Promise<void>): void {
  for (const { mux, speaks } of spoken(what)) {
    test(`${mux}: ${what}`, { timeout: 60_000 }, async () => {
      assertEquals(await unhandledDuring(() => body(speaks)), []);
    });
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

/** What stream `mark` has at a place. */
function fill(bytes: Uint8Array, mark: number, from: number): Uint8Array {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (37 * mark + from + i) % 251;
  return bytes;
}

/** Small and large pieces; their number of bytes. */
async function send(stream: MuxStream, mark: number): Promise<number> {
  const random = randomOf(mark);
  let total = 0;
  for (let i = 0; i < 24; i++) {
    const luck = random();
    const most = luck < 0.6 ? 40 : luck < 0.8 ? 3000 : 20_000;
    const piece = fill(new Uint8Array(1 + Math.floor(random() * most)), mark, total);
    total += piece.length;
    // Mostly without a wait: many streams share a frame or a record then, and pieces join.
    const written = stream.write(piece);
    if (random() < 0.3) await written;
    if (random() < 0.2) await turn();
  }
  await stream.closeWrite();
  return total;
}

type Pause = () => Promise<unknown>;

/** The ways to read a stream to its end. */
const READERS: readonly ((
  stream: MuxStream,
  take: (chunk: Uint8Array) => void,
  pause: Pause,
) => Promise<void>)[] = [
  (stream, take, pause) =>
    stream.readable.pipeTo(
      new WritableStream({
        write: async (chunk) => {
          take(chunk);
          await pause();
        },
      }),
    ),
  async (stream, take, pause) => {
    for await (const chunk of stream.readable) {
      take(chunk);
      await pause();
    }
  },
  async (stream, take, pause) => {
    const reader = stream.readable.getReader({ mode: "byob" });
    for (let size = 1;; size = (7 * size) % 4093) {
      const { done, value } = await reader.read(new Uint8Array(size));
      if (done) return;
      take(value);
      await pause();
    }
  },
  async (stream, take, pause) => {
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
      take(chunk);
      await pause();
    }
  },
];

/** What was read, as copies made at once. */
async function read(stream: MuxStream, way: number, seed: number): Promise<Uint8Array> {
  const random = randomOf(1000 + seed);
  const chunks: Uint8Array[] = [];
  const pause = () => random() < 0.1 ? turn() : Promise.resolve();
  if (random() < 0.7) await turn();
  await READERS[way]!(stream, (chunk) => void chunks.push(chunk.slice()), pause);
  return concat(chunks);
}

check("many streams, read in each way beside each other, are whole", async (speaks) => {
  const [near, far] = muxPair(speaks);
  for (let round = 0; round < 3; round++) {
    const opened = await Promise.all(Array.from({ length: 12 }, () => near.openStream()));
    const totals = opened.map((stream, i) => send(stream, 12 * round + i));
    const taken = await Promise.all(opened.map(() => far.acceptStream()));
    await Promise.all(taken.map(async (stream) => {
      const i = opened.findIndex(({ id }) => id === stream.id);
      const mark = 12 * round + i;
      const got = await read(stream, (i + round) % READERS.length, mark);
      assertEquals(got.length, await totals[i], `stream ${i}: bytes`);
      assertEquals(got, fill(new Uint8Array(got.length), mark, 0), `stream ${i}`);
      await stream.closeWrite();
    }));
  }
  await closeBoth(near, far);
});

check("small pieces before and behind a large one come through readable", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const opened = await near.openStream();
  const sizes = [10, 20, 6000, 30, 40, 5000, 1];
  for (const [i, size] of sizes.entries()) {
    await opened.write(new Uint8Array(size).fill(i));
    await turn();
  }
  await opened.closeWrite();
  const stream = await far.acceptStream();
  await turn();
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream.readable) chunks.push(chunk);
  assertEquals(concat(chunks), concat(sizes.map((size, i) => new Uint8Array(size).fill(i))));
  await closeBoth(near, far);
});

/** Two streams whose first bytes the far side has, sent in one turn. */
async function neighbours(
  speaks: Speaks,
): Promise<{ sessions: [Mux, Mux]; x: MuxStream; y: MuxStream }> {
  const [near, far] = muxPair(speaks);
  await near.ready;
  const opened = [await near.openStream(), await near.openStream()];
  await Promise.all(opened.map((stream, i) => stream.write(utf8(`${MARKERS[i]}`))));
  await Promise.all(opened.map((stream, i) => stream.write(utf8(`, more of ${i}`))));
  await Promise.all(opened.map((stream) => stream.closeWrite()));
  const x = await far.acceptStream();
  const y = await far.acceptStream();
  while (far.stats().bytesReceived < near.stats().bytesSent) await turn();
  return { sessions: [near, far], x, y };
}

const MARKERS = ["amount=100 to=bob", "password=hunter2"] as const;

check("a stream read by readable leaves what read() gives of another one alone", async (speaks) => {
  const { sessions, x, y } = await neighbours(speaks);
  const kept = (await x.read())!;
  const before = text(kept)!;
  for await (const chunk of y.readable) assert(chunk.length > 0);
  assertEquals(text(kept), before);
  assertEquals(before + text(await readAll(x))!, `${MARKERS[0]}, more of 0`);
  await closeBoth(...sessions);
});

check("read() ends behind the other stream's pipe, and does not spin", async (speaks) => {
  const { sessions, x, y } = await neighbours(speaks);
  await y.readable.pipeTo(new WritableStream());
  let reads = 0;
  for (let chunk = await x.read(); chunk; chunk = await x.read()) {
    assert(chunk.length > 0);
    assert(++reads < 100);
  }
  await closeBoth(...sessions);
});

check("a chunk stays what it is when another one is transferred", async (speaks) => {
  const { sessions, x, y } = await neighbours(speaks);
  const [first, other] = [(await x.read())!, (await y.read())!];
  const said = text(first)!;
  structuredClone(other, { transfer: [(other as Chunk).buffer] });
  assertEquals(other.length, 0);
  assertEquals(text(first), said);
  const rest = text(await readAll(x))!;
  structuredClone(first, { transfer: [(first as Chunk).buffer] });
  assertEquals(said + rest, `${MARKERS[0]}, more of 0`);
  await closeBoth(...sessions);
});

check("chunks of one stream are transferred one by one as they are read", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const opened = await near.openStream();
  const total = send(opened, 5);
  const stream = await far.acceptStream();
  const moved: Uint8Array[] = [];
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    moved.push(structuredClone(chunk, { transfer: [(chunk as Chunk).buffer] }));
    if (moved.length % 3 === 0) await turn();
  }
  assertEquals(concat(moved), fill(new Uint8Array(await total), 5, 0));
  await closeBoth(near, far);
});

check("the buffer of a chunk holds nothing of another stream", async (speaks) => {
  const [near, far] = muxPair(speaks);
  await near.ready;
  const marks = [0xa1, 0xb2, 0xc3, 0xd4];
  const opened = await Promise.all(marks.map(() => near.openStream()));
  // Streams of one turn share a record on v2, however large the pieces are.
  for (const size of [1, 30, 600, 4096, 4097, 9000]) {
    await Promise.all(
      opened.map((stream, i) => stream.write(new Uint8Array(size).fill(marks[i]!))),
    );
  }
  await Promise.all(opened.map((stream) => stream.closeWrite()));
  const taken = await Promise.all(opened.map(() => far.acceptStream()));
  while (far.stats().bytesReceived < near.stats().bytesSent) await turn();
  for (const [i, stream] of taken.entries()) {
    const buffers = new Set<ArrayBufferLike>();
    for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
      assert(!buffers.has(chunk.buffer), "no two chunks share their memory");
      buffers.add(chunk.buffer);
    }
    const strange = [...buffers].some((it) =>
      new Uint8Array(it).some((byte) => byte !== 0 && byte !== marks[i])
    );
    assert(!strange, `stream ${i}: bytes of somebody else`);
  }
  await closeBoth(near, far);
});

check(
  "sessions over the { readable, writable } of streams work beside each other",
  async (speaks) => {
    const [near, far] = muxPair(speaks);
    const inner: Mux[] = [];
    await Promise.all(
      Array.from({ length: 4 }, async (_, i) => {
        const { readable, writable } = await near.openStream();
        const mux = client({ readable, writable }, { psk: `inner ${PSK}`, ...speaks });
        inner.push(mux);
        await Promise.all([1, 100, 7000].map(async (size) => {
          const stream = await mux.openStream();
          const sent = fill(new Uint8Array(size), i, size);
          await Promise.all([stream.write(sent), stream.closeWrite()]);
          assertEquals(await readAll(stream), sent);
        }));
      }).concat(Array.from({ length: 4 }, async () => {
        const { readable, writable } = await far.acceptStream();
        const mux = server({ readable, writable }, { psk: `inner ${PSK}`, ...speaks });
        inner.push(mux);
        for (let i = 0; i < 3; i++) {
          const stream = await mux.acceptStream();
          stream.readable.pipeTo(stream.writable).catch((error) => stream.abort(error));
        }
      })),
    );
    await closeBoth(...inner);
    await closeBoth(near, far);
  },
);
