/** Lines out of bytes: the recorded sessions, arbitrary input, and hostile input. */
import { assert, assertEquals } from "@std/assert";
import { type DemuxedLine, Demuxer, MAX_MESSAGE_BYTES, parseEvent } from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import { recordings } from "./ovpn_recordings.ts";

const RECORDINGS = recordings();
const PROMPT = "ENTER PASSWORD:";

/** One character per byte, so that no byte is lost and strings can be compared. */
function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** `reply:`, `event:` or `password-prompt:`, then the text. */
function show(lines: Iterable<DemuxedLine>): string[] {
  return Array.from(lines, ({ kind, line }) => `${kind}:${latin1(line)}`);
}

/** What a demuxer makes of `chunks`, and of the end after them. */
function demux(chunks: Iterable<Uint8Array>): DemuxedLine[] {
  const demuxer = new Demuxer();
  const lines: DemuxedLine[] = [];
  for (const chunk of chunks) lines.push(...demuxer.push(chunk));
  lines.push(...demuxer.end());
  return lines;
}

/** As demux(), for text in chunks. */
function split(...chunks: string[]): string[] {
  return show(demux(chunks.map(bytesOf)));
}

function* chunksOf(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Cuts at each of `points`, which may repeat and need not be sorted. */
function chunksAt(bytes: Uint8Array, points: readonly number[]): Uint8Array[] {
  const sorted = [0, ...points.map((at) => at % (bytes.length + 1)), bytes.length];
  sorted.sort((a, b) => a - b);
  return sorted.slice(1).map((to, i) => bytes.subarray(sorted[i], to));
}

/** The same rules, written down once more without any thought of chunks or speed. */
function naive(bytes: Uint8Array): string[] {
  let rest = latin1(bytes);
  const lines: string[] = [];
  for (;;) {
    const prompt = /^(?:\r?\n)*ENTER PASSWORD:/.exec(rest);
    if (prompt === null) break;
    lines.push(`password-prompt:${PROMPT}`);
    rest = rest.slice(prompt[0].length);
  }
  while (rest !== "") {
    const message = /^[^\n]*\n?/.exec(rest)?.[0].slice(0, MAX_MESSAGE_BYTES) ?? "";
    rest = rest.slice(message.length);
    const line = message.replace(/\r?\n$|\r$/, "");
    if (line !== "") lines.push(line.startsWith(">") ? `event:${line.slice(1)}` : `reply:${line}`);
  }
  return lines;
}

/** Everything that parseEvent() says, in one string. */
function eventText(line: Uint8Array): string {
  const { raw, ...fields } = parseEvent(line);
  const readable = (_: string, value: unknown) => typeof value === "bigint" ? `${value}n` : value;
  return `${JSON.stringify(fields, readable)} ${latin1(raw)}`;
}

test("there are 53 recorded sessions", () => {
  assertEquals(RECORDINGS.length, 53);
});

for (const size of [1, 2, 3, 7, 64, 4096, Infinity]) {
  test(`Demuxer and parseEvent() give the same for all recordings in chunks of ${size}`, () => {
    for (const { name, bytes } of RECORDINGS) {
      const step = Math.min(size, bytes.length);
      const whole = demux([bytes]);
      const lines = demux(chunksOf(bytes, step));
      // No assertEquals(): the difference of two such texts would take minutes to print.
      assert(show(lines).join("\n") === naive(bytes).join("\n"), `${name}: lines differ`);
      const events = lines.filter(({ kind }) => kind === "event").map(({ line }) => line);
      const expected = whole.filter(({ kind }) => kind === "event").map(({ line }) => line);
      const texts = events.map(eventText);
      assert(texts.join("\n") === expected.map(eventText).join("\n"), `${name}: events differ`);
      const malformed = events.filter((line) => parseEvent(line).type === "malformed");
      assertEquals(malformed.map(latin1), [], name);
    }
  });
}

test("Demuxer repairs the message that OpenVPN cut together with its line end", () => {
  const recording = RECORDINGS.find(({ name }) => name === "overlong-env-line");
  assert(recording !== undefined);
  const lines = show(demux([recording.bytes]));
  const cut = lines.findIndex((line) => line.length > 10_000);
  assertEquals(lines[cut]?.length, "event:".length + MAX_MESSAGE_BYTES - ">".length);
  assertEquals(lines[cut + 1], "event:CLIENT:ENV,X509_0_CN=long");
});

test("Demuxer finds the prompts of the sessions with a password", () => {
  const kindsOf = (name: string) => {
    const bytes = RECORDINGS.find((recording) => recording.name === name)?.bytes;
    return bytes && demux([bytes]).map(({ kind }) => kind);
  };
  const prompt = "password-prompt";
  assertEquals(kindsOf("tcp-password-three-wrong"), [prompt, prompt, prompt]);
  assertEquals(kindsOf("tcp-password")?.slice(0, 4), [prompt, prompt, prompt, "reply"]);
});

/** Bytes with much of what the demuxer looks for. */
const WIRE = fc.array(
  fc.oneof(
    fc.constantFrom("\n", "\r", "\r\n", ">", PROMPT, PROMPT.slice(0, 5), "END", ">STATE:1,WAIT,,"),
    fc.string({ unit: "binary-ascii", maxLength: 20 }),
    fc.integer({ min: MAX_MESSAGE_BYTES - 4, max: MAX_MESSAGE_BYTES + 4 })
      .map((length) => "x".repeat(length)),
  ),
  { maxLength: 12 },
).map((parts) => bytesOf(parts.join("")));

test("Demuxer gives what the naive splitter gives, however the bytes are cut", () => {
  const points = fc.array(fc.nat(), { maxLength: 20 });
  const input = fc.oneof(WIRE, fc.uint8Array({ maxLength: 200 }));
  fc.assert(fc.property(input, points, (bytes, at) => {
    assertEquals(show(demux(chunksAt(bytes, at))), naive(bytes));
  }));
});

test("Demuxer loses no byte but line ends", () => {
  fc.assert(fc.property(WIRE, (bytes) => {
    const text = latin1(bytes);
    const lines = demux([bytes]);
    const kept = lines.map(({ kind, line }) => (kind === "event" ? ">" : "") + latin1(line));
    const withoutEnds = (it: string) => it.replace(/[\r\n]/g, "");
    assertEquals(withoutEnds(kept.join("")), withoutEnds(text));
  }));
});

test("Demuxer ends lines at LF and at CR LF, also between chunks, and leaves empty ones out", () => {
  const expected = ["reply:SUCCESS: a", "event:HOLD:b", "reply:END"];
  assertEquals(split("SUCCESS: a\r\n>HOLD:b\r\nEND\r\n"), expected);
  assertEquals(split("SUCCESS: a\n>HOLD:b\nEND\n"), expected);
  assertEquals(split("SUCCESS: a\r", "\n>HOLD:b\r", "\nEND", "\r\n"), expected);
  assertEquals(split("\r\n\nSUCCESS: a\n\r\n\n", "\r", "\n>HOLD:b\n", "\n", "END\n\n"), expected);
  assertEquals(split("a\rb\r\r\n"), ["reply:a\rb\r"]);
  assertEquals(split("", "", "a", "", "\n", ""), ["reply:a"]);
  assertEquals(split(), []);
});

test("Demuxer tells events by their first byte alone", () => {
  assertEquals(split(">\r\n>>\r\n > \r\n"), ["event:", "event:>", "reply: > "]);
  assertEquals(split(">PKCS11ID-COUNT:1\r\n>PKCS11ID-ENTRY:'0', ID:'x', BLOB:'y'\r\n"), [
    "event:PKCS11ID-COUNT:1",
    "event:PKCS11ID-ENTRY:'0', ID:'x', BLOB:'y'",
  ]);
});

test("Demuxer sees the prompt at the start or after a prompt, split at every byte", () => {
  const wire = `${PROMPT}${PROMPT}SUCCESS: password is correct\r\n>INFO:hello\r\n`;
  const expected = [
    `password-prompt:${PROMPT}`,
    `password-prompt:${PROMPT}`,
    "reply:SUCCESS: password is correct",
    "event:INFO:hello",
  ];
  for (let at = 0; at <= wire.length; at++) {
    assertEquals(split(wire.slice(0, at), wire.slice(at)), expected, `split at ${at}`);
  }
});

test("Demuxer gives the prompt at once, and waits while it can still become one", () => {
  const demuxer = new Demuxer();
  assertEquals(show(demuxer.push(bytesOf("ENTER PASSWORD"))), []);
  assertEquals(show(demuxer.push(bytesOf(":"))), [`password-prompt:${PROMPT}`]);
  assertEquals(show(demuxer.push(bytesOf("ENTER"))), []);
  assertEquals(show(demuxer.push(bytesOf("ED\r\n"))), ["reply:ENTERED"]);
});

test("Demuxer takes the prompt's text for text once there was a line", () => {
  assertEquals(split(`>INFO:hello\r\n${PROMPT}\r\n>LOG:1,,${PROMPT}\r\n`), [
    "event:INFO:hello",
    `reply:${PROMPT}`,
    `event:LOG:1,,${PROMPT}`,
  ]);
  assertEquals(split(`${PROMPT}SUCCESS: password is correct\r\n`, PROMPT), [
    `password-prompt:${PROMPT}`,
    "reply:SUCCESS: password is correct",
    `reply:${PROMPT}`,
  ]);
});

test("Demuxer.end() gives the line that has no end, once", () => {
  const demuxer = new Demuxer();
  assertEquals(show(demuxer.push(bytesOf("a\r\n>FATAL:b"))), ["reply:a"]);
  assertEquals(show(demuxer.end()), ["event:FATAL:b"]);
  assertEquals(show(demuxer.end()), []);
  assertEquals(show(new Demuxer().end()), []);
  assertEquals(split("ENTER PASS"), ["reply:ENTER PASS"]);
  // Half of a CR LF is no part of the line.
  assertEquals(split("a\r"), ["reply:a"]);
  assertEquals(split("\r"), []);
});

test("Demuxer splits at MAX_MESSAGE_BYTES, counted with the line end", () => {
  const event = (length: number) => `>${"x".repeat(length - 1)}`;
  const next = "END\r\n";
  for (const length of [-3, -2, -1, 0].map((it) => MAX_MESSAGE_BYTES + it)) {
    // What OpenVPN sends for a text of this length: cut together with the line end.
    const message = `${event(length)}\r\n`.slice(0, MAX_MESSAGE_BYTES);
    const expected = [`event:${"x".repeat(length - 1)}`, "reply:END"];
    assertEquals(split(message + next), expected);
    for (const at of [length - 1, length, length + 1, length + 2]) {
      assertEquals(split((message + next).slice(0, at), (message + next).slice(at)), expected);
    }
  }
});

test("Demuxer stays bounded for 100 MB without a line end, fed from one buffer", () => {
  const demuxer = new Demuxer();
  const chunk = new Uint8Array(64 * 1024);
  const fillOf = (index: number) => 97 + index % 26;
  const kept: { readonly at: number; readonly line: Uint8Array }[] = [];
  let given = 0;
  const count = Math.ceil(100e6 / chunk.length);
  for (let index = 0; index < count; index++) {
    chunk.fill(fillOf(index));
    for (const { kind, line } of demuxer.push(chunk)) {
      assert(kind === "reply" && line.length === MAX_MESSAGE_BYTES);
      if (index % 100 === 0) kept.push({ at: given, line });
      given += line.length;
    }
    const held = (index + 1) * chunk.length - given;
    assert(held >= 0 && held < MAX_MESSAGE_BYTES, `${held} bytes held`);
  }
  for (const { at, line } of kept) {
    for (const i of [0, line.length - 1]) {
      assertEquals(line[i], fillOf(Math.floor((at + i) / chunk.length)));
    }
  }
  assertEquals(demuxer.end().reduce((sum, { line }) => sum + line.length, given), count * 65536);
});

test("Demuxer's lines stay as they are when the caller uses its chunk again", () => {
  const demuxer = new Demuxer();
  const chunk = bytesOf(">a\r\nb\r\nc");
  const lines = [...demuxer.push(chunk)];
  chunk.fill(0);
  const rest = bytesOf("d\r\n");
  lines.push(...demuxer.push(rest));
  rest.fill(0);
  const last = bytesOf("e");
  lines.push(...demuxer.push(last));
  last.fill(0);
  lines.push(...demuxer.end());
  assertEquals(show(lines), ["event:a", "reply:b", "reply:cd", "reply:e"]);
});

test("Demuxers know nothing of each other", () => {
  const one = new Demuxer();
  const other = new Demuxer();
  assertEquals(show(one.push(bytesOf("a"))), []);
  assertEquals(show(other.push(bytesOf(PROMPT))), [`password-prompt:${PROMPT}`]);
  assertEquals(show(other.push(bytesOf("b\n"))), ["reply:b"]);
  assertEquals(show(one.push(bytesOf("\n"))), ["reply:a"]);
});
