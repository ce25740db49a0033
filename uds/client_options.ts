/**
 * What a client can be told.
 *
 * @module
 */
import { requireLimits } from "../adapters/limits.ts";
import type { Redial } from "./_connection.ts";
import { type Admission, admission, type AdmissionOptions } from "./admission.ts";
import { DEFAULT_MAX_MESSAGE, LEAST_BUFFERED } from "./decoder.ts";
import type { ClientInterceptor } from "./interceptor.ts";

/** Options of {@linkcode Client} and {@linkcode dialServer}. */
export interface ClientOptions extends AdmissionOptions {
  /** How long a call waits for its answer, in milliseconds, unless it says otherwise. The server is not told. @default 30000 */
  readonly timeoutMs?: number | undefined;
  /** How large a message may be, in either direction, in bytes. @default 67108864 (64 MiB) */
  readonly maxMessage?: number | undefined;
  /** How many calls may wait for an answer: one more is `overloaded`. @default 16384 */
  readonly maxPending?: number | undefined;
  /** How much of answers that come in pieces is kept at once, in bytes: more wait in the server. @default twice maxMessage, and at least 16777216 (16 MiB) */
  readonly maxBuffered?: number | undefined;
  /** How often a sign of life is sent, in milliseconds: servers drop who says nothing for 30 s. @default 10000 */
  readonly keepAliveMs?: number | undefined;
  /** How long a server may take to say whether it knows our extensions, in milliseconds; then it does not. @default 1000 */
  readonly helloTimeoutMs?: number | undefined;
  /**
   * Opens another connection when a call finds this one ended. Calls that were under way reject all the same: nobody knows whether they were
   * handled. @default nothing does
   */
  readonly redial?: Redial | undefined;
  /**
   * Whether the server may be asked for what the Go package's messages cannot say. Without it there are no streams, and deadlines and
   * cancellations are not told. @default true, and false over `unixgram`
   */
  readonly extensions?: boolean | undefined;
  /** Stand around each call, the first one outermost. @default none */
  readonly interceptors?: readonly ClientInterceptor[] | undefined;
}

/** The options, and the defaults of the others. */
export interface ClientSettings extends Readonly<Record<LimitName, number>>, Admission {
  /** Whether the server may be asked for our extensions. */
  readonly extensions: boolean;
}

type LimitName = Exclude<
  keyof ClientOptions,
  keyof AdmissionOptions | "redial" | "extensions" | "interceptors"
>;

/** @throws {RangeError | TypeError} */
export function clientSettings(options: ClientOptions): ClientSettings {
  const maxMessage = options.maxMessage ?? DEFAULT_MAX_MESSAGE;
  const limits = {
    timeoutMs: options.timeoutMs ?? 30_000,
    maxMessage,
    maxPending: options.maxPending ?? 16_384,
    maxBuffered: options.maxBuffered ?? Math.max(2 * maxMessage, LEAST_BUFFERED),
    keepAliveMs: options.keepAliveMs ?? 10_000,
    helloTimeoutMs: options.helloTimeoutMs ?? 1000,
  };
  requireLimits(limits);
  if (options.extensions === false && (options.token ?? options.tokenFile) !== undefined) {
    throw new TypeError("a token without the extensions that it is told by");
  }
  return { ...limits, ...admission(options), extensions: options.extensions ?? true };
}
