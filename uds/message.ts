/**
 * The messages of the Go package domainsockets, byte for byte (spec 1.1).
 *
 * @module
 */
import { type Outgoing, putEnvelope, sizeOf } from "./_envelope.ts";
import { requireUint, type Uint, uvarintLength, UvarintReader } from "./_uvarint.ts";
import { UdsError } from "./errors.ts";

export type { Uint } from "./_uvarint.ts";

/** `ClientMsg.type`: nothing but a sign of life. */
export const CLIENT_KEEP_ALIVE = 0;
/** `ClientMsg.type`: a call. */
export const CLIENT_DATA = 1;
/** `ServerMsg.type`: `data` is the text of an error. */
export const SERVER_ERROR = 0;
/** `ServerMsg.type`: the answer to a call. */
export const SERVER_DATA = 1;
/** 2^20. */
export const MIB = 1_048_576;
/** What the Go package exports by this name, `011`, which is octal there; nothing uses it. */
export const KEEP_ALIVE = 0x09;
/** From here on types are extensions of ours. */
export const FIRST_EXTENSION = 16;

/** Options of `decode`. */
export interface DecodeOptions {
  /** Whether other types than 0 and 1 are taken. @default false */
  readonly extensions?: boolean | undefined;
}

/** What a {@linkcode ClientMsg} is made of. */
export interface ClientMsgInit {
  /** Which call it is; the client counts from 0. @default 0 */
  readonly id?: Uint | undefined;
  /** What it is: {@linkcode CLIENT_DATA} and so on. @default CLIENT_DATA */
  readonly type?: Uint | undefined;
  /** The name of the handler; bytes if it is not UTF-8. @default "" */
  readonly handler?: string | Uint8Array | undefined;
  /** What the handler gets. It is not copied. @default none */
  readonly data?: Uint8Array | undefined;
}

/** What a {@linkcode ServerMsg} is made of. */
export interface ServerMsgInit {
  /** Which call it answers. @default 0 */
  readonly id?: Uint | undefined;
  /** What it is: {@linkcode SERVER_DATA} or {@linkcode SERVER_ERROR}. @default SERVER_DATA */
  readonly type?: Uint | undefined;
  /** The answer. It is not copied. @default none */
  readonly data?: Uint8Array | undefined;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const NOTHING = new Uint8Array();

/**
 * A message of a client: `TotalSize | ID | Type | len(Handler) | Handler | len(Data) | Data`, all numbers as Go's uvarints, and TotalSize the
 * number of bytes behind itself.
 *
 * @example
 * ```ts
 * import { CLIENT_DATA, ClientMsg } from "@trunkline/sockets/uds";
 *
 * const bytes = new ClientMsg({ id: 0, type: CLIENT_DATA, handler: "Echo", data: new Uint8Array([1]) }).encode();
 * console.log(bytes); // 9, 0, 1, 4, "Echo", 1, 1
 * console.log(ClientMsg.decode(bytes).handler); // Echo
 * ```
 */
export class ClientMsg {
  /** Which call it is: a number, or from 2^53 on a bigint. */
  readonly id: Uint;
  /** What it is. */
  readonly type: Uint;
  /** What the handler gets. In one that came it is a view of memory that others share: `slice()` it before its buffer is transferred. */
  readonly data: Uint8Array;
  /** The name of the handler as bytes. */
  readonly handlerBytes: Uint8Array;
  #handler: string | undefined;

  /** Makes a message. What cannot be encoded throws there. */
  constructor({ id = 0, type = CLIENT_DATA, handler = "", data = NOTHING }: ClientMsgInit) {
    this.id = id;
    this.type = type;
    this.data = data;
    if (typeof handler === "string") {
      this.#handler = handler;
      this.handlerBytes = ENCODER.encode(handler);
    } else this.handlerBytes = handler;
  }

  /** The name of the handler; U+FFFD stands for what is not UTF-8. */
  get handler(): string {
    return this.#handler ??= DECODER.decode(this.handlerBytes);
  }

