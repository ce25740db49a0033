/** What must hold of lines and events, whatever comes. */
import { assert, assertEquals } from "@std/assert";
import { inspect } from "node:util";
import {
  demultiplex,
  type DemuxedKind,
  Demuxer,
  describeEvent,
  EventAssembler,
  type ManagementEvent,
  MAX_MESSAGE_BYTES,
  parseEvent,
} from "@trunkline/sockets/ovpn";
import { fuzzedChunks, fuzzedWire, type Luck } from "./ovpn_fuzz.ts";

const LF = 10;
const CR = 13;
const PROMPT = new TextEncoder().encode("ENTER PASSWORD:");

export interface Line {
  readonly kind: DemuxedKind;
  readonly line: Uint8Array;
}

/** The lines of `bytes` by the rules alone, without any state; `rest` is what has no end. */
export function linesOf(bytes: Uint8Array): { readonly lines: Line[]; readonly rest: Line[] } {
  const lines: Line[] = [];
  const rest: Line[] = [];
  let mayPrompt = true;
  for (let start = 0; start < bytes.length;) {
    if (mayPrompt && PROMPT.every((byte, i) => bytes[start + i] === byte)) {
      lines.push({ kind: "password-prompt", line: PROMPT });
      start += PROMPT.length;
      continue;
    }
    const found = bytes.indexOf(LF, start);
    const end = found < 0 ? bytes.length : found;
    const stop = Math.min(end, start + MAX_MESSAGE_BYTES);
    const isRest = found < 0 && stop - start < MAX_MESSAGE_BYTES;
    const last = bytes[stop - 1] === CR && stop > start ? stop - 1 : stop;
    const isEvent = bytes[start] === 0x3e;
    if (last > start) {
      mayPrompt = false;
      const line = bytes.subarray(isEvent ? start + 1 : start, last);
      (isRest ? rest : lines).push({ kind: isEvent ? "event" : "reply", line });
    }
    start = stop === end && found >= 0 ? end + 1 : stop;
  }
  return { lines, rest };
}

/** Quicker than assertEquals() for many bytes. */
function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

function assertSameLines(actual: readonly Line[], expected: readonly Line[]): void {
  for (const [i, { kind, line }] of expected.entries()) {
    const it = actual[i];
    if (it === undefined || it.kind !== kind || !isSame(it.line, line)) {
      assertEquals(it && { ...it, at: i }, { kind, line, at: i });
    }
  }
  assertEquals(actual.length, expected.length);
}

/** The same lines in whatever chunks they come. */
export function demuxes(luck: Luck): void {
  const bytes = fuzzedWire(luck);
  const { lines, rest } = linesOf(bytes);
  const demuxer = new Demuxer();
  const actual = fuzzedChunks(luck, bytes).flatMap((chunk) => {
    const found = demuxer.push(chunk);
    // It may be used again at once.
    chunk.fill(62);
    return found;
  });
  assertSameLines(actual, lines);
  assertSameLines(demuxer.end(), rest);
}

/** The streams have the lines that a demuxer gives, whoever reads first, and how ever their source ends. */
export async function demultiplexes(luck: Luck): Promise<void> {
  const bytes = fuzzedWire(luck);
  const chunks = fuzzedChunks(luck, bytes);
  const breaks = luck.oneIn(3);
  const source = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = chunks.shift();
      if (chunk !== undefined) controller.enqueue(chunk);
      else if (breaks) controller.error(new Error("broken"));
      else controller.close();
    },
  });
  const { replies, events } = demultiplex(source);
  const { lines, rest } = linesOf(bytes);
  const expected = [...lines, ...rest];
  const [left, right] = await Promise.all([Array.fromAsync(replies), Array.fromAsync(events)]);
  if (breaks) {
    assertEquals(new TextDecoder().decode(right.pop()), "FATAL:Error reading from OpenVPN");
  }
  const of = (isEvent: boolean) => expected.filter(({ kind }) => (kind === "event") === isEvent);
  assertSameLines(
    left.map((line, i) => ({ kind: of(false)[i]?.kind ?? "reply", line })),
    of(false),
  );
  assertSameLines(right.map((line) => ({ kind: "event", line })), of(true));
}

/** All of an event but `raw`, its secrets too. */
export function contentOf(value: unknown): unknown {
  if (value instanceof Map) return [...value];
  if (Array.isArray(value)) return value.map(contentOf);
  if (typeof value !== "object" || value === null) return value;
  const names = Object.getOwnPropertyNames(value).filter((it) => it !== "raw" && it !== "toJSON");
  return names.map((name) => [name, contentOf((value as Record<string, unknown>)[name])]);
}

