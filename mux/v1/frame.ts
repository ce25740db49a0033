/**
 * Frames and their header, as gomux v1.0.0 has them on the wire (spec-mux: frames).
 *
 * @module
 */
import { MuxError } from "../errors.ts";

/** The kinds of frames. `CLOSE_READ` and `CLOSE_WRITE` say what the *receiver* may no longer do. */
export const FLAG: {
  /** Payload of a stream. */
  readonly DATA: 0;
  /** Sent when nothing else was for a while. */
  readonly KEEPALIVE: 1;
  /** Opens a stream. */
  readonly OPEN_STREAM: 2;
  /** The sender will write no more: the receiver's reads end. */
  readonly CLOSE_READ: 3;
  /** The sender will read no more: the receiver's writes fail. */
  readonly CLOSE_WRITE: 4;
  /** Both, and the stream is forgotten. */
  readonly CLOSE_STREAM: 5;
  /** `length` more bytes may be sent. */
  readonly WINDOW_UPDATE: 6;
  /** The farewell of a session. */
  readonly CLOSE_MUX: 7;
} = {
  DATA: 0,
  KEEPALIVE: 1,
  OPEN_STREAM: 2,
  CLOSE_READ: 3,
  CLOSE_WRITE: 4,
  CLOSE_STREAM: 5,
  WINDOW_UPDATE: 6,
  CLOSE_MUX: 7,
};

/** Bytes of a header: id, length and flags (u32le each) and the nonce. All of it is authenticated. */
export const HEADER_BYTES = 36;
/** Where the nonce begins in a header. */
export const NONCE_OFFSET = 12;
/** Bytes of a nonce. */
export const NONCE_BYTES = 24;
/** Bytes of a Poly1305 tag. */
export const TAG_BYTES = 16;
/** The largest payload, and the largest `length` of any frame that we send. A gomux that sees a larger one ends the session. */
export const MAX_PAYLOAD_BYTES = 65536;
/** The largest `length` of a `WINDOW_UPDATE`: a gomux that reads into a large buffer sends up to a whole window. */
export const MAX_WINDOW_UPDATE = 131072;

/** A frame, opened. */
export interface Frame {
  /** The stream. */
  readonly id: number;
  /** One of {@linkcode FLAG}, or an unknown one (8 and more), which is to be ignored. */
  readonly flags: number;
  /** Bytes of payload in `DATA`, the increment in `WINDOW_UPDATE`, meaningless elsewhere. */
  readonly length: number;
  /** Empty unless `flags` is `DATA`. */
  readonly payload: Uint8Array;
  /** The 24 bytes that were used to seal it. */
  readonly nonce: Uint8Array;
}

/** Reads an unsigned 32-bit little-endian number. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 | bytes[at + 3]! << 24) >>> 0;
}

/** Writes an unsigned 32-bit little-endian number. */
export function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** What a splitter begins with: room for frames without payload. */
const FIRST_ROOM = HEADER_BYTES + TAG_BYTES;

/** Cuts a byte stream into sealed frames. Looks at flags and lengths only, which nobody has authenticated yet. */
export class FrameSplitter {
  /** A frame that is not complete, as far as `#filled`; its size is not known before its header is there. */
  #frame: Uint8Array<ArrayBuffer> = new Uint8Array(FIRST_ROOM);
  /** The memory of the frame before it, which is free again with the next call. */
  #spare: Uint8Array<ArrayBuffer> = new Uint8Array(FIRST_ROOM);
  #filled = 0;
  #size = HEADER_BYTES;
  #inBody = false;

  /** True in the middle of a frame. */
  get partial(): boolean {
    return this.#filled > 0;
  }

  /**
   * Adds the whole frames up to the end of `chunk` to `frames`, as views into `chunk` where they lie in it. A frame that comes in parts is
   * gathered in memory that is used again: what was added is good until the next call. Two frames at most are kept.
   *
   * @throws {MuxError} `protocol` for a length that no frame has; the frames before it have been added
   */
  push(chunk: Uint8Array, frames: Uint8Array[]): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#filled === 0 && chunk.length - at >= HEADER_BYTES) {
        const size = frameBytes(chunk, at);
        if (chunk.length - at >= size) {
          frames.push(chunk.subarray(at, at + size));
          at += size;
          continue;
        }
      }
      at = this.#keep(chunk, at, frames);
    }
  }

  /** Takes what is missing of the frame, as far as it goes; gives where the rest of `chunk` begins. */
  #keep(chunk: Uint8Array, at: number, frames: Uint8Array[]): number {
    const end = Math.min(chunk.length, at + this.#size - this.#filled);
    this.#frame.set(chunk.subarray(at, end), this.#filled);
    this.#filled += end - at;
    if (this.#filled < this.#size) return end;
    if (!this.#inBody) {
      this.#size = frameBytes(this.#frame, 0);
      this.#inBody = true;
      if (this.#frame.length < this.#size) {
        const header = this.#frame.subarray(0, HEADER_BYTES);
        this.#frame = new Uint8Array(this.#size);
        this.#frame.set(header);
      }
      return end;
    }
    frames.push(this.#frame.subarray(0, this.#size));
    [this.#frame, this.#spare] = [this.#spare, this.#frame];
    this.#filled = 0;
    this.#size = HEADER_BYTES;
    this.#inBody = false;
    return end;
  }
}

/** The size of the frame whose header is at `at`. */
function frameBytes(bytes: Uint8Array, at: number): number {
  const length = readUint32(bytes, at + 4);
  const flags = readUint32(bytes, at + 8);
  const most = flags === FLAG.WINDOW_UPDATE ? MAX_WINDOW_UPDATE : MAX_PAYLOAD_BYTES;
  if (length > most) {
    const text =
      `a frame says that its length is ${length}, at most ${most} is: does the peer speak v2, or is it no mux?`;
    throw new MuxError("protocol", text);
  }
  return HEADER_BYTES + (flags === FLAG.DATA ? length : 0) + TAG_BYTES;
}
