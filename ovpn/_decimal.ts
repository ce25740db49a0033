/**
 * Numbers as OpenVPN prints them: decimal digits and nothing else.
 *
 * @module
 */
import type { Count } from "./event_base.ts";

/** No 64-bit number has more digits. */
const MAX_DIGITS = 20;

/** A counter of 64 bits; `undefined` for anything but 1 to 20 digits. */
export function parseCount(text: string): Count | undefined {
  if (!isDecimal(text)) return undefined;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text);
}

/** True for 1 to 20 digits: an id, which is compared as text, or a counter. */
export function isDecimal(text: string): boolean {
  if (text.length === 0 || text.length > MAX_DIGITS) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}
