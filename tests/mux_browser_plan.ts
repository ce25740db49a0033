/** What the page of mux_browser_test.ts and its server agree on. */
import type { MuxStats } from "@trunkline/sockets/mux";

/** One session after the other, over both ways that a browser has to a WebSocket, and with either side closing. */
export const SESSIONS = [
  { transport: "WebSocket", closer: "page" },
  { transport: "WebSocketStream", closer: "server" },
] as const;

export type SessionPlan = (typeof SESSIONS)[number];

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
}

/** What the page posts. */
export type PageReport =
  | { readonly sessions: readonly SessionReport[] }
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
