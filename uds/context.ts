/**
 * What a handler is told beside the message.
 *
 * @module
 */
import type { PeerCredentials } from "../adapters/types.ts";
import { type Metadata, NO_METADATA } from "./_extension.ts";
import type { MethodDescription } from "./description.ts";
import type { ClientMsg, ServerMsg } from "./message.ts";
import type { MessageStream } from "./stream.ts";

/** What a handler is told beside the message. */
export interface HandlerContext {
  /** Fires when nobody waits for the answer any more: the caller gave up, its deadline is over, the connection or the server ends. */
  readonly signal: AbortSignal;
  /** Until when the caller waits, by `Date.now()`; `undefined` if it did not say. */
  readonly deadline: number | undefined;
  /** The name of the handler that is called. */
  readonly handler: string;
  /** What came with the call. */
  readonly metadata: Metadata;
  /** What goes with the answer: to be set before that is given. */
  replyMetadata: Metadata;
  /** The process that calls, where the runtime can tell. */
  readonly peer: PeerCredentials | undefined;
}

/** What a handler gives: data, a text, a message (of which the id is ours), or nothing. */
export type HandlerAnswer = ServerMsg | Uint8Array | string | void;

/**
 * Answers a call. What it throws is answered as an error: a `RemoteError` as it is, anything else with the text
 * `handler(<name>) error: <message>`.
 */
export type Handler = (
  request: ClientMsg,
  context: HandlerContext,
) => HandlerAnswer | Promise<HandlerAnswer>;

/** Answers a stream; the call is over when it is done, or fails as one of {@linkcode Handler} does. */
export type StreamHandler = (
  stream: MessageStream,
  context: HandlerContext,
) => void | Promise<void>;

/** What stands behind a name: one of both. */
export type Registered =
  & (
    | { readonly call: Handler; readonly stream?: undefined }
    | { readonly call?: undefined; readonly stream: StreamHandler }
  )
  & { readonly description?: MethodDescription | undefined };

/** Made for each call: its signal only if somebody looks at it. */
export class Context implements HandlerContext {
  readonly deadline: number | undefined;
  readonly handler: string;
  readonly metadata: Metadata;
  readonly peer: PeerCredentials | undefined;
  replyMetadata: Metadata = NO_METADATA;
  #controller: AbortController | undefined;
  #reason: Error | undefined;

  constructor(
    handler: string,
    peer: PeerCredentials | undefined,
    metadata: Metadata = NO_METADATA,
    deadline: number | undefined = undefined,
  ) {
    this.handler = handler;
    this.peer = peer;
    this.metadata = metadata;
    this.deadline = deadline;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Fires the signal. */
  cancel(reason: Error): void {
    this.#reason ??= reason;
    this.#controller?.abort(reason);
  }
}
