/**
 * Takes records apart (spec-mux2: records).
 *
 * @module
 */
import type { OpenBox } from "../../adapters/aead.ts";
import type { Unpacker } from "../_receiver.ts";
import { MuxError } from "../errors.ts";
import { FrameReader, type FrameSink } from "./frame.ts";
import { type RecordKeys, RecordSplitter } from "./record.ts";

/** Takes what is in the records. What it throws ends the session. */
export interface RecordSink {
  /** A record of the peer, before its frames. */
  onRecord(): void;
  onData(id: number, payload: Uint8Array): void;
  onControl: FrameSink["onControl"];
}

const NOTHING = new Uint8Array(0);

export class RecordUnpacker implements Unpacker, FrameSink {
  bytes = 0;
  readonly onControl: FrameSink["onControl"];
  readonly #keys: RecordKeys;
  readonly #sink: RecordSink;
  readonly #splitter = new RecordSplitter();
  readonly #reader = new FrameReader();
  #records = 0;
  /** Where the record that is being read ends, and whether it had data before. */
  #end = 0;
  #hadData = false;

  constructor(keys: RecordKeys, sink: RecordSink) {
    this.#keys = keys;
    this.#sink = sink;
    this.onControl = (type, id, first, second) => sink.onControl(type, id, first, second);
  }

  get partial(): boolean {
    return this.#splitter.partial;
  }

  get frames(): number {
    return this.#reader.frames;
  }

  split(chunk: Uint8Array): { readonly boxes: readonly OpenBox[]; readonly broken?: unknown } {
    const records: Uint8Array[] = [];
    let broken: unknown;
    try {
      this.#splitter.push(chunk, records);
    } catch (error) {
      broken = error;
    }
    const boxes = records.map((input) => ({
      ...this.#keys.next(input.length),
      aad: NOTHING,
      input,
    }));
    return { boxes, broken };
  }

  accept(_: number, plain: Uint8Array | undefined): void {
    if (plain === undefined) {
      // Keys, counters and direction are in it, so that it may also be a good one in the wrong place.
      const text = this.#records === 0
        ? "the first record cannot be opened: it is forged, or of another session"
        : "a record is forged, damaged, or not the next one";
      throw new MuxError("auth-failed", text);
    }
    this.#records++;
    this.#end = plain.byteOffset + plain.length;
    this.#hadData = false;
    this.#sink.onRecord();
    this.#reader.read(plain, this);
  }

  /**
   * Data that fill their record are passed on as a view of it. All others are copied: the memory of a stream is nobody else's, and a few
   * bytes keep no long record alive.
   */
  onData(id: number, payload: Uint8Array): void {
    this.bytes += payload.length;
    const alone = !this.#hadData && payload.byteOffset + payload.length === this.#end;
    this.#hadData = true;
    const fills = alone && 2 * payload.length > payload.buffer.byteLength;
    this.#sink.onData(id, fills ? payload : new Uint8Array(payload));
  }
}
