/** Messages of clients as the Go package reads them, by its vectors. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ClientMsg, UdsError } from "@trunkline/sockets/uds";
import { GoSplitter } from "../uds/_go_splitter.ts";
import { decodeClientBody } from "../uds/message.ts";

interface Vector {
  readonly name: string;
  readonly msg?: {
    readonly id: string;
    readonly type: string;
    readonly handlerHex: string;
    readonly data: { readonly hex?: string };
  };
  readonly wire: { readonly hex?: string };
  readonly error?: string;
  readonly restBytes: number;
}

const { vectors }: { vectors: readonly Vector[] } = JSON.parse(
  readFileSync(new URL("fixtures/uds/client-decode.json", import.meta.url), "utf8"),
);

function fromHex(hex = ""): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** What comes of chunks, one after the other. */
function split(chunks: readonly Uint8Array[], maxData = 1000): [Uint8Array[], boolean] {
  const splitter = new GoSplitter(maxData);
  const bodies: Uint8Array[] = [];
  for (const chunk of chunks) splitter.push(chunk, bodies);
  return [bodies, splitter.partial];
}

/** A chunk for each byte. */
const bytewise = (bytes: Uint8Array) => Array.from(bytes, (byte) => Uint8Array.of(byte));

/** All ways to cut bytes into up to three chunks, and one byte at a time. */
function* cuts(bytes: Uint8Array): Generator<Uint8Array[]> {
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second++) {
      yield [bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)];
    }
  }
  yield bytewise(bytes);
}

/** Go fills data that has not come with zeros; here it is waited for. */
const CUT_OFF = "truncated-data-zero-filled-no-error";

for (const { name, msg, wire, restBytes } of vectors) {
  if (msg === undefined || name === CUT_OFF) continue;
  test(`uds as Go: ${name} at every split`, () => {
    const whole = fromHex(wire.hex);
    const bytes = whole.subarray(0, whole.length - restBytes);
    for (const chunks of cuts(bytes)) {
      const [[body, ...more], partial] = split(chunks);
      assertEquals([more, partial], [[], false]);
      const { id, type, handlerBytes, data } = decodeClientBody(body!);
      assertEquals([String(id), String(type)], [msg.id, msg.type]);
      assertEquals([handlerBytes, data], [fromHex(msg.handlerHex), fromHex(msg.data.hex)]);
    }
    // Of itself it is partial everywhere but at its ends.
    for (let end = 0; end < bytes.length; end++) {
      assertEquals(split([bytes.subarray(0, end)]), [[], end > 0]);
    }
  });
}

test("uds as Go: what is cut off stays partial", () => {
  const cutOff = /truncated|^(only-size|no-type|no-handler-length|no-data-length)$/;
  const found = vectors.filter(({ name }) => cutOff.test(name));
  assertEquals(found.length, 6);
  for (const { wire } of found) {
    for (const chunks of cuts(fromHex(wire.hex))) assertEquals(split(chunks), [[], true]);
  }
  assertEquals(split([new Uint8Array()]), [[], false]);
});

test("uds as Go: what it cannot read is an error at every split", () => {
  const codes = new Map([
    ["type-2", "protocol"],
    ["id-uvarint-overflow", "protocol"],
    ["handler-length-2^63-panics", "protocol"],
    ["data-length-2^63-panics", "too-large"],
  ]);
  for (const [name, code] of codes) {
    const { wire } = vectors.find((it) => it.name === name)!;
    for (const chunks of cuts(fromHex(wire.hex))) {
      assertEquals(assertThrows(() => split(chunks), UdsError).code, code, name);
    }
  }
  // In the size, too, which nobody looks at.
  for (const size of ["ffffffffffffffffff02", "8080808080808080808001"]) {
    assertEquals(assertThrows(() => split([fromHex(size)]), UdsError).code, "protocol");
  }
});

test("uds as Go: messages before a bad one are given", () => {
  const good = new ClientMsg({ id: 5, handler: "a" }).encode();
  const bodies: Uint8Array[] = [];
  const chunk = concat([good, fromHex("002002"), good]);
  assertThrows(() => new GoSplitter(1000).push(chunk, bodies), UdsError);
  assertEquals(bodies, [good.subarray(1)]);
});

