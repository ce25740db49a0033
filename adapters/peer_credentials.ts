/**
 * SO_PEERCRED by FFI: no runtime has an API for it (docs/adapters.md).
 *
 * @module
 */
import { findBuiltin, platform, runtimeGlobal, userId } from "./_node_builtins.ts";
import type { PeerCredentials } from "./types.ts";

/** `getsockopt(fd, level, name, value, length)` of the C library. */
type GetSockOpt = (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: Uint8Array,
) => number;

/** Deno.dlopen and bun:ffi, which differ in how a signature is written. */
interface DlopenLike {
  dlopen(
    path: string,
    symbols: Record<string, unknown>,
  ): { readonly symbols: { readonly getsockopt: GetSockOpt }; close(): void };
}
interface NodeFfi {
  readonly DynamicLibrary: new (path: string) => {
    getFunction(name: string, signature: Record<string, unknown>): GetSockOpt;
    close(): void;
  };
}

/** What there has to be. */
export const PEER_CREDENTIALS_TAKE =
  "who is at the other end of a socket: Bun, Deno with --allow-ffi and Node 26 do, on Linux";

const LIBC = "libc.so.6";
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: pid (i32), uid (u32), gid (u32). */
const UCRED_BYTES = 12;

/** Who holds the other end of `fd`, or `undefined` where this runtime or system cannot tell or may not. */
export function readPeerCredentials(fd: number): PeerCredentials | undefined {
  if (platform() !== "linux") return undefined;
  const value = new Uint8Array(UCRED_BYTES);
  const length = new Uint8Array(new Uint32Array([UCRED_BYTES]).buffer);
  if (tryGetSockOpt(fd, value, length) !== 0) return undefined;
  const view = new DataView(value.buffer);
  const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  return {
    pid: view.getInt32(0, littleEndian),
    uid: view.getUint32(4, littleEndian),
    gid: view.getUint32(8, littleEndian),
  };
}

/** Whether a process runs as the user that we are, or as root. */
export function isOwnUser({ uid }: PeerCredentials): boolean {
  return uid === 0 || uid === userId();
}

/** Whether {@linkcode readPeerCredentials} can work here: on Linux, with FFI and the permission for it. */
export function canReadPeerCredentials(): boolean {
  // No file descriptor, so the C library, if it can be reached, says -1.
  return platform() === "linux" && tryGetSockOpt(-1, new Uint8Array(4), new Uint8Array(4)) === -1;
}

/** As getsockopt(2); `undefined` if there is no FFI in this runtime, or no permission for it (Deno: `--allow-ffi`). */
function tryGetSockOpt(fd: number, value: Uint8Array, length: Uint8Array): number | undefined {
  try {
    return callGetSockOpt(fd, value, length);
  } catch {
    return undefined;
  }
}

function callGetSockOpt(fd: number, value: Uint8Array, length: Uint8Array): number | undefined {
  const call = (getsockopt: GetSockOpt) => getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length);
  const deno = runtimeGlobal<DlopenLike>("Deno");
  const dlopen = deno ?? (findBuiltin("bun:ffi") as DlopenLike | undefined);
  if (dlopen !== undefined) {
    const buffer = deno ? "buffer" : "ptr";
    const types = ["i32", "i32", "i32", buffer, buffer];
    const signature = deno ? { parameters: types, result: "i32" } : { args: types, returns: "i32" };
    const library = dlopen.dlopen(LIBC, { getsockopt: signature });
    const result = call(library.symbols.getsockopt);
    library.close();
    return result;
  }
  const node = findBuiltin("node:ffi") as NodeFfi | undefined;
  if (node === undefined) return undefined;
  const types = ["int32", "int32", "int32", "buffer", "buffer"];
  const library = new node.DynamicLibrary(LIBC);
  // The keys were renamed between the releases of Node 26.
  const signature = { arguments: types, return: "int32", parameters: types, result: "int32" };
  const result = call(library.getFunction("getsockopt", signature));
  library.close();
  return result;
}
