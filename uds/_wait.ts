/**
 * Waits that a signal and a deadline end.
 *
 * @module
 */
import { MAX_TIMEOUT_MS } from "../adapters/limits.ts";
import { UdsError } from "./errors.ts";

/** The wait of `name` was ended by `signal`. */
export function abortedError(name: string, signal: AbortSignal): UdsError {
  const cause = signal.reason;
  const timeout = cause instanceof Error && cause.name === "TimeoutError";
  return new UdsError(timeout ? "timeout" : "aborted", `${name}: aborted`, { cause });
}

/** There was no answer to the call of `name` before its deadline. */
export function timeoutError(name: string, cause?: unknown): UdsError {
  const options = cause === undefined ? undefined : { cause };
  return new UdsError("timeout", `${name}: no answer in time`, options);
}

/** What ends a wait. */
interface Limits {
  readonly signal: AbortSignal | undefined;
  /** By `performance.now()`. */
  readonly deadline: number;
}

/** As `work`, but no longer than the caller waits. */
export async function waited<T>(
  name: string,
  work: Promise<T>,
  { signal, deadline }: Limits,
): Promise<T> {
  const ended = Promise.withResolvers<never>();
  const onAbort = () => ended.reject(abortedError(name, signal!));
  const ms = Math.min(MAX_TIMEOUT_MS, Math.max(0, deadline - performance.now()));
  const timer = setTimeout(() => ended.reject(timeoutError(name)), ms);
  if (signal?.aborted) onAbort();
  else signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, ended.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
