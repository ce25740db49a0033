/**
 * Lays out frames as gomux has them, each sealed by itself (spec-mux: frames, nonces).
 *
 * @module
 */
import type { SealBox } from "../../adapters/aead.ts";
import type { Batch, Outbox, Packer } from "../_sender.ts";
import {
  FLAG,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  NONCE_OFFSET,
  TAG_BYTES,
  writeUint32,
} from "./frame.ts";
import { subkey } from "./key.ts";

/** Bytes of frames that are sealed and written at once: as many as gomux writes. */
const BATCH_BYTES = 9 * (HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES);
/** Bytes of a nonce that stay the same in one direction of a session; the rest counts frames. */
export const NONCE_PREFIX_BYTES = 16;
/** How the prefixes of this package begin, so that a receiver knows from the first frame on that they are counted from 0. */
export const NONCE_MARK: Uint8Array = new TextEncoder().encode("count0");

const NOTHING = new Uint8Array(0);

interface Outgoing {
  readonly id: number;
  readonly flags: number;
  readonly length: number;
  readonly payload: Uint8Array;
}

export class FramePacker implements Packer {
  /** Our own nonces begin with it; coming back, it proves reflection. */
  readonly prefix: Uint8Array;
  frames = 0;
  bytes = 0;
  readonly #key: Uint8Array;
  /** Two, since one is sealed while the other is written. */
  readonly #buffers: Uint8Array[] = [NOTHING, NOTHING];
  #turn = 0;

  constructor(key: Uint8Array) {
    this.prefix = crypto.getRandomValues(new Uint8Array(NONCE_PREFIX_BYTES));
    this.prefix.set(NONCE_MARK);
    this.#key = subkey(key, this.prefix);
  }

  pack(outbox: Outbox): Batch | undefined {
    const batch: Outgoing[] = [];
    let room = BATCH_BYTES;
    while (room >= HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES) {
      const frame = next(outbox);
      if (frame === undefined) break;
      batch.push(frame);
      room -= HEADER_BYTES + frame.payload.length + TAG_BYTES;
    }
    return batch.length === 0 ? undefined : this.#layOut(batch);
  }

  release(): void {
    this.#buffers.fill(NOTHING);
  }

  /** Writes the headers; what is to be sealed, and the whole of it. */
  #layOut(batch: readonly Outgoing[]): Batch {
    let size = 0;
    for (const { payload } of batch) size += HEADER_BYTES + payload.length + TAG_BYTES;
    const turn = this.#turn ^= 1;
    if (this.#buffers[turn]!.length < size) {
      this.#buffers[turn] = new Uint8Array(roomFor(size));
    }
    const buffer = this.#buffers[turn]!;
    const nonces = new Uint8Array(12 * batch.length);
    let at = 0;
    const boxes = batch.map(({ id, flags, length, payload }, i): SealBox => {
      const body = at + HEADER_BYTES;
      writeUint32(buffer, at, id);
      writeUint32(buffer, at + 4, length);
      writeUint32(buffer, at + 8, flags);
      buffer.set(this.prefix, at + NONCE_OFFSET);
      const counter = this.frames++;
      const high = Math.floor(counter / 2 ** 32);
      writeUint32(buffer, body - 8, counter);
      writeUint32(buffer, body - 4, high);
      writeUint32(nonces, 12 * i + 4, counter);
      writeUint32(nonces, 12 * i + 8, high);
      const end = body + payload.length + TAG_BYTES;
      const box = {
        key: this.#key,
        nonce: nonces.subarray(12 * i, 12 * i + 12),
        aad: buffer.subarray(at, body),
        input: payload,
        output: buffer.subarray(body, end),
      };
      this.bytes += payload.length;
      at = end;
      return box;
    });
    return { boxes, whole: buffer.subarray(0, size) };
  }
}

function next(outbox: Outbox): Outgoing | undefined {
  const control = outbox.control();
  if (control !== undefined) {
    const { id, type, values } = control;
    return { id, flags: type, length: values[0] ?? 0, payload: NOTHING };
  }
  const credit = outbox.credit();
  if (credit !== undefined) {
    const { id, increment } = credit;
    return { id, flags: FLAG.WINDOW_UPDATE, length: increment, payload: NOTHING };
  }
  for (let source = outbox.source(); source; source = outbox.source()) {
    const count = source.sendable(MAX_PAYLOAD_BYTES);
    if (count === 0) {
      outbox.took(source);
      continue;
    }
    const payload = source.takeData(count, outbox.taken);
    outbox.took(source);
    return { id: source.id, flags: FLAG.DATA, length: count, payload };
  }
  return undefined;
}

/** Doubled until it fits, so that a session that sends little holds little. */
function roomFor(size: number): number {
  let room = 512;
  while (room < size) room *= 2;
  return Math.min(room, Math.max(size, BATCH_BYTES));
}
