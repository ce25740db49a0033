/**
 * Finds out what is spoken, and makes the session for it.
 *
 * @module
 */
import type { Conn } from "../adapters/types.ts";
import { Head } from "./_head.ts";
import type { Session } from "./_session.ts";
import type { Config, MuxProtocol } from "./config.ts";
import { MuxError } from "./errors.ts";
import { SessionV1 } from "./v1/session.ts";
import { beginsV2, shakeHands } from "./v2/handshake.ts";
import { SessionV2 } from "./v2/session.ts";

/** A session that is being made. */
export class Opening {
  /** Rejects with what went wrong, or with `closed`. */
  readonly session: Promise<Session>;
  /** How it ended, if it never became a session. */
  readonly closed: Promise<void>;
  /** What is spoken, as soon as that is known. */
  protocol: MuxProtocol | undefined;
  readonly #conn: Conn;
  readonly #isClient: boolean;
  readonly #config: Config;
  readonly #head: Head;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #deadline = Infinity;
  #reject!: (error: MuxError) => void;
  #settleClosed!: { resolve(): void; reject(error: MuxError): void };
  #ended: MuxError | undefined;
  /** The session, which nobody has been given yet. */
  #made: Session | undefined;

  constructor(conn: Conn, isClient: boolean, config: Config) {
    this.#conn = conn;
    this.#isClient = isClient;
    this.#config = config;
    this.#head = new Head(conn);
    if (config.protocols.length === 1) this.protocol = config.protocols[0];
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    this.closed.catch(() => {});
    this.session = new Promise((resolve, reject) => {
      this.#reject = reject;
      this.#open().then((session) => {
        clearTimeout(this.#timer);
        resolve(session);
      }, (error) => this.#fail(error));
    });
    this.session.catch(() => {});
  }

  /** Gives it up, and ends the transport in order. */
  close(): Promise<void> {
    if (this.#made !== undefined) return this.#made.close({});
    const error = new MuxError("closed", "the session was closed before its handshake was done");
    if (this.#end(error)) this.#conn.close().catch(() => {}).then(this.#settleClosed.resolve);
    return this.closed;
  }

  abort(cause: unknown): void {
    if (this.#made !== undefined) return this.#made.abort(cause);
    this.#fail(new MuxError("closed", "the session was aborted", { cause }));
  }

  #fail(error: MuxError): void {
    if (!this.#end(error)) return;
    this.#settleClosed.reject(error);
    this.#conn.abort(error);
  }

  /** False if it has ended before. */
  #end(error: MuxError): boolean {
    if (this.#ended !== undefined) return false;
    this.#ended = error;
    clearTimeout(this.#timer);
    this.#reject(error);
    return true;
  }

  async #open(): Promise<Session> {
    if (this.protocol === undefined) {
      // A gomux that is silent is in order, so that time runs from its first bytes on.
      const idle = this.#config.limits.v1.idleTimeoutMs;
      this.#limit(idle, `no bytes of the peer within ${idle} ms`);
      const isV2 = await this.#isV2();
      this.protocol = isV2 ? "v2" : "v1";
      if (!isV2) {
        return this.#made = new SessionV1(
          this.#conn,
          this.#isClient,
          this.#config,
          this.#head.rest,
        );
      }
    }
    if (this.#config.protocols.length === 1) this.#limitHandshake();
    const agreed = await shakeHands(this.#conn, this.#isClient, this.#config, this.#head);
    if (this.#ended !== undefined) throw this.#ended;
    const left = Math.max(1, this.#deadline - performance.now());
    return this.#made = new SessionV2(
      this.#conn,
      this.#isClient,
      this.#config,
      agreed,
      this.#head.rest,
      left,
    );
  }

  async #isV2(): Promise<boolean> {
    for (;;) {
      const known = beginsV2(this.#head.rest);
      if (known !== undefined) return known;
      const first = this.#head.rest.length === 0;
      let more: boolean;
      try {
        more = await this.#head.fill(this.#head.rest.length + 1);
      } catch (cause) {
        throw new MuxError("truncated", "the transport failed before any frame of the peer", {
          cause,
        });
      }
      // The session tells what is wrong with it.
      if (!more) return false;
      if (first) this.#limitHandshake();
    }
  }

  #limitHandshake(): void {
    const { handshakeTimeoutMs } = this.#config.limits.v2;
    this.#limit(handshakeTimeoutMs, `handshake: not done within ${handshakeTimeoutMs} ms`);
  }

  /** The time runs anew. */
  #limit(ms: number, text: string): void {
    clearTimeout(this.#timer);
    this.#deadline = performance.now() + ms;
    this.#timer = setTimeout(() => this.#fail(new MuxError("timeout", text)), ms);
  }
}
