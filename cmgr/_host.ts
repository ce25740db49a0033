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

/** @throws {TypeError} */
export function outletOf(sink: Sink, onError: (error: unknown) => void): Outlet {
  if (typeof (sink as Channel | null)?.send === "function") return sink as Channel;
  if (typeof sink !== "function") throw new TypeError("a sink is a Channel or a function");
  return {
    send(event) {
      try {
        const handled = sink(event);
        if (!isThenable(handled)) return undefined;
        return Promise.resolve(handled).then(() => {}, onError);
      } catch (error) {
        onError(error);
        return undefined;
      }
    },
  };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}
