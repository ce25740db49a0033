/** A `ReconnectingClient` of simulated OpenVPNs, and a test that ends its connections. */
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  type ConnectionGap,
  type ManagementEvent,
  ReconnectingClient,
  type ReconnectOptions,
} from "@trunkline/sockets/ovpn";
import {
  simulateDaemon,
  type SimulatedDaemon,
  type SimulatorOptions,
} from "@trunkline/sockets/ovpn/testing";

export const FAST = { minDelayMs: 1, maxDelayMs: 2 };

/** A client, and its OpenVPN. */
export interface Started {
  readonly client: ReconnectingClient;
  readonly events: AsyncIterableIterator<ManagementEvent, undefined>;
  /** What the OpenVPN was sent; `lose()` empties it. */
  readonly commands: string[];
  /** The first one. */
  readonly daemon: SimulatedDaemon;
  /** Another process for the next connection. */
  replace(more?: SimulatorOptions): SimulatedDaemon;
  /** Ends the connection; the next one begins when `meanwhile` is done. */
  lose(meanwhile?: () => unknown): Promise<ConnectionGap>;
  end(): Promise<void>;
}

/** A client of whatever OpenVPN there is when it connects; `lose()` ends the connection. */
export function start(
  simulated: SimulatorOptions = {},
  options: ReconnectOptions = {},
): Started {
  const commands: string[] = [];
  const simulate = (more: SimulatorOptions = {}) =>
    simulateDaemon({
      ...simulated,
      onCommand: (parameters) => void commands.push(parameters.join(" ")),
      ...more,
    });
  const first = simulate();
  const daemons: SimulatedDaemon[] = [first];
  let current: Conn | undefined;
  /** The next connection waits for it. */
  let open: Promise<void> = Promise.resolve();
  const connect = async () => {
    await open;
    const [ours, theirs] = connPair();
    current = theirs;
    daemons.at(-1)!.serve(theirs);
    return ours;
  };
  const client = new ReconnectingClient(connect, { ...FAST, ...options });
  const events = client.subscribe();
  return {
    client,
    events,
    commands,
    daemon: first,
    replace: (more?: SimulatorOptions) => {
      daemons.push(simulate(more));
      return daemons.at(-1)!;
    },
    lose: async (meanwhile: () => unknown = () => {}) => {
      const gate = Promise.withResolvers<void>();
      open = gate.promise;
      commands.length = 0;
      current!.abort();
      await until(events, "disconnected");
      await meanwhile();
      gate.resolve();
      return (await until(events, "resumed")).gap!;
    },
    end: async () => {
      await client.close();
      for (const daemon of daemons) await daemon.close();
    },
  };
}

/** The next event of a type. */
export async function until<Type extends ManagementEvent["type"]>(
  events: AsyncIterator<ManagementEvent, undefined>,
  type: Type,
): Promise<Extract<ManagementEvent, { readonly type: Type }>> {
  for (;;) {
    const { done, value } = await events.next();
    if (done) throw new Error(`the events ended before ${type}`);
    if (value.type === type) return value as Extract<ManagementEvent, { readonly type: Type }>;
  }
}
