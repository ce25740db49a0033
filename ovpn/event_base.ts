/**
 * What all events have.
 *
 * @module
 */
import { MAX_MESSAGE_BYTES } from "./demux.ts";

/** What every event has. */
export interface EventBase<Type extends string> {
  /** The keyword on the wire, or `"unknown"`, or `"malformed"`. */
  readonly type: Type;
  /**
   * The whole line as it came, without `>` and line end; for text that is not UTF-8. Of a gathered block all of its lines, with an
   * LF between them.
   */
  readonly raw: Uint8Array;
}

/** Whether OpenVPN may have cut this line (without `>` and line end) at its longest message, spec 1.1. */
export function maybeCut(raw: Uint8Array): boolean {
  return raw.length >= MAX_MESSAGE_BYTES - 1;
}
