/**
 * What a session tells of itself.
 *
 * @module
 */
import type { MuxProtocol, MuxSuite } from "./config.ts";
import { MuxError } from "./errors.ts";

/** What {@linkcode Mux.stats} tells. */
export interface MuxStats {
  /** What is spoken; undefined until a server that speaks both has seen the client's first bytes. */
  readonly protocol: MuxProtocol | undefined;
  /** Which ciphers v2 has agreed on; undefined before, and on v1. */
  readonly suite: MuxSuite | undefined;
  /** Live streams. */
  readonly streams: number;
  /**
   * Our opens that have seen no frame of the peer yet. A gomux that is silent never says more, and after 128 of them our opens wait. Always
   * 0 on v2, where the peer tells how many it takes.
   */
  readonly pendingOpens: number;
  /** `openStream()` calls that wait for one of those, for `maxStreams`, for the peer (v2), or for the handshake. */
  readonly waitingOpens: number;
  /** Streams of the peer that wait for `acceptStream()`. */
  readonly pendingAccepts: number;
  /** Streams of the peer that were refused: for want of room (v1), or behind our `goAway()` (v2). */
  readonly refusedStreams: number;
  /** Frames for streams that are over: what was on its way when they ended. */
  readonly lateFrames: number;
  /** Frames for streams that never were. Always 0 on v2, where the first one ends the session. */
  readonly strayFrames: number;
  /** Payload received, in bytes. */
  readonly bytesReceived: number;
  /** Payload sent, in bytes. */
  readonly bytesSent: number;
  /** Frames received. */
  readonly framesReceived: number;
  /** Frames sent. */
  readonly framesSent: number;
  /** Calls of the transport's `write()`. */
  readonly transportWrites: number;
  /**
   * True if the peer counts its frames, so that replay, reorder and drop are found: on v2 always, on v1 one of ours does, which is known
   * with its first frame. False for gomux; undefined as long as it cannot be told.
   */
  readonly peerCounts: boolean | undefined;
  /** What does the cryptography; undefined until it is loaded. */
  readonly aead: string | undefined;
  /**
   * The last round trip in milliseconds, undefined until one was measured. V1 has nothing to measure it by: there it throws, and is not
   * enumerable.
   *
   * @throws {MuxError} `unsupported` on v1
   */
  readonly rtt: number | undefined;
}

/** With a `rtt` that throws. */
export function statsWithoutRtt(stats: Omit<MuxStats, "rtt">): MuxStats {
  return Object.defineProperty(stats, "rtt", { get: refuse, enumerable: false }) as MuxStats;
}

function refuse(): never {
  throw new MuxError("unsupported", "the round trip cannot be measured: the protocol is v1");
}

/** Of a session that has not begun. */
export function emptyStats(protocol: MuxProtocol | undefined, waitingOpens: number): MuxStats {
  return {
    protocol,
    suite: undefined,
    streams: 0,
    pendingOpens: 0,
    waitingOpens,
    pendingAccepts: 0,
    refusedStreams: 0,
    lateFrames: 0,
    strayFrames: 0,
    bytesReceived: 0,
    bytesSent: 0,
    framesReceived: 0,
    framesSent: 0,
    transportWrites: 0,
    peerCounts: undefined,
    aead: undefined,
    rtt: undefined,
  };
}
