/**
 * What a session needs of its manager.
 *
 * @module
 */
import type { Conn } from "../adapters/types.ts";
import type { ConnSession } from "./_conn_session.ts";
import type { DatagramSession } from "./_udp_session.ts";
import type { Budget } from "./_budget.ts";
import type { Channel, Sink } from "./channel.ts";
import { ManagerError, type ManagerErrorCode } from "./errors.ts";
import type { DisconnectReason, SessionEvent } from "./event.ts";
import type { Instruments } from "./metrics.ts";

export interface SessionHost {
  readonly budget: Budget;
  readonly instruments: Instruments | undefined;
  /** The session's id is free. */
  leave(session: ConnSession | DatagramSession): void;
  /** Its last event has found a place. */
  gone(session: ConnSession | DatagramSession, reason: DisconnectReason): void;
  /** Its connection is closing, and may still wait for the peer's end. */
  linger(conn: Conn): void;
}

/** Where the events of a session go. */
export interface Outlet {
  /** `undefined` if the next may come at once. */
  send(event: SessionEvent): Promise<void> | undefined;
  /** Takes back what nobody has taken. */
  remove?(drop: (event: SessionEvent) => boolean): void;
}

/** What a write fails with when the peer is gone. */
const PEER_GONE: ReadonlySet<ManagerErrorCode> = new Set(["disconnected", "reconnecting"]);

/** `onError` hears what a function throws, or rejects with; without it that is an unhandled rejection. @throws {TypeError} */
export function outletOf(sink: Sink, onError: ((error: unknown) => void) | undefined): Outlet {
  if (typeof (sink as Channel | null)?.send === "function") return sink as Channel;
  if (typeof sink !== "function") throw new TypeError("a sink is a Channel or a function");
  const fail = (error: unknown, { id }: SessionEvent) => {
    // To wait for the answer to a peer that has gone is no mistake of the sink, and `disconnected` tells of it.
    const gone = error instanceof ManagerError && PEER_GONE.has(error.code);
    if (gone && error.sessionId === id) return;
    // Without anybody who handles it, nobody has.
    if (onError === undefined) Promise.reject(error);
    else onError(error);
  };
  return {
    send(event) {
      try {
        const handled = sink(event);
        if (!isThenable(handled)) return undefined;
        return Promise.resolve(handled).then(() => {}, (error) => fail(error, event));
      } catch (error) {
        fail(error, event);
        return undefined;
      }
    },
  };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}
