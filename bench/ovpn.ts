/**
 * How fast lines are found and read in what OpenVPN sends, and the status report of a large server, beside what one would use
 * otherwise; how fast a busy server's lines become events, and a burst of its clients is let in.
 *
 *     deno run -A bench/ovpn.ts
 *     bun bench/ovpn.ts
 *     node bench/ovpn.ts
 *
 * `--mib=64` is the size of the input, `--rounds=5` how often each way is measured. Each round takes all ways in the same order; the
 * first round is to warm up and does not count; the table shows the median of the others.
 *
 * The input is a block made of the recorded sessions, again and again, in chunks of 64 KiB. Sessions on which the ways differ by
 * design (a prompt without a line end, an empty line, a line longer than a message can be) are left out, so that all must find the
 * same number of lines.
 *
 * `--clients=10000` is how many clients the `status 3` report has, each with two routes. Its memory is what the heap holds more, after
 * a collection, with the rows than with the lines alone: `node --expose-gc`, `deno run -A --v8-flags=--expose-gc`.
 *
 * `--sessions=1000` clients come and go for the events, each with the environments of a recorded one, byte counts, log lines and states.
 * `--requests=5000` clients ask at once to be let in; their daemon is a plain one in this process, so that its work counts, too.
 *
 * @module
 */
import { DelimiterStream, TextLineStream } from "@std/streams";
import {
  demultiplex,
  Demuxer,
  MAX_MESSAGE_BYTES,
  parseEvent,
  parseStatus,
} from "@trunkline/sockets/ovpn";
import { readdirSync, readFileSync } from "node:fs";
import { Buffer } from "node:buffer";
import process from "node:process";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { parseArgs } from "node:util";
import { median, positive, runtimeName } from "./figures.ts";
import { benchAuth } from "./ovpn_auth.ts";
import { benchEvents } from "./ovpn_events.ts";

const CHUNK_BYTES = 64 * 1024;
const MIB = 1024 * 1024;
const FIXTURES = new URL("../tests/fixtures/ovpn/", import.meta.url);

/** Gives the whole input once more; nothing of it is kept. */
type Input = () => Generator<Uint8Array<ArrayBuffer>>;

/** One way to get lines: resolves with their number. */
interface Way {
  readonly name: string;
  readonly lines: (input: Input) => number | Promise<number>;
}

/** The recorded sessions one after the other, as characters of one byte each. */
function recordedBlock(): string {
  const files = readdirSync(FIXTURES).sort().filter((file) => /^[^.]+\.txt$/.test(file));
  const sessions = files.map((file) => readFileSync(new URL(file, FIXTURES), "latin1"));
  // A session may end in the middle of a line.
  const whole = sessions.map((text) => text.slice(0, text.lastIndexOf("\n") + 1));
  const alike = whole.filter((text) => {
    const lines = text.split("\n").slice(0, -1);
    return lines.every((line) => /^[^\r]+\r?$/.test(line) && line.length < MAX_MESSAGE_BYTES) &&
      !text.includes("ENTER PASSWORD:");
  });
  return alike.join("");
}

/** `block` again and again, cut into chunks without regard to where it begins. */
function* repeated(block: Uint8Array<ArrayBuffer>, times: number) {
  // The beginning once more, so that each chunk is one view.
  const ring = new Uint8Array(block.length + CHUNK_BYTES);
  for (let at = 0; at < ring.length; at += block.length) {
    ring.set(block.subarray(0, ring.length - at), at);
  }
  const total = block.length * times;
  for (let at = 0; at < total; at += CHUNK_BYTES) {
    const from = at % block.length;
    yield ring.subarray(from, from + Math.min(CHUNK_BYTES, total - at));
  }
}

