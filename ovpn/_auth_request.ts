/**
 * A request as the one who serves it has it.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { textFromBase64, toBase64 } from "./_base64.ts";
import { showAs } from "./_redact.ts";
import {
  type AuthDecision,
  AuthError,
  type ClientAuthRequest,
  type DynamicChallengeOptions,
  type PendingOptions,
  type PendingStep,
} from "./auth_request.ts";
import type { ManagementClient } from "./client.ts";
import { encodeWords } from "./command.ts";
import { requireConfig } from "./commands_server.ts";
import { ManagementError } from "./errors.ts";
import type { ClientAuthEvent } from "./event.ts";

/**
 * How much longer than the handler a client is told to wait. It looks at the clock every 5 seconds, and if its time is over then it gives up
 * and logs in anew; a decision takes a second or two to reach it.
 */
const PENDING_GRACE_SECONDS = 5;

/** Why a step may not be sent to somebody who still waits: a reply that is late need not end the connection. */
const OPEN_AFTER: ReadonlySet<string> = new Set(["command", "aborted", "timeout"]);

/** What becomes of a request without a decision. */
export interface RequestEnd {
  /** The time is over. */
  onTimeout(request: OpenRequest): void;
  /** A step could not be sent, since there is nobody to send it to. */
  onGone(request: OpenRequest, error: ManagementError): void;
}

interface Waiter {
  resolve(response: string): void;
  reject(error: unknown): void;
}

/** A request that is open until `end()`. */
export class OpenRequest implements ClientAuthRequest {
  readonly event: ClientAuthEvent;
  /** Whether the handler has it. */
  started = false;
  readonly #client: ManagementClient;
  readonly #end: RequestEnd;
  readonly #controller = new AbortController();
  /** How each decision is sent. One of another request is not found here. */
  readonly #decisions = new WeakMap<object, () => Promise<void>>();
  readonly #waiters = new Set<Waiter>();
  readonly #since: number = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #deadline = 0;
  /** Whether there is a question to answer. */
  #asked = false;
  /** An answer that nobody has waited for yet. */
  #unread: string | undefined;
  /** Why it is over: with a reason, or decided. */
  #over: { readonly reason: ManagementError | AuthError | undefined } | undefined;

  constructor(
    client: ManagementClient,
    event: ClientAuthEvent,
    timeoutMs: number,
    end: RequestEnd,
  ) {
    this.#client = client;
    this.event = event;
    this.#end = end;
    this.#giveTime(timeoutMs);
    showAs(this, () => {
      const { kind, clientId, keyId, commonName, username } = this;
      return { kind, clientId, keyId, commonName, username };
    });
  }

  get kind(): "CONNECT" | "REAUTH" {
    return this.event.kind;
  }

  get clientId(): string {
    return this.event.clientId;
  }

  get keyId(): string {
    return this.event.keyId;
  }

  get env(): ReadonlyMap<string, string> {
    return this.event.env;
  }

  get commonName(): string | undefined {
    return this.env.get("common_name");
  }

  get username(): string | undefined {
    return this.env.get("username");
  }

  get password(): string | undefined {
    return this.env.get("password");
  }

  get staticResponse(): ClientAuthRequest["staticResponse"] {
    const match = /^SCRV1:([^:]*):([^:]*)$/.exec(this.password ?? "");
    if (match === null) return undefined;
    const [, first = "", second = ""] = match;
    const [password, response] = [textFromBase64(first), textFromBase64(second)];
    if (password === undefined || response === undefined) return undefined;
    return { password, response };
  }

  get dynamicResponse(): ClientAuthRequest["dynamicResponse"] {
    const [, stateId, response] = /^CRV1::([^:]+)::(.*)$/s.exec(this.password ?? "") ?? [];
    if (stateId === undefined || response === undefined) return undefined;
    return { stateId, response };
  }

  get sso(): ReadonlySet<string> {
    return new Set((this.env.get("IV_SSO") ?? "").split(",").filter((method) => method !== ""));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it has been decided, or nobody waits for that any more. */
  get over(): boolean {
    return this.#over !== undefined;
  }

  accept(config: readonly string[] = []): AuthDecision {
    const lines = [...config];
    // It throws here what the command would throw when it is too late.
    requireConfig(lines);
    return this.#decision(
      "accept",
      () =>
        lines.length === 0
          ? this.#client.clientAuthNt(this.event)
          : this.#client.clientAuth(this.event, lines),
    );
  }

