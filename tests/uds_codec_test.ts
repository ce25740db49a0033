/** Messages and handshakes of `./uds`, by the vectors of the Go package. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  ClientMsg,
  ClientMsgDecoder,
  type ClientMsgInit,
  ServerMsg,
  ServerMsgDecoder,
  setupDecode,
  setupEncode,
  UdsError,
  type Uint,
} from "@trunkline/sockets/uds";

interface Bytes {
  readonly hex?: string;
  readonly len: number;
  readonly sha256?: string;
  readonly gen?: string;
}

interface Vector {
  readonly name: string;
  readonly op: string;
  readonly msg?: {
    readonly id: string;
    readonly type: string;
    readonly handler?: string;
    readonly handlerHex?: string;
    readonly data: Bytes;
  };
  readonly uid?: string;
  readonly wire?: Bytes;
  readonly error?: string;
  readonly panic?: string;
  readonly restBytes?: number;
}

function vectors(name: string): readonly Vector[] {
  const url = new URL(`fixtures/uds/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")).vectors;
}

function fromHex(hex = ""): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

function bytesOf({ hex, len, gen }: Bytes): Uint8Array {
  if (gen === undefined) return fromHex(hex);
  return Uint8Array.from({ length: len }, (_, i) => (i * 31 + 7) & 0xff);
}

function assertBytes(actual: Uint8Array, expected: Bytes): void {
  assertEquals(actual.length, expected.len);
  if (expected.hex !== undefined) assertEquals(hexOf(actual), expected.hex);
  if (expected.sha256 !== undefined) {
    assertEquals(createHash("sha256").update(actual).digest("hex"), expected.sha256);
  }
}

const hexOf = (bytes: Uint8Array) =>
  [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** As decoding gives it: a number where that is exact. */
