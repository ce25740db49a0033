/**
 * Reads the transport, opens what came and checks that it is from the peer, once and in its order.
 *
 * @module
 */
import type { Aead, OpenBox, Opened } from "../adapters/aead.ts";
import type { Conn } from "../adapters/types.ts";
import { NONCE_MARK, NONCE_PREFIX_BYTES } from "./_sender.ts";
import { MuxError } from "./errors.ts";
import { FrameSplitter, HEADER_BYTES, NONCE_BYTES, NONCE_OFFSET, readUint32 } from "./frame.ts";
import { subkey } from "./key.ts";

/** What the receiver tells. */
export interface ReceiverEvents {
  /** The first bytes, of which nobody knows yet whose they are. */
  onFirstBytes(): void;
  /** A frame of the peer. What it throws ends the session. */
  onFrame(id: number, flags: number, length: number, payload: Uint8Array): void;
  /** The end of the transport, or what was wrong. */
  onEnd(error?: unknown): void;
}

/** First and largest size of the memory that is read into, where the runtime does that. */
const READ_BYTES = { first: 4 * 1024, most: 256 * 1024 } as const;

export class Receiver {
  lastFrameAt: number = performance.now();
  frames = 0;
  bytes = 0;
  /** True if the peer counts its frames, false if each has a nonce of its own, undefined as long as it cannot be told. */
  peerCounts: boolean | undefined;
  /** True if the peer is this package. */
  peerIsOurs = false;
  readonly #conn: Conn;
  readonly #key: Uint8Array;
  readonly #aead: Promise<Aead>;
  readonly #ownPrefix: Uint8Array;
  readonly #events: ReceiverEvents;
  readonly #splitter = new FrameSplitter();
  /** Of the last frame that was looked at, and the key that goes with it. */
  #prefix: Uint8Array = new Uint8Array(0);
  #subkey: Uint8Array = new Uint8Array(0);
  /** Of the last frame that was accepted. */
  #lastNonce: Uint8Array | undefined;

  constructor(
    conn: Conn,
    key: Uint8Array,
    aead: Promise<Aead>,
    ownPrefix: Uint8Array,
    events: ReceiverEvents,
  ) {
    this.#conn = conn;
    this.#key = key;
    this.#aead = aead;
    this.#ownPrefix = ownPrefix;
    this.#events = events;
  }

  /** Reads to the end. */
  async run(): Promise<void> {
    try {
      const aead = await this.#aead;
      let first = true;
      // Grows with what comes, so that an idle session holds little.
      let into = new Uint8Array(READ_BYTES.first);
      for (;;) {
        const chunk = await this.#conn.read({ into });
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
      if (this.#splitter.partial) {
        throw new MuxError("truncated", "the transport ended in the middle of a frame");
      }
      this.#events.onEnd();
    } catch (error) {
      this.#events.onEnd(error);
    }
  }

  #take(chunk: Uint8Array, aead: Aead): void | Promise<void> {
    const sealed: Uint8Array[] = [];
    let broken: unknown;
    try {
      this.#splitter.push(chunk, sealed);
    } catch (error) {
      broken = error;
    }
    const accept = (opened: Opened): void => {
      for (let i = 0; i < sealed.length; i++) this.#accept(sealed[i]!, opened[i]);
      // Behind the frames that are whole.
      if (broken !== undefined) throw broken;
    };
    if (sealed.length === 0) return accept([]);
    const opening = aead.open(sealed.map((frame) => this.#box(frame)));
    return "then" in opening ? opening.then(accept) : accept(opening);
  }

  #box(frame: Uint8Array): OpenBox {
    if (!hasPrefix(frame, this.#prefix)) {
      this.#prefix = frame.slice(NONCE_OFFSET, NONCE_OFFSET + NONCE_PREFIX_BYTES);
      this.#subkey = subkey(this.#key, this.#prefix);
    }
    // What is behind the prefix, behind 4 zeros.
    const nonce = new Uint8Array(12);
    for (let i = 4; i < 12; i++) nonce[i] = frame[HEADER_BYTES - 12 + i]!;
    const aad = frame.subarray(0, HEADER_BYTES);
    return { key: this.#subkey, nonce, aad, input: frame.subarray(HEADER_BYTES) };
  }

  #accept(frame: Uint8Array, payload: Uint8Array | undefined): void {
    if (payload === undefined) {
      const text = this.frames === 0
        ? "the first frame cannot be opened: the peer has another psk, or is no peer"
        : "a frame is forged or damaged";
      throw new MuxError("auth-failed", text);
    }
    this.#checkNonce(frame);
    this.frames++;
    this.bytes += payload.length;
    this.lastFrameAt = performance.now();
    const [id, length, flags] = [readUint32(frame, 0), readUint32(frame, 4), readUint32(frame, 8)];
    this.#events.onFrame(id, flags, length, payload);
  }

  /**
   * A peer of ours counts its frames, from 0 on, behind a prefix that stays the same: then replay, reorder and drop are found. gomux takes
   * random nonces: then only that a prefix comes twice in a row, or is ours, tells a replay (spec-mux: nonces).
   */
  #checkNonce(frame: Uint8Array): void {
    if (hasPrefix(frame, this.#ownPrefix)) {
      throw new MuxError("protocol", "a frame of our own comes back");
    }
    const last = this.#lastNonce;
    if (last === undefined) {
      const nonce = this.#lastNonce = frame.slice(NONCE_OFFSET, NONCE_OFFSET + NONCE_BYTES);
      if (!hasPrefix(frame, NONCE_MARK)) return;
      this.peerCounts = this.peerIsOurs = true;
      const first = nonce.subarray(NONCE_PREFIX_BYTES).every((byte) => byte === 0);
      if (!first) throw new MuxError("protocol", "the first frame of the peer is missing");
      return;
    }
    if (hasPrefix(frame, last.subarray(0, NONCE_PREFIX_BYTES))) {
      // Others may count as networks do, most significant byte first.
      if (!isNext(last, frame, true) && !isNext(last, frame, false)) {
        throw new MuxError("protocol", "a frame was replayed, reordered or dropped");
      }
      this.peerCounts = true;
    } else if (this.peerCounts) {
      throw new MuxError("protocol", "a frame of another session was put in");
    } else {
      this.peerCounts = false;
    }
    for (let i = 0; i < NONCE_BYTES; i++) last[i] = frame[NONCE_OFFSET + i]!;
  }
}

/** Whether the counter in the nonce of `frame` is that of the nonce before it, plus one. */
function isNext(before: Uint8Array, frame: Uint8Array, littleEndian: boolean): boolean {
  let carry = 1;
  for (let i = 0; i < 8; i++) {
    const at = littleEndian ? NONCE_PREFIX_BYTES + i : NONCE_BYTES - 1 - i;
    const sum = before[at]! + carry;
    if ((sum & 255) !== frame[NONCE_OFFSET + at]) return false;
    carry = sum >> 8;
  }
  return true;
}

/** Whether the nonce of `frame` begins with `prefix`, and there is one. */
function hasPrefix(frame: Uint8Array, prefix: Uint8Array): boolean {
  for (let i = 0; i < prefix.length; i++) if (frame[NONCE_OFFSET + i] !== prefix[i]) return false;
  return prefix.length > 0;
}
