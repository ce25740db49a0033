/**
 * What a client can be told, as a whole and for each command.
 *
 * @module
 */
import { requireChoice, requireLimits } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import type { GuardName } from "./guard.ts";

/**
 * The password of the management interface, tried once; or a function that is asked for it: with 1 at the first prompt, and with 2 and 3
 * after wrong ones. `undefined` gives up.
 */
export type PasswordSource =
  | string
  | ((attempt: number) => string | undefined | Promise<string | undefined>);

/** Options of a {@linkcode ManagementClient}. */
export interface ClientOptions {
  /** The password of the management interface, if it wants one. */
  readonly password?: PasswordSource | undefined;
  /**
   * How long the whole reply to a command may take, in milliseconds from when it is sent. Then the connection is given up, since
   * nothing would tell whose reply the next one is; but see `onTimeout`. @default 10000
   */
  readonly timeoutMs?: number | undefined;
  /**
   * What a reply that does not come in time does to the connection. `keep` is for an OpenVPN that its end would hurt, by
   * `--management-client`, `--management-signal` or `--management-forget-disconnect`: events go on, and other commands wait until
   * that reply is there, or reject with `timeout` when that takes longer than they may. @default "disconnect"
   */
  readonly onTimeout?: "disconnect" | "keep" | undefined;
  /**
   * How long OpenVPN may take to greet, in milliseconds; while it serves another manager, it does not. @default timeoutMs
   */
  readonly greetingTimeoutMs?: number | undefined;
  /**
   * How many events are kept for a slow consumer, and before the first one comes. When they are more, the oldest `LOG`, `BYTECOUNT`
   * or `BYTECOUNT_CLI` is dropped and counted, then `STATE`, `ECHO`, `NOTIFY` and
   * `connect-failed`; the others never. @default 4096
   */
  readonly maxBufferedEvents?: number | undefined;
  /** How large the environment of an event may be, as {@linkcode EventAssembler} counts it. @default 262144 */
  readonly maxEnvBytes?: number | undefined;
  /**
   * How long a reply may be, in bytes and 32 more for each line. A longer one ends the connection with `protocol`.
   * @default 33554432 (32 MiB)
   */
  readonly maxReplyBytes?: number | undefined;
  /** How long `close()` waits for the reply that is on its way, in milliseconds. @default 2000 */
  readonly closeTimeoutMs?: number | undefined;
}

/** Options of a single command. `signal` ends the wait; what was already sent is done nevertheless. */
export interface CommandOptions extends WaitOptions {
  /** Instead of the client's `timeoutMs`. */
  readonly timeoutMs?: number | undefined;
  /** Which guards let this command pass. See {@linkcode GuardError}. @default none */
  readonly allow?: readonly GuardName[] | undefined;
}

/** A reply that is no error. */
export interface CommandReply {
  /** What stood after `SUCCESS: `; empty if there was none. */
  readonly success: string;
  /** The other lines, without `END`. Bytes that are not UTF-8 have become U+FFFD. */
  readonly lines: readonly string[];
  /** The same lines as bytes. */
  readonly raw: readonly Uint8Array[];
}

type LimitName = Exclude<keyof ClientOptions, "password" | "onTimeout">;

/** Every limit, with a number. */
export type SessionLimits = Readonly<Record<LimitName, number>>;

const DEFAULTS = {
  timeoutMs: 10_000,
  maxBufferedEvents: 4096,
  maxEnvBytes: 262_144,
  maxReplyBytes: 32 * 1024 * 1024,
  closeTimeoutMs: 2000,
} as const;

/**
 * The limits in `options`, and the defaults of the others.
 *
 * @throws {RangeError} for a limit that is none, @throws {TypeError} for an `onTimeout` that is none
 */
export function sessionLimits(options: ClientOptions): SessionLimits {
  const timeoutMs = options.timeoutMs ?? DEFAULTS.timeoutMs;
  const limits = {
    timeoutMs,
    greetingTimeoutMs: options.greetingTimeoutMs ?? timeoutMs,
    maxBufferedEvents: options.maxBufferedEvents ?? DEFAULTS.maxBufferedEvents,
    maxEnvBytes: options.maxEnvBytes ?? DEFAULTS.maxEnvBytes,
    maxReplyBytes: options.maxReplyBytes ?? DEFAULTS.maxReplyBytes,
    closeTimeoutMs: options.closeTimeoutMs ?? DEFAULTS.closeTimeoutMs,
  };
  requireLimits(limits);
  requireChoice("onTimeout", options.onTimeout ?? "disconnect", ["disconnect", "keep"]);
  return limits;
}
