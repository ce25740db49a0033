/**
 * What the server's side of a connection knows of a call.
 *
 * @module
 */
import type { ReceiveHalf } from "./_receive_half.ts";
import type { SendHalf } from "./_send_half.ts";
import type { Context } from "./context.ts";
import type { ClientMsg } from "./message.ts";

/** A call that is handled, or waits for that. */
export interface Open {
  /** Without its data before all of that has come. */
  request: ClientMsg;
  readonly context: Context;
  /** Whether it came as one of Go's messages, and is answered so. */
  readonly plain: boolean;
  /** Of a request that comes in pieces. */
  readonly receive?: ReceiveHalf | undefined;
  /** Of an answer that goes in pieces. */
  send?: SendHalf | undefined;
  timer?: ReturnType<typeof setTimeout> | undefined;
  /** Where the peer wants no more of an answer. */
  readonly window: number;
  /** Bytes of an answer that goes in pieces. */
  answerBytes: number;
}
