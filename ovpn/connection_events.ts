/**
 * What a {@linkcode ReconnectingClient} tells of its connections, among the events of OpenVPN.
 *
 * @module
 */
import type { EventBase } from "./event_base.ts";
import type { ManagementError } from "./errors.ts";
import type { EchoEvent, LogEvent, StateEvent } from "./event.ts";

/** Not of OpenVPN: there is a connection again, or the first one. What follows is of it; the set-up is under way. */
export interface ConnectedEvent extends EventBase<"connected"> {
  /** How many attempts it took. */
  readonly attempts: number;
}

/** Not of OpenVPN: what was turned on before is turned on again, and commands are sent. */
export interface ResumedEvent extends EventBase<"resumed"> {
  /** What happened in between, as far as OpenVPN tells; `undefined` for the first connection. */
  readonly gap: ConnectionGap | undefined;
  /** Commands of the set-up that OpenVPN refused. */
  readonly refused: readonly ManagementError[];
}

/** Not of OpenVPN: the connection is over. Clients that were announced on it cannot be answered any more. */
export interface DisconnectedEvent extends EventBase<"disconnected"> {
  /** Why. */
  readonly error: Error;
  /** Whether OpenVPN had said that it would exit: `FATAL`, or the state `EXITING`. */
  readonly exiting: boolean;
  /** In how many milliseconds the next attempt begins; `undefined` if there is none. */
  readonly retryMs: number | undefined;
}

/** Not of OpenVPN: an attempt to connect has failed. A slow consumer may lose it. */
export interface ConnectFailedEvent extends EventBase<"connect-failed"> {
  /** Why. */
  readonly error: Error;
  /** How many attempts there were since the last connection. */
  readonly attempts: number;
  /** In how many milliseconds the next one begins; `undefined` if there is none. */
  readonly retryMs: number | undefined;
}

/** What a {@linkcode ReconnectingClient} tells of its connections. */
export type ConnectionEvent =
  | ConnectedEvent
  | ResumedEvent
  | DisconnectedEvent
  | ConnectFailedEvent;

/** What became of OpenVPN while there was no connection. */
export type DaemonFate = "same" | "restarted" | "replaced" | "unknown";

/**
 * What may have been missed between two connections. Of a server's clients OpenVPN keeps no history: `status()` tells who is there now,
 * and a client that waits for an answer to a `CONNECT` which nobody heard waits until it gives up.
 */
export interface ConnectionGap {
  /** How long it was, in milliseconds: from the end of one connection to the set-up of the next. */
  readonly ms: number;
  /**
   * `same`: it ran on. `restarted`: SIGUSR1 or SIGHUP; CIDs are used again for other clients. `replaced`: this is another process, with
   * nothing set but by its configuration. `unknown`: its history does not reach back.
   */
  readonly daemon: DaemonFate;
  /** Whether it restarted because the connection had ended (`--management-signal`). */
  readonly restartedByDisconnect: boolean;
  /** The states that it entered. */
  readonly states: readonly StateEvent[];
  /** What it logged, if `LOG` events were on. */
  readonly log: readonly LogEvent[];
  /** Echo directives, if `ECHO` events were on. */
  readonly echoes: readonly EchoEvent[];
  /** Whether the three are whole; OpenVPN keeps 100 states, 250 lines of its log and 100 directives. */
  readonly complete: boolean;
}

/** An event without a line of OpenVPN. */
export function ownEvent<Type extends string, Fields extends object>(
  type: Type,
  fields: Fields,
): EventBase<Type> & Fields {
  return { type, raw: new Uint8Array(), ...fields };
}
