/**
 * Puts frames into records, as many as fit (spec-mux2: records).
 *
 * @module
 */
import type { SealBox } from "../../adapters/aead.ts";
import type { Batch, Outbox, Packer } from "../_sender.ts";
import {
  MAX_CONTROL_BYTES,
  MAX_DATA_HEADER_BYTES,
  TYPE,
  writeControl,
  writeDataHeader,
} from "./frame.ts";
import { LENGTH_BYTES, MAX_PLAIN_BYTES, MAX_RECORD_BYTES, type RecordKeys } from "./record.ts";
import { NOISE_TAG_BYTES } from "./suite.ts";

/** Bytes of records that are sealed and written at once: enough that the cost of a write does not matter. */
const MAX_BATCH_BYTES = 8 * (LENGTH_BYTES + MAX_RECORD_BYTES);
const FIRST_BATCH_BYTES = 4096;
/** Data are not cut in pieces smaller than that to fill a record. */
const MIN_PIECE_BYTES = 1024;

const NOTHING = new Uint8Array(0);

export class RecordPacker implements Packer {
  frames = 0;
  bytes = 0;
  readonly #keys: RecordKeys;
  readonly #padBytes: number;
  /** Two, since one is sealed while the other is written. */
  readonly #buffers: Uint8Array[] = [NOTHING, NOTHING];
  #turn = 0;
  readonly #firstRoom: number;
  /** Of the next buffer: more than the last one if that was filled. */
  #room: number;

  constructor(keys: RecordKeys, padBytes: number) {
    this.#keys = keys;
    this.#padBytes = padBytes;
    this.#room = this.#firstRoom = Math.max(
      FIRST_BATCH_BYTES,
      LENGTH_BYTES + padBytes + NOISE_TAG_BYTES,
    );
  }

  pack(outbox: Outbox): Batch | undefined {
    if (outbox.empty) return undefined;
    const turn = this.#turn ^= 1;
    if (this.#buffers[turn]!.length < this.#room) this.#buffers[turn] = new Uint8Array(this.#room);
    const buffer = this.#buffers[turn]!;
    const boxes: SealBox[] = [];
    let at = 0;
    for (;;) {
      const start = at + LENGTH_BYTES;
      const room = Math.min(buffer.length - start - NOISE_TAG_BYTES, MAX_PLAIN_BYTES);
      // Nor a record shorter than that, at the end of a buffer.
      if (at > 0 && room < MIN_PIECE_BYTES) break;
      const limit = start + room - room % this.#padBytes;
      const filled = this.#fill(outbox, buffer, start, limit);
      if (filled === start) break;
      const end = this.#pad(buffer, start, filled);
      const length = end + NOISE_TAG_BYTES - start;
      buffer[at] = length >> 8;
      buffer[at + 1] = length;
      at = end + NOISE_TAG_BYTES;
      // Sealed where it lies: no plaintext stays behind.
      const output = buffer.subarray(start, at);
      const input = buffer.subarray(start, end);
      boxes.push({ ...this.#keys.next(length), aad: NOTHING, input, output });
    }
    if (!outbox.empty) this.#room = Math.min(2 * buffer.length, MAX_BATCH_BYTES);
    return boxes.length === 0 ? undefined : { boxes, whole: buffer.subarray(0, at) };
  }

  release(): void {
    this.#buffers.fill(NOTHING);
    this.#room = this.#firstRoom;
  }

  /** Writes frames from `at` on, up to `limit`; gives where they end. */
  #fill(outbox: Outbox, buffer: Uint8Array, at: number, limit: number): number {
    const start = at;
    while (limit - at >= MAX_CONTROL_BYTES) {
      const control = outbox.control();
      if (control !== undefined) {
        at = writeControl(buffer, at, control.type, control.id, control.values);
        this.frames++;
        continue;
      }
      const credit = outbox.credit();
      if (credit !== undefined) {
        at = writeControl(buffer, at, TYPE.WINDOW, credit.id, [credit.increment]);
        this.frames++;
        continue;
      }
      const source = outbox.source();
      if (source === undefined) break;
      const room = limit - at - MAX_DATA_HEADER_BYTES;
      const count = source.sendable(room);
      if (count === room && room < MIN_PIECE_BYTES && at > start) break;
      if (count > 0) {
        at = writeDataHeader(buffer, at, source.id, count);
        source.copyData(buffer, at, count, outbox.taken);
        at += count;
        this.frames++;
        this.bytes += count;
      }
      outbox.took(source);
    }
    return at;
  }

  #pad(buffer: Uint8Array, start: number, end: number): number {
    const over = (end - start) % this.#padBytes;
    if (over === 0) return end;
    const padded = end + this.#padBytes - over;
    buffer.fill(TYPE.PADDING, end, padded);
    return padded;
  }
}
