/** The histories of state, log and echo: the events that there were. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Demuxer,
  ManagementError,
  type ManagementEvent,
  parseEchoHistory,
  parseEvent,
  parseLogHistory,
  parseStateHistory,
} from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import { recordings } from "./ovpn_recordings.ts";

type Parse = (lines: readonly string[]) => readonly ManagementEvent[];

const PARSERS: Readonly<Record<"STATE" | "LOG" | "ECHO", Parse>> = {
  STATE: parseStateHistory,
  LOG: parseLogHistory,
  ECHO: parseEchoHistory,
};

/** The reply lines of a recorded session. */
function repliesOf(name: string): string[] {
  const bytes = recordings().find((recording) => recording.name === name)?.bytes;
  assert(bytes !== undefined, name);
  const demuxer = new Demuxer();
  return [...demuxer.push(bytes), ...demuxer.end()].filter(({ kind }) => kind === "reply")
    .map(({ line }) => new TextDecoder().decode(line));
}

/** The blocks of lines with a time that a recorded session has. */
function historiesOf(name: string): string[][] {
  const blocks: string[][] = [[]];
  for (const line of repliesOf(name)) {
    if (line === "END") blocks.push([]);
    else if (/^\d{9,},/.test(line)) blocks.at(-1)!.push(line);
  }
  return blocks.filter((block) => block.length > 0);
}

test("a history gives the same as the events", () => {
  const lines = {
    STATE: [
      "1795220642,WAIT,,,,,,",
      "1795220642,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,,fd00::2",
    ],
    LOG: ["1795220642,I,OpenVPN 2.6.14, and more", "1795220643,,no flags"],
    ECHO: ["1795220642,msg a,b", "1795220643,"],
  };
  for (const [type, parse] of Object.entries(PARSERS)) {
    const history = lines[type as keyof typeof lines];
    const events = history.map((line) => parseEvent(`${type}:${line}`));
    assertEquals(parse(history), events);
    assertEquals(parse([...history, "END"]), events);
    assert(events.every((event) => event.type === type));
  }
  assertEquals(parseStateHistory(lines.STATE)[1]?.tunnelAddress6, "fd00::2");
  assertEquals(parseLogHistory(lines.LOG).map(({ flags }) => flags), ["I", ""]);
  assertEquals(parseEchoHistory(lines.ECHO).map(({ message }) => message), ["msg a,b", ""]);
});

test("every recorded history is read", () => {
  let entries = 0;
  for (const { name } of recordings()) {
    for (const lines of historiesOf(name)) {
      const isState = lines.every((line) => /^\d+,[A-Z_]+,[^,]*,[^,]*,[^,]*,/.test(line));
      const isLog = !isState && lines.every((line) => /^\d+,[IFNWD]*,/.test(line));
      const events = PARSERS[isState ? "STATE" : isLog ? "LOG" : "ECHO"](lines);
      assertEquals(events.length, lines.length, name);
      for (const event of events) {
        assert("time" in event && event.time > 1795220000, name);
        if (event.type === "STATE") assert(/^[A-Z_]+$/.test(event.name), name);
      }
      entries += events.length;
    }
  }
  assert(entries > 100, `${entries}`);
});

test("a text with line ends is one entry, without those at its end", () => {
  const [first, second, ...more] = parseLogHistory([
    ...["1,W,one", "two, three", "", "four", "", "2,I,five", ""],
  ]);
  assertEquals([first?.time, first?.message], [1, "one\ntwo, three\n\nfour"]);
  assertEquals([second?.message, more.length], ["five", 0]);
  assertEquals(new TextDecoder().decode(first?.raw), "LOG:1,W,one\ntwo, three\n\nfour");
  // The recorded one ends so: the line end of the text, and then an empty line.
  const texts = historiesOf("log-embedded-newline").map((lines) => parseLogHistory(lines));
  assert(texts.flat().some(({ message }) => message.includes("ROUTE6: IPv6 route overlaps")));
});

test("a text with very many line ends is one entry", () => {
  // At the square of their number this would take minutes.
  const lines = ["1,W,one", ...Array<string>(500_000).fill(""), "two", "", ""];
  assertEquals(parseLogHistory(lines)[0]?.message.length, 500_001 + "onetwo".length);
});

test("what is no history is refused, and nothing is none", () => {
  for (const parse of Object.values(PARSERS)) {
    for (const lines of [[], ["END"], ["", "END"], ["END", "x"]]) assertEquals(parse(lines), []);
    for (const line of ["SUCCESS: pid=42", "WAIT,,", ",x", "-1,x", "1", `${"9".repeat(21)},x`]) {
      assertEquals(assertThrows(() => parse([line]), ManagementError).code, "protocol", line);
    }
  }
});

test("any lines are read, or refused by the one error", () => {
  const line = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }),
    fc.tuple(fc.nat(), fc.string({ maxLength: 40 })).map(([time, text]) => `${time},${text}`),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 12 }), (lines) => {
      for (const [type, parse] of Object.entries(PARSERS)) {
        try {
          for (const event of parse(lines)) assertEquals(event.type, type);
        } catch (error) {
          assert(error instanceof ManagementError && error.code === "protocol", `${error}`);
        }
      }
    }),
    { seed: 4, numRuns: 1000 },
  );
});
