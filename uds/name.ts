/**
 * Where a server is that has a name.
 *
 * @module
 */
import { toAddress } from "../adapters/address.ts";
import { runtimeDirectory } from "../adapters/runtime_directory.ts";
import { goTemporaryDirectory } from "../adapters/unixgram.ts";
import { type Address, ConnectError } from "../adapters/types.ts";

/**
 * The address of a server: with a slash in it a path, as it is; behind `@` or NUL an abstract name of Linux, as it is; anything else the name
 * of a socket in a directory that only this user can enter, `$XDG_RUNTIME_DIR` or one in that for temporary files.
 *
 * @throws {ConnectError} `invalid-address` for `.`, `..`, nothing and what is too long; `permission` if others can enter that directory
 */
export async function socketAddress(name: string): Promise<Address> {
  requireName(name);
  if (name.startsWith("@")) return toAddress({ path: `\0${name.slice(1)}` });
  if (name.startsWith("\0") || name.includes("/")) return toAddress({ path: name });
  return toAddress({ path: `${await runtimeDirectory()}/${name}` });
}

/** Where the Go package looks: a path as it is, and a name in the directory for temporary files. @throws {ConnectError} `invalid-address` */
export function unixgramPath(name: string): string {
  requireName(name);
  return /^[@\0]|\//.test(name) ? name : `${goTemporaryDirectory()}/${name}`;
}

function requireName(name: string): void {
  if (typeof name !== "string") throw new TypeError("the name of a server is no text");
  if (name !== "" && name !== "." && name !== "..") return;
  throw new ConnectError("invalid-address", `the name ${JSON.stringify(name)} of a server`);
}
