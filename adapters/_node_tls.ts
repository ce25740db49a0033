/**
 * TLS by node:tls, on every runtime: only there can certificates be asked for, looked at and checked the same way.
 *
 * @module
 */
import { codedError, connectError } from "./_errors.ts";
import { builtin, type NodeServer, type NodeSocket, runtimeGlobal } from "./_node_builtins.ts";
import { NodeRawSocket, type SocketPath } from "./_node_socket.ts";
import type { RawSocket } from "./_socket_conn.ts";
import { TlsOverRaw } from "./_tls_over_raw.ts";
import { formatAddress, isIP } from "./address.ts";
import type { Address, TlsConnectOptions, TlsListenOptions, TlsOptions } from "./types.ts";

/** Default of `handshakeTimeoutMs`. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/**
 * On a socket of its own, node:tls of Deno takes whatever is written without end, and stops for ever when it is paused. On a
 * Duplex of ours both directions wait as they should.
 */
const needsDuplex = (): boolean => runtimeGlobal("Deno") !== undefined;

function commonOptions(tls: TlsOptions): Record<string, unknown> {
  return {
    allowHalfOpen: true,
    ...(tls.ca !== undefined && { ca: tls.ca }),
    ...(tls.cert !== undefined && { cert: tls.cert }),
    ...(tls.key !== undefined && { key: tls.key }),
    ...(tls.alpn !== undefined && { ALPNProtocols: tls.alpn }),
    minVersion: tls.minVersion ?? "TLSv1.2",
  };
}

/** Checks what a caller can get wrong before a connection is made for it. */
export function clientOptions(tls: TlsConnectOptions, to: Address): Record<string, unknown> {
  const name = tls.serverName ?? ("path" in to ? undefined : to.hostname);
  if (name === undefined) {
    throw new TypeError(
      `connecting to ${formatAddress(to)}: TLS over a unix socket needs serverName`,
    );
  }
  return {
    ...commonOptions(tls),
    // SNI carries no IP literals; `host` is what the certificate is then compared with.
    ...(isIP(name) ? { host: name } : { servername: name }),
    rejectUnauthorized: tls.verify ?? true,
  };
}

/** Starts TLS on a connected socket; `secured` resolves with what to read and write. */
export function startTls(
  socket: NodeSocket,
  options: Record<string, unknown>,
  path: SocketPath | undefined,
): { secured: Promise<RawSocket>; destroy(): void } {
  const over = needsDuplex() ? new TlsOverRaw(new NodeRawSocket(socket, path)) : undefined;
  const secure = builtin("node:tls").connect({ ...options, socket: over?.duplex ?? socket });
  const secured = new Promise<RawSocket>((resolve, reject) => {
    secure.once(
      "secureConnect",
      () => resolve(over?.secured(secure) ?? new NodeRawSocket(secure, path)),
    );
    secure.on("error", (error: Error) => reject(error));
    secure.once("close", () => reject(codedError("ECONNRESET")));
  });
  return { secured, destroy: () => secure.destroy() };
}

/** A server that does the handshakes and calls `accept` with what came of each and the `connection` it was, or `fail`. */
export function createTlsServer(
  tls: TlsListenOptions,
  path: SocketPath | undefined,
  accept: (raw: RawSocket, connection: NodeSocket) => void,
  fail: () => void,
): NodeServer {
  const { createServer } = builtin("node:tls");
  // Deno would tell at the first client only, and then only that client.
  if (!tls.cert?.includes("-----BEGIN CERTIFICATE-----") || !tls.key?.includes(" KEY-----")) {
    throw connectError("tls", "listening: cert and key in PEM are needed");
  }
  const options = {
    ...commonOptions(tls),
    requestCert: tls.requireClientCert ?? false,
    rejectUnauthorized: tls.requireClientCert ?? false,
    handshakeTimeout: tls.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
  };
  if (!needsDuplex()) {
    return createServer(options)
      .on("secureConnection", (socket: NodeSocket) =>
        // On Bun it is the connection itself.
        accept(new NodeRawSocket(socket, path), socket._parent ?? socket))
      .on("tlsClientError", (_error: Error, socket: NodeSocket) => {
        // Node leaves that to us: one that keeps silent would stay for ever.
        socket.destroy();
        fail();
      });
  }
  return builtin("node:net").createServer({ allowHalfOpen: true })
    .on("connection", (socket: NodeSocket) => {
      // A server for each connection, because the socket that it makes does not say which one it is for.
      const over = new TlsOverRaw(new NodeRawSocket(socket, path));
      createServer(options)
        .on("secureConnection", (secure: NodeSocket) => accept(over.secured(secure), socket))
        .on("tlsClientError", (_error: Error) => {
          over.duplex.destroy();
          fail();
        })
        .emit("connection", over.duplex);
    });
}
