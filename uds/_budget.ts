/**
 * How much of something a connection may hold.
 *
 * @module
 */

/** Bytes of one connection. */
export class Budget {
  readonly #maxBytes: number;
  #bytes = 0;
  #whenLow: (() => void)[] = [];

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether more than allowed is held: what is there already stays, but no more should be taken. */
  get over(): boolean {
    return this.#bytes > this.#maxBytes;
  }

  /** Counts bytes, or with a negative number gives them back. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.over) return;
    for (const resolve of this.#whenLow.splice(0)) resolve();
  }

  /** Resolves when it is not over any more. */
  low(): Promise<void> {
    return new Promise((resolve) => this.#whenLow.push(resolve));
  }
}
