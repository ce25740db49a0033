/** What the tests of unixgram share: a directory of their own, and peers that speak datagram by datagram. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { bunUnixgram } from "../adapters/_unixgram_bun.ts";
import { denoUnixgram } from "../adapters/_unixgram_deno.ts";
import type { OwnUnixgram, UnixgramSocket } from "../adapters/_unixgram_socket.ts";
import { bindOwn } from "../adapters/_unixgram_socket.ts";

interface DenoDatagram {
  send(bytes: Uint8Array, to: DenoAddress): Promise<number>;
  close(): void;
}
interface DenoAddress {
  readonly transport: "unixpacket";
  readonly path: string;
}
type ListenDatagram = (address: DenoAddress) => DenoDatagram;

/** Deno's own, which is only there with its flag. */
export const denoDatagram: ListenDatagram | undefined =
  (globalThis as { readonly Deno?: { readonly listenDatagram?: ListenDatagram } })
    .Deno?.listenDatagram;
const BUN = "Bun" in globalThis;
/** Whether this runtime has datagrams between files: Bun, and Deno with its flag. */
export const SUPPORTED: boolean = BUN || denoDatagram !== undefined;

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));

/** Bytes that tell where they are. */
export const pattern = (length: number): Uint8Array =>
  new Uint8Array(length).map((_, i) => i * 31 + 7);

export function bind(path: string): UnixgramSocket {
  return (BUN ? bunUnixgram : denoUnixgram)("testing")(path);
}

/** A directory, which is that for temporary files meanwhile: `list()` tells what is in it, `path()` names a file in it. */
export async function inDirectory(
  body: (path: (name: string) => string, list: () => string[]) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "gram-"));
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = directory;
  try {
    await body((name) => join(directory, name), () => readdirSync(directory).sort());
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The client's, or the server's, end of a connection as the Go package has it. */
export interface RawPeer {
  /** Sends to our side, each as one datagram. */
  send(...datagrams: readonly Uint8Array[]): Promise<void>;
  receive(): Promise<Uint8Array>;
  close(): void;
  readonly own: OwnUnixgram;
}

const directoryOf = (path: string) => path.replace(/\/[^/]*$/, "");

function rawPeer(own: OwnUnixgram, to: string): RawPeer {
  return {
    own,
    close: () => own.close(),
    send: async (...datagrams) => {
      for (const datagram of datagrams) await own.socket.send(datagram, to);
    },
    receive: async () => (await own.socket.receive()).data,
  };
}

/** Dials as the Go client does. */
export async function rawClient(setup: string): Promise<RawPeer> {
  const own = bindOwn(bind, directoryOf(setup));
  await own.socket.send(bytes(own.name), setup);
  const { data } = await own.socket.receive();
  return rawPeer(own, join(directoryOf(setup), text(data)));
}

/** Takes one handshake at `setup`, as the Go server does. */
export async function rawServer(setup: string): Promise<RawPeer> {
  const door = bind(setup);
  const { data } = await door.receive();
  door.close();
  const peer = rawPeer(bindOwn(bind, directoryOf(setup)), join(directoryOf(setup), text(data)));
  await peer.send(bytes(peer.own.name));
  return peer;
}
