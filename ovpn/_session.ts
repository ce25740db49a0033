/**
 * One connection to OpenVPN: the login, the pairing of commands with their replies, and the end.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import type { Conn, Duplex } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { ClientRegistry } from "./_client_registry.ts";
import { DaemonState } from "./_daemon_state.ts";
import { Exchange, type Message } from "./_exchange.ts";
import { EventAssembler } from "./assembler.ts";
import {
  type ClientOptions,
  type CommandOptions,
  type CommandReply,
  type PasswordSource,
  type SessionLimits,
  sessionLimits,
} from "./client_options.ts";
import { encodeLine } from "./command.ts";
import { type DemuxedLine, Demuxer } from "./demux.ts";
import { CommandError, ManagementError } from "./errors.ts";
import { type ManagementEvent, parseEvent } from "./event.ts";

/** How long reading may go on after a failed write, in milliseconds. */
const WRITE_ERROR_GRACE_MS = 1000;

/** OpenVPN hangs up after the third wrong password. */
const MAX_PASSWORD_ATTEMPTS = 3;

/**
 * What a call wants to send when its turn has come. It may throw, and then nothing is sent; or have something else asked before, of
 * which it finds the answer in the session's `daemon` when it is called again.
 */
export type Turn = (peer: Peer) => Message | { readonly ask: Message; readonly then: Turn };

/** What is known of the other side of a connection. */
export interface Peer {
  /** OpenVPN. */
  readonly daemon: DaemonState;
  /** Its clients. */
  readonly clients: ClientRegistry;
}

/** What a client sends over: a connection, or one after the other. See {@linkcode ClientCore}. */
export interface Link {
  /** The version of the management interface, once it is known. */
  readonly managementVersion: number | undefined;
  /** Reply lines that nothing had asked for. */
  readonly strayReplies: number;
  /** Settles with the greeting, or with what prevented it. */
  readonly ready: Promise<void>;
  /** Settles with the end. */
  readonly closed: Promise<void>;
  /** Sends what `turn` gives when it is its turn; `name` is for messages. */
  execute(name: string, turn: Turn, options?: CommandOptions): Promise<CommandReply>;
  /** Ends it. */
  close(): Promise<void>;
}

/** Where events go. */
export interface EventSink {
  push(event: ManagementEvent): void;
  /** Hears of the end of a command; `reply` is what it said unless it failed. */
  did?(parameters: readonly string[], reply: CommandReply | undefined): void;
  /** No more of them come, because of `error` unless that was in order. */
  end(error?: ManagementError): void;
}

/** A call that waits for its turn. */
interface Call {
  readonly name: string;
  readonly timeoutMs: number;
  turn: Turn;
  /** Why nothing more is sent for it. */
  cancelled: ManagementError | undefined;
  /** While a late reply holds it up. */
  timer?: ReturnType<typeof setTimeout>;
  /** Both do nothing once the caller has its answer, or has given up. */
  resolve(reply: CommandReply): void;
  reject(error: unknown): void;
}

/** A promise that may be ignored. */
function settlable(): [Promise<void>, PromiseWithResolvers<void>] {
  const settle = Promise.withResolvers<void>();
  settle.promise.catch(() => {});
  return [settle.promise, settle];
}

/** See {@linkcode ManagementClient} for what it guarantees. */
export class Session implements Link, Peer {
  readonly ready: Promise<void>;
  readonly closed: Promise<void>;
  readonly daemon: DaemonState = new DaemonState();
  readonly clients: ClientRegistry;
  strayReplies = 0;
  /** Whether the connection outlives a reply that does not come in time. */
  keep: boolean;
  readonly #events: EventSink;
  readonly #conn: Conn;
  readonly #limits: SessionLimits;
  readonly #assembler: EventAssembler;
  readonly #password: PasswordSource | undefined;
  readonly #ready: PromiseWithResolvers<void>;
  readonly #closed: PromiseWithResolvers<void>;
  readonly #queue: Call[] = [];
  #current: Exchange | undefined;
  /** What becomes of its reply. */
  #settle: (reply: CommandReply | ManagementError) => void = () => {};
  /** Whether the reply to the current command is late, and nobody waits for it any more. */
  #late = false;
  /** Of the greeting, then of the current command. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How many were sent. */
  #passwords = 0;
  /** How many were not answered yet. */
  #prompts = 0;
  /** From a failed write to the end, unless reading tells before. */
  #grace: ReturnType<typeof setTimeout> | undefined;
  #greeted = false;
  /** Within a chunk. */
  #reading = false;
  #closing = false;
  /** What every call rejects with from now on. */
  #end: ManagementError | undefined;