  deny(reason: string, clientReason?: string): AuthDecision {
    const texts = clientReason === undefined ? [reason] : [reason, clientReason];
    encodeWords(["client-deny", this.clientId, this.keyId], texts);
    return this.#decision(
      "deny",
      () => this.#client.clientDeny(this.event, reason, clientReason),
    );
  }

  challenge(
    {
      text,
      stateId,
      echo = false,
      responseRequired = true,
      username = this.username ?? "",
      reason = "challenge",
    }: DynamicChallengeOptions,
  ): AuthDecision {
    if (!/^[^:]+$/.test(stateId)) {
      throw new TypeError("the state id of a challenge is a text without colons");
    }
    const name = toBase64(username);
    return this.deny(reason, `CRV1:${flagsOf(responseRequired, echo)}:${stateId}:${name}:${text}`);
  }

  async pending(step: PendingStep, { timeoutMs, signal }: PendingOptions = {}): Promise<void> {
    if (this.#over !== undefined) throw overError(this.#over.reason);
    const extra = stepText(step);
    if (timeoutMs !== undefined) requireLimit("timeoutMs", timeoutMs);
    const time = timeoutMs ?? Math.max(1, this.#deadline - performance.now());
    if (step.kind === "CR_TEXT") {
      // What came before is no answer to this.
      this.#unread = undefined;
      this.#asked = true;
    }
    // The client counts from its login, whenever it hears of this.
    const total = performance.now() - this.#since + time;
    const seconds = Math.round(total / 1000) + PENDING_GRACE_SECONDS;
    const either = signal === undefined ? this.signal : AbortSignal.any([this.signal, signal]);
    try {
      await this.#client.clientPendingAuth(this.event, extra, seconds, { signal: either });
    } catch (error) {
      const gone = error instanceof ManagementError && !OPEN_AFTER.has(error.code);
      if (gone) this.#end.onGone(this, error);
      throw error;
    }
    if (timeoutMs !== undefined && !this.over) this.#giveTime(timeoutMs);
  }

  async response({ signal }: WaitOptions = {}): Promise<string> {
    if (this.#over !== undefined) throw overError(this.#over.reason);
    if (signal?.aborted) throw waitAborted(signal);
    const response = this.#unread ?? await this.#nextResponse(signal);
    this.#unread = undefined;
    const text = textFromBase64(response);
    if (text !== undefined) return text;
    throw new AuthError(
      "unreadable-response",
      `${this.kind} ${this.clientId},${this.keyId}: the client's answer is not base64 of UTF-8`,
    );
  }

  async #nextResponse(signal: AbortSignal | undefined): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const waiter = { resolve, reject };
    const onAbort = () => reject(waitAborted(signal!));
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#waiters.add(waiter);
    try {
      return await promise;
    } finally {
      this.#waiters.delete(waiter);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Takes a `CR_RESPONSE` of this client. */
  respond(response: string): void {
    if (!this.#asked) return;
    for (const waiter of this.#waiters) {
      this.#waiters.delete(waiter);
      return waiter.resolve(response);
    }
    this.#unread ??= response;
  }

  /** How to send a decision; `undefined` for what is none of this request. */
  sender(decision: unknown): (() => Promise<void>) | undefined {
    return typeof decision === "object" && decision !== null
      ? this.#decisions.get(decision)
      : undefined;
  }

  /** Nothing more is done for it. With a `reason` its signal fires. */
  end(reason?: ManagementError | AuthError): void {
    if (this.over) return;
    clearTimeout(this.#timer);
    this.#over = { reason };
    for (const { reject } of this.#waiters) reject(overError(reason));
    this.#waiters.clear();
    this.#unread = undefined;
    if (reason !== undefined) this.#controller.abort(reason);
  }

  #giveTime(timeoutMs: number): void {
    clearTimeout(this.#timer);
    this.#deadline = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => this.#end.onTimeout(this), timeoutMs);
  }

  #decision(kind: AuthDecision["kind"], send: () => Promise<void>): AuthDecision {
    const decision: AuthDecision = Object.freeze({ kind });
    this.#decisions.set(decision, send);
    return decision;
  }
}

function stepText(step: PendingStep): string {
  switch (step.kind) {
    case "WEB_AUTH": {
      const { flags = [] } = step;
      if (!flags.every((flag) => /^[\w-]+$/.test(flag))) {
        throw new TypeError("a flag of WEB_AUTH is a word");
      }
      return `WEB_AUTH:${flags.join(",")}:${pageUrl(step.url)}`;
    }
    case "OPEN_URL":
      return `OPEN_URL:${pageUrl(step.url)}`;
    case "CR_TEXT":
      return `CR_TEXT:${flagsOf(step.responseRequired ?? true, step.echo ?? false)}:${step.text}`;
    default:
      throw new TypeError("a step is WEB_AUTH, OPEN_URL or CR_TEXT");
  }
}

function pageUrl(url: string): string {
  if (/^https?:$/.test(URL.parse(url)?.protocol ?? "")) return url;
  throw new TypeError("the page for a client is not http or https");
}

function flagsOf(responseRequired: boolean, echo: boolean): string {
  return [responseRequired ? "R" : "", echo ? "E" : ""].filter((flag) => flag !== "").join(",");
}

/** Made when it is needed, which is seldom. */
function overError(reason: ManagementError | AuthError | undefined): ManagementError {
  if (reason instanceof ManagementError) return reason;
  return new ManagementError("aborted", "the request has been decided", { cause: reason });
}

function waitAborted(signal: AbortSignal): ManagementError {
  return new ManagementError("aborted", "waiting for a client's answer: aborted", {
    cause: signal.reason,
  });
}
