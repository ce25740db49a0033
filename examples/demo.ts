/**
 * Manages a real OpenVPN for a few seconds and prints what happens: `deno task demo`, `bun examples/demo.ts`,
 * `node examples/demo.ts`.
 */
import { openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { type Address, connect } from "@trunkline/sockets/auto";
import {
  describeEvent,
  dial,
  ManagementClient,
  type ManagementEvent,
} from "@trunkline/sockets/ovpn";
import { recordConn, type Recording, startScriptedDaemon } from "@trunkline/sockets/ovpn/testing";
import recorded from "./demo_recording.json" with { type: "json" };
import {
  clientArgs,
  createNamespace,
  findProgram,
  serverArgs,
  startOpenVpn,
  whyNoNamespace,
  workDirectory,
} from "./openvpn_process.ts";

const MAX_SECONDS = 3600;

const HELP = `Manages a real OpenVPN for a few seconds and prints what happens.

  --seconds=N    how long to watch the byte counters (default 2, at most ${MAX_SECONDS})
  --recorded     play a recorded session, even where there is an OpenVPN
  --record=FILE  write what passes over the management connections to FILE
  --help         this text

As root on Linux: a server and a client that talk to each other, in a network namespace of their own.
Otherwise: a client alone, which needs no privilege. Nothing answers it, so it gets no further than WAIT.`;

/** A server restarts in one second, a connection takes less. */
const PATIENCE_MS = 20_000;

function readOptions() {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "2" },
      recorded: { type: "boolean", default: false },
      record: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const seconds = /^\d+(\.\d+)?$/.test(values.seconds) ? Number(values.seconds) : NaN;
  if (!(seconds <= MAX_SECONDS)) {
    throw new RangeError(`--seconds takes a number from 0 to ${MAX_SECONDS}`);
  }
  return { ...values, seconds };
}

/** Gives what `read` gives, or says what is wrong and exits. */
function orExit<T>(read: () => T, hint: string): T {
  try {
    return read();
  } catch (error) {
    console.error((error as Error).message + hint);
    process.exit(2);
  }
}

const options = orExit(readOptions, `\n\n${HELP}`);

type Name = "server" | "client";

/** The other events begin with their names. */
const LABELS: Readonly<Record<string, string>> = {
  STATE: "state ",
  HOLD: "hold: ",
  BYTECOUNT: "bytes: ",
  BYTECOUNT_CLI: "bytes: ",
};

/** OpenVPNs to manage: each is started when it is asked for. */
interface Stage {
  readonly names: readonly Name[];
  start(name: Name): Promise<Address | string>;
  close(): Promise<void>;
}

const began = performance.now();
const recordings: Record<string, Recording> = {};

function say(who: string, text: string): void {
  const seconds = ((performance.now() - began) / 1000).toFixed(2).padStart(6);
  console.log(`${seconds} s  ${who.padEnd(8)}${text}`);
}

async function realStage(openvpn: string): Promise<Stage> {
  const directory = workDirectory();
  const namespace = await createNamespace();
  if (namespace === undefined) {
    console.log(
      `only a client, without a server (${whyNoNamespace()}): it gets no further than WAIT`,
    );
  }
  const running: ReturnType<typeof startOpenVpn>[] = [];
  return {
    names: namespace === undefined ? ["client"] : ["server", "client"],
    async start(name) {
      const socket = join(directory.path, `${name}.sock`);
      const args = name === "server" ? serverArgs() : [...clientArgs(), "--management-hold"];
      const daemon = startOpenVpn(openvpn, [...args, "--management", socket, "unix"], namespace);
      running.push(daemon);
      await daemon.logged(/unix domain socket listening/);
      say(name, `started, process ${daemon.pid}`);
      return socket;
    },
    async close() {
      await Promise.all(running.map((daemon) => daemon.stop()));
      namespace?.close();
      directory.close();
    },
  };
}

function recordedStage(): Stage {
  const running: Awaited<ReturnType<typeof startScriptedDaemon>>[] = [];
  return {
    names: ["server", "client"],
    async start(name) {
      const daemon = await startScriptedDaemon(recorded[name] as Recording, { timeScale: 1 });
      running.push(daemon);
      return daemon.addr;
    },
    async close() {
      await Promise.all(running.map((daemon) => daemon.close()));
    },
  };
}

