/**
 * How fast what a busy server tells becomes events: see bench/ovpn.ts.
 *
 * @module
 */
import { Demuxer, EventAssembler, ManagementClient, parseEvent } from "@trunkline/sockets/ovpn";
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { median } from "./figures.ts";

const CHUNK_BYTES = 64 * 1024;
const FIXTURES = new URL("../tests/fixtures/ovpn/", import.meta.url);
const GREETING = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n";
/** For each client that comes and goes. */
const BYTE_COUNTS = 30;
const LOGS = 20;

/** What is told, and how many lines and events that is. */
interface Input {
  readonly chunks: readonly Uint8Array<ArrayBuffer>[];
  readonly bytes: number;
  readonly lines: number;
  readonly events: number;
}

/** One way to get typed events: resolves with their number. */
interface Way {
  readonly name: string;
  readonly events: (input: Input) => number | Promise<number>;
}

const WAYS: readonly Way[] = [
  {
    name: "parseEvent() + EventAssembler",
    events({ chunks }) {
      const demuxer = new Demuxer();
      const assembler = new EventAssembler();
      let count = 0;
      for (const chunk of chunks) {
        for (const { line } of demuxer.push(chunk)) {
          count += assembler.push(parseEvent(line)).length;
        }
      }
      return count;
    },
  },
  {
    name: "ManagementClient.events",
    async events({ chunks }) {
      const client = new ManagementClient({
        readable: new ReadableStream({
          async start(controller) {
            controller.enqueue(Buffer.from(GREETING));
            for (const chunk of chunks) {
              // Chunks of a socket come one in each turn, too.
              await setImmediate();
              controller.enqueue(chunk);
            }
            controller.close();
          },
        }),
        writable: new WritableStream(),
      });
      let count = -1;
      for await (const { type } of client.events) if (type !== "dropped") count++;
      return count;
    },
  },
];

/** The lines of a recorded session that begin with `>`, with their ends. */
function recorded(name: string): string[] {
  const text = readFileSync(new URL(`${name}.txt`, FIXTURES), "utf8");
  return text.split("\r\n").filter((line) => line.startsWith(">")).map((line) => `${line}\r\n`);
}

/** The block of a recorded session that begins with `header`, without its ids. */
function block(lines: readonly string[], header: string): string[] {
  const start = lines.findIndex((line) => line.startsWith(`>CLIENT:${header},`));
  const end = lines.indexOf(">CLIENT:ENV,END\r\n", start);
  return lines.slice(start + 1, end + 1);
}

/** As a server tells of `clients` that come, are let in, have traffic, and go; the lines between are those that `log on` and `state on` add. */
function serverInput(clients: number): Input {
  const session = recorded("server-client-auth");
  const [connect, established, disconnect] = ["CONNECT", "ESTABLISHED", "DISCONNECT"].map((kind) =>
    block(session, kind)
  ) as [string[], string[], string[]];
  const logs = recorded("client-lifecycle").filter((line) => line.startsWith(">LOG:"));
  const states = recorded("signals-order").filter((line) => line.startsWith(">STATE:"));
  const lines: string[] = [];
  let events = 0;
  for (let id = 0; id < clients; id++) {
    const counts = Array.from(
      { length: BYTE_COUNTS },
      (_, i) => `>BYTECOUNT_CLI:${id},${i * 40_961 + id},${i * 1_000_003}\r\n`,
    );
    lines.push(
      ...[`>CLIENT:CONNECT,${id},1\r\n`, ...connect],
      ...Array.from({ length: LOGS }, (_, i) => logs[(id + i) % logs.length]!),
      ...[`>CLIENT:ESTABLISHED,${id}\r\n`, ...established],
      ...[`>CLIENT:ADDRESS,${id},10.8.${id >> 8 & 255}.${id & 255},1\r\n`, ...counts],
      ...[states[id % states.length]!, `>CLIENT:DISCONNECT,${id}\r\n`, ...disconnect],
    );
    events += 5 + LOGS + BYTE_COUNTS;
  }
  const text = Buffer.from(lines.join(""));
  const chunks = Array.from(
    { length: Math.ceil(text.length / CHUNK_BYTES) },
    (_, i) => new Uint8Array(text.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES)),
  );
  return { chunks, bytes: text.length, lines: lines.length, events };
}

/** Measures and prints. */
export async function benchEvents(clients: number, rounds: number): Promise<void> {
  const input = serverInput(clients);
  const { bytes, lines, events } = input;
  const took = WAYS.map((): number[] => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, way] of WAYS.entries()) {
      const start = performance.now();
      const found = await way.events(input);
      const elapsed = performance.now() - start;
      if (found !== events) throw new Error(`${way.name} found ${found} events, not ${events}`);
      if (round > 0) took[i]?.push(elapsed);
    }
  }
  const mib = (bytes / 1024 ** 2).toFixed(1);
  console.log(`\n${clients} clients come and go: ${lines} lines, ${events} events, ${mib} MiB\n`);
  console.log(`${"".padEnd(32)}${"ms".padStart(8)}  k events/s  k lines/s    MB/s`);
  for (const [i, { name }] of WAYS.entries()) {
    const ms = median(took[i] ?? []);
    const columns = [
      ms.toFixed(0).padStart(8),
      (events / ms).toFixed(0).padStart(12),
      (lines / ms).toFixed(0).padStart(11),
      (bytes / ms / 1000).toFixed(0).padStart(8),
    ];
    console.log(name.padEnd(32) + columns.join(""));
  }
}
