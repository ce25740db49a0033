/** What can happen to a manager, and where. */
import type { Address, Transport } from "../adapters/types.ts";
import type { SessionOptions, SlowPolicy } from "../cmgr/mod.ts";
import type { Pipe } from "./cmgr_model_net.ts";
import type { PeerEnd } from "./cmgr_model_peer.ts";

/** The limits of a manager, and what its sessions are like. */
export interface Limits extends SessionOptions {
  readonly capacity: number;
  readonly maxSessions: number;
  readonly maxPending: number;
  readonly maxTotalQueuedBytes: number;
}

/** One thing that happens; numbers choose among what there is, and nothing happens if there is none. */
export type Step =
  | { readonly do: "listen"; readonly unix: boolean; readonly sink: number }
  | { readonly do: "dial"; readonly at: number; readonly stays: boolean }
  | {
    readonly do: "connect";
    readonly id: number;
    readonly unix: boolean;
    readonly sink: number;
    readonly replace: boolean;
    readonly reconnect: boolean;
    readonly stays: boolean;
  }
  | { readonly do: "adopt"; readonly id: number; readonly sink: number; readonly again: boolean }
  | { readonly do: "write"; readonly to: number; readonly size: number; readonly byId: boolean }
  | { readonly do: "broadcast"; readonly size: number; readonly slow: SlowPolicy }
  | { readonly do: "peerWrite"; readonly of: number; readonly sizes: readonly number[] }
  | { readonly do: "peerEnd"; readonly of: number; readonly how: PeerEnd; readonly rest: boolean }
  | { readonly do: "stallPeer"; readonly of: number }
  | { readonly do: "stallSink"; readonly sink: number }
  | { readonly do: "close"; readonly which: number; readonly discard: boolean }
  | { readonly do: "closeWrite"; readonly which: number }
  | {
    readonly do: "closeListener";
    readonly at: number;
    readonly sessions: boolean;
    readonly discard: boolean;
  }
  | { readonly do: "pause"; readonly ms: number };

export interface Plan {
  readonly limits: Limits;
  readonly steps: readonly Step[];
  /** How long the last writes have to leave, in milliseconds; undefined: peers end first, and nothing need be given up. */
  readonly graceMs: number | undefined;
  /** How long sessions go on before that. */
  readonly drainMs: number;
}

/** Where sockets come from. */
export interface Place {
  readonly transport: Transport;
  /** An address that nobody listens at. */
  address(unix: boolean): Address;
  /** What an adopted connection is like. */
  readonly pipe: Pipe;
}
