/**
 * The server's side of the handshake.
 *
 * @module
 */
import { connectError, noTls, toConnectError } from "./_errors.ts";
import { Inbox } from "./_inbox.ts";
import { answer, nameIn, openUnixgram, within } from "./_unixgram_handshake.ts";
import {
  bindOwn,
  type BindUnixgram,
  type OwnUnixgram,
  type UnixgramSocket,
} from "./_unixgram_socket.ts";
import type { Conn, ConnectError, Listener, UnixAddress, WaitOptions } from "./types.ts";

/** What a {@linkcode UnixgramListener} is made of. */
export interface UnixgramListenerParts {
  readonly addr: UnixAddress;
  readonly bind: BindUnixgram;
  /** Of the sockets of connections. */
  readonly directory: string;
  /** Where handshakes come in. */
  readonly socket: UnixgramSocket;
  /** Removes its file. */
  unlink(): Promise<void>;
  readonly handshakeTimeoutMs: number;
  readonly maxPeers: number;
  readonly flushTimeoutMs: number | undefined;
}

export class UnixgramListener implements Listener {
  readonly addr: UnixAddress;
  readonly #parts: UnixgramListenerParts;
  readonly #doing: string;
  readonly #inbox: Inbox<Conn>;
  readonly #closing = new AbortController();
  /** Names of clients and of our own sockets: a handshake with one of these would be a second one, or one with ourselves. */
  readonly #taken = new Set<string>();
  readonly #greetings = new Set<Promise<void>>();
  #peers = 0;
  #ignored = 0;
  #close: Promise<void> | undefined;

  constructor(parts: UnixgramListenerParts) {
    this.addr = parts.addr;
    this.#parts = parts;
    this.#doing = `accepting on ${parts.addr.path}`;
    // More than there may be peers will never wait.
    this.#inbox = new Inbox(parts.maxPeers, this.#doing);
    this.#taken.add(parts.addr.path.replace(/.*\//, ""));
    this.#run();
  }

  get dropped(): number {
    return this.#ignored + this.#inbox.dropped;
  }
  get closed(): Promise<void> {
    return this.#inbox.closed;
  }

  async #run(): Promise<void> {
    try {
      for (;;) {
        const name = nameIn((await this.#parts.socket.receive()).data);
        const welcome = name !== undefined && !this.#taken.has(name);
        if (!welcome || this.#peers >= this.#parts.maxPeers) {
          this.#ignored++;
          continue;
        }
        const greeting: Promise<void> = this.#greet(name)
          .finally(() => this.#greetings.delete(greeting));
        this.#greetings.add(greeting);
      }
    } catch (error) {
      // Our own close() has ended the inbox before.
      this.#end(toConnectError(error, this.#doing), true);
      await this.close();
    }
  }

  async #greet(name: string): Promise<void> {
    const { bind, directory, handshakeTimeoutMs, flushTimeoutMs } = this.#parts;
    this.#peers++;
    this.#taken.add(name);
    let own: OwnUnixgram | undefined;
    const leave = () => {
      this.#peers--;
      this.#taken.delete(name);
      if (own !== undefined) this.#taken.delete(own.name);
    };
    try {
      own = bindOwn(bind, directory);
      this.#taken.add(own.name);
      const { signal } = this.#closing;
      await within(answer(own, name), handshakeTimeoutMs, signal, this.#doing);
      const conn = openUnixgram(own, name, "server", flushTimeoutMs);
      conn.closed.then(leave, leave);
      if (!this.#inbox.push(conn)) conn.abort();
    } catch {
      // The client has gone, or reads nothing; or there is no room for a socket more.
      own?.close();
      leave();
      this.#ignored++;
    }
  }

  accept(options?: WaitOptions): Promise<Conn> {
    return this.#inbox.take(options);
  }

  reloadTls(): never {
    throw noTls(this.addr);
  }

  close(): Promise<void> {
    return this.#close ??= this.#doClose();
  }

  async #doClose(): Promise<void> {
    await this.#parts.unlink();
    this.#end(connectError("closed", this.#doing));
    this.#parts.socket.close();
    // They are cut off, but each has a file to remove.
    await Promise.all(this.#greetings);
  }

  #end(error: ConnectError, broken = false): void {
    this.#closing.abort(error);
    for (const conn of this.#inbox.end(error, broken)) conn.abort();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Conn, void> {
    return this.#inbox.iterate();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
