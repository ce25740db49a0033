/**
 * Reads the transport to its end, and opens what came.
 *
 * @module
 */
import type { Aead, OpenBox } from "../adapters/aead.ts";
import type { Conn } from "../adapters/types.ts";
import { MuxError } from "./errors.ts";

/** How a protocol cuts what comes into sealed boxes, and what it makes of them. */
export interface Unpacker {
  /** True in the middle of a box. */
  readonly partial: boolean;
  /** Frames and payload bytes so far. */
  readonly frames: number;
  readonly bytes: number;
  /** The boxes that are whole up to the end of `chunk`. Behind them `broken` is what is wrong with the rest. */
  split(chunk: Uint8Array): { readonly boxes: readonly OpenBox[]; readonly broken?: unknown };
  /** Takes box number `i` of the last `split()`, opened; undefined if it is forged. What it throws ends the session. */
  accept(i: number, plain: Uint8Array | undefined): void;
}

/** What the receiver tells. */
export interface ReceiverEvents {
  /** The first bytes, of which nobody knows yet whose they are. */
  onFirstBytes(): void;
  /** The end of the transport, or what was wrong. */
  onEnd(error?: unknown): void;
}

/** First and largest size of the memory that is read into, where the runtime does that. */
const READ_BYTES = { first: 4 * 1024, most: 256 * 1024 } as const;

export class Receiver {
  lastFrameAt: number = performance.now();
  readonly #conn: Conn;
  readonly #aead: Promise<Aead>;
  readonly #unpacker: Unpacker;
  readonly #events: ReceiverEvents;

  constructor(conn: Conn, aead: Promise<Aead>, unpacker: Unpacker, events: ReceiverEvents) {
    this.#conn = conn;
    this.#aead = aead;
    this.#unpacker = unpacker;
    this.#events = events;
  }

  get frames(): number {
    return this.#unpacker.frames;
  }

  get bytes(): number {
    return this.#unpacker.bytes;
  }

  /** Reads to the end, behind `head`, which was read before. */
  async run(head: Uint8Array): Promise<void> {
    try {
      const aead = await this.#aead;
      let first = true;
      // Grows with what comes, so that an idle session holds little.
      let into = new Uint8Array(READ_BYTES.first);
      for (;;) {
        const chunk = first && head.length > 0 ? head : await this.#conn.read({ into });
        if (chunk === null) break;
        if (chunk.buffer === into.buffer && chunk.length === into.length) {
          into = new Uint8Array(Math.min(2 * into.length, READ_BYTES.most));
        }
        if (first) this.#events.onFirstBytes();
        first = false;
        // Not awaited where nothing is to be awaited: that would cost every small frame a turn.
        const taking = this.#take(chunk, aead);
        if (taking !== undefined) await taking;
      }
      if (this.#unpacker.partial) {
        throw new MuxError("truncated", "the transport ended in the middle of a frame");
      }
      this.#events.onEnd();
    } catch (error) {
      this.#events.onEnd(error);
    }
  }

  #take(chunk: Uint8Array, aead: Aead): void | Promise<void> {
    const { boxes, broken } = this.#unpacker.split(chunk);
    const accept = (opened: readonly (Uint8Array | undefined)[]): void => {
      if (boxes.length > 0) this.lastFrameAt = performance.now();
      for (let i = 0; i < boxes.length; i++) this.#unpacker.accept(i, opened[i]);
      // Behind what is whole.
      if (broken !== undefined) throw broken;
    };
    if (boxes.length === 0) return accept([]);
    const opening = aead.open(boxes);
    return "then" in opening ? opening.then(accept) : accept(opening);
  }
}
