/**
 * What a simulated OpenVPN does with the lines of a manager.
 *
 * @module
 */
import { decodeLine, LexerError, parseParameters } from "./_lexer.ts";
import type { Command, Core } from "./testing_core.ts";
import { generalCommands } from "./testing_general.ts";
import type { ManagerLink } from "./testing_link.ts";
import type { Queries } from "./testing_queries.ts";
import type { ClientPool } from "./testing_server.ts";
import { statusLines } from "./testing_status.ts";

/** What a manager may do to the process. */
export interface ProcessHooks {
  /** A signal was sent; the answer is out. */
  signal(name: string): void;
  /** A challenge was answered. */
  crResponse(response: string): void;
}

/** After this many wrong passwords the connection is closed. */
const MAX_PASSWORD_ATTEMPTS = 3;

/** Logs a manager in, and runs its commands. */
export class CommandRunner {
  readonly #core: Core;
  readonly #queries: Queries;
  readonly #pool: ClientPool;
  readonly #commands: ReadonlyMap<string, Command>;

  /** Makes one out of the parts of a daemon. */
  constructor(core: Core, queries: Queries, pool: ClientPool, hooks: ProcessHooks) {
    this.#core = core;
    this.#queries = queries;
    this.#pool = pool;
    const general = generalCommands(core);
    const crResponse = general["cr-response"]!;
    this.#commands = new Map<string, Command>(Object.entries({
      ...general,
      ...queries.commands(),
      ...pool.commands(),
      "cr-response": {
        ...crResponse,
        run: (args) => {
          crResponse.run(args);
          if (core.started && !core.server) hooks.crResponse(args[0] ?? "");
        },
      },
      "load-stats": { run: () => this.#loadStats() },
      status: {
        run: ([format]) => {
          // A start-up query waits: the tunnel does not run yet.
          const starting = queries.wantsPassword && !core.wasConnected;
          if (!core.started || starting) return core.sayUnsupported("status");
          for (const line of this.status(format)) core.say(line);
        },
      },
      signal: { needs: 1, run: ([name = ""]) => this.#signal(name, hooks) },
      help: { run: () => this.#help() },
    }));
  }

  /** Serves a manager until it has left. */
  async serve(link: ManagerLink): Promise<void> {
    const { password } = this.#core;
    let attempts = 0;
    const ask = () => link.prompt("ENTER PASSWORD:");
    const logIn = (line: string): void => {
      if (decodeLine(line) === password) {
        link.say("SUCCESS: password is correct");
        this.#greet(link);
      } else if (++attempts === MAX_PASSWORD_ATTEMPTS) link.end("lost");
      else ask();
    };
    if (password === undefined) this.#greet(link);
    else ask();
    await link.serve((line) => this.#core.link === link ? this.#run(line) : logIn(line));
    this.#core.dropBody();
  }

  /** The lines of a status report. */
  status(format: string | undefined): readonly string[] {
    return statusLines(this.#core, this.#pool.clients, format);
  }

  #greet(link: ManagerLink): void {
    const version = this.#core.managementVersion;
    this.#core.link = link;
    link.say(`>INFO:OpenVPN Management Interface Version ${version} -- type 'help' for more info`);
    this.#queries.repeat();
  }

  #run(line: string): void {
    const core = this.#core;
    const text = decodeLine(line);
    if (core.takeBodyLine(text)) return;
    let parameters: string[] = [];
    try {
      parameters = parseParameters(line);
    } catch (error) {
      if (!(error instanceof LexerError)) throw error;
      core.say(`ERROR: ${error.message}`);
    }
    const [name, ...args] = parameters;
    const shown = name === "password" ? "password [...]" : text;
    if (text !== "load-stats") core.logLine("D", `MANAGEMENT: CMD '${shown}'`);
    if (name === undefined) return;
    core.onCommand(parameters);
    if (name === "exit" || name === "quit") {
      // A running one loses what it has not sent yet (spec 5.2.1).
      core.link?.end(this.#queries.held ? "sent" : "lost");
      return;
    }
    const command = this.#commands.get(name);
    const { needs = 0, atLeast = false } = command ?? {};
    if (command === undefined) {
      const repeated = core.is27 ? ` [${name}]` : "";
      core.say(`ERROR: unknown command${repeated}, enter 'help' for more options`);
    } else if (args.length < needs) {
      const least = atLeast ? "at least " : "";
      const plural = needs === 1 ? "" : "s";
      core.say(`ERROR: the '${name}' command requires ${least}${needs} parameter${plural}`);
    } else command.run(args);
  }

  #signal(name: string, hooks: ProcessHooks): void {
    const core = this.#core;
    if (!["SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"].includes(name)) {
      core.say(`ERROR: signal '${name}' is not a known signal type`);
    } else if (this.#queries.held && (name === "SIGHUP" || name === "SIGUSR1")) {
      core.say(`ERROR: signal '${name}' is currently ignored`);
      this.#queries.repeat();
    } else {
      core.say(`SUCCESS: signal ${name} thrown`);
      // While held, both of the others end it (spec 5.3.4).
      const effect = this.#queries.held ? "SIGTERM" : name;
      core.link?.afterRead(() => hooks.signal(effect));
    }
  }

  #loadStats(): void {
    const { clients } = this.#pool;
    const sum = (pick: "bytesIn" | "bytesOut") =>
      clients.reduce((total, client) => total + client[pick], this.#core[pick]);
    this.#core.say(
      `SUCCESS: nclients=${clients.length},bytesin=${sum("bytesIn")},bytesout=${sum("bytesOut")}`,
    );
  }

  /** The names alone: what a real one says about them is for people. */
  #help(): void {
    this.#core.say(`Management Interface for ${this.#core.title}`);
    this.#core.say("Commands:");
    for (const name of [...this.#commands.keys()].sort()) this.#core.say(name);
    this.#core.say("END");
  }
}
