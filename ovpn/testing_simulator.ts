/**
 * An OpenVPN without tunnels: the management interface, and a test that makes things happen.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Address, Conn, Duplex, Listener, Transport, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import type { SimulatedClient, SimulatedClientOptions } from "./testing_client.ts";
import {
  Core,
  type RestartSignal,
  SimulationError,
  type SimulatorOptions,
} from "./testing_core.ts";
import { CommandRunner } from "./testing_dispatch.ts";
import { ManagerLink } from "./testing_link.ts";
import { Mailbox } from "./testing_mailbox.ts";
import { Queries, type Wanted } from "./testing_queries.ts";
import { ClientPool } from "./testing_server.ts";

/** Where listeners and connections come from. */
export interface SimulatorTransportOptions<Name extends "connect" | "listen"> extends WaitOptions {
  /** Where they come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, Name> | undefined;
}

/** What {@linkcode SimulatedDaemon.askPassword} may ask for. */
export interface PasswordQuestion extends WaitOptions {
  /** What is asked for; `username` alone is of 2.7. @default "username/password" */
  readonly wants?: Wanted | undefined;
  /** A static challenge. */
  readonly challenge?: {
    readonly text: string;
    readonly echo?: boolean | undefined;
    readonly concat?: boolean | undefined;
  } | undefined;
}

/** Makes a {@linkcode SimulatedDaemon}; it does nothing before it listens, dials or is given a connection. */
export function simulateDaemon(options: SimulatorOptions = {}): SimulatedDaemon {
  return new SimulatedDaemon(options);
}

/**
 * An OpenVPN process, as its managers see it. It serves one manager at a time; others wait.
 *
 * Nothing happens by itself: the methods make it happen, at once and without timers. What waits for a manager resolves with its
 * answer, or rejects with a {@linkcode SimulationError}. Without a manager events are lost, as in life; requests are kept and told to the next one.
 */
export class SimulatedDaemon implements AsyncDisposable {
  readonly #core: Core;
  readonly #queries: Queries;
  readonly #pool: ClientPool;
  readonly #runner: CommandRunner;
  readonly #exit = Promise.withResolvers<string>();
  readonly #listeners = new Set<Listener>();
  readonly #serving = new Set<Promise<void>>();
  #turn: Promise<void> = Promise.resolve();
  #exited: string | undefined;

  /** What the manager answered by `cr-response`, in base64. */
  readonly crResponses: Mailbox<string> = new Mailbox();

  /** See {@linkcode simulateDaemon}. */
  constructor(options: SimulatorOptions = {}) {
    this.#core = new Core(options);
    this.#queries = new Queries(this.#core);
    this.#pool = new ClientPool(this.#core);
    this.#runner = new CommandRunner(this.#core, this.#queries, this.#pool, {
      signal: (name) => this.#signal(name),
      crResponse: (response) => this.crResponses.put(response),
    });
    this.#core.enter("CONNECTING");
    if (this.#core.hold) this.#hold(0);
    else this.#start();
  }

  /** Resolves when it has exited, with what it died of: `SIGTERM`, `closed`, the text of `fatal()`, ... */
  get exited(): Promise<string> {
    return this.#exit.promise;
  }

  /** The clients of a server that have not left. */
  get clients(): readonly SimulatedClient[] {
    return this.#pool.clients;
  }

  /**
   * Listens, as `--management` says, and serves whoever connects, one after the other.
   *
   * @throws {ConnectError} if the address cannot be listened on
   */
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

  /**
   * Connects to a manager, as with `--management-client`. When that leaves, this process exits.
   *
   * @throws {ConnectError} if there is no connection
   */
  async dial(
    address: Address | string,
    { transport = auto, signal }: SimulatorTransportOptions<"connect"> = {},
  ): Promise<void> {
    const conn = await transport.connect(address, { signal });
    this.#track(this.serve(conn).then(() => this.#die("management-exit")));
  }

  /** Serves the manager at the other end when the ones before have left; resolves when it has left too. */
  serve(duplex: Duplex | Conn): Promise<void> {
    const conn = wrapConn(duplex);
    return this.#track(this.#turn = this.#turn.then(() => this.#serveOne(conn)));
  }

