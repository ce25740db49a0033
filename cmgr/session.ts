/**
 * The sessions of a manager, as its users see them.
 *
 * @module
 */
import type {
  Address,
  InetAddress,
  PeerCredentials,
  TlsInfo,
  WaitOptions,
} from "../adapters/types.ts";
import type { SessionStats } from "./stats.ts";

/** Options of closing a session; `signal` gives up what has not left. */
export interface CloseSessionOptions extends WaitOptions {
  /** Drops the data of this session that nobody has taken yet. @default false */
  readonly discard?: boolean | undefined;
}

/** What every session has. */
export interface BaseSession {
  /** Its name among those of its manager. */
  readonly id: string;
  /** The peer as text; of a UDP socket the peer that it is bound to, or `""`. */
  readonly from: string;
  /** Our address, if the runtime tells. */
  readonly local: Address | undefined;
  /** The peer's address, if the runtime tells; of a UDP socket that of the peer it is bound to. */
  readonly remote: Address | undefined;
  /** Bytes that were written and have not left. */
  readonly queued: number;
  /** Whatever the application keeps with a session; nothing here reads it. */
  context: unknown;
  /** What has happened so far, also after the end. */
  stats(): SessionStats;
  /**
   * Ends it: what was written before is sent. Resolves when that has left; may be called again. Does not wait for `disconnected` to be taken,
   * so it may be called while an event is handled.
   */
  close(options?: CloseSessionOptions): Promise<void>;
}

/** A session over a connection: TCP, TLS, a unix socket, or a stream that was adopted. */
export interface StreamSession extends BaseSession {
  /** What the connection is; `stream` was adopted. */
  readonly kind: "tcp" | "tls" | "unix" | "stream";
  /** The listener that accepted it. */
  readonly listener: string | undefined;
  /** What TLS agreed on. */
  readonly tls: TlsInfo | undefined;
  /**
   * Writes all of `bytes`, as one message of the session's framing. Resolves at once while fewer than `lowWaterMark` bytes wait to leave,
   * otherwise when it is so again. `bytes` must not change after the call: they may wait for longer than the promise. `signal` ends
   * the wait alone. That it fails after it has resolved, or that nobody waits for it, is told by `disconnected`.
   *
   * @throws {ManagerError} `queue-full`: nothing of it is sent; `disconnected`, `reconnecting`; `aborted`, `timeout`
   * @throws {TypeError} if `bytes` is no Uint8Array
   */
  write(bytes: Uint8Array, options?: WaitOptions): Promise<void>;
  /** The same with the first `n` of `bytes`: none if `n` is not positive. @throws {RangeError} if there are fewer */
  writeN(bytes: Uint8Array, n: number, options?: WaitOptions): Promise<void>;
  /** The same with a text, in UTF-8. */
  writeStr(text: string, options?: WaitOptions): Promise<void>;
  /** Sends what was written, then ends our side; the peer's goes on. Later writes fail. */
  closeWrite(): Promise<void>;
  /** Who is at the other end of a unix socket, where the runtime can tell. */
  peerCredentials(): PeerCredentials | undefined;
}

/** A UDP socket. */
export interface UdpSession extends BaseSession {
  /** What it is. */
  readonly kind: "udp";
  /** Our address. */
  readonly local: InetAddress;
  /** The peer it is bound to. */
  readonly remote: InetAddress | undefined;
  /** Sends to the peer it is bound to. @throws {ManagerError} `not-bound`; as {@linkcode UdpSession.writeTo} */
  write(bytes: Uint8Array): Promise<void>;
  /** The same with the first `n` of `bytes`: none if `n` is not positive. @throws {RangeError} if there are fewer */
  writeN(bytes: Uint8Array, n: number): Promise<void>;
  /** The same with a text, in UTF-8. */
  writeStr(text: string): Promise<void>;
  /**
   * Sends one datagram, empty ones too; resolves when the kernel has it. `bytes` must not change before.
   *
   * @throws {ManagerError} `queue-full`: too many wait to leave; `disconnected`
   * @throws {ConnectError} what the socket says
   * @throws {TypeError | RangeError} if `bytes` is no Uint8Array, or more than a datagram takes (65507)
   */
  writeTo(address: InetAddress, bytes: Uint8Array): Promise<void>;
  /** Sets the peer of `write()` and of broadcasts. Datagrams of others still come. @throws {ConnectError} `invalid-address` */
  bind(address: InetAddress | string): void;
  /** Takes that back. */
  unbind(): void;
}

/** What has an id and can be written to. */
export type Session = StreamSession | UdpSession;
