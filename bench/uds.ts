/**
 * How fast our calls are beside other ways to call over a unix socket, and beside the socket itself.
 *
 *     node bench/uds.ts --peers=DIRECTORY
 *     bun bench/uds.ts --peers=DIRECTORY
 *     deno run -A bench/uds.ts --peers=DIRECTORY
 *
 * `--rounds=5` is how often each measurement is taken, in fresh processes each time: a round takes all stacks in the same order, and the
 * tables show medians, of the numbers and of the ratios in the same round. `--quick` takes less of each, once; `--only=raw,ours` takes
 * some stacks, by the beginnings of their names; `--size=16,1024` and `--in-flight=64` some of the tables.
 *
 * Peers are taken from `--peers=DIRECTORY`:
 *
 *     npm i --prefix DIRECTORY @grpc/grpc-js@1 @connectrpc/connect@2 @connectrpc/connect-node@2 @bufbuild/protobuf@2 \
 *       vscode-jsonrpc@10 capnweb@0.12
 *
 * They run on the same runtime, with their defaults where those work. Every stack echoes bytes; those that have none carry base64. CPU is
 * that of both processes. Client and server share the machine: with less than two idle cores they hinder each other.
 *
 * @module
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AgentProcess } from "./agent_process.ts";
import { median, positive, runtimeName } from "./figures.ts";
import { type Answer, type Command, runClient, runServer } from "./uds_agent.ts";
import { ours } from "./uds_ours.ts";
import { peerStacks } from "./uds_peers.ts";
import { raw } from "./uds_raw.ts";
import type { Stack } from "./uds_stack.ts";

const SIZES = [16, 1024, 64 * 1024, 1024 * 1024];
const IN_FLIGHT = [1, 64];
/** A stack that takes longer for a sample hangs. */
const SAMPLE_LIMIT_MS = 30_000;
/** No call of ours takes longer; one that says so is a call by the extensions. */
const DEADLINE_MS = 60_000;

const { values } = parseArgs({
  options: {
    rounds: { type: "string" },
    quick: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    size: { type: "string", default: SIZES.join() },
    "in-flight": { type: "string", default: IN_FLIGHT.join() },
    peers: { type: "string" },
    agent: { type: "string" },
  },
});
const peers = values.peers === undefined ? undefined : resolve(values.peers);
const OURS = ours("ours");
const STACKS: readonly Stack[] = [
  raw,
  OURS,
  ours("ours, with a deadline", { timeoutMs: DEADLINE_MS }),
  ...(peers === undefined ? [] : peerStacks(peers)),
];

type Agent = AgentProcess<Command>;

async function sample(stack: Stack, size: number, inFlight: number): Promise<Answer | undefined> {
  const directory = mkdtempSync(join(tmpdir(), "uds-bench-"));
  const path = join(directory, "socket");
  const agents: Agent[] = [];
  const start = async (role: "server" | "client") => {
    const job = { role, stack: stack.name, path };
    const agent: Agent = new AgentProcess(import.meta.url, job, peers);
    agents.unshift(agent);
    await agent.answer();
    return agent;
  };
  const limit = setTimeout(() => {
    for (const agent of agents) agent.kill();
  }, SAMPLE_LIMIT_MS);
  try {
    const server = await start("server");
    const client = await start("client");
    const seconds = values.quick ? 0.3 : 1;
    // To warm up.
    await client.ask({ do: "calls", size, inFlight, seconds: seconds / 2 });
    const { cpu: before = NaN } = await server.ask({ do: "cpu" });
    const taken = await client.ask({ do: "calls", size, inFlight, seconds });
    const { cpu: after = NaN } = await server.ask({ do: "cpu" });
    const { calls = NaN, cpu = NaN } = taken;
    return { ...taken, cpuOfCall: (cpu + after - before) / calls };
  } catch (error) {
    console.error(`${stack.name}, ${size} bytes, ${inFlight} in flight: ${error}`);
    return undefined;
  } finally {
    for (const agent of agents) await agent.end();
    clearTimeout(limit);
    rmSync(directory, { recursive: true });
  }
}

/** What was measured of each stack, by rounds. */
type Samples = ReadonlyMap<Stack, readonly (Answer | undefined)[]>;

/** The median over the rounds of one stack's number beside another's in the same round. */
function ratio(samples: Samples, column: string, mine: Stack, theirs: Stack): number {
  const others = samples.get(theirs) ?? [];
  return median(
    (samples.get(mine) ?? []).map((it, i) => (it?.[column] ?? NaN) / (others[i]?.[column] ?? NaN)),
  );
}

const cell = (value: number, digits: number): string =>
  (Number.isNaN(value) ? "-" : value.toFixed(digits)).padStart(10);

function printTable(size: number, inFlight: number, samples: Samples): void {
  console.log(`\n${size} bytes, ${inFlight} in flight`);
  const heads = ["calls/s", "p50 us", "p99 us", "CPU us", "of raw", "ours/it", "p99"];
  console.log("".padEnd(26) + heads.map((head) => head.padStart(10)).join(""));
  for (const [stack, taken] of samples) {
    const of = (column: string) => median(taken.map((it) => it?.[column] ?? NaN));
    const measured = ["perSecond", "p50", "p99", "cpuOfCall"].map((column) =>
      cell(of(column), column === "perSecond" ? 0 : 1)
    );
    const ratios = [
      ratio(samples, "perSecond", stack, raw),
      ratio(samples, "perSecond", OURS, stack),
      ratio(samples, "p99", OURS, stack),
    ];
    const shown = ratios.map((value) => cell(value, 2));
    console.log(stack.name.padEnd(26) + measured.join("") + shown.join(""));
  }
}

function numbers(option: string, text: string): number[] {
  return text.split(",").map((number) => positive(option, number));
}

async function main(): Promise<void> {
  if (values.agent !== undefined) {
    const { role, stack, path } = JSON.parse(values.agent);
    const found = STACKS.find(({ name }) => name === stack)!;
    return await (role === "server" ? runServer(found, path) : runClient(found, path));
  }
  const rounds = positive("rounds", values.rounds ?? (values.quick ? "1" : "5"));
  const stacks = STACKS.filter(({ name }) =>
    values.only.split(",").some((beginning) => name.startsWith(beginning))
  );
  console.log(`${runtimeName()}: medians of ${rounds} rounds`);
  for (const size of numbers("size", values.size)) {
    for (const inFlight of numbers("in-flight", values["in-flight"])) {
      const samples = new Map(stacks.map((stack): [Stack, (Answer | undefined)[]] => [stack, []]));
      for (let round = 0; round < rounds; round++) {
        for (const [stack, taken] of samples) taken.push(await sample(stack, size, inFlight));
      }
      printTable(size, inFlight, samples);
    }
  }
}

await main();
