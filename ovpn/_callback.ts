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

/** Calls one that is told of a failure. That this fails as well, at once or later, is nobody's to hear. */
export function tell(call: () => unknown): void {
  (async () => await call())().catch(() => {});
}
