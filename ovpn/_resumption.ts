/**
 * What a manager has turned on, to turn it on again over the next connection, and what it has heard last, to tell what it missed.
 *
 * @module
 */
import { equals } from "@std/bytes";
import type { ConnectionGap, DaemonFate } from "./connection_events.ts";
import { ManagementError } from "./errors.ts";
import type { EchoEvent, LogEvent, ManagementEvent, StateEvent } from "./event.ts";
import type { GuardName } from "./guard.ts";
import type { GeneralCommands } from "./commands_general.ts";
import { parseEchoHistory, parseLogHistory, parseStateHistory } from "./history.ts";

/** How many states OpenVPN keeps. */
const STATE_HISTORY = 100;
/** By how many lines the place in a history is found: within a second some are the same. */
const REMEMBERED = 8;

type Kept = StateEvent | LogEvent | EchoEvent;

/** What a new connection has found. */
export interface Resumed {
  /** Since the connection before. */
  readonly gap: Omit<ConnectionGap, "ms">;
  /** Commands that OpenVPN refused. */
  readonly refused: readonly ManagementError[];
  /** Undoes it. */
  forget(): void;
}

/** One for all connections. */
export class Resumption {
  /** Whether a hold was released, or turned off. */
  released = false;
  /** `state` is on from the start: a restart shows there. */
  readonly #on = { state: true, log: false, echo: false };
  readonly #numbers = new Map<"version" | "env-filter" | "bytecount", number>();
  /** The guards that were overridden when the log was turned on. */
  allow: readonly GuardName[] | undefined;
  /** What was heard last, the newest at the end. */
  #heard: { [Type in Kept["type"]]: Kept[] } = { STATE: [], LOG: [], ECHO: [] };
  #pid: number | undefined;

  /** Takes an event of any connection. */
  see(event: ManagementEvent): void {
    if (event.type === "STATE" || event.type === "LOG" || event.type === "ECHO") {
      const heard = this.#heard[event.type];
      heard.push(event);
      if (heard.length > REMEMBERED) heard.shift();
    }
  }

  /** Takes a command that OpenVPN has carried out, and what it said. */
  did([name = "", ...args]: readonly string[], lines: readonly string[]): void {
    switch (name) {
      case "state":
      case "log":
      case "echo":
        for (const arg of args.slice(0, 2)) {
          if (arg === "on" || arg === "off") this.#on[name] = arg === "on";
        }
        // What it logs from now on is not missed, it is not wanted.
        if (name !== "state" && !this.#on[name]) this.#heard[KEYWORD[name]] = [];
        else this.#catchUp(tail(name, lines));
        return;
      case "version":
      case "env-filter":
      case "bytecount":
        // Without a number it is a question, or 0.
        if (args[0] !== undefined) this.#numbers.set(name, Number.parseInt(args[0]) || 0);
        return;
      case "hold":
        if (args[0] === "release" || args[0] === "off") this.released = true;
    }
  }

  /** Takes the end of a history: what it ends with has been heard now. */
  #catchUp(events: readonly Kept[]): void {
    const newest = events.at(-1);
    if (newest === undefined) return;
    const last = this.#heard[newest.type].at(-1);
    if (last !== undefined && equals(last.raw, newest.raw)) return;
    for (const event of events) this.see(event);
  }

