/** demultiplex(): two streams out of one. */
import { assertEquals } from "@std/assert";
import { demultiplex, MAX_QUEUED_LINES } from "@trunkline/sockets/ovpn";
import { test } from "node:test";

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();

/** Gives `chunks`, then ends, or fails with `failure`. */
function source(chunks: readonly string[], failure?: Error): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream({
    pull(controller) {
      const chunk = chunks[next++];
      if (chunk !== undefined) controller.enqueue(ENCODER.encode(chunk));
      else if (failure !== undefined) controller.error(failure);
      else controller.close();
    },
  });
}

async function textsOf(lines: ReadableStream<Uint8Array>): Promise<string[]> {
  const texts: string[] = [];
  for await (const line of lines) texts.push(DECODER.decode(line));
  return texts;
}

/** Never ends: each chunk is ten events. Tells how many were asked for, and with what it was cancelled. */
function endless() {
  const chunk = ENCODER.encode(">LOG:1,,x\r\n".repeat(10));
  const seen: { chunks: number; cancelled: unknown } = { chunks: 0, cancelled: undefined };
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      seen.chunks++;
      controller.enqueue(chunk);
    },
    cancel(reason) {
      seen.cancelled = reason;
    },
  }, { highWaterMark: 0 });
  return { seen, stream };
}

/** Lets everything run that can run without something from outside. */
async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve));
}

test("demultiplex() separates replies and prompts from events, and closes both streams", async () => {
  const { replies, events } = demultiplex(source([
    "ENTER PASSWORD:",
    "SUCCESS: password is correct\r\n>INFO:hel",
    "lo\r\n>HOLD:wait\r\nEND\r\n>FATAL:no li",
    "ne end",
  ]));
  const [replyTexts, eventTexts] = await Promise.all([textsOf(replies), textsOf(events)]);
  assertEquals(replyTexts, ["ENTER PASSWORD:", "SUCCESS: password is correct", "END"]);
  assertEquals(eventTexts, ["INFO:hello", "HOLD:wait", "FATAL:no line end"]);
});

test("demultiplex() of nothing is two streams of nothing", async () => {
  const { replies, events } = demultiplex(source([]));
  assertEquals(await textsOf(events), []);
  assertEquals(await textsOf(replies), []);
});

test("demultiplex() ends the events with a FATAL one when the source fails", async () => {
  const { replies, events } = demultiplex(source(["SUCCESS: a\r\n>HOLD:b\r\nEN"], new Error("x")));
  assertEquals(await textsOf(events), ["HOLD:b", "FATAL:Error reading from OpenVPN"]);
  assertEquals(await textsOf(replies), ["SUCCESS: a", "EN"]);
});

test("demultiplex() keeps one stream going when the other is cancelled", async () => {
  const wire = [">HOLD:a\r\nSUCCESS: b\r\n", ">HOLD:c\r\nEND\r\n"];
  const one = demultiplex(source(wire));
  await one.replies.cancel();
  assertEquals(await textsOf(one.events), ["HOLD:a", "HOLD:c"]);
  const other = demultiplex(source(wire));
  await other.events.cancel();
  assertEquals(await textsOf(other.replies), ["SUCCESS: b", "END"]);
});

test("demultiplex() cancels the source when both streams are cancelled, with the last reason", async () => {
  const { seen, stream } = endless();
  const { replies, events } = demultiplex(stream);
  await settled();
  await replies.cancel("first");
  assertEquals(seen.cancelled, undefined);
  await events.cancel("second");
  assertEquals(seen.cancelled, "second");
  const { chunks } = seen;
  await settled();
  assertEquals(seen.chunks, chunks);
});

test("demultiplex() stops reading at MAX_QUEUED_LINES lines, until there is room", async () => {
  const { seen, stream } = endless();
  const { replies, events } = demultiplex(stream);
  const full = Math.ceil(MAX_QUEUED_LINES / 10);
  await settled();
  assertEquals(seen.chunks, full);
  const reader = events.getReader();
  for (let left = full * 10; left >= MAX_QUEUED_LINES; left--) await reader.read();
  await settled();
  assertEquals(seen.chunks, full + 1);
  // Replies first: else nothing would stop it, and an endless source that never waits stops all else.
  await replies.cancel();
  await reader.cancel();
});

test("demultiplex() stops reading while either stream is full, and goes on when that is cancelled", async () => {
  const wire = [">LOG:1,,x\n".repeat(MAX_QUEUED_LINES), "SUCCESS: a\n"];
  const { replies, events } = demultiplex(source(wire));
  const reader = replies.getReader();
  let answered = false;
  const reply = reader.read().then((it) => {
    answered = true;
    return it;
  });
  await settled();
  assertEquals(answered, false);
  await events.cancel();
  assertEquals(DECODER.decode((await reply).value), "SUCCESS: a");
  assertEquals((await reader.read()).done, true);
});

test("demultiplex() can be cancelled after the source has failed", async () => {
  const { replies, events } = demultiplex(source(["SUCCESS: a\r\n>HOLD:b\r\n"], new Error("x")));
  await settled();
  await replies.cancel();
  await events.cancel();
});
