/**
 * An OpenVPN without tunnels: the management interface, and a test that makes things happen.
 *
 * @module
 */
import type { Address, Conn, Duplex, WaitOptions } from "../adapters/types.ts";
import { fromBase64, toBase64 } from "./_base64.ts";
import type { SimulatedClient, SimulatedClientOptions } from "./testing_client.ts";
import type { Core, RestartSignal, SimulatorOptions } from "./testing_core.ts";
import type { Mailbox } from "./testing_mailbox.ts";
import { DaemonProcess, type SimulatorTransportOptions } from "./testing_process.ts";
import type { Wanted } from "./testing_queries.ts";

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
 * answer, or rejects with a `SimulationError`. Without a manager events are lost, as in life; requests are kept and told to the next one.
 */
export class SimulatedDaemon implements AsyncDisposable {
  readonly #daemon: DaemonProcess;
  readonly #core: Core;

  /** See {@linkcode simulateDaemon}. */
  constructor(options: SimulatorOptions = {}) {
    this.#daemon = new DaemonProcess(options);
    this.#core = this.#daemon.core;
  }

  /** Resolves when it has exited, with what it died of: `SIGTERM`, `closed`, the text of `fatal()`, ... */
  get exited(): Promise<string> {
    return this.#daemon.exited;
  }

  /** What the manager answered by `cr-response`, in base64. */
  get crResponses(): Mailbox<string> {
    return this.#daemon.crResponses;
  }

  /** The clients of a server that have not left. */
  get clients(): readonly SimulatedClient[] {
    return this.#daemon.pool.clients;
  }

  /**
   * Listens, as `--management` says, and serves whoever connects, one after the other.
   *
   * @throws {ConnectError} if the address cannot be listened on
   */
  listen(
    address: Address | string = "127.0.0.1:0",
    options?: SimulatorTransportOptions<"listen">,
  ): Promise<Address> {
    return this.#daemon.listen(address, options);
  }

  /**
   * Connects to a manager, as with `--management-client`. When that leaves, this process exits.
   *
   * @throws {ConnectError} if there is no connection
   */
  dial(address: Address | string, options?: SimulatorTransportOptions<"connect">): Promise<void> {
    return this.#daemon.dial(address, options);
  }

  /** Serves the manager at the other end when the ones before have left; resolves when it has left too. */
  serve(duplex: Duplex | Conn): Promise<void> {
    return this.#daemon.serve(duplex);
  }

  /** A client connects to this server: `CONNECT`, or `ESTABLISHED` if there is no client-auth. */
  clientConnects(options: SimulatedClientOptions): SimulatedClient {
    this.#daemon.refuseExited("a client connects");
    if (!this.#core.server) throw new TypeError('only the mode "server" has clients');
    return this.#daemon.pool.connect(options);
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
    const [username = "", password = ""] = await this.#daemon.ask("password", name, line, {
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
    return (await this.#daemon.ask("needok-confirmation", name, line, options))[0] ?? "";
  }

  /** Asks for a text. */
  async needStr(name: string, message: string, options?: WaitOptions): Promise<string> {
    const line = `>NEED-STR:Need '${name}' string MSG:${message}`;
    return (await this.#daemon.ask("needstr-string", name, line, options))[0] ?? "";
  }

  /** Asks for a certificate; gives the lines of the answer, joined. */
  async needCertificate(hint: string, options?: WaitOptions): Promise<string> {
    const line = `>NEED-CERTIFICATE:${hint}`;
    return (await this.#daemon.ask("certificate", "", line, options)).join("\n");
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
    const base64 = toBase64(data);
    const { clientVersion } = this.#core;
    const line = clientVersion <= 1
      ? `>RSA_SIGN:${base64}`
      : `>PK_SIGN:${base64}${clientVersion >= 3 ? `,${algorithm}` : ""}`;
    const answer = (await this.#daemon.ask("signature", "", line, options)).join("");
    try {
      return fromBase64(answer);
    } catch (error) {
      throw new TypeError("the signature is not base64", { cause: error });
    }
  }

  /** Asks which remote to take; gives the words of the answer: `ACCEPT`, `SKIP` and a number, `MOD`, host and port. */
  askRemote(remote: string, options?: WaitOptions): Promise<readonly string[]> {
    return this.#daemon.ask("remote", "", `>REMOTE:${remote}`, options);
  }

  /** Asks which proxy to take for `proxy`, such as `1,TCP,host`; an answer that OpenVPN does not understand is `NONE`. */
  askProxy(proxy: string, options?: WaitOptions): Promise<readonly string[]> {
    return this.#daemon.ask("proxy", "", `>PROXY:${proxy}`, options);
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
    this.#daemon.refuseExited("restarting");
    this.#daemon.restart(signal, signal);
  }

  /** Dies with `>FATAL:`. */
  fatal(text: string): void {
    this.#daemon.fatal(text);
  }

  /** Cuts the manager off, as a broken network would. The process goes on. */
  dropManager(): void {
    this.#core.link?.end("lost");
  }

  /** Exits without a word, as by SIGKILL; resolves when everything is closed. */
  close(): Promise<void> {
    return this.#daemon.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