  /**
   * Sets up a connection as the one before was, and compares; `timeoutMs` is for each command. If the connection has ended before the
   * caller could tell of it, `forget` has the next one tell all.
   */
  async resume(client: GeneralCommands, timeoutMs: number): Promise<Resumed> {
    const options = { timeoutMs };
    const refused: ManagementError[] = [];
    const attempt = async <T>(command: Promise<T>): Promise<T | undefined> => {
      try {
        return await command;
      } catch (error) {
        if (!(error instanceof ManagementError)) throw error;
        refused.push(error);
        return undefined;
      }
    };
    const heard = this.#heard;
    this.#heard = { STATE: [], LOG: [], ECHO: [] };
    const version = this.#numbers.get("version");
    // Before anything that could be told in the words of that version.
    if (version !== undefined) await attempt(client.setVersion(version, options));
    const filter = this.#numbers.get("env-filter");
    if (filter !== undefined) await attempt(client.setEnvFilter(filter, options));
    // In one command each, so that nothing is told twice or not at all.
    const state = await attempt(
      this.#on.state ? client.followStates("all", options) : client.stateHistory("all", options),
    );
    const log = this.#on.log
      ? await attempt(client.followLog("all", { ...options, allow: this.allow }))
      : undefined;
    const echo = this.#on.echo ? await attempt(client.followEchoes("all", options)) : undefined;
    const seconds = this.#numbers.get("bytecount");
    if (seconds !== undefined) await attempt(client.setByteCountEvents(seconds, options));
    const pid = await attempt(client.pid(options));
    const states = since(heard.STATE, state, true);
    const logged = since(heard.LOG, log, this.#on.log);
    const echoed = since(heard.ECHO, echo, this.#on.echo);
    const restarts = states.events.filter(({ name }) => name === "RECONNECTING");
    const daemon = this.#fate(pid, state?.length, states.whole, restarts.length > 0);
    const before = this.#pid;
    this.#pid = pid ?? before;
    const gap = {
      daemon,
      restartedByDisconnect: restarts.some((it) => it.description === "management-disconnect"),
      states: states.events,
      log: logged.events,
      echoes: echoed.events,
      complete: daemon !== "replaced" && states.whole && logged.whole && echoed.whole,
    };
    const forget = () => {
      this.#heard = heard;
      this.#pid = before;
    };
    return { gap, refused, forget };
  }

  #fate(
    pid: number | undefined,
    kept: number | undefined,
    whole: boolean,
    restarted: boolean,
  ): DaemonFate {
    if (pid === undefined || kept === undefined) return "unknown";
    if (pid !== this.#pid) return "replaced";
    // In containers every OpenVPN may be process 1.
    if (!whole) return kept < STATE_HISTORY ? "replaced" : "unknown";
    return restarted ? "restarted" : "same";
  }
}

/** The end of a history. */
interface Since<Event> {
  readonly events: readonly Event[];
  /** Whether it begins where the last one that was heard ends. */
  readonly whole: boolean;
}

function since<Event extends Kept>(
  heard: readonly Kept[],
  history: readonly Event[] | undefined,
  wanted: boolean,
): Since<Event> {
  if (history === undefined) return { events: [], whole: !wanted };
  const last = heard.at(-1);
  if (last === undefined) return { events: history, whole: true };
  let best = { at: -1, matches: 0 };
  for (const at of history.keys()) {
    const matches = commonLines(heard, history, at);
    if (matches > best.matches) best = { at, matches };
  }
  if (best.matches > 0) return { events: history.slice(best.at + 1), whole: true };
  return { events: history.filter(({ time }) => time >= last.time), whole: false };
}

/** How many lines up to `at` are the last ones that were heard. */
function commonLines(heard: readonly Kept[], history: readonly Kept[], at: number): number {
  let count = 0;
  while (count < heard.length && count <= at) {
    if (!equals(heard.at(-1 - count)!.raw, history[at - count]!.raw)) break;
    count++;
  }
  return count;
}

const KEYWORD = { state: "STATE", log: "LOG", echo: "ECHO" } as const;
const PARSERS = {
  state: parseStateHistory,
  log: parseLogHistory,
  echo: parseEchoHistory,
} as const;

/** The end of a history that came as a reply; none if it is no history. */
function tail(name: keyof typeof PARSERS, lines: readonly string[]): readonly Kept[] {
  try {
    return PARSERS[name](lines).slice(-REMEMBERED);
  } catch {
    return [];
  }
}
