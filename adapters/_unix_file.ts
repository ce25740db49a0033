/**
 * The life of a unix listener's socket file: created with its permissions in a private directory, linked into place, and removed
 * only while it is still ours. No runtime does this; each of them unlinks whatever stands at the path when it closes.
 *
 * @module
 */
import { builtin, platform } from "./_node_builtins.ts";
import { connectError, toConnectError } from "./_errors.ts";
import { formatAddress } from "./address.ts";
import { ConnectError } from "./types.ts";

/** The longest path that fits `sun_path` and its final NUL. Longer ones are cut or refused, by runtime; we refuse. */
export const UNIX_PATH_BYTES: { readonly linux: number; readonly darwin: number } = {
  linux: 107,
  darwin: 103,
};

/** Permission bits of a socket file that nobody asked otherwise for. */
export const SOCKET_MODE = 0o600;
/** How often a path that others take and leave at the same time is tried. */
const TAKEOVER_TRIES = 5;

/** Checks a path, or an abstract name, against what the operating system takes. */
export function checkUnixPath(path: string): void {
  const limit = platform() === "linux" ? UNIX_PATH_BYTES.linux : UNIX_PATH_BYTES.darwin;
  const bytes = new TextEncoder().encode(path).length;
  if (bytes > limit) {
    throw new ConnectError(
      "invalid-address",
      `unix socket path of ${bytes} bytes: at most ${limit} fit`,
    );
  }
  if (path.startsWith("\0") && platform() !== "linux") {
    throw connectError("unsupported", "using an abstract unix address");
  }
}

/** A listener that was bound by {@linkcode bindUnix}, and how to remove its file. */
export interface BoundUnix<T> {
  readonly listener: T;
  /** Removes the socket file if it is still the one that was made here. */
  unlink(): Promise<void>;
}

/**
 * Binds a listener to `path`.
 *
 * @param bind binds to the path that it is given, which is not `path`
 * @param connect tries whether somebody listens at `path`; rejects with a ConnectError
 */
export async function bindUnix<T>(
  path: string,
  mode: number,
  bind: (path: string) => Promise<T>,
  connect: (path: string) => Promise<void>,
  close: (listener: T) => void,
): Promise<BoundUnix<T>> {
  checkUnixPath(path);
  const doing = `listening on ${formatAddress({ path })}`;
  if (path.startsWith("\0")) {
    try {
      return { listener: await bind(path), unlink: () => Promise.resolve() };
    } catch (error) {
      throw toConnectError(error, doing);
    }
  }
  const fs = builtin("node:fs/promises");
  const { dirname, join, resolve } = builtin("node:path");
  const parent = dirname(path);
  let directory: string | undefined;
  let listener: T | undefined;
  try {
    await checkDirectory(parent);
    directory = await fs.mkdtemp(join(parent, "."));
    const made = join(directory, "s");
    checkUnixPath(made);
    listener = await bind(made);
    await fs.chmod(made, mode);
    const ours = await fs.lstat(made, { bigint: true });
    await linkIntoPlace(made, path, join(directory, "old"), connect);
    // Removed by its absolute name: the process may change its directory before it closes.
    const final = resolve(path);
    const unlink = async () => {
      try {
        const now = await fs.lstat(final, { bigint: true });
        if (now.ino === ours.ino && now.dev === ours.dev) await fs.unlink(final);
      } catch {
        // It is gone, or no longer ours to remove.
      }
    };
    return { listener, unlink };
  } catch (error) {
    if (listener !== undefined) close(listener);
    throw toConnectError(error, doing);
  } finally {
    if (directory !== undefined) await removePrivate(directory);
  }
}

/** In a directory that everybody may write to without the sticky bit, anybody can replace our socket. */
async function checkDirectory(parent: string): Promise<void> {
  const { mode } = await builtin("node:fs/promises").lstat(parent, { bigint: true });
  const isDirectory = (mode & 0o170000n) === 0o040000n;
  if (isDirectory && (mode & 0o1002n) === 0o0002n) {
    throw connectError(
      "permission",
      `using ${parent}, which everybody may write to and has no sticky bit`,
    );
  }
}

/** Links `made` to `path`, taking over a socket there that nobody listens to any more. */
async function linkIntoPlace(
  made: string,
  path: string,
  old: string,
  connect: (path: string) => Promise<void>,
): Promise<void> {
  const fs = builtin("node:fs/promises");
  const doing = `listening on ${path}`;
  for (let tries = 0; tries < TAKEOVER_TRIES; tries++) {
    try {
      return await fs.link(made, path);
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
    }
    const there = await lstatOr(path);
    if (there === undefined) continue;
    if (!there.isSocket()) {
      throw new ConnectError("in-use", `${doing}: a file that is no socket is there`);
    }
    if (!await isStale(path, connect)) throw connectError("in-use", doing);
    // Moved away before it is removed: if another process took the path over since we looked, it gets its socket back.
    try {
      await fs.rename(path, old);
    } catch (error) {
      if (hasCode(error, "ENOENT")) continue;
      throw error;
    }
    const taken = await fs.lstat(old, { bigint: true });
    if (taken.ino === there.ino && taken.dev === there.dev) {
      await fs.unlink(old);
      continue;
    }
    await fs.link(old, path).catch(() => {});
    throw connectError("in-use", doing);
  }
  throw connectError("in-use", doing);
}

/** A socket is stale if, and only if, the kernel says that nobody listens: any doubt counts as alive. */
async function isStale(path: string, connect: (path: string) => Promise<void>): Promise<boolean> {
  try {
    await connect(path);
    return false;
  } catch (error) {
    const { code, cause } = error as ConnectError;
    // A full backlog (EAGAIN) counts as refused elsewhere, but somebody lives there.
    return code === "not-found" || (code === "refused" && !hasCode(cause, "EAGAIN"));
  }
}

async function lstatOr(
  path: string,
): Promise<{ ino: bigint; dev: bigint; isSocket(): boolean } | undefined> {
  try {
    return await builtin("node:fs/promises").lstat(path, { bigint: true });
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function removePrivate(directory: string): Promise<void> {
  const fs = builtin("node:fs/promises");
  const { join } = builtin("node:path");
  for (const name of ["s", "old"]) await fs.unlink(join(directory, name)).catch(() => {});
  await fs.rmdir(directory).catch(() => {});
}

function hasCode(error: unknown, code: string): boolean {
  return (error as { code?: unknown } | undefined)?.code === code;
}
