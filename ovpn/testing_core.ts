/**
 * What a simulated OpenVPN knows and how it speaks.
 *
 * @module
 */
import type { ManagerLink } from "./testing_link.ts";

/** Settings of a simulated OpenVPN, as its command line and configuration would say them. */
export interface SimulatorOptions {
  /** A server has clients, a client is asked for credentials. @default "client" */
  readonly mode?: "client" | "server" | undefined;
  /** Whose texts and habits. @default "2.6.14" */
  readonly version?: "2.6.14" | "2.7.6" | undefined;
  /** `--management-hold`. @default false */
  readonly hold?: boolean | undefined;
  /** The password of the management interface. @default none */
  readonly password?: string | undefined;
  /** `--management-client-auth` of a server. @default true */
  readonly clientAuth?: boolean | undefined;
  /** `--management-signal`: it restarts by SIGUSR1 when the manager leaves. @default false */
  readonly managementSignal?: boolean | undefined;
  /** What `remote-entry-get` tells, as `host,port,proto`. @default none */
  readonly remotes?: readonly string[] | undefined;
  /** The PKCS#11 identities. @default none */
  readonly pkcs11?: readonly { readonly id: string; readonly blob: string }[] | undefined;
  /** The process id. @default 4242 */
  readonly pid?: number | undefined;
  /** The time in whole seconds since 1970. @default the clock */
  readonly now?: (() => number) | undefined;
  /** Hears the parameters of every command, secrets included. @default nobody */
  readonly onCommand?: ((parameters: readonly string[]) => void) | undefined;
}

/** A signal that an OpenVPN restarts by: soft, or with its configuration read again. */
export type RestartSignal = "SIGUSR1" | "SIGHUP";

/** Why a simulated OpenVPN does not wait for an answer any more. */
export class SimulationError extends Error {
  /** The name of the class. */
  override readonly name = "SimulationError";
  /** `exited` and `restarted`: it did; `gone`: the client left; `aborted`: by a signal of the caller. */
  readonly code: "exited" | "restarted" | "gone" | "aborted";

