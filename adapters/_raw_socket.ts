/**
 * What an adapter has to supply to get a {@linkcode Conn}.
 *
 * @module
 */
import type { Address, PeerCredentials, TlsInfo } from "./types.ts";

/** What a runtime has to offer. Calls may fail with anything; it is mapped here. */
export interface RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly tls?: TlsInfo | undefined;
  /**
   * The next chunk (never empty, owned by the caller, or a view of `into`) or null at the end; never called while a read is
   * pending.
   */
  read(into?: Uint8Array): Promise<Uint8Array | null>;
  /** Hands all bytes to the kernel; never called while a write is pending. No promise if the kernel has them already. */
  write(bytes: Uint8Array): Promise<void> | undefined;
  /** The same for several pieces, where that costs less than to join them. */
  writeAll?(pieces: readonly Uint8Array[]): Promise<void>;
  /** Sends FIN; nothing is being written. */
  shutdown(): Promise<void>;
  /** Releases everything; calls that are pending must settle, in any way. */
  destroy(reset: boolean): void;
  setNoDelay(on: boolean): void;
  setKeepAlive(on: boolean, delayMs: number): void;
  peerCredentials(): PeerCredentials | undefined;
}
