/**
 * What a server has to say of errors that it answered in Go's words, which have neither codes nor details: for a client that asks for our
 * extensions then.
 *
 * @module
 */
import type { Uint } from "./_uvarint.ts";
import type { RemoteError } from "./errors.ts";

/** How many are kept, and how many bytes of details: the oldest goes first. A client of the Go package never asks. */
const MAX_EXPLANATIONS = 256;
const MAX_KEPT_BYTES = 256 * 1024;

/** One for each client. */
export class Explanations {
  #errors = new Map<Uint, RemoteError>();
  #bytes = 0;

  /** Keeps what is behind the answer to a call. */
  add(id: Uint, error: RemoteError): void {
    this.#bytes += error.details.length - (this.#errors.get(id)?.details.length ?? 0);
    this.#errors.set(id, error);
    while (this.#errors.size > MAX_EXPLANATIONS || this.#bytes > MAX_KEPT_BYTES) {
      const [oldest] = this.#errors;
      this.#errors.delete(oldest![0]);
      this.#bytes -= oldest![1].details.length;
    }
  }

  /** Gives them all, and forgets them. */
  take(): Iterable<[Uint, RemoteError]> {
    const errors = this.#errors;
    this.#errors = new Map();
    this.#bytes = 0;
    return errors;
  }
}
