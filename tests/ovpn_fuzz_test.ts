/**
 * What no OpenVPN sends, and far too much of it. Each round has a seed of its own: `FUZZ_SEED=7 FUZZ_ROUNDS=1` repeats the one that
 * failed. `deno task fuzz` goes on for as long as one likes.
 */
import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { setImmediate } from "node:timers";
import {
  demultiplex,
  Demuxer,
  ManagementClient,
  type ManagementError,
  MAX_MESSAGE_BYTES,
  MAX_QUEUED_LINES,
} from "@trunkline/sockets/ovpn";
import { GREETING, rejection } from "./ovpn_fake.ts";
import { PROPERTIES, runProperty } from "./ovpn_fuzz_rounds.ts";
import { unhandledDuring } from "./unhandled.ts";

const SEED = Number(process.env["FUZZ_SEED"] ?? 1);
const ROUNDS = process.env["FUZZ_ROUNDS"];

for (const property of PROPERTIES) {
  test(`fuzz: ${property.name}`, { timeout: 120_000 }, async () => {
    const rounds = ROUNDS === undefined ? property.rounds : Number(ROUNDS);
    assertEquals(await unhandledDuring(() => runProperty(property, SEED, rounds)), []);
  });
}

const FLOOD_BYTES = 100_000_000;
const CHUNK_BYTES = 65_536;
const CHUNKS = Math.ceil(FLOOD_BYTES / CHUNK_BYTES);
const encoder = new TextEncoder();

/** A daemon that says `head` and then `piece` again and again, and hears nothing. */
class Flood {
  /** Whole pieces; as long as a chunk, or nearly. */
  readonly chunk: Uint8Array;
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array> = new WritableStream();
  /** How many chunks have been asked for. */
  pulled = 0;
  /** How many pieces are in all of them. */
  readonly pieces: number;

  constructor(head: string, piece: string) {
    const perChunk = Math.floor(CHUNK_BYTES / piece.length);
    this.chunk = encoder.encode(piece.repeat(perChunk));
    this.pieces = perChunk * CHUNKS;
    this.readable = new ReadableStream({
      start: (controller) => {
        if (head !== "") controller.enqueue(encoder.encode(head));
      },
      pull: async (controller) => {
        // As from a socket: whoever can take what came has done so before more comes.
        await new Promise((resolve) => setImmediate(resolve));
        if (this.pulled++ < CHUNKS) controller.enqueue(this.chunk);
        else controller.close();
      },
    }, { highWaterMark: 0 });
  }
}

const heldBytes = (event: { readonly raw: Uint8Array }): number => event.raw.buffer.byteLength;

function flood(name: string, body: () => Promise<void> | void): void {
  test(`100 MB of ${name}`, { timeout: 60_000 }, body);
}

flood("a line without an end never wait in a Demuxer", () => {
  const chunk = new Uint8Array(CHUNK_BYTES).fill(97);
  const demuxer = new Demuxer();
  let told = 0;
  for (let pushed = 1; pushed <= CHUNKS; pushed++) {
    for (const { line } of demuxer.push(chunk)) told += line.length;
    assert(pushed * CHUNK_BYTES - told < MAX_MESSAGE_BYTES);
  }
});

flood("a line without an end are replies to nothing", async () => {
  const client = new ManagementClient(new Flood(GREETING, "x"));
  await client.closed;
  const pieces = CHUNKS * CHUNK_BYTES / MAX_MESSAGE_BYTES;
  assertEquals(client.strayReplies, Math.floor(pieces));
  assertEquals((await Array.fromAsync(client.events)).length, 1);
});

flood("a reply end the session when it has more than it may", async () => {
  for (const piece of ["x", "1700000000,I,text\r\n"]) {
    const daemon = new Flood(GREETING, piece);
    const client = new ManagementClient(daemon);
    const error = await rejection<ManagementError>(client.logHistory("all"));
    assertEquals([error.code, (await rejection<ManagementError>(client.closed)).code], [
      "protocol",
      "protocol",
    ]);
    assert(daemon.pulled * CHUNK_BYTES < 40_000_000, `${daemon.pulled} chunks`);
  }
});

flood("anything but a greeting end the session at once", async () => {
  const daemon = new Flood("", "x");
  const client = new ManagementClient(daemon);
  assertEquals((await rejection<ManagementError>(client.closed)).code, "protocol");
  assert(daemon.pulled < 10);
});

flood("an environment are one event of the size that it may have", async () => {
  const head = `${GREETING}>CLIENT:CONNECT,0,1\r\n`;
  const line = `>CLIENT:ENV,X509_0_CN=${"x".repeat(100)}\r\n`;
  const client = new ManagementClient(new Flood(head, line), { maxEnvBytes: 100_000 });
  const [, event, ...rest] = await Array.fromAsync(client.events);
  assert(event?.type === "CLIENT" && event.kind === "CONNECT");
  assertEquals([...event.envFaults].toSorted(), ["incomplete", "too-large"]);
  assert(heldBytes(event) <= 100_000);
  assertEquals(rest, []);
});

flood("events that may be dropped are counted, and the last of them kept", async () => {
  const maxBufferedEvents = 1000;
  const daemon = new Flood(
    GREETING,
    ">LOG:1700000000,I,a text of the length that texts in logs have\r\n",
  );
  const client = new ManagementClient(daemon, { maxBufferedEvents });
  const slow = client.subscribe();
  await client.closed;
  const events = await Array.fromAsync(slow);
  // The greeting is one that may not, and the notice is none of theirs.
  assertEquals(events.map(({ type }) => type).slice(0, 3), ["INFO", "dropped", "LOG"]);
  assertEquals(events.length, maxBufferedEvents + 1);
  const dropped = events.find((event) => event.type === "dropped")!;
  assertEquals([...dropped.counts], [["LOG", daemon.pieces - maxBufferedEvents + 1]]);
  assertEquals(client.droppedEvents, daemon.pieces - maxBufferedEvents + 1);
  assert(events.reduce((sum, event) => sum + heldBytes(event), 0) < 200_000);
});

flood("events that may not be dropped end a slow iteration, and no other", async () => {
  const maxBufferedEvents = 1000;
  const address = `10.50.0.0/255.255.255.0${"x".repeat(60)}`;
  const daemon = new Flood(GREETING, `>CLIENT:ADDRESS,18446744073709551615,${address},1\r\n`);
  const client = new ManagementClient(daemon, { maxBufferedEvents });
  const slow = client.subscribe();
  let read = 0;
  for await (const _ of client.events) read++;
  await client.closed;
  // And the greeting.
  assertEquals(read, daemon.pieces + 1);
  let kept = 0;
  const error = await rejection<ManagementError>((async () => {
    for await (const _ of slow) kept++;
  })());
  assertEquals([error.code, kept], ["overflow", maxBufferedEvents]);
});

flood("lines stay where they are when nobody reads demultiplex()", async () => {
  const daemon = new Flood("", ">LOG:1700000000,I,text\r\n");
  const { replies, events } = demultiplex(daemon.readable);
  const [reader, other] = [events.getReader(), replies.getReader()];
  // It waits for what is never sent.
  const waiting = other.read();
  await reader.read();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const perChunk = daemon.pieces / CHUNKS;
  assert(daemon.pulled <= 2 + MAX_QUEUED_LINES / perChunk, `${daemon.pulled} chunks`);
  await Promise.all([reader.cancel(), other.cancel()]);
  assert((await waiting).done);
});
