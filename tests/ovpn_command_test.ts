import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import {
  encodeCommand,
  MAX_ARGUMENT_BYTES,
  MAX_ARGUMENTS,
  MAX_LINE_BYTES,
} from "@trunkline/sockets/ovpn";
import { lexCommand } from "../ovpn/command.ts";
import { hasBody } from "../ovpn/reply.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

test("encodeCommand() quotes every argument", () => {
  assertEquals(text(encodeCommand("pid")), "pid\n");
  assertEquals(text(encodeCommand("password", "Auth", "")), 'password "Auth" ""\n');
  assertEquals(text(encodeCommand("needstr", "a b", 'x"y\\z')), 'needstr "a b" "x\\"y\\\\z"\n');
  assertEquals(text(encodeCommand("needstr", "#n", ";x")), 'needstr "#n" ";x"\n');
  assertEquals(text(encodeCommand("kill", "žluťoučký 'kůň'")), `kill "žluťoučký 'kůň'"\n`);
});

test("encodeCommand() refuses every control character, in every place", () => {
  for (const code of [...Array(0x20).keys(), 0x7f]) {
    for (const place of ["", "a", "END"]) {
      const argument = place + String.fromCharCode(code) + place;
      const error = assertThrows(() => encodeCommand("password", "Auth", argument), TypeError);
      assert(!place || !error.message.includes(argument), "the argument is not in the message");
    }
  }
});

test("encodeCommand() counts bytes, not characters", () => {
  const ok = "ž".repeat(MAX_ARGUMENT_BYTES / 2);
  assertEquals(lexCommand(text(encodeCommand("kill", ok)).trimEnd())[1], ok);
  assertThrows(() => encodeCommand("kill", ok + "x"), RangeError, "257");
});

test("encodeCommand() refuses a line that OpenVPN would cut", () => {
  const args = (last: number) =>
    ["a", "a", "a"].map((it) => it.repeat(256)).concat("a".repeat(last));
  // kill, and four times a space and two quotes.
  const room = MAX_LINE_BYTES - 4 - 4 * 3 - 3 * 256;
  assertEquals(encodeCommand("kill", ...args(room)).length, MAX_LINE_BYTES + 1);
  assertThrows(() => encodeCommand("kill", ...args(room + 1)), RangeError, "1024");
});

test("encodeCommand() refuses more arguments than OpenVPN reads", () => {
  const args = Array<string>(MAX_ARGUMENTS).fill("x");
  assertEquals(lexCommand(text(encodeCommand("kill", ...args)).trimEnd()).length, 16);
  assertThrows(() => encodeCommand("kill", ...args, "x"), RangeError, "16 arguments");
});

test("encodeCommand() refuses half a surrogate pair, which would arrive as another text", () => {
  for (const half of ["\ud800", "a\udc00b"]) {
    assertThrows(() => encodeCommand("password", "Auth", half), TypeError);
  }
  assertEquals(text(encodeCommand("kill", "\u{1f600}")), 'kill "\u{1f600}"\n');
});

test("lexCommand() parts words where OpenVPN does, not where JavaScript sees white space", () => {
  // Control characters it leaves out before.
  assertEquals(lexCommand("a\tb\vc\u00a0d e\r\n"), ["abc\u00a0d", "e"]);
});

test("encodeCommand() refuses a name that is more than a word", () => {
  for (const name of ["", "a b", "a\nb", 'a"', "#", "kill;"]) {
    assertThrows(() => encodeCommand(name), TypeError);
  }
});

test("lexCommand() reads back whatever encodeCommand() writes", () => {
  // From the space on, without DEL: what can be sent at all.
  const unit = fc.integer({ min: 0x20, max: 0x2fff }).filter((it) => it !== 0x7f);
  const argument = fc.string({ unit: unit.map((it) => String.fromCharCode(it)), maxLength: 60 });
  fc.assert(
    fc.property(fc.array(argument, { maxLength: 5 }), (args) => {
      const line = text(encodeCommand("kill", ...args));
      assertEquals(lexCommand(line.slice(0, -1)), ["kill", ...args]);
    }),
  );
});

test("lexCommand() reads as OpenVPN does", () => {
  const cases: readonly [string, string[]][] = [
    ["", []],
    ["   ", []],
    ["# pid", []],
    ["; pid", []],
    ["  pid", ["pid"]],
    ['"pid"', ["pid"]],
    ['ho"ld"', ['ho"ld"']],
    ["needstr a b", ["needstr", "a", "b"]],
    ["needstr 'single \\ \"quoted\"' v", ["needstr", 'single \\ "quoted"', "v"]],
    ["needstr n #comment", ["needstr", "n"]],
    ['needstr n "#notcomment"', ["needstr", "n", "#notcomment"]],
    ["needstr n a#b", ["needstr", "n", "a#b"]],
    ["needstr a\\ b c", ["needstr", "a b", "c"]],
    ['password "Auth" ""', ["password", "Auth", ""]],
    // A backslash between parameters is for nothing: what follows is what it is without.
    ["\\ pkcs11-id-count", ["pkcs11-id-count"]],
    ["signal \\ SIGUSR2", ["signal", "SIGUSR2"]],
    ["signal \\;x", ["signal"]],
    ["signal \\#x", ["signal"]],
    ["signal \\", ["signal"]],
    ["\\", []],
    ['needstr \\"a\\\\ b\\"', ["needstr", '"a\\', 'b"']],
    ["needstr \"a\"b''", ["needstr", "a", "b''"]],
    [`kill ${"x ".repeat(20)}"`, ["kill", ...Array<string>(15).fill("x")]],
    ['kill "\ufeffx"', ["kill", "\ufeffx"]],
    [`kill ${"ž".repeat(128)}`, ["kill", "ž".repeat(128)]],
  ];
  for (const [line, expected] of cases) assertEquals(lexCommand(line), expected, line);
});

test("lexCommand() takes a line that OpenVPN cannot read for one word", () => {
  const lines = [
    ...['exit "x', "test 0 'x", "state on all \\x", "version 3 x\\", 'log "x\\', "kill \\'x"],
    `kill ${"x ".repeat(14)}"`,
    `kill ${"ž".repeat(128)}x`,
  ];
  for (const line of lines) assertEquals(lexCommand(line), [line]);
});

test("hasBody() knows the commands that are followed by lines", () => {
  for (
    const line of [
      "client-auth 0 1",
      "certificate",
      "pk-sig",
      "rsa-sig",
      "client-pf 0",
      "password Auth",
    ]
  ) {
    assert(hasBody(lexCommand(line)), line);
  }
  for (const line of ["client-auth-nt 0 1", "password Auth x", 'password Auth ""', "pid"]) {
    assert(!hasBody(lexCommand(line)), line);
  }
});
