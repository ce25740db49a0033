/**
 * Decides which clients of a server may connect.
 *
 * @module
 */
import { requireChoice, requireFunction, requireLimit } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { OpenRequest } from "./_auth_request.ts";
import { tell } from "./_callback.ts";
import { persist } from "./_persist.ts";
import { restartUnheard } from "./_unheard.ts";
import {
  type AuthDecision,
  AuthError,
  type AuthErrorCode,
  type ClientAuthRequest,
} from "./auth_request.ts";
import type { ManagementClient } from "./client.ts";
import { CommandError, ManagementError } from "./errors.ts";
import type { ClientAuthEvent, ClientEvent, ManagementEvent } from "./event.ts";

export { MAX_CONFIG_LINE_BYTES } from "./commands_server.ts";

/** Decides about a request, by one of its methods: `return request.accept()`. Anything else that it does denies it. */
export type AuthHandler = (request: ClientAuthRequest) => AuthDecision | Promise<AuthDecision>;

/** Options of {@linkcode serveAuth}. `signal` does as `stop()`. */
export interface ServeAuthOptions extends WaitOptions {
  /**
   * How long a decision may take, in milliseconds from the request, with the wait for its turn: then it is denied.
   * {@linkcode ClientAuthRequest.pending} can give more, and tells the client 5 s more than the handler has. OpenVPN itself gives up
   * after `--hand-window`, 60 s. @default 60000
   */
  readonly timeoutMs?: number | undefined;
  /** How many requests the handler is given at a time. @default 1024 */
  readonly maxConcurrent?: number | undefined;
  /** How many more wait for their turn; beyond it they are denied. @default 8192 */
  readonly maxWaiting?: number | undefined;
  /**
   * What to do when a client renews its key: `ask` the handler; or `accept-same`, accept without asking whoever we accepted before and has
   * the same user and common name as then. Its password is not looked at. @default "ask"
   */
  readonly reauth?: "ask" | "accept-same" | undefined;
  /**
   * What to do about clients that wait for a decision, but whose `CONNECT` came while nobody was connected: `leave` them to their time, about
   * a minute; or `restart` those with a username, at the beginning and after each reconnection, so that they log in again at once. Then
   * nobody else should decide about clients over this connection. @default "leave"
   */
  readonly unheard?: "leave" | "restart" | undefined;
  /** Hears of what was denied without a decision, and of answers that were not taken. @default nobody */
  readonly onError?: ((error: AuthError, request: ClientAuthRequest) => void) | undefined;
}

/** What has become of the requests so far. */
export interface AuthCounts {
  /** Let in. */
  readonly accepted: number;
  /** Denied, by the handler or without it. */
  readonly denied: number;
  /** Withdrawn before there was a decision, or while it was sent and the connection ended: whether it arrived is not known. */
  readonly cancelled: number;
  /** Decided too late: the client was gone, and the answer was not sent. */
  readonly stale: number;
  /** Not taken by OpenVPN, or not in time. */
  readonly failed: number;
  /** With the handler now. */
  readonly running: number;
  /** Waiting for their turn now. */
  readonly waiting: number;
}

/** Options of {@linkcode AuthServer.stop}. */
export interface StopOptions {
  /** What to do with requests without a decision: `deny` them, or `leave` them to another manager, or to their time. @default "deny" */
  readonly open?: "deny" | "leave" | undefined;
}

