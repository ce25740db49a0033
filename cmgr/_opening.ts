/**
 * Opening a connection within a time.
 *
 * @module
 */
import type { Address, Conn, ConnectOptions, Transport } from "../adapters/types.ts";

/** Options of {@linkcode openWithin}. */
export interface OpenOptions extends Omit<ConnectOptions, "signal"> {
  readonly timeoutMs: number;
  /** Each of them ends it. */
  readonly signals: readonly (AbortSignal | undefined)[];
}

/** Connects; by a signal of its own, since one that outlives it would keep what waits for it. @throws {ConnectError} */
export async function openWithin(
  transport: Transport,
  target: Address | string,
  { timeoutMs, signals, ...options }: OpenOptions,
): Promise<Conn> {
  const stop = new AbortController();
  const stops = signals.map((signal) => {
    const onAbort = () => stop.abort(signal?.reason);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    return () => signal?.removeEventListener("abort", onAbort);
  });
  const timer = setTimeout(() => {
    stop.abort(new DOMException(`no connection within ${timeoutMs} ms`, "TimeoutError"));
  }, timeoutMs);
  try {
    return await transport.connect(target, { ...options, signal: stop.signal });
  } finally {
    clearTimeout(timer);
    for (const leave of stops) leave();
  }
}
