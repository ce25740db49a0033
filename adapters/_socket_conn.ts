/**
 * The one implementation of {@linkcode Conn}. A runtime supplies a {@linkcode RawSocket}; everything that the
 * runtimes would otherwise do differently (order, half-close, errors, aborts, web streams) is decided here.
 *
 * @module
 */
import { abortError, connectError, toConnectError } from "./_errors.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { readableOf, writableOf } from "./_web_streams.ts";
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
  resolve(): void;
  reject(error: ConnectError): void;
}

const NO_WRITES: readonly Write[] = [];
const ignore = (): void => {};

export class SocketConn implements Conn {
  readonly closed: Promise<void>;
  readonly #raw: RawSocket;
  readonly #name: string;
  readonly #flushTimeoutMs: number;
  readonly #lingerMs: number;
  #settleClosed!: { resolve(): void; reject(error: ConnectError): void };

  readonly #readers: Reader[] = [];
  /** A chunk that came for a reader that had gone. */
  #unread: Uint8Array | undefined;
  #reading = false;
  #eof = false;

  #writes: Write[] = [];
  #writing = NO_WRITES;
  /** Writes are being handed over, or one just was: what comes in the same turn is joined. */
  #busy = false;
  #queued = 0;
  /** Bytes of `#writing`. */
  #handing = 0;
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
          const at = this.#readers.indexOf(reader);
          if (at >= 0) this.#readers.splice(at, 1);
          reject(abortError(signal, this.#doing("reading from")));
        };
        // Without `into`: it could be given to somebody else, or be written to when nobody waits any more.
        reader = {
          resolve: (chunk) => (settle(), resolve(chunk)),
          reject: (error) => (settle(), reject(error)),
        };
        signal.addEventListener("abort", onAbort, { once: true });
      }
      this.#readers.push(reader);
      if (!this.#reading) this.#pump();
    });
  }

  /**
   * Reads while somebody waits, and never ahead: the kernel's buffer is what slows the peer. By callbacks that are made once: an
   * async function takes a promise and a turn more for each chunk.
   */
  #pump(): void {
    this.#reading = true;
    this.#raw.read(this.#readers[0]?.into).then(this.#onChunk, this.#onReadError);
  }

  readonly #onChunk = (chunk: Uint8Array | null): void => {
    this.#reading = false;
    if (this.#released) return;
    if (chunk !== null) {
      this.#deliver(chunk);
      if (this.#readers.length > 0) this.#pump();
      return;
    }
    this.#eof = true;
    if (this.#error !== undefined) return this.#release();
    for (const reader of this.#takeReaders()) reader.resolve(null);
    if (this.#finSent) this.#release();
  };

  readonly #onReadError = (error: unknown): void => {
    this.#reading = false;
    this.#fail(toConnectError(error, this.#doing("reading from")), false);
  };

  #deliver(chunk: Uint8Array): void {
    // A closing connection reads only to reach the peer's FIN.
    if (this.#close !== undefined) return;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#unread = chunk;
    else reader.resolve(chunk);
  }

  #takeReaders(): Reader[] {
    return this.#readers.splice(0);
  }

  write(bytes: Uint8Array, { signal }: WaitOptions = {}): Promise<void> {
    const refusal = this.#refusal(bytes, signal);
    if (refusal === undefined && signal === undefined && !this.#busy) {
      return this.#writeAlone(bytes);
    }
    const promise = refusal ? Promise.reject(refusal) : this.#enqueue(bytes, signal);
    // The sticky error tells too, so a caller that does not wait for each write does not end the process.
    promise.catch(ignore);
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
      const write = { bytes, resolve, reject };
      this.#writes.push(signal === undefined ? write : this.#abortable(write, signal));
      this.#queued += bytes.length;
    });
    if (!this.#busy) this.#flush();
    return promise;
  }

  #abortable({ bytes, resolve, reject }: Write, signal: AbortSignal): Write {
    const settle = () => signal.removeEventListener("abort", onAbort);
    const onAbort = () => {
      const error = abortError(signal, this.#doing("writing to"));
      const at = this.#writes.indexOf(write);
      if (at < 0) return this.#abort(error);
      this.#writes.splice(at, 1);
      this.#queued -= bytes.length;
      write.reject(error);
      this.#notifyIdle();
    };
    const write: Write = {
      bytes,
      resolve: () => (settle(), resolve()),
      reject: (error) => (settle(), reject(error)),
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return write;
  }

  /** The usual case: nothing waits, and often the kernel takes the bytes at once. */
  #writeAlone(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return Promise.resolve();
    this.#busy = true;
    const handed = this.#raw.write(bytes);
    if (handed === undefined) {
      queueMicrotask(this.#onHanded);
      return Promise.resolve();
    }
    const promise = new Promise<void>((resolve, reject) => {
      this.#writing = [{ bytes, resolve, reject }];
    });
    this.#queued = this.#handing = bytes.length;
    handed.then(this.#onHanded, this.#onWriteError);
    promise.catch(ignore);
    return promise;
  }

  #flush(): void {
    this.#busy = true;
    this.#handing = this.#takeWrites();
    let handed: Promise<void> | undefined;
    try {
      handed = this.#hand(this.#handing);
    } catch (error) {
      // Memory that was given away, to a worker say: what the peer would get is not what was written.
      return this.#onWriteError(error);
    }
    if (handed === undefined) queueMicrotask(this.#onHanded);
    else handed.then(this.#onHanded, this.#onWriteError);
  }

  readonly #onHanded = (): void => {
    if (this.#error !== undefined) return;
    this.#queued -= this.#handing;
    this.#handing = 0;
    for (const write of this.#writing) write.resolve();
    this.#writing = NO_WRITES;
    if (this.#writes.length > 0) return this.#flush();
    this.#busy = false;
    this.#notifyIdle();
  };

  readonly #onWriteError = (error: unknown): void => {
    this.#fail(toConnectError(error, this.#doing("writing to")), true);
  };

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

  #hand(size: number): Promise<void> | undefined {
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
    // It may have been given up in between, and nobody would hear of the peer's end.
    if (!this.#eof && !this.#released) await this.#linger();
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
      this.#readers.push({ resolve: end, reject: end });
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
    for (const write of [...this.#writing, ...this.#writes]) write.reject(failed);
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
    return this.#readable ??= readableOf(
      this,
      (controller) => {
        this.#toReadable = controller;
        this.#endStreams();
      },
      () => {
        this.#cancelled = true;
        if (this.#finSent) return this.close();
      },
    );
  }

  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= writableOf(this, (controller) => {
      this.#toWritable = controller;
      if (controller !== undefined) this.#endStreams();
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
