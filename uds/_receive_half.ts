/**
 * The messages of a call that come in pieces.
 *
 * @module
 */
import { PIECE_BYTES, TYPE, uint } from "./_extension.ts";
import { WINDOW_BYTES } from "./_send_half.ts";
import type { Sender } from "./_sender.ts";
import type { Uint } from "./_uvarint.ts";
import { kept } from "./decoder.ts";
import { UdsError } from "./errors.ts";

/** Less is not worth a message. */
const MIN_GRANT_BYTES = WINDOW_BYTES / 2;

/** Below it, room for a message grows faster. */
const FAST_ROOM = 1024 * 1024;
const NOTHING = new Uint8Array();

interface Waiter {
  resolve(message: Uint8Array | undefined): void;
  reject(error: Error): void;
}

/** A message that was not read yet, and how many of its bytes were not granted again. */
interface Unread {
  readonly message: Uint8Array;
  readonly held: number;
}

/** How much all calls of a connection may put together at once. */
export class Assembly {
  readonly #maxBytes: number;
  /** Those that have the beginning of a message, the oldest first. */
  readonly #halves = new Map<ReceiveHalf, number>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Counts what `half` has of a message. */
  set(half: ReceiveHalf, bytes: number): void {
    this.#bytes += bytes - (this.#halves.get(half) ?? 0);
    if (bytes > 0) {
      this.#halves.set(half, bytes);
      return;
    }
    this.#halves.delete(half);
    for (const other of this.#halves.keys()) other.resume();
  }

  /** Whether `half` may go on: the oldest always may, of those for which nobody has to read something else first. */
  allows(half: ReceiveHalf): boolean {
    if (this.#bytes + WINDOW_BYTES <= this.#maxBytes) return true;
    for (const other of this.#halves.keys()) if (other.readOut) return other === half;
    return true;
  }
}

/**
 * Puts messages together, and has the peer send no more than is read: it holds one window, and one message that is not whole, if that is the
 * next to be read.
 */
export class ReceiveHalf {
  readonly #sender: Sender;
  readonly #id: Uint;
  readonly #handler: Uint8Array | undefined;
  readonly #maxMessage: number;
  readonly #assembly: Assembly;
  readonly #unread: Unread[] = [];
  readonly #waiters: Waiter[] = [];
  /** Hears of `fail()`, and of an end that has nothing before it. */
  onOver: ((error?: Error) => void) | undefined;
  /** Of the message that is not whole. */
  #room: Uint8Array = NOTHING;
  #partBytes = 0;
  #partHeld = 0;
  /** What the peer may still send. */
  #credit = WINDOW_BYTES;
  /** What may be granted, but was not worth it yet. */
  #grantable = 0;
  #ended = false;
  #stopped = false;
  #error: Error | undefined;

  /** `handler` is empty in the messages of a client, and `undefined` in those of a server. */
  constructor(
    sender: Sender,
    id: Uint,
    handler: Uint8Array | undefined,
    limits: { readonly maxMessage: number; readonly assembly: Assembly },
  ) {
    this.#sender = sender;
    this.#id = id;
    this.#handler = handler;
    this.#maxMessage = limits.maxMessage;
    this.#assembly = limits.assembly;
  }

  /**
   * Takes a piece. Gives why its message cannot be taken.
   *
   * @throws {UdsError} `protocol` if there was no room for it
   */
  push(part: Uint8Array, more: boolean): UdsError | undefined {
    if (this.#error !== undefined) return;
    if (this.#ended) throw new UdsError("protocol", `call ${this.#id}: data behind its end`);
    if (more && part.length === 0) {
      throw new UdsError("protocol", `call ${this.#id}: an empty piece`);
    }
    const cost = part.length + PIECE_BYTES;
    this.#credit -= cost;
    if (this.#credit < 0) {
      throw new UdsError("protocol", `call ${this.#id}: more bytes than its window has`);
    }
    if (this.#stopped) return;
    const size = this.#partBytes + part.length;
    if (size > this.#maxMessage) {
      const text = `call ${this.#id}: a message of more than ${this.#maxMessage} bytes`;
      return new UdsError("too-large", text);
    }
    const message = more || this.#partBytes > 0 ? this.#join(part) : part;
    this.#partHeld += cost;
    if (more) {
      this.#assembly.set(this, size);
      this.resume();
      return;
    }
    const held = this.#partHeld;
    this.#room = NOTHING;
    this.#partBytes = this.#partHeld = 0;
    this.#assembly.set(this, 0);
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#unread.push({ message: kept(message), held });
    else {
      waiter.resolve(message);
      this.#grant(held);
    }
  }

  /** Puts it behind the others: pieces may be small, and each would take more memory than it has bytes. Gives all. */
  #join(part: Uint8Array): Uint8Array {
    const size = this.#partBytes + part.length;
    if (size > this.#room.length) {
      const room = new Uint8Array(
        Math.min(this.#maxMessage, size < FAST_ROOM ? 4 * size : 2 * size),
      );
      room.set(this.#room.subarray(0, this.#partBytes));
      this.#room = room;
    }
    this.#room.set(part, this.#partBytes);
    this.#partBytes = size;
    return this.#room.subarray(0, size);
  }

  /** Takes the end of all messages. */
  end(): void {
    if (this.#partBytes > 0) {
      throw new UdsError("protocol", `call ${this.#id}: its end in the middle of a message`);
    }
    this.#ended = true;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve(undefined);
    if (this.drained) this.onOver?.();
  }

  /** Nobody reads any more: what comes is dropped, and no more of it is asked for. */
  stop(): void {
    this.#stopped = true;
    this.#drop();
  }

  #drop(): void {
    this.#room = NOTHING;
    this.#partBytes = 0;
    this.#unread.length = 0;
    this.#assembly.set(this, 0);
  }

  /** Whoever waits, and whoever reads from now on, gets `error`. */
  fail(error: Error): void {
    if (this.#error !== undefined) return;
    this.#drop();
    this.failAtEnd(error);
  }

  /** The same, but messages that have come whole are read first. */
  failAtEnd(error: Error): void {
    this.#error = error;
    this.#room = NOTHING;
    this.#partBytes = 0;
    this.#assembly.set(this, 0);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    if (this.#unread.length === 0) this.onOver?.(error);
  }

  /** Whether all was read, to the end. */
  get drained(): boolean {
    return this.#ended && this.#unread.length === 0;
  }

  /** The next message; `undefined` at the end. */
  read(): Promise<Uint8Array | undefined> {
    const next = this.#unread.shift();
    if (next !== undefined) {
      this.#grant(next.held);
      this.resume();
      // After who reads has it.
      const error = this.#error;
      if (error !== undefined && this.readOut) queueMicrotask(() => this.onOver?.(error));
      return Promise.resolve(next.message);
    }
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (this.#ended) return Promise.resolve(undefined);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /** Whether what comes next is the next to be read. */
  get readOut(): boolean {
    return this.#unread.length === 0;
  }

  /** Has the rest of a message come that is the next to be read. */
  resume(): void {
    if (!this.readOut || this.#partHeld === 0 || !this.#assembly.allows(this)) return;
    this.#grant(this.#partHeld);
    this.#partHeld = 0;
  }

  #grant(bytes: number): void {
    if (this.#error !== undefined) return;
    this.#grantable += bytes;
    if (this.#grantable < MIN_GRANT_BYTES) return;
    this.#sender.send({
      id: this.#id,
      type: TYPE.WINDOW,
      handler: this.#handler,
      data: uint(this.#grantable),
    });
    this.#credit += this.#grantable;
    this.#grantable = 0;
  }
}
