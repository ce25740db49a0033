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
  /** The memory of the last piece, if that is a block; it may go on behind the piece. */
  #block: Uint8Array | undefined;
  #blockSize: number = BLOCK_BYTES.first;

  /** Keeps `bytes`, which nobody else may use from now on. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    if (bytes.length > SMALL_BYTES) {
      this.#pieces.push(bytes);
      this.#block = undefined;
    } else {
      this.#pushSmall(bytes);
    }
  }

  #pushSmall(bytes: Uint8Array): void {
    const last = this.#pieces.at(-1);
    if (last === undefined) {
      // Read at once, most of the time: a block would be for nothing.
      this.#pieces.push(bytes);
      return;
    }
    const used = last.byteOffset + last.length;
    if (this.#block === undefined || this.#block.length - used < bytes.length) {
      this.#blockSize = Math.min(2 * this.#blockSize, BLOCK_BYTES.most);
      this.#block = new Uint8Array(Math.max(this.#blockSize, bytes.length));
      this.#block.set(bytes);
      this.#pieces.push(this.#block.subarray(0, bytes.length));
      return;
    }
    this.#block.set(bytes, used);
    const grown = new Uint8Array(last.buffer, last.byteOffset, last.length + bytes.length);
    this.#pieces[this.#pieces.length - 1] = grown;
  }

  /** Takes the first piece, or as much of it as `most`; empty if there is none. */
  shift(most: number = Infinity): Uint8Array {
    const [first] = this.#pieces;
    if (first === undefined) return NOTHING;
    const taken = first.length <= most ? first : first.subarray(0, most);
    if (taken === first) {
      this.#pieces.shift();
      if (this.#pieces.length === 0) {
        this.#block = undefined;
        this.#blockSize = BLOCK_BYTES.first;
      }
    } else {
      this.#pieces[0] = first.subarray(most);
    }
    this.length -= taken.length;
    return taken;
  }

  clear(): void {
    this.length = 0;
    this.#pieces = [];
    this.#block = undefined;
  }
}
