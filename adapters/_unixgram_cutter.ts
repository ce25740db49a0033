/**
 * Cuts what is written into datagrams.
 *
 * @module
 */

/** What the Go package reads of a datagram: the kernel throws the rest away. */
export const UNIXGRAM_BYTES = 4096;

/**
 * Cuts a stream of messages, each behind the uvarint of its length. One that fits a datagram is never in two, because the Go client takes
 * an answer from one datagram alone; a longer one goes in full datagrams, which the Go server puts together.
 */
export class UnixgramCutter {
  readonly #joins: boolean;
  /** Bytes of the message that was begun that are still to come. */
  #left = 0;
  /** The length of the next message as far as it came, and what its next group of bits is worth. */
  #length = 0;
  #worth = 1;

  /** `joins` lets messages share a datagram. */
  constructor(joins: boolean) {
    this.#joins = joins;
  }

  /** The datagrams for `bytes`: views of it, of 1 to {@linkcode UNIXGRAM_BYTES} bytes. */
  *cut(bytes: Uint8Array): Generator<Uint8Array, void> {
    let start = 0;
    let at = 0;
    while (start < bytes.length) {
      const limit = Math.min(start + UNIXGRAM_BYTES, bytes.length);
      let end = start;
      while (at + this.#left <= limit && (this.#joins || end === start)) {
        at += this.#left;
        this.#left = 0;
        if (this.#worth === 1) end = at;
        if (at === limit) break;
        this.#takeLength(bytes[at++]!);
      }
      // A message that is longer than a datagram, or of which the rest is still to come.
      if (end === start || this.#joins && limit === bytes.length) end = limit;
      yield bytes.subarray(start, end);
      start = end;
    }
    this.#left -= bytes.length - at;
  }

  #takeLength(byte: number): void {
    this.#length += (byte & 0x7f) * this.#worth;
    this.#worth *= 128;
    if (byte >= 0x80) return;
    this.#left = this.#length;
    this.#length = 0;
    this.#worth = 1;
  }
}
