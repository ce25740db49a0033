/**
 * How fast our mux is beside other multiplexers, and beside what bounds it.
 *
 *     node bench/mux.ts
 *     bun bench/mux.ts
 *     deno run -A bench/mux.ts
 *
 * `--rounds=5` is how often each measurement is taken, in fresh processes each time: a round takes all stacks in the same order, and the
 * tables show medians, of the numbers and of the ratios in the same round. `--quick` takes less of each, once; `--only=ours,http2` takes
 * some stacks, by the beginnings of their names; `--measure=bulk,trips,opens,idle` some measurements.
 *
 * Our mux and its bounds are measured on every runtime, the peers on Node. Those that do not come with Node are taken from
 * `--peers=DIRECTORY`; sodium-native, too, on all runtimes:
 *
 *     npm i --prefix DIRECTORY sodium-native@5 @chainsafe/libp2p-yamux@8 @chainsafe/libp2p-noise@17 @libp2p/crypto@5 \
 *       @libp2p/logger@6 @libp2p/utils@7
 *
 * Bulk is written in blocks of 64 KiB, each after the stack has taken the one before it; the first pass, of a quarter, is to warm up and
 * does not count. Client and server share the machine: with less than two idle cores they hinder each other.
 *
 * @module
 */
import { fromSodium, type SodiumLike } from "@trunkline/sockets/mux";
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { AgentProcess } from "./agent_process.ts";
import { median, positive, runtimeName } from "./figures.ts";
import { type Answer, type Command, runClient, runServer } from "./mux_agent.ts";
import { http2 } from "./mux_http2.ts";
import { libp2p } from "./mux_libp2p.ts";
import { cryptoBound, ours, rawTcp } from "./mux_ours.ts";
import { type Kind, requireFrom, type Stack } from "./mux_stack.ts";

const MIB = 1024 * 1024;
/** A stack that takes longer for a sample hangs. */
const SAMPLE_LIMIT_MS = 60_000;

/** One table. */
interface Measurement {
  readonly kind: Kind;
  readonly title: string;
  readonly streams: readonly number[];
  /** What is shown of an answer; the first is what ratios are of. */
  readonly columns: readonly string[];
}

const MEASUREMENTS: readonly Measurement[] = [
  {
    kind: "bulk",
    title: "One way, MB/s",
    streams: [1, 10, 100, 1000],
    columns: ["mbPerSecond"],
  },
  {
    kind: "trips",
    title: "Round trips of 64 bytes: per second, median and 99th percentile in us",
    streams: [1, 100],
    columns: ["perSecond", "p50", "p99"],
  },
  {
    kind: "opens",
    title: "Streams per second: open, a byte, its echo, close",
    streams: [1, 50],
    columns: ["perSecond"],
  },
  {
    kind: "idle",
    title: "Bytes of resident memory for each of 10000 idle streams: client, server",
    streams: [10_000],
    columns: ["client", "server"],
  },
];

/** All that can be measured here. */
function stacksOf(peers: string | undefined): readonly Stack[] {
  const stacks = [ours("ours"), cryptoBound("crypto bound"), rawTcp];
  try {
    const aead = fromSodium(requireFrom<SodiumLike>(peers, "sodium-native"));
    const bound = cryptoBound("crypto bound, sodium-native", Promise.resolve(aead));
    stacks.push(ours("ours, sodium-native", aead), bound);
  } catch {
    // Not installed.
  }
  const { bun, deno } = process.versions;
  if (bun === undefined && deno === undefined) {
    stacks.push(http2("http2", false), http2("http2, large windows", true));
    if (peers !== undefined) {
      stacks.push(
        libp2p("yamux, not encrypted", peers, false),
        libp2p("yamux + noise", peers, true),
      );
    }
  }
  return stacks;
}

type Agent = AgentProcess<Command>;

function agent(role: string, stack: Stack, peers: string | undefined, port = 0): Agent {
  return new AgentProcess(import.meta.url, { role, stack: stack.name, port }, peers);
}

async function sample(
  stack: Stack,
  kind: Kind,
  streams: number,
  quick: boolean,
  peers: string | undefined,
): Promise<Answer | undefined> {
  const server = agent("server", stack, peers);
  let client: Agent | undefined;
  const limit = setTimeout(() => {
    server.kill();
    client?.kill();
  }, SAMPLE_LIMIT_MS);
  try {
    const { port } = await server.answer();
    client = agent("client", stack, peers, port);
    await client.answer();
    return await measure(client, server, kind, streams, quick);
  } catch (error) {
    console.error(`${stack.name}, ${kind} with ${streams} streams: ${error}`);
    return undefined;
  } finally {
    // In this order the server, which says what goes wrong, sees no connection break.
    await server.end();
    await client?.end();
    clearTimeout(limit);
  }
}

