/** How bytes are cut into messages, wherever the chunks end. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import { encodeFrame, type FrameDecoder, frameDecoder } from "../cmgr/framing.ts";
import { type Framing, ManagerError } from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  portOf,
  take,
  takeUntil,
  text,
  utf8,
  within,
} from "./cmgr_support.ts";
import { readExactly } from "./adapter_suite.ts";

type Cut = Exclude<Framing, "raw">;

/** What a stream is cut into: its messages, and what stands at its end. */
interface Vector {
  readonly framing: Cut;
  readonly stream: string;
  readonly messages: readonly string[];
  readonly last?: string;
}

const VECTORS: readonly Vector[] = [
  { framing: "lines", stream: "", messages: [] },
  { framing: "lines", stream: "a\n", messages: ["a"] },
  { framing: "lines", stream: "a\r\nbc\n", messages: ["a", "bc"] },
  { framing: "lines", stream: "\n\r\n\n", messages: ["", "", ""] },
  { framing: "lines", stream: "a\rb\n", messages: ["a\rb"] },
  { framing: "lines", stream: "a\r\r\n", messages: ["a\r"] },
  { framing: "lines", stream: "\u00e4\u2713\nend", messages: ["\u00e4\u2713"], last: "end" },
  { framing: "lines", stream: "a\nend\r", messages: ["a"], last: "end" },
  { framing: "length-prefixed", stream: "", messages: [] },
  { framing: "length-prefixed", stream: "\0\0\0\x01a", messages: ["a"] },
  { framing: "length-prefixed", stream: "\0\0\0\0\0\0\0\0", messages: ["", ""] },
  { framing: "length-prefixed", stream: "\0\0\0\x02a\n\0\0\0\x03bcd", messages: ["a\n", "bcd"] },
];

/** The messages of a stream that comes in these chunks. */
function cut(decoder: FrameDecoder, chunks: Iterable<Uint8Array>): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (const chunk of chunks) messages.push(...decoder.push(chunk));
  return messages;
}

/** `stream` in two parts, and one that is empty between them. */
function partsAt(stream: Uint8Array, at: number): Uint8Array[] {
  return [stream.slice(0, at), new Uint8Array(), stream.slice(at)];
}

/** `stream` in chunks of these sizes, again and again. */
function* chunksOf(stream: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = sizes[i % sizes.length]!;
    yield stream.slice(at, at += size);
  }
}

/** The code of what `call` throws. */
const thrown = (call: () => unknown) => assertThrows(call, ManagerError).code;

for (const { framing, stream, messages, last } of VECTORS) {
  test(`${framing}: ${JSON.stringify(stream)} is cut the same at every split point`, () => {
    const bytes = utf8(stream);
    const splits = Array.from({ length: bytes.length + 1 }, (_, at) => partsAt(bytes, at));
    for (const chunks of [...splits, [...chunksOf(bytes, [1])]]) {
      const decoder = frameDecoder(framing, 100);
      assertEquals(cut(decoder, chunks).map(text), messages);
      const rest = decoder.finish();
      assertEquals(rest && text(rest), last);
    }
  });
}

test("encodeFrame() makes what the decoder of the other side reads", () => {
  const made = (framing: Framing, message: string) => text(encodeFrame(framing, utf8(message)));
  assertEquals(made("raw", "a"), "a");
  assertEquals(["", "a", "a\n", "a\r"].map((it) => made("lines", it)), [
    "\n",
    "a\n",
    "a\n",
    "a\r\n",
  ]);
  assertEquals(made("length-prefixed", ""), "\0\0\0\0");
  assertEquals(made("length-prefixed", "abc"), "\0\0\0\x03abc");
});

test("a length prefix has its most significant byte first", () => {
  const frame = encodeFrame("length-prefixed", new Uint8Array(0x012345));
  assertEquals([...frame.subarray(0, 4)], [0, 1, 0x23, 0x45]);
});

