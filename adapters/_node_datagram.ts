/**
 * UDP by node:dgram: on Node, and on Deno (whose own needs an unstable flag).
 *
 * @module
 */
import { abortable, abortError, connectError, toConnectError } from "./_errors.ts";
import { requireNetPermission } from "./_deno_permission.ts";
import { checkMaxPending, Inbox } from "./_inbox.ts";
import { Multicast } from "./_multicast.ts";
import { builtin, type NodeDatagramSocket } from "./_node_builtins.ts";
import { formatAddress, inetAddress, isIPv6 } from "./address.ts";
import {
  checkDatagram,
  MAX_PENDING_DATAGRAMS,
  pastStaleErrors,
  targetLiteral,
} from "./_datagram.ts";
import type {
  Datagram,
  DatagramOptions,
  InetAddress,
  ReceivedDatagram,
  WaitOptions,
} from "./types.ts";

/** Binds a UDP socket. */
export async function bindNodeDatagram(
  at: InetAddress,
  options: DatagramOptions,
): Promise<Datagram> {
  const doing = `binding UDP ${formatAddress(at)}`;
  const { signal } = options;
  checkMaxPending(options.maxPending);
  if (signal?.aborted) throw abortError(signal, doing);
  await requireNetPermission(at, doing);
  let socket: NodeDatagramSocket | undefined;
  try {
    const { createSocket } = builtin("node:dgram");
    const opened = socket = createSocket({
      type: isIPv6(at.hostname) ? "udp6" : "udp4",
      reuseAddr: options.reuseAddress ?? false,
      ...(options.reusePort && { reusePort: true }),
    });
    const bound = new Promise<void>((resolve, reject) => {
      opened.once("listening", () => resolve());
      // Stays, since a late error must not end the process.
      opened.on("error", (error: Error) => reject(error));
    });
    opened.bind({ port: at.port, address: at.hostname, exclusive: true });
    await abortable(bound, signal, doing);
    return new NodeDatagram(opened, options);
  } catch (error) {
    try {
      socket?.close();
    } catch {
      // It never opened.
    }
    throw toConnectError(error, doing);
  }
}

class NodeDatagram implements Datagram {
  readonly addr: InetAddress;
  readonly #socket: NodeDatagramSocket;
  readonly #inbox: Inbox<ReceivedDatagram>;
  readonly #multicast: Multicast;
  #close: Promise<void> | undefined;
  /** Sends wait for their turn: node:dgram on Deno would let them leave in any order. */
  #sending: Promise<void> = Promise.resolve();
  /** Ends the send that is under way, of which a socket that closes tells nothing. */
  #giveUp: (() => void) | undefined;

  constructor(socket: NodeDatagramSocket, options: DatagramOptions) {
    const { address, port } = socket.address();
    this.addr = inetAddress(address, port);
    this.#socket = socket;
    this.#multicast = new Multicast(socket, this.addr, () => this.#close !== undefined);
    this.#inbox = new Inbox(options.maxPending ?? MAX_PENDING_DATAGRAMS, this.#doing);
    socket.on("message", (data: Uint8Array, from: { address: string; port: number }) => {
      this.#inbox.push({
        data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
        from: inetAddress(from.address, from.port),
      });
    });
    socket.on("error", (error: Error) => this.#inbox.fail(toConnectError(error, this.#doing)));
  }

  get #doing(): string {
    return `receiving on UDP ${formatAddress(this.addr)}`;
  }
  get dropped(): number {
    return this.#inbox.dropped;
  }
  get closed(): Promise<void> {
    return this.#inbox.closed;
  }

  send(data: Uint8Array, to: InetAddress | string): Promise<void> {
    const sent = this.#sending.then(() => this.#send(data, to));
    this.#sending = sent.catch(() => {});
    return sent;
  }

  async #send(data: Uint8Array, address: InetAddress | string): Promise<void> {
    const { to, doing } = checkDatagram(data, address, this.#close !== undefined);
    try {
      const host = await targetLiteral(this.addr, to.hostname, doing);
      if (this.#close !== undefined) throw connectError("closed", doing);
      await pastStaleErrors(() =>
        new Promise((resolve, reject) => {
          this.#giveUp = () => reject(connectError("closed", doing));
          this.#socket.send(data, to.port, host, (error) => error ? reject(error) : resolve());
        })
      );
    } catch (error) {
      // Deno fails without a reason where it does not allow.
      await requireNetPermission(to, doing);
      throw toConnectError(error, doing);
    }
  }

  receive(options?: WaitOptions): Promise<ReceivedDatagram> {
    return this.#inbox.take(options);
  }

  joinMulticast(group: string, iface?: string): void {
    this.#multicast.join(group, iface);
  }

  leaveMulticast(group: string, iface?: string): void {
    this.#multicast.leave(group, iface);
  }

  setMulticastInterface(iface: string): void {
    this.#multicast.sendBy(iface);
  }

  close(): Promise<void> {
    return this.#close ??= new Promise((resolve) => {
      this.#inbox.end(connectError("closed", this.#doing));
      this.#socket.close(() => resolve());
      this.#giveUp?.();
    });
  }

  [Symbol.asyncIterator](): AsyncGenerator<ReceivedDatagram, void> {
    return this.#inbox.iterate();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
