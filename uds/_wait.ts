/**
 * Waits that a signal and a time end.
 *
 * @module
 */
import { UdsError } from "./errors.ts";

/** The wait of `name` was ended by `signal`. */
export function abortedError(name: string, signal: AbortSignal): UdsError {
  return new UdsError("aborted", `${name}: aborted`, { cause: signal.reason });
}

/** As `work`, but no longer than the caller waits. */
export async function waited<T>(
  name: string,
  work: Promise<T>,
  { signal, timeoutMs }: { readonly signal: AbortSignal | undefined; readonly timeoutMs: number },
): Promise<T> {
  const ended = Promise.withResolvers<never>();
  const onAbort = () => ended.reject(abortedError(name, signal!));
  const timer = setTimeout(() => {
    ended.reject(new UdsError("timeout", `${name}: no answer in time`));
  }, timeoutMs);
  if (signal?.aborted) onAbort();
  else signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, ended.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
