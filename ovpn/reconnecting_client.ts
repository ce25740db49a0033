/**
 * A client that connects again.
 *
 * @module
 */
import { parseAddress } from "../adapters/address.ts";
import { requireChoice, requireLimits } from "../adapters/limits.ts";
import type { Address, Conn, Duplex, Transport, WaitOptions } from "../adapters/types.ts";
import { Broadcast } from "./_broadcast.ts";
import { type Connector, type HoldPolicy, Reconnector } from "./_reconnector.ts";
import { type ClientOptions, sessionLimits } from "./client_options.ts";
import { encodeLine } from "./command.ts";
import { ServerCommands } from "./commands_server.ts";
import { connectTo } from "./dial.ts";

export type { HoldPolicy } from "./_reconnector.ts";

/** Options of a {@linkcode ReconnectingClient}. `signal` closes it. */
export interface ReconnectOptions extends ClientOptions, WaitOptions {
  /** Where connections come from, if there is an address. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "connect"> | undefined;
  /** The pause before the second attempt, in milliseconds. It doubles with each; up to a half is taken off by chance. @default 250 */
  readonly minDelayMs?: number | undefined;
  /** The longest pause, in milliseconds. Once a connection has lasted as long, the pauses begin anew. @default 30000 */
  readonly maxDelayMs?: number | undefined;
  /** How many attempts in a row may fail before the client gives up. @default Infinity */
  readonly maxAttempts?: number | undefined;
  /**
   * What becomes of an OpenVPN that waits for `hold release`: `leave` leaves that to you; `release` lets it go on after the pause that it
   * says; `again` does that once this client has released a hold, or turned holding off: for the holds that restarts
   * bring. @default "again"
   */
  readonly hold?: HoldPolicy | undefined;
}

const DEFAULT_MIN_DELAY_MS = 250;
const DEFAULT_MAX_DELAY_MS = 30_000;

/**
 * A {@linkcode ManagementClient} that keeps connected: it has the same commands and events, and may be given to `serveAuth`, `ClientTable`,
 * `provideCredentials` and `provideKey`. It connects at once.
 *
 * 1. When a connection ends, it makes another one, after a pause; only `close()`, `maxAttempts`, and a password that was refused three times
 *    in a row end it.
 * 2. What you turned on by its methods or by `command()` is turned on again over each connection, before other commands: `state`, `log`, `echo`,
 *    `bytecount`, `env-filter` and `version`. `STATE` events are on from the start, since a restart shows there; turn them off if you like.
 * 3. Among the events are its own: `connected`, `resumed` with what may have been missed, `disconnected`, `connect-failed`. Iterations go
 *    on; nothing else tells of a lost connection.
 * 4. A command that is called without a connection waits for one, for `timeoutMs` at most: then `disconnected`. One that was sent when the
 *    connection ended rejects, since nobody knows whether it was carried out; one that was not is sent over the next connection (but see 5).
 * 5. Ids of clients are good for one connection, since OpenVPN may have restarted: an answer to an event of an earlier one is refused as
 *    `stale`, one by ids that were told on an earlier one by a {@linkcode GuardError}; and without a connection such commands do not
 *    wait: `disconnected`.
 * 6. If nobody has iterated `events` yet, those of earlier connections are forgotten.
 *
 * The end of a connection makes an OpenVPN with `--management-client` exit, one with `--management-signal` restart, and one with
 * `--management-forget-disconnect` forget its passwords. Tell it so by `onTimeout: "keep"`: then no slow reply ends a connection. Of
 * `--management-signal` it learns that by itself, from the restart that an end has caused.
 *
 * @example
 * ```ts
 * import { describeEvent, ReconnectingClient } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = simulateDaemon(); // in life: an OpenVPN
 * const client = new ReconnectingClient(await daemon.listen(), { minDelayMs: 10 });
 * await client.setByteCountEvents(5);
 * await client.command("exit"); // in life: the connection breaks
 * for await (const event of client.events) {
 *   console.log(describeEvent(event)); // connected, resumed, disconnected, connected, ...
 *   if (event.type === "resumed" && event.gap?.daemon === "same") break;
 * }
 * await client.close();
 * await daemon.close();
 * ```
 */
export class ReconnectingClient extends ServerCommands {
  readonly #reconnector: Reconnector;

  /**
   * Begins to connect: to an address, or by a function that gives a connection to an OpenVPN, each time a new one; its
   * `signal` fires when the client is closed.
   *
   * @throws {ConnectError} `invalid-address`
   * @throws {TypeError} if the password has control characters
   * @throws {RangeError} if a limit is not positive, a time more than 2147483647 ms, or the password longer than a line may be
   */
  constructor(
    source: Address | string | ((wait: WaitOptions) => Promise<Duplex | Conn>),
    options: ReconnectOptions = {},
  ) {
    const { minDelayMs = DEFAULT_MIN_DELAY_MS, maxDelayMs = DEFAULT_MAX_DELAY_MS } = options;
    const { maxAttempts = Infinity, hold = "again", password, signal } = options;
    const { maxBufferedEvents, timeoutMs } = sessionLimits(options);
    requireLimits({ minDelayMs, maxDelayMs, maxAttempts });
    requireChoice("hold", hold, ["leave", "again", "release"]);
    if (typeof password === "string") encodeLine(password, "the password");
    const events = new Broadcast(maxBufferedEvents);
    const settings = { client: options, timeoutMs, minDelayMs, maxDelayMs, maxAttempts, hold };
    const reconnector = new Reconnector(connectorOf(source, options), settings, events);
    super(reconnector, events);
    this.#reconnector = reconnector;
    const onAbort = () => void this.close();
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    this.closed.catch(() => {}).finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /** Whether there is a connection that takes commands. */
  get connected(): boolean {
    return this.#reconnector.connected;
  }

  /**
   * Whether the end of a connection is known to hurt OpenVPN: told by `onTimeout: "keep"`, or learned. Then slow replies do not end one.
   */
  get dropHurts(): boolean {
    return this.#reconnector.dropHurts;
  }
}

function connectorOf(
  source: Address | string | Connector,
  options: ReconnectOptions,
): Connector {
  if (typeof source === "function") return source;
  const address = typeof source === "string" ? parseAddress(source) : source;
  return ({ signal }) => connectTo(address, { ...options, signal });
}
