/** Programs that tests of uds start, and directories for their sockets. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIME, type RuntimeName } from "./adapter_kinds.ts";
import { usable } from "./runtimes.ts";

const CHILD = fileURLToPath(new URL("./uds_child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const ARGUMENTS: Readonly<Record<RuntimeName, readonly string[]>> = {
  // Who runs the tests has installed what is needed; another user cannot.
  deno: ["run", "-A", "--node-modules-dir=manual"],
  bun: [],
  node: [],
};

/** The runtimes that are on PATH, and new enough for TypeScript. */
export function runtimes(): RuntimeName[] {
  return (Object.keys(ARGUMENTS) as RuntimeName[]).filter(usable);
}

/** Killed in the end, whatever has become of their tests. */
const started = new Set<ChildProcess>();
after(() => {
  for (const child of started) child.kill("SIGKILL");
});

/** A program that runs. */
export interface Child {
  readonly process: ChildProcess;
  /** What it said first. */
  readonly line: string;
  /** Resolves with its exit code; `null` if it was killed. */
  readonly exited: Promise<number | null>;
}

/** Starts `uds_child.ts`, by this runtime if no other is named, and waits for its line. */
export async function startChild(
  action: "serve" | "call" | "probe",
  path: string,
  { runtime, uid, env = process.env }: {
    readonly runtime?: RuntimeName;
    readonly uid?: number;
    readonly env?: NodeJS.ProcessEnv;
  } = {},
): Promise<Child> {
  const child = spawn(runtime ?? process.execPath, [
    ...ARGUMENTS[runtime ?? RUNTIME],
    CHILD,
    action,
    path,
  ], {
    cwd: ROOT,
    env,
    stdio: ["ignore", "pipe", "inherit"],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  started.add(child);
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding("utf8").once("data", (it: string) => resolve(it.trim()));
    exited.then((code) => reject(new Error(`the child has ended with ${code}`)));
    // Another user may not even start it.
    child.once("error", reject);
  });
  return { process: child, line, exited };
}

/** Gives paths in a directory that is removed in the end. */
export function newPaths(): () => string {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  after(() => rmSync(directory, { recursive: true, force: true }));
  let count = 0;
  return () => join(directory, `${count++}.sock`);
}
