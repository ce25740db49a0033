/**
 * Payload that waits to be read. Many small pieces become few blocks, since each has a price of its own.
 *
 * @module
 */

/** Pieces up to this size are copied into a block. */
const SMALL_BYTES = 4096;
/** The first and the largest block. */
const BLOCK_BYTES = { first: 512, most: 16 * 1024 } as const;

const NOTHING = new Uint8Array(0);

export class ByteQueue {
  length = 0;
  #pieces: Uint8Array[] = [];
  /** Where small pieces are copied to, and how far it is filled. */
  #block: Uint8Array = NOTHING;
  #used = 0;

  /** Keeps `bytes`, which nobody else may use from now on. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    // What is read at once, as most is, needs no block.
    if (bytes.length > SMALL_BYTES || this.#pieces.length === 0) this.#pieces.push(bytes);
    else this.#pushSmall(bytes);
  }

  #pushSmall(bytes: Uint8Array): void {
    if (this.#block.length - this.#used < bytes.length) {
      const size = Math.min(Math.max(2 * this.#block.length, BLOCK_BYTES.first), BLOCK_BYTES.most);
      this.#block = new Uint8Array(Math.max(size, bytes.length));
      this.#used = 0;
    }
    const { buffer } = this.#block;
    const from = this.#used;
    this.#block.set(bytes, from);
    this.#used += bytes.length;
    const last = this.#pieces.at(-1)!;
    const goesOn = last.buffer === buffer && last.byteOffset + last.length === from;
    if (!goesOn) this.#pieces.push(new Uint8Array(buffer, from, bytes.length));
    else {
      const grown = new Uint8Array(buffer, last.byteOffset, last.length + bytes.length);
      this.#pieces[this.#pieces.length - 1] = grown;
    }
  }

  /** Takes the first piece, or as much of it as `most`; empty if there is none. */
  shift(most: number = Infinity): Uint8Array {
    const [first] = this.#pieces;
    if (first === undefined) return NOTHING;
    const taken = first.length <= most ? first : first.subarray(0, most);
    if (taken === first) {
      this.#pieces.shift();
      if (this.#pieces.length === 0) this.#block = NOTHING;
    } else {
      this.#pieces[0] = first.subarray(most);
    }
    this.length -= taken.length;
    return taken;
  }

  clear(): void {
    this.length = 0;
    this.#pieces = [];
    this.#block = NOTHING;
  }
}
