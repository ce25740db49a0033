/**
 * What a manager, its listeners and its sessions can be told.
 *
 * @module
 */
import {
  MAX_TIMEOUT_MS,
  requireChoice,
  requireFunction,
  requireLimit,
  requireLimits,
} from "../adapters/limits.ts";
import type {
  ConnOptions,
  TlsConnectOptions,
  TlsListenOptions,
  Transport,
  WaitOptions,
} from "../adapters/types.ts";
import type { Sink } from "./channel.ts";
import type { ManagerError } from "./errors.ts";
import { type Framing, FRAMINGS } from "./framing.ts";
import type { Meter } from "./metrics.ts";
import type { CloseSessionOptions } from "./session.ts";
import type { RefusalReason } from "./stats.ts";

/** Options of sessions; a manager's are the defaults of its listeners and connections. */
export interface SessionOptions extends ConnOptions {
  /** How bytes are cut into messages. @default "raw" */
  readonly framing?: Framing | undefined;
  /** How long a line or a frame that comes may be, in bytes; a longer one ends the session. @default 65536 */
  readonly maxFrameBytes?: number | undefined;
  /** The most bytes of one `data` event of the framing `raw`; Go's is 2048. @default 65536 */
  readonly chunkSize?: number | undefined;
  /**
   * When the peer ends its side, ours goes on: an event `eof`, and the session ends when we close it. Otherwise it ends then, as Go's, and
   * what is written after the peer's end is lost. @default false
   */
  readonly allowHalfOpen?: boolean | undefined;
  /** How long nothing may come or go, in milliseconds; then the session ends with `timeout`. @default Infinity */
  readonly idleTimeout?: number | undefined;
  /**
   * How long a session may stand still though something is to move, in milliseconds: what was written does not leave, or nobody takes its
   * event (a function as sink is still busy with the one before), during which the peer's end is not seen either. Then it ends with `timeout`.
   * What leaves is seen when the system takes more, which it does in bulk: a peer has to read a megabyte or two in that time. @default 60000
   */
  readonly stallTimeout?: number | undefined;
  /** Bytes that wait to leave, above which `write()` waits, and a broadcast finds the session slow. @default 65536 */
  readonly lowWaterMark?: number | undefined;
  /** How many bytes of a session may wait to leave; a write beyond it fails with `queue-full`. @default 16777216 (16 MiB) */
  readonly maxQueuedBytes?: number | undefined;
}

/** Options of a listener; those that a kind has no use for are left alone. */
export interface ListenerOptions extends SessionOptions, WaitOptions {
  /** Speaks TLS; of the kind `tls`. */
  readonly tls?: TlsListenOptions | undefined;
  /** How long a TLS handshake may take, in milliseconds. @default 10000 */
  readonly handshakeTimeout?: number | undefined;
  /**
   * How many sessions may wait until their `accepted` is taken. Then 512 more wait with the runtime, and others are closed and counted as
   * `dropped`; a listener of Deno without TLS leaves them all to the system. @default 512
   */
  readonly maxPending?: number | undefined;
  /** How many datagrams of a UDP socket may wait until they are taken; more are dropped, and counted. @default 1024 */
  readonly maxPendingDatagrams?: number | undefined;
  /** How many connections a second are taken, as many at once; more are refused. @default 10000 */
  readonly acceptRate?: number | undefined;
  /** How many sessions one remote IP address may have; more are refused. @default 16384 */
  readonly maxSessionsPerAddress?: number | undefined;
  /** Length of the system's queue. @default 511 */
  readonly backlog?: number | undefined;
  /** Lets several processes listen on one port. @default false */
  readonly reusePort?: boolean | undefined;
  /** Lets several UDP sockets have one address. @default false; true of multicast */
  readonly reuseAddress?: boolean | undefined;
  /** Permission bits of a unix socket file. @default 0o600 */
  readonly mode?: number | undefined;
}

/** How a lost connection is opened again: each pause is twice the one before, less up to a half by chance. */
export interface ReconnectOptions {
  /** The first pause, in milliseconds. @default 250 */
  readonly minDelayMs?: number | undefined;
  /** The longest pause, in milliseconds. @default 30000 */
  readonly maxDelayMs?: number | undefined;
  /** How many attempts in a row may fail; then the session is `disconnected`. @default Infinity */
  readonly maxAttempts?: number | undefined;
}

