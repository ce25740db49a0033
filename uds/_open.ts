/**
 * What the server's side of a connection knows of a call.
 *
 * @module
 */
import type { ReceiveHalf } from "./_receive_half.ts";
import type { SendHalf } from "./_send_half.ts";
import type { Context } from "./context.ts";
import type { ClientMsg } from "./message.ts";

/** How a call came. */
interface Coming {
  /** Whether as one of Go's messages. */
  readonly plain: boolean;
  /** Where the peer wants no more of an answer. */
  readonly window: number;
  /** How long its caller waits, in milliseconds; 0 if that is not known. */
  readonly timeoutMs: number;
  readonly receive?: ReceiveHalf;
  readonly send?: SendHalf;
}

/** A call that is handled, or waits for that. */
export class Open {
  /** Without its data before all of that has come. */
  request: ClientMsg;
  readonly context: Context;
  readonly plain: boolean;
  readonly window: number;
  /** By `performance.now()`. */
  readonly deadline: number;
  /** Of a request that comes in pieces. */
  readonly receive: ReceiveHalf | undefined;
  /** Of an answer that goes in pieces. */
  send: SendHalf | undefined;
  /** Bytes of such an answer. */
  answerBytes = 0;

  constructor(request: ClientMsg, context: Context, coming: Coming) {
    const { plain, window, timeoutMs, receive, send } = coming;
    this.request = request;
    this.context = context;
    this.plain = plain;
    this.window = window;
    this.deadline = timeoutMs === 0 ? Infinity : performance.now() + timeoutMs;
    this.receive = receive;
    this.send = send;
  }
}
