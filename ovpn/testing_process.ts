/**
 * The life of a simulated OpenVPN process: its managers, its restarts and its end.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Address, Conn, Duplex, Listener, Transport, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import {
  Core,
  type RestartSignal,
  SimulationError,
  type SimulatorOptions,
} from "./testing_core.ts";
import { CommandRunner } from "./testing_dispatch.ts";
import { ManagerLink } from "./testing_link.ts";
import { Mailbox } from "./testing_mailbox.ts";
import { Queries } from "./testing_queries.ts";
import { ClientPool } from "./testing_server.ts";

/** Where listeners and connections come from. */
export interface SimulatorTransportOptions<Name extends "connect" | "listen"> extends WaitOptions {
  /** Where they come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, Name> | undefined;
}

/** A process. `SimulatedDaemon` is what a test sees of it. */
export class DaemonProcess {
  readonly core: Core;
  readonly queries: Queries;
  readonly pool: ClientPool;
  /** What the manager answered by `cr-response`. */
  readonly crResponses: Mailbox<string> = new Mailbox();
  readonly #runner: CommandRunner;
  readonly #exit = Promise.withResolvers<string>();
  readonly #listeners = new Set<Listener>();
  readonly #serving = new Set<Promise<void>>();
  #turn: Promise<void> = Promise.resolve();
  /** The connection, logged in or not. */
  #link: ManagerLink | undefined;
  #exited: string | undefined;

  /** Starts it. */
  constructor(options: SimulatorOptions) {
    this.core = new Core(options);
    this.queries = new Queries(this.core);
    this.pool = new ClientPool(this.core);
    this.#runner = new CommandRunner(this.core, this.queries, this.pool, {
      signal: (name) => this.#signal(name),
      crResponse: (response) => this.crResponses.put(response),
    });
    this.core.enter("CONNECTING");
    if (this.core.hold) this.#hold(0);
    else this.#start();
  }

  /** Resolves with what it died of. */
  get exited(): Promise<string> {
    return this.#exit.promise;
  }

  /** See `SimulatedDaemon.listen`. */
  async listen(
    address: Address | string = "127.0.0.1:0",
    { transport = auto, signal }: SimulatorTransportOptions<"listen"> = {},
  ): Promise<Address> {
    const listener = await transport.listen(address, { signal });
    if (this.#exited !== undefined) {
      await listener.close();
      throw this.#exitError("listening");
    }
    this.#listeners.add(listener);
    this.#track(
      (async () => {
        // The next one is not accepted before: it waits in the queue of the listener.
        for await (const conn of listener) await this.serve(conn);
      })().catch(() => {}),
    );
    return listener.addr;
  }

  /** See `SimulatedDaemon.dial`. */
  async dial(
    address: Address | string,
    { transport = auto, signal }: SimulatorTransportOptions<"connect"> = {},
  ): Promise<void> {
    const conn = await transport.connect(address, { signal });
    this.#track(this.serve(conn).then(() => this.die("management-exit")));
  }

  /** See `SimulatedDaemon.serve`. */
  serve(duplex: Duplex | Conn): Promise<void> {
    const conn = wrapConn(duplex);
    return this.#track(this.#turn = this.#turn.then(() => this.#serveOne(conn)));
  }

  /** See `SimulatedDaemon.close`. */
  async close(): Promise<void> {
    this.die("closed");
    await Promise.all(this.#serving);
  }

  /** Waits for an answer. */
  ask(...[kind, name, line, options]: Parameters<Queries["ask"]>): Promise<readonly string[]> {
    if (this.#exited !== undefined) return Promise.reject(this.#exitError(`asking for a ${kind}`));
    return this.queries.ask(kind, name, line, options);
  }

  async #serveOne(conn: Conn): Promise<void> {
    if (this.#exited !== undefined) return conn.abort(this.#exitError("serving a manager"));
    const core = this.core;
    const link = new ManagerLink(conn);
    this.#link = link;
    await this.#runner.serve(link);
    this.#link = undefined;
    if (core.managementSignal && this.#exited === undefined && core.link === link) {
      core.link = undefined;
      this.restart("SIGUSR1", "management-disconnect");
    }
    core.link = undefined;
    for (const history of [core.state, core.log, core.echo]) history.on = false;
    // Up to 2.6.19 the next manager inherits it (spec 1.1).
    if (core.is27) core.byteCountSeconds = 0;
  }

  /** Waits for the release of a hold, and starts then. */
  #hold(seconds: number): void {
    const line = `>HOLD:Waiting for hold release:${seconds}`;
    this.queries.ask("hold", "", line).then(() => this.#start(), () => {});
  }

  /** See `SimulatedDaemon.fatal`. */
  fatal(text: string): void {
    this.core.say(`>FATAL:${text}`);
    this.die(text);
  }

  #start(): void {
    this.core.started = true;
    if (!this.core.server) return;
    this.core.enter("ASSIGN_IP", ["", "10.8.0.1"]);
    this.core.enter("CONNECTED", ["SUCCESS", "10.8.0.1"]);
  }

  /** Restarts it; `reason` is told with the state. */
  restart(signal: RestartSignal, reason: string): void {
    this.queries.fail("restarted");
    this.pool.restart();
    this.core.enter("RECONNECTING", [reason]);
    if (signal === "SIGHUP") this.core.reset();
    if (this.core.hold) this.#hold(signal === "SIGHUP" ? 0 : 2);
    else this.#start();
  }

  /** What a signal does that the manager sent, after the answer. */
  #signal(name: string): void {
    if (name === "SIGUSR2") {
      for (const line of this.#runner.status(undefined)) this.core.note(this.core.log, `I,${line}`);
    } else if (name === "SIGTERM") {
      this.core.enter("EXITING", [name]);
      this.die(name);
    } else if (this.queries.wantsPassword) {
      this.fatal(
        "ERROR: could not read Auth username/password/ok/string from management interface",
      );
    } else if (name === "SIGHUP" || name === "SIGUSR1") {
      this.restart(name, name);
    }
  }

  /** Ends it. */
  die(reason: string): void {
    if (this.#exited !== undefined) return;
    this.#exited = reason;
    this.queries.fail("exited");
    this.crResponses.end(this.#exitError("waiting for cr-response"));
    this.#link?.end(reason === "closed" ? "lost" : "sent");
    for (const listener of this.#listeners) this.#track(listener.close());
    this.#exit.resolve(reason);
  }

  #track(work: Promise<void>): Promise<void> {
    this.#serving.add(work);
    work.then(() => this.#serving.delete(work), () => this.#serving.delete(work));
    return work;
  }

  /** Throws if it has exited. */
  refuseExited(what: string): void {
    if (this.#exited !== undefined) throw this.#exitError(what);
  }

  #exitError(what: string): SimulationError {
    return new SimulationError("exited", `${what}: the daemon has exited`);
  }
}
