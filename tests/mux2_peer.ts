/** A peer of a v2 session that a test plays frame by frame, on an implementation of its own. */
import { concat } from "@std/bytes";
import type { Conn } from "@trunkline/sockets/auto";
import {
  frame,
  type FrameName,
  framesOf,
  HELLO_NUMBERS,
  type NoiseParameters,
  NoiseTwin,
  numbers,
  type PatternName,
  RecordTwin,
  settingsMap,
  type SuiteName,
  type TwinFrame,
} from "./mux2_reader.ts";
import { utf8 } from "./mux_pair.ts";

export const PSK2 = "a psk of 32 bytes, more or less ";

export interface PeerOptions {
  readonly pattern?: PatternName;
  readonly suite?: SuiteName;
  readonly psk?: string;
  /** Our static key. */
  readonly privateKey?: Uint8Array;
  /** Pairs of numbers. */
  readonly settings?: readonly number[];
}

/** Of `options`, for the side that is played. */
function parametersOf(isClient: boolean, options: PeerOptions): NoiseParameters {
  const { pattern = "NNpsk0", suite = "ChaChaPoly_BLAKE2b", psk = PSK2, privateKey } = options;
  const ours = { sPrivate: privateKey };
  return { pattern, suite, psk: utf8(psk), ...(isClient ? { client: ours } : { server: ours }) };
}

/** Bytes, as they are asked for. */
class Bytes {
  readonly #conn: Conn;
  #held: Uint8Array = new Uint8Array(0);

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /** Exactly so many; undefined if the transport ends before. */
  async take(count: number): Promise<Uint8Array | undefined> {
    while (this.#held.length < count) {
      const chunk = await this.#conn.read().catch(() => null);
      if (chunk === null) return undefined;
      this.#held = concat([this.#held, chunk]);
    }
    const taken = this.#held.slice(0, count);
    this.#held = this.#held.subarray(count);
    return taken;
  }

  /** What has a length in front. */
  async piece(): Promise<Uint8Array | undefined> {
    const length = await this.take(2);
    return length && await this.take(length[0]! << 8 | length[1]!);
  }
}

const withLength = (bytes: Uint8Array) =>
  concat([Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes]);

export class Peer2 {
  readonly conn: Conn;
  /** What the session has told of itself. */
  theirs: ReadonlyMap<number, number> = new Map();
  /** Its identity. */
  theirKey: Uint8Array | undefined;
  /** The plaintexts of its records. */
  readonly plains: Uint8Array[] = [];
  /** All its frames. */
  readonly frames: TwinFrame[] = [];
  ended = false;
  /** Whether pings are answered, and data granted again at once. */
  answering = true;
  /** Whether a farewell is answered by one. */
  polite = true;
  readonly #bytes: Bytes;
  #out!: RecordTwin;
  #in!: RecordTwin;
  #sending: Promise<void> = Promise.resolve();
  #taken = 0;
  #wake: (() => void)[] = [];

  private constructor(conn: Conn) {
    this.conn = conn;
    this.#bytes = new Bytes(conn);
  }

  /** Plays the client, up to the end of the handshake. It has said nothing then that shows that it is live. */
  static async client(conn: Conn, options: PeerOptions = {}): Promise<Peer2> {
    const peer = new Peer2(conn);
    const parameters = parametersOf(true, options);
    const twin = new NoiseTwin(parameters);
    const settings = numbers(...options.settings ?? []);
    const nn = parameters.pattern === "NNpsk0";
    const first = twin.write(nn ? settings : new Uint8Array(0));
    await conn.write(concat([twin.hello, withLength(first)]));
    const answer = await peer.#bytes.piece();
    if (answer === undefined) throw new Error("no answer to the handshake");
    peer.theirs = settingsMap(twin.read(answer));
    if (!nn) await conn.write(withLength(twin.write(settings)));
    peer.#begin(twin, parameters.suite, options, true);
    return peer;
  }

  /** Plays the server. */
  static async server(conn: Conn, options: PeerOptions = {}): Promise<Peer2> {
    const peer = new Peer2(conn);
    const hello = await peer.#bytes.take(8);
    const [pattern, suite] = HELLO_NUMBERS[hello![5]! - 1]!;
    const twin = new NoiseTwin(parametersOf(false, { ...options, pattern, suite }));
    if (hello!.join() !== twin.hello.join()) throw new Error(`another hello: ${hello}`);
    const first = twin.read((await peer.#bytes.piece())!);
    await conn.write(withLength(twin.write(numbers(...options.settings ?? []))));
    const last = pattern === "NNpsk0" ? first : twin.read((await peer.#bytes.piece())!);
    peer.theirs = settingsMap(last);
    peer.#begin(twin, suite, options, false);
    return peer;
  }

  #begin(twin: NoiseTwin, suite: SuiteName, options: PeerOptions, isClient: boolean): void {
    const [client, server] = twin.split();
    const ours = settingsMap(numbers(...options.settings ?? []));
    this.#out = new RecordTwin(suite, isClient ? client : server, ours);
    this.#in = new RecordTwin(suite, isClient ? server : client, this.theirs);
    this.theirKey = isClient ? twin.server.sPublic : twin.client.sPublic;
    this.#read();
  }

  async #read(): Promise<void> {
    for (;;) {
      const record = await this.#bytes.piece();
      if (record === undefined) break;
      const plain = this.#in.open(record);
      this.plains.push(plain);
      for (const it of framesOf(plain)) {
        this.frames.push(it);
        if (it.type === "END" && it.values[0] === 0 && this.polite) {
          this.send(frame("END", 0, [0, 0]));
        }
        if (!this.answering) continue;
        if (it.type === "PING") this.send(frame("PONG", 0, it.values));
        if (it.type === "DATA") this.send(frame("WINDOW", it.id, [it.body.length]));
      }
      this.#changed();
    }
    this.ended = true;
    this.#changed();
    // As who is told of an end.
    await this.#sending;
    await this.conn.close().catch(() => {});
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** Sends a record with these frames. A session that is gone does not take it, which is no business of the peer. */
  send(...frames: readonly Uint8Array[]): Promise<void> {
    const record = this.#out.seal(concat(frames));
    return this.#sending = this.#sending.then(() => this.conn.write(record)).catch(() => {});
  }

  /** The next frame of that type, which is left out from then on together with all before it. */
  async expect(type: FrameName): Promise<TwinFrame> {
    for (;;) {
      while (this.#taken < this.frames.length) {
        const it = this.frames[this.#taken++]!;
        if (it.type === type) return it;
      }
      if (this.ended) throw new Error(`the session ended before ${type}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Waits until `condition` holds; fails if the transport ends before. */
  async until(condition: () => boolean, what: string): Promise<void> {
    while (!condition()) {
      if (this.ended) throw new Error(`the session ended before ${what}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Waits for the end of the transport. */
  async end(): Promise<void> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** The bytes of a stream so far. */
  received(id: number): Uint8Array {
    return concat(
      this.frames.filter((it) => it.type === "DATA" && it.id === id).map((it) => it.body),
    );
  }
}
