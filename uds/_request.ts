/**
 * What the client's side of a connection knows of calls.
 *
 * @module
 */
import type { Metadata } from "./_extension.ts";
import type { ReceiveHalf } from "./_receive_half.ts";
import type { SendHalf } from "./_send_half.ts";
import type { RemoteError } from "./errors.ts";

/** What a call is made of. */
export interface Request {
  readonly name: string;
  readonly handler: Uint8Array;
  readonly data: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly metadata?: Metadata | undefined;
  /** By `performance.now()`, if it had to wait before it is made. */
  readonly deadline?: number | undefined;
  /** Hears what came with the answer, for which it takes a server that knows our extensions. */
  readonly onMetadata?: ((metadata: Metadata) => void) | undefined;
  /** Hears its id. */
  readonly onId?: ((id: number) => void) | undefined;
}

/** What a stream is made of. */
export type StreamRequest = Omit<Request, "data" | "onId">;

/** A call that waits for its answer. */
export interface Pending {
  readonly name: string;
  /** By `performance.now()`. */
  readonly deadline: number;
  resolve(data: Uint8Array, metadata: Metadata): void;
  reject(error: Error): void;
  /** Of a request that goes in pieces, or could. */
  readonly send: SendHalf | undefined;
  /** Whether it is one of many messages. */
  readonly stream: boolean;
  /** Of an answer that comes in pieces. */
  receive: ReceiveHalf | undefined;
  /** The answer, of which the server may have more to say when it is asked for our extensions. */
  error: RemoteError | undefined;
}
