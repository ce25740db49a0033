/**
 * TLS by node:tls, on every runtime: only there can certificates be asked for, looked at and checked the same way.
 *
 * @module
 */
import { codedError, connectError } from "./_errors.ts";
import { builtin, type NodeSocket, runtimeGlobal } from "./_node_builtins.ts";
import { NodeRawSocket, type SocketPath } from "./_node_socket.ts";
import { checkPem } from "./_pem.ts";
import type { RawSocket } from "./_raw_socket.ts";
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

/** What came of a handshake, and the connection that it was for. */
type Accept = (raw: RawSocket, connection: NodeSocket) => void;

/** Does the handshakes of a listener. */
export class TlsAcceptor {
  readonly #path: SocketPath | undefined;
  readonly #accept: Accept;
  readonly #fail: () => void;
  #shake!: (connection: NodeSocket) => void;

  /** @param fail called for a handshake of which nothing came */
  constructor(path: SocketPath | undefined, accept: Accept, fail: () => void) {
    this.#path = path;
    this.#accept = accept;
    this.#fail = fail;
  }

  /**
   * From here on handshakes go by `tls`. By a server of its own that never listens: setSecureContext() changes neither ALPN nor
   * whether a client must show a certificate, and clients could come back by a ticket that was given under the old rules.
   *
   * @throws {ConnectError} `tls`; then all is as before
   */
  use(tls: TlsListenOptions, doing: string): void {
    checkPem(tls, doing);
    const required = tls.requireClientCert ?? false;
    const options = {
      ...commonOptions(tls),
      requestCert: required,
      rejectUnauthorized: required,
      handshakeTimeout: tls.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
    };
    try {
      this.#shake = needsDuplex() ? this.#overDuplex(options) : this.#direct(options);
    } catch (error) {
      throw connectError("tls", doing, error);
    }
  }

  /** Starts the handshake of a connection. */
  shake(connection: NodeSocket): void {
    this.#shake(connection);
  }

  #direct(options: Record<string, unknown>): (connection: NodeSocket) => void {
    const server = builtin("node:tls").createServer(options)
      .on(
        "secureConnection",
        (secure: NodeSocket) => {
          secure.allowHalfOpen = true;
          this.#accept(new NodeRawSocket(secure, this.#path), secure._parent!);
        },
      )
      .on("tlsClientError", (_error: Error, secure: NodeSocket) => {
        // Node leaves that to us: one that keeps silent would stay for ever.
        secure.destroy();
        this.#fail();
      });
    return (connection) => {
      // A client that ends within its handshake leaves nothing to be said; without this it would stay until the time is over.
      connection.allowHalfOpen = false;
      server.emit("connection", connection);
    };
  }

  #overDuplex(options: Record<string, unknown>): (connection: NodeSocket) => void {
    const { createServer } = builtin("node:tls");
    return (connection) => {
      // A server for each connection, because the socket that it makes does not say which one it is for.
      const over = new TlsOverRaw(new NodeRawSocket(connection, this.#path));
      createServer(options)
        .on(
          "secureConnection",
          (secure: NodeSocket) => this.#accept(over.secured(secure), connection),
        )
        .on("tlsClientError", (_error: Error) => {
          over.duplex.destroy();
          this.#fail();
        })
        .emit("connection", over.duplex);
    };
  }
}
