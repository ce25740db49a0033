/**
 * What a caller can get wrong in the options of `connect` and `listen`, told before a socket is made for them.
 *
 * @module
 */
import { MAX_TIMEOUT_MS } from "./limits.ts";
import type { CloseOptions, TlsConnectOptions, TlsListenOptions } from "./types.ts";

/** The options that have wrong values, of either call. */
export interface CheckedOptions extends CloseOptions {
  readonly tls?: (TlsConnectOptions & TlsListenOptions) | boolean | undefined;
}

/** @throws {RangeError | TypeError} for a time that no timer can take, or a name that TLS cannot send */
export function checkOptions(options: CheckedOptions): void {
  checkTime("flushTimeoutMs", options.flushTimeoutMs, 1);
  // Not to wait for the peer's FIN at all makes sense.
  checkTime("lingerMs", options.lingerMs, 0);
  if (typeof options.tls !== "object") return;
  const { handshakeTimeoutMs, serverName, alpn = [] } = options.tls;
  checkTime("handshakeTimeoutMs", handshakeTimeoutMs, 1);
  // Node takes an empty name for one that need not be checked.
  if (serverName === "") throw new TypeError("serverName is empty");
  for (const protocol of alpn) {
    const { length } = new TextEncoder().encode(protocol);
    if (length < 1 || length > 255) {
      throw new TypeError(`an ALPN protocol has ${length} bytes, expected 1 to 255`);
    }
  }
}

function checkTime(name: string, ms: number | undefined, least: 0 | 1): void {
  if (ms === undefined || (ms >= least && ms <= MAX_TIMEOUT_MS)) return;
  throw new RangeError(`${name} is ${ms}, expected ${least} to ${MAX_TIMEOUT_MS}`);
}
