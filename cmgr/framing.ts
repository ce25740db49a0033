/**
 * How a stream of bytes is cut into messages.
 *
 * @module
 */
import { ManagerError } from "./errors.ts";

/**
 * How a session's bytes are cut into the `data` of events, and what is written made one message:
 *
 * - `raw`: bytes as they come, and go
 * - `lines`: one line each, without its LF or CR LF; to what is written and does not end in LF, one is added
 * - `length-prefixed`: a message each, behind its length in four bytes, the most significant one first
 */
export type Framing = "raw" | "lines" | "length-prefixed";

/** The names of {@linkcode Framing}. */
export const FRAMINGS: readonly Framing[] = ["raw", "lines", "length-prefixed"];

const LF = 10;
const CR = 13;
const PREFIX_BYTES = 4;
const NOTHING = new Uint8Array();

/** Cuts bytes into messages; a new one for each connection. */
export interface FrameDecoder {
  /**
   * The messages that end in `chunk`, each when it is asked for: a chunk may hold as many as it has bytes. All have to be taken before the next
   * chunk. @throws {ManagerError} `frame-too-large`, behind those before it
   */
  push(chunk: Uint8Array): Generator<Uint8Array, void>;
  /** The last message, at the end of the stream: a line need not end in LF. @throws {ManagerError} `frame-truncated` */
  finish(): Uint8Array | undefined;
}

/** @param maxBytes how long a message may be, without what encloses it */
export function frameDecoder(
  framing: Exclude<Framing, "raw">,
  maxBytes: number,
): FrameDecoder {
  return framing === "lines" ? new LineDecoder(maxBytes) : new PrefixDecoder(maxBytes);
}

/** What is sent for a message. @throws {RangeError} if a length prefix cannot say its length */
export function encodeFrame(framing: Framing, message: Uint8Array): Uint8Array {
  switch (framing) {
    case "raw":
      return message;
    case "lines": {
      if (message[message.length - 1] === LF) return message;
      const line = new Uint8Array(message.length + 1);
      line.set(message);
      line[message.length] = LF;
      return line;
    }
    case "length-prefixed": {
      if (message.length > 0xffffffff) {
        throw new RangeError(`a message of ${message.length} bytes, expected at most 4294967295`);
      }
      const frame = new Uint8Array(PREFIX_BYTES + message.length);
      new DataView(frame.buffer).setUint32(0, message.length);
      frame.set(message, PREFIX_BYTES);
      return frame;
    }
  }
}

/** The pieces of `chunk` that have `size` bytes at the most: messages of the framing `raw`. */
export function* cut(chunk: Uint8Array, size: number): Generator<Uint8Array, void> {
  // Noted: if whoever took the first piece gave its memory away, the rest is not to be lost in silence.
  const { length } = chunk;
  for (let at = 0; at < length; at += size) yield chunk.subarray(at, at + size);
}

/** Bytes of a message that has not ended, with room that doubles, so that a message in pieces is copied a few times at most. */
class Unfinished {
  #room: Uint8Array = NOTHING;
  length = 0;

  add(piece: Uint8Array): void {
    const needed = this.length + piece.length;
    if (needed > this.#room.length) {
      const room = new Uint8Array(Math.max(needed, 2 * this.#room.length));
      room.set(this.#room.subarray(0, this.length));
      this.#room = room;
    }
    this.#room.set(piece, this.length);
    this.length = needed;
  }

  /** What there is, followed by `last`; nothing is kept of it. */
  take(last: Uint8Array): Uint8Array {
    if (this.length === 0) return last;
    this.add(last);
    const whole = this.#room.subarray(0, this.length);
    this.#room = NOTHING;
    this.length = 0;
    return whole;
  }
}

function tooLarge(what: string, size: string, maxBytes: number): ManagerError {
  return new ManagerError("frame-too-large", `${what} of ${size} bytes, at most ${maxBytes} fit`);
}

class LineDecoder implements FrameDecoder {
  readonly #maxBytes: number;
  readonly #unfinished = new Unfinished();

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  finish(): Uint8Array | undefined {
    return this.#unfinished.length === 0 ? undefined : this.#line(NOTHING);
  }

  *push(chunk: Uint8Array): Generator<Uint8Array, void> {
    let start = 0;
    for (let end; (end = chunk.indexOf(LF, start)) >= 0; start = end + 1) {
      yield this.#line(chunk.subarray(start, end));
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  #line(last: Uint8Array): Uint8Array {
    const line = this.#unfinished.take(last);
    const { length } = line;
    const whole = line[length - 1] === CR ? line.subarray(0, length - 1) : line;
    if (whole.length > this.#maxBytes) throw tooLarge("a line", `${whole.length}`, this.#maxBytes);
    return whole;
  }

  #keep(rest: Uint8Array): void {
    // One more may be the CR of the line's end.
    if (this.#unfinished.length + rest.length > this.#maxBytes + 1) {
      throw tooLarge("a line", `more than ${this.#maxBytes}`, this.#maxBytes);
    }
    this.#unfinished.add(rest);
  }
}

class PrefixDecoder implements FrameDecoder {
  readonly #maxBytes: number;
  readonly #unfinished = new Unfinished();
  readonly #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixLength = 0;
  /** Of the message whose prefix is complete. */
  #size = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  finish(): undefined {
    const got = this.#prefixLength + this.#unfinished.length;
    if (got === 0) return;
    throw new ManagerError("frame-truncated", `the stream ended ${got} bytes into a frame`);
  }

  *push(chunk: Uint8Array): Generator<Uint8Array, void> {
    for (let at = 0;;) {
      while (this.#prefixLength < PREFIX_BYTES) {
        if (at === chunk.length) return;
        this.#prefix[this.#prefixLength++] = chunk[at++]!;
        if (this.#prefixLength === PREFIX_BYTES) this.#begin();
      }
      const missing = this.#size - this.#unfinished.length;
      if (chunk.length - at < missing) {
        this.#unfinished.add(chunk.subarray(at));
        return;
      }
      this.#prefixLength = 0;
      yield this.#unfinished.take(chunk.subarray(at, at += missing));
    }
  }

  #begin(): void {
    this.#size = new DataView(this.#prefix.buffer).getUint32(0);
    if (this.#size > this.#maxBytes) {
      throw tooLarge("a frame", `${this.#size}`, this.#maxBytes);
    }
  }
}
