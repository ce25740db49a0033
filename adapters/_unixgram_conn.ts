/**
 * Two sockets that know each other's name as one byte stream each way.
 *
 * @module
 */
import { codedError, toConnectError } from "./_errors.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { UnixgramCutter } from "./_unixgram_cutter.ts";
import { type OwnUnixgram, requireWhole } from "./_unixgram_socket.ts";
import type { UnixAddress } from "./types.ts";

/** A datagram socket has no end to send; an empty datagram of our own to ourselves stands for one. */
const END = new Uint8Array();

export class UnixgramConn implements RawSocket {
  readonly local: UnixAddress;
  readonly remote: UnixAddress;
  readonly #own: OwnUnixgram;
  readonly #cutter: UnixgramCutter;
  #peerGone = false;

  /** `joins`: see {@linkcode UnixgramCutter}. */
  constructor(own: OwnUnixgram, remote: UnixAddress, joins: boolean) {
    this.#own = own;
    this.#cutter = new UnixgramCutter(joins);
    this.local = { path: own.path };
    this.remote = remote;
  }

  async read(): Promise<Uint8Array | null> {
    // The file name alone: the directory may have been spelled in another way by who bound it.
    const name = this.remote.path.replace(/.*\//, "/");
    for (;;) {
      const { data, from } = await this.#own.socket.receive();
      if (data.length === 0) {
        if (this.#peerGone) return null;
        continue;
      }
      // The Go package sends from sockets without a name.
      if (from !== undefined && !from.endsWith(name)) continue;
      requireWhole(data);
      return data;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (const datagram of this.#cutter.cut(bytes)) {
        await this.#own.socket.send(datagram, this.remote.path);
      }
    } catch (error) {
      this.#endReading();
      const { code } = toConnectError(error, "");
      // Nobody is bound to that name any more, and nobody else will ever be.
      throw code === "refused" || code === "not-found" ? codedError("EPIPE") : error;
    }
  }

  /** What came before a failed write is still to be read, and nobody else would tell where that ends. */
  #endReading(): void {
    this.#peerGone = true;
    const { socket, path } = this.#own;
    socket.send(END, path).catch(() => this.#own.close());
  }

  /** The peer hears of our end only when it sends again. */
  shutdown(): Promise<void> {
    return Promise.resolve();
  }

  destroy(): void {
    this.#own.close();
  }

  setNoDelay(): void {}
  setKeepAlive(): void {}
  peerCredentials(): undefined {}
}
