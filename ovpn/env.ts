/**
 * The environment that comes with events of clients and tunnels.
 *
 * @module
 */
import { isSecretVariable, REDACTED, showAs } from "./_redact.ts";

/**
 * What is wrong with an environment. Much of it is the peer's choice: decide nothing upon one that has any.
 *
 * - `repeated`: a name came again with another value
 * - `overlong`: a line so long that OpenVPN may have cut it, and hidden what came behind
 * - `too-large`: more than `maxEnvBytes`; the rest was dropped
 * - `incomplete`: its end never came
 * - `unexpected`: among its lines was one of the same keyword that is no variable
 */
export type EnvFault = "repeated" | "overlong" | "too-large" | "incomplete" | "unexpected";

/** The environment of an event. Without an {@linkcode EventAssembler} it is empty, since its lines are events of their own. */
export interface EventEnv {
  /** Value by name; of a repeated name the first. Values that are secret do not show in `console.log`. */
  readonly env: ReadonlyMap<string, string>;
  /** All names and values, in their order. Does not show in `console.log`. */
  readonly envAll: readonly (readonly [name: string, value: string])[];
  /** What is wrong with it; empty if it is sound. */
  readonly envFaults: readonly EnvFault[];
}

/** An environment without anything in it. */
export function emptyEnv(): EventEnv {
  return { env: new Map(), envAll: [], envFaults: [] };
}

/** Value by name, which hides the secret ones when it is shown as a whole. */
export function envMap(): Map<string, string> {
  const map = new Map<string, string>();
  const shown = () =>
    [...map].map(([name, value]): [string, string] => [
      name,
      isSecretVariable(name, value) ? REDACTED : value,
    ]);
  return showAs(map, () => new Map(shown()), () => Object.fromEntries(shown()));
}
