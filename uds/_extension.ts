/**
 * What our own messages carry, from type 16 on; docs/spec-uds.md tells of them in prose.
 *
 * @module
 */
import { concat } from "@std/bytes";
import { putUvarint, uvarintLength, UvarintReader } from "./_uvarint.ts";
import { type RemoteError, UdsError } from "./errors.ts";

/** The reserved handler that is asked for extensions. */
export const HELLO = "uds.hello";

/** Types of messages; each direction has those that it needs. */
export const TYPE = {
  /** To the server: nobody waits for this call any more. */
  CANCEL: 16,
  /** To the server: a call with a {@linkcode CallHeader}. */
  CALL: 17,
  /** To the client: the error of a call, with a {@linkcode FailureHeader}. */
  FAILURE: 16,
  /** To the client: the answer to a call, with a {@linkcode ReplyHeader}. */
  REPLY: 17,
  /** A piece of a message. */
  CHUNK: 18,
  /** No more messages in this direction; to the client with a {@linkcode ReplyHeader}. */
  END: 19,
  /** How many more bytes of a call may be sent. */
  WINDOW: 20,
  /** To the client: no more calls; those from this id on were not begun. */
  GO_AWAY: 21,
} as const;

/** Of `CALL`, `REPLY` and `CHUNK`: more of this message follows. */
export const MORE = 1;

/** Of `CALL`: this is a stream, whose messages follow, until `END`. */
export const STREAM = 2;

/** Names and values that go with a call or its answer. Names are compared as they are. */
export type Metadata = Readonly<Record<string, string>>;

/** How many entries of metadata a message may have, and how many bytes they may take. */
export const MAX_METADATA_ENTRIES = 128;
/** See {@linkcode MAX_METADATA_ENTRIES}. */
export const MAX_METADATA_BYTES: number = 16 * 1024;

/** What a piece takes of a window beside its bytes: messages without any take memory, too. */
export const PIECE_BYTES = 32;

/** How long the name of a handler may be, in bytes. */
export const MAX_NAME_BYTES = 4096;

/** How many bytes of details an error may have. */
export const MAX_DETAILS_BYTES: number = 256 * 1024;
/** Longer texts of errors are cut. */
const MAX_ERROR_CHARACTERS = 8 * 1024;

/** What stands before the data of a `CALL`. */
export interface CallHeader {
  readonly flags: number;
  /** How long the caller waits, in milliseconds; 0 for a time that it does not tell. */
  readonly timeoutMs: number;
  /** How many bytes of answers may be sent before the first `WINDOW`. */
  readonly window: number;
  readonly metadata: Metadata;
}

/** What stands before the data of a `REPLY`. */
export interface ReplyHeader {
  readonly flags: number;
  readonly metadata: Metadata;
}

