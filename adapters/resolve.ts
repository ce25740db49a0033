/**
 * Host names to addresses.
 *
 * @module
 */
import { abortable, abortError } from "./_errors.ts";
import { builtin } from "./_node_builtins.ts";
import { checkHost, isIP } from "./address.ts";
import type { WaitOptions } from "./types.ts";

/** Options of {@linkcode resolveHost}. */
export interface ResolveOptions extends WaitOptions {
  /** The kind of address to ask for. @default whichever the system prefers */
  readonly family?: 4 | 6 | undefined;
}

/**
 * The address of a host, as the system knows it (`/etc/hosts`, then DNS). An IP literal is given back as it is, whatever `family`
 * says. No time limit but that of `signal`, which ends the wait and not the system's question.
 *
 * @throws {ConnectError} `not-found`, `invalid-address`, `aborted`, `timeout`; on Deno `permission` without `--allow-net` of
 * the host, all of its ports
 *
 * @example
 * ```ts
 * import { resolveHost } from "@trunkline/sockets/auto";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await resolveHost("localhost", { family: 4 }), "127.0.0.1");
 * assertEquals(await resolveHost("::1"), "::1");
 * ```
 */
export async function resolveHost(hostname: string, options: ResolveOptions = {}): Promise<string> {
  const { family = 0, signal } = options;
  const doing = `resolving ${checkHost(hostname)}`;
  if (signal?.aborted) throw abortError(signal, doing);
  if (isIP(hostname)) return hostname;
  const { lookup } = builtin("node:dns/promises");
  return (await abortable(lookup(hostname, { family }), signal, doing)).address;
}