/** Connects, and says all that is heard. */
async function manage(stage: Stage, name: Name): Promise<ManagementClient> {
  const address = await stage.start(name);
  let client: ManagementClient;
  if (options.record === undefined) {
    client = await dial(address);
  } else {
    const { conn, recording } = recordConn(await connect(address));
    recordings[name] = recording;
    client = new ManagementClient(conn);
  }
  listen(name, client);
  return client;
}

async function listen(name: Name, client: ManagementClient): Promise<void> {
  for await (const event of client.events) {
    // Twenty lines of variables follow a message about a client; they are not for people.
    const text = describeEvent(event);
    if (!text.startsWith("CLIENT: ENV")) say(name, (LABELS[event.type] ?? "") + text);
  }
  say(name, "the connection has ended");
}

/** Begins to wait at once for an event that comes later. */
async function next(
  client: ManagementClient,
  wanted: (event: ManagementEvent) => boolean,
): Promise<void> {
  const events = client.subscribe({ signal: AbortSignal.timeout(PATIENCE_MS) });
  for await (const event of events) if (wanted(event)) return;
  throw new Error("the connection ended too early");
}

const isConnected = (event: ManagementEvent) =>
  event.type === "STATE" && event.name === "CONNECTED";
const isHeld = (event: ManagementEvent) => event.type === "HOLD";

async function play(stage: Stage): Promise<void> {
  let server: ManagementClient | undefined;
  if (stage.names.includes("server")) {
    server = await manage(stage, "server");
    await server.setStateEvents(true);
    await server.setByteCountEvents(1);
    say("server", `pid ${await server.pid()}, ${(await server.latestState())?.name}`);
  }

  const client = await manage(stage, "client");
  await client.setStateEvents(true);
  await client.setByteCountEvents(1);
  say("client", `pid ${await client.pid()}; we release the hold`);
  let connected = server && next(client, isConnected);
  await client.holdRelease();
  await connected;
  if (server !== undefined) await sayClients(server);
  await new Promise((resolve) => setTimeout(resolve, options.seconds * 1000));

  say("client", "we send SIGUSR1, a restart");
  const held = next(client, isHeld);
  await client.sendSignal("SIGUSR1");
  await held;
  connected = server && next(client, isConnected);
  await client.holdRelease();
  await connected;

  for (const [name, it] of Object.entries({ client, server })) {
    if (it === undefined) continue;
    say(name, "we send SIGTERM");
    await it.sendSignal("SIGTERM");
    await it.closed;
  }
}

async function sayClients(server: ManagementClient): Promise<void> {
  for (const line of await server.latestStatus("3")) {
    const [kind, name, from, address] = line.split("\t");
    if (kind === "CLIENT_LIST") say("server", `status: ${name} from ${from} has ${address}`);
  }
}

async function main(): Promise<void> {
  const { record } = options;
  // Before anything is started: a file that cannot be written is to be known at once.
  const file = record === undefined
    ? undefined
    : orExit(() => openSync(record, "w"), " (--record)");
  const openvpn = options.recorded ? undefined : findProgram("openvpn");
  if (openvpn === undefined && !options.recorded) {
    console.log(
      "no openvpn on PATH (Debian: apt-get install openvpn): this plays a recorded session",
    );
  }
  const stage = openvpn === undefined ? recordedStage() : await realStage(openvpn);
  try {
    await play(stage);
  } finally {
    await stage.close();
  }
  if (file !== undefined) writeFileSync(file, formatRecordings());
}

function formatRecordings(): string {
  const steps = ({ from, at, bytes, end }: Recording[number]) =>
    end ? { from, at: Math.round(at), end } : { from, at: Math.round(at), text: decode(bytes) };
  const entries = Object.entries(recordings).map(([name, it]) => [name, it.map(steps)]);
  return JSON.stringify(Object.fromEntries(entries), null, 2) + "\n";
}

function decode(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}

if (options.help) {
  console.log(HELP);
} else {
  process.once("SIGINT", () => process.exit(130)).once("SIGTERM", () => process.exit(143));
  await main();
}
