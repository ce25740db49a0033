/**
 * The transport of the Go package domainsockets: datagrams between socket files, and the handshake by which a client and a server tell each
 * other the names of these (docs/uds.md). On Deno with `--unstable-net`, and on Bun on Linux.
 *
 * @module
 */
import { abortError, toConnectError } from "./_errors.ts";
import { builtin, runtimeGlobal } from "./_node_builtins.ts";
import { checkOptions } from "./_options.ts";
import { bindUnix, checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { bunUnixgram } from "./_unixgram_bun.ts";
import { denoUnixgram } from "./_unixgram_deno.ts";
import { introduce, openUnixgram, within } from "./_unixgram_handshake.ts";
import { UnixgramListener } from "./_unixgram_listener.ts";
import {
  bindOwn,
  type BindUnixgram,
  goTemporaryDirectory,
  type OwnUnixgram,
  type UnixgramSocket,
} from "./_unixgram_socket.ts";
import { toAddress } from "./address.ts";
import { requireLimits } from "./limits.ts";
import {
  type Conn,
  ConnectError,
  type Listener,
  type UnixAddress,
  type WaitOptions,
} from "./types.ts";

export { goTemporaryDirectory } from "./_unixgram_socket.ts";
export { UNIXGRAM_BYTES } from "./_unixgram_cutter.ts";

/** Default of `handshakeTimeoutMs`. */
export const UNIXGRAM_HANDSHAKE_TIMEOUT_MS = 5_000;
/** Default of `maxPeers`. */
export const UNIXGRAM_MAX_PEERS = 1024;
/** How long to wait for room in the queue of a socket that may be stale: one that has none is not. */
const PROBE_MS = 100;

/** Options of {@linkcode connectUnixgram}. `signal` ends the handshake. */
export interface UnixgramConnectOptions extends WaitOptions {
  /** How long a handshake may take, in milliseconds, 1 to 2147483647. @default 5000 */
  readonly handshakeTimeoutMs?: number | undefined;
  /** How long `close()` may take to send what was written, in milliseconds, 1 to 2147483647. @default 30000 */
  readonly flushTimeoutMs?: number | undefined;
}

/** Options of {@linkcode listenUnixgram}. `signal` ends the wait until it listens. */
export interface UnixgramListenOptions extends UnixgramConnectOptions {
  /**
   * How many clients there may be, connected or about to be; handshakes of more are ignored, and counted in `Listener.dropped`. Each has a
   * socket and a file. @default 1024
   */
  readonly maxPeers?: number | undefined;
}

/**
 * Connects to the server that takes handshakes at `path`. What is written leaves in datagrams of at most {@linkcode UNIXGRAM_BYTES} bytes,
 * and what comes in is read as one stream. It has no end: neither side hears of the other's `close()`, but a write to a peer that has gone
 * rejects with `broken-pipe`. The socket file of ours, of mode 0600 in {@linkcode goTemporaryDirectory}, goes with the connection.
 *
 * @throws {ConnectError} `unsupported`, `not-found`, `refused`, `timeout` if the server does not answer, `aborted`, ...
 */
export async function connectUnixgram(
  path: string,
  options: UnixgramConnectOptions = {},
): Promise<Conn> {
  const { handshakeTimeoutMs } = checkLimits(options);
  const to = setupAddress(path);
  const doing = `connecting to ${to.path} by datagrams`;
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  const bind = binder(doing);
  let own: OwnUnixgram | undefined;
  try {
    own = bindOwn(bind, goTemporaryDirectory());
    const peer = await within(introduce(own, to.path), handshakeTimeoutMs, signal, doing);
    return openUnixgram(own, peer, "client", options.flushTimeoutMs);
  } catch (error) {
    own?.close();
    throw toConnectError(error, doing);
  }
}

/**
 * Takes handshakes at `path`, whose file has the mode 0600: a stale one is taken over, and never a live one. Each client becomes a connection
 * like that of {@linkcode connectUnixgram}. What is no handshake is counted in `dropped`.
 *
 * @throws {ConnectError} `unsupported`, `in-use`, `permission`, ...
 */
export async function listenUnixgram(
  path: string,
  options: UnixgramListenOptions = {},
): Promise<Listener> {
  const limits = checkLimits(options);
  const addr = setupAddress(path);
  const doing = `listening on ${addr.path} for datagrams`;
  const { signal, flushTimeoutMs } = options;
  if (signal?.aborted) throw abortError(signal, doing);
  const bind = binder(doing);
  const directory = goTemporaryDirectory();
  let socket: UnixgramSocket;
  const { unlink } = await bindUnix(
    addr.path,
    SOCKET_MODE,
    (path) => Promise.resolve(socket = bind(path)),
    // An empty datagram, which no server takes for a handshake, is refused only where nobody is bound. Connecting a stream to such a path
    // would disturb even less, but Bun tells the refusals apart no more.
    (path) => within(socket.send(new Uint8Array(), path), PROBE_MS, signal, doing),
    (socket) => socket.close(),
  );
  return new UnixgramListener({
    ...limits,
    addr,
    bind,
    directory,
    socket: socket!,
    unlink,
    flushTimeoutMs,
  });
}

/** @throws {ConnectError} `unsupported` */
function binder(doing: string): BindUnixgram {
  if (runtimeGlobal("Bun") !== undefined) return bunUnixgram(doing);
  if (runtimeGlobal("Deno") !== undefined) return denoUnixgram(doing);
  const who = "Deno with --unstable-net and Bun on Linux can";
  throw new ConnectError("unsupported", `${doing}: this runtime cannot, ${who}`);
}

/** Where a server takes handshakes, whatever the working directory becomes. */
function setupAddress(path: string): UnixAddress {
  toAddress({ path });
  if (path.startsWith("\0")) {
    throw new ConnectError("invalid-address", "a unixgram socket has a path, no abstract name");
  }
  const absolute = builtin("node:path").resolve(path);
  checkUnixPath(absolute);
  return { path: absolute };
}

/** @throws {RangeError} */
function checkLimits({ flushTimeoutMs, handshakeTimeoutMs, maxPeers }: UnixgramListenOptions) {
  checkOptions({ flushTimeoutMs });
  const limits = {
    handshakeTimeoutMs: handshakeTimeoutMs ?? UNIXGRAM_HANDSHAKE_TIMEOUT_MS,
    maxPeers: maxPeers ?? UNIXGRAM_MAX_PEERS,
  };
  requireLimits(limits);
  return limits;
}
