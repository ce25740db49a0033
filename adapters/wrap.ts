/**
 * Makes a {@linkcode Conn} of any byte stream: a WebSocketStream, a WebTransport stream, stdio, a pair in memory.
 *
 * @module
 */
import { connectError } from "./_errors.ts";
import { checkOptions } from "./_options.ts";
import type { RawSocket } from "./_raw_socket.ts";
import { openConn } from "./_socket_conn.ts";
import type { Address, CloseOptions, Conn, Duplex } from "./types.ts";

/** Options of {@linkcode wrapConn}: the addresses to report, and what `close()` may take. */
export interface WrapOptions extends CloseOptions {
  /** What `Conn.local` says. */
  readonly local?: Address | undefined;
  /** What `Conn.remote` says. */
  readonly remote?: Address | undefined;
}

class StreamSocket implements RawSocket {
  readonly local: Address | undefined;
  readonly remote: Address | undefined;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;

  constructor(duplex: Duplex, options: WrapOptions) {
    this.local = options.local;
    this.remote = options.remote;
    // First, so that a mistake leaves neither half locked.
    if (duplex.readable.locked || duplex.writable.locked) {
      throw new TypeError("wrapping a stream: one of its halves is locked");
    }
    this.#reader = duplex.readable.getReader();
    this.#writer = duplex.writable.getWriter();
    // Failures are told by read() and write().
    this.#reader.closed.catch(() => {});
    this.#writer.closed.catch(() => {});
    this.#writer.ready.catch(() => {});
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) return null;
      const bytes = copyOf(value);
      if (bytes.length > 0) return bytes;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    // A copy: a stream may hold on to what it was given, and the writer of a Conn may use its buffer again.
    await this.#writer.write(new Uint8Array(bytes));
    // Not every sink takes its time before it resolves; `ready` is what says that it is full.
    await this.#writer.ready;
  }

  async shutdown(): Promise<void> {
    try {
      await this.#writer.close();
    } catch (error) {
      // Of a stream that has broken, close() says that it cannot be closed; `closed` says why.
      await this.#writer.closed;
      throw error;
    }
  }

  destroy(): void {
    const gone = connectError("reset", "talking to the other end");
    this.#reader.cancel(gone).catch(() => {});
    this.#writer.abort(gone).catch(() => {});
  }

  setNoDelay(): void {}
  setKeepAlive(): void {}
  peerCredentials(): undefined {}
}

/** A copy, because a stream may go on using its chunk; the types do not keep it from giving what is no Uint8Array. */
function copyOf(chunk: unknown): Uint8Array {
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk.slice(0));
  if (ArrayBuffer.isView(chunk)) {
    return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength).slice();
  }
  const type = chunk === null ? "null" : `a value of the type ${typeof chunk}`;
  throw new TypeError(`the stream gave ${type}, expected bytes`);
}

/**
 * Wraps `duplex` into a {@linkcode Conn} that owns both of its halves; a Conn is given back as it is. An error of the stream
 * that says nothing of its kind becomes a ConnectError `other` with the original as `cause`.
 *
 * @example
 * ```ts
 * import { wrapConn } from "@trunkline/sockets/auto";
 * import { assertEquals } from "@std/assert";
 *
 * const echo = new TransformStream<Uint8Array, Uint8Array>();
 * const conn = wrapConn(echo);
 * const written = conn.write(new TextEncoder().encode("hello"));
 * assertEquals(new TextDecoder().decode((await conn.read())!), "hello");
 * await written;
 * await conn.close();
 * ```
 */
export function wrapConn(duplex: Duplex | Conn, options: WrapOptions = {}): Conn {
  if (isConn(duplex)) return duplex;
  checkOptions(options);
  return openConn(new StreamSocket(duplex, options), options);
}

/** By members that a Conn alone has: Deno's own connections can closeWrite() too, and streams of a session are Conns as well. */
function isConn(duplex: Duplex | Conn): duplex is Conn {
  return "queued" in duplex && "abort" in duplex && "peerCredentials" in duplex;
}

/** Bytes that each direction of a {@linkcode connPair} holds before a write waits. */
const PAIR_BYTES = 64 * 1024;

/** Two connections in memory: what is written to one is read from the other. For tests and for peers in one process. */
export function connPair(options: CloseOptions = {}): [Conn, Conn] {
  const strategy = { highWaterMark: PAIR_BYTES, size: (chunk: Uint8Array) => chunk.byteLength };
  const there = new TransformStream<Uint8Array, Uint8Array>({}, undefined, strategy);
  const back = new TransformStream<Uint8Array, Uint8Array>({}, undefined, strategy);
  return [
    wrapConn({ readable: back.readable, writable: there.writable }, options),
    wrapConn({ readable: there.readable, writable: back.writable }, options),
  ];
}
