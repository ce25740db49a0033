/**
 * One connection to OpenVPN: the login, the pairing of commands with their replies, and the end.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import { concat } from "@std/bytes";
import type { Conn, Duplex, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { Broadcast } from "./_broadcast.ts";
import { encodeLine } from "./command.ts";
import { type DemuxedLine, Demuxer } from "./demux.ts";
import { CommandError, ManagementError } from "./errors.ts";
import { parseEvent } from "./event.ts";
import { type ReplyShape, replyShape } from "./reply.ts";

/**
 * The password of the management interface, tried once; or a function that is asked for it: with 1 at the first prompt, and with 2 and 3
 * after wrong ones. `undefined` gives up.
 */
export type PasswordSource =
  | string
  | ((attempt: number) => string | undefined | Promise<string | undefined>);

/** Options of a {@linkcode ManagementClient}. */
export interface ClientOptions {
  /** The password of the management interface, if it wants one. */
  readonly password?: PasswordSource | undefined;
  /**
   * How long the whole reply to a command may take, in milliseconds from when it is sent. Then the connection is given up, since
   * nothing would tell whose reply the next one is. @default 10000
   */
  readonly timeoutMs?: number | undefined;
  /**
   * How long OpenVPN may take to greet, in milliseconds; while it serves another manager, it does not. @default timeoutMs
   */
  readonly greetingTimeoutMs?: number | undefined;
  /**
   * How many events are kept for a slow consumer, and before the first one comes. When they are more, the oldest `LOG`,
   * `BYTECOUNT` or `BYTECOUNT_CLI` is dropped, or else the oldest of all, and counted. @default 4096
   */
  readonly maxBufferedEvents?: number | undefined;
  /**
   * How long a reply may be, in bytes and 32 more for each line. A longer one ends the connection with `protocol`.
   * @default 33554432 (32 MiB)
   */
  readonly maxReplyBytes?: number | undefined;
  /** How long `close()` waits for the reply that is on its way, in milliseconds. @default 2000 */
  readonly closeTimeoutMs?: number | undefined;
}

/** Options of a single command. `signal` ends the wait; what was already sent is done nevertheless. */
export interface CommandOptions extends WaitOptions {
  /** Instead of the client's `timeoutMs`. */
  readonly timeoutMs?: number | undefined;
}

/** A reply that is no error. */
export interface CommandReply {
  /** What stood after `SUCCESS: `; empty if there was none. */
  readonly success: string;
  /** The other lines, without `END`. Bytes that are not UTF-8 have become U+FFFD. */
  readonly lines: readonly string[];
  /** The same lines as bytes. */
  readonly raw: readonly Uint8Array[];
}

type LimitName = Exclude<keyof ClientOptions, "password">;

const DEFAULTS = {
  timeoutMs: 10_000,
  maxBufferedEvents: 4096,
  maxReplyBytes: 32 * 1024 * 1024,
  closeTimeoutMs: 2000,
} as const;

/** What a line costs beside its bytes. */
const LINE_OVERHEAD_BYTES = 32;

/** How long reading may go on after a failed write, in milliseconds. */
const WRITE_ERROR_GRACE_MS = 1000;

/** OpenVPN hangs up after the third wrong password. */
const MAX_PASSWORD_ATTEMPTS = 3;

const UTF8 = new TextDecoder();

interface Command {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly shape: ReplyShape;
  readonly timeoutMs: number;
  readonly lines: string[];
  readonly raw: Uint8Array[];
  size: number;
  success: string;
  error: string | undefined;
  /** Both do nothing once the caller has its answer, or has given up. */
  resolve(reply: CommandReply): void;
  reject(error: ManagementError): void;
}

/** A promise that may be ignored. */
function settlable(): [Promise<void>, PromiseWithResolvers<void>] {
  const settle = Promise.withResolvers<void>();
  settle.promise.catch(() => {});
  return [settle.promise, settle];
}

