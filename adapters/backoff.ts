/**
 * How long to wait between attempts.
 *
 * @module
 */

/**
 * Before the attempt that follows `failures` others: it doubles with each, from `minMs` to `maxMs`, less up to a half of it by chance, so that
 * those which lost the same peer do not all come back at once.
 */
export function backoffMs(
  failures: number,
  minMs: number,
  maxMs: number,
  random: () => number = Math.random,
): number {
  const ms = Math.min(maxMs, minMs * 2 ** Math.max(0, failures - 1));
  return Math.round(ms * (1 - random() / 2));
}
