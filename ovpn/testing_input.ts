/**
 * How OpenVPN cuts its input into lines, faults included.
 *
 * @module
 */
import { byteString } from "./_lexer.ts";

/** OpenVPN reads this much at a time, runs the whole lines in it, and sends its answers before it reads on (spec 1.1). */
export const READ_BYTES = 256;

/** What OpenVPN can keep of lines that it has not run. */
const BUFFER_BYTES = 1024;

const LF = 0x0a;

/** Collects lines as one character per byte. */
export class CommandBuffer {
  readonly #bytes = new Uint8Array(BUFFER_BYTES);
  #length = 0;

  /** Takes what one read gave, at most {@linkcode READ_BYTES}. Lines come out by {@linkcode CommandBuffer.next}. */
  push(read: Uint8Array): void {
    for (const byte of read) {
      if ((byte < 0x20 && byte !== LF) || byte === 0x7f) continue;
      // The byte too many is lost with everything before it, and what follows is taken for the beginning of a line.
      if (this.#length === BUFFER_BYTES) this.#length = 0;
      else this.#bytes[this.#length++] = byte;
    }
  }

  /** The next whole line without its end; `undefined` if there is none. */
  next(): string | undefined {
    const end = this.#bytes.subarray(0, this.#length).indexOf(LF);
    if (end < 0) return undefined;
    const line = byteString(this.#bytes.subarray(0, end));
    this.#bytes.copyWithin(0, end + 1, this.#length);
    this.#length -= end + 1;
    return line;
  }
}
