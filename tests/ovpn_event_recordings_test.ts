/** Every line that OpenVPN was recorded to say, as it is and damaged. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import {
  Demuxer,
  describeEvent,
  EventAssembler,
  type ManagementEvent,
  parseEvent,
} from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import { recordings } from "./ovpn_recordings.ts";

/** The lines of events by recording. */
const LINES: readonly (readonly [string, readonly Uint8Array[]])[] = recordings().map(
  ({ name, bytes }) => {
    const demuxer = new Demuxer();
    const lines = [...demuxer.push(bytes), ...demuxer.end()];
    return [name, lines.filter(({ kind }) => kind === "event").map(({ line }) => line)];
  },
);

const latin1 = (bytes: Uint8Array) => String.fromCharCode(...bytes);

function gather(lines: readonly Uint8Array[]): ManagementEvent[] {
  const assembler = new EventAssembler();
  return [...lines.flatMap((line) => assembler.push(parseEvent(line))), ...assembler.end()];
}

test("every recorded message has a type of its own", () => {
  const types = new Set<string>();
  for (const [name, lines] of LINES) {
    for (const line of lines) {
      const event = parseEvent(line);
      assertStrictEquals(event.raw, line);
      assert(typeof describeEvent(event) === "string");
      const keyword = latin1(line).split(":", 1)[0];
      assertEquals(event.type.replace(/_ENV$/, ""), keyword!, `${name}: ${latin1(line)}`);
      types.add(event.type);
    }
  }
  for (const type of ["PK_SIGN", "RSA_SIGN", "NEED-OK", "INFOMSG", "REMOTE", "UPDOWN_ENV"]) {
    assert(types.has(type), type);
  }
});

test("every recorded block is whole, but the one with a line that OpenVPN cut", () => {
  let blocks = 0;
  for (const [name, lines] of LINES) {
    const events = gather(lines);
    for (const event of events) {
      if (!("env" in event)) continue;
      blocks++;
      const text = new TextDecoder().decode(event.raw);
      assertEquals(text.split("\n").length, event.envAll.length + 2);
      const cut = event.envAll.some(([, value]) => value.length > 9000);
      const ended = text.endsWith("ENV,END");
      const faults = [...cut ? ["overlong"] : [], ...ended ? [] : ["incomplete"]];
      assertEquals<readonly string[]>(event.envFaults, faults);
      assertEquals(cut, cut && name === "overlong-env-line");
    }
    const given = events.flatMap(({ raw }) => new TextDecoder().decode(raw).split("\n"));
    const said = lines.map((line) => new TextDecoder().decode(line));
    assertEquals(given.toSorted(), said.toSorted(), name);
  }
  assert(blocks > 50, `${blocks} blocks`);
});

test("a client whose subject was cut has the variable that came behind it", () => {
  const [, lines = []] = LINES.find(([name]) => name === "overlong-env-line") ?? [];
  const [event] = gather(lines).filter((it) => "env" in it && it.envFaults.length > 0);
  assert(event !== undefined && "env" in event);
  assertEquals(event.envFaults, ["overlong"]);
  assert(event.env.has("X509_0_CN"));
});

/** A recorded line with some of its bytes changed, moved or repeated. */
const DAMAGED = fc.tuple(
  fc.constantFrom(...LINES.flatMap(([, lines]) => lines.filter((_, i) => i % 7 === 0))),
  fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }), fc.nat(3)), { maxLength: 6 }),
).map(([line, changes]) => {
  let bytes = [...line];
  for (const [where, byte, how] of changes) {
    const at = where % (bytes.length + 1);
    if (how === 0) bytes[at] = byte;
    else if (how === 1) bytes.splice(at, 1);
    else if (how === 2) bytes.splice(at, 0, ...bytes.slice(0, 40));
    else bytes = bytes.slice(0, at);
  }
  return Uint8Array.from(bytes);
});

test("damaged lines and random bytes never throw, and keep their bytes", () => {
  const input = fc.oneof(DAMAGED, fc.uint8Array({ maxLength: 64 }));
  fc.assert(
    fc.property(fc.array(input, { maxLength: 30 }), (lines) => {
      const assembler = new EventAssembler({ maxEnvBytes: 2000 });
      const events: ManagementEvent[] = [];
      for (const line of lines) {
        const before = latin1(line);
        const event = parseEvent(line);
        assertStrictEquals(event.raw, line);
        assertEquals(latin1(line), before);
        events.push(...assembler.push(event));
      }
      events.push(...assembler.end());
      for (const event of events) {
        assert(typeof describeEvent(event) === "string");
        assert(event.raw.length <= Math.max(2000, ...lines.map(({ length }) => length)));
        if (event.type !== "BYTECOUNT" && event.type !== "BYTECOUNT_CLI") JSON.stringify(event);
      }
    }),
    { numRuns: 2000, seed: 4 },
  );
});

test("lines that are slow to match are not", () => {
  // At the square of their length these would take minutes.
  const long = 1 << 20;
  const repeat = (text: string) => text.repeat(long / text.length);
  for (
    const line of [
      `PASSWORD:Need '${repeat("' username/password SC:1")}`,
      `PASSWORD:Verification Failed: '${repeat("' ['")}`,
      `PASSWORD:Verification Failed: 'a' ['CRV1:${repeat(":")}']`,
      `NEED-OK:Need '${repeat("' confirmation MSG")}`,
      `REMOTE:${repeat("1,")}`,
      `PK_SIGN:${repeat("A")}=,`,
      `PKCS11ID-ENTRY:'1', ID:'${repeat("', BLOB:'")}`,
      `CLIENT:CONNECT,${repeat("1")},1`,
      `LOG:1,D,${repeat("MANAGEMENT: CMD 'client-")}`,
      `STATE:1,AUTH_PENDING,${repeat(",")}`,
    ]
  ) {
    // As a session would give it, and longer than a session can.
    for (const length of [10_000, long]) describeEvent(parseEvent(line.slice(0, length)));
  }
});