/** Options of {@linkcode ConnectionManager.connect}. */
export interface ConnectSessionOptions extends SessionOptions, WaitOptions {
  /** Speaks TLS; `true` for the defaults. */
  readonly tls?: TlsConnectOptions | boolean | undefined;
  /** How long an attempt may take, with its TLS handshake, in milliseconds. @default 30000 */
  readonly timeoutMs?: number | undefined;
  /** Opens the connection again, under the same id, whenever it is lost; not if the first attempt fails. @default false */
  readonly reconnect?: ReconnectOptions | boolean | undefined;
  /** Closes the session that has this id first, instead of failing. @default false */
  readonly replace?: boolean | undefined;
  /** The local IP address to connect from. */
  readonly localAddress?: string | undefined;
}

/** A connection that was not taken. */
export interface Refusal {
  /** The listener. */
  readonly listener: string;
  /** Whose it was, as text. */
  readonly from: string;
  /** Why. */
  readonly reason: RefusalReason;
}

/** Options of a {@linkcode ConnectionManager}. */
export interface ManagerOptions extends Omit<ListenerOptions, "tls" | "signal" | "mode"> {
  /** Where sockets come from. @default the adapter of the runtime */
  readonly transport?: Transport | undefined;
  /** How many events may wait in `events`. @default 1024 */
  readonly capacity?: number | undefined;
  /** How many sessions there may be, accepted, connected and adopted, and UDP sockets. @default 65536 */
  readonly maxSessions?: number | undefined;
  /**
   * How many bytes of all sessions together may wait to leave. A session has its share, this divided by `maxSessions` (4096 bytes), whatever the
   * others hold: it is exceeded by that when some hold more than theirs, and never doubled. @default 268435456 (256 MiB)
   */
  readonly maxTotalQueuedBytes?: number | undefined;
  /** Where measurements go: a `Meter` of OpenTelemetry, or what has its methods. @default nowhere */
  readonly metrics?: Meter | undefined;
  /** Hears of each connection that is not taken; all are counted in `stats()`. @default nobody */
  readonly onRefused?: ((refusal: Refusal) => void) | undefined;
  /**
   * Hears what nobody else is told of: a listener that cannot accept (`listener`: too many open files, of which Deno alone tells; it goes on by itself), and what a sink or
   * `metrics` threw. @default for what a sink threw, an unhandled rejection; otherwise nobody
   */
  readonly onError?: ((error: ManagerError | Error) => void) | undefined;
}

/** Options of {@linkcode ConnectionManager.open}. */
export interface OpenManagerOptions extends ManagerOptions, WaitOptions {
  /** The TCP port of the first listener, `l0`; `"any"` takes a free one, `""` and 0 make none. */
  readonly port: number | string;
  /** Where its events go. @default the manager's own `events` */
  readonly sink?: Sink | undefined;
}

/** Options of {@linkcode ConnectionManager.close}. */
export interface CloseIdOptions extends CloseSessionOptions {
  /** Of a listener: closes its sessions, too. @default false */
  readonly sessions?: boolean | undefined;
}

/** Options of {@linkcode ConnectionManager.shutdown}: of the first call, but the `signal` of each ends both times at once. */
export interface ShutdownOptions extends WaitOptions {
  /** How long sessions may go on, for their peers to end them, in milliseconds; they are closed after it. @default 0 */
  readonly drainMs?: number | undefined;
  /** How long what was written may take to leave, in milliseconds; then the rest is given up. @default 5000 */
  readonly graceMs?: number | undefined;
}

/** The options of a session, with all numbers. */
export interface SessionSettings {
  readonly framing: Framing;
  readonly maxFrameBytes: number;
  readonly chunkSize: number;
  readonly allowHalfOpen: boolean;
  readonly idleTimeout: number;
  readonly stallTimeout: number;
  readonly lowWaterMark: number;
  readonly maxQueuedBytes: number;
}

/** @throws {RangeError | TypeError} */
export function sessionSettings(given: SessionOptions): SessionSettings {
  const limits = {
    maxFrameBytes: given.maxFrameBytes ?? 65536,
    chunkSize: given.chunkSize ?? 65536,
    idleTimeout: given.idleTimeout ?? Infinity,
    stallTimeout: given.stallTimeout ?? 60_000,
    lowWaterMark: given.lowWaterMark ?? 65536,
    maxQueuedBytes: given.maxQueuedBytes ?? 16 * 1024 * 1024,
  };
  requireLimits(limits);
  if (!Number.isInteger(limits.chunkSize)) {
    throw new RangeError(`chunkSize is ${limits.chunkSize}, expected a whole number`);
  }
  const framing = given.framing ?? "raw";
  requireChoice("framing", framing, FRAMINGS);
  return { ...limits, framing, allowHalfOpen: given.allowHalfOpen ?? false };
}

