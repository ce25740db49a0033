import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  deriveKey,
  FLAG,
  type Frame,
  FrameDecoder,
  MuxError,
  sealFrame,
} from "@trunkline/sockets/mux";
import { HEADER_BYTES, MAX_PAYLOAD_BYTES, TAG_BYTES } from "../mux/v1/frame.ts";
import { fixture, fixtureJson, fromHex, toHex } from "./mux_vectors.ts";

interface FrameVector {
  readonly name?: string;
  readonly psk_hex: string;
  readonly key_hex: string;
  readonly id: number;
  readonly length: number;
  readonly flags: number;
  readonly nonce_hex: string;
  readonly frame_hex?: string;
  readonly frame_bin?: string;
  readonly payload_hex?: string;
}
interface SessionVector {
  readonly key_hex: string;
  readonly client_bin: string;
  readonly server_bin: string;
  readonly client_frames: readonly SessionFrame[] | null;
  readonly server_frames: readonly SessionFrame[] | null;
}
interface SessionFrame {
  readonly id: number;
  readonly length: number;
  readonly flags: number;
  readonly nonce_hex: string;
  readonly type: string;
}

const { frames: FRAMES } = fixtureJson<{ frames: FrameVector[] }>("frames.json");
const { cases: KNOWN_ANSWERS } = fixtureJson<{ cases: FrameVector[] }>("seal-kat.json");
const SESSIONS = [
  ...["hello", "half-close", "server-opens", "many-echo", "bulk-window", "window-stall"],
  ...["close-read", "mux-close-open-streams", "big-read", "cut-mid-frame"],
];

const bytesOf = ({ frame_hex, frame_bin }: FrameVector): Uint8Array =>
  frame_hex === undefined ? fixture(frame_bin!) : fromHex(frame_hex);

/** Feeds chunks; gives the frames and the error behind them, if there was one. */
function decode(key: Uint8Array, chunks: Iterable<Uint8Array>): { frames: Frame[]; code?: string } {
  const decoder = new FrameDecoder(key);
  const frames: Frame[] = [];
  try {
    for (const chunk of chunks) for (const frame of decoder.push(chunk)) frames.push(frame);
  } catch (error) {
    assert(error instanceof MuxError);
    return { frames, code: error.code };
  }
  return { frames };
}

function* cut(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}

