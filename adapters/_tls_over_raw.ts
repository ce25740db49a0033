/**
 * TLS on a {@linkcode RawSocket} through a Duplex stream, which hands the TLS layer encrypted bytes only while somebody waits for
 * plain ones.
 *
 * @module
 */
import { codedError } from "./_errors.ts";
import { builtin, type NodeDuplex, type NodeSocket } from "./_node_builtins.ts";
import { NodeRawSocket } from "./_node_socket.ts";
import type { RawSocket } from "./_raw_socket.ts";
import type { Address, PeerCredentials, TlsInfo } from "./types.ts";

export class TlsOverRaw {
  /** What node:tls gets as its socket. */
  readonly duplex: NodeDuplex;
  readonly #raw: NodeRawSocket;
  #shaken = false;
  /** Somebody waits for plain bytes. */
  #wanted = false;
  #wake: (() => void) | undefined;

  constructor(raw: NodeRawSocket) {
    this.#raw = raw;
    const { Duplex } = builtin("node:stream");
    const duplex: NodeDuplex = new Duplex({
      allowHalfOpen: true,
      read: () =>
        this.#next().then((chunk) => {
          // An end within the handshake leaves nothing to be said.
          if (chunk === null && !this.#shaken) duplex.destroy(codedError("ECONNRESET"));
          else duplex.push(chunk);
        }, (error) => duplex.destroy(error)),
      write: (bytes: Uint8Array, _encoding: unknown, done: (error?: Error) => void) =>
        raw.write(bytes).then(() => done(), done),
      final: (done: (error?: Error) => void) => raw.shutdown().then(() => done(), done),
      destroy: (error: Error | null, done: (error: Error | null) => void) => {
        raw.destroy(false);
        this.#want(true);
        done(error);
      },
    });
    // The error is told by the TLS socket above.
    duplex.on("error", () => {});
    this.duplex = duplex;
  }

  async #next(): Promise<Uint8Array | null> {
    if (this.#shaken && !this.#wanted) await new Promise<void>((resolve) => this.#wake = resolve);
    return await this.#raw.read();
  }

  /** Says whether somebody waits; a chunk may hold no plain bytes at all (session tickets), so that one may not be enough. */
  #want(wanted: boolean): void {
    this.#wanted = wanted;
    if (wanted) this.#wake?.();
  }

  /** The plain side, once the handshake is done. */
  secured(secure: NodeSocket): RawSocket {
    this.#shaken = true;
    return new SecuredSocket(secure, this.#raw, (waiting) => this.#want(waiting));
  }
}

/** Plain bytes of the TLS socket, and all else of the socket below. */
class SecuredSocket implements RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly tls: TlsInfo | undefined;
  readonly #plain: NodeRawSocket;
  readonly #below: RawSocket;
  #shut = false;

  constructor(secure: NodeSocket, below: RawSocket, want: (waiting: boolean) => void) {
    this.#plain = new NodeRawSocket(secure, undefined, want);
    this.#below = below;
    this.local = below.local;
    this.remote = below.remote;
    this.tls = this.#plain.tls;
  }

  async read(): Promise<Uint8Array | null> {
    try {
      return await this.#plain.read();
    } catch (error) {
      // When both directions have ended Deno sometimes closes the TLS socket without telling of the end. A failure of the
      // socket below is told as itself.
      if (this.#shut && (error as { code?: unknown }).code === "ERR_SOCKET_CLOSED") return null;
      throw error;
    }
  }
  write(bytes: Uint8Array): Promise<void> {
    return this.#plain.write(bytes);
  }
  async shutdown(): Promise<void> {
    await this.#plain.shutdown();
    this.#shut = true;
  }
  destroy(reset: boolean): void {
    this.#plain.destroy(reset);
  }
  setNoDelay(on: boolean): void {
    this.#below.setNoDelay(on);
  }
  setKeepAlive(on: boolean, delayMs: number): void {
    this.#below.setKeepAlive(on, delayMs);
  }
  peerCredentials(): PeerCredentials | undefined {
    return this.#below.peerCredentials();
  }
}
