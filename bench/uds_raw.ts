/**
 * The limit: a length, a number and the bytes of a call, written by hand on a socket of the runtime, and nothing that can go wrong in
 * mind. It does what cannot be left out of calls that run side by side: both ends put messages together, the client finds the call of
 * an answer by its number, and what is written in one turn goes as one. No names, types, deadlines, limits, errors or end.
 *
 * @module
 */
import type { Stack } from "./uds_stack.ts";
import { type Wire, wires } from "./uds_wire.ts";

const HEADER_BYTES = 8;
const BATCH_BYTES = 256 * 1024;
/** What is larger is written from where it is. */
const COPIED_BYTES = 32 * 1024;

/** Writes frames: a length and an id of 32 bits each, and the payload. */
export class FrameWriter {
  readonly #wire: Wire;
  #batch = new Uint8Array(BATCH_BYTES);
  #view = new DataView(this.#batch.buffer);
  /** Where what is not in `#pieces` yet begins, and ends. */
  #from = 0;
  #to = 0;
  #pieces: Uint8Array[] = [];
  #busy = false;

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  send(id: number, payload: Uint8Array): void {
    const copied = payload.length <= COPIED_BYTES;
    const room = copied ? HEADER_BYTES + payload.length : HEADER_BYTES;
    if (this.#to + room > BATCH_BYTES) {
      this.#cut();
      this.#batch = new Uint8Array(BATCH_BYTES);
      this.#view = new DataView(this.#batch.buffer);
      this.#from = this.#to = 0;
    }
    this.#view.setUint32(this.#to, payload.length);
    this.#view.setUint32(this.#to + 4, id);
    if (copied) this.#batch.set(payload, this.#to + HEADER_BYTES);
    this.#to += room;
    if (!copied) {
      this.#cut();
      this.#pieces.push(payload);
    }
    if (this.#busy) return;
    this.#busy = true;
    queueMicrotask(() => this.#flush().catch(() => {}));
  }

  #cut(): void {
    if (this.#to > this.#from) this.#pieces.push(this.#batch.subarray(this.#from, this.#to));
    this.#from = this.#to;
  }

  /** All that comes while it writes goes with the next write. */
  async #flush(): Promise<void> {
    for (this.#cut(); this.#pieces.length > 0; this.#cut()) {
      const pieces = this.#pieces;
      this.#pieces = [];
      await this.#wire.write(pieces);
      if (this.#from === this.#to && this.#pieces.length === 0) this.#from = this.#to = 0;
    }
    this.#busy = false;
  }
}

/** Reads what {@linkcode FrameWriter} wrote: hears chunks, and gives frames; those in one chunk are views of it. */
export function frameReader(take: (id: number, payload: Uint8Array) => void) {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  let headerBytes = 0;
  /** Of a frame that comes in more than one chunk. */
  let payload: Uint8Array | undefined;
  let have = 0;
  return (chunk: Uint8Array): void => {
    let at = 0;
    while (at < chunk.length) {
      if (payload === undefined) {
        const missing = HEADER_BYTES - headerBytes;
        for (const end = Math.min(chunk.length, at + missing); at < end;) {
          header[headerBytes++] = chunk[at++]!;
        }
        if (headerBytes < HEADER_BYTES) return;
        const length = view.getUint32(0);
        if (chunk.length - at >= length) {
          headerBytes = 0;
          take(view.getUint32(4), chunk.subarray(at, at += length));
          continue;
        }
        payload = new Uint8Array(length);
        have = 0;
      }
      const part = chunk.subarray(at, at + payload.length - have);
      payload.set(part, have);
      have += part.length;
      at += part.length;
      if (have < payload.length) return;
      const whole = payload;
      payload = undefined;
      headerBytes = 0;
      take(view.getUint32(4), whole);
    }
  };
}

export const raw: Stack = {
  name: "raw",
  peer: false,
  serve: (path) =>
    wires().listen(path, (wire) => {
      const writer = new FrameWriter(wire);
      return frameReader((id, payload) => writer.send(id, payload));
    }),
  async connect(path) {
    const waiting = new Map<number, (payload: Uint8Array) => void>();
    let writer: FrameWriter;
    let nextId = 0;
    await wires().connect(path, (wire) => {
      writer = new FrameWriter(wire);
      return frameReader((id, payload) => {
        const resolve = waiting.get(id);
        waiting.delete(id);
        resolve?.(payload);
      });
    });
    return (data) =>
      new Promise((resolve) => {
        const id = nextId++;
        waiting.set(id, resolve);
        writer.send(id, data);
      });
  },
};