/** What stands before the details of a `FAILURE`. */
export interface FailureHeader {
  readonly code: string;
  readonly message: string;
  readonly metadata: Metadata;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
/** None: one object, so that it is seen at once that there is nothing to write. */
export const NO_METADATA: Metadata = Object.freeze(Object.create(null));
const NOTHING_BYTES = new Uint8Array([0]);

/** Writes the header of a `CALL`. */
export function encodeCallHeader(header: CallHeader): Uint8Array {
  const { flags, timeoutMs, window, metadata } = header;
  return numbersThen([flags, timeoutMs, window], encodeMetadata(metadata));
}

/** Reads the header of a `CALL`, and what follows it. */
export function decodeCall(data: Uint8Array): [CallHeader, Uint8Array] {
  const reader = new UvarintReader(data);
  const flags = flagsOf(reader, STREAM);
  const timeoutMs = small(reader, "a timeout");
  const window = small(reader, "a window");
  if (window <= PIECE_BYTES) throw new UdsError("protocol", `a window of ${window}`);
  const metadata = readMetadata(reader, data);
  return [{ flags, timeoutMs, window, metadata }, data.subarray(reader.at)];
}

/** Writes the header of a `REPLY`. */
export function encodeReplyHeader({ flags, metadata }: ReplyHeader): Uint8Array {
  return numbersThen([flags], encodeMetadata(metadata));
}

/** Reads the header of a `REPLY`, and what follows it. */
export function decodeReply(data: Uint8Array): [ReplyHeader, Uint8Array] {
  const reader = new UvarintReader(data);
  const flags = flagsOf(reader, MORE);
  const metadata = readMetadata(reader, data);
  return [{ flags, metadata }, data.subarray(reader.at)];
}

/** A `FAILURE` that was written. */
export interface Failure {
  readonly header: Uint8Array;
  readonly data: Uint8Array;
}

/**
 * Writes a `FAILURE`.
 *
 * @throws {TypeError | RangeError} if it cannot be told
 */
export function encodeFailure(error: RemoteError): Failure {
  const { remoteCode, message, metadata, details } = error;
  checkMetadata(metadata);
  if (!(details instanceof Uint8Array)) throw new TypeError("the details of an error are no bytes");
  if (details.length > MAX_DETAILS_BYTES) {
    const text = `details of ${details.length} bytes, expected at most ${MAX_DETAILS_BYTES}`;
    throw new RangeError(text);
  }
  const code = text(shortened(remoteCode));
  const header = concat([code, text(shortened(message)), encodeMetadata(metadata)]);
  return { header, data: details };
}

/** A text of an error that is as long as a peer takes it. */
export function shortened(message: string): string {
  return String(message).slice(0, MAX_ERROR_CHARACTERS);
}

/** Reads a `FAILURE`, and its details. */
export function decodeFailure(data: Uint8Array): [FailureHeader, Uint8Array] {
  const reader = new UvarintReader(data);
  const code = readText(reader, data, "a code");
  const message = readText(reader, data, "a message");
  const metadata = readMetadata(reader, data);
  return [{ code, message, metadata }, data.subarray(reader.at)];
}

/** Writes a `WINDOW`, or the flags of a `CHUNK`. */
export function uint(value: number): Uint8Array {
  if (value === 0) return NOTHING_BYTES;
  const bytes = new Uint8Array(uvarintLength(value));
  putUvarint(bytes, 0, value);
  return bytes;
}

/** Reads a `WINDOW`. */
export function decodeWindow(data: Uint8Array): number {
  return small(new UvarintReader(data), "a window");
}

/** Reads a `CHUNK`: whether more of its message follows, and its bytes. */
export function decodeChunk(data: Uint8Array): [boolean, Uint8Array] {
  const reader = new UvarintReader(data);
  return [flagsOf(reader, MORE) === MORE, data.subarray(reader.at)];
}

/**
 * Refuses metadata that no peer would take.
 *
 * @throws {TypeError} if a value is no text, @throws {RangeError} if it is too much
 */
export function checkMetadata(metadata: Metadata): void {
  if (typeof metadata !== "object" || metadata === null) {
    throw new TypeError("metadata is no object");
  }
  const entries = Object.entries(metadata);
  if (entries.length > MAX_METADATA_ENTRIES) {
    const text = `metadata has ${entries.length} entries, expected at most ${MAX_METADATA_ENTRIES}`;
    throw new RangeError(text);
  }
  for (const [name, value] of entries) {
    if (typeof value !== "string") throw new TypeError(`metadata ${name} is no text`);
  }
  const { length } = encodeMetadata(metadata);
  if (length > MAX_METADATA_BYTES) {
    throw new RangeError(`metadata has ${length} bytes, expected at most ${MAX_METADATA_BYTES}`);
  }
}

function numbersThen(numbers: readonly number[], bytes: Uint8Array): Uint8Array {
  let length = bytes.length;
  for (const number of numbers) length += uvarintLength(number);
  const header = new Uint8Array(length);
  let at = 0;
  for (const number of numbers) at = putUvarint(header, at, number);
  header.set(bytes, at);
  return header;
}

function encodeMetadata(metadata: Metadata): Uint8Array {
  if (metadata === NO_METADATA) return NOTHING_BYTES;
  const entries = Object.entries(metadata);
  return concat([uint(entries.length), ...entries.flatMap((entry) => entry.map(text))]);
}

function readMetadata(reader: UvarintReader, data: Uint8Array): Metadata {
  const count = small(reader, "the number of metadata");
  if (count === 0) return NO_METADATA;
  const begin = reader.at;
  if (count > MAX_METADATA_ENTRIES) throw new UdsError("protocol", `${count} entries of metadata`);
  // Without a prototype: names come from the peer.
  const metadata: Record<string, string> = Object.create(null);
  for (let i = 0; i < count; i++) {
    const name = readText(reader, data, "a name of metadata");
    metadata[name] = readText(reader, data, "a value of metadata");
  }
  const length = reader.at - begin;
  if (length > MAX_METADATA_BYTES) throw new UdsError("protocol", `${length} bytes of metadata`);
  return Object.freeze(metadata);
}

function text(value: string): Uint8Array {
  const bytes = ENCODER.encode(value);
  return concat([uint(bytes.length), bytes]);
}

function readText(reader: UvarintReader, data: Uint8Array, what: string): string {
  const length = reader.length(what);
  return DECODER.decode(data.subarray(reader.at, reader.at += length));
}

/** One of them, or none: what others mean is for a later version to say. */
function flagsOf(reader: UvarintReader, most: number): number {
  const flags = small(reader, "flags");
  if (flags > most) throw new UdsError("protocol", `flags of ${flags}`);
  return flags;
}

function small(reader: UvarintReader, what: string): number {
  const value = reader.uint(what);
  if (value > 0xffff_ffff) throw new UdsError("protocol", `${what} of ${value}`);
  return Number(value);
}
