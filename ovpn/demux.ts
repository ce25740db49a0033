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
    const feeds = lineFeeds(data);
    let passed = 0;
    let start = 0;
    for (;;) {
      if (this.#promptPossible) {
        const prompt = promptAt(data, start);
        if (prompt === "begun" && !ended) break;
        if (prompt === "whole") {
          const end = start + PROMPT.length;
          lines.push({ kind: "password-prompt", line: data.subarray(start, end) });
          start = end;
          continue;
        }
      }
      let end = feeds[passed] ?? data.length;
      let next = end + 1;
      const cut = start + MAX_MESSAGE_BYTES;
      if (end >= cut) {
        end = next = cut;
      } else if (end < data.length) {
        passed++;
      } else {
        if (!ended || start === end) break;
        next = end;
      }
      // Also where the LF is cut off, or never came.
      if (end > start && data[end - 1] === CR) end--;
      if (end > start) {
        this.#promptPossible = false;
        const event = data[start] === EVENT_MARK;
        const from = event ? start + 1 : start;
        // Not subarray(), which takes V8 much longer: it asks for the species.
        const line = new Uint8Array(data.buffer, from, end - from);
        lines.push({ kind: event ? "event" : "reply", line });
      }
      start = next;
    }
    this.#partial = start === 0 && !ended ? data : data.slice(start);
    return lines;
  }
}

/** Where the LFs are. Looks at four bytes at once: an `indexOf()` for each line takes V8 twice as long. */
function lineFeeds(data: Uint8Array<ArrayBuffer>): number[] {
  const found: number[] = [];
  const words = new Uint32Array(data.buffer, 0, data.length >> 2);
  for (let i = 0; i < words.length; i++) {
    const word = (words[i] ?? 0) ^ FOUR_LF;
    // Not 0 if any byte of `word` is: only then the subtraction sets a top bit that was not set.
    if (((word - 0x01010101) & ~word & 0x80808080) === 0) continue;
    for (let at = 4 * i; at < 4 * i + 4; at++) if (data[at] === LF) found.push(at);
  }
  for (let at = 4 * words.length; at < data.length; at++) if (data[at] === LF) found.push(at);
  return found;
}

/** Whether the prompt stands at `start`: as a whole, or as far as the data goes. */
function promptAt(data: Uint8Array, start: number): "whole" | "begun" | undefined {
  const length = Math.min(PROMPT.length, data.length - start);
  for (let i = 0; i < length; i++) if (data[start + i] !== PROMPT[i]) return undefined;
  if (length === PROMPT.length) return "whole";
  return length > 0 ? "begun" : undefined;
}
