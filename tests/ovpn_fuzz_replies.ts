/** What must hold of commands and their replies, whatever they are. */
import { assert, assertEquals } from "@std/assert";
import {
  encodeBody,
  encodeCommand,
  ManagementError,
  MAX_LINE_BYTES,
  parseEchoHistory,
  parseLogHistory,
  parseStateHistory,
  parseStatus,
} from "@trunkline/sockets/ovpn";
import { lexCommand } from "../ovpn/command.ts";
import { replyShape } from "../ovpn/reply.ts";
import * as values from "../ovpn/reply_values.ts";
import { fuzzedText, fuzzedWire, type Luck } from "./ovpn_fuzz.ts";
import { linesOf } from "./ovpn_fuzz_wire.ts";

const DECODER = new TextDecoder();

/** Lines as a reply has them. */
function replyLines(luck: Luck): string[] {
  const { lines, rest } = linesOf(fuzzedWire(luck));
  const texts = [...lines, ...rest].map(({ line }) => DECODER.decode(line));
  // Most of what is fuzzed has a greeting before it.
  return luck.oneIn(3) ? texts : texts.slice(luck.below(texts.length + 1));
}

/** What `read` gives, or undefined if it says that this is no such reply. */
function readOrRefused<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    assert(error instanceof ManagementError && error.code === "protocol", String(error));
    return undefined;
  }
}

const HEADS: readonly string[][] = [
  [
    "TITLE\tx",
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tBytes Received\tBytes Sent\tClient ID",
  ],
  ["TITLE,x", "HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref (time_t)"],
  ["OpenVPN CLIENT LIST", "Updated,x", "Common Name,Real Address,Bytes Received,Bytes Sent"],
  ["OpenVPN STATISTICS", "Updated,x", "TUN/TAP read bytes,1"],
  [],
];

/** A report loses no row. */
export function readsStatus(luck: Luck): void {
  const lines = [...luck.pick(HEADS), ...replyLines(luck)];
  const status = readOrRefused(() => parseStatus(lines));
  if (status === undefined) return;
  const { clients, routes, unparsed, globals, counters } = status;
  const kept = [...clients, ...routes].map(({ raw }) => raw).concat(unparsed);
  const first = lines.findIndex((line) => line !== "");
  const left = new Map<string, number>();
  for (const line of lines.slice(first)) left.set(line, (left.get(line) ?? 0) + 1);
  for (const line of kept) {
    assert((left.get(line) ?? 0) > 0, "a row that did not come");
    left.set(line, left.get(line)! - 1);
  }
  const rows = lines.slice(first).filter((line) =>
    /^(?:CLIENT_LIST|ROUTING_TABLE)[\t,]/.test(line)
  );
  if (status.format === 2 || status.format === 3) {
    // One with the separator of the other format, or behind the END, is not read but kept.
    for (const row of rows) {
      assertEquals(
        kept.filter((it) => it === row).length,
        rows.filter((it) => it === row).length,
      );
    }
  }
  assert(kept.length + globals.size + counters.size <= lines.length);
}

/** A history is its lines, or none. */
export function readsHistories(luck: Luck): void {
  const lines = replyLines(luck);
  if (luck.oneIn(2)) lines.unshift("1700000000,I,x");
  for (const parse of [parseStateHistory, parseLogHistory, parseEchoHistory]) {
    const events = readOrRefused(() => parse(lines));
    assert(events === undefined || events.length <= lines.length);
  }
}

/** A reply is one value or none. */
export function readsValues(luck: Luck): void {
  const lines = replyLines(luck).slice(0, 20);
  const success = luck.pick([...lines, fuzzedText(luck)]);
  for (const [name, read] of Object.entries(values)) {
    const value = readOrRefused(() => read({ success, lines }));
    if (typeof value === "number") assert(Number.isSafeInteger(value) && value >= 0, name);
  }
}

const COMMANDS =
  ("pid verb status state log echo version test hold exit kill auth-retry push-update-cid push-update-broad " +
    "pkcs11-id-count pkcs11-id-get remote-entry-get client-auth password __proto__").split(" ");

/** Whatever comes for whatever was asked, each line has its place. */
export function shapesReplies(luck: Luck): void {
  const words = luck.times(
    3,
    () => luck.oneIn(2) ? luck.pick(["on", "all", "3", "0", "-1", "1e9"]) : fuzzedText(luck),
  );
  const lines = luck.oneIn(3) ? luck.times(4, () => fuzzedText(luck)) : undefined;
  const shape = replyShape([luck.pick(COMMANDS), ...words], lines);
  for (const line of replyLines(luck)) {
    const { kind, last } = shape.take(line);
    assert(["status", "text", "end", "other"].includes(kind));
    if (last) return;
  }
}

/** What cannot be sent is refused, what can be is what arrives. */
export function encodes(luck: Luck): void {
  const args = luck.times(5, () => fuzzedText(luck).repeat(luck.oneIn(9) ? 20 : 1));
  let line: Uint8Array | undefined;
  try {
    line = encodeCommand("kill", ...args);
  } catch (error) {
    assert(error instanceof TypeError || error instanceof RangeError);
    for (const it of args) assert(it.length < 9 || !error.message.includes(it));
  }
  if (line !== undefined) {
    assert(line.length <= MAX_LINE_BYTES + 1 && line.indexOf(10) === line.length - 1);
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(line);
    assertEquals(lexCommand(text), ["kill", ...args]);
  }
  try {
    const body = DECODER.decode(encodeBody(args)).replaceAll("\r", "").split("\n");
    assertEquals(body.indexOf("END"), args.length);
  } catch (error) {
    assert(error instanceof TypeError || error instanceof RangeError, String(error));
  }
}
