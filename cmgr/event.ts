/**
 * What happens to the sessions of a manager, as events.
 *
 * @module
 */
import type { Address, InetAddress, WaitOptions } from "../adapters/types.ts";
import { encodeText, writeFirst } from "./_bytes.ts";
import { attempt } from "./errors.ts";
import type { Session } from "./session.ts";

/** Go's number of the state `new`. */
export const ST_NEW = 0;
/** Go's number of the state `data`. */
export const ST_DATA = 1;
/** Go's number of the state `disconnected`. */
export const ST_DISC = 2;
/** Go's number of the state `accepted`. */
export const ST_ACCEPTED = 3;
/** Our number of the state `eof`. */
export const ST_EOF = 4;
/** Our number of the state `reconnecting`. */
export const ST_RECONNECTING = 5;
/** Go's number of the state of a connection that is being closed; no event has it. */
export const ST_CLOSING = 1;
/** The id of a manager's first listener. */
export const LISTENER = "l0";

/**
 * What an event says (spec 4):
 *
 * - `accepted`: a listener has taken a connection, after its TLS handshake; nothing of its session comes before, and `new` comes next
 * - `new`: a connection is there, accepted or connected; after `reconnecting` it is the next one of the same session
 * - `data`: `data` has come: bytes as they came, or one line, frame or datagram
 * - `eof`: the peer has ended its side, ours can still write; with `allowHalfOpen` only
 * - `reconnecting`: the connection is lost, and will be opened again; `info` says when
 * - `disconnected`: the session has ended; each has exactly one, and nothing after it
 */
export type SessionState = "new" | "data" | "disconnected" | "accepted" | "eof" | "reconnecting";

const CODES: Readonly<Record<SessionState, number>> = {
  new: ST_NEW,
  data: ST_DATA,
  disconnected: ST_DISC,
  accepted: ST_ACCEPTED,
  eof: ST_EOF,
  reconnecting: ST_RECONNECTING,
};

/**
 * Why a session has ended, or one connection of it (spec 4, row 12): the peer ended it in order (`eof`) or threw it away (`reset`); we did
 * (`closed`); a time ran out, `idleTimeout` or `stallTimeout` (`timeout`); anything else (`error`).
 */
export type DisconnectReason = "eof" | "reset" | "closed" | "timeout" | "error";

/** What an event says besides its state and its session. */
export interface EventParts {
  /** See {@linkcode SessionEvent.data}. @default none */
  readonly data?: Uint8Array;
  /** See {@linkcode SessionEvent.from}. @default that of the session */
  readonly from?: string;
  /** See {@linkcode SessionEvent.address}. @default that of the session */
  readonly address?: Address;
  /** See {@linkcode SessionEvent.info}. @default "" */
  readonly info?: string;
  /** See {@linkcode SessionEvent.reason}. @default none */
  readonly reason?: DisconnectReason;
  /** See {@linkcode SessionEvent.error}. @default none */
  readonly error?: Error | undefined;
}

const NOTHING = new Uint8Array();

/** Something that happened to a session; Go's `Sess_data`. */
export class SessionEvent {
  /** What happened. */
  readonly state: SessionState;
  /** The same as a number, Go's where it has one: `ST_NEW` and so on. */
  readonly code: number;
  /** The session's id; of a datagram that of our socket. */
  readonly id: string;
  /** The peer as text, `127.0.0.1:7505` or a path; of a datagram its sender. */
  readonly from: string;
  /** The same as an address, if the runtime tells. */
  readonly address: Address | undefined;
  /** What came; empty but for `data`, and for a datagram that is empty. It is for whoever takes the event, but may be
   * a view of a larger buffer (a line, a part of a chunk, and on Deno always): `slice()` it before it is transferred. */
  readonly data: Uint8Array;
  /** In words: `connection [a1] accepted from: 127.0.0.1:7505`, the peer (`new`), the reason (`disconnected`), when it is tried again (`reconnecting`). */
  readonly info: string;
  /** Why it is `disconnected` or `reconnecting`. */
  readonly reason: DisconnectReason | undefined;
  /** The error behind `reason`, if there was one. */
  readonly error: Error | undefined;
  /** The session itself, also when its id belongs to another one by now. */
  readonly session: Session;

  /** Made by a manager. */
  constructor(state: SessionState, session: Session, parts: EventParts = {}) {
    this.state = state;
    this.code = CODES[state];
    this.id = session.id;
    this.from = parts.from ?? session.from;
    this.address = parts.address ?? session.remote;
    this.data = parts.data ?? NOTHING;
    this.info = parts.info ?? "";
    this.reason = parts.reason;
    this.error = parts.error;
    this.session = session;
  }

  /**
   * Answers: writes to the session, or sends to the sender of this datagram.
   *
   * @throws {ManagerError} as `write()` of the session
   */
  write(bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    const { session } = this;
    if (session.kind === "udp") return session.writeTo(this.address as InetAddress, bytes);
    return session.write(bytes, options);
  }

  /** The same with the first `n` of `bytes`: none if `n` is not positive. @throws {RangeError} if there are fewer */
  writeN(bytes: Uint8Array, n: number, options?: WaitOptions): Promise<void> {
    return attempt(() => writeFirst(bytes, n, (first) => this.write(first, options)));
  }

  /** The same with a text, in UTF-8. */
  writeStr(text: string, options?: WaitOptions): Promise<void> {
    return attempt(() => this.write(encodeText(text), options));
  }
}