test("lines: `maxBytes` is for the line without its end", () => {
  for (const end of ["\n", "\r\n"]) {
    for (let at = 0; at <= 5 + end.length; at++) {
      const parts = (line: string) => partsAt(utf8(line + end), at);
      assertEquals(cut(frameDecoder("lines", 5), parts("12345")).map(text), ["12345"]);
      assertEquals(thrown(() => cut(frameDecoder("lines", 5), parts("123456"))), "frame-too-large");
    }
  }
});

test("lines: one without an end is refused as soon as it is too long", () => {
  const decoder = frameDecoder("lines", 5);
  assertEquals(cut(decoder, [utf8("123456")]), []);
  assertEquals(thrown(() => cut(decoder, [utf8("7")])), "frame-too-large");
  const atEnd = frameDecoder("lines", 5);
  cut(atEnd, [utf8("123456")]);
  assertEquals(thrown(() => atEnd.finish()), "frame-too-large");
  const withCr = frameDecoder("lines", 5);
  cut(withCr, [utf8("12345\r")]);
  assertEquals(text(withCr.finish()!), "12345");
});

test("length-prefixed: a frame that is too large is refused by its prefix alone", () => {
  for (let at = 0; at <= 4; at++) {
    const parts = partsAt(new Uint8Array([0, 0, 0, 6]), at);
    assertEquals(thrown(() => cut(frameDecoder("length-prefixed", 5), parts)), "frame-too-large");
  }
  const greedy = frameDecoder("length-prefixed", 5);
  assertEquals(thrown(() => cut(greedy, [new Uint8Array(4).fill(0xff)])), "frame-too-large");
  const fits = frameDecoder("length-prefixed", 5);
  assertEquals(cut(fits, [utf8("\0\0\0\x0512345")]).map(text), ["12345"]);
});

test("messages in front of one that is too large are given", () => {
  for (
    const [framing, stream] of [
      ["lines", "a\nbc\n1234567\nd\n"],
      ["length-prefixed", "\0\0\0\x01a\0\0\0\x02bc\0\0\0\x061"],
    ] as const
  ) {
    const messages: Uint8Array[] = [];
    const decoder = frameDecoder(framing, 5);
    const push = () => {
      for (const message of decoder.push(utf8(stream))) messages.push(message);
    };
    assertEquals(thrown(push), "frame-too-large");
    assertEquals(messages.map(text), ["a", "bc"]);
  }
});

test("length-prefixed: a stream that ends within a frame is an error", () => {
  const frame = utf8("\0\0\0\x03abc");
  for (let length = 1; length < frame.length; length++) {
    const decoder = frameDecoder("length-prefixed", 5);
    cut(decoder, [frame.slice(0, length)]);
    assertEquals(thrown(() => decoder.finish()), "frame-truncated");
  }
});

test("messages in any chunks come back whole (length-prefixed)", () => {
  fc.assert(fc.property(
    fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }),
    fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
    (messages, sizes) => {
      const frames = messages.map((it) => encodeFrame("length-prefixed", it));
      const decoder = frameDecoder("length-prefixed", 300);
      const stream = Uint8Array.from(frames.flatMap((it) => [...it]));
      assertEquals(cut(decoder, chunksOf(stream, sizes)), messages);
      assertEquals(decoder.finish(), undefined);
    },
  ));
});

test("texts in any chunks come back whole (lines)", () => {
  const line = fc.string({ unit: "binary", maxLength: 60 })
    .map((it) => it.replaceAll("\n", "").replace(/\r+$/, ""));
  fc.assert(fc.property(
    fc.array(line, { maxLength: 20 }),
    fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 5 }),
    (lines, sizes) => {
      const frames = lines.map((it) => encodeFrame("lines", utf8(it)));
      const decoder = frameDecoder("lines", 300);
      const stream = Uint8Array.from(frames.flatMap((it) => [...it]));
      assertEquals(cut(decoder, chunksOf(stream, sizes)).map(text), lines);
      assertEquals(decoder.finish(), undefined);
    },
  ));
});

