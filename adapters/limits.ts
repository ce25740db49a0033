/**
 * What every limit has to be: positive, and a time that a timer takes; and every option that is a word, or a function.
 *
 * @module
 */

/** The longest time of a timer, in milliseconds: beyond it they fire at once. */
export const MAX_TIMEOUT_MS = 0x7fffffff;

/**
 * Refuses a limit that is not positive; one whose name ends in `Ms` has to be at most {@linkcode MAX_TIMEOUT_MS}, too.
 *
 * @throws {RangeError}
 */
export function requireLimit(name: string, value: number): void {
  if (typeof value !== "number" || !(value > 0)) {
    throw new RangeError(`${name} is ${value}, expected more than 0`);
  }
  if (name.endsWith("Ms") && value > MAX_TIMEOUT_MS) {
    throw new RangeError(`${name} is ${value}, expected at most ${MAX_TIMEOUT_MS}`);
  }
}

/** As {@linkcode requireLimit}, of all that are given. @throws {RangeError} */
export function requireLimits(limits: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(limits)) requireLimit(name, value);
}

/**
 * Refuses an option that is none of its words.
 *
 * @throws {TypeError}
 */
export function requireChoice(name: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return;
  throw new TypeError(`${name} is ${String(value)}, expected ${choices.join(" or ")}`);
}

/**
 * Refuses at once what cannot be called later, when it is to tell of a failure.
 *
 * @throws {TypeError}
 */
export function requireFunction(name: string, value: unknown): void {
  if (typeof value !== "function") throw new TypeError(`${name} is no function`);
}
