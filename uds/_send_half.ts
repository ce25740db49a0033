/**
 * The two directions of a call whose messages are cut into pieces: both sides have one of each.
 *
 * @module
 */
import { MORE, PIECE_BYTES, TYPE, uint } from "./_extension.ts";
import { CHUNK_BYTES, type Sender } from "./_sender.ts";
import type { Uint } from "./_uvarint.ts";

/** How many bytes of a call may be on their way to who does not read. */
export const WINDOW_BYTES: number = 256 * 1024;

/** Sends messages, no more than the peer has room for. */
export class SendHalf {
  readonly #sender: Sender;
  readonly #id: Uint;
  readonly #handler: Uint8Array | undefined;
  /** Hears of `fail()`. */
  onFail: ((error: Error) => void) | undefined;
  #credit: number;
  #error: Error | undefined;
  #wake: (() => void) | undefined;
  /** Of the write before. */
  #turn: Promise<void> = Promise.resolve();

  /** `handler` is empty in the messages of a client, and `undefined` in those of a server. */
  constructor(sender: Sender, id: Uint, handler: Uint8Array | undefined, credit: number) {
    this.#sender = sender;
    this.#id = id;
    this.#handler = handler;
    this.#credit = credit;
  }

  /** Takes a `WINDOW`. */
  grant(bytes: number): void {
    this.#credit += bytes;
    this.#wake?.();
  }

  /** Whoever waits, and whoever writes from now on, gets `error`. */
  fail(error: Error): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#wake?.();
    this.onFail?.(error);
  }

  /** Sends a message; resolves when all of it was sent. Messages are sent in the order of the calls. */
  write(message: Uint8Array): Promise<void> {
    return this.#turn = this.#turn.then(() => this.#write(message));
  }

  /** How much of a message can go at once, with what begins a call. */
  take(message: Uint8Array): Uint8Array {
    return this.#piece(message, 0);
  }

  #piece(message: Uint8Array, at: number): Uint8Array {
    const room = Math.max(0, Math.min(this.#credit - PIECE_BYTES, CHUNK_BYTES));
    const piece = message.subarray(at, at + room);
    this.#credit -= piece.length + PIECE_BYTES;
    return piece;
  }

  /** Sends the rest of a message. */
  async #write(message: Uint8Array): Promise<void> {
    let at = 0;
    do {
      if (this.#sender.full) {
        // An end is heard, too.
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          this.#sender.low().then(resolve);
        });
      }
      // One byte, if there is one.
      const least = PIECE_BYTES + Math.min(1, message.length - at);
      while (this.#credit < least && this.#error === undefined) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      if (this.#error !== undefined) throw this.#error;
      const data = this.#piece(message, at);
      at += data.length;
      const header = uint(at < message.length ? MORE : 0);
      this.#sender.send({
        id: this.#id,
        type: TYPE.CHUNK,
        handler: this.#handler,
        header,
        data,
      });
    } while (at < message.length);
  }

  /** Says that no more messages follow, after those that were written. */
  async end(data: Uint8Array): Promise<void> {
    await this.#turn;
    if (this.#error !== undefined) throw this.#error;
    this.#sender.send({ id: this.#id, type: TYPE.END, handler: this.#handler, data });
  }
}
