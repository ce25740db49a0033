/**
 * Options and limits of a session, with their defaults (spec-mux: limits).
 *
 * @module
 */
import type { Aead } from "../adapters/aead.ts";
import { requireLimit } from "../adapters/limits.ts";

/** Bytes that may be on their way in one direction of a stream. gomux has it built in: it cannot be chosen. */
export const WINDOW_BYTES = 131072;
/** Consumed bytes are granted again once they are this many; gomux stalls if more than 65536 are held back. */
export const CREDIT_BYTES = 32768;

/** Options of a session. */
export interface MuxOptions {
  /** The pre-shared key, the same on both sides; text as UTF-8. Use 32 random bytes: a psk that can be guessed is no protection. */
  readonly psk: string | Uint8Array;
  /** What does the cryptography. @default the fastest of this runtime, see `loadAead()` */
  readonly aead?: Aead | undefined;
  /** Live streams, of both sides; our opens beyond them wait, those of the peer are refused. @default 65536 */
  readonly maxStreams?: number | undefined;
  /**
   * Our opens that have seen no frame of the peer yet; more wait. gomux stalls all of its streams when 257 of them wait to be accepted.
   * @default 128
   */
  readonly maxPendingOpens?: number | undefined;
  /** Streams of the peer that wait for `acceptStream()`; more are refused. @default 4096 */
  readonly maxPendingAccepts?: number | undefined;
  /** Frames for streams that never were; with more the session fails. @default 1000 */
  readonly maxStrayFrames?: number | undefined;
  /** From the first bytes of the peer to its first authenticated frame, in milliseconds. @default 10000 */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Without a write for so long a keepalive is sent, in milliseconds. @default 60000 */
  readonly keepaliveMs?: number | undefined;
  /** Without a frame of the peer for so long the session fails, in milliseconds; gomux sends one in 600000. @default 900000 */
  readonly idleTimeoutMs?: number | undefined;
  /** How long `close()`, of a stream too, may take to send what was written, in milliseconds. @default 30000 */
  readonly closeTimeoutMs?: number | undefined;
}

/** The numbers of {@linkcode MuxOptions}. */
export type Limits = Readonly<Record<Exclude<keyof MuxOptions, "psk" | "aead">, number>>;

const DEFAULTS: Limits = {
  maxStreams: 65536,
  maxPendingOpens: 128,
  maxPendingAccepts: 4096,
  maxStrayFrames: 1000,
  handshakeTimeoutMs: 10_000,
  keepaliveMs: 60_000,
  idleTimeoutMs: 900_000,
  closeTimeoutMs: 30_000,
};

/**
 * The limits in `options`, and the defaults of the others.
 *
 * @throws {TypeError} if there is no psk
 * @throws {RangeError} for one that is not positive, or a time that no timer takes
 */
export function limitsOf(options: MuxOptions): Limits {
  if (typeof options?.psk !== "string" && !(options?.psk instanceof Uint8Array)) {
    throw new TypeError("a psk is a string or a Uint8Array");
  }
  const { aead } = options;
  if (aead && (typeof aead.seal !== "function" || typeof aead.open !== "function")) {
    throw new TypeError("an aead has seal() and open()");
  }
  const limits: Record<string, number> = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = options[name as keyof Limits] ?? limits[name]!;
    requireLimit(name, value);
    limits[name] = value;
  }
  return limits as Limits;
}
