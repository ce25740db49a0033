/**
 * The connection of a client, and the next one when that has ended.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { Caller } from "./_caller.ts";
import type { Request, StreamRequest } from "./_request.ts";
import { waited } from "./_wait.ts";
import type { ClientSettings } from "./client_options.ts";
import { UdsError } from "./errors.ts";
import type { MessageStream } from "./stream.ts";

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

  /** As {@linkcode Caller.call}. */
  call(request: Request): Promise<Uint8Array> {
    if (!this.#gone) return this.#caller.call(request);
    return this.#again(request).then(([caller, deadline]) => caller.call({ ...request, deadline }));
  }

  /** As {@linkcode Caller.stream}. */
  stream(request: StreamRequest): Promise<MessageStream> {
    if (!this.#gone) return this.#caller.stream(request);
    return this.#again(request).then(([caller, deadline]) =>
      caller.stream({ ...request, deadline })
    );
  }

  /** Whether another one is needed, and can be had. */
  get #gone(): boolean {
    return !this.#caller.usable && this.#redial !== undefined && !this.#stop.signal.aborted;
  }

  async #again(
    { name, signal, timeoutMs = this.#settings.timeoutMs }: StreamRequest,
  ): Promise<[Caller, deadline: number]> {
    const deadline = performance.now() + timeoutMs;
    this.#dialing ??= this.#dial(this.#redial!).finally(() => this.#dialing = undefined);
    return [await waited(name, this.#dialing, { signal, deadline }), deadline];
  }

  async #dial(redial: Redial): Promise<Caller> {
    const { signal } = this.#stop;
    const stopped = Promise.withResolvers<never>();
    const onStop = () => stopped.reject(new UdsError("closed", "the client is closed"));
    signal.addEventListener("abort", onStop, { once: true });
    try {
      const dialed = redial({ signal });
      // One that does not heed the signal, or was faster.
      const use = (duplex: Duplex | Conn) => {
        if (!signal.aborted) return this.#use(duplex);
        wrapConn(duplex).abort();
        throw signal.reason;
      };
      return this.#caller = await Promise.race([dialed.then(use), stopped.promise]);
    } catch (cause) {
      if (signal.aborted) throw new UdsError("closed", "the client is closed");
      throw new UdsError("connection", "there is no connection to the server", { cause });
    } finally {
      signal.removeEventListener("abort", onStop);
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
