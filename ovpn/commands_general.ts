/**
 * The commands that every OpenVPN answers, client or server.
 *
 * @module
 */
import { type Decide, order, send, sendDecided } from "./client_core.ts";
import { ClientCore } from "./client_core.ts";
import type { CommandOptions } from "./client_options.ts";
import type { EchoEvent, LogEvent, StateEvent } from "./event.ts";
import { parseEchoHistory, parseLogHistory, parseStateHistory } from "./history.ts";
import {
  type AuthRetryMode,
  type DaemonVersion,
  type LoadStats,
  parseAuthRetry,
  parseEnvFilter,
  parseHold,
  parseLoadStats,
  parseMute,
  parsePid,
  parseVerb,
  parseVersion,
} from "./reply_values.ts";
import { parseStatus, type Status } from "./status.ts";

/** A format of {@linkcode ManagementClient.latestStatus}. */
export type StatusFormat = "" | "1" | "2" | "3";

/** Names for the formats that the Go package names. */
export const StatusFormat: {
  /** What the configuration of the daemon says: mostly 1, in which names of users can forge lines. */
  readonly Default: "";
  /** Separated by TAB, which no name has: the one to parse. */
  readonly V3: "3";
} = { Default: "", V3: "3" };

/** How much of a history: the last so many entries, or what is kept, which are 100 states and 250 lines of the log. */
export type HistoryLength = number | "all";

const MAX_INT32 = 0x7fffffff;

/** The commands that every OpenVPN answers. */
export abstract class GeneralCommands extends ClientCore {
  /** `hold release`: lets a held OpenVPN go on, this once: it holds again before the next start. Succeeds if it is not held. */
  async holdRelease(options?: CommandOptions): Promise<void> {
    await send(this, order(["hold", "release"]), options);
  }

  /** `hold`: whether the next start will be held. */
  async hold(options?: CommandOptions): Promise<boolean> {
    return parseHold(await send(this, order(["hold"]), options));
  }

  /** `hold on`, `hold off`: whether the next start will be held. An OpenVPN that is held now stays so. */
  async setHold(on: boolean, options?: CommandOptions): Promise<void> {
    await send(this, order(["hold", onOff(on)]), options);
  }

  /** `state on`, `state off`: turns `STATE` events on or off. */
  async setStateEvents(on: boolean, options?: CommandOptions): Promise<void> {
    await send(this, order(["state", onOff(on)]), options);
  }

  /** `state`: the state that was entered last; `undefined` if OpenVPN has been in none. */
  async state(options?: CommandOptions): Promise<StateEvent | undefined> {
    const { lines } = await send(this, order(["state"]), options);
    return parseStateHistory(lines).at(-1);
  }

  /** The same as {@linkcode GeneralCommands.state}. */
  latestState(options?: CommandOptions): Promise<StateEvent | undefined> {
    return this.state(options);
  }

  /** `state n`, `state all`: the last states, the oldest first. */
  async stateHistory(
    length: HistoryLength,
    options?: CommandOptions,
  ): Promise<readonly StateEvent[]> {
    const { lines } = await send(this, order(["state", historyLength(length)]), options);
    return parseStateHistory(lines);
  }

  /** `state on n`: the last states, and `STATE` events for all that follow: none is missed or told twice. */
  async followStates(
    length: HistoryLength,
    options?: CommandOptions,
  ): Promise<readonly StateEvent[]> {
    const { lines } = await send(this, order(["state", "on", historyLength(length)]), options);
    return parseStateHistory(lines);
  }

  /**
   * `log on`, `log off`: turns `LOG` events on or off. Before it turns them on it asks for the `verb`, since from 9 on OpenVPN would
   * not answer any more.
   *
   * @throws {GuardError} `log-at-high-verb`
   */
  async setLogEvents(on: boolean, options?: CommandOptions): Promise<void> {
    if (on) await sendDecided(this, "log", afterVerb(["log", "on"]), options);
    else await send(this, order(["log", "off"]), options);
  }

  /** `log n`, `log all`: the last lines of the log, the oldest first. */
  async logHistory(length: HistoryLength, options?: CommandOptions): Promise<readonly LogEvent[]> {
    const { lines } = await send(this, order(["log", historyLength(length)]), options);
    return parseLogHistory(lines);
  }

