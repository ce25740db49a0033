/** A short soak, in a process of its own: tools/soak.ts tells by its exit code whether anything grows. */
import { assertEquals } from "@std/assert";
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIME } from "./adapter_kinds.ts";

const SOAK = fileURLToPath(new URL("../tools/soak.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const ARGUMENTS = { deno: ["run", "-A", "--node-modules-dir=manual"], bun: [], node: [] };

let child: ChildProcess | undefined;
after(() => child?.kill("SIGKILL"));

test(
  "a manager that is kept busy by all kinds of clients: no more heap, files, timers at the end than in the middle",
  { timeout: 120_000 },
  async () => {
    child = spawn(process.execPath, [...ARGUMENTS[RUNTIME], SOAK, "--seconds=20"], {
      cwd: ROOT,
      stdio: ["ignore", "ignore", "inherit"],
    });
    assertEquals(await new Promise((resolve) => child!.once("exit", resolve)), 0);
  },
);
