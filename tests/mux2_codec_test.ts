/** The parts of v2 that know nothing of a transport: numbers, frames, records and keys. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import { MuxError } from "../mux/errors.ts";
import {
  FrameReader,
  MAX_CONTROL_BYTES,
  MAX_DATA_HEADER_BYTES,
  numberBytes,
  TYPE,
  writeControl,
  writeDataHeader,
  writeNumber,
} from "../mux/v2/frame.ts";
import { RecordKeys, RecordSplitter } from "../mux/v2/record.ts";
import { rekey } from "../mux/v2/suite.ts";
import { number, numbers, takeNumbers } from "./mux2_reader.ts";

const bytesOf = (...bytes: number[]) => Uint8Array.from(bytes);

function written(value: number): Uint8Array {
  const bytes = new Uint8Array(8).fill(0xee);
  const end = writeNumber(bytes, 1, value);
  assertEquals([bytes[0], bytes[end]], [0xee, 0xee]);
  return bytes.slice(1, end);
}

function errorOf(act: () => unknown): string {
  return assertThrows(act, MuxError).code;
}

const read = (bytes: Uint8Array) => new FrameReader().numbers(bytes);

describe("numbers", () => {
  it("are LEB128 at every border", () => {
    const cases: readonly (readonly [number, readonly number[]])[] = [
      [0, [0]],
      [1, [1]],
      [127, [0x7f]],
      [128, [0x80, 1]],
      [300, [0xac, 2]],
      [16383, [0xff, 0x7f]],
      [16384, [0x80, 0x80, 1]],
      [2 ** 21 - 1, [0xff, 0xff, 0x7f]],
      [2 ** 21, [0x80, 0x80, 0x80, 1]],
      [2 ** 28 - 1, [0xff, 0xff, 0xff, 0x7f]],
      [2 ** 28, [0x80, 0x80, 0x80, 0x80, 1]],
      [2 ** 31 - 1, [0xff, 0xff, 0xff, 0xff, 7]],
      [2 ** 31, [0x80, 0x80, 0x80, 0x80, 8]],
      [2 ** 32 - 1, [0xff, 0xff, 0xff, 0xff, 0x0f]],
    ];
    for (const [value, bytes] of cases) {
      assertEquals([...written(value)], [...bytes], `${value}`);
      assertEquals(numberBytes(value), bytes.length, `${value}`);
      assertEquals(read(Uint8Array.from(bytes)), [value]);
    }
  });

  it("are what another implementation makes of them", () => {
    fc.assert(fc.property(fc.array(fc.nat(2 ** 32 - 1)), (values) => {
      const bytes = concat(values.map(written));
      assertEquals(bytes, numbers(...values));
      assertEquals(read(bytes), values);
      assertEquals(takeNumbers(bytes), values);
    }));
  });

  it("may have zeros on top, up to five bytes in all", () => {
    assertEquals(read(bytesOf(0x80, 0)), [0]);
    assertEquals(read(bytesOf(0x81, 0x80, 0)), [1]);
    assertEquals(read(bytesOf(0x81, 0x80, 0x80, 0x80, 0)), [1]);
  });

  it("of more than 32 bits, more than five bytes or no end are none", () => {
    for (const last of [0x10, 0x1f, 0x70, 0x7f]) {
      assertEquals(errorOf(() => read(bytesOf(0x80, 0x80, 0x80, 0x80, last))), "protocol");
    }
    assertEquals(errorOf(() => read(bytesOf(0x80, 0x80, 0x80, 0x80, 0x80, 0))), "protocol");
    assertEquals(errorOf(() => read(number(2 ** 32))), "protocol");
    for (let length = 1; length <= 6; length++) {
      assertEquals(errorOf(() => read(new Uint8Array(length).fill(0xff))), "protocol");
    }
  });
});

type Told = readonly [type: number, id: number, first: number | string, second?: number];

function told(record: Uint8Array): Told[] {
  const all: Told[] = [];
  new FrameReader().read(record, {
    onData: (id, payload) => void all.push([TYPE.DATA, id, payload.join()]),
    onControl: (type, id, first, second) => void all.push([type, id, first, second]),
  });
  return all;
}

const COUNTS = [0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 2];

describe("FrameReader", () => {
  const nat32 = fc.nat(2 ** 32 - 1);
  const control = fc.tuple(fc.integer({ min: 2, max: 12 }), nat32, nat32, nat32);
  const data = fc.tuple(fc.constant(TYPE.DATA), nat32, fc.uint8Array({ minLength: 1 }));

  it("reads what was written", () => {
    fc.assert(fc.property(fc.array(fc.oneof(control, data)), fc.nat(20), (frames, padding) => {
      const bytes = new Uint8Array(10_000);
      const expected: Told[] = [];
      let at = 0;
      for (const [type, id, first, second] of frames) {
        const start = at;
        if (first instanceof Uint8Array) {
          at = writeDataHeader(bytes, at, id, first.length);
          assert(at - start <= MAX_DATA_HEADER_BYTES);
          bytes.set(first, at);
          at += first.length;
          expected.push([type, id, first.join()]);
        } else {
          const values = [first, second!].slice(0, COUNTS[type]);
          at = writeControl(bytes, at, type, id, values);
          assert(at - start <= MAX_CONTROL_BYTES);
          expected.push([type, id, values[0] ?? 0, values[1] ?? 0]);
        }
      }
      assertEquals(told(bytes.subarray(0, at + padding)), expected);
    }));
  });

  it("throws MuxErrors alone, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          told(bytes);
        } catch (error) {
          assert(error instanceof MuxError && error.code === "protocol", `${error}`);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses a record that is cut within a frame", () => {
    const bytes = new Uint8Array(MAX_CONTROL_BYTES);
    const end = writeControl(bytes, 0, TYPE.END, 2 ** 32 - 1, [2 ** 32 - 1, 2 ** 32 - 1]);
    assertEquals(end, MAX_CONTROL_BYTES);
    for (let cut = 1; cut < end; cut++) {
      assertEquals(errorOf(() => told(bytes.subarray(0, cut))), "protocol", `${cut}`);
    }
  });

  it("counts frames, and not padding", () => {
    const reader = new FrameReader();
    const sink = { onData: () => {}, onControl: () => {} };
    reader.read(bytesOf(3, 0, 0, 3, 2, 0, 0, 3, 4, 0), sink);
    reader.read(bytesOf(0), sink);
    reader.read(bytesOf(), sink);
    reader.read(bytesOf(99, 0, 1, 0), sink);
    assertEquals(reader.frames, 3);
  });

  it("reads on after one that was wrong", () => {
    const reader = new FrameReader();
    const sink = { onData: () => {}, onControl: () => {} };
    assertThrows(() => reader.read(bytesOf(3, 0x80), sink), MuxError);
    reader.read(bytesOf(3, 0, 0), sink);
  });

  it("does not let the numbers of a frame go beyond it", () => {
    // A ping of no bytes, and what would be its number if it had one.
    assertEquals(errorOf(() => told(bytesOf(TYPE.PING, 0, 0, 5, 0, 0))), "protocol");
    assertEquals(errorOf(() => told(bytesOf(TYPE.END, 0, 1, 0, 5))), "protocol");
    assertEquals(errorOf(() => told(bytesOf(TYPE.PING, 0, 1, 0x80, 1))), "protocol");
  });
});

describe("RecordSplitter", () => {
  const record = (length: number, seed = length): Uint8Array =>
    concat([
      bytesOf(length >> 8, length & 0xff),
      Uint8Array.from({ length }, (_, i) => i * 7 + seed),
    ]);
  /** Copied at once, as if opened. */
  const split = (chunks: Iterable<Uint8Array>): Uint8Array[] => {
    const splitter = new RecordSplitter();
    const all: Uint8Array[] = [];
    for (const chunk of chunks) {
      const whole: Uint8Array[] = [];
      splitter.push(chunk, whole);
      all.push(...whole.map((it) => it.slice()));
    }
    assertEquals(splitter.partial, false);
    return all;
  };
  const records = [16, 300, 17, 16, 1000, 20].map((length) => record(length));
  const stream = concat(records);
  const expected = records.map((it) => it.slice(2));

  it("gives the same at every place where a chunk may end", () => {
    for (let at = 0; at <= stream.length; at++) {
      assertEquals(split([stream.subarray(0, at), stream.subarray(at)]), expected, `${at}`);
    }
  });

  it("gives the same byte by byte, and at once", () => {
    assertEquals(split(Array.from(stream, (byte) => bytesOf(byte))), expected);
    assertEquals(split([stream]), expected);
    assertEquals(split([new Uint8Array(0), stream, new Uint8Array(0)]), expected);
  });

  it("gives the same in chunks of any length", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 400 })), (lengths) => {
      const chunks: Uint8Array[] = [];
      let at = 0;
      for (const length of lengths) chunks.push(stream.subarray(at, at += length));
      assertEquals(split([...chunks, stream.subarray(at)]), expected);
    }));
  });

  it("takes the longest record there is", () => {
    const long = record(65535);
    for (const at of [0, 1, 2, 3, 4096, 65536]) {
      assertEquals(split([long.subarray(0, at), long.subarray(at), record(16)]).length, 2);
    }
  });

  it("leaves what it gave alone until the next call, and its chunk for ever", () => {
    const splitter = new RecordSplitter();
    for (const cut of [1, 2, 3, 10, 17]) {
      const chunk = concat([record(40, 1), record(50, 2), record(60, 3)]);
      const rest = concat([record(70, 4), record(80, 5)]);
      splitter.push(chunk.slice(0, cut), []);
      const whole: Uint8Array[] = [];
      splitter.push(concat([chunk.subarray(cut), rest.subarray(0, 90)]), whole);
      const expected = [record(40, 1), record(50, 2), record(60, 3), record(70, 4)];
      assertEquals(whole, expected.map((it) => it.slice(2)));
      const more: Uint8Array[] = [];
      const last = rest.subarray(90);
      const before = last.slice();
      splitter.push(last, more);
      assertEquals(more.map((it) => it.slice()), [record(80, 5).slice(2)]);
      assertEquals(last, before);
    }
  });

  it("refuses a length without room for a tag, behind what is whole", () => {
    for (const length of [0, 1, 15]) {
      const bad = concat([record(16), record(17), bytesOf(0, length), new Uint8Array(20)]);
      for (let at = 0; at <= bad.length; at++) {
        const splitter = new RecordSplitter();
        const whole: Uint8Array[] = [];
        const push = (chunk: Uint8Array) => {
          const some: Uint8Array[] = [];
          try {
            splitter.push(chunk, some);
          } finally {
            whole.push(...some.map((it) => it.slice()));
          }
        };
        assertEquals(
          errorOf(() => {
            push(bad.subarray(0, at));
            push(bad.subarray(at));
          }),
          "protocol",
        );
        assertEquals(whole, [record(16).slice(2), record(17).slice(2)], `${length} at ${at}`);
      }
    }
  });

  it("is partial within a record alone", () => {
    const splitter = new RecordSplitter();
    const one = record(16);
    assertEquals(splitter.partial, false);
    for (const [i, byte] of one.entries()) {
      splitter.push(bytesOf(byte), []);
      assertEquals(splitter.partial, i + 1 < one.length);
    }
  });
});

