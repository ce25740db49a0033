/**
 * The processes that bench/uds.ts measures: a server, or a client that makes calls. Each reads commands from its standard input and
 * answers each with a line of JSON.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { Call, Stack } from "./uds_stack.ts";

/** What it can be told. `cpu` is for servers too: the time that the process has used, in microseconds. */
export type Command =
  | { readonly do: "cpu" }
  /** Calls with so many bytes of data, so many calls at a time. */
  | {
    readonly do: "calls";
    readonly size: number;
    readonly inFlight: number;
    readonly seconds: number;
  };

/** Which numbers it has depends on the command; times are in microseconds. */
export type Answer = Readonly<Record<string, number>>;

async function answerCommands(answer: (command: Command) => Promise<Answer>): Promise<void> {
  console.log(JSON.stringify({}));
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(JSON.parse(line))));
  }
  // In order, so that a profile of it is written.
  process.exit(0);
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

/** Serves until its standard input ends. */
export async function runServer(stack: Stack, path: string): Promise<void> {
  await stack.serve(path);
  await answerCommands(() => Promise.resolve({ cpu: cpuTime() }));
}

/** Connects and does what it is told. */
export async function runClient(stack: Stack, path: string): Promise<void> {
  const call = await stack.connect(path);
  await answerCommands(async (command) => {
    if (command.do === "cpu") return { cpu: cpuTime() };
    const { size, inFlight, seconds } = command;
    await checkEcho(call, size);
    return await calls(call, size, inFlight, seconds);
  });
}

/** A stack that answers with other bytes must not look fast. */
async function checkEcho(call: Call, size: number): Promise<void> {
  const data = Uint8Array.from({ length: size }, (_, i) => i * 31);
  const answer = await call(data);
  if (answer.length !== size || answer.some((byte, i) => byte !== data[i])) {
    throw new Error(`${size} bytes came back as ${answer.length} others`);
  }
}

async function calls(call: Call, size: number, inFlight: number, seconds: number): Promise<Answer> {
  const data = new Uint8Array(size).fill(7);
  const took: number[] = [];
  const cpu = cpuTime();
  const start = performance.now();
  const end = start + 1000 * seconds;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    for (let now = performance.now(); now < end;) {
      const { length } = await call(data);
      if (length !== size) throw new Error(`${size} bytes came back as ${length}`);
      const then = now;
      now = performance.now();
      took.push(1000 * (now - then));
    }
  }));
  const elapsed = performance.now() - start;
  const used = cpuTime() - cpu;
  const sorted = Float64Array.from(took).sort();
  const quantile = (share: number): number => sorted[Math.floor(share * sorted.length)] ?? NaN;
  return {
    calls: sorted.length,
    perSecond: 1000 * sorted.length / elapsed,
    p50: quantile(0.5),
    p99: quantile(0.99),
    cpu: used,
  };
}
