/**
 * What this folder throws and rejects with.
 *
 * @module
 */

/**
 * What went wrong:
 *
 * - `protocol`: the peer does not speak this protocol, or bytes are no message of it.
 * - `too-large`: a message is larger than `maxMessage`; see there for whose.
 * - `aborted`: an `AbortSignal` ended the wait.
 * - `timeout`: a call was not answered before its deadline.
 * - `closed`: used after our own `close()`.
 * - `disconnected`: the peer closed the connection while something was still to come; or used after it did.
 * - `connection`: the connection failed; `cause` tells how.
 * - `unauthorized`: the peer is not who may call, or took us for that.
 * - `unsupported`: this peer, or this runtime, cannot do that.
 * - `overloaded`: more calls wait than a limit allows.
 * - `invalid-response`: an answer is not what the definition of its service says.
 * - `remote`: the handler, or the server, answered with an error; see {@linkcode RemoteError}.
 */
export type UdsErrorCode =
  | "protocol"
  | "too-large"
  | "aborted"
  | "timeout"
  | "closed"
  | "disconnected"
  | "connection"
  | "unauthorized"
  | "unsupported"
  | "overloaded"
  | "invalid-response"
  | "remote";

/** What a client, a server and the codec of this folder throw and reject with. */
export class UdsError extends Error {
  /** The name of the class. */
  override readonly name: string = "UdsError";
  /** What went wrong; see {@linkcode UdsErrorCode}. */
  readonly code: UdsErrorCode;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: UdsErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What a server said of a call that it could not, or would not, answer. */
export type RemoteErrorCode =
  | "error"
  | "unknown-handler"
  | "handler"
  | "deadline"
  | "overloaded"
  | "too-large"
  | "closing"
  | "unauthorized"
  | "unsupported"
  | "invalid-argument"
  | (string & Record<never, never>);

/** Options of a {@linkcode RemoteError}. */
export interface RemoteErrorOptions {
  /** Anything that helps the caller. @default none */
  readonly details?: Uint8Array | undefined;
  /** Goes with it. @default none */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * The answer to a call was an error. A handler throws one to choose `remoteCode`, `details` and `metadata`; anything else that it throws is
 * `handler`, with the text `handler(<name>) error: <message>`.
 */
export class RemoteError extends UdsError {
  /** The name of the class. */
  override readonly name: string = "RemoteError";
  /** The server's code; `error` from one that has no codes, as the Go package. */
  readonly remoteCode: RemoteErrorCode;
  /** What the server gave along; of an `error`, its text as it came. */
  readonly details: Uint8Array;
  /** What the server gave along. */
  readonly metadata: Readonly<Record<string, string>>;

  /** Makes an error. */
  constructor(remoteCode: RemoteErrorCode, message: string, options: RemoteErrorOptions = {}) {
    super("remote", message);
    this.remoteCode = remoteCode;
    this.details = options.details ?? new Uint8Array();
    this.metadata = options.metadata ?? {};
  }
}
