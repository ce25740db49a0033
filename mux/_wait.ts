/**
 * Waiting in a queue, until a signal ends it.
 *
 * @module
 */
import { MuxError } from "./errors.ts";
import type { Queue } from "../adapters/queue.ts";

/** Whoever waits for a `T`. */
export interface Waiter<T> {
  resolve(value: T): void;
  reject(error: MuxError): void;
}

/** Waits in `queue`, with what `extra` says of it, for whoever takes it out to settle it; `signal` takes it out as well. */
export function waitIn<T, Extra extends object>(
  queue: Queue<Waiter<T> & Extra>,
  extra: Extra,
  signal: AbortSignal | undefined,
  doing: string,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal === undefined) return void queue.push({ ...extra, resolve, reject });
    const onAbort = () => {
      queue.remove(waiter);
      reject(abortedError(signal, doing));
    };
    const gone = () => signal.removeEventListener("abort", onAbort);
    const waiter = {
      ...extra,
      resolve: (value: T) => (gone(), resolve(value)),
      reject: (error: MuxError) => (gone(), reject(error)),
    };
    signal.addEventListener("abort", onAbort, { once: true });
    queue.push(waiter);
  });
}

/** `promise`, for as long as `signal` lets us wait for it. */
export function until<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  doing: string,
): Promise<T> {
  if (signal === undefined) return promise;
  if (signal.aborted) return Promise.reject(abortedError(signal, doing));
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortedError(signal, doing));
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** What a wait rejects with that `signal` has ended. */
export function abortedError(signal: AbortSignal, doing: string, written?: number): MuxError {
  const code = signal.reason?.name === "TimeoutError" ? "timeout" : "aborted";
  return new MuxError(code, `${doing}: ${code === "timeout" ? "no time left" : "aborted"}`, {
    cause: signal.reason,
    ...(written !== undefined && { written }),
  });
}