/** Serves until it is stopped or the connection ends. */
export interface AuthServer extends AsyncDisposable {
  /** Resolves when it has stopped, or the connection has ended; rejects if it cannot go on. It may be ignored. */
  readonly closed: Promise<void>;
  /** What has become of the requests so far. */
  readonly counts: AuthCounts;
  /** Takes no more requests; resolves when what is decided has been sent. */
  stop(options?: StopOptions): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_MAX_CONCURRENT = 1024;
const DEFAULT_MAX_WAITING = 8192;

/** What a client is told whom nobody has decided upon. */
const CLIENT_REASON = "Authentication failed, try again later";
const STOPPED = "this server is not served any more";

/**
 * Decides which clients may connect, and stay, to a server with `--management-client-auth`: calls `handler` once for each request, many at
 * a time, and sends its decision.
 *
 * - A decision is sent for the very client that it is about. If that has left meanwhile, or OpenVPN restarted and gave its ids to another, it
 *   is not sent, and counted as `stale`. For that this turns on `STATE` events (`state on`).
 * - Whom the handler does not accept is denied: if it fails, gives something else, takes too long, if there are too many, and
 *   without asking it if the environment has faults. The client is told no more than that; `onError` and OpenVPN's log are told why.
 * - When nobody waits any more for a decision, the `signal` of its request fires: a client left, OpenVPN restarts, the connection ends.
 *   A handler that does not heed it runs on, but not among the `maxConcurrent`.
 *
 * Requests that came before are served too if nobody has read `client.events` yet.
 *
 * @example
 * ```ts
 * import { dial, serveAuth } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = simulateDaemon({ mode: "server" }); // in life: an OpenVPN server
 * const client = await dial(await daemon.listen());
 * const server = serveAuth(client, (request) =>
 *   request.username === "al" && request.password === "secret"
 *     ? request.accept(['push "route 10.9.0.0 255.255.0.0"'])
 *     : request.deny("unknown user", "Wrong name or password"));
 *
 * const alice = daemon.clientConnects({ commonName: "alice", username: "al", password: "secret" });
 * console.log((await alice.decision).kind); // accepted
 * await server.stop();
 * await client.close();
 * await daemon.close();
 * ```
 *
 * @throws {TypeError} if `handler` or `onError` is no function, or `reauth` or `unheard` none of its words
 * @throws {RangeError} if a limit is not positive
 */
export function serveAuth(
  client: ManagementClient,
  handler: AuthHandler,
  options: ServeAuthOptions = {},
): AuthServer {
  return new Serving(client, handler, options);
}

class Serving implements AuthServer {
  readonly closed: Promise<void>;
  readonly #client: ManagementClient;
  readonly #handler: AuthHandler;
  readonly #timeoutMs: number;
  readonly #maxConcurrent: number;
  readonly #maxWaiting: number;
  readonly #options: ServeAuthOptions;
  readonly #events: AsyncIterableIterator<ManagementEvent, undefined>;
  /** By CID, and by KID. */
  readonly #open = new Map<string, Map<string, OpenRequest>>();
  readonly #waiting = new Set<OpenRequest>();
  readonly #sending = new Set<Promise<void>>();
  /** Whom we let in, by CID, if the policy wants to know. */
  readonly #accepted = new Map<string, string>();
  readonly #counts = { accepted: 0, denied: 0, cancelled: 0, stale: 0, failed: 0 };
  /** The CIDs of this connection's requests, until the ones that were not heard have been looked for. */
  #heard: Set<string> | undefined;
  /** Ends that search. */
  #search: AbortController | undefined;
  /** Asks for `STATE` events. */
  #follow: () => void = () => {};
  #running = 0;
  #stopped = false;
  /** What becomes of requests that come after that. */
  #late: "deny" | "leave" = "leave";
  #failure: unknown;

