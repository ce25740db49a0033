/**
 * What a runtime has to offer for datagrams between files, and the sockets of a random name that each connection has.
 *
 * @module
 */
import { toConnectError } from "./_errors.ts";
import { builtin, environment } from "./_node_builtins.ts";
import { checkUnixPath, SOCKET_MODE } from "./_unix_file.ts";
import { ConnectError } from "./types.ts";

/** A datagram as it came. */
export interface UnixgramReceived {
  /** May be empty; belongs to the caller. */
  readonly data: Uint8Array;
  /** The path of the sender's socket; `undefined` if it has none, or the runtime does not tell. */
  readonly from: string | undefined;
}

/** A datagram socket that is bound to a file. Calls may fail with anything that `toConnectError` knows. */
export interface UnixgramSocket {
  /** Sends one datagram; waits while the queue of the socket at `path` is full. Never called while one is being sent. */
  send(bytes: Uint8Array, path: string): Promise<void>;
  /** Waits for the next datagram; never called while a call is pending. What nobody asks for stays with the kernel. */
  receive(): Promise<UnixgramReceived>;
  /** Pending calls reject. The file stays, which is so on every runtime. */
  close(): void;
}

/** Binds a socket to a file that is not there yet. */
export type BindUnixgram = (path: string) => UnixgramSocket;

/** How long the name of a socket is that has one of ours. */
export const NAME_BYTES = 36;
/** Memory that datagrams are read into; Bun has as much. One that fills it may have been cut off. */
export const RECEIVE_BYTES: number = 512 * 1024;

/** Refuses a datagram of which the end may be missing. */
export function requireWhole(data: Uint8Array): void {
  if (data.length < RECEIVE_BYTES) return;
  const text = `a datagram of ${RECEIVE_BYTES} bytes or more, of which the end may be missing`;
  throw new ConnectError("other", text);
}

/**
 * Where the Go package has its sockets: `$TMPDIR`, or `/tmp`. Node's own tmpdir() knows more variables.
 *
 * @throws {ConnectError} `permission` on Deno without `--allow-env=TMPDIR`, `invalid-address` if the names of sockets do not fit
 */
export function goTemporaryDirectory(): string {
  const doing = "looking for the directory of temporary files";
  try {
    const directory = builtin("node:path").resolve(environment("TMPDIR") || "/tmp");
    checkUnixPath(builtin("node:path").join(directory, "x".repeat(NAME_BYTES)));
    return directory;
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

/** A socket of ours, and its file. */
export interface OwnUnixgram {
  readonly socket: UnixgramSocket;
  /** The name in the handshake, of a file in `directory`. */
  readonly name: string;
  readonly directory: string;
  readonly path: string;
  /** Closes the socket and removes the file; may be called again. */
  close(): void;
}

/** Binds a socket to a new random name in `directory`, where its user alone may send to it. */
export function bindOwn(bind: BindUnixgram, directory: string): OwnUnixgram {
  const fs = builtin("node:fs");
  const name = crypto.randomUUID();
  const path = builtin("node:path").join(directory, name);
  const socket = bind(path);
  let closed = false;
  const close = () => {
    if (closed) return;
    closed = true;
    socket.close();
    try {
      fs.unlinkSync(path);
    } catch {
      // Somebody cleaned up before.
    }
  };
  try {
    // In the same turn. Until here it has the bits that the umask left, as Go's sockets always have.
    fs.chmodSync(path, SOCKET_MODE);
  } catch (error) {
    close();
    throw error;
  }
  return { socket, name, directory, path, close };
}
