/**
 * Functions that a caller gives.
 *
 * @module
 */

/**
 * Refuses at once what cannot be called later, when it is to tell of a failure.
 *
 * @throws {TypeError}
 */
export function requireFunction(name: string, value: unknown): void {
  if (typeof value !== "function") throw new TypeError(`${name} is no function`);
}
