/**
 * Commands and events over one connection to OpenVPN.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Address, Conn, Duplex, Transport, WaitOptions } from "../adapters/types.ts";
import {
  type ClientOptions,
  type CommandOptions,
  type CommandReply,
  Session,
  sessionLimits,
} from "./_session.ts";
import { encodeCommand, encodeLine, lexCommand } from "./command.ts";
import { ManagementError } from "./errors.ts";
import { type ManagementEvent, parseEvent, type StateEvent } from "./event.ts";
import { hasBody } from "./reply.ts";

export type { ClientOptions, CommandOptions, CommandReply, PasswordSource } from "./_session.ts";

/** Options of {@linkcode dial}. */
export interface DialOptions extends ClientOptions, WaitOptions {
  /** Where connections come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "connect"> | undefined;
}

/** A format of {@linkcode ManagementClient.latestStatus}. */
export type StatusFormat = "" | "1" | "2" | "3";

/** Names for the formats that the Go package names. */
export const StatusFormat: {
  /** What the configuration of the daemon says: mostly 1, in which names of users can forge lines. */
  readonly Default: "";
  /** Separated by TAB, which no name has: the one to parse. */
  readonly V3: "3";
} = { Default: "", V3: "3" };

/**
 * Commands an OpenVPN and hears its events.
 *
 * 1. Commands are sent one at a time, in the order of the calls, once OpenVPN has greeted. Each call settles: with the reply, a
 *    {@linkcode CommandError} if that is an `ERROR:`, or a {@linkcode ManagementError}.
 * 2. The connection is read all the time, whether anybody reads `events` or not.
 * 3. After the connection failed, every call rejects with the same error.
 * 4. `closed` resolves after `close()`, and when OpenVPN ends the connection while no command is pending; otherwise it rejects. Ignoring it
 *    never makes an unhandled rejection.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { describeEvent, ManagementClient } from "@trunkline/sockets/ovpn";
 *
 * const [ours, daemon] = connPair(); // in life: a connection to OpenVPN
 * const say = (text: string) => daemon.write(new TextEncoder().encode(text));
 *
 * const client = new ManagementClient(ours);
 * await say(">INFO:OpenVPN Management Interface Version 5\r\n");
 * const pid = client.pid();
 * await daemon.read(); // "pid"
 * await say("SUCCESS: pid=42\r\n");
 * console.log(await pid); // 42
 * await daemon.close();
 * for await (const event of client.events) console.log(describeEvent(event));
 * ```
 */
export class ManagementClient implements AsyncDisposable {
  readonly #session: Session;

  /**
   * Takes over `duplex` and begins to read.
   *
   * @throws {TypeError} if the password has control characters
   * @throws {RangeError} if a limit is not positive, a time is more than 2147483647 ms, or the password longer than a line may be
   */
  constructor(duplex: Duplex | Conn, options: ClientOptions = {}) {
    this.#session = new Session(duplex, options);
  }

  /** Resolves when OpenVPN has greeted, rejects if that will not happen. It may be ignored: commands wait for it by themselves. */
  get ready(): Promise<void> {
    return this.#session.ready;
  }

  /** Settles when the connection has ended, see above. */
  get closed(): Promise<void> {
    return this.#session.closed;
  }

  /** The version of the management interface by its greeting: 5 for OpenVPN 2.6. */
  get managementVersion(): number | undefined {
    return this.#session.managementVersion;
  }

  /** Events dropped because a consumer had `maxBufferedEvents` to read; all consumers together. */
  get droppedEvents(): number {
    return this.#session.events.dropped;
  }

  /** Reply lines that came when no command was pending. They are thrown away. */
  get strayReplies(): number {
    return this.#session.strayReplies;
  }

  /**
   * What OpenVPN tells by itself. Every iteration gets each event from when it began, the first one also those before. It ends
   * with the connection; if that failed, the last event is a `FATAL` of our own.
   */
  get events(): AsyncIterable<ManagementEvent> {
    return { [Symbol.asyncIterator]: () => this.subscribe() };
  }

  /** As `events`, but begins to collect at once; `return()` ends that, and so does `signal`, with `aborted`. */
  subscribe({ signal }: WaitOptions = {}): AsyncIterableIterator<ManagementEvent, undefined> {
    return this.#session.events.subscribe(signal);
  }

  /** Lets a held OpenVPN go on, this once: it holds again before the next start. Succeeds if it is not held. */
  async holdRelease(options?: CommandOptions): Promise<void> {
    await this.command("hold release", options);
  }

  /** Turns `STATE` events on or off. */
  async setStateEvents(on: boolean, options?: CommandOptions): Promise<void> {
    await this.command(`state ${on ? "on" : "off"}`, options);
  }

  /** Turns `ECHO` events on or off. */
  async setEchoEvents(on: boolean, options?: CommandOptions): Promise<void> {
    await this.command(`echo ${on ? "on" : "off"}`, options);
  }

  /** Asks for `BYTECOUNT` events (of a server `BYTECOUNT_CLI`) every `seconds`, a whole number; 0 turns them off. */
  async setByteCountEvents(seconds: number, options?: CommandOptions): Promise<void> {
    if (!Number.isInteger(seconds) || seconds < 0 || seconds > 0x7fffffff) {
      throw new RangeError(`an interval of ${seconds} seconds, expected a whole number from 0`);
    }
    await this.command(`bytecount ${seconds}`, options);
  }