  constructor(client: ManagementClient, handler: AuthHandler, options: ServeAuthOptions) {
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#maxConcurrent = options.maxConcurrent ?? DEFAULT_MAX_CONCURRENT;
    this.#maxWaiting = options.maxWaiting ?? DEFAULT_MAX_WAITING;
    requireFunction("handler", handler);
    if (options.onError !== undefined) requireFunction("onError", options.onError);
    requireLimit("timeoutMs", this.#timeoutMs);
    requireLimit("maxConcurrent", this.#maxConcurrent);
    requireLimit("maxWaiting", this.#maxWaiting);
    requireChoice("reauth", options.reauth ?? "ask", ["ask", "accept-same"]);
    requireChoice("unheard", options.unheard ?? "leave", ["leave", "restart"]);
    this.#client = client;
    this.#handler = handler;
    this.#options = options;
    this.#events = client.subscribe();
    if (options.unheard === "restart") this.#heard = new Set();
    this.closed = this.#serve();
    this.closed.catch(() => {});
  }

  get counts(): AuthCounts {
    return { ...this.#counts, running: this.#running, waiting: this.#waiting.size };
  }

  async stop({ open = "deny" }: StopOptions = {}): Promise<void> {
    requireChoice("open", open, ["deny", "leave"]);
    this.#stopped = true;
    this.#late = open;
    this.#search?.abort();
    if (open === "deny") this.#denyAll(STOPPED);
    else this.#cancelAll(STOPPED);
    // Nobody else hears of requests that came before this, and were not read yet. After a turn they were.
    await new Promise((resolve) => setTimeout(resolve, 0));
    this.#events.return?.();
    await Promise.all(this.#sending);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #serve(): Promise<void> {
    const { signal } = this.#options;
    const stop = () => void this.stop();
    if (signal?.aborted) return await this.stop();
    signal?.addEventListener("abort", stop, { once: true });
    const ended = new AbortController();
    // Answers queue up behind it.
    this.#follow = persist((wait) => this.#client.setStateEvents(true, wait), {
      signal: ended.signal,
      onError: (error) => {
        // Otherwise its reply is late, or the connection is over.
        if (!(error instanceof CommandError)) return;
        this.#failure = error;
        stop();
      },
    });
    this.#restartUnheard();
    try {
      for await (const event of this.#events) this.#onEvent(event);
    } catch (error) {
      this.#denyAll("events were lost");
      throw error;
    } finally {
      ended.abort();
      signal?.removeEventListener("abort", stop);
      this.#stopped = true;
      this.#cancelAll("the connection to OpenVPN has ended");
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #onEvent(event: ManagementEvent): void {
    switch (event.type) {
      case "CLIENT":
        return this.#onClient(event);
      case "STATE":
        if (event.name !== "RECONNECTING" && event.name !== "EXITING") return;
        return this.#cancelAll("OpenVPN restarts");
      case "HOLD":
        return this.#cancelAll("OpenVPN has restarted");
      case "connected":
        // It waits for the set-up, and is sent before what is called after that.
        this.#follow();
        if (this.#options.unheard === "restart") this.#heard = new Set();
        return;
      case "resumed":
        this.#follow();
        return this.#restartUnheard();
      case "disconnected":
        return this.#cancelAll("the connection to OpenVPN has ended");
      case "dropped":
        // One of them may have told of a restart.
        if (event.counts.has("STATE")) this.#denyAll("events were lost");
    }
  }

  #onClient(event: ClientEvent): void {
    const requests = this.#open.get(event.clientId);
    switch (event.kind) {
      case "CONNECT":
        this.#accepted.delete(event.clientId);
        return this.#onRequest(event);
      case "REAUTH":
        return this.#onRequest(event);
      case "DISCONNECT":
        this.#accepted.delete(event.clientId);
        for (const request of requests?.values() ?? []) {
          this.#cancel(request, "the client has left");
        }
        return;
      case "CR_RESPONSE": {
        const request = requests?.get(event.keyId);
        if (request === undefined) return;
        if (event.envFaults.length === 0) return request.respond(event.response);
        this.#fail(request, "unsound-env", `its answer's environment is ${event.envFaults}`);
      }
    }
  }

  #restartUnheard(): void {
    this.#search?.abort();
    const heard = this.#heard;
    if (heard === undefined || this.#stopped) return;
    const { signal } = this.#search = new AbortController();
    restartUnheard(this.#client, heard, { signal }).catch(() => {}).finally(() => {
      if (this.#heard === heard) this.#heard = undefined;
    });
  }

  #onRequest(event: ClientAuthEvent): void {
    if (this.#stopped && this.#late === "leave") return;
    const { clientId, keyId, envFaults } = event;
    this.#heard?.add(clientId);
    const before = this.#open.get(clientId)?.get(keyId);
    if (before !== undefined) this.#cancel(before, "OpenVPN has started anew");
    const request = new OpenRequest(this.#client, event, this.#timeoutMs, {
      onTimeout: (it) => this.#fail(it, "timeout", "no decision in time"),
      onGone: (it, error) => {
        this.#counts[error.code === "stale" ? "stale" : "cancelled"]++;
        this.#close(it, error);
      },
    });
    let requests = this.#open.get(clientId);
    if (requests === undefined) this.#open.set(clientId, requests = new Map());
    requests.set(keyId, request);
    if (this.#stopped) {
      this.#answer(request, request.deny(STOPPED, CLIENT_REASON));
    } else if (envFaults.length > 0) {
      this.#fail(request, "unsound-env", `its environment is ${envFaults.join(", ")}`);
    } else if (event.kind === "REAUTH" && this.#isSame(request)) {
      this.#answer(request, request.accept());
    } else if (this.#running < this.#maxConcurrent) {
      this.#run(request);
    } else if (this.#waiting.size < this.#maxWaiting) {
      this.#waiting.add(request);
    } else {
      this.#fail(request, "too-many", `${this.#maxWaiting} requests wait already`);
    }
  }

  /** Whether we let this very client in before, under the same names. */
  #isSame(request: OpenRequest): boolean {
    const who = identity(request);
    return who !== undefined && who === this.#accepted.get(request.clientId);
  }

  async #run(request: OpenRequest): Promise<void> {
    request.started = true;
    this.#running++;
    const handler = this.#handler;
    // What it throws at once comes later as well, or a queue of failures would be as deep on the stack.
    const decide = async (): Promise<unknown> => await handler(request);
    let decision: unknown;
    try {
      decision = await decide();
    } catch (cause) {
      return this.#fail(request, "handler", "the handler failed", cause);
    }
    if (request.sender(decision) !== undefined) this.#answer(request, decision as AuthDecision);
    else this.#fail(request, "no-decision", "the handler gave no decision about it");
  }

  /** Denies it, and says why. */
  #fail(request: OpenRequest, code: AuthErrorCode, why: string, cause?: unknown): void {
    if (request.over) return;
    const error = authError(request, code, why, cause);
    this.#answer(request, request.deny(why, CLIENT_REASON), error);
    this.#report(error, request);
  }

  /** Sends a decision; with a `reason` the handler is told that it is not asked any more. */
  #answer(
    request: OpenRequest,
    decision: AuthDecision,
    reason?: AuthError | ManagementError,
  ): void {
    if (request.over) return;
    const send = request.sender(decision)!;
    this.#close(request, reason);
    const sending = this.#send(request, decision, send).finally(() =>
      this.#sending.delete(sending)
    );
    this.#sending.add(sending);
  }