/** What the adapters are told of a connection. */
export function connOptions(given: ConnOptions): ConnOptions {
  const { noDelay, keepAlive, flushTimeoutMs, lingerMs, credentials } = given;
  return definedOf({ noDelay, keepAlive, flushTimeoutMs, lingerMs, credentials });
}

/** So that nobody believes to speak TLS who does not. @throws {TypeError} */
export function refuseTls({ tls }: ListenerOptions): void {
  if (tls !== undefined) throw new TypeError("listening: the option tls is of the kind tls");
}

/** What they are told of TLS. @throws {TypeError} if nothing was */
export function tlsOptions({ tls, handshakeTimeout }: ListenerOptions): TlsListenOptions {
  if (tls === undefined) throw new TypeError("listening for TLS: the option tls is missing");
  const handshakeTimeoutMs = tls.handshakeTimeoutMs ?? handshakeTimeout;
  return { ...tls, ...definedOf({ handshakeTimeoutMs }) };
}

/** What a listener goes by, besides its sessions' settings. */
export interface ListenerSettings {
  readonly maxPending: number;
  readonly acceptRate: number;
  readonly maxSessionsPerAddress: number;
}

/** @throws {RangeError} */
export function listenerSettings(given: ListenerOptions): ListenerSettings {
  const settings = {
    maxPending: given.maxPending ?? 512,
    acceptRate: given.acceptRate ?? 10_000,
    maxSessionsPerAddress: given.maxSessionsPerAddress ?? 16_384,
  };
  requireLimits(settings);
  return settings;
}

/** Refuses what a manager could not use later. @throws {RangeError | TypeError} */
export function requireManagerOptions(options: ManagerOptions): void {
  sessionSettings(options);
  listenerSettings(options);
  const { handshakeTimeout, maxPendingDatagrams, backlog, onError, onRefused } = options;
  const { flushTimeoutMs, lingerMs } = options;
  if (lingerMs !== 0) requireLimits(definedOf({ lingerMs }));
  requireLimits(definedOf({ flushTimeoutMs }));
  if (handshakeTimeout !== undefined) requireTime("handshakeTimeout", handshakeTimeout);
  requireLimits(definedOf({ maxPendingDatagrams, backlog }));
  if (onError !== undefined) requireFunction("onError", onError);
  if (onRefused !== undefined) requireFunction("onRefused", onRefused);
}

/** The options of {@linkcode ReconnectOptions}, with all numbers. */
export interface ReconnectSettings {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  readonly maxAttempts: number;
}

/** `undefined` if there is to be one connection only. @throws {RangeError} */
export function reconnectSettings(
  reconnect: ReconnectOptions | boolean | undefined,
): ReconnectSettings | undefined {
  if (reconnect === undefined || reconnect === false) return undefined;
  if (reconnect !== true && (typeof reconnect !== "object" || reconnect === null)) {
    throw new TypeError(`reconnect is ${String(reconnect)}, expected options or true`);
  }
  const given = reconnect === true ? {} : reconnect;
  const settings = {
    minDelayMs: given.minDelayMs ?? 250,
    maxDelayMs: given.maxDelayMs ?? 30_000,
    maxAttempts: given.maxAttempts ?? Infinity,
  };
  requireLimits(settings);
  if (settings.minDelayMs > settings.maxDelayMs) {
    const { minDelayMs, maxDelayMs } = settings;
    throw new RangeError(`minDelayMs is ${minDelayMs}, expected at most maxDelayMs, ${maxDelayMs}`);
  }
  return settings;
}

/** A time that a timer is set to, whose name does not say so. @throws {RangeError} */
function requireTime(name: string, ms: number): void {
  requireLimit(name, ms);
  if (ms > MAX_TIMEOUT_MS) {
    throw new RangeError(`${name} is ${ms}, expected at most ${MAX_TIMEOUT_MS}`);
  }
}

/** Without what is `undefined`, so that it does not take the place of a default. */
export function definedOf<T extends object>(options: T): Partial<Defined<T>> {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<Defined<T>>;
}

type Defined<T> = { [Name in keyof T]: Exclude<T[Name], undefined> };
