/**
 * What may be written.
 *
 * @module
 */

const ENCODER = new TextEncoder();

/** Writes the first `n` of `bytes`: nothing at all if `n` is not positive (spec 4, row 21). @throws {TypeError | RangeError} */
export function writeFirst(
  bytes: Uint8Array,
  n: number,
  write: (first: Uint8Array) => Promise<void>,
): Promise<void> {
  requireBytes(bytes);
  if (!Number.isInteger(n)) throw new RangeError(`writing ${n} bytes: not a whole number`);
  if (n > bytes.length) throw new RangeError(`writing ${n} bytes: there are ${bytes.length}`);
  return n <= 0 ? Promise.resolve() : write(bytes.subarray(0, n));
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
