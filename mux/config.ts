/**
 * Options and limits of a session, with their defaults (spec-mux: limits; spec-mux2: limits).
 *
 * @module
 */
import type { Aead } from "../adapters/aead.ts";
import { requireChoice, requireFunction, requireLimit } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import { type KeyPair, keyPairFrom } from "../adapters/x25519.ts";

/** Bytes that may be on their way in one direction of a stream. gomux has it built in: it cannot be chosen. */
export const WINDOW_BYTES = 131072;
/** Consumed bytes are granted again once they are this many; gomux stalls if more than 65536 are held back. */
export const CREDIT_BYTES = 32768;
/** A shorter psk cannot have the strength of the ciphers, and is likely to be a password. */
export const MIN_STRONG_PSK_BYTES = 16;

/** What is spoken: `v1` is gomux v1.0.0, `v2` our hardened mode, which needs one of ours at both ends. */
export type MuxProtocol = "v1" | "v2";

/**
 * The ciphers of v2, as Noise names them, with Curve25519 in both: ChaCha20-Poly1305 with BLAKE2b, or AES-256-GCM with SHA-256. The second
 * one is the faster where the processor has AES, on Bun above all; see docs/mux.md.
 */
export type MuxSuite = "ChaChaPoly_BLAKE2b" | "AESGCM_SHA256";

/** Who a peer is, by a key pair of Curve25519. See `generateIdentity()`. */
export interface MuxIdentity {
  /** 32 bytes, secret. */
  readonly privateKey: Uint8Array;
}

/** Something that one should mend, though it works. */
export interface MuxWarning {
  /** `weak-psk`: the psk has less than 16 bytes. */
  readonly code: "weak-psk";
  /** For people. It tells nothing of the psk but its length. */
  readonly message: string;
}

/** Options of a session. */
export interface MuxOptions {
  /** The pre-shared key, the same on both sides; text as UTF-8. Use 32 random bytes: a psk that can be guessed is no protection. */
  readonly psk: string | Uint8Array;
  /**
   * What to speak: `v2` whenever both ends are this package, `v1` with gomux. A server may allow both, `["v2", "v1"]`, and tells by
   * `mux.protocol` which one a client has chosen. A client never falls back to another one. @default "v1"
   */
  readonly protocol?: MuxProtocol | readonly MuxProtocol[] | undefined;
  /** The ciphers of v2: a client asks for the first one, a server takes any of them. @default ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] */
  readonly suites?: readonly MuxSuite[] | undefined;
  /**
   * Who we are (v2): each side then proves by its key who it is, besides having the psk. Needs `knownPeers`, and the same on the other side.
   * @default nobody: the psk alone
   */
  readonly identity?: MuxIdentity | undefined;
  /** Whose peers' public keys, of 32 bytes each, are taken; or a function that says so. Needed with `identity`. */
  readonly knownPeers?:
    | readonly Uint8Array[]
    | ((publicKey: Uint8Array) => boolean | Promise<boolean>)
    | undefined;
  /**
   * What does the cryptography, of a session whose cipher it does: v1, and ChaCha20-Poly1305 of v2, unless it says that it does another one.
   * @default the fastest of this runtime, see `loadAead()`
   */
  readonly aead?: Aead | undefined;
  /** Called at once with what one should mend. What it throws is thrown to whoever called. @default nobody is told */
  readonly onWarning?: ((warning: MuxWarning) => void) | undefined;
  /** Live streams: of both sides together on v1, of each side on v2. Our opens beyond them wait; the peer's are refused, or wait (v2). @default 65536 */
  readonly maxStreams?: number | undefined;
  /**
   * Our opens that have seen no frame of the peer yet; more wait (v1). gomux stalls all of its streams when 257 of them wait to be accepted.
   * @default 128
   */
  readonly maxPendingOpens?: number | undefined;
  /** Streams of the peer that wait for `acceptStream()`; more are refused, or wait at the peer (v2). @default 4096 */
  readonly maxPendingAccepts?: number | undefined;
  /** Frames for streams that never were; with more the session fails (v1). On v2 the first one is an error. @default 1000 */
  readonly maxStrayFrames?: number | undefined;
  /**
   * In milliseconds, on v1 from the first bytes of the peer to its first authenticated frame, on v2 from the start to the end of the
   * handshake. @default 10000
   */
  readonly handshakeTimeoutMs?: number | undefined;
  /** Without a write for so long a keepalive is sent, in milliseconds; v2: at least three within the peer's `idleTimeoutMs`. @default 60000 */
  readonly keepaliveMs?: number | undefined;
  /**
   * Without a frame of the peer for so long the session fails, in milliseconds; gomux sends one in 600000.
   * @default 900000 on v1, 180000 on v2
   */
  readonly idleTimeoutMs?: number | undefined;
  /** How long `close()`, of a stream too, may take to send what was written, in milliseconds. @default 30000 */
  readonly closeTimeoutMs?: number | undefined;
  /** What the peer may send on a stream before we have read any of it, in bytes (v2). @default 131072 */
  readonly windowBytes?: number | undefined;
  /** How large that may become, where the round trips would hold the peer back otherwise (v2). @default 16777216 */
  readonly maxStreamWindowBytes?: number | undefined;
  /** By how much all windows of a session together may grow (v2). @default 67108864 */
  readonly maxSessionWindowBytes?: number | undefined;
  /** Records are padded to a multiple of so many bytes, 1 to 32768, so that their length tells less (v2). @default 1: not at all */
  readonly padBytes?: number | undefined;
  /** Records after which we change our key, at most 65536 (v2). @default 65536 */
  readonly rekeyRecords?: number | undefined;
  /** Bytes after which we change our key, at most 1073741824 (v2). @default 1073741824 */
  readonly rekeyBytes?: number | undefined;
}

