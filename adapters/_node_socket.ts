/**
 * node:net and node:tls sockets as {@linkcode RawSocket}.
 *
 * @module
 */
import type { NodeSocket } from "./_node_builtins.ts";
import { codedError } from "./_errors.ts";
import { readPeerCredentials } from "./peer_credentials.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { inetAddress } from "./address.ts";
import type { Address, PeerCredentials, TlsInfo } from "./types.ts";

/** The path of a unix socket's ends, which node does not tell. */
export interface SocketPath {
  readonly local?: string;
  readonly remote?: string;
}

/**
 * Reads in paused mode: `socket.read()` at each `readable`. With a buffer of its own for each chunk that is as fast as `onread`
 * (which wins only where one buffer is used again and again, and which accepted sockets do not have) and faster than
 * 'data' events; and while its small buffer has room node goes on reading, so that a FIN is seen.
 */
export class NodeRawSocket implements RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly tls: TlsInfo | undefined;
  readonly #socket: NodeSocket;
  readonly #waiting: ((yes: boolean) => void) | undefined;
  #ended = false;
  #shutting = false;
  #error: Error | undefined;
  /** The read that waits. */
  #reader: { resolve(chunk: Uint8Array | null): void; reject(error: Error): void } | undefined;

  /**
   * @param path given for unix sockets; an accepted one has no remote address
   * @param waiting told when a wait for data begins and ends
   */
  constructor(socket: NodeSocket, path?: SocketPath, waiting?: (yes: boolean) => void) {
    this.#socket = socket;
    this.#waiting = waiting;
    this.local = path ? unixAddress(path.local) : address(socket.localAddress, socket.localPort);
    this.remote = path
      ? unixAddress(path.remote)
      : address(socket.remoteAddress, socket.remotePort);
    this.tls = tlsInfo(socket);
    const wake = () => this.#serve();
    socket.on("readable", wake);
    socket.on("end", () => {
      this.#ended = true;
      wake();
    });
    // Without this listener an error of the socket would end the process.
    socket.on("error", (error: Error) => {
      this.#error ??= error;
      wake();
    });
    socket.on("close", () => {
      this.#error ??= codedError("ERR_SOCKET_CLOSED");
      wake();
    });
  }

  read(): Promise<Uint8Array | null> {
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#serve();
      if (this.#reader !== undefined) this.#waiting?.(true);
    });
  }

  /** Gives the read that waits what there is for it. */
  #serve(): void {
    const reader = this.#reader;
    if (reader === undefined) return;
    const chunk = this.#socket.read();
    if (chunk === null && !this.#ended && this.#error === undefined) return;
    this.#reader = undefined;
    this.#waiting?.(false);
    // A plain view: Buffer's own slice() would share memory where Uint8Array's copies.
    if (chunk !== null) {
      reader.resolve(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    } else if (this.#ended) reader.resolve(null);
    else reader.reject(this.#error!);
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.write(bytes, (error) => error ? reject(this.#error ?? error) : resolve());
    });
  }

  /** By one writev. */
  writeAll(pieces: readonly Uint8Array[]): Promise<void> {
    this.#socket.cork();
    try {
      const last = pieces.length - 1;
      for (let i = 0; i < last; i++) this.#socket.write(pieces[i]!, () => {});
      return this.write(pieces[last]!);
    } finally {
      this.#socket.uncork();
    }
  }

  shutdown(): Promise<void> {
    this.#shutting = true;
    return new Promise((resolve, reject) => {
      this.#socket.end((error) => {
        this.#shutting = false;
        if (error) reject(error);
        else resolve();
      });
    });
  }

  destroy(reset: boolean): void {
    // Only plain TCP can be reset; node refuses it for unix and TLS sockets. While a FIN is under way libuv refuses it too, and
    // node then never closes the socket.
    const resettable = reset && !this.#shutting && this.tls === undefined &&
      this.remote !== undefined && "port" in this.remote &&
      this.#socket.resetAndDestroy !== undefined;
    if (resettable) this.#socket.resetAndDestroy!();
    else this.#socket.destroy();
  }

  setNoDelay(on: boolean): void {
    // Bun's node:net does nothing for `false` unless it was told `true` before, though its sockets begin with it.
    if (!on) this.#socket.setNoDelay(true);
    this.#socket.setNoDelay(on);
  }

  setKeepAlive(on: boolean, delayMs: number): void {
    this.#socket.setKeepAlive(on, delayMs);
  }

  peerCredentials(): PeerCredentials | undefined {
    const fd = this.#socket._handle?.fd;
    const unix = this.remote === undefined || "path" in this.remote;
    return unix && fd !== undefined && fd >= 0 ? readPeerCredentials(fd) : undefined;
  }
}

function unixAddress(path: string | undefined): Address | undefined {
  return path === undefined ? undefined : { path };
}

function address(host: string | undefined, port: number | undefined): Address | undefined {
  return host === undefined || port === undefined ? undefined : inetAddress(host, port);
}

function tlsInfo(socket: NodeSocket): TlsInfo | undefined {
  if (socket.getProtocol === undefined) return undefined;
  const raw = socket.getPeerCertificate?.()?.raw;
  return {
    protocol: socket.getProtocol() ?? undefined,
    alpn: socket.alpnProtocol || undefined,
    authorized: socket.authorized === true,
    peerCertificate: raw && new Uint8Array(raw),
  };
}
