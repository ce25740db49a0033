/** A process that has no file descriptor left (EMFILE): a program of its own, that may open few. */
import { assertEquals } from "@std/assert";
import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIME } from "./adapter_kinds.ts";
import type { Seen } from "./cmgr_fault_child.ts";
import { dial } from "./cmgr_fault_rig.ts";
import { until } from "./uds_service.ts";

const CHILD = fileURLToPath(new URL("./cmgr_fault_child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** Room for the runtime itself and some tens of connections. */
const FILES = 80;
const ARGUMENTS = { deno: ["run", "-A", "--node-modules-dir=manual"], bun: [], node: [] };

/** What `connect()` fails with; Bun does not tell it from a port where nobody listens. */
const NO_FILES = RUNTIME === "bun" ? "refused ECONNREFUSED" : "other EMFILE";

let child: ChildProcess | undefined;
after(() => child?.kill("SIGKILL"));

/** Starts it; gives what it has seen last. */
async function start(): Promise<() => Seen> {
  let seen: Seen | undefined;
  child = spawn(
    "sh",
    [
      "-c",
      `ulimit -n ${FILES}; exec "$@"`,
      "sh",
      process.execPath,
      ...ARGUMENTS[RUNTIME],
      CHILD,
    ],
    { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] },
  );
  let text = "";
  child.stdout!.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (text + chunk).split("\n");
    text = lines.pop()!;
    if (lines.length > 0) seen = JSON.parse(lines.at(-1)!);
  });
  await until(() => seen !== undefined);
  return () => seen!;
}

/** What the child answers; "" if it ends the connection. */
function ask(client: Socket, text: string): Promise<string> {
  if (client.destroyed) return Promise.resolve("");
  return new Promise((resolve) => {
    client.once("data", (data: Uint8Array) => resolve(new TextDecoder().decode(data)));
    client.once("end", () => resolve(""));
    client.once("close", () => resolve(""));
    client.write(text);
  });
}

test(
  "without a file descriptor left: sessions go on, connect() says why it fails, and the listener recovers",
  { timeout: 30_000, skip: process.platform !== "linux" },
  async () => {
    const seen = await start();
    const { port } = seen();
    const first = await dial(port);
    assertEquals(await ask(first, "hello"), "hello");
    assertEquals(await ask(first, "connect"), "connected");
    const clients: Socket[] = [];
    for (let i = 0; i < 2 * FILES; i++) clients.push(await dial(port));
    await until(async () => await ask(first, "connect") === NO_FILES);
    // Its sessions are not concerned.
    for (let i = 0; i < 50; i++) assertEquals(await ask(first, "still here"), "still here");
    // Deno tells, once for the whole trouble. Bun leaves the clients to the system's queue and tells nothing; libuv, of Node, takes them and
    // ends them at once, and tells nothing either.
    if (RUNTIME === "deno") await until(() => Object.keys(seen().errors).length > 0);
    assertEquals(seen().errors, RUNTIME === "deno" ? { "listener other EMFILE": 1 } : {});
    for (const client of clients) client.destroy();
    await until(async () => {
      const next = await dial(port);
      const answer = await ask(next, "again");
      next.destroy();
      return answer === "again";
    });
    await until(async () => await ask(first, "connect") === "connected");
    first.destroy();
    await until(() => seen().sessions === 0);
  },
);