/** Options of `Mux.openStream()`. */
export interface OpenOptions extends WaitOptions {
  /**
   * From 0 to 7: as long as a stream with a lower number has something to send, others wait. The peer's answers take the same on v2.
   * @default 3
   */
  readonly priority?: number | undefined;
}

/** The lowest priority; 0 is the highest (as of RFC 9218). */
export const MAX_PRIORITY = 7;

/** Checks a priority. @throws {RangeError} */
export function requirePriority(priority: number): void {
  if (Number.isInteger(priority) && priority >= 0 && priority <= MAX_PRIORITY) return;
  throw new RangeError(`a priority of ${priority}, expected 0 to ${MAX_PRIORITY}`);
}

const DEFAULTS: Limits = {
  maxStreams: 65536,
  maxPendingOpens: 128,
  maxPendingAccepts: 4096,
  maxStrayFrames: 1000,
  handshakeTimeoutMs: 10_000,
  keepaliveMs: 60_000,
  idleTimeoutMs: 900_000,
  closeTimeoutMs: 30_000,
  windowBytes: 128 * 1024,
  maxStreamWindowBytes: 16 * 1024 * 1024,
  maxSessionWindowBytes: 64 * 1024 * 1024,
  padBytes: 1,
  rekeyRecords: 65536,
  rekeyBytes: 2 ** 30,
};

/** Those that the peer hears of, or that are bounded by the format: whole numbers up to these. */
const MOST: Readonly<Record<string, number>> = {
  windowBytes: 2 ** 31 - 1,
  maxStreamWindowBytes: 2 ** 31 - 1,
  padBytes: 32768,
  rekeyRecords: DEFAULTS.rekeyRecords,
  rekeyBytes: DEFAULTS.rekeyBytes,
};

/** The numbers of {@linkcode MuxOptions}. */
export type Limits = Readonly<
  Record<
    {
      [Name in keyof MuxOptions]-?: NonNullable<MuxOptions[Name]> extends number ? Name : never;
    }[keyof MuxOptions],
    number
  >
>;

/** Options that were checked. */
export interface Config {
  /** A copy: who wipes theirs wants to do so at once. */
  readonly psk: Uint8Array;
  readonly protocols: readonly MuxProtocol[];
  readonly suites: readonly MuxSuite[];
  readonly identity: Promise<KeyPair> | undefined;
  readonly isKnown: (publicKey: Uint8Array) => boolean | Promise<boolean>;
  readonly aead: Aead | undefined;
  readonly limits: Readonly<Record<MuxProtocol, Limits>>;
}

const PROTOCOLS: readonly MuxProtocol[] = ["v1", "v2"];
const SUITES: readonly MuxSuite[] = ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"];
/** Who relies on these is not to have them ignored. */
const V2_ALONE = ["suites", "padBytes", "rekeyRecords", "rekeyBytes"] as const;
const IDENTITY_BYTES = 32;

