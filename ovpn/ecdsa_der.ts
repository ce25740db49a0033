/**
 * The two ways to write an ECDSA signature.
 *
 * @module
 */

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const ONE_LENGTH_BYTE = 0x81;
/** Of P-521. */
const MAX_SIGNATURE_BYTES = 132;

/**
 * Makes of an ECDSA signature as WebCrypto gives it (r and s, of the same length) the one that OpenVPN wants (ASN.1 DER).
 *
 * @throws {RangeError} if it is empty, of an odd length, or longer than 132 bytes
 *
 * @example
 * ```ts
 * import { ecdsaToDer } from "@trunkline/sockets/ovpn";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(ecdsaToDer(Uint8Array.of(0, 1, 0x80, 2)), Uint8Array.of(0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 2));
 * ```
 */
export function ecdsaToDer(signature: Uint8Array): Uint8Array {
  const { length } = signature;
  if (length === 0 || length % 2 !== 0 || length > MAX_SIGNATURE_BYTES) {
    throw new RangeError(
      `an ECDSA signature has ${length} bytes, expected an even number up to ${MAX_SIGNATURE_BYTES}`,
    );
  }
  const half = length / 2;
  const body = [...integer(signature.subarray(0, half)), ...integer(signature.subarray(half))];
  const size = body.length < 0x80 ? [body.length] : [ONE_LENGTH_BYTE, body.length];
  return Uint8Array.from([SEQUENCE, ...size, ...body]);
}

/** As short as it can be, and not negative: both are required of DER. */
function integer(bytes: Uint8Array): number[] {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first < 0 ? [0] : [...bytes.subarray(first)];
  if (digits[0]! >= 0x80) digits.unshift(0);
  return [INTEGER, digits.length, ...digits];
}
