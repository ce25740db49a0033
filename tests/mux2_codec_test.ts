/** The parts of v2 that know nothing of a transport: numbers, frames, records, keys, settings, quotas, pings and windows. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import { GrowingWindow, type WindowGrowth } from "../mux/_window.ts";
import { configOf } from "../mux/config.ts";
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
import { PingTimer } from "../mux/v2/ping.ts";
import { StreamQuota } from "../mux/v2/quota.ts";
import { RecordKeys, RecordSplitter } from "../mux/v2/record.ts";
import { decodeSettings, encodeSettings, settingsOf } from "../mux/v2/settings.ts";
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

describe("settings", () => {
  const limits = configOf({ psk: "0123456789abcdef" }, true).limits.v2;
  const absent = decodeSettings(new Uint8Array(0));

  it("are those of the specification if nothing is said", () => {
    const known = { windowBytes: 131072, streams: 128, rekeyRecords: 65536, rekeyBytes: 2 ** 30 };
    assertEquals(absent, { ...known, idleTimeoutMs: 180_000 });
  });

  it("are read as they were told", () => {
    const range = (max: number) => fc.integer({ min: 1, max });
    const arbitrary = fc.record({
      windowBytes: range(2 ** 31 - 1),
      streams: range(2 ** 32 - 1),
      rekeyRecords: range(65536),
      rekeyBytes: range(2 ** 30),
      idleTimeoutMs: range(2 ** 32 - 1),
    });
    fc.assert(fc.property(arbitrary, (settings) => {
      assertEquals(decodeSettings(encodeSettings(settings)), settings);
    }));
  });

  it("that are not known are skipped, whatever they say, in any order", () => {
    const bytes = numbers(2 ** 32 - 1, 0, 2, 7, 0, 0, 100, 2 ** 32 - 1, 1, 5);
    assertEquals(decodeSettings(bytes), { ...absent, streams: 7, windowBytes: 5 });
  });

  it("that have no value, or one that is none, are refused", () => {
    const bad = [[1], [1, 2, 3], [1, 0], [1, 2 ** 31], [2, 0], [3, 0], [3, 65537], [4, 0]];
    for (const values of [...bad, [4, 2 ** 30 + 1], [5, 0]]) {
      assertEquals(errorOf(() => decodeSettings(numbers(...values))), "protocol", `${values}`);
    }
    assertEquals(errorOf(() => decodeSettings(bytesOf(1, 0x80))), "protocol");
    assertEquals(errorOf(() => decodeSettings(numbers(1, 2 ** 32))), "protocol");
  });

  it("tell whole numbers that the format has", () => {
    const streams = (maxStreams: number, maxPendingAccepts: number) =>
      settingsOf({ ...limits, maxStreams, maxPendingAccepts }).streams;
    assertEquals(streams(100, 7.9), 7);
    assertEquals(streams(0.1, 0.2), 1);
    assertEquals(streams(Infinity, Infinity), 2 ** 32 - 1);
    assertEquals(settingsOf({ ...limits, idleTimeoutMs: 0.5 }).idleTimeoutMs, 1);
  });
});

describe("StreamQuota", () => {
  const base = configOf({ psk: "0123456789abcdef" }, true).limits.v2;
  const quota = (maxStreams: number, maxPendingAccepts: number) => {
    const limits = { ...base, maxStreams, maxPendingAccepts };
    const granted = settingsOf(limits).streams;
    return { quota: new StreamQuota(limits, granted), granted };
  };

  it("never allows more than may live, or wait to be accepted", () => {
    type Act = "open" | "accept" | "end";
    const acts = fc.array(fc.constantFrom<Act>("open", "open", "accept", "end"), {
      maxLength: 200,
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        acts,
        (a, b, plan) => {
          const { quota: it, granted } = quota(a, b);
          let [allowed, opened, live, pending] = [granted, 0, 0, 0];
          for (const act of plan) {
            if (act === "open") {
              assertEquals(it.opened(), opened < allowed);
              if (opened === allowed) continue;
              opened++;
              live++;
              pending++;
            } else if (act === "accept" && pending > 0) {
              pending--;
              it.accepted();
            } else if (act === "end" && live > 0) {
              live--;
              it.ended();
            } else continue;
            const more = it.grant();
            if (more !== undefined) {
              assert(more > allowed);
              allowed = more;
            }
            assert(allowed - opened <= Math.min(a - live, b - pending), "too many");
            // Nobody waits in vain.
            if (live < a && pending < b) assert(allowed > opened, "none");
          }
        },
      ),
    );
  });

  it("grants one by one where it has few, and in parts of a quarter where it has many", () => {
    for (const [most, step] of [[1, 1], [2, 1], [4, 1], [5, 2], [8, 2], [100, 25]] as const) {
      const { quota: it } = quota(most, most);
      it.opened();
      it.accepted();
      it.ended();
      const grants = [it.grant()];
      for (let i = 1; i < most; i++) {
        it.opened();
        it.accepted();
        it.ended();
        grants.push(it.grant());
      }
      const told = grants.filter((more) => more !== undefined);
      assertEquals(told[0], most + step);
      assertEquals(told.length, Math.floor(most / step), `${most}`);
    }
  });

  it("without limits has nothing to grant", () => {
    const { quota: it, granted } = quota(Infinity, Infinity);
    assertEquals(granted, 2 ** 32 - 1);
    for (let i = 0; i < 1000; i++) {
      assert(it.opened());
      it.accepted();
      it.ended();
      assertEquals(it.grant(), undefined);
    }
  });

  it("takes fractions as whole numbers", () => {
    const { quota: it, granted } = quota(2.9, 1.5);
    assertEquals(granted, 1);
    assert(it.opened() && !it.opened());
    it.accepted();
    assertEquals(it.grant(), 2);
    assert(it.opened() && !it.opened());
    it.accepted();
    assertEquals(it.grant(), undefined);
    it.ended();
    assertEquals(it.grant(), 3);
  });
});

describe("PingTimer", () => {
  const timer = () => {
    const said: number[] = [];
    return { said, ping: new PingTimer((number) => void said.push(number)) };
  };

  it("shares one that is on its way", async () => {
    const { said, ping } = timer();
    const both = [ping.measure(), ping.measure()];
    assertEquals(said, [1]);
    ping.onPong(1);
    const [one, other] = await Promise.all(both);
    assert(one === other && one! >= 0);
    assertEquals(ping.rtt, one);
    ping.measure();
    assertEquals(said, [1, 2]);
  });

  it("does not take another answer, or one twice", async () => {
    const { ping } = timer();
    ping.onPong(0);
    assertEquals(ping.rtt, undefined);
    const first = ping.measure();
    for (const wrong of [0, 2, 2 ** 32 - 1]) ping.onPong(wrong);
    assertEquals(ping.rtt, undefined);
    ping.onPong(1);
    await first;
    const second = ping.measure();
    let done = false;
    second.then(() => done = true);
    ping.onPong(1);
    await Promise.resolve();
    assert(!done);
    ping.onPong(2);
    await second;
  });

  it("says the same again if it is to say something meanwhile", () => {
    const { said, ping } = timer();
    ping.send();
    ping.send();
    assertEquals(said, [1, 1]);
    ping.onPong(1);
    ping.send();
    assertEquals(said, [1, 1, 2]);
  });

  it("measures anew when what it has is old", () => {
    const { said, ping } = timer();
    assertEquals(ping.shortest(), undefined);
    assertEquals(said, [1]);
    assertEquals(ping.shortest(), undefined);
    assertEquals(said, [1]);
    ping.onPong(1);
    assertEquals(ping.shortest(), ping.rtt);
    assertEquals(said, [1]);
  });

  it("ends whoever waits", async () => {
    const { ping } = timer();
    const waiting = ping.measure();
    const error = new MuxError("closed", "the end");
    ping.end(error);
    assertEquals(await waiting.catch((it) => it), error);
    ping.end(error);
    ping.onPong(1);
    assertEquals(ping.rtt, undefined);
  });
});

describe("GrowingWindow", () => {
  const growth = (changes: Partial<WindowGrowth> & { left?: number } = {}) => {
    let { left = Infinity } = changes;
    const it = {
      first: 1000,
      most: 16_000,
      rtt: () => 1e9 as number | undefined,
      reserve: (bytes: number) => {
        const reserved = Math.min(bytes, left);
        left -= reserved;
        return reserved;
      },
      release: (bytes: number) => void (left += bytes),
      ...changes,
    };
    return { it, left: () => left };
  };
  const readAll = (window: GrowingWindow, bytes: number) => {
    assert(window.receive(bytes));
    window.consume(bytes);
    return window.take();
  };

  it("takes what it allows and nothing more", () => {
    const window = new GrowingWindow(growth().it);
    assert(window.receive(0) && window.receive(999) && !window.receive(2) && window.receive(1));
    assert(!window.receive(1));
  });

  it("is due once half of it was read", () => {
    const window = new GrowingWindow(growth({ rtt: () => undefined }).it);
    window.receive(1000);
    assertEquals([window.consume(499), window.due], [false, false]);
    assertEquals([window.consume(1), window.due], [true, true]);
    assertEquals([window.take(), window.due, window.take()], [500, false, 0]);
    // What was given back, and no more.
    assert(window.receive(500) && !window.receive(1));
  });

  it("of one byte works", () => {
    const window = new GrowingWindow(growth({ first: 1, most: 1 }).it);
    for (let i = 0; i < 5; i++) {
      assert(window.receive(1) && !window.receive(1));
      assert(window.consume(1));
      assertEquals(window.take(), 1);
    }
  });

  it("doubles up to its most", () => {
    const window = new GrowingWindow(growth().it);
    const sizes = [1000, 2000, 4000, 8000, 16_000, 16_000];
    const grants = sizes.map((size) => readAll(window, size));
    assertEquals(grants, [2000, 4000, 8000, 16_000, 16_000, 16_000]);
  });

  it("that is at its most does not grow by a rest", () => {
    const window = new GrowingWindow(growth({ most: 1500 }).it);
    assertEquals([readAll(window, 1000), readAll(window, 1500)], [1500, 1500]);
  });

  it("does not grow before a round trip was measured, or when it is read slowly", async () => {
    const unknown = new GrowingWindow(growth({ rtt: () => undefined }).it);
    assertEquals(readAll(unknown, 1000), 1000);
    const slow = new GrowingWindow(growth({ rtt: () => 1 }).it);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assertEquals(readAll(slow, 1000), 1000);
  });

  it("grows by what is left for all, and gives that back at its end, once", () => {
    const { it, left } = growth({ left: 2500 });
    const [one, other] = [new GrowingWindow(it), new GrowingWindow(it)];
    assertEquals([readAll(one, 1000), left()], [2000, 1500]);
    assertEquals([readAll(other, 1000), left()], [2000, 500]);
    assertEquals([readAll(one, 2000), left()], [2500, 0]);
    assertEquals([readAll(other, 2000), left()], [2000, 0]);
    one.end();
    one.end();
    assertEquals(left(), 1500);
    assertEquals([readAll(other, 2000), left()], [3500, 0]);
    other.end();
    assertEquals(left(), 2500);
    assertEquals(other.take(), 0);
  });
});
