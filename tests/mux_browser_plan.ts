/** What the page of mux_browser_test.ts and its server agree on. */
import type { MuxOptions, MuxStats, MuxSuite } from "@trunkline/sockets/mux";
import { keyPairFrom } from "../adapters/x25519.ts";
import { PSK } from "./mux_pair.ts";

/** What is spoken: v1 has no suite, and with identities v2 is XXpsk3. */
export interface Protocol {
  readonly suite?: MuxSuite;
  readonly identities?: true;
}

export interface SessionPlan extends Protocol {
  readonly transport: "WebSocket" | "WebSocketStream";
  readonly closer: Side;
}

export type Side = "page" | "server";

/** One session after the other, over both ways that a browser has to a WebSocket, and with either side closing. */
export const SESSIONS: readonly SessionPlan[] = [
  { transport: "WebSocket", closer: "page" },
  { transport: "WebSocketStream", closer: "server" },
  { transport: "WebSocket", closer: "server", suite: "ChaChaPoly_BLAKE2b" },
  { transport: "WebSocketStream", closer: "page", suite: "AESGCM_SHA256" },
  { transport: "WebSocket", closer: "page", suite: "ChaChaPoly_BLAKE2b", identities: true },
];

/** Behind those: sessions of v2 for which the page has another psk. */
export const STRANGERS: readonly Protocol[] = [
  { suite: "ChaChaPoly_BLAKE2b" },
  { suite: "AESGCM_SHA256" },
  { suite: "AESGCM_SHA256", identities: true },
];

const PRIVATE_KEYS = { page: new Uint8Array(32).fill(1), server: new Uint8Array(32).fill(2) };

async function publicKeyOf(side: Side): Promise<Uint8Array> {
  return (await keyPairFrom(PRIVATE_KEYS[side])).publicKey;
}

/** The options of one side. Where it can, the server finds out by itself what is spoken. */
export async function optionsOf(
  { suite, identities }: Protocol,
  side: Side,
): Promise<MuxOptions> {
  if (identities !== undefined) {
    const knownPeers = [await publicKeyOf(side === "page" ? "server" : "page")];
    const identity = { privateKey: PRIVATE_KEYS[side] };
    return { psk: PSK, protocol: "v2", suites: [suite!], identity, knownPeers };
  }
  if (side === "server") return { psk: PSK, protocol: ["v2", "v1"] };
  return suite === undefined ? { psk: PSK } : { psk: PSK, protocol: "v2", suites: [suite] };
}

/** The codes with which the sides reset a stream each (v2). */
export const RESET_CODES: Readonly<Record<Side, number>> = { page: 77, server: 88 };

/** Streams that the page opens. */
export const STREAMS = 10;
/** The page writes so much to each, which is twice the window. */
export const STREAM_BYTES = 262_144;
/** The server writes so much to the stream that it opens. */
export const GREETING_BYTES = 200_000;
/** The seed of what the server writes; the page's are the numbers of its streams. */
export const GREETING_SEED = 1000;

/** What one side has seen of a session that has ended in order. */
export interface SessionReport {
  /** Of the streams that this side has opened, how many came back the same to the last byte. */
  readonly same: number;
  /** Of the session's end. */
  readonly stats: MuxStats;
  /** Of v2. */
  readonly v2?: {
    /** By `ping()`, in milliseconds. */
    readonly rtt: number;
    /** With which code the peer has reset a stream. */
    readonly resetCode: number | undefined;
    readonly peerKey: string | undefined;
  } | undefined;
}

/** What the page posts. */
export type PageReport =
  | { readonly sessions: readonly SessionReport[]; readonly strangers: readonly string[] }
  | { readonly error: string };

/** Bytes that repeat nowhere, others for each seed. */
export function content(length: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    return state >>> 24;
  });
}

/** assertEquals() of large arrays takes seconds. */
export function isSame(actual: Uint8Array, expected: Uint8Array): boolean {
  return actual.length === expected.length && actual.every((byte, i) => byte === expected[i]);
}
