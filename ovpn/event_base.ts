/**
 * What all events have, and the numbers in them.
 *
 * @module
 */
import { parseCount } from "./_decimal.ts";
import { MAX_MESSAGE_BYTES } from "./demux.ts";

/** A 64-bit counter: a number as long as that is exact, a bigint from 2^53 on. */
export type Count = number | bigint;

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

const DIGITS = /^\d+$/;
const MAX_UINT64 = 2n ** 64n - 1n;
const MAX_UINT32 = 2 ** 32 - 1;

/** Undefined for what is no number, and for one so large that it would not be exact. */
export function whole(digits: string | undefined): number | undefined {
  if (digits === undefined || !DIGITS.test(digits)) return undefined;
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : undefined;
}

/** 0 for what is no 64-bit number. */
export function count(digits: string | undefined): Count {
  return parseCount(digits ?? "") ?? 0;
}

/**
 * Whether `text` is a CID: 64 bits, written as OpenVPN writes it. Ids are compared as text, so a second way to write one (`01`) must
 * not pass.
 */
export function isClientId(text: string): boolean {
  return /^(?:0|[1-9]\d{0,19})$/.test(text) && (text.length < 20 || BigInt(text) <= MAX_UINT64);
}

/** Whether `text` is a KID: 32 bits. */
export function isKeyId(text: string): boolean {
  return /^(?:0|[1-9]\d{0,9})$/.test(text) && Number(text) <= MAX_UINT32;
}

/** Whether OpenVPN may have cut this line (without `>` and line end) at its longest message, spec 1.1. */
export function maybeCut(raw: Uint8Array): boolean {
  return raw.length >= MAX_MESSAGE_BYTES - 1;
}