function eventLines(luck: Luck): Uint8Array[] {
  const { lines, rest } = linesOf(fuzzedWire(luck));
  // A reply could have been one, too.
  return [...lines, ...rest].map(({ line }) => line);
}

/** Any line is an event that says all of it, and that can be shown. */
export function parsesEvents(luck: Luck): void {
  const fatal = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (const line of eventLines(luck)) {
    const event = parseEvent(line);
    assert(isSame(event.raw, line));
    assert(typeof describeEvent(event) === "string" && inspect(event).length > 0);
    // What JSON cannot say at all.
    JSON.stringify(event, (_, value) => typeof value === "bigint" ? String(value) : value);
    let text: string;
    try {
      text = fatal.decode(line);
    } catch {
      continue;
    }
    const again = parseEvent(text);
    assert(isSame(again.raw, line));
    assertEquals(contentOf(again), contentOf(event));
  }
}

/** The lines that an event was made of. */
function rawLines({ raw }: ManagementEvent): Uint8Array[] {
  const lines: Uint8Array[] = [];
  for (let start = 0, end = 0; end < raw.length; start = end + 1) {
    end = raw.indexOf(LF, start);
    if (end < 0) end = raw.length;
    lines.push(raw.subarray(start, end));
  }
  return raw.length === 0 ? [raw] : lines;
}

const textOf = (bytes: Uint8Array): string => String.fromCharCode(...bytes.subarray(0, 12_000));

/** The variables of each block in `lines`. */
function blocksOf(lines: readonly Uint8Array[]): [name: string, value: string][][] {
  const blocks: [string, string][][] = [];
  let within: string | undefined;
  for (const event of lines.map(parseEvent)) {
    if (event.type === "CLIENT_ENV" || event.type === "UPDOWN_ENV") {
      if (event.type !== `${within}_ENV`) continue;
      if (event.end) within = undefined;
      else blocks.at(-1)!.push([event.name, event.value]);
    } else if ("envFaults" in event) {
      within = event.type;
      blocks.push([]);
    }
  }
  return blocks;
}

/** Blocks have all of their lines, or say that they have not, and never more than they may. */
export function assembles(luck: Luck): void {
  const maxEnvBytes = luck.pick([1, 60, 1000, 262_144]);
  const assembler = new EventAssembler({ maxEnvBytes });
  const lines = eventLines(luck);
  const events = lines.flatMap((line) => assembler.push(parseEvent(line)));
  events.push(...assembler.end());
  assertEquals(assembler.end(), []);
  let cut = false;
  const blocks = blocksOf(lines);
  for (const event of events) {
    if (!("envFaults" in event)) continue;
    const block = blocks.shift()!;
    const { env, envAll, envFaults, raw } = event;
    // A header and an END may be of any size.
    assert(raw.length <= maxEnvBytes + 2 * MAX_MESSAGE_BYTES, `${raw.length} bytes`);
    const tooLarge = envFaults.includes("too-large");
    cut ||= tooLarge;
    // What is kept is a beginning.
    assertEquals([...envAll], tooLarge ? block.slice(0, envAll.length) : block);
    const firsts = new Map(envAll.toReversed());
    assertEquals(
      contentOf(env),
      contentOf(new Map(envAll.map(([name]) => [name, firsts.get(name)]))),
    );
    const repeated = envAll.some(([name, value]) => firsts.get(name) !== value);
    assert(!repeated || envFaults.includes("repeated"));
  }
  assertEquals(blocks, []);
  const told = events.flatMap(rawLines).map(textOf);
  if (!cut) assertEquals(told.toSorted(), lines.map(textOf).toSorted());
  else assert(told.length <= lines.length);
}

/** What the parts tell that have no state: what a session has to tell. */
export function eventsOf(bytes: Uint8Array, maxEnvBytes: number): ManagementEvent[] {
  const assembler = new EventAssembler({ maxEnvBytes });
  const { lines, rest } = linesOf(bytes);
  const events = lines.filter(({ kind }) => kind === "event")
    .flatMap(({ line }) => assembler.push(parseEvent(line)));
  // Half a line may be a wrong one, but last words are worth having.
  const last = rest[0]?.kind === "event" ? parseEvent(rest[0].line) : undefined;
  if (last?.type === "FATAL") events.push(last);
  return [...events, ...assembler.end()];
}