async function measure(
  client: Agent,
  server: Agent,
  kind: Kind,
  streams: number,
  quick: boolean,
): Promise<Answer> {
  if (kind === "bulk") {
    const bytes = (quick ? 64 : 256) * MIB;
    await client.ask({ do: kind, streams, bytes: bytes / 4 });
    return await client.ask({ do: kind, streams, bytes });
  }
  if (kind === "idle") {
    const both = async () => [await client.ask({ do: "rss" }), await server.ask({ do: "rss" })];
    await client.ask({ do: kind, streams: 1 });
    const before = await both();
    await client.ask({ do: kind, streams });
    const each = (await both()).map(({ rss = NaN }, i) =>
      (rss - (before[i]?.rss ?? NaN)) / streams
    );
    return { client: each[0] ?? NaN, server: each[1] ?? NaN };
  }
  const seconds = quick ? 0.5 : 2;
  await client.ask({ do: kind, streams, seconds: seconds / 2 });
  return await client.ask({ do: kind, streams, seconds });
}

/** The samples of a stack with a number of streams, by rounds. */
type Samples = readonly (Answer | undefined)[];

function printTable(
  { title, streams, columns }: Measurement,
  stacks: readonly Stack[],
  samplesOf: (stack: Stack, streams: number) => Samples | undefined,
): void {
  const first = stacks[0]!;
  console.log(`\n${title}`);
  const width = Math.max(9, 8 * columns.length);
  const heads = streams.map((count) => String(count).padStart(width));
  const ratios = streams.map((count) => String(count).padStart(7));
  console.log(
    `${"".padEnd(30)}${heads.join("")}   ${first.name} is times as much:${ratios.join("")}`,
  );
  for (const stack of stacks) {
    const values = streams.map((count) => {
      const samples = samplesOf(stack, count) ?? [];
      const shown = columns.map((column) => median(samples.map((it) => it?.[column] ?? NaN)));
      return shown.map((it) => Number.isNaN(it) ? "-" : it.toFixed(0)).map((it) =>
        it.padStart(width / columns.length)
      ).join("");
    });
    const relative = streams.map((count) => {
      const mine = samplesOf(first, count) ?? [];
      // A bound for one stream is one for many.
      const theirs = samplesOf(stack, Math.min(count, stack.maxStreams ?? Infinity)) ?? [];
      const column = columns[0]!;
      const ratio = median(
        mine.map((it, i) => (it?.[column] ?? NaN) / (theirs[i]?.[column] ?? NaN)),
      );
      return (Number.isNaN(ratio) || stack === first ? "" : ratio.toFixed(2)).padStart(7);
    });
    const indent = `${first.name} is times as much:`.length + 3;
    console.log(stack.name.padEnd(30) + values.join("") + "".padEnd(indent) + relative.join(""));
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      measure: { type: "string", default: "" },
      peers: { type: "string" },
      agent: { type: "string" },
    },
  });
  const peers = values.peers === undefined ? undefined : resolve(values.peers);
  const all = stacksOf(peers);
  if (values.agent !== undefined) {
    const { role, stack, port } = JSON.parse(values.agent);
    const found = all.find(({ name }) => name === stack)!;
    return await (role === "server" ? runServer(found) : runClient(found, port));
  }
  const rounds = positive("rounds", values.rounds ?? (values.quick ? "1" : "5"));
  const stacks = all.filter(({ name }) =>
    values.only.split(",").some((beginning) => name.startsWith(beginning))
  );
  const measurements = MEASUREMENTS.filter(({ kind }) =>
    values.measure === "" || values.measure.split(",").includes(kind)
  );
  console.log(`${runtimeName()}: medians of ${rounds} rounds`);
  for (const measurement of measurements) {
    const samples = new Map<string, (Answer | undefined)[]>();
    const able = stacks.filter(({ kinds }) => kinds.includes(measurement.kind));
    if (able.length === 0) continue;
    const key = (stack: Stack, streams: number) => `${streams} ${stack.name}`;
    for (let round = 0; round < rounds; round++) {
      for (const streams of measurement.streams) {
        for (const stack of able) {
          if (streams > (stack.maxStreams ?? Infinity)) continue;
          const taken = await sample(stack, measurement.kind, streams, values.quick, peers);
          const list = samples.get(key(stack, streams)) ?? [];
          list.push(taken);
          samples.set(key(stack, streams), list);
        }
      }
    }
    printTable(measurement, able, (stack, streams) => samples.get(key(stack, streams)));
  }
}

await main();
