/** Many streams, many messages, much data. */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { Mux, MuxStream } from "@trunkline/sockets/mux";
import { closeBoth, muxPair, readAll, spoken, streamPair, text, utf8 } from "./mux_pair.ts";
import { randomOf } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import { unhandledDuring } from "./unhandled.ts";

/** With two sessions that have no streams left in the end, on each protocol. */
function check(title: string, body: (near: Mux, far: Mux) => Promise<void>): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux} scenario: ${title}`, { timeout: 120_000 }, async () => {
      const unhandled = await unhandledDuring(async () => {
        const [near, far] = muxPair(speaks);
        await body(near, far);
        assertEquals([near.stats().streams, far.stats().streams], [0, 0]);
        await closeBoth(near, far);
      });
      assertEquals(unhandled, []);
    });
  }
}

/** Both ends of so many streams, opened by either side in turn. */
async function pairs(near: Mux, far: Mux, count: number): Promise<[MuxStream, MuxStream][]> {
  const made: [MuxStream, MuxStream][] = [];
  for (let i = 0; i < count; i++) {
    if (i % 2 === 0) made.push(await streamPair(near, far));
    else made.push((await streamPair(far, near)).reverse() as [MuxStream, MuxStream]);
  }
  return made;
}

const same = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, at) => byte === b[at]);

const COUNTS = [1, 10, 100, 1000];

for (const streams of COUNTS) {
  check(`${streams} streams with 1, 10, 100 and 1000 messages each`, async (near, far) => {
    for (const messages of COUNTS) {
      const opened = await pairs(near, far, streams);
      await Promise.all(opened.map(async ([a, b], i) => {
        // Six bytes each, all different.
        const whole = pattern(6 * messages, i);
        const sending = [];
        for (let at = 0; at < whole.length; at += 6) {
          sending.push(a.write(whole.subarray(at, at + 6)));
        }
        sending.push(a.closeWrite());
        const came = await readAll(b);
        assert(same(came, whole), `stream ${i}: ${came.length} of ${whole.length} bytes`);
        await b.write(Uint8Array.of(i));
        await b.close();
        assertEquals(await readAll(a), Uint8Array.of(i));
        await Promise.all(sending);
      }));
    }
  });
}

check("a hundred streams play ping-pong", async (near, far) => {
  const opened = await pairs(near, far, 100);
  await Promise.all(opened.map(async ([a, b], i) => {
    for (let round = 0; round < 20; round++) {
      await a.write(utf8(`ping ${i} ${round}`));
      assertEquals(text(await b.read()), `ping ${i} ${round}`);
      await b.write(utf8(`pong ${round} ${i}`));
      assertEquals(text(await a.read()), `pong ${round} ${i}`);
    }
    await Promise.all([a.close(), b.closed]);
  }));
});

for (const [count, size] of [[100, 150_000], [500, 30_000], [1000, 15_000]] as const) {
  check(`${count} streams write and read at once, and all get on`, async (near, far) => {
    const opened = await pairs(near, far, count);
    const payload = pattern(size, count);
    const send = (stream: MuxStream) => stream.write(payload).then(() => stream.closeWrite());
    // Nobody reads before all write.
    const sending = opened.flat().map(send);
    await Promise.all(
      opened.flat().map(async (stream) => {
        const came = await readAll(stream);
        assert(same(came, payload), `${came.length} of ${size} bytes`);
      }),
    );
    await Promise.all(sending);
  });
}

check("24 MB in writes and reads of any size are the same bytes", async (near, far) => {
  const random = randomOf(63);
  const [a, b] = await streamPair(near, far);
  const source = pattern(1 << 20, 9);
  const [sent, came] = [createHash("sha256"), createHash("sha256")];
  const total = 24_000_000;
  const writing = (async () => {
    for (let left = total; left > 0;) {
      const size = Math.min(left, 1 + Math.floor(random() ** 4 * 300_000));
      const at = Math.floor(random() * (source.length - size));
      const bytes = source.subarray(at, at + size);
      sent.update(bytes);
      await a.write(bytes);
      left -= size;
    }
    await a.close();
  })();
  const reader = b.readable.getReader({ mode: "byob" });
  let read = 0;
  for (;;) {
    const size = 1 + Math.floor(random() ** 3 * 100_000);
    const { done, value } = await reader.read(new Uint8Array(size));
    if (done) break;
    came.update(value);
    read += value.length;
  }
  await writing;
  assertEquals(read, total);
  assertEquals(came.digest("hex"), sent.digest("hex"));
});
