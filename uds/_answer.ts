/**
 * What handlers give and throw, which may be anything.
 *
 * @module
 */
import { UNIXGRAM_BYTES } from "../adapters/unixgram.ts";
import { sizeOf } from "./_envelope.ts";
import { NO_METADATA, shortened } from "./_extension.ts";
import { CHUNK_BYTES } from "./_sender.ts";
import { type Uint, uvarintLength } from "./_uvarint.ts";
import { RemoteError } from "./errors.ts";
import type { ServerSettings } from "./server_options.ts";
import type { HandlerAnswer, HandlerContext } from "./context.ts";
import { SERVER_DATA, ServerMsg } from "./message.ts";

/** Of the text of an error that has to go in one datagram of Go's, with an id of any size. */
const MAX_GO_TEXT_BYTES = UNIXGRAM_BYTES - 16;
const ENCODER = new TextEncoder();
const EMPTY = new Uint8Array();

/** Whether it comes later. */
export function isThenable(value: unknown): value is PromiseLike<HandlerAnswer> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** The bytes of an answer. @throws {TypeError} if it is none */
export function dataOf(answer: HandlerAnswer | null): Uint8Array {
  const data = answer instanceof ServerMsg ? answer.data : answer;
  if (data instanceof Uint8Array) return data;
  if (data === undefined || data === null) return EMPTY;
  if (typeof data === "string") return ENCODER.encode(data);
  throw new TypeError(`the answer is of the type ${typeof data}, expected bytes or a text`);
}

/** What was thrown may be anything. */
export function textOf(error: unknown): string {
  try {
    return error instanceof Error ? String(error.message) : String(error);
  } catch {
    return "something that has no text";
  }
}

/** @throws {RemoteError} `too-large` */
export function requireSize(
  id: Uint,
  data: Uint8Array,
  { maxMessage, extensions }: ServerSettings,
): void {
  const fits = extensions || sizeWhole(id, data) <= UNIXGRAM_BYTES;
  if (fits && data.length <= maxMessage) return;
  const most = fits ? maxMessage : `about ${UNIXGRAM_BYTES - 6}`;
  const text = `an answer of ${data.length} bytes, and at most ${most} go`;
  throw new RemoteError("too-large", text);
}

function sizeWhole(id: Uint, data: Uint8Array): number {
  const size = sizeOf({ id, type: SERVER_DATA, data });
  return size + uvarintLength(size);
}

/** An error in Go's words. */
export function plainError({ message }: RemoteError, { extensions }: ServerSettings): Uint8Array {
  const text = ENCODER.encode(shortened(message));
  return extensions ? text : text.subarray(0, MAX_GO_TEXT_BYTES);
}

/** Whether one of Go's messages can say it. */
export function isPlain(data: Uint8Array, { replyMetadata }: HandlerContext): boolean {
  return data.length <= CHUNK_BYTES && replyMetadata === NO_METADATA;
}
