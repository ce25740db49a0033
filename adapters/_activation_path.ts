/**
 * Where an inherited unix socket is: no runtime tells (docs/adapters.md).
 *
 * @module
 */
import { findBuiltin } from "./_node_builtins.ts";

/** A line of /proc/net/unix: six columns of numbers, the inode, and the path, which an unnamed socket has not. */
const LINE = /^(?:\S+ +){6}(\d+) (.+)$/;

/** The path, or abstract name, of a unix socket; undefined for any other descriptor, off Linux, and on a Deno that does not let us read it. */
export async function unixPathOf(fd: number): Promise<string | undefined> {
  const fs = findBuiltin("node:fs/promises");
  try {
    const [, inode] = /^socket:\[(\d+)\]$/.exec(await fs!.readlink(`/proc/self/fd/${fd}`)) ?? [];
    if (inode === undefined) return undefined;
    for (const line of (await fs!.readFile("/proc/net/unix", "utf8")).split("\n")) {
      const [, number, path = ""] = LINE.exec(line) ?? [];
      // The kernel shows NUL as `@`; a path that really begins with that is a relative one, and nobody hands those over.
      if (number === inode) return path.startsWith("@") ? `\0${path.slice(1)}` : path;
    }
  } catch {
    // What it is good for is told to people; that it is not known is no reason to fail.
  }
  return undefined;
}