function streamOf(input: Input): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunks = input();
  return new ReadableStream({
    pull(controller) {
      const { done, value } = chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
}

async function countOf(stream: ReadableStream<unknown>): Promise<number> {
  const reader = stream.getReader();
  let count = 0;
  while (!(await reader.read()).done) count++;
  return count;
}

const WAYS: readonly Way[] = [
  {
    name: "Demuxer",
    lines(input) {
      const demuxer = new Demuxer();
      let count = 0;
      for (const chunk of input()) count += demuxer.push(chunk).length;
      return count + demuxer.end().length;
    },
  },
  {
    name: "Demuxer + parseEvent()",
    lines(input) {
      const demuxer = new Demuxer();
      let count = 0;
      for (const chunk of input()) {
        for (const { kind, line } of demuxer.push(chunk)) {
          if (kind === "event") parseEvent(line);
          count++;
        }
      }
      return count + demuxer.end().length;
    },
  },
  {
    name: "demultiplex()",
    async lines(input) {
      const { replies, events } = demultiplex(streamOf(input));
      const counts = await Promise.all([countOf(replies), countOf(events)]);
      return counts[0] + counts[1];
    },
  },
  {
    name: "node:readline",
    lines(input) {
      // Of its interfaces the fastest: "line" events, from a stream of what Node itself would read.
      const buffers = function* () {
        for (const { buffer, byteOffset, length } of input()) {
          yield Buffer.from(buffer, byteOffset, length);
        }
      };
      const lines = createInterface({ input: Readable.from(buffers()), crlfDelay: Infinity });
      let count = 0;
      lines.on("line", () => count++);
      return new Promise((resolve) => lines.on("close", () => resolve(count)));
    },
  },
  {
    name: "@std TextLineStream",
    lines(input) {
      const text = streamOf(input).pipeThrough(new TextDecoderStream());
      return countOf(text.pipeThrough(new TextLineStream()));
    },
  },
  {
    name: "@std DelimiterStream",
    async lines(input) {
      const delimiter = new TextEncoder().encode("\n");
      const parts = await countOf(streamOf(input).pipeThrough(new DelimiterStream(delimiter)));
      // It also gives what is after the last line end, which is nothing.
      return parts - 1;
    },
  },
  {
    name: "TextDecoder + split()",
    lines(input) {
      const decoder = new TextDecoder();
      let count = 0;
      let rest = "";
      for (const chunk of input()) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        count += lines.length;
      }
      return count;
    },
  },
];

/** Peaks of the resident memory above its start, in MiB: in the first quarter of the input, and in all of it. */
function memoryGrowth(input: Input, bytes: number): readonly [number, number] {
  const demuxer = new Demuxer();
  const start = process.memoryUsage.rss();
  let read = 0;
  let peak = start;
  let early = start;
  for (const chunk of input()) {
    demuxer.push(chunk);
    read += chunk.length;
    peak = Math.max(peak, process.memoryUsage.rss());
    if (read <= bytes / 4) early = peak;
  }
  return [(early - start) / MIB, (peak - start) / MIB];
}

/** The report of a server with `clients` clients, in format 3. */
function statusReport(clients: number): string[] {
  const lines = [
    "TITLE\tOpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO] [LZ4] [EPOLL]",
    "TIME\t2026-11-21 00:27:32\t1795220852",
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\t" +
    "Bytes Received\tBytes Sent\tConnected Since\tConnected Since (time_t)\tUsername\t" +
    "Client ID\tPeer ID\tData Channel Cipher",
  ];
  const routes: string[] = [];
  for (let i = 0; i < clients; i++) {
    const [high, low] = [i >> 8 & 255, i & 255];
    const [name, real] = [`client-${i}.example.net`, `198.51.${high}.${low}:${1024 + i % 60000}`];
    const [virtual, virtual6] = [`10.8.${high}.${low}`, `fd00:8::${(4096 + i).toString(16)}`];
    const since = "2026-11-21 00:27:29\t1795220849";
    lines.push(
      `CLIENT_LIST\t${name}\t${real}\t${virtual}\t${virtual6}\t${i * 1_000_003}\t` +
        `${i * 70_001}\t${since}\tuser-${i}\t${i}\t${i}\tAES-256-GCM`,
    );
    for (const address of [virtual, virtual6]) {
      routes.push(`ROUTING_TABLE\t${address}\t${name}\t${real}\t${since}`);
    }
  }
  const header = "Virtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)";
  lines.push(`HEADER\tROUTING_TABLE\t${header}`, ...routes);
  lines.push("GLOBAL_STATS\tMax bcast/mcast queue length\t4", "GLOBAL_STATS\tdco_enabled\t0");
  // Flat text, as lines off the wire are; what was put together above is not yet.
  return lines.map((line) => Buffer.from(line).toString());
}

/** One way to read a status report: gives the rows. */
interface StatusWay {
  readonly name: string;
  readonly rows: (lines: readonly string[]) => readonly unknown[];
}

const ADDRESS = /^(?:([a-z]+[46]?(?:-\w+)?):)?\[?([^\]]+?)\]?(?::(\d+))?$/;
const CLIENT = new RegExp(
  "^CLIENT_LIST\\t([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\t([^\\t]*)\\t(\\d+)\\t(\\d+)\\t([^\\t]*)\\t(\\d+)" +
    "\\t([^\\t]*)\\t(\\d+)\\t(\\d+)\\t([^\\t]*)$",
);
const ROUTE = /^ROUTING_TABLE\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t(\d+)$/;