  constructor(
    duplex: Duplex | Conn,
    options: ClientOptions,
    events: EventSink,
    clients: ClientRegistry = new ClientRegistry(),
  ) {
    this.#events = events;
    this.clients = clients;
    this.#limits = sessionLimits(options);
    this.#password = options.password;
    this.keep = options.onTimeout === "keep";
    if (typeof this.#password === "string") encodeLine(this.#password, "the password");
    [this.ready, this.#ready] = settlable();
    [this.closed, this.#closed] = settlable();
    this.#assembler = new EventAssembler({ maxEnvBytes: this.#limits.maxEnvBytes });
    this.#conn = wrapConn(duplex);
    this.#awaitGreeting();
    this.#readAll();
  }

  get managementVersion(): number | undefined {
    return this.daemon.management;
  }

  async execute(
    name: string,
    turn: Turn,
    { signal, timeoutMs = this.#limits.timeoutMs }: CommandOptions = {},
  ): Promise<CommandReply> {
    requireLimit("timeoutMs", timeoutMs);
    if (this.#end !== undefined) throw this.#end;
    if (this.#closing) throw closedError();
    if (signal?.aborted) throw abortedError(name, signal);
    const { promise, resolve, reject } = Promise.withResolvers<CommandReply>();
    const call: Call = { name, timeoutMs, turn, cancelled: undefined, resolve, reject };
    const onAbort = () => {
      // What was sent stays the current command until its reply is over.
      this.#cancel(call, abortedError(name, signal!));
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#queue.push(call);
    if (this.#late) this.#limitWait(call);
    this.#sendNext();
    try {
      return await promise;
    } finally {
      clearTimeout(call.timer);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #cancel(call: Call, error: ManagementError): void {
    call.cancelled = error;
    call.reject(error);
    const index = this.#queue.indexOf(call);
    if (index >= 0) this.#queue.splice(index, 1);
  }

  #sendNext(): void {
    while (this.#greeted && !this.#reading && this.#current === undefined) {
      const call = this.#queue.shift();
      if (call === undefined) return;
      this.#take(call);
    }
  }

  #take(call: Call): void {
    let step: ReturnType<Turn>;
    try {
      if (call.cancelled !== undefined) throw call.cancelled;
      step = call.turn(this);
    } catch (error) {
      return call.reject(error);
    }
    if (!("ask" in step)) {
      return this.#send(step, call, (reply) => {
        if (reply instanceof ManagementError) call.reject(reply);
        else call.resolve(reply);
      });
    }
    const { ask, then } = step;
    this.#send(ask, call, (reply) => {
      if (reply instanceof ManagementError) return call.reject(reply);
      call.turn = then;
      if (this.#closing) call.cancelled = closedError();
      this.#queue.unshift(call);
    });
  }

  #send(
    sent: Message,
    { timeoutMs }: Call,
    settle: (reply: CommandReply | ManagementError) => void,
  ): void {
    const exchange = this.#current = new Exchange(sent, this.#limits.maxReplyBytes);
    this.#settle = settle;
    this.#startTimer(timeoutMs, () => this.#onTimeout(exchange.name, timeoutMs));
    this.daemon.sent(exchange.parameters);
    this.#conn.write(exchange.bytes).then(
      () => {
        if (!exchange.silent || exchange !== this.#current) return;
        this.#complete(exchange);
        this.#sendNext();
      },
      (error) => this.#onWriteError(error),
    );
  }

  #onTimeout(name: string, timeoutMs: number): void {
    const text = `${name}: no reply within ${timeoutMs} ms`;
    if (!this.keep) {
      return this.#fail(new ManagementError("timeout", `${text}, the connection is given up`));
    }
    // While it is the current command, whatever comes is its reply and nobody else's.
    this.#settle(new ManagementError("timeout", `${text}, and nothing is sent until it comes`));
    this.#settle = () => {};
    this.#late = true;
    for (const call of this.#queue) this.#limitWait(call);
  }

  /** The time in the queue counts while a reply is late: nobody knows for how long. */
  #limitWait(call: Call): void {
    const { name, timeoutMs } = call;
    const text = `${name}: not sent within ${timeoutMs} ms, since the reply to ` +
      `${this.#current?.name} is late`;
    clearTimeout(call.timer);
    call.timer = setTimeout(() => {
      // Once it was taken, its reply has a timer of its own.
      if (this.#queue.includes(call)) this.#cancel(call, new ManagementError("timeout", text));
    }, timeoutMs);
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
        // All of it is known before anything is sent: behind a greeting comes what OpenVPN waits for.
        this.#reading = true;
        for (const line of demuxer.push(chunk)) this.#onLine(line);
        this.#reading = false;
        this.#sendNext();
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
    // A copy: an event that waits for a consumer must not keep the whole chunk that it came in. The assembler makes its own.
    const inBlock = isEnvLine(line);
    const event = parseEvent(inBlock ? line : new Uint8Array(line));
    for (const whole of this.#assembler.push(event)) {
      this.clients.bind(whole);
      this.#events.push(inBlock && whole === event ? parseEvent(new Uint8Array(line)) : whole);
    }
    // Of a block the first line counts, but not for an earlier block that it cuts.
    this.daemon.see(event);
    this.clients.see(event);
    if (!this.#greeted) {
      if (event.type !== "INFO") return;
      this.#greeted = true;
      clearTimeout(this.#timer);
      this.#ready.resolve();
      return;
    }
    if (this.#current?.takeEvent(event.raw)) this.#complete(this.#current);
  }

  #onReply(line: Uint8Array): void {
    if (!this.#greeted) {
      // `SUCCESS: password is correct` tells nothing that the greeting does not.
      if (this.#passwords > 0) return;
      const text = "the peer does not greet as OpenVPN's management interface does";
      return this.#fail(new ManagementError("protocol", text));
    }
    if (this.#current === undefined) {
      this.strayReplies++;
      return;
    }
    try {
      if (this.#current.take(line)) this.#complete(this.#current);
    } catch (error) {
      this.#fail(error as ManagementError);
    }
  }

  #complete(exchange: Exchange): void {
    this.#current = undefined;
    if (this.#late) { for (const { timer } of this.#queue) clearTimeout(timer); }
    this.#late = false;
    clearTimeout(this.#timer);
    const { reply } = exchange;
    const success = reply instanceof CommandError ? undefined : reply;
    this.daemon.did(exchange.parameters, success);
    this.#events.did?.(exchange.parameters, success);
    this.#settle(reply);
  }

  #startTimer(ms: number, onTimeout: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(onTimeout, ms);
  }

  #awaitGreeting(): void {
    const { greetingTimeoutMs } = this.#limits;
    this.#startTimer(greetingTimeoutMs, () => {
      const text = `OpenVPN did not greet within ${greetingTimeoutMs} ms: ` +
        "another manager is connected, or it is stuck";
      this.#fail(new ManagementError("no-greeting", text));
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
    const exiting = this.#current?.untilEnd ? this.#current : undefined;
    if (exiting !== undefined) this.#settle(exiting.reply);
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
    this.#endEvents();
    // A stream that is no socket may have no limit of its own.
    const giveUp = setTimeout(() => {
      this.#conn.abort();
      this.#closed.resolve();
    }, this.#limits.closeTimeoutMs);
    this.#conn.close().catch(() => {}).then(() => {
      clearTimeout(giveUp);
      this.#closed.resolve();
    });
  }

  /** The end by `error`. */
  #fail(error: ManagementError): void {
    if (this.#end !== undefined) return;
    if (this.#closing) return this.#finish(closedError());
    this.#settleAll(error);
    this.#endEvents(error);
    this.#closed.reject(error);
    this.#conn.abort(error);
  }

  #settleAll(error: ManagementError): void {
    this.#end = error;
    clearTimeout(this.#timer);
    clearTimeout(this.#grace);
    this.#ready.reject(error);
    if (this.#current !== undefined) this.#settle(error);
    for (const { reject } of this.#queue.splice(0)) reject(error);
  }

  #endEvents(error?: ManagementError): void {
    for (const event of this.#assembler.end()) this.#events.push(event);
    this.#events.end(error);
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

function closedError(): ManagementError {
  return new ManagementError("closed", "the client is closed");
}

const ENV_MARK = new TextEncoder().encode(":ENV,");

/** Whether it is one of `CLIENT:ENV,` or `UPDOWN:ENV,`. */
function isEnvLine(line: Uint8Array): boolean {
  for (let i = 0; i < ENV_MARK.length; i++) {
    if (line["CLIENT".length + i] !== ENV_MARK[i]) return false;
  }
  return true;
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
