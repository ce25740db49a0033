/** How a stream of messages is cut into datagrams. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { UNIXGRAM_BYTES, UnixgramCutter } from "../adapters/_unixgram_cutter.ts";
import { ClientMsg, ServerMsg } from "@trunkline/sockets/uds";

const lengths = (pieces: Iterable<Uint8Array>) => [...pieces].map(({ length }) => length);
/** A message whose encoding has so many bytes. */
function message(length: number): Uint8Array {
  for (let data = Math.max(0, length - 12); data < length; data++) {
    const wire = new ServerMsg({ id: 1, data: new Uint8Array(data).fill(0xff) }).encode();
    if (wire.length === length) return wire;
  }
  throw new Error(`no message has ${length} bytes`);
}

test("a message that fits a datagram is in one", () => {
  const wire = concat([5, 100, 4000, 4096, 4, 4097, 10, 9000, 7].map(message));
  const alone = [5, 100, 4000, 4096, 4, 4096, 1, 10, 4096, 4096, 808, 7];
  assertEquals(lengths(new UnixgramCutter(false).cut(wire)), alone);
  const joined = [105, 4000, 4096, 4, 4096, 11, 4096, 4096, 815];
  assertEquals(lengths(new UnixgramCutter(true).cut(wire)), joined);
});

test("the order of the bytes, the borders and the limit hold for every way to write", () => {
  const sizes = [5, 300, 4096, 4097, 5, 20_000, 4, 130, 131];
  const messages = sizes.map((size) =>
    new ClientMsg({ id: size, handler: "h", data: new Uint8Array(size).fill(size) }).encode()
  );
  const wire = concat(messages);
  for (const joins of [true, false]) {
    for (const step of [1, 2, 3, 7, 4095, 4096, 4097, 10_000, wire.length]) {
      const cutter = new UnixgramCutter(joins);
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < wire.length; at += step) {
        pieces.push(...cutter.cut(wire.subarray(at, at + step)));
      }
      assertEquals(concat(pieces), wire);
      assert(pieces.every(({ length }) => length > 0 && length <= UNIXGRAM_BYTES));
      if (joins) continue;
      const ends = new Set<number>();
      let at = 0;
      for (const { length } of pieces) ends.add(at += length);
      at = 0;
      for (const { length } of messages) assert(ends.has(at += length), `${step}: ${at}`);
    }
  }
});

test("what is no message goes in datagrams all the same", () => {
  const noise = new Uint8Array(10_000).fill(0x80);
  for (const joins of [true, false]) {
    const cutter = new UnixgramCutter(joins);
    for (let i = 0; i < 3; i++) assertEquals(concat([...cutter.cut(noise)]), noise);
    assertEquals(lengths(cutter.cut(new Uint8Array())), []);
  }
});
