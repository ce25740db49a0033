/**
 * What every message begins with, of either side: `Size | ID | Type | [len(Handler) | Handler] | len(Data)` (spec 1.1).
 *
 * @module
 */
import { putUvarint, type Uint, uvarintLength } from "./_uvarint.ts";

/** A message to be written. */
export interface Outgoing {
  readonly id: Uint;
  readonly type: Uint;
  /** The name of the handler; `undefined` in those of a server. */
  readonly handler?: Uint8Array | undefined;
  /** What stands before `data`, as part of it. */
  readonly header?: Uint8Array | undefined;
  readonly data: Uint8Array;
}

/** How many bytes follow the size. */
export function sizeOf({ id, type, handler, header, data }: Outgoing): number {
  const length = data.length + (header?.length ?? 0);
  const size = uvarintLength(id) + uvarintLength(type) + uvarintLength(length) + length;
  return handler === undefined ? size : size + uvarintLength(handler.length) + handler.length;
}

/** Writes all but `data` at `at`; gives the place of that. */
export function putEnvelope(bytes: Uint8Array, at: number, size: number, it: Outgoing): number {
  const { id, type, handler, header, data } = it;
  at = putUvarint(bytes, at, size);
  at = putUvarint(bytes, at, id);
  at = putUvarint(bytes, at, type);
  if (handler !== undefined) at = put(bytes, putUvarint(bytes, at, handler.length), handler);
  at = putUvarint(bytes, at, data.length + (header?.length ?? 0));
  return header === undefined ? at : put(bytes, at, header);
}

function put(bytes: Uint8Array, at: number, part: Uint8Array): number {
  bytes.set(part, at);
  return at + part.length;
}