  /**
   * The whole message.
   *
   * @throws {RangeError} if id or type is no whole number from 0 to 2^56-1 (the Go encoder panics from there on)
   */
  encode(): Uint8Array {
    const { id, type, handlerBytes, data } = this;
    return encodeMessage({ id, type, handler: handlerBytes, data });
  }

  /**
   * Reads one message, which is all of `bytes`. `data` and `handlerBytes` are views.
   *
   * @throws {UdsError} `protocol` if it is cut off, has bytes too many, or a type of which nothing is known
   */
  static decode(bytes: Uint8Array, options?: DecodeOptions): ClientMsg {
    return decodeClientBody(bodyOf(bytes), options);
  }
}

/** A message of a server: `TotalLen | ID | Type | len(Data) | Data`, as in {@linkcode ClientMsg}. */
export class ServerMsg {
  /** Which call it answers: a number, or from 2^53 on a bigint. */
  readonly id: Uint;
  /** What it is. */
  readonly type: Uint;
  /** The answer, or the text of an error; a view as that of a {@linkcode ClientMsg}. */
  readonly data: Uint8Array;

  /** Makes a message. What cannot be encoded throws there. */
  constructor({ id = 0, type = SERVER_DATA, data = NOTHING }: ServerMsgInit) {
    this.id = id;
    this.type = type;
    this.data = data;
  }

  /**
   * The whole message.
   *
   * @throws {RangeError} if id or type is no whole number from 0 to 2^56-1 (the Go encoder panics from there on)
   */
  encode(): Uint8Array {
    return encodeMessage(this);
  }

  /**
   * Reads one message, which is all of `bytes`. `data` is a view.
   *
   * @throws {UdsError} `protocol` if it is cut off, has bytes too many, or a type of which nothing is known
   */
  static decode(bytes: Uint8Array, options?: DecodeOptions): ServerMsg {
    return decodeServerBody(bodyOf(bytes), options);
  }
}

function encodeMessage(message: Outgoing): Uint8Array {
  requireUint(message.id, "id");
  requireUint(message.type, "type");
  const size = sizeOf(message);
  const bytes = new Uint8Array(uvarintLength(size) + size);
  bytes.set(message.data, putEnvelope(bytes, 0, size, message));
  return bytes;
}

/** What stands behind the size, which must tell how much that is. */
function bodyOf(bytes: Uint8Array): Uint8Array {
  const reader = new UvarintReader(bytes);
  const size = reader.length("the message");
  const rest = bytes.length - reader.at - size;
  if (rest > 0) {
    throw new UdsError("protocol", `the message has ${size} bytes, and ${rest} more follow`);
  }
  return bytes.subarray(reader.at);
}

/** Reads a message without its size. */
export function decodeClientBody(body: Uint8Array, options?: DecodeOptions): ClientMsg {
  const reader = new UvarintReader(body);
  const id = reader.uint("the id");
  const type = typeOf(reader, options);
  const handlerLength = reader.length("the handler's name");
  const handler = body.subarray(reader.at, reader.at += handlerLength);
  const data = lastOf(reader, body);
  return new ClientMsg({ id, type, handler, data });
}

/** Reads a message without its size. */
export function decodeServerBody(body: Uint8Array, options?: DecodeOptions): ServerMsg {
  const reader = new UvarintReader(body);
  const id = reader.uint("the id");
  const type = typeOf(reader, options);
  return new ServerMsg({ id, type, data: lastOf(reader, body) });
}

function typeOf(reader: UvarintReader, { extensions = false }: DecodeOptions = {}): Uint {
  const type = reader.uint("the type");
  if (type > 1 && !(extensions && type >= FIRST_EXTENSION)) {
    throw new UdsError("protocol", `a message of the type ${type}`);
  }
  return type;
}

/** The data, which is what is left. */
function lastOf(reader: UvarintReader, body: Uint8Array): Uint8Array {
  const length = reader.length("the data");
  const slack = body.length - reader.at - length;
  if (slack > 0) {
    throw new UdsError("protocol", `the data has ${length} bytes, and ${slack} more follow`);
  }
  return body.subarray(reader.at);
}
