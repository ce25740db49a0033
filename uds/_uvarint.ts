/**
 * Go's unsigned varints: seven bits a byte, the lowest first, at most 64 bits.
 *
 * @module
 */
import { UdsError } from "./errors.ts";

/** 64 bits as a number as long as that is exact, a bigint from 2^53 on. */
export type Uint = number | bigint;

/** The longest, in bytes; the last has one bit. */
export const MAX_UVARINT_BYTES = 10;
/** What the Go package's encoder has no room for (spec 1.1). */
const LIMIT = 2n ** 56n;
/** Below it a number can be built without bigints. */
const SMALL_BYTES = 7;

/** @throws {RangeError} if it is no whole number from 0 to 2^56-1 */
export function requireUint(value: Uint, what: string): void {
  const whole = typeof value === "bigint" || Number.isSafeInteger(value);
  if (!whole || value < 0 || value >= LIMIT) {
    throw new RangeError(`${what} is ${value}, expected a whole number from 0 to 2^56-1`);
  }
}

/** How many bytes it takes. */
export function uvarintLength(value: Uint): number {
  let length = 1;
  if (typeof value === "bigint") {
    for (let rest = value >> 7n; rest > 0n; rest >>= 7n) length++;
    return length;
  }
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) length++;
  return length;
}

/** Writes it at `at`; gives the place behind it. */
export function putUvarint(bytes: Uint8Array, at: number, value: Uint): number {
  let rest = value;
  if (typeof rest === "bigint") {
    for (; rest >= 0x80n; rest >>= 7n) bytes[at++] = Number(rest & 0x7fn) | 0x80;
    bytes[at++] = Number(rest);
    return at;
  }
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[at++] = rest % 0x80 | 0x80;
  bytes[at++] = rest;
  return at;
}

/** Reads one after the other. */
export class UvarintReader {
  readonly #bytes: Uint8Array;
  /** Where the next one is. */
  at: number;

  /** Reads from `at` to the end. */
  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  /**
   * The next one; `what` is for the message.
   *
   * @throws {UdsError} `protocol` if it is cut off or has more than 64 bits
   */
  uint(what: string): Uint {
    const first = this.#bytes[this.at];
    if (first !== undefined && first < 0x80) {
      this.at++;
      return first;
    }
    let value = 0;
    let scale = 1;
    for (let at = this.at; at < this.#bytes.length && at < this.at + SMALL_BYTES; at++) {
      const byte = this.#bytes[at]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.at = at + 1;
        return value;
      }
      scale *= 0x80;
    }
    return this.#long(what);
  }

  /** A length of what follows, at most what is left. */
  length(what: string): number {
    const value = this.uint(what);
    const left = this.#bytes.length - this.at;
    if (value > left) {
      throw new UdsError("protocol", `${what} has ${value} bytes, and ${left} are there`);
    }
    return Number(value);
  }

  #long(what: string): Uint {
    let value = 0n;
    for (let count = 0; count < MAX_UVARINT_BYTES; count++) {
      const byte = this.#bytes[this.at + count];
      if (byte === undefined) throw new UdsError("protocol", `${what} is cut off`);
      if (count === MAX_UVARINT_BYTES - 1 && byte > 1) break;
      value |= BigInt(byte & 0x7f) << BigInt(7 * count);
      if (byte >= 0x80) continue;
      this.at += count + 1;
      return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
    }
    throw new UdsError("protocol", `${what} has more than 64 bits`);
  }
}
