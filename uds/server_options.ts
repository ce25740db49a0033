/**
 * What a server can be told.
 *
 * @module
 */
import { requireLimits } from "../adapters/limits.ts";
import { type Admission, admission, type AdmissionOptions } from "./admission.ts";
import { DEFAULT_MAX_MESSAGE, LEAST_BUFFERED } from "./decoder.ts";
import type { ServerInterceptor } from "./interceptor.ts";

/** Options of {@linkcode Server}. */
export interface ServerOptions extends AdmissionOptions {
  /** How large a message may be, in either direction, in bytes. @default 67108864 (64 MiB) */
  readonly maxMessage?: number | undefined;
  /**
   * How much is kept at once for each client, in bytes: of requests that come in pieces, where more wait in the client; again, of those that
   * wait for their turn, where more are `overloaded`; and of answers that the client does not take, where no more calls are begun.
   * @default twice maxMessage, and at least 16777216 (16 MiB)
   */
  readonly maxBuffered?: number | undefined;
  /** How many calls of a client are handled at a time. @default 1024 */
  readonly maxConcurrent?: number | undefined;
  /** How many more of a client wait for their turn; beyond it they are answered with the error `overloaded`. @default 1024 */
  readonly maxQueued?: number | undefined;
  /** How many clients there may be; more are closed at once. @default 1024 */
  readonly maxClients?: number | undefined;
  /** How long a client may say nothing while none of its calls is handled, in milliseconds: then its connection is ended. @default 30000 */
  readonly idleMs?: number | undefined;
  /** How long a client may take to prove that it may call, in milliseconds: then its connection is ended. @default 5000 */
  readonly admissionTimeoutMs?: number | undefined;
  /**
   * Hears what nobody else is told of: that a listener broke under `start()`, that `tokenFile` cannot be read, what `authorize` threw.
   * @default nobody
   */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Stand around each handler, but not around calls of names that have none, the first one outermost. @default none */
  readonly interceptors?: readonly ServerInterceptor[] | undefined;
}

type LimitName = Exclude<keyof ServerOptions, keyof AdmissionOptions | "interceptors" | "onError">;

/** The options, and the defaults of the others. */
export interface ServerSettings extends Readonly<Record<LimitName, number>>, Admission {
  /** Whether clients may ask for our extensions; otherwise requests are read as Go does, and each answer goes in one datagram of Go's. */
  readonly extensions: boolean;
  readonly onError: ServerOptions["onError"];
}

/** @throws {RangeError | TypeError} */
export function serverSettings(options: ServerOptions, extensions = true): ServerSettings {
  const maxMessage = options.maxMessage ?? DEFAULT_MAX_MESSAGE;
  const limits = {
    maxMessage,
    maxBuffered: options.maxBuffered ?? Math.max(2 * maxMessage, LEAST_BUFFERED),
    maxConcurrent: options.maxConcurrent ?? 1024,
    maxQueued: options.maxQueued ?? 1024,
    maxClients: options.maxClients ?? 1024,
    idleMs: options.idleMs ?? 30_000,
    admissionTimeoutMs: options.admissionTimeoutMs ?? 5000,
  };
  requireLimits(limits);
  return { ...limits, ...admission(options), extensions, onError: options.onError };
}