const KEY = deriveKey("open sesame");
let nonces = 0;
function seal(fields: Parameters<typeof sealFrame>[0], key = KEY): Uint8Array {
  return sealFrame(fields, key, new Uint8Array(24).fill(++nonces));
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

test("deriveKey() gives gomux's key, of text and of bytes", () => {
  const vectors = new Map(FRAMES.map(({ psk_hex, key_hex }) => [psk_hex, key_hex]));
  assert(vectors.size >= 3);
  for (const [psk, key] of vectors) {
    assertEquals(toHex(deriveKey(fromHex(psk))), key);
    assertEquals(toHex(deriveKey(new TextDecoder().decode(fromHex(psk)))), key);
  }
  assertThrows(() => deriveKey(Object(7)), TypeError);
});

test("sealFrame() gives every frame that gomux wrote, and every known answer", () => {
  assert(FRAMES.length > 100 && KNOWN_ANSWERS.length >= 18);
  for (const vector of [...FRAMES, ...KNOWN_ANSWERS]) {
    const { id, flags, length, key_hex, nonce_hex } = vector;
    const expected = bytesOf(vector);
    const [opened] = new FrameDecoder(fromHex(key_hex)).push(expected);
    const { payload } = opened!;
    if (vector.payload_hex !== undefined) assertEquals(toHex(payload), vector.payload_hex);
    const sealed = sealFrame({ id, flags, length, payload }, fromHex(key_hex), fromHex(nonce_hex));
    assertEquals(sealed, expected, vector.name);
  }
});

test("FrameDecoder opens every frame, cut at every byte", () => {
  for (const vector of [...FRAMES, ...KNOWN_ANSWERS]) {
    const bytes = bytesOf(vector);
    const { id, flags, length, key_hex, nonce_hex } = vector;
    const step = bytes.length < 400 ? 1 : 9973;
    for (let at = 0; at <= bytes.length; at += step) {
      const parts = [bytes.slice(0, at), bytes.slice(at)];
      const { frames: [frame, ...more], code } = decode(fromHex(key_hex), parts);
      assertEquals([code, more.length], [undefined, 0]);
      assertEquals([frame?.id, frame?.flags, frame?.length], [id, flags, length]);
      assertEquals(toHex(frame!.nonce), nonce_hex);
      assertEquals(frame!.payload.length, flags === FLAG.DATA ? length : 0);
    }
  }
});

for (const name of SESSIONS) {
  test(`FrameDecoder reads both sides of the recorded session ${name}, in chunks of any size`, () => {
    const session = fixtureJson<SessionVector>(`sessions/${name}.json`);
    const key = fromHex(session.key_hex);
    for (const side of ["client", "server"] as const) {
      const bytes = fixture(session[`${side}_bin`]);
      const whole = ({ type }: SessionFrame) => type !== "truncated";
      const expected = (session[`${side}_frames`] ?? []).filter(whole).map((
        { id, flags, length, nonce_hex },
      ) => ({
        ...{ id, flags, length, nonce: nonce_hex },
      }));
      for (const size of bytes.length > 20_000 ? [bytes.length, 4099] : [1, 7, 53, 1024]) {
        const { frames, code } = decode(key, cut(bytes, size));
        assertEquals(code, undefined);
        const found = frames.map(({ id, flags, length, nonce }) => ({
          ...{ id, flags, length, nonce: toHex(nonce) },
        }));
        assertEquals(found, expected);
      }
    }
  });
}

test("partial tells whether the end is in the middle of a frame", () => {
  const decoder = new FrameDecoder(KEY);
  const frame = seal({ id: 0, flags: FLAG.OPEN_STREAM });
  assert(!decoder.partial);
  assertEquals([...decoder.push(frame.subarray(0, 51))], []);
  assert(decoder.partial);
  assertEquals([...decoder.push(frame.subarray(51))].length, 1);
  assert(!decoder.partial);
});

test("what a decoder gave stays as it is, and it works though nobody iterates", () => {
  const decoder = new FrameDecoder(KEY);
  const chunk = seal({ id: 4, flags: FLAG.DATA, payload: Uint8Array.of(1, 2, 3) });
  const [frame] = decoder.push(chunk);
  chunk.fill(0);
  assertEquals(frame!.payload, Uint8Array.of(1, 2, 3));
  const two = join(seal({ id: 1, flags: 2 }), seal({ id: 3, flags: 2 }).subarray(0, 10));
  decoder.push(two);
  assert(decoder.partial);
});

test("a bit flipped anywhere is auth-failed, behind the frames before, and for ever", () => {
  const good = seal({ id: 2, flags: FLAG.OPEN_STREAM });
  const frame = seal({ id: 2, flags: FLAG.DATA, payload: new Uint8Array(20) });
  for (let at = 0; at < frame.length; at++) {
    // Another length or flags may make another size, and then there is no end to it.
    if (at >= 4 && at < HEADER_BYTES - 24) continue;
    const bad = frame.slice();
    bad[at]! ^= 1;
    const { frames, code } = decode(KEY, [join(good, bad)]);
    assertEquals([frames.length, code], [1, "auth-failed"], `byte ${at}`);
  }
  const decoder = new FrameDecoder(KEY);
  frame[frame.length - 1]! ^= 1;
  for (const bytes of [frame, good]) {
    assertThrows(() => [...decoder.push(bytes)], MuxError, "cannot be opened");
  }
});

test("another key is auth-failed, and no error or inspection shows a key", () => {
  const sealed = seal({ id: 0, flags: FLAG.KEEPALIVE }, deriveKey("another"));
  const decoder = new FrameDecoder(KEY);
  const error = assertThrows(() => [...decoder.push(sealed)], MuxError);
  assertEquals(error.code, "auth-failed");
  const shown = inspect([error, decoder], { depth: 9, showHidden: true });
  assert(!shown.includes(toHex(KEY)) && !shown.includes([...KEY].slice(0, 4).join(", ")));
});

test("lengths that no frame has are refused before anything is kept", () => {
  const header = (length: number, flags: number) => {
    const bytes = new Uint8Array(HEADER_BYTES);
    new DataView(bytes.buffer).setUint32(4, length, true);
    new DataView(bytes.buffer).setUint32(8, flags, true);
    return bytes;
  };
  const codeOf = (length: number, flags: number) => decode(KEY, [header(length, flags)]).code;
  for (const flags of [0, 1, 2, 3, 4, 5, 7, 8, 0xffffffff]) {
    assertEquals(codeOf(MAX_PAYLOAD_BYTES, flags), undefined);
    assertEquals(codeOf(MAX_PAYLOAD_BYTES + 1, flags), "protocol");
    assertEquals(codeOf(0xffffffff, flags), "protocol");
  }
  assertEquals(codeOf(131072, FLAG.WINDOW_UPDATE), undefined, "a gomux that reads much at once");
  assertEquals(codeOf(131073, FLAG.WINDOW_UPDATE), "protocol");
  const http = new TextEncoder().encode("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
  assertEquals(decode(KEY, cut(http, 5)).code, "protocol");
});

test("sealFrame() refuses what no frame can be", () => {
  const nonce = new Uint8Array(24);
  for (const id of [-1, 0.5, NaN, 2 ** 32]) {
    assertThrows(() => sealFrame({ id, flags: 0 }, KEY, nonce), RangeError, "id");
    assertThrows(() => sealFrame({ id: 0, flags: id }, KEY, nonce), RangeError, "flags");
    assertThrows(() => sealFrame({ id: 0, flags: 1, length: id }, KEY, nonce), RangeError);
  }
  const payload = new Uint8Array(3);
  assertThrows(() => sealFrame({ id: 0, flags: 1, payload }, KEY, nonce), TypeError);
  assertThrows(() => sealFrame({ id: 0, flags: 0, length: 2, payload }, KEY, nonce), RangeError);
  const large = new Uint8Array(65537);
  assertThrows(() => sealFrame({ id: 0, flags: 0, payload: large }, KEY, nonce), RangeError);
  assertThrows(() => sealFrame({ id: 0, flags: 6, length: 131072 }, KEY, nonce), RangeError);
  assertThrows(() => sealFrame({ id: 0, flags: 1 }, KEY, new Uint8Array(12)), RangeError);
  assertThrows(() => sealFrame({ id: 0, flags: 1 }, new Uint8Array(31), nonce), RangeError);
  assertThrows(() => new FrameDecoder(new Uint8Array(31)), RangeError);
});

test("any frames come back, however they are cut", () => {
  const frame = fc.oneof(
    fc.record({ id: fc.nat(2 ** 32 - 1), payload: fc.uint8Array({ maxLength: 300 }) }),
    fc.record({
      id: fc.nat(2 ** 32 - 1),
      flags: fc.integer({ min: 1, max: 9 }),
      length: fc.nat(65536),
    }),
  );
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), fc.array(fc.nat(400)), (fields, sizes) => {
      const whole = fields.map((it) => ({ flags: 0, ...it }));
      const bytes = join(...whole.map((it) => seal(it)));
      const chunks: Uint8Array[] = [];
      let at = 0;
      for (const size of sizes) chunks.push(bytes.subarray(at, at += size));
      chunks.push(bytes.subarray(at));
      const { frames } = decode(KEY, chunks);
      assertEquals(frames.length, whole.length);
      for (const [i, it] of whole.entries()) {
        const { id, flags, length, payload } = frames[i]!;
        assertEquals([id, flags], [it.id, it.flags]);
        assertEquals(payload, "payload" in it ? it.payload : new Uint8Array(0));
        assertEquals(length, "length" in it ? it.length : payload.length);
      }
    }),
    { numRuns: 60 },
  );
});

test("a frame has 52 bytes and its payload", () => {
  assertEquals(HEADER_BYTES + TAG_BYTES, 52);
  assertEquals(seal({ id: 7, flags: FLAG.WINDOW_UPDATE, length: 65536 }).length, 52);
  assertEquals(seal({ id: 7, flags: FLAG.DATA, payload: new Uint8Array(9) }).length, 61);
});
