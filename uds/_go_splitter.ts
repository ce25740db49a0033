/**
 * From a stream of bytes to messages of a client, as the Go package reads them.
 *
 * @module
 */
import { concat } from "@std/bytes";
import { requireLimit } from "../adapters/limits.ts";
import { MAX_NAME_BYTES } from "./_extension.ts";
import { MAX_UVARINT_BYTES } from "./_uvarint.ts";
import { UdsError } from "./errors.ts";

/** The numbers of a message, in their order. A name follows its length, and so does the data, with which the message ends. */
const NUMBERS = ["size", "id", "type", "length of the name", "length of the data"] as const;
const SIZE = 0;
const ID = 1;
const TYPE = 2;
const NAME_LENGTH = 3;
const DATA_LENGTH = 4;

/** Room for what comes of a message in several chunks: the first of it, and the most that is taken at a time. */
const FIRST_ROOM = 4096;
const MOST_ROOM = 128 * 1024;

/**
 * As MessageSplitter, but a message ends where its data does: Go's decoder overlooks the size, and clients that tell a wrong one are
 * understood (spec, "The Go package"). Room is taken for what has come of a message, and at most 128 KiB ahead of it.
 */
export class GoSplitter {
  readonly #maxData: number;
  /** Which of the numbers is next; beyond them in the data. */
  #field = SIZE;
  #value = 0;
  #valueBytes = 0;
  /** How much is to come of a name, or of data. */
  #left = 0;
  /** What came in earlier chunks of the message, without its size; the last one may have room. */
  #blocks: Uint8Array[] = [];
  #room = 0;

  /** @throws {RangeError} if `maxData`, a number of bytes, is not positive */
  constructor(maxData: number) {
    requireLimit("maxData", maxData);
    this.#maxData = maxData;
  }

  /** True in the middle of a message: a stream that ends here has lost something. */
  get partial(): boolean {
    return this.#field > SIZE || this.#valueBytes > 0;
  }

  /**
   * Takes the next bytes, which must not change any more, and puts what they complete into `bodies`, without sizes: as views where it can.
   * After an error it is of no use.
   *
   * @throws {UdsError} `protocol` or `too-large`
   */
  push(chunk: Uint8Array, bodies: Uint8Array[]): void {
    /** Where that begins which belongs to the message. */
    let from = 0;
    for (let at = 0; at < chunk.length;) {
      if (this.#left > 0) {
        const length = Math.min(this.#left, chunk.length - at);
        this.#left -= length;
        at += length;
      } else if (this.#takeByte(chunk[at++]!) && this.#field === ID) {
        from = at;
      }
      if (this.#left > 0 || this.#field <= DATA_LENGTH) continue;
      bodies.push(this.#whole(chunk.subarray(from, at)));
      this.#field = SIZE;
    }
    if (this.#field > SIZE) this.#keep(chunk.subarray(from));
  }

  /** True if a number ends here. */
  #takeByte(byte: number): boolean {
    const count = this.#valueBytes++;
    if (count === MAX_UVARINT_BYTES - 1 && byte > 1) {
      throw new UdsError("protocol", `the ${NUMBERS[this.#field]} has more than 64 bits`);
    }
    // Not exact from 2^53 on, where it is too large for all that it is compared with.
    this.#value += (byte & 0x7f) * 2 ** (7 * count);
    if (byte >= 0x80) return false;
    this.#takeNumber(this.#value);
    this.#value = this.#valueBytes = 0;
    return true;
  }

  #takeNumber(value: number): void {
    const number = this.#field++;
    if (number === TYPE && value > 1) {
      throw new UdsError("protocol", `a message of the type ${value}`);
    }
    if (number === NAME_LENGTH && value > MAX_NAME_BYTES) {
      throw new UdsError("protocol", `a name of ${value} bytes`);
    }
    if (number === DATA_LENGTH && value > this.#maxData) {
      const text = `data of ${value} bytes, and at most ${this.#maxData} are taken`;
      throw new UdsError("too-large", text);
    }
    if (number >= NAME_LENGTH) this.#left = value;
  }

  #whole(last: Uint8Array): Uint8Array {
    if (this.#blocks.length === 0) return last;
    const block = this.#blocks.pop()!;
    const body = concat([...this.#blocks, block.subarray(0, block.length - this.#room), last]);
    this.#blocks = [];
    this.#room = 0;
    return body;
  }

  #keep(part: Uint8Array): void {
    for (let at = 0; at < part.length;) {
      if (this.#room === 0) {
        const before = this.#blocks.at(-1)?.length ?? 0;
        this.#room = Math.min(MOST_ROOM, Math.max(FIRST_ROOM, 2 * before));
        this.#blocks.push(new Uint8Array(this.#room));
      }
      const block = this.#blocks.at(-1)!;
      const piece = part.subarray(at, at + this.#room);
      block.set(piece, block.length - this.#room);
      this.#room -= piece.length;
      at += piece.length;
    }
  }
}
