/**
 * How fast our mux is beside other multiplexers, and beside what bounds it.
 *
 *     node bench/mux.ts
 *     bun bench/mux.ts
 *     deno run -A bench/mux.ts
 *
 * `--rounds=5` is how often each measurement is taken, in fresh processes each time: a round takes all stacks in the same order, and the
 * tables show medians, of the numbers and of the ratios in the same round. `--quick` takes less of each, once; `--only=ours,http2` takes
 * some stacks, by the beginnings of their names; `--measure=bulk,trips` some measurements, `--streams=1,100` those with so many streams.
 *
 * Our mux and its bounds are measured on every runtime, the peers on Node. Those that do not come with Node are taken from
 * `--peers=DIRECTORY`; sodium-native, too, on all runtimes:
 *
 *     npm i --prefix DIRECTORY sodium-native@5 @chainsafe/libp2p-yamux@8 @chainsafe/libp2p-noise@17 @libp2p/crypto@5 \
 *       @libp2p/logger@6 @libp2p/utils@7
 *
 * Bulk is written in blocks of 64 KiB, messages in blocks of 64 bytes, each after the stack has taken the one before it: ours tells so of
 * each write, the peers take several at once. What counts is what the server's application has received. The first pass, of a quarter, is
 * to warm up and does not count. Client and server share the machine: with less than two idle cores they hinder each other.
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
import { rawTcp, tls13 } from "./mux_conns.ts";
import { http2 } from "./mux_http2.ts";
import { libp2p } from "./mux_libp2p.ts";
import { cryptoBound, hardened, identified, ours } from "./mux_ours.ts";
import { recordBound } from "./mux_records.ts";
import { type Kind, requireFrom, type Stack } from "./mux_stack.ts";

const MIB = 1024 * 1024;
const V1 = "ours v1";
const V2_CHACHA = "ours v2 ChaCha";
const V2_AES = "ours v2 AES";
/** A stack that takes longer for a sample hangs. */
const SAMPLE_LIMIT_MS = 60_000;

/** Of these the tables say how many times as much they are as each other. */
const REFERENCES: readonly string[] = [V1, V2_CHACHA, V2_AES];
const NAME_WIDTH = 30;

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
    kind: "messages",
    title: "Messages of 64 bytes one way, per second",
    streams: [1, 100],
    columns: ["perSecond"],
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
  {
    kind: "handshakes",
    title: "Sessions per second: connect, handshake, a byte, its echo, close",
    streams: [1, 8],
    columns: ["perSecond"],
  },
];

/** All that can be measured here. */
function stacksOf(peers: string | undefined): readonly Stack[] {
  const chaCha = "ChaChaPoly_BLAKE2b";
  const aes = "AESGCM_SHA256";
  const stacks = [
    ours(V1),
    ours(V2_CHACHA, hardened(chaCha)),
    ours(V2_AES, hardened(aes)),
    ours(`${V2_CHACHA}, identities`, identified(chaCha), ["handshakes"]),
    ours(`${V2_AES}, identities`, identified(aes), ["handshakes"]),
    cryptoBound("bound v1"),
    recordBound("bound v2 ChaCha", chaCha),
    recordBound("bound v2 AES", aes),
    rawTcp,
    tls13,
  ];
  try {
    const aead = fromSodium(requireFrom<SodiumLike>(peers, "sodium-native"));
    const bound = cryptoBound("bound v1, sodium-native", Promise.resolve(aead));
    stacks.push(ours("ours v1, sodium-native", { aead }), bound);
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
  if (kind === "bulk" || kind === "messages") {
    const bytes = (quick ? 64 : 256) * MIB / (kind === "bulk" ? 1 : 8);
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
  const references = stacks.filter(({ name }) => REFERENCES.includes(name));
  const width = Math.max(9, 8 * columns.length);
  const group = Math.max(7 * streams.length, V2_CHACHA.length + 7) + 3;
  const heads = (each: number) => streams.map((count) => String(count).padStart(each)).join("");
  const over = references.map(({ name }) => `${name} / this`.padStart(group)).join("");
  console.log(`\n${title.padEnd(NAME_WIDTH + width * streams.length)}${over}`);
  console.log(
    "".padEnd(NAME_WIDTH) + heads(width) + heads(7).padStart(group).repeat(references.length),
  );
  for (const stack of stacks) {
    const values = streams.map((count) => {
      const samples = samplesOf(stack, count) ?? [];
      const shown = columns.map((column) => median(samples.map((it) => it?.[column] ?? NaN)));
      return shown.map((it) => Number.isNaN(it) ? "-" : it.toFixed(0)).map((it) =>
        it.padStart(width / columns.length)
      ).join("");
    });
    const ratios = references.map((reference) => {
      const each = streams.map((count) => {
        const mine = samplesOf(reference, count) ?? [];
        // A bound for one stream is one for many.
        const theirs = samplesOf(stack, Math.min(count, stack.maxStreams ?? Infinity)) ?? [];
        const column = columns[0]!;
        const ratio = median(
          mine.map((it, i) => (it?.[column] ?? NaN) / (theirs[i]?.[column] ?? NaN)),
        );
        return (Number.isNaN(ratio) || stack === reference ? "" : ratio.toFixed(2)).padStart(7);
      });
      return each.join("").padStart(group);
    });
    console.log(stack.name.padEnd(NAME_WIDTH) + values.join("") + ratios.join(""));
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string" },
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      measure: { type: "string", default: "" },
      streams: { type: "string", default: "" },
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
  const isChosen = (list: string, it: string | number) =>
    list === "" || list.split(",").includes(String(it));
  const measurements = MEASUREMENTS.filter(({ kind }) => isChosen(values.measure, kind)).map((
    it,
  ) => ({
    ...it,
    streams: it.streams.filter((count) => isChosen(values.streams, count)),
  }));
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
