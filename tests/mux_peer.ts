/** A peer that a test plays frame by frame. Like gomux it takes a random nonce for each frame, and grants what it has read at once. */
import { concat } from "@std/bytes";
import type { Conn } from "@trunkline/sockets/auto";
import { FLAG, type Frame, FrameDecoder, type MuxStats, sealFrame } from "@trunkline/sockets/mux";

export type Fields = Parameters<typeof sealFrame>[0];

/** The names that the recordings give to the frames that end something. */
export const CLOSE_NAMES: ReadonlyMap<number, string> = new Map([
  [FLAG.CLOSE_READ, "CloseRead"],
  [FLAG.CLOSE_WRITE, "CloseWrite"],
  [FLAG.CLOSE_STREAM, "CloseStream"],
]);

/** What came of one stream. */
export interface Seen {
  opened: boolean;
  readonly data: Uint8Array[];
  bytes: number;
  /** Sum of its window updates. */
  credit: number;
  /** The frames that ended something, by name and in order. */
  readonly closes: string[];
}

export class Peer {
  /** All that came. */
  readonly frames: Frame[] = [];
  /** False: what comes is not granted again until `grant()` says so. */
  granting = true;
  /** True after the end of the transport, in order or not. */
  ended = false;
  /** True if the farewell of the session came. */
  farewell = false;
  readonly conn: Conn;
  readonly #key: Uint8Array;
  readonly #streams = new Map<number, Seen>();
  /** Bytes to write next. */
  readonly #cut: () => number;
  #sending: Promise<void> = Promise.resolve();
  #taken = 0;
  #wake: (() => void)[] = [];

  /** `cut` tells how large each piece of what is sent becomes. */
  constructor(conn: Conn, key: Uint8Array, cut: () => number = () => Infinity) {
    this.conn = conn;
    this.#key = key;
    this.#cut = cut;
    this.#read();
  }

  async #read(): Promise<void> {
    const decoder = new FrameDecoder(this.#key);
    try {
      for (let chunk = await this.conn.read(); chunk; chunk = await this.conn.read()) {
        for (const frame of decoder.push(chunk)) this.#onFrame(frame);
        this.#changed();
      }
    } catch {
      // The session gave the transport up.
    }
    this.ended = true;
    this.#changed();
    // As gomux does, once what it had to say is said.
    await this.#sending;
    await this.conn.close().catch(() => {});
  }

  #onFrame(frame: Frame): void {
    this.frames.push(frame);
    const { id, flags, length, payload } = frame;
    const seen = this.seen(id);
    if (flags === FLAG.OPEN_STREAM) seen.opened = true;
    else if (flags === FLAG.WINDOW_UPDATE) seen.credit += length;
    else if (flags === FLAG.CLOSE_MUX) this.farewell = true;
    else if (flags === FLAG.DATA) {
      seen.data.push(payload);
      seen.bytes += payload.length;
      if (this.granting) this.send({ id, flags: FLAG.WINDOW_UPDATE, length });
    } else if (CLOSE_NAMES.has(flags)) seen.closes.push(CLOSE_NAMES.get(flags)!);
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  seen(id: number): Seen {
    let seen = this.#streams.get(id);
    if (seen === undefined) {
      this.#streams.set(id, seen = { opened: false, data: [], bytes: 0, credit: 0, closes: [] });
    }
    return seen;
  }

  received(id: number): Uint8Array {
    return concat(this.seen(id).data);
  }

  /** Sends a frame with a nonce of its own. */
  send(fields: Fields): Promise<void> {
    return this.sendRaw(sealFrame(fields, this.#key, crypto.getRandomValues(new Uint8Array(24))));
  }

  /** Sends any bytes. A session that is gone does not take them, which is no business of the peer. */
  sendRaw(bytes: Uint8Array): Promise<void> {
    return this.#sending = this.#sending.then(async () => {
      for (let at = 0; at < bytes.length;) {
        const piece = bytes.slice(at, at + this.#cut());
        at += piece.length;
        await this.conn.write(piece);
      }
    }).catch(() => {});
  }

  /** Grants so much, in frames as large as gomux takes them. */
  async grant(id: number, bytes: number): Promise<void> {
    for (let left = bytes; left > 0; left -= 65536) {
      await this.send({ id, flags: FLAG.WINDOW_UPDATE, length: Math.min(left, 65536) });
    }
  }

  /** Waits until `condition` holds; fails if the transport ends before. */
  async until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      if (this.ended) throw new Error(`the session ended before ${what}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** The next frame that is neither a keepalive nor a grant, or that has `flags`. */
  async expect(flags?: number): Promise<Frame> {
    const quiet: number[] = [FLAG.KEEPALIVE, FLAG.WINDOW_UPDATE];
    const wanted = (frame: Frame) =>
      flags === undefined ? !quiet.includes(frame.flags) : frame.flags === flags;
    for (;;) {
      await this.until(() => this.frames.length > this.#taken, `a frame with flags ${flags}`);
      const frame = this.frames[this.#taken++]!;
      if (wanted(frame)) return frame;
    }
  }

  /** Waits for the end of the transport. */
  async end(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }
}

/** What is left in a session that is over. */
export function leftovers(stats: MuxStats): Partial<MuxStats> {
  const { streams, pendingOpens, waitingOpens } = stats;
  return { streams, pendingOpens, waitingOpens };
}

/** None. */
export const NOTHING_LEFT: Partial<MuxStats> = { streams: 0, pendingOpens: 0, waitingOpens: 0 };

/** Pseudo-random numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
