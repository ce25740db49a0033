/**
 * From a stream of bytes to messages.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import { MAX_UVARINT_BYTES } from "./_uvarint.ts";
import { UdsError } from "./errors.ts";
import {
  type ClientMsg,
  decodeClientBody,
  type DecodeOptions,
  decodeServerBody,
  MIB,
  type ServerMsg,
} from "./message.ts";

/** The default of `maxMessage`. */
export const DEFAULT_MAX_MESSAGE: number = 64 * MIB;

/** A message that will stay: it must not hold the memory of all that was read together with it. */
export function kept(message: Uint8Array): Uint8Array {
  return message.length * 4 < message.buffer.byteLength ? message.slice() : message;
}

/** The default of `maxBuffered` for small ones: many calls at once are none too many. */
export const LEAST_BUFFERED: number = 16 * 1024 * 1024;

/** Options of the decoders. */
export interface DecoderOptions extends DecodeOptions {
  /** How large a message may be, in bytes without its size. @default 67108864 (64 MiB) */
  readonly maxMessage?: number | undefined;
}

/** Room for a message of which only the beginning is there; it doubles as more comes. */
const FIRST_ROOM = 4096;
/** A message of this size has all of its room at once: pieces of large ones are no larger. */
const WHOLE_ROOM = 68 * 1024;
const NOTHING = new Uint8Array();

/**
 * Cuts a stream into the bodies of messages, which are the caller's. It holds no more than twice of what has come of one message, whatever
 * size that claims.
 */
export class MessageSplitter {
  readonly #maxMessage: number;
  /** Of the size that is being read. */
  #size = 0;
  #sizeBytes = 0;
  /** The size of the message that is being read. */
  #need: number | undefined;
  /** What has come of it, in room for more. */
  #room: Uint8Array = new Uint8Array();
  #have = 0;

  /** @throws {RangeError} if `maxMessage` is not positive */
  constructor(maxMessage: number) {
    requireLimit("maxMessage", maxMessage);
    this.#maxMessage = maxMessage;
  }

  /** True in the middle of a message: a stream that ends here has lost something. */
  get partial(): boolean {
    return this.#sizeBytes > 0 || this.#need !== undefined;
  }

  /**
   * Takes the next bytes, which must not change any more, and puts what they complete into `bodies`, as views where it can. After an error it is of no use.
   *
   * @throws {UdsError} `protocol` or `too-large`
   */
  push(chunk: Uint8Array, bodies: Uint8Array[]): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#need === undefined) {
        this.#takeSizeByte(chunk[at++]!);
        if (this.#need === undefined) continue;
      }
      const need: number = this.#need;
      const part = chunk.subarray(at, at + need - this.#have);
      at += part.length;
      if (part.length === need) bodies.push(part);
      else if (!this.#gather(part, need)) return;
      else bodies.push(this.#room.subarray(0, need));
      this.#need = undefined;
      this.#have = 0;
      this.#room = NOTHING;
    }
  }

  #takeSizeByte(byte: number): void {
    const count = this.#sizeBytes++;
    if (count === MAX_UVARINT_BYTES - 1 && byte > 1) {
      throw new UdsError("protocol", "the size of a message has more than 64 bits");
    }
    this.#size += (byte & 0x7f) * 2 ** (7 * count);
    if (this.#size > this.#maxMessage) {
      const text = `a message of ${this.#size} bytes, and at most ${this.#maxMessage} are taken`;
      throw new UdsError("too-large", text);
    }
    if (byte >= 0x80) return;
    this.#need = this.#size;
    this.#size = this.#sizeBytes = 0;
  }

  /** True if the message is whole. */
  #gather(part: Uint8Array, need: number): boolean {
    const have = this.#have + part.length;
    if (have > this.#room.length) {
      const grown = Math.min(need, Math.max(FIRST_ROOM, 2 * have));
      const room = new Uint8Array(need <= WHOLE_ROOM ? need : grown);
      room.set(this.#room.subarray(0, this.#have));
      this.#room = room;
    }
    this.#room.set(part, this.#have);
    this.#have = have;
    return have === need;
  }
}

/** What {@linkcode ClientMsgDecoder} and {@linkcode ServerMsgDecoder} are. */
export abstract class MessageDecoder<Message> {
  readonly #splitter: MessageSplitter;
  readonly #options: DecodeOptions;
  #error: UdsError | undefined;

  /**
   * Makes a decoder of one stream.
   *
   * @throws {RangeError} if `maxMessage` is not positive
   */
  constructor(options: DecoderOptions = {}) {
    this.#splitter = new MessageSplitter(options.maxMessage ?? DEFAULT_MAX_MESSAGE);
    this.#options = options;
  }

  /** True in the middle of a message: a stream that ends here has lost something. */
  get partial(): boolean {
    return this.#splitter.partial;
  }

  /** Reads a message without its size. */
  protected abstract decode(body: Uint8Array, options: DecodeOptions): Message;

  /**
   * Takes the next bytes, at once; gives the messages that they complete. `chunk` may be used again. After an error every later call
   * gives the same one.
   *
   * @throws {UdsError} while iterating, behind the messages that were good: `protocol`, `too-large`
   */
  push(chunk: Uint8Array): Iterable<Message> {
    const messages: Message[] = [];
    if (this.#error === undefined) {
      const bodies: Uint8Array[] = [];
      try {
        try {
          this.#splitter.push(chunk.slice(), bodies);
        } finally {
          for (const body of bodies) messages.push(this.decode(body, this.#options));
        }
      } catch (error) {
        this.#error = error as UdsError;
      }
    }
    return messagesThen(messages, this.#error);
  }
}

function* messagesThen<Message>(
  messages: readonly Message[],
  error: UdsError | undefined,
): Generator<Message, void> {
  yield* messages;
  if (error !== undefined) throw error;
}

/**
 * Bytes in, messages of a client out, in chunks of any size.
 *
 * @example
 * ```ts
 * import { ClientMsg, ClientMsgDecoder } from "@trunkline/sockets/uds";
 *
 * const decoder = new ClientMsgDecoder({ maxMessage: 1024 });
 * const bytes = new ClientMsg({ id: 7, handler: "Echo" }).encode();
 * decoder.push(bytes.subarray(0, 3));
 * for (const { id, handler } of decoder.push(bytes.subarray(3))) console.log(id, handler); // 7 Echo
 * ```
 */
export class ClientMsgDecoder extends MessageDecoder<ClientMsg> {
  /** Reads a message without its size. */
  protected override decode(body: Uint8Array, options: DecodeOptions): ClientMsg {
    return decodeClientBody(body, options);
  }
}

/** Bytes in, messages of a server out, in chunks of any size. */
export class ServerMsgDecoder extends MessageDecoder<ServerMsg> {
  /** Reads a message without its size. */
  protected override decode(body: Uint8Array, options: DecodeOptions): ServerMsg {
    return decodeServerBody(body, options);
  }
}