const STATUS_WAYS: readonly StatusWay[] = [
  {
    name: "parseStatus()",
    rows(lines) {
      const { clients, routes } = parseStatus(lines);
      return [clients, routes];
    },
  },
  {
    // What scripts do: an object of texts by the titles of the header.
    name: "split() by HEADER",
    rows(lines) {
      const headers = new Map<string, string[]>();
      const rows: Record<string, Record<string, string>[]> = { CLIENT_LIST: [], ROUTING_TABLE: [] };
      for (const line of lines) {
        const [kind = "", ...fields] = line.split("\t");
        if (kind === "HEADER") headers.set(fields[0] ?? "", fields.slice(1));
        const titles = headers.get(kind);
        if (titles === undefined) continue;
        rows[kind]?.push(Object.fromEntries(titles.map((title, i) => [title, fields[i] ?? ""])));
      }
      return Object.values(rows);
    },
  },
  {
    // One pattern for the columns of one version, with what parseStatus() gives of an address, numbers and dates.
    name: "a regex per row",
    rows(lines) {
      const [clients, routes]: [unknown[], unknown[]] = [[], []];
      const address = (text = "") => {
        const [, protocol, address, port] = ADDRESS.exec(text) ?? [];
        return { text, protocol, address, port: Number(port) };
      };
      for (const raw of lines) {
        const client = CLIENT.exec(raw);
        if (client !== null) {
          const [, commonName, real, virtualAddress, virtualAddress6, received, sent] = client;
          const [text, seconds, username, clientId, peerId, cipher] = client.slice(7);
          clients.push({
            ...{ commonName, realAddress: address(real), virtualAddress, virtualAddress6 },
            ...{ bytesReceived: Number(received), bytesSent: Number(sent), username, clientId },
            ...{ connectedSince: { text, seconds: Number(seconds) }, peerId, cipher, raw },
          });
          continue;
        }
        const route = ROUTE.exec(raw);
        if (route === null) continue;
        const [, virtualAddress = "", commonName, real, text, seconds] = route;
        routes.push({
          ...{ virtualAddress, cached: virtualAddress.endsWith("C"), commonName, raw },
          ...{ realAddress: address(real), lastRef: { text, seconds: Number(seconds) } },
        });
      }
      return [clients, routes];
    },
  },
];

/** What the heap holds more with the rows than without, in MiB; `undefined` if collections cannot be asked for. */
function heapOf(rows: () => readonly unknown[]): number | undefined {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) return undefined;
  collect();
  const before = process.memoryUsage().heapUsed;
  const kept = rows();
  collect();
  const after = process.memoryUsage().heapUsed;
  return kept.length === 0 ? undefined : (after - before) / MIB;
}

