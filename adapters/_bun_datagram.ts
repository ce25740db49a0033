/**
 * Bun's own UDP sockets: unlike node:dgram on Bun they say when the kernel's buffer is full, instead of dropping.
 *
 * @module
 */
import {
  checkDatagram,
  MAX_PENDING_DATAGRAMS,
  pastStaleErrors,
  targetLiteral,
} from "./_datagram.ts";
import { abortable, abortError, connectError, toConnectError } from "./_errors.ts";
import { checkMaxPending, Inbox } from "./_inbox.ts";
import { Multicast, type MulticastSocket } from "./_multicast.ts";
import { runtimeGlobal } from "./_node_builtins.ts";
import { formatAddress, inetAddress } from "./address.ts";
import type {
  Datagram,
  DatagramOptions,
  InetAddress,
  ReceivedDatagram,
  WaitOptions,
} from "./types.ts";

interface BunUdpSocket extends MulticastSocket {
  /** Unlike its `hostname`, which is what was asked for. */
  readonly address: { readonly address: string; readonly port: number };
  /** False if the kernel's buffer is full; then `drain` follows. */
  send(data: Uint8Array, port: number, address: string): boolean;
  close(): void;
}

interface BunUdp {
  udpSocket(options: Record<string, unknown>): Promise<BunUdpSocket>;
}

/** Binds a UDP socket. */
export async function bindBunDatagram(
  at: InetAddress,
  options: DatagramOptions,
): Promise<Datagram> {
  const doing = `binding UDP ${formatAddress(at)}`;
  const { signal } = options;
  checkMaxPending(options.maxPending);
  if (signal?.aborted) throw abortError(signal, doing);
  const bun = runtimeGlobal<BunUdp>("Bun");
  if (bun === undefined) throw connectError("unsupported", `${doing} with Bun`);
  const datagram = new BunDatagram(options, `receiving on UDP ${formatAddress(at)}`);
  // In a function, because Bun throws some errors at once.
  const open = async () =>
    await bun.udpSocket({
      hostname: at.hostname,
      port: at.port,
      socket: {
        data: (_socket: unknown, data: Uint8Array, port: number, host: string) =>
          datagram.received(data, inetAddress(host, port)),
        drain: () => datagram.drained(),
        // A dead port's ICMP answer comes here; UDP promises nothing, so it is no error of ours.
        error: () => {},
      },
    });
  datagram.open(await abortable(open(), signal, doing, (late) => late.close()));
  return datagram;
}

class BunDatagram implements Datagram {
  readonly #inbox: Inbox<ReceivedDatagram>;
  readonly #doing: string;
  #socket!: BunUdpSocket;
  /** Noted, since a closed socket of Bun no longer knows it. */
  #addr!: InetAddress;
  #multicast!: Multicast;
  #close: Promise<void> | undefined;
  /** Sends wait for their turn, so that they leave in the order of the calls. */
  #sending: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;

  constructor(options: DatagramOptions, doing: string) {
    this.#doing = doing;
    this.#inbox = new Inbox(options.maxPending ?? MAX_PENDING_DATAGRAMS, doing);
  }

  open(socket: BunUdpSocket): void {
    this.#socket = socket;
    this.#addr = inetAddress(socket.address.address, socket.address.port);
    this.#multicast = new Multicast(socket, this.#addr, () => this.#close !== undefined);
  }

  received(data: Uint8Array, from: InetAddress): void {
    this.#inbox.push({
      data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      from,
    });
  }

  drained(): void {
    this.#wake?.();
  }

  get addr(): InetAddress {
    return this.#addr;
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
      const host = await targetLiteral(this.#addr, to.hostname, doing);
      await pastStaleErrors(async () => {
        for (;;) {
          if (this.#close !== undefined) throw connectError("closed", doing);
          if (this.#socket.send(data, to.port, host)) return;
          await new Promise<void>((resolve) => this.#wake = resolve);
        }
      });
    } catch (error) {
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
    return this.#close ??= Promise.resolve().then(() => {
      this.#inbox.end(connectError("closed", this.#doing));
      this.#socket.close();
      this.#wake?.();
    });
  }

  [Symbol.asyncIterator](): AsyncGenerator<ReceivedDatagram, void> {
    return this.#inbox.iterate();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
