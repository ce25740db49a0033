/**
 * Datagrams between files on Deno: its "unixpacket" sockets, which are SOCK_DGRAM and an unstable feature.
 *
 * @module
 */
import { runtimeGlobal } from "./_node_builtins.ts";
import {
  type BindUnixgram,
  RECEIVE_BYTES,
  type UnixgramReceived,
  type UnixgramSocket,
} from "./_unixgram_socket.ts";
import { ConnectError } from "./types.ts";

interface DenoAddress {
  readonly transport: "unixpacket";
  readonly path?: string;
}
interface DenoDatagram {
  /** Waits while the queue is full. */
  send(bytes: Uint8Array, to: DenoAddress): Promise<number>;
  receive(into: Uint8Array): Promise<[Uint8Array, { readonly path: string | null }]>;
  close(): void;
}
interface DenoLike {
  /** Only there with `--unstable-net`. */
  listenDatagram?(address: DenoAddress): DenoDatagram;
}

/** @throws {ConnectError} `unsupported` without `--unstable-net` */
export function denoUnixgram(doing: string): BindUnixgram {
  const deno = runtimeGlobal<DenoLike>("Deno");
  if (deno?.listenDatagram === undefined) {
    throw new ConnectError("unsupported", `${doing}: Deno needs the flag --unstable-net for that`);
  }
  const open = (address: Omit<DenoAddress, "transport">) =>
    deno.listenDatagram!({ transport: "unixpacket", ...address });
  return (path) => new DenoUnixgram(open({ path }), () => open({}));
}

class DenoUnixgram implements UnixgramSocket {
  readonly #receiver: DenoDatagram;
  readonly #openSender: () => DenoDatagram;
  /** A socket without a name, as in the Go package: Deno's cannot send while they wait for something to come. */
  #sender: DenoDatagram | undefined;
  #room: Uint8Array | undefined;

  constructor(receiver: DenoDatagram, openSender: () => DenoDatagram) {
    this.#receiver = receiver;
    this.#openSender = openSender;
  }

  async send(bytes: Uint8Array, path: string): Promise<void> {
    this.#sender ??= this.#openSender();
    await this.#sender.send(bytes, { transport: "unixpacket", path });
  }

  async receive(): Promise<UnixgramReceived> {
    this.#room ??= new Uint8Array(RECEIVE_BYTES);
    const [data, { path }] = await this.#receiver.receive(this.#room);
    return { data: data.slice(), from: path ?? undefined };
  }

  close(): void {
    this.#receiver.close();
    this.#sender?.close();
  }
}
