/**
 * What a manager tells of itself: plain objects that JSON can carry.
 *
 * @module
 */
import type { DisconnectReason } from "./event.ts";

/** Of one session. */
export interface SessionStats {
  /** Its id. */
  readonly id: string;
  /** What it is: `tcp`, `tls`, `unix`, `stream`, `udp`. */
  readonly kind: string;
  /** The listener that accepted it; null if none did. */
  readonly listener: string | null;
  /** The peer as text; `""` if there is none. */
  readonly from: string;
  /** Our address as text; null if the runtime does not tell. */
  readonly local: string | null;
  /** Where it stands. */
  readonly state: "open" | "half-open" | "reconnecting" | "closing" | "ended";
  /** Bytes that came. */
  readonly bytesIn: number;
  /** Bytes that were handed to the socket. */
  readonly bytesOut: number;
  /** What came as `data`: chunks, lines, frames, datagrams. */
  readonly messagesIn: number;
  /** What was written. */
  readonly messagesOut: number;
  /** What was to be written, and a full queue refused. */
  readonly refused: number;
  /** Bytes that wait to leave. */
  readonly queued: number;
  /** Datagrams that nobody took in time, or of the family that is not taken; 0 but for UDP. The kernel's own are not seen. */
  readonly dropped: number;
  /** How often it was connected again. */
  readonly reconnects: number;
  /** When it began, in milliseconds since 1970. */
  readonly since: number;
  /** When something came or was written, in milliseconds since 1970. */
  readonly lastActivity: number;
}

/** Why a connection was not taken: a limit, or one by IPv4 at `tcp6`, or the other way round. */
export type RefusalReason = "max-sessions" | "per-address" | "accept-rate" | "family";

/** How often, by reason. */
export type RefusalCounts = Readonly<Record<RefusalReason, number>>;

/** Of one listener. */
export interface ListenerStats {
  /** Its id. */
  readonly id: string;
  /** What it takes: `tcp`, `tcp4`, `tcp6`, `tls`, `unix`. */
  readonly kind: string;
  /** Where it listens, as text. */
  readonly address: string;
  /** Sessions that it has begun. */
  readonly accepted: number;
  /** Sessions of it that there are. */
  readonly sessions: number;
  /** Connections that it did not take. */
  readonly refused: RefusalCounts;
  /** Connections that ended before: their TLS handshake failed, or too many waited. */
  readonly dropped: number;
}

/** Of a manager. */
export interface ManagerStats {
  /** Its listeners; UDP sockets are sessions. */
  readonly listeners: readonly ListenerStats[];
  /** Its sessions, with UDP sockets. */
  readonly sessions: readonly SessionStats[];
  /** Bytes that wait to leave, of all sessions. */
  readonly queued: number;
  /** Events that wait in the manager's own channel. */
  readonly events: number;
  /** Sessions whose `disconnected` has found a place, by reason. */
  readonly ended: Readonly<Record<DisconnectReason, number>>;
}

/** The lines of Go's `List_stats` (spec 4, row 29). */
export function statsLines({ listeners, sessions }: ManagerStats): string[] {
  const counts = ({ bytesIn, bytesOut }: SessionStats) =>
    `${String(bytesIn).padStart(5)} ${String(bytesOut).padStart(5)}`;
  const [udp, streams] = [
    sessions.filter(({ kind }) => kind === "udp"),
    sessions.filter(({ kind }) => kind !== "udp"),
  ];
  return [
    `${listeners.length} tcp listeners:`,
    ...listeners.map(({ id, address }) => `\t${id} on ${address}`),
    ...udp.map((it) => `\t${it.id} UDP on ${it.local}  ${counts(it)}`),
    `${streams.length} tcp connections:`,
    ...streams.map((it) => `\t${it.id} -> ${it.from} ${counts(it)}`),
  ];
}

/** A time of `performance.now()` in milliseconds since 1970. */
export function epochMs(at: number): number {
  return Math.round(performance.timeOrigin + at);
}