/**
 * Checks options, and tells `onWarning` what is to be told.
 *
 * @throws {TypeError} for an option that is missing, or none of what it may be
 * @throws {RangeError} for a limit that is none, a time that no timer takes, an empty psk for v2
 */
export function configOf(options: MuxOptions, isClient: boolean): Config {
  const { aead, protocol = "v1", suites = SUITES, onWarning } = options ?? {};
  if (aead && (typeof aead.seal !== "function" || typeof aead.open !== "function")) {
    throw new TypeError("an aead has seal() and open()");
  }
  const protocols = typeof protocol === "string" ? [protocol] : [...new Set(protocol)];
  for (const it of protocols) requireChoice("protocol", it, PROTOCOLS);
  if (protocols.length === 0 || (isClient && protocols.length > 1)) {
    throw new TypeError(
      `a ${isClient ? "client speaks one protocol" : "server speaks a protocol"}`,
    );
  }
  for (const it of suites) requireChoice("suites", it, SUITES);
  if (suites.length === 0) throw new TypeError("suites is empty");
  for (const name of V2_ALONE) {
    if (options[name] === undefined || protocols.includes("v2")) continue;
    throw new TypeError(`${name} needs protocol v2: v1 has no such thing`);
  }
  if (onWarning !== undefined) requireFunction("onWarning", onWarning);
  const psk = pskOf(options?.psk);
  if (psk.length === 0 && protocols.includes("v2")) throw new RangeError("the psk is empty");
  const config = {
    psk,
    protocols,
    suites: [...suites],
    ...identityOf(options, protocols),
    aead,
    limits: {
      v1: limitsOf(options),
      v2: limitsOf({ idleTimeoutMs: 180_000, ...defined(options) }),
    },
  };
  if (psk.length < MIN_STRONG_PSK_BYTES) {
    const message =
      `the psk has ${psk.length} bytes: use 32 random ones, or what Argon2id makes of a password`;
    onWarning?.({ code: "weak-psk", message });
  }
  return config;
}

function pskOf(psk: unknown): Uint8Array {
  if (typeof psk === "string") return new TextEncoder().encode(psk);
  if (psk instanceof Uint8Array) return new Uint8Array(psk);
  throw new TypeError("a psk is a string or a Uint8Array");
}

function identityOf(
  { identity, knownPeers }: MuxOptions,
  protocols: readonly MuxProtocol[],
): Pick<Config, "identity" | "isKnown"> {
  if ((identity === undefined) !== (knownPeers === undefined)) {
    throw new TypeError("identity and knownPeers need each other");
  }
  if (identity === undefined || knownPeers === undefined) {
    return { identity: undefined, isKnown: () => false };
  }
  // Whoever speaks v1 would prove nothing.
  if (protocols.includes("v1")) throw new TypeError("an identity needs protocol v2 alone");
  const isKey = (bytes: unknown) => bytes instanceof Uint8Array && bytes.length === IDENTITY_BYTES;
  if (!isKey(identity.privateKey)) throw new TypeError("identity.privateKey has not 32 bytes");
  if (typeof knownPeers === "function") {
    return { identity: keyPairFrom(identity.privateKey), isKnown: knownPeers };
  }
  if (!Array.isArray(knownPeers) || !knownPeers.every(isKey)) {
    throw new TypeError("knownPeers are public keys of 32 bytes each, or a function");
  }
  // Public, so that comparing them may take its time.
  const known = new Set(knownPeers.map((key) => key.join()));
  return { identity: keyPairFrom(identity.privateKey), isKnown: (key) => known.has(key.join()) };
}

function limitsOf(options: Partial<MuxOptions>): Limits {
  const limits: Record<string, number> = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    const value = options[name as keyof Limits] ?? limits[name]!;
    requireLimit(name, value);
    const most = MOST[name];
    if (most !== undefined && !(Number.isInteger(value) && value <= most)) {
      throw new RangeError(`${name} is ${value}, expected a whole number of at most ${most}`);
    }
    limits[name] = value;
  }
  if (limits["maxStreamWindowBytes"]! < limits["windowBytes"]!) {
    limits["maxStreamWindowBytes"] = limits["windowBytes"]!;
  }
  return limits as Limits;
}

/** Without what is undefined, so that it does not hide a default. */
function defined(options: MuxOptions): Partial<MuxOptions> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
