/**
 * The connection of a client, and the next one when that has ended.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import { Caller } from "./_caller.ts";
import { waited } from "./_wait.ts";
import type { ClientSettings } from "./client_options.ts";
import { UdsError } from "./errors.ts";

/** Opens another connection. */
export type Redial = (options: { readonly signal: AbortSignal }) => Promise<Duplex | Conn>;

/** One for each client. */
export class Connection {
  /** Settles when no call can be made any more. */
  readonly closed: Promise<void>;
  readonly #settings: ClientSettings;
  readonly #redial: Redial | undefined;
  #caller: Caller;
  /** Also those that only wait for answers that are under way. */
  readonly #callers = new Set<Caller>();
  #dialing: Promise<Caller> | undefined;
  readonly #stop = new AbortController();
  readonly #closed = Promise.withResolvers<void>();

  constructor(duplex: Duplex | Conn, settings: ClientSettings, redial: Redial | undefined) {
    this.#settings = settings;
    this.#redial = redial;
    this.#caller = this.#use(duplex);
    this.closed = redial === undefined ? this.#caller.closed : this.#closed.promise;
  }

  /** What calls are made by now. */
  caller(
    name: string,
    wait: { readonly signal?: AbortSignal | undefined; readonly timeoutMs?: number | undefined },
  ): Caller | Promise<Caller> {
    if (this.#caller.usable || this.#redial === undefined || this.#stop.signal.aborted) {
      return this.#caller;
    }
    this.#dialing ??= this.#dial(this.#redial).finally(() => this.#dialing = undefined);
    const { signal, timeoutMs = this.#settings.timeoutMs } = wait;
    return waited(name, this.#dialing, { signal, timeoutMs });
  }

  async #dial(redial: Redial): Promise<Caller> {
    try {
      const duplex = await redial({ signal: this.#stop.signal });
      const caller = this.#use(duplex);
      if (this.#stop.signal.aborted) await caller.close();
      return this.#caller = caller;
    } catch (cause) {
      if (this.#stop.signal.aborted) throw new UdsError("closed", "the client is closed");
      throw new UdsError("connection", "there is no connection to the server", { cause });
    }
  }

  #use(duplex: Duplex | Conn): Caller {
    const caller = new Caller(duplex, this.#settings);
    this.#callers.add(caller);
    const forget = () => this.#callers.delete(caller);
    caller.closed.then(forget, forget);
    return caller;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    // Calls from now on are told that it was us.
    await Promise.all([this.#caller, ...this.#callers].map((caller) => caller.close()));
    this.#closed.resolve();
  }
}
