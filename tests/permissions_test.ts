/** The least that Deno must be allowed for each entry point; the table of docs/adapters.md says the same. */
import { assertEquals } from "@std/assert";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIME } from "./adapter_kinds.ts";

const skip = RUNTIME !== "deno" || process.platform !== "linux";
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const CHILD = join(ROOT, "tests/adapter_child.ts");
/** The child imports by a computed name, which takes a permission of its own. */
const SOURCES = `--allow-read=${ROOT}`;
const ENTRY_POINTS = ["auto", "deno", "node"];

const base = skip ? "" : mkdtempSync(join(tmpdir(), "trunkline-"));
after(() => {
  if (base !== "") rmSync(base, { recursive: true, force: true });
});

/** Runs Deno, which is never to ask or to crash; gives back what the program printed. */
function deno(...args: string[]): Promise<string> {
  const all = ["run", "--no-prompt", "--no-check", ...args];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, all, { timeout: 20_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`deno ${all.join(" ")}\n${stderr}`));
      else resolve(stdout.trim());
    });
  });
}

const child = async (flags: readonly string[], ...args: string[]): Promise<unknown> =>
  JSON.parse(await deno(SOURCES, ...flags, CHILD, ...args));

/** Asserts that `flags` are enough for an action, and that without any one of them it is `permission`. */
async function minimal(
  flags: readonly string[],
  expected: string,
  ...args: string[]
): Promise<void> {
  assertEquals(await child(flags, ...args), expected, `with ${flags}`);
  for (const [i, flag] of flags.entries()) {
    const result = await child(flags.toSpliced(i, 1), ...args);
    assertEquals(result, "permission", `${args} without ${flag}`);
  }
}

for (const entry of ENTRY_POINTS) {
  const check = (title: string, body: () => Promise<void>) =>
    test(`permissions of ${entry}: ${title}`, { skip, timeout: 60_000 }, body);
  let sockets = 0;
  /** A path in a directory of its own, and the flags that allow files there. */
  const unixPath = (): { path: string; files: string[] } => {
    const directory = join(base, `${entry}-${++sockets}`);
    mkdirSync(join(directory, "run"), { recursive: true });
    const files = [`--allow-read=${ROOT},${directory}`, `--allow-write=${directory}`];
    return { path: join(directory, "run/x.sock"), files };
  };

  check("importing needs none", async () => {
    assertEquals(await deno(join(ROOT, `adapters/${entry}.ts`)), "");
  });

  check("TCP needs net of the address, for connecting with the port", async () => {
    await minimal(["--allow-net=127.0.0.1"], "ok", entry, "pair", "127.0.0.1:0");
    await minimal(["--allow-net=127.0.0.1:1"], "refused", entry, "connect", "127.0.0.1:1");
    await minimal(["--allow-net=localhost:1"], "refused", entry, "connect", "localhost:1");
    const other = await child(["--allow-net=127.0.0.1:2"], entry, "connect", "127.0.0.1:1");
    assertEquals(other, "permission");
    assertEquals(await child([], entry, "listen", "[::]:0"), "permission");
  });

  check("TLS needs no more than TCP", async () => {
    await minimal(["--allow-net=127.0.0.1"], "ok", entry, "tls", "127.0.0.1:0");
  });

  check("UDP needs net of the address", async () => {
    assertEquals(await child(["--allow-net=127.0.0.1"], entry, "udp", "127.0.0.1:0"), "ok");
  });

  check("connecting to a unix path needs read, write and net of it", async () => {
    const { path } = unixPath();
    const flags = [
      `--allow-read=${ROOT},${path}`,
      `--allow-write=${path}`,
      `--allow-net=unix:${path}`,
    ];
    await minimal(flags, "not-found", entry, "connect", path);
  });

  check("listening on a unix path needs read and write around it, and all of net", async () => {
    const { path, files } = unixPath();
    await minimal([...files, "--allow-net"], "ok", entry, "pair", path);
    const scoped = await child([...files, `--allow-net=unix:${path}`], entry, "pair", path);
    assertEquals(scoped, "permission");
  });

  check("an abstract name needs all of net and no files", async () => {
    const name = `unix:@trunkline-${process.pid}-${entry}`;
    await minimal(["--allow-net"], "ok", entry, "pair", name);
  });

  check("peerCredentials() needs ffi, and tells nothing without it", async () => {
    const { path, files } = unixPath();
    const flags = [...files, "--allow-net"];
    assertEquals(await child([...flags, "--allow-ffi"], entry, "credentials", path), "ok");
    assertEquals(await child(flags, entry, "credentials", path), "unknown");
  });
}
