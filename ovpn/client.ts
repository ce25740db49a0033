/**
 * Commands and events over one connection to OpenVPN.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import { Broadcast } from "./_broadcast.ts";
import { Session } from "./_session.ts";
import { type ClientOptions, sessionLimits } from "./client_options.ts";
import { ServerCommands } from "./commands_server.ts";
import type { ManagementError } from "./errors.ts";
import { type ManagementEvent, parseEvent } from "./event.ts";

export type {
  ClientOptions,
  CommandOptions,
  CommandReply,
  PasswordSource,
} from "./client_options.ts";

/**
 * Commands an OpenVPN and hears its events.
 *
 * 1. Commands are sent one at a time, in the order of the calls, once OpenVPN has greeted. Each call settles: with the reply, a
 *    {@linkcode CommandError} if that is an `ERROR:`, or a {@linkcode ManagementError}.
 * 2. The connection is read all the time, whether anybody reads `events` or not. Events with an environment come when it is complete.
 * 3. After the connection failed, every call rejects with the same error.
 * 4. What would harm OpenVPN as it is, or answer another client than the one that was meant, is refused when its turn has come: a
 *    {@linkcode GuardError}, or `stale`.
 * 5. `closed` resolves after `close()`, and when OpenVPN ends the connection while no command is pending; otherwise it rejects. Ignoring it
 *    never makes an unhandled rejection.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { describeEvent, ManagementClient } from "@trunkline/sockets/ovpn";
 *
 * const [ours, daemon] = connPair(); // in life: a connection to OpenVPN
 * const say = (text: string) => daemon.write(new TextEncoder().encode(text));
 *
 * const client = new ManagementClient(ours);
 * await say(">INFO:OpenVPN Management Interface Version 5\r\n");
 * const pid = client.pid();
 * await daemon.read(); // "pid"
 * await say("SUCCESS: pid=42\r\n");
 * console.log(await pid); // 42
 * await daemon.close();
 * for await (const event of client.events) console.log(describeEvent(event));
 * ```
 */
export class ManagementClient extends ServerCommands {
  /**
   * Takes over `duplex` and begins to read.
   *
   * @throws {TypeError} if the password has control characters
   * @throws {RangeError} if a limit is not positive, a time is more than 2147483647 ms, or the password longer than a line may be
   */
  constructor(duplex: Duplex | Conn, options: ClientOptions = {}) {
    const events = new Broadcast(sessionLimits(options).maxBufferedEvents);
    const sink = {
      push: (event: ManagementEvent) => events.push(event),
      end: (error?: ManagementError) => {
        if (error !== undefined) events.push(parseEvent("FATAL:Error reading from OpenVPN"));
        events.end();
      },
    };
    super(new Session(duplex, options, sink), events);
  }
}
