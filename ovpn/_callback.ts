/**
 * Functions that are told of a failure.
 *
 * @module
 */

/** Calls one that is told of a failure. That this fails as well, at once or later, is nobody's to hear. */
export function tell(call: () => unknown): void {
  (async () => await call())().catch(() => {});
}
