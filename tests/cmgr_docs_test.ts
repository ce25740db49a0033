/** docs/cmgr.md names what there is, with its real numbers, and all that the Go package has. */
import { assert, assertEquals } from "@std/assert";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import * as cmgr from "@trunkline/sockets/cmgr";
import { listenerSettings, reconnectSettings, sessionSettings } from "../cmgr/options.ts";

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

const GUIDE = read("docs/cmgr.md");
const SOURCES = readdirSync(new URL("../cmgr", import.meta.url)).map((file) => read(`cmgr/${file}`))
  .join("\n");

/** Every exported symbol of the Go package, and those of its ancestor that it does not have. */
const GO_SYMBOLS: readonly string[] = `
  ST_NEW ST_DATA ST_DISC ST_ACCEPTED ST_CLOSING LISTENER NewManager Sess_data Connect Listen
  Listen_tcp Listen_udp Write Write_n Write_str Write_to_all Write_udp Write_udp_addr Close List_stats
  Xlate_udp_addr String2udp_addr Listen_mc TLS_listen Get_conn Get_writer Get_udp_writer Bind2sender
  Unbind_sender
`.trim().split(/\s+/);

/** The cells of every row of the table whose head begins with `first`, without that. */
function table(first: string): string[][] {
  const lines = GUIDE.slice(GUIDE.search(new RegExp(`^\\| ${first} +\\|`, "m"))).split("\n");
  const end = lines.findIndex((line) => !line.startsWith("|"));
  return lines.slice(2, end).map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
}

const names = (cell = ""): string[] =>
  [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);

/** The literals of an exported union. */
function union(name: string): string[] {
  const [, body = ""] = new RegExp(`^export type ${name} =([^;]+);`, "m").exec(SOURCES) ?? [];
  return [...body.matchAll(/"([^"]+)"/g)].map(([, literal = ""]) => literal);
}

test("docs/cmgr.md tells every state, with its number", () => {
  const rows = table("`state`");
  assertEquals(rows.flatMap(([state]) => names(state)).sort(), union("SessionState").sort());
  for (const [state, code = ""] of rows) {
    const [name = ""] = names(code);
    assertEquals(Reflect.get(cmgr, name), Number(/\d/.exec(code)?.[0]), state);
  }
});

test("docs/cmgr.md tells every code of an error", () => {
  const told = table("`code`").flatMap(([codes]) => names(codes));
  assertEquals(told.sort(), union("ManagerErrorCode").sort());
});

test("docs/cmgr.md tells every instrument", () => {
  const made = [...SOURCES.matchAll(/(?:counter|upDown)\("(cmgr\.[a-z.]+)", "([^"]+)"/g)];
  assertEquals(
    table("instrument").map(([name, , unit]) => [...names(name), ...names(unit)]),
    made.map(([, name, unit]) => [name, unit]),
  );
});

test("docs/cmgr.md tells every limit with its default", () => {
  const tables = [
    "option of a session",
    "option of a listener",
    "option of a manager",
    "elsewhere",
  ];
  const rows = tables.flatMap(table);
  const told = new Map(rows.map(([name, value]) => [names(name)[0], value]));
  const real = {
    ...sessionSettings({}),
    ...listenerSettings({}),
    ...reconnectSettings(true),
    capacity: cmgr.CHANNEL_CAPACITY,
    maxBytes: cmgr.CHANNEL_BYTES,
    timeoutMs: cmgr.CONNECT_TIMEOUT_MS,
    graceMs: cmgr.GRACE_MS,
  };
  for (const [name, value] of Object.entries(real)) {
    if (typeof value === "number") assertEquals(told.get(name), String(value), name);
  }
  const docs = /\/\*\*((?:(?!\*\/)[^])*)\*\/\s+readonly (\w+)\?: number/g;
  const options = [...read("cmgr/options.ts").matchAll(docs)];
  assert(options.length > 15);
  for (const [, doc = "", name = ""] of options) {
    if (name !== "mode") assertEquals(told.get(name), /@default (\w+)/.exec(doc)?.[1], name);
  }
});

test("docs/cmgr.md has a row for every symbol of the Go package, and what it names is there", () => {
  const rows = table("cmgr, connman");
  for (const symbol of GO_SYMBOLS) {
    assert(rows.some(([go = ""]) => new RegExp(`\\b${symbol}\\b`).test(go)), symbol);
  }
  for (const name of rows.flatMap(([, ours]) => names(ours))) {
    const [, last = ""] = /(\w+)(?:\(.*\))?$/.exec(name.replace(/^await /, "")) ?? [];
    assert(new RegExp(`\\b${last}\\b(?:\\(|\\?|:| =|<|\\b)`).test(SOURCES), name);
  }
});

test("docs/cmgr.md says of each of the 34 ways of Go's manager what became of it", () => {
  const rows = table("in Go");
  assertEquals(rows.map(([go = ""]) => parseInt(go)), rows.map((_, i) => i + 1));
  assertEquals(rows.length, 34);
  for (const [go, kind = ""] of rows) {
    assert(["same", "same order", "otherwise", "more"].includes(kind), go);
  }
});