  /** A client connects to this server: `CONNECT`, or `ESTABLISHED` if there is no client-auth. */
  clientConnects(options: SimulatedClientOptions): SimulatedClient {
    this.#refuseExited("a client connects");
    if (!this.#core.server) throw new TypeError('only the mode "server" has clients');
    return this.#pool.connect(options);
  }

  /** Asks for a username and password, or one of them. */
  async askPassword(
    name = "Auth",
    { wants = "username/password", challenge, signal }: PasswordQuestion = {},
  ): Promise<{ readonly username: string; readonly password: string }> {
    let line = `>PASSWORD:Need '${name}' ${wants}`;
    if (challenge !== undefined) {
      const { text, echo = false, concat = false } = challenge;
      line += ` SC:${(echo ? 1 : 0) + (concat ? 2 : 0)},${text}`;
    }
    const [username = "", password = ""] = await this.#ask("password", name, line, {
      signal,
      wants,
    });
    return { username, password };
  }

  /** Says that what was answered is wrong; `reason` may be a dynamic challenge, `CRV1:...`. */
  verificationFailed(name = "Auth", reason?: string): void {
    const text = `>PASSWORD:Verification Failed: '${name}'`;
    this.send(reason === undefined ? text : `${text} ['${reason}']`);
  }

  /** Asks for a confirmation; gives `ok`, `cancel` or what else came. */
  async needOk(name: string, message: string, options?: WaitOptions): Promise<string> {
    const line = `>NEED-OK:Need '${name}' confirmation MSG:${message}`;
    return (await this.#ask("needok-confirmation", name, line, options))[0] ?? "";
  }

  /** Asks for a text. */
  async needStr(name: string, message: string, options?: WaitOptions): Promise<string> {
    const line = `>NEED-STR:Need '${name}' string MSG:${message}`;
    return (await this.#ask("needstr-string", name, line, options))[0] ?? "";
  }

  /** Asks for a certificate; gives the lines of the answer, joined. */
  async needCertificate(hint: string, options?: WaitOptions): Promise<string> {
    const line = `>NEED-CERTIFICATE:${hint}`;
    return (await this.#ask("certificate", "", line, options)).join("\n");
  }

  /**
   * Asks for a signature, as `PK_SIGN` or `RSA_SIGN` by the version that the manager told.
   *
   * @param algorithm With its parameters, such as `RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=digest`
   * @throws {TypeError} if the answer is not base64
   */
  async sign(
    data: Uint8Array,
    algorithm = "RSA_PKCS1_PADDING",
    options?: WaitOptions,
  ): Promise<Uint8Array> {
    const base64 = btoa(String.fromCharCode(...data));
    const { clientVersion } = this.#core;
    const line = clientVersion <= 1
      ? `>RSA_SIGN:${base64}`
      : `>PK_SIGN:${base64}${clientVersion >= 3 ? `,${algorithm}` : ""}`;
    const answer = (await this.#ask("signature", "", line, options)).join("");
    try {
      return Uint8Array.from(atob(answer), (character) => character.charCodeAt(0));
    } catch (error) {
      throw new TypeError("the signature is not base64", { cause: error });
    }
  }

  /** Asks which remote to take; gives the words of the answer: `ACCEPT`, `SKIP` and a number, `MOD`, host and port. */
  askRemote(remote: string, options?: WaitOptions): Promise<readonly string[]> {
    return this.#ask("remote", "", `>REMOTE:${remote}`, options);
  }

  /** Asks which proxy to take for `proxy`, such as `1,TCP,host`; an answer that OpenVPN does not understand is `NONE`. */
  askProxy(proxy: string, options?: WaitOptions): Promise<readonly string[]> {
    return this.#ask("proxy", "", `>PROXY:${proxy}`, options);
  }

  /** Enters a state; `fields` begin with the description, then come the addresses (spec 1.5). */
  state(name: string, ...fields: readonly string[]): void {
    this.#core.enter(name, fields);
  }

  /** Logs a line; `flags` are of `IFNWD`. */
  log(text: string, flags = "I"): void {
    this.#core.note(this.#core.log, `${flags},${text}`);
  }

  /** Tells a pushed or configured `echo`. */
  echo(text: string): void {
    this.#core.note(this.#core.echo, text);
  }

  /** Sets what has passed, and tells it if the manager asked for `bytecount`. */
  byteCount(bytesIn: number, bytesOut: number): void {
    [this.#core.bytesIn, this.#core.bytesOut] = [bytesIn, bytesOut];
    if (this.#core.byteCountSeconds > 0) this.send(`>BYTECOUNT:${bytesIn},${bytesOut}`);
  }

  /** Tells that the tunnel is up or down. */
  upDown(kind: "UP" | "DOWN", env: Iterable<readonly [string, string]> = []): void {
    this.#core.sayBlock("UPDOWN", kind, env);
  }

  /** Sends a line, whatever it is. It is cut at 10239 bytes, together with its end. */
  send(line: string): void {
    this.#core.say(line);
  }

  /**
   * Restarts: clients leave and CIDs begin again, requests are withdrawn, and it holds again if the hold flag is set. The manager
   * stays connected.
   */
  restart(signal: RestartSignal = "SIGUSR1"): void {
    this.#refuseExited("restarting");
    this.#restart(signal, signal);
  }

  /** Dies with `>FATAL:`. */
  fatal(text: string): void {
    this.send(`>FATAL:${text}`);
    this.#die(text);
  }

  /** Cuts the manager off, as a broken network would. The process goes on. */
  dropManager(): void {
    this.#core.link?.end("lost");
  }

  /** Exits without a word, as by SIGKILL; resolves when everything is closed. */
  async close(): Promise<void> {
    this.#die("closed");
    await Promise.all(this.#serving);
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #ask(...[kind, name, line, options]: Parameters<Queries["ask"]>): Promise<readonly string[]> {
    if (this.#exited !== undefined) return Promise.reject(this.#exitError(`asking for a ${kind}`));
    return this.#queries.ask(kind, name, line, options);
  }

  async #serveOne(conn: Conn): Promise<void> {
    if (this.#exited !== undefined) return conn.abort(this.#exitError("serving a manager"));
    const core = this.#core;
    const link = new ManagerLink(conn);
    this.#link = link;
    await this.#runner.serve(link);
    this.#link = undefined;
    if (core.managementSignal && this.#exited === undefined && core.link === link) {
      core.link = undefined;
      this.#restart("SIGUSR1", "management-disconnect");
    }
    core.link = undefined;
    for (const history of [core.state, core.log, core.echo]) history.on = false;
    // Up to 2.6.19 the next manager inherits it (spec 1.1).
    if (core.is27) core.byteCountSeconds = 0;
  }

  #link: ManagerLink | undefined;

  /** Waits for the release of a hold, and starts then. */
  #hold(seconds: number): void {
    const line = `>HOLD:Waiting for hold release:${seconds}`;
    this.#queries.ask("hold", "", line).then(() => this.#start(), () => {});
  }

  #start(): void {
    this.#core.started = true;
    if (!this.#core.server) return;
    this.#core.enter("ASSIGN_IP", ["", "10.8.0.1"]);
    this.#core.enter("CONNECTED", ["SUCCESS", "10.8.0.1"]);
  }

  #restart(signal: RestartSignal, reason: string): void {
    this.#queries.fail("restarted");
    this.#pool.restart();
    this.#core.enter("RECONNECTING", [reason]);
    if (signal === "SIGHUP") this.#core.reset();
    if (this.#core.hold) this.#hold(signal === "SIGHUP" ? 0 : 2);
    else this.#start();
  }

  /** What a signal does that the manager sent, after the answer. */
  #signal(name: string): void {
    if (name === "SIGUSR2") {
      for (const line of this.#runner.status(undefined)) this.log(line);
    } else if (name === "SIGTERM") {
      this.#core.enter("EXITING", [name]);
      this.#die(name);
    } else if (this.#queries.wantsPassword) {
      this.fatal(
        "ERROR: could not read Auth username/password/ok/string from management interface",
      );
    } else if (name === "SIGHUP" || name === "SIGUSR1") {
      this.#restart(name, name);
    }
  }

  #die(reason: string): void {
    if (this.#exited !== undefined) return;
    this.#exited = reason;
    this.#queries.fail("exited");
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

  #refuseExited(what: string): void {
    if (this.#exited !== undefined) throw this.#exitError(what);
  }

  #exitError(what: string): SimulationError {
    return new SimulationError("exited", `${what}: the daemon has exited`);
  }
}
