/**
 * Decides what is sent next, seals it and writes it: control frames first, then the streams in turn, each with one frame.
 *
 * @module
 */
import type { Aead, SealBox } from "../adapters/aead.ts";
import type { Conn } from "../adapters/types.ts";
import type { MuxError } from "./errors.ts";
import {
  FLAG,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  NONCE_OFFSET,
  TAG_BYTES,
  writeUint32,
} from "./frame.ts";
import { subkey } from "./key.ts";
import { Queue } from "../adapters/queue.ts";

/** Whoever waits for something to be sent. */
export interface Settle {
  resolve(): void;
  reject(error: MuxError): void;
}

/** A stream, as the sender sees it. */
export interface Source {
  readonly id: number;
  /** Set and cleared by the sender. */
  readyToSend: boolean;
  /** Set and cleared by the sender. */
  creditQueued: boolean;
  /** At most `most` bytes to send now, undefined if there are none. The writes that are taken whole with it are added to `taken`. */
  takeData(most: number, taken: Settle[]): Uint8Array | undefined;
  /** True if there is more to send now. */
  readonly hasData: boolean;
  /** The increment to grant, undefined if there is none any more. */
  takeCredit(): number | undefined;
}

/** Bytes of frames that are sealed and written at once: as many as gomux writes. */
const BATCH_BYTES = 9 * (HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES);
/** Bytes of a nonce that stay the same in one direction of a session; the rest counts frames. */
export const NONCE_PREFIX_BYTES = 16;
/** How the prefixes of this package begin, so that a receiver knows from the first frame on that they are counted from 0. */
export const NONCE_MARK: Uint8Array = new TextEncoder().encode("count0");

const NOTHING = new Uint8Array(0);

/** A frame that waits. */
interface Outgoing {
  readonly id: number;
  readonly flags: number;
  readonly length: number;
  readonly payload: Uint8Array;
  readonly answer?: boolean;
}

export class Sender {
  /** Our own nonces begin with it; coming back, it proves reflection. */
  readonly prefix: Uint8Array;
  lastWriteAt: number = performance.now();
  frames = 0;
  bytes = 0;
  writes = 0;
  queuedAnswers = 0;
  readonly #conn: Conn;
  readonly #key: Uint8Array;
  readonly #aead: Promise<Aead>;
  readonly #onError: (error: unknown) => void;
  readonly #controls = new Queue<Outgoing>();
  readonly #creditors = new Queue<Source>();
  readonly #ready = new Queue<Source>();
  /** Two, since one is sealed while the other is written. */
  readonly #buffers: Uint8Array[] = [NOTHING, NOTHING];
  #running = false;
  #stopped = false;
  /** The writes of the batch that is being sealed. */
  #taken: Settle[] = [];
  #whenIdle: (() => void)[] = [];

  constructor(conn: Conn, key: Uint8Array, aead: Promise<Aead>, onError: (error: unknown) => void) {
    this.#conn = conn;
    this.prefix = crypto.getRandomValues(new Uint8Array(NONCE_PREFIX_BYTES));
    this.prefix.set(NONCE_MARK);
    this.#key = subkey(key, this.prefix);
    this.#aead = aead;
    this.#onError = onError;
  }

  /** `answer` for a frame that the peer has provoked, which are counted while they wait. */
  control(id: number, flags: number, answer: boolean): void {
    if (answer) this.queuedAnswers++;
    this.#controls.push({ id, flags, length: 0, payload: NOTHING, answer });
    this.#start();
  }

  credit(source: Source): void {
    if (source.creditQueued) return;
    source.creditQueued = true;
    this.#creditors.push(source);
    this.#start();
  }

  data(source: Source): void {
    if (source.readyToSend) return;
    source.readyToSend = true;
    this.#ready.push(source);
    this.#start();
  }

  /** Forgets a stream that has nothing to send any more; it may be many that wait for a transport which takes nothing. */
  leave(source: Source): void {
    if (source.creditQueued) this.#creditors.remove(source);
    if (source.readyToSend) this.#ready.remove(source);
    source.creditQueued = source.readyToSend = false;
  }

  /** Resolves when all that waits is with the transport; never, if that fails or `stop()` is called. */
  idle(): Promise<void> {
    if (!this.#running) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** Sends nothing more; who waits is told `error`. */
  stop(error: MuxError): void {
    this.#stopped = true;
    for (const write of this.#taken.splice(0)) write.reject(error);
    for (const queue of [this.#controls, this.#creditors, this.#ready]) queue.clear();
  }

  #start(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    // After what else happens in this turn: many small writes become one.
    queueMicrotask(() => this.#run().catch((error) => this.#onError(error)));
  }

  async #run(): Promise<void> {
    const aead = await this.#aead;
    let writing: Promise<void> | undefined;
    for (let turn = 0;; turn ^= 1) {
      const batch = this.#collect();
      if (batch.length === 0) {
        await writing;
        if (this.#controls.length + this.#creditors.length + this.#ready.length > 0) continue;
        break;
      }
      const bytes = this.#layOut(batch, turn);
      const sealing = aead.seal(bytes.boxes);
      if (sealing !== undefined) await sealing;
      await writing;
      if (this.#stopped) return;
      this.lastWriteAt = performance.now();
      this.writes++;
      writing = this.#conn.write(bytes.whole);
      // Awaited above, a batch later.
      writing.catch(() => {});
      for (const write of this.#taken.splice(0)) write.resolve();
    }
    this.#running = false;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** The frames of the next batch. */
  #collect(): Outgoing[] {
    const batch: Outgoing[] = [];
    let room = BATCH_BYTES;
    while (room >= HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES) {
      const frame = this.#next();
      if (frame === undefined) break;
      batch.push(frame);
      room -= HEADER_BYTES + frame.payload.length + TAG_BYTES;
    }
    return batch;
  }

  #next(): Outgoing | undefined {
    // In this order: the frame that ends a stream is queued when its last data are taken.
    const control = this.#controls.shift();
    if (control !== undefined) {
      if (control.answer) this.queuedAnswers--;
      return control;
    }
    for (let source = this.#creditors.shift(); source; source = this.#creditors.shift()) {
      source.creditQueued = false;
      const length = source.takeCredit();
      if (length === undefined) continue;
      return { id: source.id, flags: FLAG.WINDOW_UPDATE, length, payload: NOTHING };
    }
    for (let source = this.#ready.shift(); source; source = this.#ready.shift()) {
      source.readyToSend = false;
      const payload = source.takeData(MAX_PAYLOAD_BYTES, this.#taken);
      if (source.hasData) {
        source.readyToSend = true;
        this.#ready.push(source);
      }
      if (payload === undefined) continue;
      return { id: source.id, flags: FLAG.DATA, length: payload.length, payload };
    }
    return undefined;
  }

  /** Writes the headers; what is to be sealed, and the whole of it. */
  #layOut(
    batch: readonly Outgoing[],
    turn: number,
  ): { readonly boxes: SealBox[]; readonly whole: Uint8Array } {
    let size = 0;
    for (const { payload } of batch) size += HEADER_BYTES + payload.length + TAG_BYTES;
    if (this.#buffers[turn]!.length < size) this.#buffers[turn] = new Uint8Array(roomFor(size));
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

/** Doubled until it fits, so that a session that sends little holds little. */
function roomFor(size: number): number {
  let room = 512;
  while (room < size) room *= 2;
  return Math.min(room, Math.max(size, BATCH_BYTES));
}
