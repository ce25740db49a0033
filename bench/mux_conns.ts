/**
 * Connections of the adapter of this runtime: what our mux runs on, and what it is measured beside, plain and with TLS 1.3.
 *
 * @module
 */
import {
  auto,
  type Conn,
  type TlsConnectOptions,
  type TlsListenOptions,
} from "@trunkline/sockets/auto";
import { readFileSync } from "node:fs";
import type { Pipe, Stack } from "./mux_stack.ts";

export const ANY_PORT = "127.0.0.1:0";

export const portOf = (addr: object): number => "port" in addr ? Number(addr.port) : NaN;
export const at = (port: number): { readonly hostname: string; readonly port: number } => ({
  hostname: "127.0.0.1",
  port,
});
/** One of the certificates and keys for localhost that the tests use: ECDSA by P-256. */
export const pem = (name: string): string =>
  readFileSync(new URL(`../tests/fixtures/tls/${name}`, import.meta.url), "utf8");

/** A stream of our mux is a Conn, so one way serves both. */
export function pipeOf(conn: Conn): Pipe {
  return {
    async each(take) {
      for (let chunk = await conn.read(); chunk; chunk = await conn.read()) take(chunk);
    },
    write: (bytes) => conn.write(bytes as Uint8Array),
    close: () => conn.close(),
  };
}

export async function serveConns(
  onConn: (conn: Conn) => void,
  tls?: TlsListenOptions,
): Promise<number> {
  const listener = await auto.listen(ANY_PORT, { maxPending: 2000, tls });
  (async () => {
    for await (const conn of listener) onConn(conn);
  })();
  return portOf(listener.addr);
}

export function connectConn(port: number, tls?: TlsConnectOptions): Promise<Conn> {
  return auto.connect(at(port), { tls });
}

/** Connections, one for each stream: no multiplexer, no cryptography. */
export const rawTcp: Stack = {
  name: "raw TCP",
  kinds: ["bulk", "messages", "trips", "handshakes"],
  serve: (onStream) => serveConns((conn) => onStream(pipeOf(conn))),
  connect: (port) => Promise.resolve({ open: async () => pipeOf(await connectConn(port)) }),
};

/** TLS 1.3 of this runtime, no multiplexer; the client checks the certificate, and no session is resumed. */
export const tls13: Stack = {
  name: "TLS 1.3",
  kinds: ["bulk", "handshakes"],
  serve(onStream) {
    const tls = { cert: pem("server.crt"), key: pem("server.key"), minVersion: "TLSv1.3" } as const;
    return serveConns((conn) => onStream(pipeOf(conn)), tls);
  },
  connect(port) {
    const tls = { ca: pem("ca.crt"), minVersion: "TLSv1.3" } as const;
    return Promise.resolve({ open: async () => pipeOf(await connectConn(port, tls)) });
  },
};