function uint(text: string): Uint {
  const value = BigInt(text);
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** What Go takes and is a fault nevertheless: sizes that are wrong, data that is cut off. */
const GO_TAKES = new Set([
  "total-size-wrong-is-ignored",
  "total-size-zero-is-ignored",
  // Its size is wrong, too; with the right one it is below.
  "id-max-uint64-decodes",
  "truncated-data-zero-filled-no-error",
  "size-bigger-with-slack",
]);
/** What Go does not take, since it reads no more than 4096 bytes. */
const GO_FAILS = new Set(["data-4093-fails", "bufio-data-4091-fails"]);

for (const side of ["client", "server"] as const) {
  // A server's has no handler, and does not look for one.
  const Msg: typeof ClientMsg | (new (init: ClientMsgInit) => ServerMsg) & typeof ServerMsg =
    side === "client" ? ClientMsg : ServerMsg;
  const Decoder = side === "client" ? ClientMsgDecoder : ServerMsgDecoder;

  for (const { name, msg, wire, panic } of vectors(`${side}-encode`)) {
    test(`uds ${side}: encodes ${name}`, () => {
      const data = bytesOf(msg!.data);
      const handler = fromHex(msg!.handlerHex);
      const make = (id: Uint) => new Msg({ id, type: uint(msg!.type), handler, data }).encode();
      if (panic !== undefined) {
        assertThrows(() => make(uint(msg!.id)), RangeError);
        return;
      }
      const bytes = make(uint(msg!.id));
      assertBytes(bytes, wire!);
      assertEquals(make(BigInt(msg!.id)), bytes);
      if (uint(msg!.type) as number > 1) {
        assertThrows(() => Msg.decode(bytes), UdsError);
        return;
      }
      const decoded = Msg.decode(bytes);
      assertEquals([decoded.id, decoded.type], [uint(msg!.id), uint(msg!.type)]);
      assertEquals(decoded.data.length, data.length);
      if (decoded instanceof ClientMsg) {
        assertEquals(decoded.handler, msg!.handler ?? "");
        assertEquals(decoded.handlerBytes, handler);
      }
      assertEquals(decoded.encode(), bytes);
    });
  }

  for (const { name, msg, wire, restBytes = 0 } of vectors(`${side}-decode`)) {
    test(`uds ${side}: decodes ${name}`, () => {
      const whole = fromHex(wire!.hex);
      const bytes = whole.subarray(0, msg === undefined ? undefined : whole.length - restBytes);
      if (GO_TAKES.has(name) || msg === undefined && !GO_FAILS.has(name)) {
        const error = assertThrows(() => Msg.decode(bytes), UdsError);
        assertEquals(error.code, "protocol");
        return;
      }
      const decoded = Msg.decode(bytes);
      if (msg === undefined) return;
      assertEquals([decoded.id, decoded.type], [uint(msg.id), uint(msg.type)]);
      assertBytes(decoded.data, msg.data);
      const messages = [...new Decoder().push(whole)];
      assertEquals(messages[0]?.id, uint(msg.id));
    });
  }

  test(`uds ${side}: a decoder gives the same at every split`, () => {
    const messages = [
      new Msg({ id: 1, handler: "a", data: new Uint8Array([1, 2, 3]) }),
      new Msg({ id: 2n ** 55n, type: 0 }),
      new Msg({ id: 300, handler: "größe", data: new Uint8Array(300).fill(7) }),
    ];
    const bytes = Uint8Array.from(messages.flatMap((message) => [...message.encode()]));
    for (let split = 0; split <= bytes.length; split++) {
      for (const second of [split, Math.min(bytes.length, split + 1), bytes.length]) {
        const decoder = new Decoder();
        const parts = [bytes.slice(0, split), bytes.slice(split, second), bytes.slice(second)];
        const decoded = parts.flatMap((part) => [...decoder.push(part)]);
        assertEquals(decoded.map((it) => it.encode()), messages.map((it) => it.encode()));
        assertEquals(decoder.partial, false);
      }
    }
    const decoder = new Decoder();
    const bytewise = [...bytes].flatMap((byte) => [...decoder.push(new Uint8Array([byte]))]);
    assertEquals(bytewise.map((it) => it.encode()), messages.map((it) => it.encode()));
    const [first] = decoder.push(bytes.slice(0, 5));
    assertEquals([first, decoder.partial], [undefined, true]);
  });

  test(`uds ${side}: a message that is too large is refused by its size`, () => {
    const fits = new Msg({ data: new Uint8Array(95) }).encode();
    const [message] = new Decoder({ maxMessage: fits.length - 1 }).push(fits);
    assertEquals(message?.data.length, 95);
    const decoder = new Decoder({ maxMessage: fits.length - 2 });
    const error = assertThrows(() => [...decoder.push(fits.subarray(0, 1))], UdsError);
    assertEquals(error.code, "too-large");
    assertThrows(() => [...decoder.push(fits)], UdsError, error.message);
    // The largest sizes that there are, and one that no 64 bits hold.
    for (const size of ["ffffffffffffffffff01", "80808080808080808001"]) {
      const error = assertThrows(() => [...new Decoder().push(fromHex(size))], UdsError);
      assertEquals(error.code, "too-large");
    }
    const endless = new Uint8Array(64).fill(0x80);
    assertEquals(
      assertThrows(() => [...new Decoder().push(endless)], UdsError).code,
      "protocol",
    );
    assertThrows(() => new Decoder({ maxMessage: 0 }), RangeError);
  });

  test(`uds ${side}: messages before a bad one are given, and then the error`, () => {
    const good = new Msg({ id: 5 }).encode();
    const bad = new Msg({ id: 6, type: 2 }).encode();
    const decoder = new Decoder();
    const seen: Uint[] = [];
    const error = assertThrows(() => {
      for (const { id } of decoder.push(Uint8Array.from([...good, ...bad, ...good]))) seen.push(id);
    }, UdsError);
    assertEquals([seen, error.code], [[5], "protocol"]);
    assertThrows(() => [...decoder.push(good)], UdsError);
  });

  test(`uds ${side}: types from 16 on need the option for extensions`, () => {
    for (const type of [2, 15, 16, 2n ** 55n]) {
      const bytes = new Msg({ type }).encode();
      assertThrows(() => Msg.decode(bytes), UdsError);
      if (type < 16) assertThrows(() => Msg.decode(bytes, { extensions: true }), UdsError);
      else assertEquals(Msg.decode(bytes, { extensions: true }).type, type);
    }
  });

  test(`uds ${side}: an id that cannot be written is a RangeError`, () => {
    for (const id of [-1, 0.5, NaN, 2 ** 53, 2n ** 56n, -1n]) {
      assertThrows(() => new Msg({ id }).encode(), RangeError);
      assertThrows(() => new Msg({ type: id }).encode(), RangeError);
    }
    assert(new Msg({ id: 2n ** 56n - 1n }).encode().length > 8);
  });
}

test("uds: ids and types up to 2^64-1 are exact", () => {
  const max = "ffffffffffffffffff01";
  const { id } = ClientMsg.decode(fromHex(`0e${max}01016800`));
  assertEquals(id, 2n ** 64n - 1n);
  const { id: other, type } = ServerMsg.decode(fromHex(`15${max}${max}00`), { extensions: true });
  assertEquals([other, type], [2n ** 64n - 1n, 2n ** 64n - 1n]);
  // One bit more, and one byte more.
  for (const bad of ["13ffffffffffffffffff0201016800", "0fffffffffffffffffff810001016800"]) {
    assertEquals(assertThrows(() => ClientMsg.decode(fromHex(bad)), UdsError).code, "protocol");
  }
  assertEquals(ServerMsg.decode(fromHex("0affffffffffffff0f0100")).id, 2 ** 53 - 1);
  assertEquals(ServerMsg.decode(fromHex("0a80808080808080100100")).id, 2n ** 53n);
});

for (const { name, op, uid, wire, error } of vectors("setup")) {
  test(`uds setup: ${op}s ${name}`, () => {
    if (op === "encode") {
      const strict = name === "uuid";
      if (strict) assertBytes(setupEncode(uid!), wire!);
      else assertThrows(() => setupEncode(uid!), TypeError);
      if (error === undefined) assertBytes(setupEncode(uid!, { compat: true }), wire!);
      else assertThrows(() => setupEncode(uid!, { compat: true }), TypeError);
      return;
    }
    const bytes = fromHex(wire!.hex);
    if (name === "uuid") assertEquals(setupDecode(bytes), uid!);
    else assertEquals(assertThrows(() => setupDecode(bytes), UdsError).code, "protocol");
    if (error === undefined) assertEquals(setupDecode(bytes, { compat: true }), uid!);
    else assertThrows(() => setupDecode(bytes, { compat: true }), UdsError);
  });
}

test("uds setup: 36 bytes that are no UUID", () => {
  const bytes = new TextEncoder().encode("-".repeat(36));
  assertEquals(assertThrows(() => setupDecode(bytes), UdsError).code, "protocol");
  assertEquals(setupDecode(bytes, { compat: true }), "-".repeat(36));
});
