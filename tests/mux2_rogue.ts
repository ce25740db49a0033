/** A peer of a v2 session that has the psk, and that a test plays record by record: it need not keep to any rule. */
import { concat } from "@std/bytes";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { client, type Mux, type MuxOptions, nobleAead, server } from "@trunkline/sockets/mux";
import { FrameReader, TYPE, writeControl, writeDataHeader, writeNumber } from "../mux/v2/frame.ts";
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
import { Handshake } from "../mux/v2/noise.ts";
import { RecordKeys } from "../mux/v2/record.ts";
import { PSK, utf8 } from "./mux_pair.ts";
import { cutter } from "./mux2_relay.ts";

const SUITE = "ChaChaPoly_BLAKE2b";
const HELLO = Uint8Array.of(...utf8("MUX2"), 1, 1, 0xff, 0xff);
const NOTHING = new Uint8Array(0);
const AFTER = { records: 65536, bytes: 2 ** 30 };

/** A frame without data. */
export function frame(type: number, id: number, ...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(64);
  return bytes.slice(0, writeControl(bytes, 0, type, id, values));
}

/** A frame of data, of which there may be none. */
export function dataFrame(id: number, data: Uint8Array): Uint8Array {
  const header = new Uint8Array(16);
  return concat([header.slice(0, writeDataHeader(header, 0, id, data.length)), data]);
}

/** Numbers, as settings have them. */
export function numbers(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(5 * values.length);
  let at = 0;
  for (const value of values) at = writeNumber(bytes, at, value);
  return bytes.slice(0, at);
}

/** A frame that came; of data its bytes. */
export interface Came {
  readonly type: number;
  readonly id: number;
  readonly first: number;
  readonly second: number;
  readonly data: Uint8Array;
}

export class RoguePeer {
  /** All that came. */
  readonly frames: Came[] = [];
  /** The settings of the session, as it has told them. */
  settings: Uint8Array = NOTHING;
  /** True after the end of the transport, in order or not. */
  ended = false;
  readonly conn: Conn;
  #send!: RecordKeys;
  #receive!: RecordKeys;
  #wake: (() => void)[] = [];
  readonly #parts: Uint8Array[] = [];
  readonly #cut: (chunk: Uint8Array) => Uint8Array[];
  readonly #isClient: boolean;

  constructor(conn: Conn, isClient: boolean) {
    this.conn = conn;
    this.#isClient = isClient;
    this.#cut = cutter("v2", isClient ? 1 : 0);
  }

  /** The handshake of NNpsk0, with `settings` as ours. */
  async shakeHands(settings: Uint8Array = NOTHING): Promise<void> {
    const initiator = this.#isClient;
    const prologue = concat([utf8("trunkline mux v2"), HELLO]);
    const psk = deriveNoisePsk(utf8(PSK));
    const noise = new Handshake({ pattern: "NNpsk0", suite: SUITE, initiator, prologue, psk });
    const write = async () => {
      const message = await noise.writeMessage(settings);
      const length = Uint8Array.of(message.length >> 8, message.length);
      await this.conn.write(concat([initiator ? HELLO : NOTHING, length, message]));
    };
    if (initiator) await write();
    else await this.#part();
    this.settings = await noise.readMessage((await this.#part())!.subarray(2));
    if (!initiator) await write();
    const keys = noise.split();
    this.#send = new RecordKeys(SUITE, keys.send, AFTER);
    this.#receive = new RecordKeys(SUITE, keys.receive, AFTER);
  }

  async #part(): Promise<Uint8Array | undefined> {
    while (this.#parts.length === 0) {
      const chunk = await this.conn.read();
      if (chunk === null) return undefined;
      this.#parts.push(...this.#cut(chunk));
    }
    return this.#parts.shift();
  }

  /** Reads to the end, answering pings and a farewell. Not to call it is to read nothing. */
  async run(): Promise<void> {
    const reader = new FrameReader();
    const came = (more: Partial<Came>) =>
      this.frames.push({ type: 0, id: 0, first: 0, second: 0, data: NOTHING, ...more });
    try {
      for (let part = await this.#part(); part; part = await this.#part()) {
        const input = part.subarray(2);
        const [plain] = await nobleAead.open([
          { ...this.#receive.next(input.length), aad: NOTHING, input },
        ]);
        reader.read(plain!, {
          onData: (id, data) => void came({ type: TYPE.DATA, id, data: data.slice() }),
          onControl: (type, id, first, second) => {
            came({ type, id, first, second });
            const answer = type === TYPE.PING
              ? frame(TYPE.PONG, 0, first)
              : type === TYPE.END && first === 0
              ? frame(TYPE.END, 0, 0, 0)
              : undefined;
            if (answer !== undefined) this.send(answer).catch(() => {});
          },
        });
        for (const wake of this.#wake.splice(0)) wake();
      }
    } catch {
      // The session has given the transport up.
    }
    this.ended = true;
    for (const wake of this.#wake.splice(0)) wake();
    await this.conn.close().catch(() => {});
  }

  /** A record, sealed as the next one, of any plaintext. */
  seal(plain: Uint8Array): Uint8Array {
    const record = new Uint8Array(2 + plain.length + 16);
    record[0] = record.length - 2 >> 8;
    record[1] = record.length - 2;
    const keys = this.#send.next(record.length - 2);
    nobleAead.seal([{ ...keys, aad: NOTHING, input: plain, output: record.subarray(2) }]);
    return record;
  }

  /** Sends the frames in one record. */
  async send(...frames: readonly Uint8Array[]): Promise<void> {
    await this.conn.write(this.seal(concat(frames)));
  }

  /** Waits for a frame that came. */
  async came(type: number, id: number = 0): Promise<Came> {
    for (;;) {
      const found = this.frames.find((it) => it.type === type && it.id === id);
      if (found !== undefined) return found;
      if (this.ended) throw new Error(`the session ended before a frame of type ${type}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }
}

/** A session, and its peer behind the handshake. */
export async function peered(
  isClient: boolean,
  options: Partial<MuxOptions> = {},
  settings: Uint8Array = NOTHING,
): Promise<{ mux: Mux; peer: RoguePeer; theirs: number }> {
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = (isClient ? client : server)(near, { psk: PSK, protocol: "v2", ...options });
  const peer = new RoguePeer(far, !isClient);
  await peer.shakeHands(settings);
  // The first number of the peer's streams.
  return { mux, peer, theirs: isClient ? 1 : 0 };
}