/** See {@linkcode ManagementClient} for what it guarantees. */
export class Session {
  /** What OpenVPN tells by itself. */
  readonly events: Broadcast;
  /** Settles with the greeting, or with what prevented it. */
  readonly ready: Promise<void>;
  /** Settles with the end. */
  readonly closed: Promise<void>;
  /** What the greeting said. */
  managementVersion: number | undefined;
  /** Reply lines that nothing had asked for. */
  strayReplies = 0;
  readonly #conn: Conn;
  readonly #limits: Readonly<Record<LimitName, number>>;
  readonly #password: PasswordSource | undefined;
  readonly #ready: PromiseWithResolvers<void>;
  readonly #closed: PromiseWithResolvers<void>;
  readonly #queue: Command[] = [];
  #current: Command | undefined;
  /** Of the greeting, then of the current command. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How many were sent. */
  #passwords = 0;
  /** How many were not answered yet. */
  #prompts = 0;
  /** From a failed write to the end, unless reading tells before. */
  #grace: ReturnType<typeof setTimeout> | undefined;
  #greeted = false;
  #closing = false;
  /** What every call rejects with from now on. */
  #end: ManagementError | undefined;

  constructor(duplex: Duplex | Conn, options: ClientOptions) {
    this.#limits = sessionLimits(options);
    this.#password = options.password;
    if (typeof this.#password === "string") encodeLine(this.#password, "the password");
    [this.ready, this.#ready] = settlable();
    [this.closed, this.#closed] = settlable();
    this.events = new Broadcast(this.#limits.maxBufferedEvents);
    this.#conn = wrapConn(duplex);
    this.#awaitGreeting();
    this.#readAll();
  }

  /** Sends `line`, the command that OpenVPN reads as `parameters`, when it is its turn. */
  async execute(
    line: Uint8Array,
    parameters: readonly string[],
    { signal, timeoutMs = this.#limits.timeoutMs }: CommandOptions = {},
  ): Promise<CommandReply> {
    requireLimit("timeoutMs", timeoutMs);
    const name = commandName(parameters);
    if (this.#end !== undefined) throw this.#end;
    if (this.#closing) throw closedError();
    if (signal?.aborted) throw abortedError(name, signal);
    const shape = replyShape(parameters);
    const { together } = shape;
    const bytes = together === undefined ? line : concat([line, encodeLine(together, together)]);
    const { promise, resolve, reject } = Promise.withResolvers<CommandReply>();
    const command: Command = {
      ...{ name, bytes, shape, timeoutMs, resolve, reject },
      ...{ lines: [], raw: [], size: 0, success: "", error: undefined },
    };
    const onAbort = () => {
      reject(abortedError(name, signal!));
      // One that was sent stays the current one until its reply is over.
      const index = this.#queue.indexOf(command);
      if (index >= 0) this.#queue.splice(index, 1);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#queue.push(command);
    this.#sendNext();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #sendNext(): void {
    if (!this.#greeted || this.#current !== undefined) return;
    const command = this.#queue.shift();
    if (command === undefined) return;
    const { name, bytes, shape, timeoutMs } = this.#current = command;
    this.#startTimer(timeoutMs, () => {
      const text = `${name}: no reply within ${timeoutMs} ms, the connection is given up`;
      return new ManagementError("timeout", text);
    });
    this.#conn.write(bytes).then(
      () => shape.silent && this.#complete(command),
      (error) => this.#onWriteError(error),
    );
  }

  /** The read side tells it too, mostly, and after all that OpenVPN had still to say. */
  #onWriteError(error: unknown): void {
    if (this.#end !== undefined) return;
    this.#grace ??= setTimeout(() => this.#onEnd(connectionError(error)), WRITE_ERROR_GRACE_MS);
  }

  async #readAll(): Promise<void> {
    const demuxer = new Demuxer();
    try {
      for (;;) {
        const chunk = await this.#conn.read();
        if (chunk === null) break;
        for (const line of demuxer.push(chunk)) this.#onLine(line);
      }
    } catch (error) {
      for (const line of demuxer.end()) this.#onLastLine(line);
      return this.#onEnd(connectionError(error));
    }
    for (const line of demuxer.end()) this.#onLastLine(line);
    this.#onEnd();
  }

  #onLine({ kind, line }: DemuxedLine): void {
    if (this.#end !== undefined) return;
    if (kind === "event") this.#onEvent(line);
    else if (kind === "password-prompt") this.#login();
    else this.#onReply(line);
  }

  /** A line without its end: last words are worth having, but half of another one (`pid=12` of 1234) would be a wrong one. */
  #onLastLine({ kind, line }: DemuxedLine): void {
    if (kind === "event" && parseEvent(line).type === "FATAL") this.#onLine({ kind, line });
  }

  #onEvent(line: Uint8Array): void {
    // A copy: an event that waits for a consumer must not keep the whole chunk that it came in.
    const event = parseEvent(new Uint8Array(line));
    this.events.push(event);
    if (!this.#greeted) {
      if (event.type !== "INFO") return;
      this.#greeted = true;
      this.managementVersion = event.managementVersion;
      clearTimeout(this.#timer);
      this.#ready.resolve();
      this.#sendNext();
      return;
    }
    const command = this.#current;
    if (command?.shape.event === undefined) return;
    const text = UTF8.decode(line);
    if (!text.startsWith(command.shape.event)) return;
    command.lines.push(text);
    command.raw.push(event.raw);
    this.#complete(command);
  }

  #onReply(line: Uint8Array): void {
    const command = this.#current;
    if (!this.#greeted) {
      // `SUCCESS: password is correct` tells nothing that the greeting does not.
      if (this.#passwords > 0) return;
      const text = "the peer does not greet as OpenVPN's management interface does";
      return this.#fail(new ManagementError("protocol", text));
    }
    if (command === undefined) {
      this.strayReplies++;
      return;
    }
    command.size += line.length + LINE_OVERHEAD_BYTES;
    const { maxReplyBytes } = this.#limits;
    if (command.size > maxReplyBytes) {
      const text = `${command.name}: the reply has more than ${maxReplyBytes} bytes`;
      return this.#fail(new ManagementError("protocol", text));
    }
    const text = UTF8.decode(line);
    const { kind, last } = command.shape.take(text);
    if (kind === "text") {
      command.lines.push(text);
      // A copy, as of events: `maxReplyBytes` counts the line and not the chunk.
      command.raw.push(new Uint8Array(line));
    } else if (kind === "status") {
      if (text.startsWith("SUCCESS:")) command.success = text.slice(8).trimStart();
      else command.error ??= text.slice(6).trimStart();
    }
    if (last) this.#complete(command);
  }

  #complete(command: Command): void {
    if (command !== this.#current) return;
    this.#current = undefined;
    clearTimeout(this.#timer);
    const { name, error, success, lines, raw } = command;
    if (error === undefined) command.resolve({ success, lines, raw });
    else command.reject(new CommandError(name, error, lines));
    this.#sendNext();
  }

  #startTimer(ms: number, error: () => ManagementError): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fail(error()), ms);
  }

  #awaitGreeting(): void {
    const { greetingTimeoutMs } = this.#limits;
    this.#startTimer(greetingTimeoutMs, () => {
      const text = `OpenVPN did not greet within ${greetingTimeoutMs} ms: ` +
        "another manager is connected, or it is stuck";
      return new ManagementError("no-greeting", text);
    });
  }

  /** One answer at a time, also to a peer that does not wait for it. */
  async #login(): Promise<void> {
    if (++this.#prompts > 1) return;
    for (; this.#prompts > 0 && this.#end === undefined; this.#prompts--) await this.#answer();
  }

  async #answer(): Promise<void> {
    const attempt = this.#passwords + 1;
    const source = this.#password;
    clearTimeout(this.#timer);
    const wrong = new ManagementError("wrong-password", "OpenVPN refused the management password");
    if (attempt > (typeof source === "string" ? 1 : MAX_PASSWORD_ATTEMPTS)) {
      return this.#fail(wrong);
    }
    try {
      const password = typeof source === "function" ? await source(attempt) : source;
      if (this.#end !== undefined) return;
      if (password === undefined) {
        const text = "OpenVPN asks for the management password, and none was given";
        return this.#fail(attempt > 1 ? wrong : new ManagementError("password-required", text));
      }
      const line = encodeLine(password, "the management password");
      this.#passwords++;
      this.#awaitGreeting();
      this.#conn.write(line).catch((error) => this.#onWriteError(error));
    } catch (error) {
      const text = "there is no management password to send";
      this.#fail(new ManagementError("password-required", text, { cause: error }));
    }
  }

  /** The connection has ended, with `error` or by OpenVPN's will; whether in order depends on what was still to come. */
  #onEnd(error?: ManagementError): void {
    if (this.#end !== undefined) return;
    const exiting = this.#current?.shape.untilEnd ? this.#current : undefined;
    exiting?.resolve({ success: exiting.success, lines: exiting.lines, raw: exiting.raw });
    if (this.#closing) return this.#finish(closedError());
    if (exiting !== undefined) {
      return this.#finish(disconnectedError("OpenVPN closed the connection as it was told"));
    }
    if (!this.#greeted && this.#passwords > 0) {
      const text = "OpenVPN hung up on the management password";
      return this.#fail(new ManagementError("wrong-password", text, error && { cause: error }));
    }
    if (error !== undefined) return this.#fail(error);
    const pending = this.#greeted ? this.#current ?? this.#queue[0] : { name: "its greeting" };
    if (pending === undefined) {
      return this.#finish(disconnectedError("OpenVPN has closed the connection"));
    }
    this.#fail(disconnectedError(`OpenVPN closed the connection before ${pending.name} was done`));
  }

  /** The end in order: whatever comes now is rejected with `error`, but the session did not fail. */
  #finish(error: ManagementError): void {
    this.#settleAll(error);
    this.events.end();
    this.#conn.close().catch(() => {}).then(() => this.#closed.resolve());
  }

  /** The end by `error`. */
  #fail(error: ManagementError): void {
    if (this.#end !== undefined) return;
    if (this.#closing) return this.#finish(closedError());
    this.#settleAll(error);
    this.events.push(parseEvent("FATAL:Error reading from OpenVPN"));
    this.events.end();
    this.#closed.reject(error);
    this.#conn.abort(error);
  }

  #settleAll(error: ManagementError): void {
    this.#end = error;
    clearTimeout(this.#timer);
    clearTimeout(this.#grace);
    this.#ready.reject(error);
    this.#current?.reject(error);
    for (const { reject } of this.#queue.splice(0)) reject(error);
  }

  /**
   * Ends the session: what waits in the queue is rejected, and the reply that is on its way awaited. (`exit` would make a
   * running OpenVPN throw away replies; it answers a half-close with all of them.)
   */
  async close(): Promise<void> {
    if (!this.#closing && this.#end === undefined) {
      this.#closing = true;
      for (const { reject } of this.#queue.splice(0)) reject(closedError());
      // Nobody talks to us yet: no reply and no end to wait for.
      if (!this.#greeted) this.#conn.abort();
      const giveUp = setTimeout(() => this.#conn.abort(), this.#limits.closeTimeoutMs);
      this.closed.then(() => clearTimeout(giveUp));
      this.#conn.closeWrite().catch(() => {});
    }
    await this.closed.catch(() => {});
  }
}

/** The name of a command for messages, if it is one: an unknown text may be a secret that slipped. */
function commandName([name = ""]: readonly string[]): string {
  return /^[a-z0-9-]{1,32}$/i.test(name) ? name : "command";
}

function closedError(): ManagementError {
  return new ManagementError("closed", "the client is closed");
}

function connectionError(cause: unknown): ManagementError {
  return new ManagementError("connection", "the connection to OpenVPN failed", { cause });
}

function disconnectedError(text: string): ManagementError {
  return new ManagementError("disconnected", text);
}

function abortedError(name: string, signal: AbortSignal): ManagementError {
  return new ManagementError("aborted", `${name}: aborted`, { cause: signal.reason });
}

/** The limits in `options`, and the defaults of the others. */
export function sessionLimits(options: ClientOptions): Readonly<Record<LimitName, number>> {
  const timeoutMs = options.timeoutMs ?? DEFAULTS.timeoutMs;
  const limits = {
    timeoutMs,
    greetingTimeoutMs: options.greetingTimeoutMs ?? timeoutMs,
    maxBufferedEvents: options.maxBufferedEvents ?? DEFAULTS.maxBufferedEvents,
    maxReplyBytes: options.maxReplyBytes ?? DEFAULTS.maxReplyBytes,
    closeTimeoutMs: options.closeTimeoutMs ?? DEFAULTS.closeTimeoutMs,
  };
  for (const [name, value] of Object.entries(limits)) requireLimit(name, value);
  return limits;
}
