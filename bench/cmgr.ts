/**
 * How fast our connection manager is beside servers written by hand on the same runtime's sockets.
 *
 *     node bench/cmgr.ts
 *     bun bench/cmgr.ts
 *     deno run -A bench/cmgr.ts
 *
 * `--rounds=5` is how often each measurement is taken, in fresh processes each time: a round takes all stacks in the same order, and the
 * tables show medians, of the numbers and of the ratios in the same round. `--quick` takes less of each, once; `--only=raw,ours` takes
 * some stacks, by the beginnings of their names, the first of which is what the others are compared with; `--measure=echo,idle,broadcast,
 * accepts,datagrams` some measurements; `--connections=100,1000` and `--size=16,16384` some of the tables of echoes.
 *
 * The clients are one process of Bun on all runtimes, `--bun=bun`, with one message at a time by each connection. CPU is that of the
 * server alone, user and system. With less than two idle cores it tells more than the messages per second: a server whose clients fall
 * asleep between two messages has to wake them by each, which makes a slow one slower still; `taskset -c 1` before the command, which
 * puts all on one core, keeps that away. Both processes need more than 10000 open files (`ulimit -n`).
 *
 * @module
 */
import { parseArgs } from "node:util";
import { AgentProcess, type Numbers } from "./agent_process.ts";
import { type LoadCommand, runLoad } from "./cmgr_load.ts";
import { conns, oursByCallback, oursByLoop } from "./cmgr_ours.ts";
import { rawStacks } from "./cmgr_raw.ts";
import { runServer, type ServerCommand } from "./cmgr_server.ts";
import type { Service, Stack } from "./cmgr_stack.ts";
import { median, positive, runtimeName } from "./figures.ts";

const CONNECTIONS = [1, 100, 1000, 5000];
const SIZES = [16, 16 * 1024];
const IDLE_SESSIONS = 10_000;
const BROADCAST_SESSIONS = 5000;
/** A line of a chat. */
const BROADCAST_BYTES = 64;
const ACCEPTS_AT_ONCE = 64;
const DATAGRAM_SOCKETS = 64;
/** A stack that takes longer for a sample hangs. */
const SAMPLE_LIMIT_MS = 60_000;

const { values } = parseArgs({
  options: {
    rounds: { type: "string" },
    quick: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    measure: { type: "string", default: "echo,idle,broadcast,accepts,datagrams" },
    connections: { type: "string", default: CONNECTIONS.join() },
    size: { type: "string", default: SIZES.join() },
    bun: { type: "string", default: "bun" },
    agent: { type: "string" },
  },
});
const STACKS: readonly Stack[] = [...rawStacks(), conns, oursByLoop, oursByCallback];
const SECONDS = values.quick ? 0.5 : 2;

/** What goes on in one sample, with a server and clients of its own. */
type Run = (server: AgentProcess<ServerCommand>, load: Load) => Promise<Numbers>;

interface Load {
  connect(connections: number): Promise<unknown>;
  /** Does it twice, the first time for half as long, to warm up; with the server's CPU time of each of `count` in microseconds. */
  measure(command: LoadCommand): Promise<Numbers>;
  readonly port: number;
}

async function sample(stack: Stack, service: Service, run: Run): Promise<Numbers | undefined> {
  const job = { stack: stack.name, service };
  const server = new AgentProcess<ServerCommand>(import.meta.url, job, undefined);
  const clients = new AgentProcess<LoadCommand>(import.meta.url, {}, undefined, values.bun);
  const limit = setTimeout(() => {
    clients.kill();
    server.kill();
  }, SAMPLE_LIMIT_MS);
  try {
    const { port = NaN } = await server.answer();
    const measure = async (command: LoadCommand) => {
      if ("seconds" in command) await clients.ask({ ...command, seconds: command.seconds / 2 });
      const { cpu: before = NaN } = await server.ask({ do: "cpu" });
      const taken = await clients.ask(command);
      const { cpu: after = NaN } = await server.ask({ do: "cpu" });
      return { ...taken, cpu: (after - before) / (taken["count"] ?? NaN) };
    };
    const connect = (connections: number) => clients.ask({ do: "connect", port, connections });
    return await run(server, { port, connect, measure });
  } catch (error) {
    console.error(`${stack.name}, ${service}: ${error}`);
    return undefined;
  } finally {
    await clients.end();
    await server.end();
    clearTimeout(limit);
  }
}

/** A number of a table: of an answer, with so many digits behind the point. */
type Column = readonly [title: string, name: string, digits: number];

const CPU: Column = ["CPU us", "cpu", 1];