function benchStatus(clients: number, rounds: number): void {
  const lines = statusReport(clients);
  const bytes = lines.reduce((sum, line) => sum + line.length + 2, 0);
  const took = STATUS_WAYS.map((): number[] => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, way] of STATUS_WAYS.entries()) {
      const start = performance.now();
      const [found, routes] = way.rows(lines) as [unknown[], unknown[]];
      const elapsed = performance.now() - start;
      if (found.length !== clients || routes.length !== 2 * clients) {
        throw new Error(`${way.name} found ${found.length} clients and ${routes.length} routes`);
      }
      if (round > 0) took[i]?.push(elapsed);
    }
  }
  const medians = took.map(median);
  const ours = medians[0] ?? NaN;
  console.log(
    `\nstatus 3: ${clients} clients, ${lines.length} lines, ${(bytes / MIB).toFixed(1)} MiB\n`,
  );
  console.log(`${"".padEnd(24)}${"ms".padStart(8)}     MB/s     heap  parseStatus() is`);
  for (const [i, { name, rows }] of STATUS_WAYS.entries()) {
    const ms = medians[i] ?? NaN;
    const heap = heapOf(() => rows(lines));
    const columns = [
      ms.toFixed(1).padStart(8),
      (bytes / ms / 1000).toFixed(0).padStart(9),
      (heap === undefined ? "-" : `${heap.toFixed(1)} MiB`).padStart(9),
      i === 0 ? "" : `${(ms / ours).toFixed(2)} x as fast`.padStart(18),
    ];
    console.log(name.padEnd(24) + columns.join(""));
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      mib: { type: "string", default: "64" },
      rounds: { type: "string", default: "5" },
      clients: { type: "string", default: "10000" },
      sessions: { type: "string", default: "1000" },
      requests: { type: "string", default: "5000" },
    },
  });
  const rounds = positive("rounds", values.rounds);
  const clients = positive("clients", values.clients);
  const text = recordedBlock();
  const block = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const times = Math.ceil(positive("mib", values.mib) * MIB / block.length);
  const bytes = block.length * times;
  const lines = (text.split("\n").length - 1) * times;
  const input: Input = () => repeated(block, times);
  console.log(
    `${runtimeName()}: ${
      (bytes / MIB).toFixed(1)
    } MiB, ${lines} lines, median of ${rounds} rounds\n`,
  );

  const [early, peak] = memoryGrowth(input, bytes);
  const took = WAYS.map((): number[] => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, way] of WAYS.entries()) {
      const start = performance.now();
      const found = await way.lines(input);
      const elapsed = performance.now() - start;
      if (found !== lines) throw new Error(`${way.name} found ${found} lines, not ${lines}`);
      if (round > 0) took[i]?.push(elapsed);
    }
  }

  const medians = took.map(median);
  const ours = medians[0] ?? NaN;
  console.log(`${"".padEnd(24)}${"ms".padStart(8)}  M lines/s    MB/s  Demuxer is`);
  for (const [i, { name }] of WAYS.entries()) {
    const ms = medians[i] ?? NaN;
    const columns = [
      ms.toFixed(0).padStart(8),
      (lines / ms / 1000).toFixed(2).padStart(11),
      (bytes / ms / 1000).toFixed(0).padStart(8),
      i === 0 ? "" : `${(ms / ours).toFixed(2)} x as fast`.padStart(16),
    ];
    console.log(name.padEnd(24) + columns.join(""));
  }
  console.log(
    `\nMemory of the first Demuxer run, at its peak: +${
      early.toFixed(1)
    } MiB in the first quarter, ` +
      `+${peak.toFixed(1)} MiB in all`,
  );
  benchStatus(clients, rounds);
  await benchEvents(positive("sessions", values.sessions), rounds);
  await benchAuth(positive("requests", values.requests), rounds);
}

await main();
