/**
 * What the sessions of this folder reject with.
 *
 * @module
 */

/**
 * What went wrong (in brackets the error of gomux that says the same):
 *
 * - `closed`: used after our own `close()` or `abort()` of the session (ErrClosedConn)
 * - `stream-closed`: used after our own `close()` or `abort()` of the stream (ErrClosedStream)
 * - `peer-closed-stream`: written to a stream that the peer has closed (ErrPeerClosedStream)
 * - `peer-closed`: the peer has closed the session (ErrPeerClosedConn)
 * - `write-closed`: written after `closeWrite()`, or after the peer said that it reads no more (ErrWriteClosed)
 * - `reset`: the peer has given the stream up, see `resetCode`: what was read so far is not all (v2)
 * - `going-away`: the peer takes no new streams; what this one was for can be tried on another session (v2)
 * - `truncated`: the transport ended or failed without a farewell: what was read so far is not all
 * - `auth-failed`: the peer has another psk or is not one that we know; a frame is forged, damaged, or sealed with another key
 * - `protocol`: the peer breaks the rules; the message tells which one
 * - `window`: the peer sends more than it may, or grants more than there is
 * - `limit`: more than a limit of ours allows
 * - `timeout`: a deadline or a time limit ran out
 * - `aborted`: an `AbortSignal` fired
 * - `unsupported`: the protocol of the session, v1, has no such thing
 */
export type MuxErrorCode =
  | "closed"
  | "stream-closed"
  | "peer-closed-stream"
  | "peer-closed"
  | "write-closed"
  | "reset"
  | "going-away"
  | "truncated"
  | "auth-failed"
  | "protocol"
  | "window"
  | "limit"
  | "timeout"
  | "aborted"
  | "unsupported";

/** What {@linkcode MuxError} is made of, besides its code and message. */
export interface MuxErrorOptions extends ErrorOptions {
  /** See {@linkcode MuxError.written}. */
  readonly written?: number | undefined;
  /** See {@linkcode MuxError.resetCode}. */
  readonly resetCode?: number | undefined;
}

/** What a session or one of its streams rejects with. No message holds a key. */
export class MuxError extends Error {
  /** Always `"MuxError"`. */
  override readonly name = "MuxError";
  /** What went wrong; see {@linkcode MuxErrorCode}. */
  readonly code: MuxErrorCode;

  /** Of a write that a deadline, a signal or the end of its stream cut short: how many of its bytes had been sent before. */
  readonly written: number | undefined;

  /** The code that the peer gave with its `reset()` or `stop()` of the stream, or with its end of the session. */
  readonly resetCode: number | undefined;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: MuxErrorCode, message: string, options: MuxErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.written = options.written;
    this.resetCode = options.resetCode;
  }
}
