/**
 * The one implementation of {@linkcode Conn}. A runtime supplies a {@linkcode RawSocket}; everything that the
 * runtimes would otherwise do differently (order, half-close, errors, aborts, web streams) is decided here.
 *
 * @module
 */
import { abortError, connectError, toConnectError } from "./_errors.ts";
import { formatAddress } from "./address.ts";
import type {
  Address,
  Conn,
  ConnectError,
  ConnOptions,
  PeerCredentials,
  ReadOptions,
  TlsInfo,
  WaitOptions,
} from "./types.ts";

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
  /** Hands all bytes to the kernel; never called while a write is pending. */
  write(bytes: Uint8Array): Promise<void>;
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

/** Default of `flushTimeoutMs`: how long `close()` may take to hand over what was written. */
export const FLUSH_TIMEOUT_MS = 30_000;
/** Default of `lingerMs`: how long `close()` waits for the peer's FIN. */
export const LINGER_MS = 2_000;
/** Queued writes are handed over together, up to this many bytes: copying them costs less than a system call for each. */
const JOIN_BYTES = 256 * 1024;

const NOTHING = new Uint8Array();

interface Reader {
  readonly into?: Uint8Array | undefined;
  resolve(chunk: Uint8Array | null): void;
  reject(error: ConnectError): void;
}

interface Write {
  readonly bytes: Uint8Array;
  /** Settles the caller's promise and lets go of its signal. */
  done(error?: ConnectError): void;
}

export class SocketConn implements Conn {
  readonly closed: Promise<void>;
  readonly #raw: RawSocket;
  readonly #name: string;
  readonly #flushTimeoutMs: number;
  readonly #lingerMs: number;
  #settleClosed!: { resolve(): void; reject(error: ConnectError): void };

  readonly #readers = new Set<Reader>();
  /** A chunk that came for a reader that had gone. */
  #unread: Uint8Array | undefined;
  #reading = false;
  #eof = false;

  #writes: Write[] = [];
  #writing: readonly Write[] = [];
  #queued = 0;
  /** Where writes are joined. */
  #joined: Uint8Array = NOTHING;
  #idle: (() => void) | undefined;

  #error: ConnectError | undefined;
  #released = false;
  #finSent = false;
  /** The web stream's reader wants no more. */
  #cancelled = false;
  #closeWrite: Promise<void> | undefined;
  #endShutdown: (() => void) | undefined;
  #close: Promise<void> | undefined;
  #readable: ReadableStream<Uint8Array> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;
  /** How the web streams hear of an end that is not of their making. */
  #toReadable: ReadableByteStreamController | undefined;
  #toWritable: WritableStreamDefaultController | undefined;

