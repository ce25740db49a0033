/**
 * Commands and events over one connection to OpenVPN, whichever commands those are.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import type { Broadcast } from "./_broadcast.ts";
import type { ClientRegistry } from "./_client_registry.ts";
import type { DaemonState } from "./_daemon_state.ts";
import { commandName, type Message, message } from "./_exchange.ts";
import type { Link, Turn } from "./_session.ts";
import type { CommandOptions, CommandReply } from "./client_options.ts";
import { encodeLine, encodeWords, lexCommand } from "./command.ts";
import type { ClientEvent, ManagementEvent } from "./event.ts";
import { refuseHarm } from "./guard.ts";
import { hasBody } from "./reply.ts";

/** A command, with all that its guards want to know. */
export interface Order extends Message {
  /** The event that it answers. */
  readonly about?: ClientEvent | undefined;
}

/** What to send when the turn has come, or what to ask before. */
export type Decide = (
  daemon: DaemonState,
  clients: ClientRegistry,
) => Order | { readonly ask: Order; readonly then: Decide };

/** Writes a command: words of our own, and then texts, which are quoted. */
export function order(
  words: readonly [string, ...string[]],
  texts: readonly string[] = [],
  { lines, about }: Pick<Partial<Order>, "lines" | "about"> = {},
): Order {
  return { ...message(encodeWords(words, texts), [...words, ...texts], lines), about };
}

/** Sends a command that must be decided upon when its turn has come. For the classes that add commands to {@linkcode ClientCore}. */
export let sendDecided: (
  client: ClientCore,
  name: string,
  decide: Decide,
  options: CommandOptions | undefined,
) => Promise<CommandReply>;

/** Sends a command, unless a guard refuses it. */
export function send(
  client: ClientCore,
  it: Order,
  options: CommandOptions | undefined,
): Promise<CommandReply> {
  return sendDecided(client, commandName(it.parameters), () => it, options);
}

/** What every client of a management interface has: its events, its end, and commands as text. */
export abstract class ClientCore implements AsyncDisposable {
  readonly #link: Link;
  readonly #events: Broadcast;

  static {
    sendDecided = (client, name, decide, options = {}) => {
      const turn = (decide: Decide): Turn => ({ daemon, clients }) => {
        const step = decide(daemon, clients);
        if ("ask" in step) return { ask: step.ask, then: turn(step.then) };
        const { parameters, lines, about } = step;
        refuseHarm(parameters, daemon, { lines: lines !== undefined, allow: options.allow });
        clients.refuseStale(parameters, about, options.allow);
        return step;
      };
      return client.#link.execute(name, turn(decide), options);
    };
  }

  /** Sends over `link`, and tells what comes to `events`. */
  protected constructor(link: Link, events: Broadcast) {
    this.#link = link;
    this.#events = events;
  }

  /** Resolves when OpenVPN has greeted, rejects if that will not happen. It may be ignored: commands wait for it by themselves. */
  get ready(): Promise<void> {
    return this.#link.ready;
  }

  /** Settles when the connection has ended, see above. */
  get closed(): Promise<void> {
    return this.#link.closed;
  }

  /** The version of the management interface by its greeting: 5 for OpenVPN 2.6. */
  get managementVersion(): number | undefined {
    return this.#link.managementVersion;
  }

  /** Events dropped because a consumer had `maxBufferedEvents` to read; all consumers together. */
  get droppedEvents(): number {
    return this.#events.dropped;
  }

  /** Reply lines that came when no command was pending. They are thrown away. */
  get strayReplies(): number {
    return this.#link.strayReplies;
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
    return this.#events.subscribe(signal);
  }

  /**
   * Sends a command as it is written and reads its reply, whatever shape it has. If there are arguments that you did not write
   * yourself, give it what {@linkcode encodeCommand} makes of them.
   *
   * `exit` and `quit` resolve when OpenVPN has hung up; what was asked before them is answered first. Commands that are
   * followed by lines of their own (`client-auth`, `certificate`, `pk-sig`, `rsa-sig`, `password` without a text) are refused:
   * there are methods for them. Guards refuse it as they do the methods (but for `unannounced-client`), by what is known: nothing
   * else is ever sent.
   *
   * @throws {TypeError} for control characters, nothing or a comment (OpenVPN would not answer), and a command with a body
   * @throws {RangeError} for more than 1023 bytes
   * @throws {CommandError} for an `ERROR:` reply
   * @throws {GuardError} for what would do harm now
   * @throws {ManagementError} `aborted`, `timeout`, or what ended the connection
   */
  async command(
    command: string | Uint8Array,
    options: CommandOptions = {},
  ): Promise<CommandReply> {
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
    // Whoever writes the ids down has them from somewhere; but they must not be those of a client that is known to be gone.
    const allow = [...options.allow ?? [], "unannounced-client" as const];
    return await send(this, message(line, parameters), { ...options, allow });
  }

  /**
   * Ends the session: commands that were not sent yet reject with `closed`, the one that was gets its reply. At most `closeTimeoutMs`
   * later the connection is cut. With `--management-client` and `--management-signal` OpenVPN ends or restarts then.
   */
  close(): Promise<void> {
    return this.#link.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
