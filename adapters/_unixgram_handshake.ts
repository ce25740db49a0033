/**
 * How a client and a server tell each other the names of their sockets: 36 bytes in a datagram, each way.
 *
 * @module
 */
import { abortable } from "./_errors.ts";
import { builtin } from "./_node_builtins.ts";
import { openConn, type SocketConn } from "./_socket_conn.ts";
import { UnixgramConn } from "./_unixgram_conn.ts";
import { NAME_BYTES, type OwnUnixgram } from "./_unixgram_socket.ts";

/** A UUID in lower case: nothing that could lead out of a directory. */
const NAME = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The name in a handshake, or `undefined` if that is none. */
export function nameIn(data: Uint8Array): string | undefined {
  if (data.length !== NAME_BYTES) return undefined;
  const name = new TextDecoder().decode(data);
  return NAME.test(name) ? name : undefined;
}

/** Tells a server our name at `path`, and gives back the one that it tells us. */
export async function introduce({ socket, name }: OwnUnixgram, path: string): Promise<string> {
  await socket.send(new TextEncoder().encode(name), path);
  for (;;) {
    const answer = nameIn((await socket.receive()).data);
    if (answer !== undefined) return answer;
  }
}

/** Tells a client our name. */
export function answer(own: OwnUnixgram, peer: string): Promise<void> {
  return own.socket.send(new TextEncoder().encode(own.name), beside(own, peer));
}

/**
 * The connection with a peer that knows our name, as we know its. A client's requests may share a datagram, which the Go server takes for a
 * stream; each answer of a server has one of its own, as the Go package's.
 */
export function openUnixgram(
  own: OwnUnixgram,
  peer: string,
  side: "client" | "server",
  flushTimeoutMs: number | undefined,
): SocketConn {
  const raw = new UnixgramConn(own, { path: beside(own, peer) }, side === "client");
  // A peer sends no end, so there is none to wait for.
  return openConn(raw, { flushTimeoutMs, lingerMs: 0 });
}

function beside({ directory }: OwnUnixgram, name: string): string {
  return builtin("node:path").join(directory, name);
}

/** Waits for `promise`, at most for `timeoutMs` and until `signal` fires. */
export async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
  doing: string,
): Promise<T> {
  const late = new AbortController();
  const reason = new DOMException("the handshake took too long", "TimeoutError");
  const timer = setTimeout(() => late.abort(reason), timeoutMs);
  const signals = signal === undefined ? [late.signal] : [signal, late.signal];
  try {
    return await abortable(promise, AbortSignal.any(signals), doing);
  } finally {
    clearTimeout(timer);
  }
}
