/**
 * The frames in a record: what they are, and how they are read and written (spec-mux2: frames).
 *
 * @module
 */
import { MuxError } from "../errors.ts";

/** Types of frames. Unknown ones are skipped. */
export const TYPE: {
  /** The rest of the record means nothing. It has no more than this byte of a header. */
  readonly PADDING: 0;
  /** Bytes of a stream, at least one. */
  readonly DATA: 1;
  /** The sender opens a stream; its priority. */
  readonly OPEN: 2;
  /** The sender writes no more. */
  readonly FIN: 3;
  /** The sender reads no more; a code. */
  readonly STOP: 4;
  /** Both, in order: the stream is over. */
  readonly CLOSE: 5;
  /** The stream is over, and what was sent is not all; a code. */
  readonly RESET: 6;
  /** So many bytes more may be sent on the stream. */
  readonly WINDOW: 7;
  /** So many streams may be opened in all. */
  readonly MAX_STREAMS: 8;
  /** To be answered; a number. */
  readonly PING: 9;
  /** The answer, with the number. */
  readonly PONG: 10;
  /** Streams of the receiver from this number on are not served; the number. */
  readonly GOAWAY: 11;
  /** The end of the session; a code, and the same number as of `GOAWAY`. */
  readonly END: 12;
} = {
  PADDING: 0,
  DATA: 1,
  OPEN: 2,
  FIN: 3,
  STOP: 4,
  CLOSE: 5,
  RESET: 6,
  WINDOW: 7,
  MAX_STREAMS: 8,
  PING: 9,
  PONG: 10,
  GOAWAY: 11,
  END: 12,
};

/** How many numbers the frames carry that we know, at least; what comes behind them in a frame is skipped. */
const VALUES: readonly number[] = [0, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 2];

/** Every number is at most this. */
export const MAX_NUMBER = 0xffffffff;
/** Bytes of the largest number. */
const MAX_NUMBER_BYTES = 5;
/** Bytes of the largest frame that has no data: type, stream, length and two numbers. */
export const MAX_CONTROL_BYTES: number = 1 + MAX_NUMBER_BYTES + 1 + 2 * MAX_NUMBER_BYTES;
/** Bytes of the largest header of a data frame: type, stream and a length of up to 65519. */
export const MAX_DATA_HEADER_BYTES: number = 1 + MAX_NUMBER_BYTES + 3;

/** Bytes that {@linkcode writeNumber} takes. */
export function numberBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  return value < 0x10000000 ? 4 : 5;
}

/** Writes a number as LEB128, seven bits in a byte and the lowest first; gives where it ends. */
export function writeNumber(bytes: Uint8Array, at: number, value: number): number {
  while (value >= 0x80) {
    bytes[at++] = value & 0x7f | 0x80;
    value >>>= 7;
  }
  bytes[at++] = value;
  return at;
}

/** Writes the header of a data frame; gives where it ends. */
export function writeDataHeader(bytes: Uint8Array, at: number, id: number, length: number): number {
  bytes[at] = TYPE.DATA;
  return writeNumber(bytes, writeNumber(bytes, at + 1, id), length);
}

/** Writes a frame that has no data; gives where it ends. */
export function writeControl(
  bytes: Uint8Array,
  at: number,
  type: number,
  id: number,
  values: readonly number[],
): number {
  bytes[at] = type;
  at = writeNumber(bytes, at + 1, id);
  let length = 0;
  for (const value of values) length += numberBytes(value);
  bytes[at++] = length;
  for (const value of values) at = writeNumber(bytes, at, value);
  return at;
}

/** Takes the frames of a record. What it throws ends the session. */
export interface FrameSink {
  onData(id: number, payload: Uint8Array): void;
  /** Any other frame; the numbers it carries are 0 where it has none. */
  onControl(type: number, id: number, first: number, second: number): void;
}

/** Reads the frames of records. */
export class FrameReader {
  /** Frames so far. */
  frames = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;

  /**
   * Gives each frame of a record to `sink`, data as views of it.
   *
   * @throws {MuxError} `protocol` for what is no frame, and what `sink` throws
   */
  read(record: Uint8Array, sink: FrameSink): void {
    this.#bytes = record;
    this.#at = 0;
    while (this.#at < record.length) {
      const type = record[this.#at++]!;
      if (type === TYPE.PADDING) break;
      const id = this.#number(record.length);
      const length = this.#number(record.length);
      const start = this.#at;
      const end = start + length;
      if (end > record.length) {
        throw new MuxError("protocol", `a frame of ${length} bytes goes beyond its record`);
      }
      this.frames++;
      if (type === TYPE.DATA) {
        if (length === 0) throw new MuxError("protocol", "a frame of data without data");
        sink.onData(id, record.subarray(start, end));
      } else if (type < VALUES.length) {
        const count = VALUES[type]!;
        const first = count > 0 ? this.#number(end) : 0;
        const second = count > 1 ? this.#number(end) : 0;
        sink.onControl(type, id, first, second);
      }
      this.#at = end;
    }
    // Nobody is to keep a record alive that was read.
    this.#bytes = new Uint8Array(0);
  }

  #number(end: number): number {
    let value = 0;
    for (let shift = 0; shift < 7 * MAX_NUMBER_BYTES; shift += 7) {
      if (this.#at >= end) throw new MuxError("protocol", "a frame ends within a number");
      const byte = this.#bytes[this.#at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) {
        if (value > MAX_NUMBER) break;
        return value;
      }
    }
    throw new MuxError("protocol", "a number has more than 32 bits");
  }

  /** All numbers of what is nothing else. */
  numbers(bytes: Uint8Array): number[] {
    this.#bytes = bytes;
    this.#at = 0;
    const numbers: number[] = [];
    while (this.#at < bytes.length) numbers.push(this.#number(bytes.length));
    return numbers;
  }
}
