/**
 * Writing to many sessions.
 *
 * @module
 */
import { requireChoice } from "../adapters/limits.ts";
import { requireBytes } from "./_bytes.ts";
import type { ConnSession } from "./_conn_session.ts";
import type { DatagramSession } from "./_udp_session.ts";
import { ManagerError } from "./errors.ts";
import { encodeFrame, type Framing } from "./framing.ts";
import type { Session } from "./session.ts";

/**
 * What becomes of a session that is slow, that is, has more than `lowWaterMark` bytes that wait to leave:
 *
 * - `buffer`: it is written to like the others, until `maxQueuedBytes`; what goes beyond it has failed
 * - `skip`: it does not get this one
 * - `close`: it is ended, with the reason `closed` and the error `slow`
 */
export type SlowPolicy = "buffer" | "skip" | "close";

const POLICIES: readonly SlowPolicy[] = ["buffer", "skip", "close"];

/** Options of {@linkcode ConnectionManager.writeToAll}. */
export interface BroadcastOptions {
  /** Chooses who gets it. @default all */
  readonly filter?: ((session: Session) => boolean) | undefined;
  /** What becomes of a session that is slow. @default "buffer" */
  readonly slow?: SlowPolicy | undefined;
}

/** How many of the sessions that were chosen got it. */
export interface BroadcastResult {
  /** It was written to them. */
  readonly sent: number;
  /** They were slow, or without a connection for the moment (`reconnecting`). */
  readonly skipped: number;
  /** They had no room for it, or were closed for being slow. */
  readonly failed: number;
}

/** Writes `bytes` to each; of UDP sockets to those that are bound. One that fails does not keep the others from it. */
export function broadcast(
  sessions: Iterable<ConnSession | DatagramSession>,
  bytes: Uint8Array,
  { filter, slow = "buffer" }: BroadcastOptions,
): BroadcastResult {
  requireBytes(bytes);
  requireChoice("slow", slow, POLICIES);
  // First, so that a filter that throws leaves everybody without.
  const chosen = [...sessions].filter((it) =>
    (it.kind !== "udp" || it.remote !== undefined) && (filter === undefined || filter(it))
  );
  const result = { sent: 0, skipped: 0, failed: 0 };
  // Made once for all sessions of a framing.
  const frames = new Map<Framing, Uint8Array>();
  const frameOf = (framing: Framing): Uint8Array => {
    const frame = frames.get(framing) ?? encodeFrame(framing, bytes);
    frames.set(framing, frame);
    return frame;
  };
  for (const session of chosen) result[writeTo(session, bytes, slow, frameOf)]++;
  return result;
}

function writeTo(
  session: ConnSession | DatagramSession,
  bytes: Uint8Array,
  slow: SlowPolicy,
  frameOf: (framing: Framing) => Uint8Array,
): keyof BroadcastResult {
  if (!session.writable) return "skipped";
  if (slow !== "buffer" && session.slow) {
    if (slow === "skip") return "skipped";
    const text =
      `session ${session.id}: ${session.queued} bytes wait to leave, and a broadcast came`;
    session.end("closed", new ManagerError("slow", text));
    return "failed";
  }
  try {
    if (session.kind === "udp") session.post(bytes);
    else session.post(bytes, frameOf(session.framing));
    return "sent";
  } catch (error) {
    if (error instanceof ManagerError) return "failed";
    throw error;
  }
}
