/** Both halves of calls in pieces, joined by a pair of senders over lines that are as slow and as choppy as a seed makes them. */
import { assert } from "@std/assert";
import type { Conn } from "../adapters/types.ts";
import { decodeChunk, decodeWindow, TYPE } from "../uds/_extension.ts";
import { Assembly, ReceiveHalf } from "../uds/_receive_half.ts";
import { SendHalf, WINDOW_BYTES } from "../uds/_send_half.ts";
import { Sender } from "../uds/_sender.ts";
import { ClientMsgDecoder, type MessageDecoder, ServerMsgDecoder } from "../uds/decoder.ts";
import type { ClientMsg, ServerMsg } from "../uds/message.ts";

/** Nothing, some microtasks, or a turn. */
export async function pause(random: () => number): Promise<void> {
  const luck = random();
  if (luck < 0.05) await new Promise((resolve) => setTimeout(resolve, 0));
  else for (let left = luck * 8; left > 1; left--) await undefined;
}

/** A connection that can only be written to, and takes its time. What it takes is what the memory holds at the end of the write. */
export class SlowConn {
  /** Writes that were begun. */
  writes = 0;
  readonly #take: (bytes: Uint8Array) => void;
  readonly #random: () => number;
  #last: Promise<void> = Promise.resolve();

  constructor(random: () => number, take: (bytes: Uint8Array) => void) {
    this.#random = random;
    this.#take = take;
  }

  write(bytes: Uint8Array): Promise<void> {
    this.writes++;
    return this.#last = this.#last.then(async () => {
      await pause(this.#random);
      this.#take(bytes.slice());
    });
  }
}

/** As a Sender wants it. */
export function slowSender(conn: SlowConn, onError: (error: unknown) => void): Sender {
  return new Sender(conn as Partial<Conn> as Conn, onError);
}

/** Cuts bytes anywhere. */
export function* splits(bytes: Uint8Array, random: () => number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const most = random() < 0.5 ? 20 : 100_000;
    const part = bytes.slice(at, at + 1 + Math.floor(random() * most));
    at += part.length;
    yield part;
  }
}

/** One direction of a call. */
export interface Half {
  readonly send: SendHalf;
  readonly receive: ReceiveHalf;
  /** Bytes that came and were not granted again. */
  inFlight: number;
  /** Bytes that came in all. */
  arrived: number;
  /** Bytes of the message that is being put together. */
  partial: number;
}

/** A client that sends and a server that receives, of one connection. */
export class HalvesPair {
  readonly halves: Half[] = [];
  /** What went wrong in the middle. */
  error: unknown;
  /** The most bytes of messages that were not whole, of all calls together. */
  mostPartial = 0;

  constructor(
    calls: number,
    random: () => number,
    { maxMessage, maxBuffered }: { readonly maxMessage: number; readonly maxBuffered: number },
  ) {
    const connect = <M extends ClientMsg | ServerMsg>(
      decoder: MessageDecoder<M>,
      onMessage: (message: M) => void,
    ) => {
      const conn = new SlowConn(random, (bytes) => {
        try {
          for (const part of splits(bytes, random)) {
            for (const message of decoder.push(part)) onMessage(message);
          }
        } catch (error) {
          this.error ??= error;
        }
      });
      return slowSender(conn, (error) => this.error ??= error);
    };
    const options = { extensions: true };
    const [client, server]: readonly [Sender, Sender] = [
      connect(new ClientMsgDecoder(options), (message) => this.#onPiece(message)),
      connect(new ServerMsgDecoder(options), ({ id, data }) => {
        this.halves[Number(id)]!.send.grant(decodeWindow(data));
      }),
    ];
    const assembly = new Assembly(maxBuffered);
    for (let id = 0; id < calls; id++) {
      const half: Half = {
        send: new SendHalf(client, id, new Uint8Array(), WINDOW_BYTES),
        receive: new ReceiveHalf(
          // Told of each grant before it leaves.
          {
            send: (message: Parameters<Sender["send"]>[0]) => {
              half.inFlight -= decodeWindow(message.data);
              server.send(message);
            },
          } as Partial<Sender> as Sender,
          id,
          undefined,
          { maxMessage, assembly },
        ),
        inFlight: 0,
        arrived: 0,
        partial: 0,
      };
      this.halves.push(half);
    }
  }

  #onPiece({ id, type, data }: ClientMsg): void {
    const half = this.halves[Number(id)]!;
    if (type === TYPE.END) return half.receive.end();
    const [more, piece] = decodeChunk(data);
    half.inFlight += piece.length;
    half.arrived += piece.length;
    assert(half.inFlight <= WINDOW_BYTES, `${half.inFlight} bytes are in flight`);
    half.partial = more ? half.partial + piece.length : 0;
    const partial = this.halves.reduce((sum, { partial }) => sum + partial, 0);
    this.mostPartial = Math.max(this.mostPartial, partial);
    half.receive.push(piece, more);
  }
}