  async #send(
    request: OpenRequest,
    { kind }: AuthDecision,
    send: () => Promise<void>,
  ): Promise<void> {
    const { clientId } = request;
    // Until we know that it was let in again.
    this.#accepted.delete(clientId);
    try {
      await send();
    } catch (error) {
      const gone = error instanceof ManagementError && !(error instanceof CommandError) &&
        error.code !== "timeout";
      if (gone) {
        // The client, or the connection.
        this.#counts[error.code === "stale" ? "stale" : "cancelled"]++;
        return;
      }
      this.#counts.failed++;
      return this.#report(
        authError(
          request,
          "not-sent",
          "the answer was not sent, or OpenVPN did not take it",
          error,
        ),
        request,
      );
    }
    this.#counts[kind === "accept" ? "accepted" : "denied"]++;
    if (kind !== "accept" || this.#options.reauth !== "accept-same") return;
    const who = identity(request);
    if (who !== undefined) this.#accepted.set(clientId, who);
  }

  #cancel(request: OpenRequest, why: string): void {
    if (request.over) return;
    this.#counts.cancelled++;
    this.#close(request, new ManagementError("aborted", why));
  }

  #cancelAll(why: string): void {
    this.#search?.abort();
    this.#accepted.clear();
    this.#waiting.clear();
    for (const request of this.#all()) this.#cancel(request, why);
  }

  #denyAll(why: string): void {
    this.#accepted.clear();
    this.#waiting.clear();
    for (const request of this.#all()) {
      const reason = new ManagementError("aborted", why);
      this.#answer(request, request.deny(why, CLIENT_REASON), reason);
    }
  }

  #all(): OpenRequest[] {
    return [...this.#open.values()].flatMap((requests) => [...requests.values()]);
  }

  /** Takes it out, and gives its place to the next one. */
  #close(request: OpenRequest, reason: AuthError | ManagementError | undefined): void {
    if (request.over) return;
    const requests = this.#open.get(request.clientId);
    requests?.delete(request.keyId);
    if (requests?.size === 0) this.#open.delete(request.clientId);
    this.#waiting.delete(request);
    request.end(reason);
    if (!request.started) return;
    this.#running--;
    if (this.#stopped) return;
    for (const next of this.#waiting) {
      this.#waiting.delete(next);
      this.#run(next);
      return;
    }
  }

  #report(error: AuthError, request: ClientAuthRequest): void {
    tell(() => this.#options.onError?.(error, request));
  }
}

/** Who it is; `undefined` for somebody without any name. */
function identity({ username = "", commonName = "" }: ClientAuthRequest): string | undefined {
  return username === "" && commonName === "" ? undefined : JSON.stringify([username, commonName]);
}

function authError(
  { kind, clientId, keyId }: ClientAuthRequest,
  code: AuthErrorCode,
  why: string,
  cause: unknown,
): AuthError {
  const options = cause === undefined ? undefined : { cause };
  return new AuthError(code, `${kind} ${clientId},${keyId}: ${why}`, options);
}
