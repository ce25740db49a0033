/**
 * The processes that bench/mux.ts measures: a server, or a client that does one measurement after the other. Each reads commands from
 * its standard input and answers each with a line of JSON.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { Pipe, Session, Stack } from "./mux_stack.ts";

const BLOCK_BYTES = 64 * 1024;
const MESSAGE_BYTES = 64;

/** What a client can be told to do. `rss` is for servers too. */
export type Command =
  | { readonly do: "rss" }
  /** Opens streams and echoes a byte on each. */
  | { readonly do: "idle"; readonly streams: number }
  /** Sends about `bytes` over so many streams, the same power of two on each: MB/s. */
  | { readonly do: "bulk"; readonly streams: number; readonly bytes: number }
  /** The same in messages of 64 bytes, each written when the stack wants more: messages per second that the server has received. */
  | { readonly do: "messages"; readonly streams: number; readonly bytes: number }
  /** Sends 64 bytes back and forth on each: round trips per second, median and 99th percentile in microseconds. */
  | { readonly do: "trips"; readonly streams: number; readonly seconds: number }
  /** Opens, sends a byte, gets it back, closes, so many at a time: streams per second. */
  | { readonly do: "opens"; readonly streams: number; readonly seconds: number }
  /** Connects, sends a byte on a stream, gets it back, ends the session, so many at a time: sessions per second. */
  | { readonly do: "handshakes"; readonly streams: number; readonly seconds: number };

/** Which numbers an answer has depends on the command. */
export type Answer = Readonly<Record<string, number>>;

async function answerCommands(answer: (command: Command) => Promise<Answer>): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(JSON.parse(line))));
  }
  // In order, so that a profile of it is written.
  process.exit(0);
}

const memory = (): Answer => ({ rss: process.memoryUsage.rss() });

/** Serves until its standard input ends; says its port first. */
export async function runServer(stack: Stack): Promise<void> {
  const port = await stack.serve((pipe) => {
    serve(pipe).catch((error) => console.error(`${stack.name}: server:`, error));
  });
  console.log(JSON.stringify({ port }));
  await answerCommands(() => Promise.resolve(memory()));
}

/** A message begins with the logarithm of its length, to the base of 2, and is answered by a byte. What begins with 0 comes back as it is. */
async function serve(pipe: Pipe): Promise<void> {
  const done = new Uint8Array(1);
  let left = 0;
  await pipe.each((chunk) => {
    const first = left === 0 ? chunk.subarray(0, 1)[0]! : 0;
    if (first > 0) left = 2 ** first;
    if (left === 0) return void pipe.write(chunk);
    left -= chunk.byteLength;
    if (left < 0) throw new Error("more came than was said");
    if (left === 0) pipe.write(done);
  });
  await pipe.close();
}

/** Connects and does what it is told. */
export async function runClient(stack: Stack, port: number): Promise<void> {
  const session = await stack.connect(port);
  const lanes: Lane[] = [];
  console.log(JSON.stringify({}));
  await answerCommands(async (command) => {
    if (command.do === "rss") return memory();
    if (command.do === "opens") {
      return await repeat(command, async () => {
        const { pipe } = await Lane.open(session);
        await pipe.close();
      });
    }
    if (command.do === "handshakes") {
      return await repeat(command, async () => {
        const another = await stack.connect(port);
        const { pipe } = await Lane.open(another);
        await (another.close === undefined ? pipe.close() : another.close());
      });
    }
    while (lanes.length < command.streams) lanes.push(await Lane.open(session));
    const used = lanes.slice(0, command.streams);
    if (command.do === "idle") return memory();
    if (command.do === "bulk") return await bulk(used, command.bytes);
    if (command.do === "messages") return await messages(used, command.bytes);
    return await trips(used, command.seconds);
  });
}

/** A stream, and who waits for an answer on it. */
class Lane {
  readonly pipe: Pipe;
  #missing = 0;
  #waiting: { resolve(): void; reject(error: unknown): void } | undefined;

  constructor(pipe: Pipe) {
    this.pipe = pipe;
    pipe.each((chunk) => {
      this.#missing -= chunk.byteLength;
      if (this.#missing === 0) this.#waiting?.resolve();
    }).catch((error) => {
      // After the last answer it is but our own close(), which nobody waits for.
      if (this.#missing > 0) this.#waiting?.reject(error);
    });
  }

  /** Opens one, and a byte has been back and forth. */
  static async open(session: Session): Promise<Lane> {
    const lane = new Lane(await session.open());
    const echoed = lane.answer(1);
    lane.pipe.write(new Uint8Array(1));
    await echoed;
    return lane;
  }

  /** Resolves when so many bytes have come. */
  answer(bytes: number): Promise<void> {
    this.#missing = bytes;
    return new Promise((resolve, reject) => this.#waiting = { resolve, reject });
  }
}

/** Sends about `total` bytes in blocks, the same power of two on each stream; gives how many that were, and in how many seconds. */
async function send(lanes: readonly Lane[], total: number, blockBytes: number) {
  const exponent = Math.round(Math.log2(Math.max(blockBytes, total / lanes.length)));
  const size = 2 ** exponent;
  const blocks = size / blockBytes;
  const block = new Uint8Array(blockBytes).fill(7);
  const first = block.slice();
  first[0] = exponent;
  const start = performance.now();
  await Promise.all(lanes.map(async (lane) => {
    const received = lane.answer(1);
    await lane.pipe.write(first);
    for (let i = 1; i < blocks; i++) {
      // Not awaited where the stack takes more at once.
      const taking = lane.pipe.write(block);
      if (taking !== undefined) await taking;
    }
    await received;
  }));
  return { bytes: size * lanes.length, seconds: (performance.now() - start) / 1000 };
}

async function bulk(lanes: readonly Lane[], total: number): Promise<Answer> {
  const { bytes, seconds } = await send(lanes, total, BLOCK_BYTES);
  return { mbPerSecond: bytes / 1e6 / seconds };
}

async function messages(lanes: readonly Lane[], total: number): Promise<Answer> {
  const { bytes, seconds } = await send(lanes, total, MESSAGE_BYTES);
  return { perSecond: bytes / MESSAGE_BYTES / seconds };
}

async function trips(lanes: readonly Lane[], seconds: number): Promise<Answer> {
  const message = new Uint8Array(MESSAGE_BYTES);
  const took: number[] = [];
  const start = performance.now();
  const end = start + 1000 * seconds;
  await Promise.all(lanes.map(async (lane) => {
    for (let now = performance.now(); now < end;) {
      const echoed = lane.answer(MESSAGE_BYTES);
      lane.pipe.write(message);
      await echoed;
      const then = now;
      now = performance.now();
      took.push(now - then);
    }
  }));
  const perSecond = 1000 * took.length / (performance.now() - start);
  took.sort((a, b) => a - b);
  const quantile = (of: number): number => 1000 * (took[Math.floor(took.length * of)] ?? NaN);
  return { perSecond, p50: quantile(0.5), p99: quantile(0.99) };
}

async function repeat(
  { streams, seconds }: { readonly streams: number; readonly seconds: number },
  once: () => Promise<void>,
): Promise<Answer> {
  let count = 0;
  const start = performance.now();
  const end = start + 1000 * seconds;
  await Promise.all(Array.from({ length: streams }, async () => {
    for (; performance.now() < end; count++) await once();
  }));
  return { perSecond: 1000 * count / (performance.now() - start) };
}
