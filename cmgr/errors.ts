/**
 * What this folder throws and rejects with.
 *
 * @module
 */

/**
 * What went wrong:
 *
 * - `no-such-session`: no session, listener or UDP socket has that id, or it has ended
 * - `duplicate-id`: a session has that id already
 * - `invalid-id`: an id is empty, long, has control characters, or looks like one that the manager gives itself
 * - `too-many-sessions`: there are as many as `maxSessions` allows
 * - `queue-full`: more would wait to be sent than `maxQueuedBytes` or `maxTotalQueuedBytes` allows; nothing of it is sent
 * - `not-bound`: a UDP socket was written to without a peer; see `bind()`
 * - `reconnecting`: the connection is lost, and the next one not there yet
 * - `disconnected`: the session has ended; `cause` is what ended it, if that was an error
 * - `closed`: the manager was shut down
 * - `frame-too-large`: a line or a frame is longer than `maxFrameBytes`
 * - `frame-truncated`: the stream ended within a frame
 * - `idle`: nothing came and nothing went for `idleTimeout`
 * - `stalled`: nothing moved for `stallTimeout` though it was to
 * - `slow`: a broadcast with `slow: "close"` found its queue not empty enough
 * - `listener`: a listener cannot accept (too many open files, say); `cause` tells why
 * - `aborted`, `timeout`: an `AbortSignal` ended a wait
 */
export type ManagerErrorCode =
  | "no-such-session"
  | "duplicate-id"
  | "invalid-id"
  | "too-many-sessions"
  | "queue-full"
  | "not-bound"
  | "reconnecting"
  | "disconnected"
  | "closed"
  | "frame-too-large"
  | "frame-truncated"
  | "idle"
  | "stalled"
  | "slow"
  | "listener"
  | "aborted"
  | "timeout";

/** Options of a {@linkcode ManagerError}. */
export interface ManagerErrorOptions extends ErrorOptions {
  /** See {@linkcode ManagerError.sessionId}. */
  readonly sessionId?: string | undefined;
}

/**
 * What a manager throws and rejects with, besides the `ConnectError` of a connection or a listener that could not be opened, and `TypeError`
 * and `RangeError` for a caller's mistake.
 */
export class ManagerError extends Error {
  /** Always `"ManagerError"`. */
  override readonly name = "ManagerError";
  /** What went wrong; see {@linkcode ManagerErrorCode}. */
  readonly code: ManagerErrorCode;
  /** The session that was written to, of `disconnected` and `reconnecting`. */
  readonly sessionId: string | undefined;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: ManagerErrorCode, message: string, options: ManagerErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.sessionId = options.sessionId;
  }
}

/** The error for a wait that `signal` has ended. */
export function abortedWait(signal: AbortSignal, doing: string): ManagerError {
  const timeout = signal.reason instanceof Error && signal.reason.name === "TimeoutError";
  const code = timeout ? "timeout" : "aborted";
  return new ManagerError(code, `${doing}: ${timeout ? "timed out" : code}`, {
    cause: signal.reason,
  });
}

/** Marks that nobody need wait for `promise`: that it fails is told by an event as well, so it must not end the process. */
export function heard<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** A promise that has failed, and that nobody need wait for. */
export function failed(error: unknown): Promise<never> {
  return heard(Promise.reject(error));
}

/** What `call` gives, or a promise that failed with what it throws; nobody need wait for either. */
export function attempt<T>(call: () => Promise<T>): Promise<T> {
  try {
    return heard(call());
  } catch (error) {
    return failed(error);
  }
}

/**
 * Settles as `promise` does, or fails when `signal` fires, of which `onAbort` is told first.
 *
 * @throws {ManagerError} `aborted`, `timeout`
 */
export function waitFor<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  doing: string,
  onAbort: (error: ManagerError) => void = () => {},
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      const error = abortedWait(signal, doing);
      reject(error);
      onAbort(error);
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
