/**
 * A directory for sockets that nobody else can enter.
 *
 * @module
 */
import { connectError, toConnectError } from "./_errors.ts";
import { builtin, environment, userId } from "./_node_builtins.ts";

/** Of the directory that is made where the system gives none; the id of the user follows. */
const NAME = "sockets-";

/**
 * `$XDG_RUNTIME_DIR`, or a directory of mode 0700 in that for temporary files. Deno asks for `--allow-env`, `--allow-sys=uid`, and
 * `--allow-read` and `--allow-write` of it.
 *
 * @throws {ConnectError} `permission` if somebody else can enter it
 */
export async function runtimeDirectory(): Promise<string> {
  const doing = "looking for a directory for sockets";
  try {
    const given = environment("XDG_RUNTIME_DIR");
    if (given?.startsWith("/")) return given;
    const fs = builtin("node:fs/promises");
    const uid = userId();
    const path = builtin("node:path").join(builtin("node:os").tmpdir(), `${NAME}${uid ?? "user"}`);
    await fs.mkdir(path, { mode: 0o700 }).catch((error) => {
      if (error.code !== "EEXIST") throw error;
    });
    const found = await fs.lstat(path, { bigint: true });
    const ours = uid === undefined || found.uid === BigInt(uid);
    if (!found.isDirectory() || !ours || (found.mode & 0o077n) !== 0n) {
      throw connectError("permission", `using ${path}, which others can enter`);
    }
    return path;
  } catch (error) {
    throw toConnectError(error, doing);
  }
}
