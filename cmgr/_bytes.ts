/**
 * What may be written.
 *
 * @module
 */

const ENCODER = new TextEncoder();

/** The first `n` of `bytes`: none if `n` is not positive (spec 4, row 21). @throws {TypeError | RangeError} */
export function firstBytes(bytes: Uint8Array, n: number): Uint8Array {
  requireBytes(bytes);
  if (!Number.isInteger(n)) throw new RangeError(`writing ${n} bytes: not a whole number`);
  if (n > bytes.length) throw new RangeError(`writing ${n} bytes: there are ${bytes.length}`);
  return bytes.subarray(0, Math.max(0, n));
}

/** @throws {TypeError} */
export function encodeText(text: string): Uint8Array {
  if (typeof text !== "string") throw new TypeError("writing a text: it is no string");
  return ENCODER.encode(text);
}

/** @throws {TypeError} */
export function requireBytes(bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError("writing: the data is no Uint8Array");
}
