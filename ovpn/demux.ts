/**
 * From bytes to lines: replies, real-time messages and the password prompt.
 *
 * @module
 */

/** What a line is: an answer to a command, a real-time message, or the prompt for the management password. */
export type DemuxedKind = "reply" | "event" | "password-prompt";

/** One line from OpenVPN, without its line end; an event also without its leading `>`. */
export interface DemuxedLine {
  /** What the line is. */
  readonly kind: DemuxedKind;
  /** Its bytes, valid as long as it is kept. It is a view of a copy of the chunk that ended the line. */
  readonly line: Uint8Array;
}

/**
 * The longest message that OpenVPN sends, in bytes with its `>` and line end. It cuts a longer one at this length together with
 * its line end, so that the next message follows on the same line; the {@linkcode Demuxer} splits there.
 */
export const MAX_MESSAGE_BYTES = 10239;

const LF = 10;
const FOUR_LF = 0x0a0a0a0a;
const ONES = 0x01010101;
const TOP_BITS = 0x80808080;
const CR = 13;
const EVENT_MARK = 62; // ">"
const PROMPT: Uint8Array = new TextEncoder().encode("ENTER PASSWORD:");

/**
 * Splits what OpenVPN's management interface sends into lines. Pure and bounded: it holds less than
 * {@linkcode MAX_MESSAGE_BYTES} bytes between two calls, whatever comes.
 *
 * - Lines end with LF or CR LF. Empty lines carry nothing and are left out.
 * - `ENTER PASSWORD:` has no line end. It is a prompt only at the start of a connection or after another prompt; later it
 *   could be a part of somebody's text.
 *
 * @example
 * ```ts
 * import { Demuxer } from "@trunkline/sockets/ovpn";
 *
 * const demuxer = new Demuxer();
 * const chunk = new TextEncoder().encode(">HOLD:Waiting for hold release:0\r\nSUCCESS: pid=42\r\n");
 * for (const { kind, line } of demuxer.push(chunk)) {
 *   console.log(kind, new TextDecoder().decode(line));
 * }
 * ```
 */
export class Demuxer {
  /** Has no LF. */
  #partial: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #promptPossible = true;

  /** Takes the next bytes; gives the lines that they complete. `chunk` may be used again at once. */
  push(chunk: Uint8Array): DemuxedLine[] {
    if (!(chunk instanceof Uint8Array)) throw new TypeError("a chunk is a Uint8Array");
    return this.#split(this.#join(chunk), false);
  }

  /** Gives what the end of the connection left unterminated, if anything. Never throws. */
  end(): DemuxedLine[] {
    return this.#split(this.#partial, true);
  }

  /** One copy of a chunk serves all of its lines. */
  #join(chunk: Uint8Array): Uint8Array<ArrayBuffer> {
    const partial = this.#partial;
    if (partial.length === 0) return new Uint8Array(chunk);
    const joined = new Uint8Array(partial.length + chunk.length);
    joined.set(partial);
    joined.set(chunk, partial.length);
    return joined;
  }

  #split(data: Uint8Array<ArrayBuffer>, ended: boolean): DemuxedLine[] {
    const lines: DemuxedLine[] = [];
    const { buffer } = data;
    const words = new Int32Array(buffer, 0, data.length >> 3 << 1);
    let start = 0;
    for (let i = 0; 4 * i < data.length; i += 2) {
      // Eight bytes at once: an indexOf() for each line takes V8 twice as long.
      while (i < words.length && !hasLf(words[i]!, words[i + 1]!)) i += 2;
      const stop = Math.min(4 * i + 8, data.length);
      for (let at = 4 * i; at < stop; at++) {
        if (data[at] !== LF) continue;
        if (this.#promptPossible || at - start >= MAX_MESSAGE_BYTES) {
          start = this.#takeParts(lines, data, start, at);
        }
        // What #take() does; a call for each line takes V8 a quarter longer.
        const end = data[at - 1] === CR ? at - 1 : at;
        if (end > start) {
          this.#promptPossible = false;
          lines.push(lineOf(buffer, start, end, data[start]));
        }
        start = at + 1;
      }
    }
    start = this.#takeParts(lines, data, start, data.length);
    if (ended) this.#take(lines, data, start, start = data.length);
    this.#partial = start === 0 && !ended ? data : data.slice(start);
    return lines;
  }

  /** Takes from a line that ends at `end` the prompts and what is too long for one line; gives where the rest starts. */
  #takeParts(
    lines: DemuxedLine[],
    data: Uint8Array<ArrayBuffer>,
    start: number,
    end: number,
  ): number {
    while (this.#promptPossible && startsWithPrompt(data, start, end)) {
      const after = start + PROMPT.length;
      lines.push({ kind: "password-prompt", line: data.subarray(start, after) });
      start = after;
    }
    for (; end - start >= MAX_MESSAGE_BYTES; start += MAX_MESSAGE_BYTES) {
      this.#take(lines, data, start, start + MAX_MESSAGE_BYTES);
    }
    return start;
  }

  /** Takes the bytes from `start` to `end` as one line, unless it is empty. */
  #take(
    lines: DemuxedLine[],
    data: Uint8Array<ArrayBuffer>,
    start: number,
    end: number,
  ): void {
    // Also where the LF is cut off, or never came.
    if (data[end - 1] === CR) end--;
    if (end <= start) return;
    this.#promptPossible = false;
    lines.push(lineOf(data.buffer, start, end, data[start]));
  }
}

/** A line of the bytes from `start` to `end`, of which `first` is the first. */
function lineOf(
  buffer: ArrayBuffer,
  start: number,
  end: number,
  first: number | undefined,
): DemuxedLine {
  // Not subarray(), which takes V8 longer: it asks for the species.
  return first === EVENT_MARK
    ? { kind: "event", line: new Uint8Array(buffer, start + 1, end - start - 1) }
    : { kind: "reply", line: new Uint8Array(buffer, start, end - start) };
}

/** Whether any of eight bytes is an LF. */
function hasLf(four: number, fourMore: number): boolean {
  // A byte of these is 0 where there is an LF; only then the subtraction sets a top bit that was not set.
  const first = four ^ FOUR_LF;
  const second = fourMore ^ FOUR_LF;
  return ((first - ONES & ~first | second - ONES & ~second) & TOP_BITS) !== 0;
}

function startsWithPrompt(data: Uint8Array, start: number, end: number): boolean {
  return end - start >= PROMPT.length && PROMPT.every((byte, i) => data[start + i] === byte);
}