  /** Makes an error. */
  constructor(code: SimulationError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** How a command is run. */
export interface Command {
  /** How many parameters it needs; more are ignored. */
  readonly needs?: number;
  /** True if the answer to too few says "at least". */
  readonly atLeast?: boolean;
  /** Answers. */
  run(args: readonly string[]): void;
}

/** Commands by name. */
export type Commands = Readonly<Record<string, Command>>;

/** Lines of one kind that are told as they come (`on`) and kept for later. */
export interface History {
  /** The keyword of the event. */
  readonly event: "STATE" | "LOG" | "ECHO";
  /** How many lines are kept. */
  readonly capacity: number;
  /** The kept lines. */
  lines: string[];
  /** True if the manager asked to hear them. */
  on: boolean;
}

const TITLES = {
  "2.6.14":
    "OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO] [LZ4] [EPOLL] [PKCS11] [MH/PKTINFO] [AEAD] [DCO]",
  "2.7.6": "OpenVPN 2.7.6 x86_64-pc-linux-gnu [SSL (OpenSSL)] [EPOLL] [MH/PKTINFO] [AEAD] [DCO]",
} as const;

/** The level of the configuration, which a SIGHUP brings back. */
const CONFIGURED_VERB = 3;

/** A body of more than this ends the connection. OpenVPN itself has no limit. */
const MAX_BODY_LENGTH = 1024 * 1024;

/** The state of one process. What is public here is private to the simulator. */
export class Core {
  readonly server: boolean;
  readonly clientAuth: boolean;
  readonly managementSignal: boolean;
  /** Has the habits of 2.7. */
  readonly is27: boolean;
  readonly title: string;
  readonly managementVersion: number;
  readonly password: string | undefined;
  readonly remotes: readonly string[];
  readonly pkcs11: readonly { readonly id: string; readonly blob: string }[];
  readonly pid: number;
  readonly now: () => number;
  readonly onCommand: (parameters: readonly string[]) => void;

  readonly state: History = { event: "STATE", capacity: 100, lines: [], on: false };
  readonly log: History = { event: "LOG", capacity: 250, lines: [], on: false };
  readonly echo: History = { event: "ECHO", capacity: 100, lines: [], on: false };

  hold: boolean;
  /** False while the first hold lasts, and again after SIGHUP. */
  started: boolean;
  /** Has been CONNECTED since the start. */
  wasConnected = false;
  verb: number = CONFIGURED_VERB;
  mute = 0;
  authRetry = "none";
  envFilter = 0;
  clientVersion = 1;
  byteCountSeconds = 0;
  bytesIn = 0;
  bytesOut = 0;

  /** The manager, once it is greeted. */
  link: ManagerLink | undefined;
  #body:
    | { readonly lines: string[]; length: number; readonly done: (lines: string[]) => void }
    | undefined;

  constructor(options: SimulatorOptions) {
    const { mode = "client", version = "2.6.14", hold = false, clientAuth = true } = options;
    if (!Object.hasOwn(TITLES, version)) throw new TypeError(`no OpenVPN ${version} is simulated`);
    this.server = mode === "server";
    this.clientAuth = clientAuth;
    this.managementSignal = options.managementSignal ?? false;
    this.is27 = version === "2.7.6";
    this.title = TITLES[version];
    this.managementVersion = this.is27 ? 6 : 5;
    this.password = options.password;
    this.remotes = options.remotes ?? [];
    this.pkcs11 = options.pkcs11 ?? [];
    this.pid = options.pid ?? 4242;
    this.now = options.now ?? (() => Math.floor(Date.now() / 1000));
    this.onCommand = options.onCommand ?? (() => {});
    this.hold = hold;
    this.started = !hold;
  }

  /** Sends a line, if there is a manager. */
  say(line: string): void {
    this.link?.say(line);
  }

  /** Sends a name and its block of variables. */
  sayBlock(
    keyword: "CLIENT" | "UPDOWN",
    what: string,
    env: Iterable<readonly [string, string]>,
  ): void {
    this.say(`>${keyword}:${what}`);
    for (const [name, value] of env) this.say(`>${keyword}:ENV,${name}=${value}`);
    this.say(`>${keyword}:ENV,END`);
  }

  /** Keeps a line, and tells it if it is to be. */
  note(history: History, text: string): void {
    const line = `${this.now()},${text}`;
    history.lines.push(line);
    if (history.lines.length > history.capacity) history.lines.shift();
    if (!history.on) return;
    if (history === this.state) this.logLine("", `MANAGEMENT: >STATE:${line}`);
    this.say(`>${history.event}:${line}`);
  }

  /** Logs what is logged from the verbosity 3 on. */
  logLine(flags: string, text: string): void {
    if (this.verb >= 3) this.note(this.log, `${flags},${text}`);
  }

  /** Enters a state; `fields` begin with the description. */
  enter(name: string, fields: readonly string[] = []): void {
    if (name === "CONNECTED") this.wasConnected = true;
    const padded = fields.concat(Array(Math.max(0, 6 - fields.length)).fill(""));
    this.note(this.state, [name, ...padded].join(","));
  }

  /** Everything up to `END` is a body for `done`, whatever it looks like. */
  openBody(done: (lines: string[]) => void): void {
    this.#body = { lines: [], length: 0, done };
  }

  /** Forgets a body that has no end. */
  dropBody(): void {
    this.#body = undefined;
  }

  /** Takes a line if a body is open. */
  takeBodyLine(line: string): boolean {
    const body = this.#body;
    if (body === undefined) return false;
    if (line === "END") {
      this.#body = undefined;
      body.done(body.lines);
    } else {
      body.lines.push(line);
      body.length += line.length + 1;
      if (body.length > MAX_BODY_LENGTH) this.link?.end("lost");
    }
    return true;
  }

  /** Says that `command` is not for now. */
  sayUnsupported(command: string): void {
    this.say(`ERROR: The '${command}' command is not supported by the current daemon mode`);
  }

  /** Reads the configuration again. */
  reset(): void {
    this.started = !this.hold;
    this.wasConnected = false;
    this.verb = CONFIGURED_VERB;
    this.mute = 0;
  }
}

/** A whole number as C reads it: digits at the beginning, 0 if there are none. */
export function leadingInteger(text: string): number {
  return Number(/^ *([+-]?\d+)/.exec(text)?.[1] ?? 0);
}
