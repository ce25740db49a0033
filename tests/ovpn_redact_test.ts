/** Secrets are read by the names of their fields, and show nowhere else. */
import { assert, assertEquals } from "@std/assert";
import {
  describeEvent,
  EventAssembler,
  type ManagementEvent,
  parseEvent,
} from "@trunkline/sockets/ovpn";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { inspect } from "node:util";

const SECRET = "hunter2";
/** How the bytes of it would show. */
const BYTES = [...new TextEncoder().encode(SECRET)].join(", ");

/** Events that have the secret, and how to read it. */
const EVENTS: readonly (readonly [string, (event: ManagementEvent) => unknown])[] = [
  ["PASSWORD:Auth-Token:hunter2", (it) => field(it, "token")],
  [
    "PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:hunter2:Y3Ix:PIN?']",
    (it) => field(field(it, "dynamicChallenge"), "stateId"),
  ],
  [
    "PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:hunter2']",
    (it) => String(field(it, "reason")).slice(9),
  ],
  ["PASSWORD:Something else: hunter2", (it) => String(field(it, "body")).slice(16)],
  ["CLIENT:ENV,password=hunter2", (it) => field(it, "value")],
  ["CLIENT:ENV,auth_token=hunter2", (it) => field(it, "value")],
  ["CLIENT:ENV,other=SCRV1:hunter2:hunter2", (it) => String(field(it, "value")).slice(6, 13)],
  ["UPDOWN:ENV,password=hunter2", (it) => field(it, "value")],
  ["CLIENT:ENV,hunter2", (it) => String(field(it, "body")).slice(4)],
  ["CLIENT:CR_RESPONSE,0,1,hunter2", (it) => field(it, "response")],
  ["CLIENT:CR_RESPONSE,x,1,hunter2", (it) => String(field(it, "body")).slice(16)],
  ["INFOMSG:WEB_AUTH::hunter2", (it) => field(it, "url")],
  ["INFOMSG:WEB_AUTH:hidden,proxy=hunter2:url", (it) => field(field(it, "flags"), "1").slice(6)],
  ["INFOMSG:OPEN_URL:hunter2", (it) => field(it, "url")],
  ["INFOMSG:NEW_WAY:hunter2", (it) => String(field(it, "text")).slice(8)],
  [
    "LOG:1,D,MANAGEMENT: CMD 'username \"Auth\" hunter2'",
    (it) => String(field(it, "message")).slice(-8, -1),
  ],
  // What OpenVPN takes for a command: a line of a password that it did not ask for, or one with a slip.
  ["LOG:1,D,MANAGEMENT: CMD 'hunter2'", (it) => String(field(it, "message")).slice(-8, -1)],
  [
    "LOG:1,D,MANAGEMENT: CMD 'pasword Auth hunter2'",
    (it) => String(field(it, "message")).slice(-8, -1),
  ],
  [
    "LOG:1,D,MANAGEMENT: CMD 'push-update-cid 0 \"auth-token hunter2\"'",
    (it) => String(field(it, "message")).slice(-9, -2),
  ],
  [
    "LOG:1,,AUTH: Received control message: AUTH_FAILED,CRV1:R:hunter2",
    (it) => String(field(it, "message")).slice(-7),
  ],
  [
    "LOG:1,,Info command was pushed by server ('OPEN_URL:hunter2')",
    (it) => String(field(it, "message")).slice(-9, -2),
  ],
];

// deno-lint-ignore no-explicit-any -- of any event, whether it has the field or not
function field(of: unknown, name: string): any {
  return (of as Record<string, unknown>)[name];
}

/** By what runtimes show values: `console.log` writes what the first two give where they are. */
const SHOW: readonly ((value: unknown) => string)[] = [
  ...["Deno", "Bun"].map((name) => field(globalThis, name)?.inspect).filter((it) => it),
  inspect,
  (value) => inspect(value, { showHidden: true, depth: 9 }),
  String,
  JSON.stringify,
];

function assertHidden(what: unknown, name: string): void {
  for (const show of SHOW) {
    const text = show(what);
    assert(!text.includes(SECRET) && !text.includes(BYTES) && !text.includes("104,"), name + text);
  }
}

/** Every kind of block, with the secret in it. */
function blocks(): ManagementEvent[] {
  const assembler = new EventAssembler();
  const headers = ["CLIENT:CONNECT,0,1", "CLIENT:CR_RESPONSE,0,1,hunter2", "UPDOWN:UP"];
  return headers.flatMap((header) =>
    [header, "ENV,name=alice", `ENV,password=${SECRET}`, "ENV,password=SCRV1:x", "ENV,END"]
      .map((line) => line === header ? line : `${header.slice(0, 6)}:${line}`)
      .flatMap((line) => assembler.push(parseEvent(line)))
  );
}

test("events show no secret, and have it in the named field and in raw", () => {
  for (const [line, read] of EVENTS) {
    const event = parseEvent(line);
    assertEquals(read(event), SECRET, line);
    assertEquals(new TextDecoder().decode(event.raw), line);
    for (const it of [event, [event], { event }, { ...event }]) assertHidden(it, line);
    assert(!describeEvent(event).includes(SECRET));
    const shown = JSON.parse(JSON.stringify(event));
    assertEquals(shown.type, event.type);
    assert(JSON.stringify(shown).includes("[redacted]"));
  }
});

test("gathered events show no secret, and have it in env, envAll and raw", () => {
  const events = blocks();
  assertEquals(events.length, 3);
  for (const event of events) {
    const env: Map<string, string> = field(event, "env");
    assertEquals([env.get("password"), env.get("name")], [SECRET, "alice"]);
    assertEquals(field(event, "envAll")[1], ["password", SECRET]);
    assert(new TextDecoder().decode(event.raw).includes(`ENV,password=${SECRET}`));
    for (const it of [event, [event], { event }, env, { env }, { ...event }]) {
      assertHidden(it, event.type);
    }
    assert(!describeEvent(event).includes(SECRET));
    assertEquals(JSON.parse(JSON.stringify(env)), { name: "alice", password: "[redacted]" });
    assert(inspect(event).includes("alice") && inspect(event).includes("repeated"));
    assertEquals(new Map(env).get("password"), SECRET);
  }
});

test("what is no secret shows as it is", () => {
  const lines = ["CLIENT:ENV,username=alice", "PASSWORD:Need 'Auth' password", "LOG:1,I,alice"];
  for (const line of lines) {
    const event = parseEvent(line);
    assert(inspect(event).includes(line.startsWith("PASSWORD") ? "Auth" : "alice"));
    assertEquals(Object.keys(event).includes("raw"), true);
  }
});

test("commands without a secret show in the log as they are", () => {
  for (const command of ["pid", "kill alice", "client-auth-nt 0 1", "log on all"]) {
    const line = `LOG:1,D,MANAGEMENT: CMD '${command}'`;
    assert(inspect(parseEvent(line)).includes(command), command);
    assert(describeEvent(parseEvent(line)).includes(command), command);
  }
});

test("console.log() shows no secret", () => {
  const program = new URL("./ovpn_redact_child.ts", import.meta.url).pathname;
  const lines = EVENTS.map(([line]) => line);
  const { stdout, status } = spawnSync(
    process.execPath,
    [...(process.versions["deno"] ? ["run", "-A"] : []), program, JSON.stringify(lines)],
    { encoding: "utf8" },
  );
  assertEquals(status, 0);
  assertEquals(stdout.split("[redacted]").length > lines.length, true);
  assert(!stdout.includes(SECRET) && !stdout.includes("104,"), stdout);
});
