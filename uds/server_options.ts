/**
 * What a server can be told.
 *
 * @module
 */
import { requireLimits } from "../adapters/limits.ts";
import { DEFAULT_MAX_MESSAGE } from "./decoder.ts";

/** Options of {@linkcode Server}. */
export interface ServerOptions {
  /** How large a message may be, in either direction, in bytes. @default 67108864 (64 MiB) */
  readonly maxMessage?: number | undefined;
  /** How much of requests that come in pieces is kept at once for each client, in bytes: more wait in the client. @default twice maxMessage */
  readonly maxBuffered?: number | undefined;
  /** How many calls of a client are handled at a time. @default 1024 */
  readonly maxConcurrent?: number | undefined;
  /** How many more of a client wait for their turn; beyond it they are answered with the error `overloaded`. @default 1024 */
  readonly maxQueued?: number | undefined;
  /** How many clients there may be; more are closed at once. @default 1024 */
  readonly maxClients?: number | undefined;
  /** How long a client may say nothing while none of its calls is handled, in milliseconds: then its connection is ended. @default 30000 */
  readonly idleMs?: number | undefined;
  /** What a client has to prove first, if anything. @default none */
  readonly token?: string | undefined;
}

type LimitName = Exclude<keyof ServerOptions, "token">;

/** The options, and the defaults of the others. */
export interface ServerSettings extends Readonly<Record<LimitName, number>> {
  readonly token: string | undefined;
}

/** @throws {RangeError} */
export function serverSettings(options: ServerOptions): ServerSettings {
  const maxMessage = options.maxMessage ?? DEFAULT_MAX_MESSAGE;
  const limits = {
    maxMessage,
    maxBuffered: options.maxBuffered ?? 2 * maxMessage,
    maxConcurrent: options.maxConcurrent ?? 1024,
    maxQueued: options.maxQueued ?? 1024,
    maxClients: options.maxClients ?? 1024,
    idleMs: options.idleMs ?? 30_000,
  };
  requireLimits(limits);
  return { ...limits, token: options.token };
}
