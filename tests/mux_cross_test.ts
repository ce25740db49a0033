/** Sessions between two runtimes: this one is the client, each that is on PATH the server. */
import { assertEquals } from "@std/assert";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { dial } from "@trunkline/sockets/mux";
import type { RuntimeName } from "./adapter_kinds.ts";
import { readAll } from "./mux_pair.ts";
import { pattern } from "./mux_vectors.ts";
import { usable } from "./runtimes.ts";

const CHILD = fileURLToPath(new URL("./mux_child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const COMMANDS: readonly (readonly [RuntimeName, readonly string[]])[] = [
  ["deno", ["run", "-A"]],
  ["bun", []],
  ["node", []],
];

for (const [runtime, args] of COMMANDS) {
  test(`mux: to ${runtime}`, { skip: !usable(runtime), timeout: 60_000 }, async () => {
    const psk = "pässwörd ✓";
    const child = spawn(runtime, [...args, CHILD, psk], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    try {
      const line = await new Promise<string>((resolve, reject) => {
        child.stdout.setEncoding("utf8").once("data", resolve);
        exited.then(() => reject(new Error(`${runtime} ended`)));
      });
      const mux = await dial(JSON.parse(line), { psk });
      const sizes = [0, 1, 64, 8191, 8192, 65536, 65537, 300_000, 2_000_000];
      await Promise.all([...sizes, ...sizes].map(async (size, seed) => {
        const stream = await mux.openStream();
        const sent = stream.write(pattern(size, seed)).then(() => stream.closeWrite());
        assertEquals(await readAll(stream), pattern(size, seed));
        await sent;
      }));
      assertEquals(mux.stats().peerCounts, true);
      await mux.close();
      assertEquals(await exited, 0);
    } finally {
      child.kill("SIGKILL");
    }
  });
}
