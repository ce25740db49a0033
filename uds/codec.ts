/**
 * Values as the data of messages.
 *
 * @module
 */
import type { StandardSchema } from "./standard_schema.ts";

/**
 * Makes data of a value and a value of data. What it throws in `decode` means that the data is none of its kind, and in `encode` that it has
 * no data for that value.
 */
export interface Codec<In, Out = In> {
  /** What the data is, for whoever asks a server what it has. */
  readonly name: string;
  /** The data of a value. */
  encode(value: In): Uint8Array;
  /** The value of data, which may be a view of a message. */
  decode(data: Uint8Array): Out | Promise<Out>;
}

/** Any codec, or any validator of what goes as JSON. */
export type AnyCodec = Codec<never, unknown> | StandardSchema;

const ENCODER = new TextEncoder();
// What comes is refused or kept as it is: no replacement characters, and no mark of the byte order that vanishes.
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes as they are. */
export const bytes: Codec<Uint8Array> = {
  name: "bytes",
  encode: (value) => value,
  decode: (data) => data,
};

/** Texts in UTF-8: what is not well-formed is refused in both directions, and never replaced. */
export const text: Codec<string> = {
  name: "text",
  encode(value) {
    if (!value.isWellFormed()) throw new TypeError("a text with half a surrogate pair");
    return ENCODER.encode(value);
  },
  decode: (data) => DECODER.decode(data),
};

/** No value: no data. */
export const empty: Codec<void> = {
  name: "empty",
  encode: () => new Uint8Array(),
  decode(data) {
    if (data.length > 0) throw new TypeError(`${data.length} bytes, expected none`);
  },
};

const JSON_CODEC: Codec<unknown> = {
  name: "json",
  encode(value) {
    const json: string | undefined = JSON.stringify(value);
    if (json === undefined) throw new TypeError(`JSON has nothing for ${typeof value}`);
    return ENCODER.encode(json);
  },
  decode(data) {
    const json = DECODER.decode(data);
    try {
      return JSON.parse(json);
    } catch {
      // What the engine says of it shows the data, which may be a secret.
      throw new SyntaxError("a text that is no JSON");
    }
  },
};

/**
 * JSON in UTF-8, of which `T` is believed: use a validator where the peer is not. What it does to values is what `JSON.stringify` does: what
 * it has nothing for (`undefined`, functions, cycles, a bigint) is refused with a TypeError, and inside of objects and arrays left out or null.
 * For no value there is {@linkcode empty}.
 */
export function json<T = unknown>(): Codec<T> {
  return JSON_CODEC as Codec<T>;
}
