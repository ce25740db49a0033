/**
 * Base64 of bytes and of texts.
 *
 * @module
 */

/** Of any length: `String.fromCharCode` of all bytes at once would be too many arguments. */
export function toBase64(data: Uint8Array | string): string {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/** @throws {DOMException} if it is no base64 */
export function fromBase64(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The text that it stands for; `undefined` for what is no base64 of UTF-8. */
export function textFromBase64(base64: string): string | undefined {
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return decoder.decode(fromBase64(base64));
  } catch {
    return undefined;
  }
}
