/**
 * Records: a length, and what was sealed under a key of its direction that changes with what was sent (spec-mux2: records).
 *
 * @module
 */
import type { MuxSuite } from "../config.ts";
import { MuxError } from "../errors.ts";
import { MAX_NOISE_MESSAGE_BYTES } from "./noise.ts";
import { NOISE_NONCE_BYTES, NOISE_TAG_BYTES, rekey, writeNonce } from "./suite.ts";

/** Bytes of the length in front of a record, most significant first. */
export const LENGTH_BYTES = 2;
/** The longest record, without its length. */
export const MAX_RECORD_BYTES: number = MAX_NOISE_MESSAGE_BYTES;
/** What fits into one. */
export const MAX_PLAIN_BYTES: number = MAX_RECORD_BYTES - NOISE_TAG_BYTES;

/** When the key of a direction changes: whichever comes first. */
export interface RekeyAfter {
  readonly records: number;
  /** Of the records, their tags with them. */
  readonly bytes: number;
}

/** Key and counter of one direction. Both ends change the key after the same record, without a word. */
export class RecordKeys {
  readonly #suite: MuxSuite;
  readonly #after: RekeyAfter;
  #key: Uint8Array;
  #counter = 0;
  #records = 0;
  #bytes = 0;

  constructor(suite: MuxSuite, key: Uint8Array, after: RekeyAfter) {
    this.#suite = suite;
    this.#key = key;
    this.#after = after;
  }

  /** Key and nonce of the next record, which has so many bytes with its tag. */
  next(bytes: number): { readonly key: Uint8Array; readonly nonce: Uint8Array } {
    if (this.#records >= this.#after.records || this.#bytes >= this.#after.bytes) {
      // A new object: what ciphers have made of the old key belongs to that one.
      this.#key = rekey(this.#suite, this.#key);
      this.#records = this.#bytes = 0;
    }
    this.#records++;
    this.#bytes += bytes;
    const nonce = new Uint8Array(NOISE_NONCE_BYTES);
    writeNonce(this.#suite, this.#counter++, nonce);
    return { key: this.#key, nonce };
  }
}

const NOTHING = new Uint8Array(0);

/** Cuts a byte stream into what has a length in front: handshake messages, and records. Holds at most one of them. */
export class RecordSplitter {
  /** What came of one that is not complete, its length with it. */
  #kept: Uint8Array = NOTHING;
  #filled = 0;
  /** The memory of the one before, which is free again with the next call. */
  #spare: Uint8Array = NOTHING;

  /** True in the middle of one. */
  get partial(): boolean {
    return this.#filled > 0;
  }

  /**
   * Adds what is whole up to the end of `chunk` to `whole`, without its length: as views of `chunk` where it lies in it, otherwise in memory
   * that is used again after the next call.
   *
   * @throws {MuxError} `protocol` for a length that is too short for a tag; what is before it has been added
   */
  push(chunk: Uint8Array, whole: Uint8Array[]): void {
    let at = 0;
    if (this.#filled > 0) {
      at = this.#complete(chunk, whole);
      if (this.#filled > 0) return;
    }
    for (;;) {
      const left = chunk.length - at;
      if (left === 0) return;
      const size = left < LENGTH_BYTES ? undefined : sizeAt(chunk, at);
      if (size === undefined || left < size) return this.#keep(chunk.subarray(at), size);
      whole.push(chunk.subarray(at + LENGTH_BYTES, at + size));
      at += size;
    }
  }

  #keep(part: Uint8Array, size: number | undefined): void {
    const room = size ?? LENGTH_BYTES;
    if (this.#kept.length < room) this.#kept = new Uint8Array(room);
    this.#kept.set(part);
    this.#filled = part.length;
  }

  /** Adds what is missing of the one that is kept, as far as it goes; gives where the rest of `chunk` begins. */
  #complete(chunk: Uint8Array, whole: Uint8Array[]): number {
    let at = 0;
    if (this.#filled < LENGTH_BYTES) {
      this.#kept[this.#filled++] = chunk[at++]!;
      if (this.#filled < LENGTH_BYTES) return at;
      const size = sizeAt(this.#kept, 0);
      if (this.#kept.length < size) {
        const grown = new Uint8Array(size);
        grown.set(this.#kept.subarray(0, LENGTH_BYTES));
        this.#kept = grown;
      }
    }
    const size = sizeAt(this.#kept, 0);
    const taken = Math.min(size - this.#filled, chunk.length - at);
    this.#kept.set(chunk.subarray(at, at + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === size) {
      whole.push(this.#kept.subarray(LENGTH_BYTES, size));
      [this.#kept, this.#spare] = [this.#spare, this.#kept];
      this.#filled = 0;
    }
    return at + taken;
  }
}

/** With the length itself. */
function sizeAt(bytes: Uint8Array, at: number): number {
  const length = bytes[at]! << 8 | bytes[at + 1]!;
  if (length < NOISE_TAG_BYTES) {
    throw new MuxError(
      "protocol",
      `a record of ${length} bytes, a tag alone has ${NOISE_TAG_BYTES}`,
    );
  }
  return LENGTH_BYTES + length;
}
