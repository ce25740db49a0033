/**
 * Numbers as OpenVPN prints them, decimal digits and nothing else, and as it reads them.
 *
 * @module
 */

/** A 64-bit counter: a number as long as that is exact, a bigint from 2^53 on. */
export type Count = number | bigint;

const MAX_UINT64 = 2n ** 64n - 1n;
const MAX_UINT32 = 2 ** 32 - 1;
/** No 64-bit number has more digits. */
const MAX_DIGITS = 20;

/** True for 1 to 20 digits: an id, which is compared as text, or a counter. */
export function isDecimal(text: string): boolean {
  if (text.length === 0 || text.length > MAX_DIGITS) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}

/** A counter of 64 bits; `undefined` for anything but 1 to 20 digits. */
export function parseCount(text: string): Count | undefined {
  if (!isDecimal(text)) return undefined;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text);
}

/** Undefined for what is no number, and for one so large that it would not be exact. */
export function whole(digits: string | undefined): number | undefined {
  const number = parseCount(digits ?? "");
  return typeof number === "number" ? number : undefined;
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
  return isCanonical(text) && (text.length < MAX_DIGITS || BigInt(text) <= MAX_UINT64);
}

/** Whether `text` is a KID: 32 bits. */
export function isKeyId(text: string): boolean {
  return isCanonical(text) && Number(text) <= MAX_UINT32;
}

function isCanonical(text: string): boolean {
  return isDecimal(text) && (text === "0" || !text.startsWith("0"));
}

/** The number of `bits` that OpenVPN reads (sscanf), as it writes it; `undefined` if it reads none. */
export function readUnsigned(text: string, bits: 32 | 64): string | undefined {
  const [, sign, digits] = /^[ \t-\r]*([+-]?)(\d+)/.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const number = BigInt(digits);
  if (number > MAX_UINT64) return String(BigInt.asUintN(bits, MAX_UINT64));
  return String(BigInt.asUintN(bits, sign === "-" ? -number : number));
}