test("uds as Go: any size will do, of many messages in any chunks", () => {
  const data = Uint8Array.from({ length: 300 }, (_, i) => i * 31 + 7);
  const bodies = [0, 1, 5, 128, 300].map((length, id) =>
    new ClientMsg({ id, handler: "größe", data: data.subarray(0, length) }).encode()
      .subarray(length > 100 ? 2 : 1)
  );
  const sizes = ["00", "01", "0c", "ff7f", "ffffffffffffffffff01"];
  const bytes = concat(bodies.flatMap((body, i) => [fromHex(sizes[i]!), body]));
  for (let length = 1; length <= bytes.length; length++) {
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += length) chunks.push(bytes.slice(at, at + length));
    assertEquals(split(chunks), [bodies, false]);
  }
});

test("uds as Go: a name of 4096 bytes and data of maxData are the most", () => {
  const message = (name: number, data: number) =>
    new ClientMsg({ handler: new Uint8Array(name), data: new Uint8Array(data) }).encode();
  for (const chunksOf of [(bytes: Uint8Array) => [bytes], bytewise]) {
    assertEquals(split(chunksOf(message(4096, 1000)))[0].length, 1);
    const long = assertThrows(() => split(chunksOf(message(4097, 0))), UdsError);
    assertEquals([long.code, long.message], ["protocol", "a name of 4097 bytes"]);
    const large = assertThrows(() => split(chunksOf(message(0, 1001))), UdsError);
    assertEquals(large.code, "too-large");
    assertEquals(large.message, "data of 1001 bytes, and at most 1000 are taken");
  }
  assertThrows(() => new GoSplitter(0), RangeError);
});

test("uds as Go: a message in one chunk is not copied", () => {
  const bytes = new ClientMsg({ handler: "a", data: new Uint8Array(500) }).encode();
  const [bodies] = split([concat([bytes, bytes])]);
  assertEquals(bodies, [bytes.subarray(2), bytes.subarray(2)]);
  assertStrictEquals(bodies[0]!.buffer, bodies[1]!.buffer);
  // Nor behind its size.
  const rest = bytes.slice(2);
  assertStrictEquals(split([bytes.slice(0, 2), rest])[0][0]!.buffer, rest.buffer);
});

test("uds as Go: whatever changes on the way, there is no other error", () => {
  const seen = new Set<string>();
  for (const { wire } of vectors) {
    const bytes = fromHex(wire.hex);
    for (let at = 0; at < bytes.length; at++) {
      for (let byte = 0; byte < 256; byte++) {
        const changed = bytes.with(at, byte);
        const outcome = [[changed], bytewise(changed)].map((chunks) => {
          const bodies: Uint8Array[] = [];
          try {
            const splitter = new GoSplitter(1000);
            for (const chunk of chunks) splitter.push(chunk, bodies);
            return [bodies, splitter.partial];
          } catch (error) {
            assert(error instanceof UdsError, String(error));
            seen.add(error.code);
            return [bodies, error.message];
          }
        });
        // Plain comparison: there are 50,000 of these.
        if (String(outcome[0]) !== String(outcome[1])) assertEquals(outcome[0], outcome[1]);
        for (const body of outcome[0]![0] as Uint8Array[]) decodeClientBody(body);
      }
    }
  }
  assertEquals([...seen].sort(), ["protocol", "too-large"]);
});

test("uds as Go: memory is taken for what has come, and not for what is claimed", () => {
  const original = Uint8Array;
  const taken: number[] = [];
  const counting = new Proxy(original, {
    construct(target, args) {
      if (typeof args[0] === "number") taken.push(args[0]);
      return Reflect.construct(target, args);
    },
  });
  const head = fromHex("0000010161");
  const size = fromHex("80808020"); // 64 MiB
  const splitter = new GoSplitter(2 ** 26);
  const bodies: Uint8Array[] = [];
  const sum = () => taken.reduce((a, b) => a + b, 0);
  globalThis.Uint8Array = counting;
  try {
    for (const byte of [...head, ...size]) splitter.push(original.of(byte), bodies);
    assertEquals(sum(), 4096);
    const chunk = new original(1000);
    for (let come = 1000; come <= 1_000_000; come += 1000) {
      splitter.push(chunk, bodies);
      assert(sum() <= come + 128 * 1024 + head.length + size.length, `${sum()} bytes for ${come}`);
    }
  } finally {
    globalThis.Uint8Array = original;
  }
  assertEquals(bodies, []);
  assertEquals(Math.max(...taken), 128 * 1024);
  // It becomes whole nevertheless.
  splitter.push(new Uint8Array(2 ** 26 - 1_000_000).fill(7), bodies);
  assertEquals([bodies.length, splitter.partial], [1, false]);
  const { handler, data } = decodeClientBody(bodies[0]!);
  assertEquals([handler, data.length, data[999_999], data[1_000_000]], ["a", 2 ** 26, 0, 7]);
});
