/**
 * A directory for sockets that nobody else can enter.
 *
 * @module
 */
import { connectError, toConnectError } from "./_errors.ts";
import { builtin, environment, type Stats, userId } from "./_node_builtins.ts";

/** Of the directory that is made where the system gives none; the id of the user follows. */
const NAME = "sockets-";

/**
 * `$XDG_RUNTIME_DIR`, or a directory of mode 0700 in that for temporary files. Deno asks for `--allow-env`, `--allow-sys=uid` (with
 * `$XDG_RUNTIME_DIR`: for `--allow-env=XDG_RUNTIME_DIR`), and
 * `--allow-read` and `--allow-write` of it.
 *
 * @throws {ConnectError} `permission` if somebody else can enter it
 */
export async function runtimeDirectory(): Promise<string> {
  const doing = "looking for a directory for sockets";
  try {
    const fs = builtin("node:fs/promises");
    const given = environment("XDG_RUNTIME_DIR");
    if (given?.startsWith("/")) {
      requirePrivate(given, await fs.stat(given, { bigint: true }));
      return given;
    }
    const uid = userId();
    const path = builtin("node:path").join(builtin("node:os").tmpdir(), `${NAME}${uid ?? "user"}`);
    await fs.mkdir(path, { mode: 0o700 }).catch((error) => {
      if (error.code !== "EEXIST") throw error;
    });
    // Not what a link leads to: anybody can put one there.
    requirePrivate(path, await fs.lstat(path, { bigint: true }));
    return path;
  } catch (error) {
    throw toConnectError(error, doing);
  }
}

/** @throws {ConnectError} `permission` */
function requirePrivate(path: string, found: Stats): void {
  const us = knownUser();
  const ours = us === undefined || found.uid === BigInt(us);
  if (found.isDirectory() && ours && (found.mode & 0o077n) === 0n) return;
  throw connectError("permission", `using ${path}, which others can enter, or own`);
}

/** Without the permission to know it, the bits of the mode have to do: somebody else's directory that only its owner enters is of no use. */
function knownUser(): number | undefined {
  try {
    return userId();
  } catch {
    return undefined;
  }
}
