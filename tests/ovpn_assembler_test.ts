/** Blocks of lines made into one event. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  type ClientEvent,
  EventAssembler,
  type ManagementEvent,
  MAX_MESSAGE_BYTES,
  parseEvent,
  type UpDownEvent,
} from "@trunkline/sockets/ovpn";
import { test } from "node:test";

type Block = Exclude<ClientEvent, { kind: "ADDRESS" }> | UpDownEvent;

function feed(lines: readonly string[], maxEnvBytes?: number): ManagementEvent[] {
  const assembler = new EventAssembler({ maxEnvBytes });
  return [...lines.flatMap((line) => assembler.push(parseEvent(line))), ...assembler.end()];
}

function blockOf(event: ManagementEvent | undefined): Block {
  assert(event?.type === "UPDOWN" || event?.type === "CLIENT" && event.kind !== "ADDRESS");
  return event;
}

function only(lines: readonly string[], maxEnvBytes?: number): Block {
  const events = feed(lines, maxEnvBytes);
  assertEquals(events.length, 1);
  return blockOf(events[0]);
}

const textOf = ({ raw }: ManagementEvent) => new TextDecoder().decode(raw);

test("EventAssembler gathers each kind of block", () => {
  const headers = {
    "CLIENT:CONNECT,7,1": { type: "CLIENT", kind: "CONNECT", clientId: "7", keyId: "1" },
    "CLIENT:REAUTH,7,3": { type: "CLIENT", kind: "REAUTH", clientId: "7", keyId: "3" },
    "CLIENT:ESTABLISHED,7": { type: "CLIENT", kind: "ESTABLISHED", clientId: "7" },
    "CLIENT:DISCONNECT,7": { type: "CLIENT", kind: "DISCONNECT", clientId: "7" },
    "CLIENT:CR_RESPONSE,7,1,YQ==": { type: "CLIENT", kind: "CR_RESPONSE", clientId: "7" },
    "UPDOWN:UP": { type: "UPDOWN", kind: "UP" },
    "UPDOWN:DOWN": { type: "UPDOWN", kind: "DOWN" },
  };
  for (const [header, fields] of Object.entries(headers)) {
    const keyword = header.slice(0, 6);
    const lines = [header, `${keyword}:ENV,a=1`, `${keyword}:ENV,b=x=y, "z"`, `${keyword}:ENV,END`];
    const event = only(lines);
    assertEquals({ ...event, ...fields }, { ...event });
    assertEquals([...event.env], [["a", "1"], ["b", 'x=y, "z"']]);
    assertEquals(event.envAll, [["a", "1"], ["b", 'x=y, "z"']]);
    assertEquals(event.envFaults, []);
    assertEquals(textOf(event), lines.join("\n"));
    if (event.kind === "CR_RESPONSE") assertEquals([event.keyId, event.response], ["1", "YQ=="]);
  }
});

test("EventAssembler keeps copies of the lines of a block, however many", () => {
  for (const count of [0, 1, 40, 41, 42, 43, 500]) {
    const assembler = new EventAssembler();
    const variables = Array.from({ length: count }, (_, i) => `CLIENT:ENV,v${i}=${"x".repeat(84)}`);
    const lines = ["CLIENT:ESTABLISHED,7", ...variables, "CLIENT:ENV,END"];
    const events = lines.flatMap((line) => {
      const bytes = new TextEncoder().encode(line);
      const given = assembler.push(parseEvent(bytes));
      bytes.fill(0);
      return given;
    });
    assertEquals(events.map(textOf), [lines.join("\n")]);
    assertEquals(events[0]!.raw.buffer.byteLength, events[0]!.raw.byteLength);
  }
});

test("EventAssembler gives an empty environment of a DISCONNECT that has none", () => {
  const event = only(["CLIENT:DISCONNECT,0", "CLIENT:ENV,END"]);
  assertEquals([event.env.size, event.envAll, event.envFaults], [0, [], []]);
});

test("EventAssembler lets everything else through at once, also within a block", () => {
  const assembler = new EventAssembler();
  const others = [
    "LOG:1,I,a",
    "CLIENT:ADDRESS,0,10.8.0.2,1",
    "UPDOWN:ENV,a=b",
    "UPDOWN:ENV,END",
    "OTHER:a",
    "malformed",
    "UPDOWN:what",
  ];
  const pass = () => {
    for (const event of others.map((it) => parseEvent(it))) {
      const given = assembler.push(event);
      assertEquals(given.length, 1);
      assertStrictEquals(given[0], event);
    }
  };
  pass();
  assertEquals(assembler.push(parseEvent("CLIENT:CONNECT,0,1")), []);
  pass();
  assertEquals(assembler.push(parseEvent("CLIENT:ENV,a=1")), []);
  pass();
  const [event, ...more] = assembler.push(parseEvent("CLIENT:ENV,END"));
  assertEquals(more, []);
  assertEquals([...blockOf(event).env], [["a", "1"]]);
  assertEquals(blockOf(event).envFaults, []);
  for (const line of ["CLIENT:ENV,a=1", "CLIENT:ENV,END"]) {
    const stray = parseEvent(line);
    assertStrictEquals(assembler.push(stray)[0], stray);
  }
  assertEquals(assembler.end(), []);
});

test("EventAssembler keeps all values of a repeated name, and says so where they differ", () => {
  const event = only([
    "CLIENT:CONNECT,0,1",
    "CLIENT:ENV,username=alice",
    "CLIENT:ENV,IV_VER=2.6",
    "CLIENT:ENV,IV_VER=2.6",
    "CLIENT:ENV,END",
  ]);
  assertEquals(event.envFaults, []);
  assertEquals(event.envAll.length, 3);
  const twice = only([
    "CLIENT:CONNECT,0,1",
    "CLIENT:ENV,username=alice",
    "CLIENT:ENV,username=root",
    "CLIENT:ENV,END",
  ]);
  assertEquals(twice.env.get("username"), "alice");
  assertEquals(twice.envAll, [["username", "alice"], ["username", "root"]]);
  assertEquals(twice.envFaults, ["repeated"]);
  // An empty value is a value.
  const empty = ["CLIENT:CONNECT,0,1", "CLIENT:ENV,a=", "CLIENT:ENV,a=1", "CLIENT:ENV,END"];
  assertEquals(only(empty).envFaults, ["repeated"]);
});

test("EventAssembler takes hostile names as names", () => {
  const names = ["__proto__", "constructor", "toString", "get", "size", "END", "password", " "];
  const lines = names.map((name) => `CLIENT:ENV,${name}=x`);
  const { env, envFaults } = only(["CLIENT:CONNECT,0,1", ...lines, "CLIENT:ENV,END"]);
  assertEquals([...env], names.map((name) => [name, "x"]));
  assertEquals(envFaults, []);
  assertEquals(env.get("hasOwnProperty"), undefined);
  assertEquals(({} as Record<string, unknown>)["x"], undefined);
  assertStrictEquals(Object.getPrototypeOf(env), Map.prototype);
});

test("EventAssembler says so of a line that OpenVPN may have cut", () => {
  const head = "CLIENT:ENV,a=";
  for (const [length, faults] of [[-2, []], [-1, ["overlong"]], [0, ["overlong"]]] as const) {
    const line = head.padEnd(MAX_MESSAGE_BYTES + length, "x");
    const event = only(["CLIENT:CONNECT,0,1", line, "CLIENT:ENV,b=1", "CLIENT:ENV,END"]);
    assertEquals(event.envFaults, faults);
    assertEquals([event.env.get("a"), event.env.get("b")], [line.slice(head.length), "1"]);
  }
});

test("EventAssembler says so of a line that is no variable", () => {
  for (const line of ["CLIENT:ENV,", "CLIENT:ENV,=x", "CLIENT:ENV,a", "CLIENT:ENV", "CLIENT:x"]) {
    const [unknown, event] = feed(["CLIENT:CONNECT,0,1", line, "CLIENT:ENV,END"]);
    assertEquals(unknown?.type, "unknown");
    assertEquals(blockOf(event).envFaults, ["unexpected"], line);
  }
});

test("EventAssembler gives a block without its end as incomplete", () => {
  const begun = ["CLIENT:CONNECT,0,1", "CLIENT:ENV,a=1"];
  for (const next of ["CLIENT:CONNECT,1,1", "CLIENT:DISCONNECT,0", "UPDOWN:UP"]) {
    const [cut, other] = feed([...begun, next, `${next.slice(0, 6)}:ENV,END`]).map(blockOf);
    assertEquals([cut?.envFaults, cut?.envAll], [["incomplete"], [["a", "1"]]]);
    assertEquals([textOf(other!).split("\n")[0], other?.envFaults], [next, []]);
  }
  assertEquals(only(begun).envFaults, ["incomplete"]);
});

test("EventAssembler drops what is beyond maxEnvBytes, and can go on", () => {
  const lines = ["CLIENT:CONNECT,0,1", "CLIENT:ENV,a=1", "CLIENT:ENV,b=2", "CLIENT:ENV,END"];
  const size = lines.slice(0, 3).reduce((sum, line) => sum + line.length + 32, 0);
  assertEquals(only(lines, size).envFaults, []);
  const assembler = new EventAssembler({ maxEnvBytes: size - 1 });
  const hear = (...texts: string[]) => texts.flatMap((it) => assembler.push(parseEvent(it)));
  const [event] = hear(...lines.toSpliced(3, 0, "CLIENT:ENV,c=3")).map(blockOf);
  assertEquals([event?.envAll, event?.envFaults], [[["a", "1"]], ["too-large"]]);
  const [next] = hear("CLIENT:DISCONNECT,0", "CLIENT:ENV,a=1", "CLIENT:ENV,END").map(blockOf);
  assertEquals([next?.envAll, next?.envFaults], [[["a", "1"]], []]);
});

test("EventAssembler holds maxEnvBytes at most, whatever comes", () => {
  const value = "x".repeat(10_000);
  const assembler = new EventAssembler();
  assembler.push(parseEvent("CLIENT:CONNECT,0,1"));
  for (let sent = 0, i = 0; sent < 100e6; sent += value.length) {
    assertEquals(assembler.push(parseEvent(`CLIENT:ENV,n${i++}=${value}`)), []);
  }
  const event = blockOf(assembler.end()[0]);
  assertEquals(event.envFaults, ["too-large", "incomplete"]);
  assert(event.raw.length <= 262_144 && event.env.size === 26);
});

test("EventAssembler refuses a limit that is none", () => {
  for (const maxEnvBytes of [0, -1, NaN]) {
    assertThrows(() => new EventAssembler({ maxEnvBytes }), RangeError, "maxEnvBytes");
  }
});