describe("RecordKeys", () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i);
  for (const suite of ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const) {
    const generations: Uint8Array[] = [key];
    for (let i = 0; i < 20; i++) generations.push(rekey(suite, generations[i]!));
    const generation = (used: Uint8Array) =>
      generations.findIndex((it) => it.join() === used.join());
    const uses = (after: { records: number; bytes: number }, sizes: readonly number[]) => {
      const keys = new RecordKeys(suite, key.slice(), after);
      return sizes.map((size) => generation(keys.next(size).key));
    };

    it(`changes the key after exactly so many records, ${suite}`, () => {
      const twelve = new Array(12).fill(100);
      assertEquals(uses({ records: 1, bytes: 2 ** 30 }, twelve), [...twelve.keys()]);
      assertEquals(uses({ records: 3, bytes: 2 ** 30 }, twelve), [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        2,
        3,
        3,
        3,
      ]);
    });

    it(`and after the record with which so many bytes are full, ${suite}`, () => {
      assertEquals(uses({ records: 65536, bytes: 1 }, [16, 16, 16]), [0, 1, 2]);
      assertEquals(uses({ records: 65536, bytes: 100 }, [99, 1, 1, 98, 1, 500, 16]), [
        0,
        0,
        1,
        1,
        1,
        2,
        3,
      ]);
      // Whichever comes first, and both begin anew.
      assertEquals(uses({ records: 3, bytes: 100 }, [100, 40, 40, 40, 99, 1]), [0, 1, 1, 1, 2, 2]);
    });

    it(`counts on over all keys, and gives each key as one object, ${suite}`, () => {
      const keys = new RecordKeys(suite, key.slice(), { records: 2, bytes: 2 ** 30 });
      const all = Array.from({ length: 6 }, () => keys.next(16));
      const counters = all.map(({ nonce }) => {
        const view = new DataView(nonce.buffer, nonce.byteOffset);
        return Number(view.getBigUint64(4, suite === "ChaChaPoly_BLAKE2b"));
      });
      assertEquals(counters, [0, 1, 2, 3, 4, 5]);
      assert(all[0]!.key === all[1]!.key && all[1]!.key !== all[2]!.key);
      assertEquals(new Set(all.map(({ nonce }) => nonce)).size, 6);
    });
  }
});