  constructor(raw: RawSocket, options: ConnOptions = {}) {
    this.#raw = raw;
    this.#name = raw.remote === undefined ? "the connection" : formatAddress(raw.remote);
    this.#flushTimeoutMs = options.flushTimeoutMs ?? FLUSH_TIMEOUT_MS;
    this.#lingerMs = options.lingerMs ?? LINGER_MS;
    this.closed = new Promise((resolve, reject) => this.#settleClosed = { resolve, reject });
    // Pre-handled: an error that nobody asks `closed` about must not end the process.
    this.closed.catch(() => {});
  }

  get local(): Address | undefined {
    return this.#raw.local;
  }
  get remote(): Address | undefined {
    return this.#raw.remote;
  }
  get tls(): TlsInfo | undefined {
    return this.#raw.tls;
  }
  get queued(): number {
    return this.#queued;
  }

  read({ signal, into }: ReadOptions = {}): Promise<Uint8Array | null> {
    if (signal?.aborted) return Promise.reject(abortError(signal, this.#doing("reading from")));
    if (this.#close !== undefined) return Promise.reject(this.#closedError());
    if (this.#unread !== undefined) {
      const chunk = this.#unread;
      this.#unread = undefined;
      return Promise.resolve(chunk);
    }
    if (this.#eof && this.#error === undefined) return Promise.resolve(null);
    if (this.#released) return Promise.reject(this.#closedError());
    return new Promise((resolve, reject) => {
      let reader: Reader = { into: into?.length === 0 ? undefined : into, resolve, reject };
      if (signal !== undefined) {
        const settle = () => signal.removeEventListener("abort", onAbort);
        const onAbort = () => {
          this.#readers.delete(reader);
          reject(abortError(signal, this.#doing("reading from")));
        };
        // Without `into`: it could be given to somebody else, or be written to when nobody waits any more.
        reader = {
          resolve: (chunk) => (settle(), resolve(chunk)),
          reject: (error) => (settle(), reject(error)),
        };
        signal.addEventListener("abort", onAbort, { once: true });
      }
      this.#readers.add(reader);
      if (!this.#reading) this.#pump();
    });
  }

  /** Reads while somebody waits, and never ahead: the kernel's buffer is what slows the peer. */
  async #pump(): Promise<void> {
    this.#reading = true;
    try {
      while (this.#readers.size > 0 && !this.#eof) {
        const [first] = this.#readers;
        const chunk = await this.#raw.read(first?.into);
        if (this.#released) break;
        if (chunk === null) this.#eof = true;
        else this.#deliver(chunk);
      }
      if (this.#eof && this.#error !== undefined) this.#release();
      else if (this.#eof) {
        for (const reader of this.#takeReaders()) reader.resolve(null);
        if (this.#finSent) this.#release();
      }
    } catch (error) {
      this.#fail(toConnectError(error, this.#doing("reading from")), false);
    }
    this.#reading = false;
  }

  #deliver(chunk: Uint8Array): void {
    const [reader] = this.#readers;
    // A closing connection reads only to reach the peer's FIN.
    if (this.#close !== undefined) return;
    if (reader === undefined) this.#unread = chunk;
    else {
      this.#readers.delete(reader);
      reader.resolve(chunk);
    }
  }

  #takeReaders(): Reader[] {
    const readers = [...this.#readers];
    this.#readers.clear();
    return readers;
  }

  write(bytes: Uint8Array, { signal }: WaitOptions = {}): Promise<void> {
    const refusal = this.#refusal(bytes, signal);
    const promise = refusal ? Promise.reject(refusal) : this.#enqueue(bytes, signal);
    // The sticky error tells too, so a caller that does not wait for each write does not end the process.
    promise.catch(() => {});
    return promise;
  }

  /** Why a write fails before it is queued. */
  #refusal(bytes: Uint8Array, signal: AbortSignal | undefined): Error | undefined {
    if (!(bytes instanceof Uint8Array)) {
      return new TypeError(`${this.#doing("writing to")}: not a Uint8Array`);
    }
    if (signal?.aborted) return abortError(signal, this.#doing("writing to"));
    if (this.#error !== undefined) return this.#error;
    const closed = this.#closeWrite !== undefined || this.#close !== undefined || this.#released;
    return closed ? connectError("closed", this.#doing("writing to")) : undefined;
  }

  #enqueue(bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    if (bytes.length === 0) return Promise.resolve();
    const promise = new Promise<void>((resolve, reject) => {
      const write: Write = {
        bytes,
        done: (error) => {
          signal?.removeEventListener("abort", onAbort);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      const onAbort = () => {
        const error = abortError(signal!, this.#doing("writing to"));
        const at = this.#writes.indexOf(write);
        if (at < 0) return this.#abort(error);
        this.#writes.splice(at, 1);
        this.#queued -= bytes.length;
        write.done(error);
        this.#notifyIdle();
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#writes.push(write);
      this.#queued += bytes.length;
    });
    if (this.#writing.length === 0) this.#flush();
    return promise;
  }

  async #flush(): Promise<void> {
    try {
      while (this.#writes.length > 0) {
        const size = this.#takeWrites();
        await this.#hand(size);
        if (this.#error !== undefined) return;
        this.#queued -= size;
        for (const write of this.#writing) write.done();
      }
      this.#writing = [];
      this.#notifyIdle();
    } catch (error) {
      this.#fail(toConnectError(error, this.#doing("writing to")), true);
    }
  }

  /** The next writes, one alone or several, are being written; gives their bytes. */
  #takeWrites(): number {
    const queue = this.#writes;
    let count = 1;
    let size = queue[0]!.bytes.length;
    while (count < queue.length && size + queue[count]!.bytes.length <= JOIN_BYTES) {
      size += queue[count++]!.bytes.length;
    }
    if (count === queue.length) {
      this.#writing = queue;
      this.#writes = [];
    } else {
      this.#writing = queue.splice(0, count);
    }
    return size;
  }

  #hand(size: number): Promise<void> {
    const writes = this.#writing;
    if (writes.length === 1) return this.#raw.write(writes[0]!.bytes);
    if (this.#raw.writeAll !== undefined) {
      return this.#raw.writeAll(writes.map(({ bytes }) => bytes));
    }
    // Memory for one after the other: each is with the kernel before the next.
    if (this.#joined.length < size) this.#joined = new Uint8Array(size);
    let offset = 0;
    for (const { bytes } of writes) {
      this.#joined.set(bytes, offset);
      offset += bytes.length;
    }
    return this.#raw.write(this.#joined.subarray(0, size));
  }

  #notifyIdle(): void {
    if (this.#queued > 0) return;
    this.#idle?.();
    this.#idle = undefined;
  }

  closeWrite(): Promise<void> {
    this.#closeWrite ??= this.#error === undefined ? this.#sendFin() : Promise.reject(this.#error);
    this.#closeWrite.catch(() => {});
    return this.#closeWrite;
  }

  async #sendFin(): Promise<void> {
    if (this.#queued > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    if (this.#error !== undefined) throw this.#error;
    try {
      // A peer that takes nothing may keep a shutdown waiting; abort() and `flushTimeoutMs` end that.
      const released = new Promise<void>((resolve) => this.#endShutdown = resolve);
      await Promise.race([this.#raw.shutdown(), released]);
    } catch (error) {
      // A peer that has gone needs no FIN; whether it left in order, reading tells.
      const mapped = toConnectError(error, this.#doing("closing"));
      if (mapped.code !== "broken-pipe" && mapped.code !== "closed") this.#fail(mapped, true);
    }
    if (this.#error !== undefined) throw this.#error;
    this.#finSent = true;
    if (this.#eof) this.#release();
    else if (this.#cancelled) this.close();
  }

  close(): Promise<void> {
    this.#close ??= this.#released ? Promise.resolve() : this.#closeInOrder();
    this.#close.catch(() => {});
    return this.#close;
  }

  async #closeInOrder(): Promise<void> {
    // A microtask later `#close` is set, which is what ends reading and writing.
    await Promise.resolve();
    for (const reader of this.#takeReaders()) reader.reject(this.#closedError());
    this.#unread = undefined;
    // After an earlier error there is nothing left to deliver, and `closed` has told of it.
    if (this.#error !== undefined) return this.#release();

    const timer = setTimeout(() => {
      const doing = this.#queued > 0
        ? `sending the last ${this.#queued} bytes to ${this.#name}`
        : this.#doing("ending the stream to");
      this.#abort(connectError("timeout", doing));
    }, this.#flushTimeoutMs);
    try {
      await this.closeWrite();
    } catch (error) {
      this.#release();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    if (!this.#eof) await this.#linger();
    this.#release();
  }

  /**
   * Closing a socket with unread data makes the kernel reset the connection, which destroys what we wrote but the peer has
   * not fetched yet. So what still comes is read and thrown away.
   */
  #linger(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#lingerMs);
      const end = () => (clearTimeout(timer), resolve());
      // `#deliver` drops every chunk by now, so this reader hears of the end only.
      this.#readers.add({ resolve: end, reject: end });
      if (!this.#reading) this.#pump();
    });
  }

  abort(reason?: unknown): void {
    if (this.#released) return;
    this.#abort(connectError("aborted", this.#doing("talking to"), reason));
  }

  #abort(error: ConnectError): void {
    this.#setError(error);
    this.#release(true);
  }

  /**
   * A connection that broke. After a failed write what the peer sent before can still be read; the error is then told where
   * the data ends.
   */
  #fail(error: ConnectError, reading: boolean): void {
    this.#setError(error);
    if (!reading || this.#eof) this.#release();
  }

  #setError(error: ConnectError): void {
    if (this.#error === undefined && !this.#released) {
      this.#error = error;
      this.#settleClosed.reject(error);
      this.#endStreams();
    }
    const failed = this.#error ?? error;
    for (const write of [...this.#writing, ...this.#writes]) write.done(failed);
    this.#writing = this.#writes = [];
    this.#queued = 0;
    this.#notifyIdle();
  }

  #release(reset = false): void {
    if (this.#released) return;
    this.#released = true;
    for (const reader of this.#takeReaders()) reader.reject(this.#closedError());
    this.#raw.destroy(reset);
    this.#settleClosed.resolve();
    this.#endShutdown?.();
    this.#endStreams();
  }

  #endStreams(): void {
    if (this.#error !== undefined || this.#released) {
      this.#toWritable?.error(this.#error ?? connectError("closed", this.#doing("writing to")));
    }
    // After a failed write there may be something to read, and whoever reads comes to an orderly end by itself.
    const orderly = this.#eof && this.#error === undefined;
    if (this.#released && !orderly) this.#toReadable?.error(this.#closedError());
  }

  get readable(): ReadableStream<Uint8Array> {
    const source: UnderlyingByteSource = {
      type: "bytes",
      start: (controller) => {
        this.#toReadable = controller;
        this.#endStreams();
      },
      pull: async (controller) => {
        const chunk = await this.read();
        if (chunk === null) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        // enqueue() takes the whole buffer away, so a view of a larger one has to be copied.
        const whole = chunk.byteLength === chunk.buffer.byteLength;
        controller.enqueue(whole ? chunk as Uint8Array<ArrayBuffer> : chunk.slice());
      },
      cancel: () => {
        this.#cancelled = true;
        if (this.#finSent) return this.close();
      },
    };
    return this.#readable ??= new ReadableStream(source, { highWaterMark: 0 });
  }

  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#toWritable = controller;
        this.#endStreams();
        // `abort()` below waits for the write that is under way, which may wait for the peer. A microtask later, since the
        // stream must not end by an error within its own abort().
        const { signal } = controller;
        const onAbort = () => queueMicrotask(() => this.abort(signal.reason));
        signal.addEventListener("abort", onAbort, { once: true });
      },
      write: (chunk) =>
        this.write(chunk).catch((error) => {
          // What is no bytes breaks the web stream, which could then not even close the connection.
          if (error instanceof TypeError) this.abort(error);
          throw error;
        }),
      close: () => {
        // From here on its own promise tells.
        this.#toWritable = undefined;
        return this.closeWrite();
      },
      abort: (reason) => this.abort(reason),
    });
  }

  setNoDelay(on = true): void {
    if (!this.#released) this.#raw.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    if (!this.#released) this.#raw.setKeepAlive(on !== false, typeof on === "number" ? on : 0);
  }

  peerCredentials(): PeerCredentials | undefined {
    return this.#released ? undefined : this.#raw.peerCredentials();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #doing(what: string): string {
    return `${what} ${this.#name}`;
  }

  #closedError(): ConnectError {
    return this.#error ?? connectError("closed", this.#doing("reading from"));
  }
}

/** Wraps a socket and applies the options that every adapter has. */
export function openConn(raw: RawSocket, options: ConnOptions): SocketConn {
  const conn = new SocketConn(raw, options);
  // Always, since the default of Bun is another than that of the kernel.
  conn.setNoDelay(options.noDelay ?? true);
  if (options.keepAlive !== undefined && options.keepAlive !== false) {
    conn.setKeepAlive(options.keepAlive);
  }
  return conn;
}