test("any bytes make messages within the limit, or an error of the documented kind", () => {
  fc.assert(fc.property(
    fc.constantFrom<Cut>("lines", "length-prefixed"),
    fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }),
    fc.integer({ min: 1, max: 30 }),
    (framing, chunks, maxBytes) => {
      const decoder = frameDecoder(framing, maxBytes);
      try {
        for (const message of cut(decoder, chunks)) assert(message.length <= maxBytes);
        decoder.finish();
      } catch (error) {
        assert(error instanceof ManagerError, `${error}`);
        assert(["frame-too-large", "frame-truncated"].includes(error.code), error.code);
      }
    },
  ));
});

test("messages do not share memory that is written again", () => {
  const decoder = frameDecoder("lines", 100);
  const [first] = cut(decoder, [utf8("fir"), utf8("st\nsec")]);
  const [second] = cut(decoder, [utf8("ond\nthird\n")]);
  assertEquals([text(first!), text(second!)], ["first", "second"]);
});

check("a listener with a framing gives whole messages, and writes them", async (scene) => {
  const manager = scene.manager();
  const id = await manager.listen("tcp", "any", "127.0.0.1", undefined, { framing: "lines" });
  const client = await scene.dial(manager, id);
  await client.write(utf8("one\r\ntw"));
  const [, , one] = await take(manager.events, 3);
  assertEquals(brief([one!]), ["data a1 one"]);
  await client.write(utf8("o\n\nrest"));
  await client.closeWrite();
  const events = await takeUntil(manager.events, "disconnected");
  assertEquals(brief(events), ["data a1 two", "data a1 ", "data a1 rest", "disconnected a1 eof"]);
  assertEquals(events[0]!.session.stats().messagesIn, 4);
});

check("two managers with length prefixes exchange messages of any size", async (scene) => {
  const options = { framing: "length-prefixed", maxFrameBytes: 300_000 } as const;
  const server = await scene.listening(options);
  const client = scene.manager(options);
  const session = await client.connect(`127.0.0.1:${portOf(server)}`, "me");
  const sizes = [0, 1, 65_536, 300_000];
  for (const size of sizes) await session.write(new Uint8Array(size).fill(7));
  const events = (await take(server.events, 6)).slice(2);
  assertEquals(events.map(({ data }) => data.length), sizes);
  for (const { data } of events) assert(data.every((byte) => byte === 7));
  await events[0]!.writeN(utf8("answer"), 3);
  assertEquals(brief(await take(client.events, 2)), ["new me", "data me ans"]);
});

check("a frame that is too large ends its session with an error, and no other", async (scene) => {
  const manager = await scene.listening({ framing: "lines", maxFrameBytes: 10 });
  const good = await scene.dial(manager);
  const bad = await scene.dial(manager);
  await take(manager.events, 4);
  await bad.write(utf8("short\n0123456789a\nnever\n"));
  const events = await takeUntil(manager.events, "disconnected");
  // What came before it in the same chunk is told.
  assertEquals(brief(events), ["data a2 short", "disconnected a2 error"]);
  const end = events.at(-1)!;
  assertEquals((end.error as ManagerError).code, "frame-too-large");
  await good.write(utf8("fine\n"));
  const [after] = await take(manager.events, 1);
  assertEquals([text(after!.data), manager.sessions().length], ["fine", 1]);
  await after!.writeStr("answer");
  assertEquals(text(await readExactly(good, 7)), "answer\n");
  // The peer hears of it, too.
  await within(bad.read().catch(() => null), "the end of the bad one");
});

check("a frame that is cut short by the end of the stream is an error", async (scene) => {
  const manager = await scene.listening({ framing: "length-prefixed" });
  const client = await scene.dial(manager);
  await client.write(utf8("\0\0\0\x05abc"));
  await client.closeWrite();
  const end = (await takeUntil(manager.events, "disconnected")).at(-1)!;
  assertEquals([end.reason, (end.error as ManagerError).code], ["error", "frame-truncated"]);
});

check("a framing that is none is refused before anything is opened", async (scene) => {
  const manager = scene.manager();
  const wrong = { framing: "words" as Framing };
  assertEquals(await codeOf(manager.listenTcp("any", undefined, wrong)), "TypeError");
  assertThrows(() => scene.manager({ maxFrameBytes: 0 }), RangeError, "maxFrameBytes");
});