  /** `log on n`: the last lines of the log, and `LOG` events for all that follow; asks for the `verb` before. */
  async followLog(length: HistoryLength, options?: CommandOptions): Promise<readonly LogEvent[]> {
    const decide = afterVerb(["log", "on", historyLength(length)]);
    const { lines } = await sendDecided(this, "log", decide, options);
    return parseLogHistory(lines);
  }

  /** `echo on`, `echo off`: turns `ECHO` events on or off. */
  async setEchoEvents(on: boolean, options?: CommandOptions): Promise<void> {
    await send(this, order(["echo", onOff(on)]), options);
  }

  /** `echo n`, `echo all`: the last echo directives, the oldest first. */
  async echoHistory(
    length: HistoryLength,
    options?: CommandOptions,
  ): Promise<readonly EchoEvent[]> {
    const { lines } = await send(this, order(["echo", historyLength(length)]), options);
    return parseEchoHistory(lines);
  }

  /** `echo on n`: the last echo directives, and `ECHO` events for all that follow. */
  async followEchoes(
    length: HistoryLength,
    options?: CommandOptions,
  ): Promise<readonly EchoEvent[]> {
    const { lines } = await send(this, order(["echo", "on", historyLength(length)]), options);
    return parseEchoHistory(lines);
  }

  /**
   * `bytecount n`: asks for `BYTECOUNT` events (of a server `BYTECOUNT_CLI`) every `seconds`, a whole number; 0 turns them off.
   */
  async setByteCountEvents(seconds: number, options?: CommandOptions): Promise<void> {
    const text = wholeNumber(seconds, "an interval in seconds");
    await send(this, order(["bytecount", text]), options);
  }

  /**
   * `signal`: sends OpenVPN a signal: `SIGHUP`, `SIGTERM`, `SIGUSR1` or `SIGUSR2`. While held it refuses `SIGHUP` and `SIGUSR1`.
   *
   * @throws {GuardError} `signal-while-held`, `signal-while-asked`
   */
  async sendSignal(name: string, options?: CommandOptions): Promise<void> {
    if (!/^[A-Z0-9]{1,16}$/.test(name)) throw new TypeError("a signal is a word such as SIGTERM");
    await send(this, order(["signal", name]), options);
  }

  /**
   * `status 3`: who is connected, or what was transferred. It asks for format 3, the only one in which no name of a user can
   * forge a line or a column. While OpenVPN is held it has none: a {@linkcode CommandError}.
   */
  async status(options?: CommandOptions): Promise<Status> {
    const { lines } = await send(this, order(["status", StatusFormat.V3]), options);
    return parseStatus(lines);
  }

  /** `status`: the status report, line by line, without `END`. See {@linkcode StatusFormat} for which one to parse. */
  async latestStatus(
    format: StatusFormat = "",
    options?: CommandOptions,
  ): Promise<readonly string[]> {
    if (!["", "1", "2", "3"].includes(format)) throw new TypeError("a status format is 1, 2 or 3");
    const it = order(format === "" ? ["status"] : ["status", format]);
    return (await send(this, it, options)).lines;
  }

  /** `pid`: the process id of OpenVPN. */
  async pid(options?: CommandOptions): Promise<number> {
    return parsePid(await send(this, order(["pid"]), options));
  }

  /** `version`: which OpenVPN it is. */
  async version(options?: CommandOptions): Promise<DaemonVersion> {
    return parseVersion(await send(this, order(["version"]), options));
  }

  /**
   * `version n`: tells OpenVPN which messages we understand: 2 `PK_SIGN`, 3 the algorithm in it, 4 the prompt for a username alone, 5
   * passwords of any length. It remembers that for later managers, too.
   */
  async setVersion(version: number, options?: CommandOptions): Promise<void> {
    const text = wholeNumber(version, "a version");
    await send(this, order(["version", text]), options);
  }

  /** `load-stats`: how many clients there are, and what was transferred. */
  async loadStats(options?: CommandOptions): Promise<LoadStats> {
    return parseLoadStats(await send(this, order(["load-stats"]), options));
  }