/** Takes all samples of a table and prints it; the first column is what the ratios are of. */
async function table(
  title: string,
  service: Service,
  columns: readonly Column[],
  run: Run,
): Promise<void> {
  const beginnings = values.only.split(",");
  const stacks = STACKS.filter(({ name, services }) =>
    services.includes(service) && beginnings.some((beginning) => name.startsWith(beginning))
  );
  const rounds = positive("rounds", values.rounds ?? (values.quick ? "1" : "5"));
  const taken = stacks.map((): (Numbers | undefined)[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, stack] of stacks.entries()) taken[i]!.push(await sample(stack, service, run));
  }
  console.log(`\n${title}`);
  const heads = columns.map(([head]) => head.padStart(11)).join("");
  console.log(`${"".padEnd(18)}${heads}${"of the first".padStart(14)}`);
  const [[, main]] = columns as [Column];
  for (const [i, { name }] of stacks.entries()) {
    const cells = columns.map(([, column, digits]) => {
      const value = median(taken[i]!.map((it) => it?.[column] ?? NaN));
      return (Number.isNaN(value) ? "-" : value.toFixed(digits)).padStart(11);
    });
    const ratio = median(
      taken[i]!.map((it, round) => (it?.[main] ?? NaN) / (taken[0]?.[round]?.[main] ?? NaN)),
    );
    console.log(name.padEnd(18) + cells.join("") + ratio.toFixed(2).padStart(14));
  }
}

function numbers(option: string, text: string): number[] {
  return text.split(",").map((number) => positive(option, number));
}

async function echoes(): Promise<void> {
  for (const size of numbers("size", values.size)) {
    for (const connections of numbers("connections", values.connections)) {
      const columns: readonly Column[] = [
        ["messages/s", "perSecond", 0],
        ["MB/s", "mbPerSecond", 1],
        ["p50 us", "p50", 0],
        ["p99 us", "p99", 0],
        CPU,
      ];
      await table(
        `Echo: ${size} bytes, ${connections} connections`,
        "echo",
        columns,
        async (_, load) => {
          await load.connect(connections);
          return await load.measure({ do: "echo", size, seconds: SECONDS });
        },
      );
    }
  }
}

function idle(): Promise<void> {
  const columns: readonly Column[] = [
    ["heap", "heap", 0],
    ["buffers", "buffers", 0],
    ["rss", "rss", 0],
  ];
  const title = `Bytes of memory for each of ${IDLE_SESSIONS} idle connections`;
  return table(title, "echo", columns, async (server, load) => {
    await load.connect(1);
    const before = await server.ask({ do: "memory" });
    await load.connect(IDLE_SESSIONS);
    const after = await server.ask({ do: "memory" });
    return Object.fromEntries(
      Object.keys(after).map((name) => [name, (after[name]! - before[name]!) / IDLE_SESSIONS]),
    );
  });
}

async function main(): Promise<void> {
  if (values.agent !== undefined) {
    const { stack, service } = JSON.parse(values.agent);
    const found = STACKS.find(({ name }) => name === stack);
    return await (found === undefined ? runLoad() : runServer(found, service));
  }
  console.log(`${runtimeName()}: medians, clients: ${values.bun}`);
  const measures = values.measure.split(",");
  if (measures.includes("echo")) await echoes();
  if (measures.includes("idle")) await idle();
  if (measures.includes("broadcast")) {
    const title =
      `Broadcast: ${BROADCAST_BYTES} bytes to ${BROADCAST_SESSIONS} connections, each of which counts`;
    await table(title, "broadcast", [["messages/s", "perSecond", 0], CPU], async (_, load) => {
      await load.connect(BROADCAST_SESSIONS);
      return await load.measure({ do: "broadcast", size: BROADCAST_BYTES, seconds: SECONDS });
    });
  }
  if (measures.includes("accepts")) {
    const title = "Connections that send a byte, get it back and end";
    await table(
      title,
      "echo",
      [["per second", "perSecond", 0], CPU],
      (_, { port, measure }) =>
        measure({ do: "accepts", port, atOnce: ACCEPTS_AT_ONCE, seconds: SECONDS }),
    );
  }
  if (measures.includes("datagrams")) {
    const title = `Echo by UDP: ${BROADCAST_BYTES} bytes, ${DATAGRAM_SOCKETS} sockets`;
    const columns: readonly Column[] = [
      ["datagrams/s", "perSecond", 0],
      ["lost", "lost", 0],
      CPU,
    ];
    await table(title, "datagrams", columns, (_, { port, measure }) =>
      measure({
        do: "datagrams",
        port,
        sockets: DATAGRAM_SOCKETS,
        size: BROADCAST_BYTES,
        seconds: SECONDS,
      }));
  }
}

await main();
