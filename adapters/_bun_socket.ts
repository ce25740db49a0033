/**
 * Bun's own stream sockets as {@linkcode RawSocket}.
 *
 * @module
 */
import { codedError } from "./_errors.ts";
import { readPeerCredentials } from "./peer_credentials.ts";
import type { RawSocket } from "./_raw_socket.ts";
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

/** The callbacks of Bun's sockets, and what they are called with. */
export interface BunSocketHandler {
  /** Saves a view of each chunk. */
  readonly binaryType: "uint8array";
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
  /** The read that waits. */
  #reader: { resolve(chunk: Uint8Array | null): void; reject(error: Error): void } | undefined;
  #wakeWriter: (() => void) | undefined;

  constructor(socket: BunSocket, local?: Address, remote?: Address) {
    this.#socket = socket;
    const unix = local !== undefined || remote !== undefined;
    this.local = unix ? local : address(socket.localAddress, socket.localPort);
    this.remote = unix ? remote : address(socket.remoteAddress, socket.remotePort);
  }

  push(chunk: Uint8Array): void {
    if (chunk.byteLength === 0) return;
    // A Bun that does not know `binaryType` gives Buffers, whose own slice() shares memory where Uint8Array's copies.
    const plain = chunk.constructor === Uint8Array;
    this.#chunks.push(
      plain ? chunk : new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength),
    );
    this.#unread += chunk.byteLength;
    if (this.#unread >= PAUSE_BYTES && !this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
    this.#serve();
  }

  drained(): void {
    this.#wakeWriter?.();
  }

  ended(): void {
    this.#ended = true;
    this.#serve();
  }

  gone(error?: Error): void {
    this.#error ??= error;
    // After our FIN, the peer's is told as a close without an error and not as an end.
    if (error === undefined) this.#ended = true;
    this.#closed = true;
    this.#serve();
    this.#wakeWriter?.();
  }

  read(): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#serve();
    });
  }

  /** Gives the read that waits what there is for it. */
  #serve(): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    const chunk = this.#chunks.shift();
    if (chunk === undefined && !this.#ended && !this.#closed) return;
    this.#reader = undefined;
    if (chunk === undefined) {
      if (this.#ended) reader.resolve(null);
      else reader.reject(this.#error ?? codedError("ECONNRESET"));
      return;
    }
    this.#unread -= chunk.byteLength;
    // While paused nothing is heard of the peer's FIN either.
    if (this.#paused && this.#unread <= RESUME_BYTES && !this.#closed) {
      this.#paused = false;
      this.#socket.resume();
    }
    reader.resolve(chunk);
  }

  write(bytes: Uint8Array): Promise<void> | undefined {
    try {
      const taken = this.#closed ? -1 : this.#socket.write(bytes);
      return taken === bytes.length ? undefined : this.#writeRest(bytes, taken);
    } catch (error) {
      // Memory that was given away, to a worker say.
      return Promise.reject(error);
    }
  }

  async #writeRest(bytes: Uint8Array, taken: number): Promise<void> {
    for (let sent = 0;;) {
      if (taken < 0) throw this.#error ?? codedError("EPIPE");
      sent += taken;
      if (sent >= bytes.length) return;
      await new Promise<void>((resolve) => this.#wakeWriter = resolve);
      this.#wakeWriter = undefined;
      taken = this.#closed ? -1 : this.#socket.write(bytes.subarray(sent));
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
