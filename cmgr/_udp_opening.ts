/**
 * Opening UDP sockets.
 *
 * @module
 */
import {
  ConnectError,
  type Datagram,
  type DatagramOptions,
  type InetAddress,
  type Transport,
} from "../adapters/types.ts";
import { bindAt, type ListenKind } from "./_binding.ts";
import { definedOf, type ListenerOptions } from "./options.ts";

/** What the adapters are told of a UDP socket. */
function datagramOptions(options: ListenerOptions): DatagramOptions {
  const { maxPendingDatagrams: maxPending, reuseAddress, reusePort, signal } = options;
  return definedOf({ maxPending, reuseAddress, reusePort, signal });
}

/** A socket at `iface` and `port`. @throws {ConnectError} */
export function openUdp(
  transport: Transport,
  kind: ListenKind,
  iface: string,
  port: number,
  options: ListenerOptions,
): Promise<Datagram> {
  const open = (at: InetAddress) => transport.bindDatagram(at, datagramOptions(options));
  return bindAt(kind, iface, port, open);
}

/** A socket that gets what is sent to a group, and to its port at this machine. @throws {ConnectError} */
export async function openMulticast(
  transport: Transport,
  iface: string,
  { hostname, port }: InetAddress,
  options: ListenerOptions,
): Promise<Datagram> {
  if (port === 0) throw new ConnectError("invalid-address", `group ${hostname}: port 0`);
  const any = hostname.includes(":") ? "::" : "0.0.0.0";
  const shared = { ...datagramOptions(options), reuseAddress: true };
  const datagram = await transport.bindDatagram({ hostname: any, port }, shared);
  try {
    datagram.joinMulticast(hostname, iface === "" ? undefined : iface);
    return datagram;
  } catch (error) {
    await datagram.close();
    throw error;
  }
}
