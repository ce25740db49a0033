/**
 * What a server has to say of errors that it answered in Go's words, which have neither codes nor details: for a client that asks for our
 * extensions then.
 *
 * @module
 */
import type { Failure } from "./_extension.ts";
import type { Uint } from "./_uvarint.ts";

/** How many are kept, and how many bytes of them: the oldest goes first. A client of the Go package never asks. */
const MAX_EXPLANATIONS = 256;
const MAX_KEPT_BYTES = 256 * 1024;

/** One for each client. */
export class Explanations {
  #failures = new Map<Uint, Failure>();
  #bytes = 0;

  /** Keeps what is behind the answer to a call. */
  add(id: Uint, failure: Failure): void {
    this.forget(id);
    this.#failures.set(id, failure);
    this.#bytes += sizeOf(failure);
    while (this.#failures.size > MAX_EXPLANATIONS || this.#bytes > MAX_KEPT_BYTES) {
      const [oldest] = this.#failures.keys();
      this.forget(oldest!);
    }
  }

  /** The id is that of another call now. */
  forget(id: Uint): void {
    const failure = this.#failures.get(id);
    if (failure === undefined) return;
    this.#failures.delete(id);
    this.#bytes -= sizeOf(failure);
  }

  /** Gives them all, and forgets them. */
  take(): Iterable<[Uint, Failure]> {
    const failures = this.#failures;
    this.#failures = new Map();
    this.#bytes = 0;
    return failures;
  }
}

function sizeOf({ header, data }: Failure): number {
  return header.length + data.length;
}
