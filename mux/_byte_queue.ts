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

/**
 * What is taken out has memory of its own: whoever gets a piece may keep it, transfer it, or look at all of its buffer. So a block holds
 * one piece, which grows as long as nothing else comes and nobody takes it.
 */
export class ByteQueue {
  length = 0;
  #pieces: Uint8Array[] = [];
  /** Where the last piece lies if small ones may still be added to it, and how far it is filled. */
  #block: Uint8Array = NOTHING;
  #used = 0;
  /** Of the last block. */
  #blockBytes = 0;

  /** Keeps `bytes`, whose memory nobody else may use from now on. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    // What is read at once, as most is, needs no block.
    if (bytes.length > SMALL_BYTES || this.#pieces.length === 0) {
      this.#pieces.push(bytes);
      this.#block = NOTHING;
      this.#used = this.#blockBytes = 0;
    } else this.#pushSmall(bytes);
  }

  #pushSmall(bytes: Uint8Array): void {
    const from = this.#used;
    if (this.#block.length - from < bytes.length) {
      const grown = Math.max(2 * this.#blockBytes, BLOCK_BYTES.first, bytes.length);
      this.#blockBytes = Math.min(grown, BLOCK_BYTES.most);
      this.#block = new Uint8Array(this.#blockBytes);
      this.#block.set(bytes);
      this.#used = bytes.length;
      this.#pieces.push(this.#block.subarray(0, bytes.length));
      return;
    }
    this.#block.set(bytes, from);
    this.#used += bytes.length;
    this.#pieces[this.#pieces.length - 1] = this.#block.subarray(0, this.#used);
  }

  /** Takes the first piece, or as much of it as `most`; empty if there is none. */
  shift(most: number = Infinity): Uint8Array {
    const [first] = this.#pieces;
    if (first === undefined) return NOTHING;
    const whole = first.length <= most;
    const taken = whole ? first : first.slice(0, most);
    if (this.#pieces.length === 1) {
      this.#block = NOTHING;
      this.#used = 0;
    }
    if (!whole) this.#pieces[0] = first.subarray(most);
    else {
      this.#pieces.shift();
      if (this.#pieces.length === 0) this.#blockBytes = 0;
    }
    this.length -= taken.length;
    return taken;
  }

  clear(): void {
    this.length = 0;
    this.#pieces = [];
    this.#block = NOTHING;
    this.#used = this.#blockBytes = 0;
  }
}
