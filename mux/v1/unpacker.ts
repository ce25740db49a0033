/**
 * Cuts what comes into frames as gomux has them, and checks that they are from the peer, once and in its order (spec-mux: nonces).
 *
 * @module
 */
import type { OpenBox } from "../../adapters/aead.ts";
import type { Unpacker } from "../_receiver.ts";
import { MuxError } from "../errors.ts";
import { FrameSplitter, HEADER_BYTES, NONCE_BYTES, NONCE_OFFSET, readUint32 } from "./frame.ts";
import { subkey } from "./key.ts";
import { NONCE_MARK, NONCE_PREFIX_BYTES } from "./packer.ts";

/** Takes a frame of the peer. What it throws ends the session. */
export type OnFrame = (id: number, flags: number, length: number, payload: Uint8Array) => void;

export class FrameUnpacker implements Unpacker {
  frames = 0;
  bytes = 0;
  /** True if the peer counts its frames, false if each has a nonce of its own, undefined as long as it cannot be told. */
  peerCounts: boolean | undefined;
  /** True if the peer is this package. */
  peerIsOurs = false;
  readonly #key: Uint8Array;
  readonly #ownPrefix: Uint8Array;
  readonly #onFrame: OnFrame;
  readonly #splitter = new FrameSplitter();
  /** Those of the last `split()`. */
  #sealed: Uint8Array[] = [];
  /** Of the last frame that was looked at, and the key that goes with it. */
  #prefix: Uint8Array = new Uint8Array(0);
  #subkey: Uint8Array = new Uint8Array(0);
  /** Of the last frame that was accepted. */
  #lastNonce: Uint8Array | undefined;

  constructor(key: Uint8Array, ownPrefix: Uint8Array, onFrame: OnFrame) {
    this.#key = key;
    this.#ownPrefix = ownPrefix;
    this.#onFrame = onFrame;
  }

  get partial(): boolean {
    return this.#splitter.partial;
  }

  split(chunk: Uint8Array): { readonly boxes: readonly OpenBox[]; readonly broken?: unknown } {
    const sealed: Uint8Array[] = this.#sealed = [];
    let broken: unknown;
    try {
      this.#splitter.push(chunk, sealed);
    } catch (error) {
      broken = error;
    }
    return { boxes: sealed.map((frame) => this.#box(frame)), broken };
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

  accept(i: number, payload: Uint8Array | undefined): void {
    const frame = this.#sealed[i]!;
    if (payload === undefined) {
      const text = this.frames === 0
        ? "the first frame cannot be opened: the peer has another psk, or is no peer"
        : "a frame is forged or damaged";
      throw new MuxError("auth-failed", text);
    }
    this.#checkNonce(frame);
    this.frames++;
    this.bytes += payload.length;
    const [id, length, flags] = [readUint32(frame, 0), readUint32(frame, 4), readUint32(frame, 8)];
    this.#onFrame(id, flags, length, payload);
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
