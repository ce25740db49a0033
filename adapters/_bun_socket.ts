/**
 * Bun's own stream sockets as {@linkcode RawSocket}.
 *
 * @module
 */
import { codedError } from "./_errors.ts";
import { readPeerCredentials } from "./peer_credentials.ts";
import type { RawSocket } from "./_socket_conn.ts";
import { inetAddress } from "./address.ts";
import type { Address, PeerCredentials } from "./types.ts";

/** A socket of `Bun.connect` or `Bun.listen`. */
export interface BunSocket {
  data: BunRawSocket | undefined;
  readonly fd: number;
  readonly localAddress?: string;
  readonly localPort?: number;
  readonly remoteAddress?: string;
  readonly remotePort?: number;
  /** Bytes taken; 0 if the kernel's buffer is full, -1 if the socket is closed. The rest is not kept. */
  write(bytes: Uint8Array): number;
  shutdown(): void;
  end(): void;
  terminate(): void;
  pause(): void;
  resume(): void;
  setNoDelay(on: boolean): void;
  setKeepAlive(on: boolean, delayMs: number): void;
}

/** The callbacks of Bun's sockets. */
export interface BunSocketHandler {
  data(socket: BunSocket, chunk: Uint8Array): void;
  drain(socket: BunSocket): void;
  end(socket: BunSocket): void;
  close(socket: BunSocket, error?: Error): void;
  error(socket: BunSocket, error: Error): void;
}

/** Unread bytes at which the socket is paused, and down to which they must be read before it goes on. */
const PAUSE_BYTES = 256 * 1024;
const RESUME_BYTES = 64 * 1024;

export class BunRawSocket implements RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly #socket: BunSocket;
  readonly #chunks: Uint8Array[] = [];
  #unread = 0;
  #paused = false;
  #ended = false;
  #closed = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;
  #wakeWriter: (() => void) | undefined;

  constructor(socket: BunSocket, local?: Address, remote?: Address) {
    this.#socket = socket;
    const unix = local !== undefined || remote !== undefined;
    this.local = unix ? local : address(socket.localAddress, socket.localPort);
    this.remote = unix ? remote : address(socket.remoteAddress, socket.remotePort);
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    this.#unread += chunk.byteLength;
    if (this.#unread >= PAUSE_BYTES && !this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
    this.#wake?.();
  }

  drained(): void {
    this.#wakeWriter?.();
  }

  ended(): void {
    this.#ended = true;
    this.#wake?.();
  }

  gone(error?: Error): void {
    this.#error ??= error;
    // After our FIN, the peer's is told as a close without an error and not as an end.
    if (error === undefined) this.#ended = true;
    this.#closed = true;
    this.#wake?.();
    this.#wakeWriter?.();
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#unread -= chunk.byteLength;
        // While paused nothing is heard of the peer's FIN either.
        if (this.#paused && this.#unread <= RESUME_BYTES && !this.#closed) {
          this.#paused = false;
          this.#socket.resume();
        }
        if (chunk.byteLength > 0) return chunk;
        continue;
      }
      if (this.#ended) return null;
      if (this.#closed) throw this.#error ?? codedError("ECONNRESET");
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = undefined;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let sent = 0;;) {
      const taken = this.#closed
        ? -1
        : this.#socket.write(sent === 0 ? bytes : bytes.subarray(sent));
      if (taken < 0) throw this.#error ?? codedError("EPIPE");
      sent += taken;
      if (sent >= bytes.length) return;
      await new Promise<void>((resolve) => this.#wakeWriter = resolve);
      this.#wakeWriter = undefined;
    }
  }

  shutdown(): Promise<void> {
    // end() would close both directions, whatever allowHalfOpen says.
    if (!this.#closed) this.#socket.shutdown();
    return Promise.resolve();
  }

  destroy(reset: boolean): void {
    if (this.#closed) return;
    // First, since Bun calls back at once.
    this.gone(codedError("ERR_SOCKET_CLOSED"));
    if (reset) this.#socket.terminate();
    else this.#socket.end();
  }

  setNoDelay(on: boolean): void {
    this.#socket.setNoDelay(on);
  }

  setKeepAlive(on: boolean, delayMs: number): void {
    this.#socket.setKeepAlive(on, delayMs);
  }

  peerCredentials(): PeerCredentials | undefined {
    const unix = this.remote === undefined || "path" in this.remote;
    return unix ? readPeerCredentials(this.#socket.fd) : undefined;
  }
}

function address(host: string | undefined, port: number | undefined): Address | undefined {
  return host === undefined || port === undefined ? undefined : inetAddress(host, port);
}
