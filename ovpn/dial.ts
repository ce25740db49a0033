/**
 * Connecting to OpenVPN.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Address, Conn, Transport, WaitOptions } from "../adapters/types.ts";
import { ManagementClient } from "./client.ts";
import { type ClientOptions, sessionLimits } from "./client_options.ts";
import { ManagementError } from "./errors.ts";

/** Options of {@linkcode dial}. */
export interface DialOptions extends ClientOptions, WaitOptions {
  /** Where connections come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "connect"> | undefined;
}

/**
 * Connects to the management interface of an OpenVPN (`--management IP PORT` or `--management PATH unix`) and logs in.
 *
 * Connecting and greeting may take `greetingTimeoutMs` each; `signal` ends both, the first with a `ConnectError`, the second with a
 * `ManagementError`.
 *
 * @example
 * ```ts
 * import { describeEvent, dial } from "@trunkline/sockets/ovpn";
 *
 * export async function start(socket = "/run/openvpn/client.sock"): Promise<void> {
 *   const client = await dial(socket);
 *   await client.setStateEvents(true);
 *   await client.holdRelease();
 *   for await (const event of client.events) console.log(describeEvent(event));
 * }
 * ```
 *
 * @throws {ConnectError} if there is no connection
 * @throws {ManagementError} `no-greeting`, `password-required`, `wrong-password`, `aborted`, ...
 */
export async function dial(
  address: Address | string,
  options: DialOptions = {},
): Promise<ManagementClient> {
  const { signal } = options;
  const conn = await connectTo(address, options);
  let client: ManagementClient;
  try {
    client = new ManagementClient(conn, options);
  } catch (error) {
    conn.abort(error);
    throw error;
  }
  const onAbort = () => void client.close();
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await client.ready;
    // It may have fired behind the greeting, in the same turn.
    signal?.throwIfAborted();
    return client;
  } catch (error) {
    if (!signal?.aborted) throw error;
    throw new ManagementError("aborted", "waiting for OpenVPN to greet: aborted", {
      cause: signal.reason,
    });
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Connects, but hears and says nothing. */
export async function connectTo(
  address: Address | string,
  options: DialOptions,
): Promise<Conn> {
  const { transport = auto, signal } = options;
  const limit = AbortSignal.timeout(sessionLimits(options).greetingTimeoutMs);
  try {
    return await transport.connect(address, {
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    });
  } catch (error) {
    // Of a unix socket: somebody is there, and more managers wait than its queue takes.
    if ((error as { cause?: { code?: unknown } }).cause?.code !== "EAGAIN") throw error;
    const text = "OpenVPN does not accept the connection: other managers wait before us";
    throw new ManagementError("no-greeting", text, { cause: error });
  }
}