  /**
   * Sends OpenVPN a signal: `SIGHUP`, `SIGTERM`, `SIGUSR1` or `SIGUSR2`. While held it refuses `SIGHUP` and `SIGUSR1`; while it waits
   * for a username or password, `SIGUSR1` ends it.
   */
  async sendSignal(name: string, options?: CommandOptions): Promise<void> {
    if (!/^[A-Z0-9]{1,16}$/.test(name)) throw new TypeError("a signal is a word such as SIGTERM");
    await this.command(`signal ${name}`, options);
  }

  /** The state that was entered last; `undefined` if OpenVPN has been in none. */
  async latestState(options?: CommandOptions): Promise<StateEvent | undefined> {
    const { raw: [line] } = await this.command("state", options);
    if (line === undefined) return undefined;
    const event = parseEvent(`STATE:${new TextDecoder().decode(line)}`);
    return event.type === "STATE" ? event : undefined;
  }

  /** The status report, line by line, without `END`. See {@linkcode StatusFormat} for which one to parse. */
  async latestStatus(
    format: StatusFormat = "",
    options?: CommandOptions,
  ): Promise<readonly string[]> {
    if (!["", "1", "2", "3"].includes(format)) throw new TypeError("a status format is 1, 2 or 3");
    const { lines } = await this.command(`status ${format}`.trimEnd(), options);
    return lines;
  }

  /** The process id of OpenVPN. */
  async pid(options?: CommandOptions): Promise<number> {
    const { success } = await this.command("pid", options);
    const digits = /^pid=(\d{1,15})$/.exec(success)?.[1];
    if (digits === undefined) throw new ManagementError("protocol", "pid: the reply has no number");
    return Number(digits);
  }

  /** Answers `>PASSWORD:Need 'TYPE' password`, and after {@linkcode sendUsername} also `Need 'TYPE' username/password`. */
  async sendPassword(type: string, password: string, options?: CommandOptions): Promise<void> {
    const line = encodeCommand("password", type, password);
    await this.#session.execute(line, ["password", type, password], options);
  }

  /** Answers the first half of `>PASSWORD:Need 'TYPE' username/password`. OpenVPN writes the name into its log. */
  async sendUsername(type: string, username: string, options?: CommandOptions): Promise<void> {
    const line = encodeCommand("username", type, username);
    await this.#session.execute(line, ["username", type, username], options);
  }

  /**
   * Sends a command as it is written and reads its reply, whatever shape it has. If there are arguments that you did not write
   * yourself, give it what {@linkcode encodeCommand} makes of them.
   *
   * `exit` and `quit` resolve when OpenVPN has hung up; what was asked before them is answered first. Commands that are
   * followed by lines of their own (`client-auth`, `certificate`, `pk-sig`, `rsa-sig`, `password` without a text) are refused.
   *
   * @throws {TypeError} for control characters, nothing or a comment (OpenVPN would not answer), and a command with a body
   * @throws {RangeError} for more than 1023 bytes
   * @throws {CommandError} for an `ERROR:` reply
   * @throws {ManagementError} `aborted`, `timeout`, or what ended the connection
   */
  async command(command: string | Uint8Array, options?: CommandOptions): Promise<CommandReply> {
    const text = typeof command === "string"
      ? command
      : new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(command).replace(
        /\n$/,
        "",
      );
    const line = encodeLine(text, "command");
    const parameters = lexCommand(text);
    if (parameters.length === 0) throw new TypeError("a line without a command is not answered");
    if (hasBody(parameters)) {
      throw new TypeError(`${parameters[0]} is followed by lines, which command() cannot send`);
    }
    return await this.#session.execute(line, parameters, options);
  }

  /**
   * Ends the session: commands that were not sent yet reject with `closed`, the one that was gets its reply. At most `closeTimeoutMs`
   * later the connection is cut. With `--management-client` and `--management-signal` OpenVPN ends or restarts then.
   */
  close(): Promise<void> {
    return this.#session.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Connects to the management interface of an OpenVPN (`--management IP PORT` or `--management PATH unix`) and logs in.
 *
 * Connecting and greeting may take `greetingTimeoutMs` each; `signal` ends both, the first with a `ConnectError`, the second with a
 * `ManagementError`.
 *
 * @example
 * ```ts
 * import { describeEvent, dial } from "@trunkline/sockets/ovpn";
 *
 * export async function start(socket = "/run/openvpn/client.sock"): Promise<void> {
 *   const client = await dial(socket);
 *   await client.setStateEvents(true);
 *   await client.holdRelease();
 *   for await (const event of client.events) console.log(describeEvent(event));
 * }
 * ```
 *
 * @throws {ConnectError} if there is no connection
 * @throws {ManagementError} `no-greeting`, `password-required`, `wrong-password`, `aborted`, ...
 */
export async function dial(
  address: Address | string,
  options: DialOptions = {},
): Promise<ManagementClient> {
  const { transport = auto, signal } = options;
  const { greetingTimeoutMs } = sessionLimits(options);
  const limit = AbortSignal.timeout(greetingTimeoutMs);
  const conn = await transport.connect(address, {
    signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
  }).catch((error) => {
    // Of a unix socket: somebody is there, and more managers wait than its queue takes.
    if (error?.cause?.code !== "EAGAIN") throw error;
    const text = "OpenVPN does not accept the connection: other managers wait before us";
    throw new ManagementError("no-greeting", text, { cause: error });
  });
  let client: ManagementClient;
  try {
    client = new ManagementClient(conn, options);
  } catch (error) {
    conn.abort(error);
    throw error;
  }
  const onAbort = () => void client.close();
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await client.ready;
    // It may have fired behind the greeting, in the same turn.
    signal?.throwIfAborted();
    return client;
  } catch (error) {
    if (!signal?.aborted) throw error;
    throw new ManagementError("aborted", "waiting for OpenVPN to greet: aborted", {
      cause: signal.reason,
    });
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}
