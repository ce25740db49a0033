/** The tables for people say what the tests hold: README's from the flags of the suite, docs/adapters.md's from the permissions. */
import { assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type AdapterName, capabilities, type RuntimeName } from "./adapter_kinds.ts";
import type { Capabilities } from "./adapter_suite.ts";
import { type Permission, PERMISSIONS } from "./deno_permissions.ts";

/** A row for each flag, so that a new one cannot be forgotten. */
const ROWS: Readonly<Record<keyof Capabilities, string>> = {
  tcp: "TCP",
  unix: "unix",
  abstract: "unix, abstract name",
  tls: "TLS over TCP and unix",
  udp: "UDP",
  credentials: "`peerCredentials()`",
  reset: "`abort()` resets TCP",
  countsDropped: "a listener's `maxPending`",
  reusePort: "`reusePort` for TCP",
  reusePortUdp: "`reusePort` for UDP",
  keepAliveTime: "`keepAlive` as a time",
  backlog: "`backlog` of a listener",
};
const COLUMNS: readonly (readonly [string, AdapterName, RuntimeName])[] = [
  ["`./deno`", "deno", "deno"],
  ["`./bun`", "bun", "bun"],
  ["`./node` on Deno", "node", "deno"],
  ["on Bun", "node", "bun"],
  ["on Node", "node", "node"],
];
const NODE_VERSIONS = [22, 24, 26];

/** `yes`, `no`, or the first version of Node that can. */
function cell(flag: keyof Capabilities, adapter: AdapterName, runtime: RuntimeName): string {
  const can = NODE_VERSIONS.filter((version) => capabilities(adapter, runtime, version)?.[flag]);
  if (can.length === 0) return "no";
  return can.length === NODE_VERSIONS.length ? "yes" : `${can[0]} or newer`;
}

/** A table as deno fmt leaves it. */
function table(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const widths = head.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((text, i) => text.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
}

function transports(): string {
  const flags = Object.keys(ROWS) as (keyof Capabilities)[];
  return table([
    ["", ...COLUMNS.map(([title]) => title)],
    ...flags.map((flag) => [
      ROWS[flag],
      ...COLUMNS.map(([, adapter, runtime]) => cell(flag, adapter, runtime)),
    ]),
  ]);
}

function permissions(): string {
  const all: readonly Permission[] = Object.values(PERMISSIONS);
  const commands = all.map(({ flags, args, prints }) =>
    ["deno run", ...flags, "tests/adapter_child.ts auto", ...args, `# "${prints}"`].join(" ")
  );
  const rows = all.map(({ doing, flags }) => [
    doing,
    flags.map((flag) => `\`${flag}\``).join(" ") || "none",
  ]);
  return [
    table([["to", "needs"], ...rows]),
    "",
    "```sh",
    "DIR=$(mktemp -d) && SOCK=$DIR/x.sock",
    ...commands,
    "rm -r $DIR",
    "```",
  ].join("\n");
}

/** What stands in a file between `<!-- name -->` and `<!-- /name -->`. */
function between(file: string, name: string): string {
  const text = readFileSync(new URL(`../${file}`, import.meta.url), "utf8");
  const parts = text.split(new RegExp(`^<!-- /?${name} -->$`, "m"));
  assertEquals(parts.length, 3, `${file} has <!-- ${name} --> and <!-- /${name} --> once`);
  return parts[1]!.trim();
}

test("the README's table of transports is what the suite tests", () => {
  assertEquals(between("README.md", "transports"), transports());
});

test("./auto can what the runtime's own entry point can, and no column is missing", () => {
  const runtimes: readonly RuntimeName[] = ["deno", "bun", "node"];
  for (const runtime of runtimes) {
    assertEquals(capabilities("auto", runtime), capabilities(runtime, runtime));
  }
  const adapters: readonly AdapterName[] = ["deno", "bun", "node"];
  const pairs = adapters.flatMap((adapter) =>
    runtimes.filter((runtime) => capabilities(adapter, runtime)).map((
      runtime,
    ) => [adapter, runtime])
  );
  assertEquals(COLUMNS.map(([, adapter, runtime]) => [adapter, runtime]), pairs);
});

test("the flags in docs/adapters.md are those that the permission tests use", () => {
  assertEquals(between("docs/adapters.md", "permissions"), permissions());
});
