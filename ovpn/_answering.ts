/**
 * Answers what OpenVPN asks for, each request once.
 *
 * @module
 */
import { equals } from "@std/bytes";
import type { WaitOptions } from "../adapters/types.ts";
import { tell } from "./_callback.ts";
import { AnswerError } from "./answer_error.ts";
import type { ManagementClient } from "./client.ts";
import { ManagementError } from "./errors.ts";
import type { ManagementEvent } from "./event.ts";

/** Something that answers until it is stopped. */
export interface Answering {
  /** Resolves when it has stopped, or the connection has ended; rejects if events were lost. It may be ignored. */
  readonly closed: Promise<void>;
  /** Answers nothing more, and withdraws what is being answered. */
  stop(): void;
}

/** What is told of requests that were not answered. */
export type Report = (error: AnswerError) => void;

/** Hands every event from now on to `onEvent`, one after the other, until it is stopped or the connection ends. */
export function answerEvents(
  client: ManagementClient,
  slots: readonly Slot[],
  onEvent: (event: ManagementEvent) => void | Promise<void>,
  { signal }: WaitOptions,
): Answering {
  const events = client.subscribe();
  const stop = () => {
    for (const slot of slots) slot.close();
    events.return?.();
  };
  const run = async () => {
    try {
      for await (const event of events) {
        await onEvent(event);
        if (event.type === "disconnected") { for (const slot of slots) slot.withdraw(); }
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      stop();
    }
  };
  if (signal?.aborted) stop();
  else signal?.addEventListener("abort", stop, { once: true });
  const closed = run();
  closed.catch(() => {});
  return { closed, stop };
}

/** A request that is being answered. */
export interface Open {
  /** Fires when it is withdrawn. */
  readonly signal: AbortSignal;
  /** To be called before the last command of the answer. */
  sending(): void;
}

interface Request {
  readonly raw: Uint8Array;
  readonly controller: AbortController;
  sending: boolean;
  settled: boolean;
}

/** A place for one request at a time: a new one withdraws the one before, since OpenVPN waits for one thing at a time. */
export class Slot {
  readonly #report: Report;
  #request: Request | undefined;
  #closed = false;

  constructor(report: Report) {
    this.#report = report;
  }

  /** Whether a request is being answered. */
  get busy(): boolean {
    return this.#request !== undefined && !this.#request.settled;
  }

  /** Whether this is the request that is being answered, told once more. `whole` counts an answered one, too. */
  async repeats(
    { raw }: ManagementEvent,
    { whole = false }: { readonly whole?: boolean } = {},
  ): Promise<boolean> {
    const request = this.#request;
    if (request === undefined || !equals(request.raw, raw)) return false;
    if (whole) return true;
    // The reply may have come before this event, in the same chunk, and its promise not have got here yet. After a turn it has.
    if (request.sending) await new Promise((resolve) => setTimeout(resolve, 0));
    return this.#request === request && !request.settled;
  }

  /** Answers a request by `work`. */
  open({ raw }: ManagementEvent, work: (open: Open) => Promise<void>): void {
    this.withdraw();
    if (this.#closed) return;
    const controller = new AbortController();
    const request = { raw, controller, sending: false, settled: false };
    this.#request = request;
    const { signal } = controller;
    work({ signal, sending: () => void (request.sending = true) }).catch((error) => {
      // What nobody waits for any more is no error.
      if (!signal.aborted) report(this.#report, error);
    }).finally(() => request.settled = true);
  }

  /** Forgets the request: its signal fires, and its answer is not sent. */
  withdraw(): void {
    const request = this.#request;
    this.#request = undefined;
    request?.controller.abort(
      new ManagementError("aborted", "OpenVPN does not wait for it any more"),
    );
  }

  /** Forgets the request, and takes no other one. */
  close(): void {
    this.#closed = true;
    this.withdraw();
  }
}

/** Tells of an error; that this fails is nobody's to hear. */
export function report(report: Report, error: unknown): void {
  tell(() =>
    report(
      error instanceof AnswerError
        ? error
        : new AnswerError("callback", "answering OpenVPN failed", { cause: error }),
    )
  );
}

/** What a callback gives. */
export type Answer<T> = T | undefined | Promise<T | undefined>;

/** Asks a callback of `owner`; `what` begins the messages of errors. */
export async function ask<R, T>(
  what: string,
  owner: object,
  callback: ((request: R) => Answer<T>) | undefined,
  request: R & { readonly signal: AbortSignal },
): Promise<T> {
  if (callback === undefined) {
    throw new AnswerError("no-callback", `${what}: there is no callback for it`);
  }
  let answer: T | undefined;
  try {
    answer = await callback.call(owner, request);
  } catch (cause) {
    if (cause instanceof AnswerError) throw cause;
    throw new AnswerError("callback", `${what}: the callback failed`, { cause });
  }
  if (answer === undefined) {
    throw new AnswerError("unanswered", `${what}: the callback gave no answer`);
  }
  request.signal.throwIfAborted();
  return answer;
}

/** Sends an answer. */
export async function deliver(what: string, send: () => Promise<void>): Promise<void> {
  try {
    await send();
  } catch (cause) {
    throw notDelivered(what, cause);
  }
}

/** What to tell of an answer that could not be sent. */
export function notDelivered(what: string, cause: unknown): AnswerError {
  return cause instanceof ManagementError
    ? new AnswerError("not-sent", `${what}: the answer was not taken`, { cause })
    : new AnswerError("invalid-answer", `${what}: the answer cannot be sent`, { cause });
}