  /** `verb`: how much OpenVPN logs. */
  async verb(options?: CommandOptions): Promise<number> {
    return parseVerb(await send(this, order(["verb"]), options));
  }

  /**
   * `verb n`: how much OpenVPN logs, until it reads its configuration again.
   *
   * @throws {GuardError} `log-at-high-verb`
   */
  async setVerb(verb: number, options?: CommandOptions): Promise<void> {
    await send(this, order(["verb", wholeNumber(verb, "a verb")]), options);
  }

  /** `mute`: after how many messages of a kind OpenVPN logs no more of them; 0 for never. */
  async mute(options?: CommandOptions): Promise<number> {
    return parseMute(await send(this, order(["mute"]), options));
  }

  /** `mute n`: after how many messages of a kind OpenVPN logs no more of them. */
  async setMute(mute: number, options?: CommandOptions): Promise<void> {
    await send(this, order(["mute", wholeNumber(mute, "a mute")]), options);
  }

  /** `auth-retry`: what OpenVPN does after a failed authentication. */
  async authRetry(options?: CommandOptions): Promise<AuthRetryMode> {
    return parseAuthRetry(await send(this, order(["auth-retry"]), options));
  }

  /** `auth-retry mode`: what OpenVPN will do after a failed authentication. */
  async setAuthRetry(mode: AuthRetryMode, options?: CommandOptions): Promise<void> {
    if (!["none", "nointeract", "interact"].includes(mode)) {
      throw new TypeError("what to do after a failure is none, nointeract or interact");
    }
    await send(this, order(["auth-retry", mode]), options);
  }

  /** `env-filter n`: 0 nothing is left out, 1 all but X.509 fields and a short list, 2 all but the list, 3 all. Kept for later managers. */
  async setEnvFilter(level: number, options?: CommandOptions): Promise<void> {
    const text = wholeNumber(level, "a level");
    parseEnvFilter(await send(this, order(["env-filter", text]), options));
  }

  /** `forget-passwords`: OpenVPN asks again when it needs one. */
  async forgetPasswords(options?: CommandOptions): Promise<void> {
    await send(this, order(["forget-passwords"]), options);
  }

  /** `net`: adapters and routes as text, on Windows; elsewhere a {@linkcode CommandError}. */
  async net(options?: CommandOptions): Promise<readonly string[]> {
    return (await send(this, order(["net"]), options)).lines;
  }

  /** `test n`: has OpenVPN send `count` lines, to try the connection; gives them. */
  async test(count: number, options?: CommandOptions): Promise<readonly string[]> {
    const it = order(["test", wholeNumber(count, "a number of lines")]);
    return (await send(this, it, options)).lines;
  }

  /**
   * `exit`: has OpenVPN hang up, and resolves when it has, after the replies to what was asked before. `close()` does the same from our side. A
   * {@linkcode ReconnectingClient} connects again.
   */
  async exit(options?: CommandOptions): Promise<void> {
    await send(this, order(["exit"]), options);
  }

  /** `help`: what OpenVPN says about its commands, for people. */
  async help(options?: CommandOptions): Promise<readonly string[]> {
    return (await send(this, order(["help"]), options)).lines;
  }
}

function onOff(on: boolean): "on" | "off" {
  return on ? "on" : "off";
}

/** Asks for the verb first, so that the guard knows it. */
function afterVerb(words: readonly [string, ...string[]]): Decide {
  return () => ({ ask: order(["verb"]), then: () => order(words) });
}

function historyLength(length: HistoryLength): string {
  if (length === "all") return length;
  // 0 would be refused.
  if (length === 0) throw new RangeError("a history of 0 entries, expected at least 1");
  return wholeNumber(length, "a number of entries");
}

/** Numbers that a C int has; others OpenVPN would take for another one. */
export function wholeNumber(value: number, what: string): string {
  if (!Number.isInteger(value) || value < 0 || value > MAX_INT32) {
    throw new RangeError(`${what} is ${value}, expected a whole number from 0 to ${MAX_INT32}`);
  }
  return String(value);
}
