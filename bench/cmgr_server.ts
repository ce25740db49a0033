/**
 * A server that bench/cmgr.ts measures, in a process of its own.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Numbers } from "./agent_process.ts";
import type { Service, Stack } from "./cmgr_stack.ts";

/** What it can be told. */
export type ServerCommand =
  /** The time that the process has used, in microseconds. */
  | { readonly do: "cpu" }
  /** What it holds after its rubbish has been collected, in bytes: `heap`, `buffers` outside of it, `rss`. */
  | { readonly do: "memory" };

/** Reads commands from the standard input, and answers each with a line of JSON. */
export async function answerCommands<Command>(
  answer: (command: Command) => Promise<Numbers>,
): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(JSON.parse(line))));
  }
  // In order, so that a profile of it is written.
  process.exit(0);
}

/** Serves until its standard input ends; says its port first. */
export async function runServer(stack: Stack, service: Service): Promise<void> {
  console.log(JSON.stringify({ port: await stack.serve(service) }));
  await answerCommands(async (command: ServerCommand): Promise<Numbers> => {
    if (command.do === "memory") return await memory();
    const { user, system } = process.cpuUsage();
    return { cpu: user + system };
  });
}

async function memory(): Promise<Numbers> {
  const collect = collector();
  // What is done with in one turn may let go of more in the next.
  for (let i = 0; i < 5; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { heapUsed: heap, external: buffers, rss } = process.memoryUsage();
  return { heap, buffers, rss };
}

/** What collects rubbish, without an option for the runtime. */
function collector(): () => void {
  const { Bun } = globalThis as { Bun?: { gc(now: boolean): void } };
  if (Bun !== undefined) return () => Bun.gc(true);
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}
