/**
 * Waiting for a time.
 *
 * @module
 */

/** The pause before something is tried again that failed since a reply was late (`onTimeout: "keep"`), in milliseconds. */
export const LATE_REPLY_RETRY_MS = 1000;

/** Resolves after that time, or when `signal` fires. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}
