/**
 * What OpenVPN remembers of its states, its log and its echo directives.
 *
 * @module
 */
import { isDecimal } from "./_decimal.ts";
import { ManagementError } from "./errors.ts";
import {
  type EchoEvent,
  type LogEvent,
  type ManagementEvent,
  parseEvent,
  type StateEvent,
} from "./event.ts";

/**
 * Reads the reply to `state all` or `state n`, line by line, with or without its `END`: the events that there were, the oldest
 * first. `raw` of each is the line of the event that it was.
 *
 * @example
 * ```ts
 * import { parseStateHistory } from "@trunkline/sockets/ovpn";
 *
 * for (const { name } of parseStateHistory(["1795220642,WAIT,,,,,,", "1795220642,AUTH,,,,,,"])) {
 *   console.log(name); // WAIT AUTH
 * }
 * ```
 *
 * @throws {ManagementError} `protocol` if the first line does not begin with a time
 */
export function parseStateHistory(lines: readonly string[]): readonly StateEvent[] {
  return readHistory("STATE", lines);
}

/**
 * Reads the reply to `log all` or `log n`, as {@linkcode parseStateHistory} does. A text that OpenVPN logged with line ends inside
 * (spec 1.1) comes as several lines: those without a time belong to the entry before, and are part of its `message`.
 *
 * @throws {ManagementError} `protocol` if the first line does not begin with a time
 */
export function parseLogHistory(lines: readonly string[]): readonly LogEvent[] {
  return readHistory("LOG", lines);
}

/**
 * Reads the reply to `echo all` or `echo n`, as {@linkcode parseStateHistory} does.
 *
 * @throws {ManagementError} `protocol` if the first line does not begin with a time
 */
export function parseEchoHistory(lines: readonly string[]): readonly EchoEvent[] {
  return readHistory("ECHO", lines);
}

function readHistory<Type extends "STATE" | "LOG" | "ECHO">(
  type: Type,
  lines: readonly string[],
): readonly Extract<ManagementEvent, { readonly type: Type }>[] {
  const entries: string[] = [];
  for (const line of lines) {
    if (line === "END") break;
    if (beginsWithTime(line)) entries.push(line);
    else if (entries.length > 0) entries[entries.length - 1] += `\n${line}`;
    else if (line !== "") {
      const text = `${type.toLowerCase()}: the history does not begin with a time`;
      throw new ManagementError("protocol", text);
    }
  }
  return entries.map((entry) => {
    // A text that ends in a line end of its own leaves an empty line, which is not part of the event either.
    let end = entry.length;
    while (entry[end - 1] === "\n") end--;
    const event = parseEvent(`${type}:${entry.slice(0, end)}`);
    return event as Extract<ManagementEvent, { readonly type: Type }>;
  });
}

function beginsWithTime(line: string): boolean {
  const comma = line.indexOf(",");
  return comma > 0 && isDecimal(line.slice(0, comma));
}
