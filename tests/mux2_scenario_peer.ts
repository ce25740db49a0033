/** A peer of v2 that a test plays frame by frame. It grants what it has read at once and answers pings and the farewell, unless it is told not to. */
import { concat } from "@std/bytes";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { type client, type Mux, type MuxOptions, server } from "@trunkline/sockets/mux";
import { Head } from "../mux/_head.ts";
import { configOf } from "../mux/config.ts";
import { FrameReader, numberBytes, TYPE, writeControl, writeDataHeader } from "../mux/v2/frame.ts";
import { type Agreed, shakeHands } from "../mux/v2/handshake.ts";
import { RecordSplitter } from "../mux/v2/record.ts";
import { open, seal } from "../mux/v2/suite.ts";
import { PSK } from "./mux_pair.ts";

export { TYPE };

/** One that came. */
export interface Frame {
  readonly type: number;
  readonly id: number;
  readonly first: number;
  readonly second: number;
  readonly payload: Uint8Array;
}

/** What came of one stream. */
export interface Seen {
  opened: boolean;
  readonly data: Uint8Array[];
  bytes: number;
  /** Sum of its grants. */
  credit: number;
  /** Types of the frames that ended something, in order. */
  readonly ends: number[];
}

const NOTHING = new Uint8Array(0);
const ENDS: readonly number[] = [TYPE.FIN, TYPE.STOP, TYPE.CLOSE, TYPE.RESET];

/** A frame without data. */
export function control(type: number, id: number, ...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(32);
  return bytes.slice(0, writeControl(bytes, 0, type, id, values));
}

export function data(id: number, payload: Uint8Array): Uint8Array {
  const header = new Uint8Array(1 + numberBytes(id) + numberBytes(payload.length));
  writeDataHeader(header, 0, id, payload.length);
  return concat([header, payload]);
}

export class Peer {
  /** All that came. */
  readonly frames: Frame[] = [];
  /** False: what comes is not granted again until a test says so. */
  granting = true;
  /** False: pings are not answered, nor is the farewell. */
  answering = true;
  /** True after the end of the transport, in order or not. */
  ended = false;
  readonly conn: Conn;
  readonly #keys: Agreed;
  readonly #streams = new Map<number, Seen>();
  /** Bytes to write next. */
  readonly #cut: () => number;
  #sealed = 0;
  #opened = 0;
  #sending: Promise<void> = Promise.resolve();
  #taken = 0;
  #saidFarewell = false;
  #wake: (() => void)[] = [];

  constructor(conn: Conn, keys: Agreed, cut: () => number = () => Infinity) {
    this.conn = conn;
    this.#keys = keys;
    this.#cut = cut;
  }

  /** From now on; before, the transport takes nothing. */
  async read(head: Uint8Array = NOTHING): Promise<void> {
    const splitter = new RecordSplitter();
    const reader = new FrameReader();
    const take = (chunk: Uint8Array) => {
      const records: Uint8Array[] = [];
      splitter.push(chunk, records);
      const { suite, receiveKey } = this.#keys;
      for (const record of records) {
        const plain = open(suite, receiveKey, this.#opened++, NOTHING, record);
        if (plain === undefined) throw new Error("the session has sent what cannot be opened");
        reader.read(plain, {
          onData: (id, payload) =>
            this.#onFrame({ type: TYPE.DATA, id, first: 0, second: 0, payload }),
          onControl: (type, id, first, second) =>
            this.#onFrame({ type, id, first, second, payload: NOTHING }),
        });
      }
      this.#changed();
    };
    try {
      if (head.length > 0) take(head);
      for (let chunk = await this.conn.read(); chunk; chunk = await this.conn.read()) take(chunk);
    } catch {
      // The session gave the transport up.
    }
    this.ended = true;
    this.#changed();
    // Otherwise the test has still something to say.
    if (!this.answering) return;
    await this.#sending;
    await this.conn.close().catch(() => {});
  }

  #onFrame(frame: Frame): void {
    this.frames.push(frame);
    const { type, id, first, payload } = frame;
    if (type === TYPE.PING && this.answering) this.send(control(TYPE.PONG, 0, first));
    if (type === TYPE.END && first === 0 && this.answering) this.sayFarewell();
    if (type === TYPE.OPEN) this.seen(id).opened = true;
    else if (type === TYPE.WINDOW) this.seen(id).credit += first;
    else if (ENDS.includes(type)) this.seen(id).ends.push(type);
    else if (type === TYPE.DATA) {
      const seen = this.seen(id);
      seen.data.push(payload.slice());
      seen.bytes += payload.length;
      if (this.granting) this.send(control(TYPE.WINDOW, id, payload.length));
    }
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  seen(id: number): Seen {
    let seen = this.#streams.get(id);
    if (seen === undefined) {
      this.#streams.set(id, seen = { opened: false, data: [], bytes: 0, credit: 0, ends: [] });
    }
    return seen;
  }

  received(id: number): Uint8Array {
    return concat(this.seen(id).data);
  }

  /** True if the farewell of the session came. */
  get farewell(): boolean {
    return this.count(TYPE.END) > 0;
  }

  count(type: number): number {
    return this.frames.filter((frame) => frame.type === type).length;
  }

  /** The record of some frames. */
  seal(...frames: readonly Uint8Array[]): Uint8Array {
    const { suite, sendKey } = this.#keys;
    const sealed = seal(suite, sendKey, this.#sealed++, NOTHING, concat(frames));
    return concat([Uint8Array.of(sealed.length >> 8, sealed.length), sealed]);
  }

  /** Sends a record with some frames. */
  send(...frames: readonly Uint8Array[]): Promise<void> {
    return this.sendRaw(this.seal(...frames));
  }

  /** Says that it has everything, or wants no more; once. */
  sayFarewell(): Promise<void> {
    if (this.#saidFarewell) return this.#sending;
    this.#saidFarewell = true;
    return this.send(control(TYPE.END, 0, 0, 0));
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

  /** Waits until `condition` holds; fails if the transport ends before. */
  async until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      if (this.ended) throw new Error(`the session ended before ${what}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** The next frame of a type, behind the one that was expected last. */
  async expect(type: number): Promise<Frame> {
    for (;;) {
      await this.until(() => this.frames.length > this.#taken, `a frame of type ${type}`);
      const frame = this.frames[this.#taken++]!;
      if (frame.type === type) return frame;
    }
  }

  /** Waits for the end of the transport. */
  async end(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }
}

export interface Meeting {
  readonly mux: Mux;
  readonly peer: Peer;
}

export interface MeetOptions extends Partial<MuxOptions> {
  /** The two ends of the transport. */
  readonly conns?: readonly [Conn, Conn];
  /** False: the peer reads nothing behind the handshake, until it is told to. */
  readonly reading?: boolean;
  /** Bytes that the peer writes next. */
  readonly cut?: () => number;
}

/** A session and its peer, behind the handshake. */
export async function meet(role: typeof client, options: MeetOptions = {}): Promise<Meeting> {
  const { conns = connPair({ lingerMs: 500 }), reading = true, cut, ...rest } = options;
  const [near, far] = conns;
  const mux = role(near, { psk: PSK, protocol: "v2", ...rest });
  const head = new Head(far);
  const isClient = role === server;
  const config = configOf({ psk: PSK, protocol: "v2", suites: rest.suites }, isClient);
  const peer = new Peer(far, await shakeHands(far, isClient, config, head), cut);
  if (reading) peer.read(head.rest.slice());
  // The first record of a client is what a server waits for.
  if (isClient) peer.send(control(TYPE.PING, 0, 7));
  await mux.ready;
  return { mux, peer };
}
