/**
 * The life of a unix listener's socket file: created with its permissions in a private directory, linked into place, and removed
 * only while it is still ours. No runtime does this; each of them unlinks whatever stands at the path when it closes.
 *
 * @module
 */
import { builtin, platform, type Stats } from "./_node_builtins.ts";
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
/** How often, and how long apart, a path is tried that others take over at the same time: 1 second in all. */
const TAKEOVER_TRIES = 50;
const TAKEOVER_WAIT_MS = 20;
/** Taking over needs milliseconds; a lock this old was left by a process that died. */
const LOCK_STALE_MS = 10_000;

/** Checks a path, or an abstract name, against what the operating system takes. */
export function checkUnixPath(path: string, what = "a unix socket path"): void {
  const limit = platform() === "linux" ? UNIX_PATH_BYTES.linux : UNIX_PATH_BYTES.darwin;
  const bytes = new TextEncoder().encode(path).length;
  if (bytes > limit) {
    throw new ConnectError("invalid-address", `${what} of ${bytes} bytes: at most ${limit} fit`);
  }
  if (path.startsWith("\0") && platform() !== "linux") {
    throw connectError("unsupported", "using an abstract unix address");
  }
}

/** A listener that was bound by {@linkcode bindUnix}, and how to remove its file. */
export interface BoundUnix<T> {
  readonly listener: T;
  /**
   * Removes the socket file if it is still the one that was made here. To be called before the listener stops: then nobody
   * finds it dead and takes it over meanwhile, and its inode number cannot be another's.
   */
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
  // Absolute from the first moment: the process may change its directory in any wait, and before it closes.
  const final = resolve(path);
  const parent = dirname(final);
  let directory: string | undefined;
  let listener: T | undefined;
  try {
    await checkDirectory(parent);
    directory = await fs.mkdtemp(join(parent, ".s"));
    const made = join(directory, "s");
    checkUnixPath(made, `${doing}: a name in a private directory beside it`);
    listener = await bind(made);
    await fs.chmod(made, mode);
    const ours = await fs.lstat(made, { bigint: true });
    await linkIntoPlace(made, final, connect);
    const unlink = async () => {
      try {
        const now = await fs.lstat(final, { bigint: true });
        if (sameFile(now, ours)) await fs.unlink(final);
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

/**
 * In a directory that everybody may write to without the sticky bit, anybody can replace our socket. A symbolic link to one says
 * nothing of it, so it is followed.
 */
async function checkDirectory(parent: string): Promise<void> {
  const { mode } = await builtin("node:fs/promises").stat(parent, { bigint: true });
  const isDirectory = (mode & 0o170000n) === 0o040000n;
  if (isDirectory && (mode & 0o1002n) === 0o0002n) {
    throw connectError(
      "permission",
      `using ${parent}, which everybody may write to and has no sticky bit`,
    );
  }
}

/**
 * Links `made` to `path`, taking over a socket there that nobody listens to any more. Only who holds the lock may remove such
 * a socket: otherwise two that found it dead could each remove what the other had just put there.
 */
async function linkIntoPlace(
  made: string,
  path: string,
  connect: (path: string) => Promise<void>,
): Promise<void> {
  const doing = `listening on ${path}`;
  for (let tries = 0; tries < TAKEOVER_TRIES; tries++) {
    if (await linked(made, path)) return;
    const there = await lstatOr(path);
    if (there === undefined) continue;
    if (!there.isSocket()) {
      throw new ConnectError("in-use", `${doing}: a file that is no socket is there`);
    }
    const found = await probe(path, connect);
    if (found === "alive") throw connectError("in-use", doing);
    if (found === "gone") continue;
    const unlock = await lock(`${path}.lock`);
    if (unlock === undefined) {
      await new Promise((resolve) => setTimeout(resolve, TAKEOVER_WAIT_MS));
      continue;
    }
    try {
      await removeStale(path, connect);
    } finally {
      await unlock();
    }
  }
  throw connectError("in-use", doing);
}

/**
 * Removes a dead socket. What refuses may have been removed by its closing owner meanwhile, and another be in its place, even
 * with its inode number.
 */
async function removeStale(
  path: string,
  connect: (path: string) => Promise<void>,
): Promise<void> {
  const before = await lstatOr(path);
  if (before === undefined || await probe(path, connect) !== "stale") return;
  const after = await lstatOr(path);
  if (after !== undefined && sameFile(after, before) && after.ctimeNs === before.ctimeNs) {
    await builtin("node:fs/promises").unlink(path).catch(() => {});
  }
}

/** Makes `path` another name of `made`; false if something is there. */
async function linked(made: string, path: string): Promise<boolean> {
  try {
    await builtin("node:fs/promises").link(made, path);
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    throw error;
  }
}

/** Takes a lock that is a directory; undefined if another process has it. One left by a crash is removed. */
async function lock(path: string): Promise<(() => Promise<void>) | undefined> {
  const fs = builtin("node:fs/promises");
  const unlock = () => fs.rmdir(path).catch(() => {});
  try {
    await fs.mkdir(path);
    return unlock;
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error;
  }
  const held = await lstatOr(path);
  if (held !== undefined && Date.now() - Number(held.mtimeMs) > LOCK_STALE_MS) await unlock();
  return undefined;
}

/**
 * Who is at a path. A socket is stale if, and only if, the kernel says that nobody listens: any doubt counts as alive. One that is
 * gone must not count as stale, since another may be there when it would be removed.
 */
async function probe(
  path: string,
  connect: (path: string) => Promise<void>,
): Promise<"alive" | "stale" | "gone"> {
  try {
    await connect(path);
    return "alive";
  } catch (error) {
    const { code, cause } = error as ConnectError;
    if (code === "not-found") return "gone";
    // A full backlog (EAGAIN) counts as refused elsewhere, but somebody lives there.
    return code === "refused" && !hasCode(cause, "EAGAIN") ? "stale" : "alive";
  }
}

function sameFile(a: Stats, b: Stats): boolean {
  return a.ino === b.ino && a.dev === b.dev;
}

async function lstatOr(path: string): Promise<Stats | undefined> {
  try {
    return await builtin("node:fs/promises").lstat(path, { bigint: true });
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function removePrivate(directory: string): Promise<void> {
  const fs = builtin("node:fs/promises");
  await fs.unlink(builtin("node:path").join(directory, "s")).catch(() => {});
  await fs.rmdir(directory).catch(() => {});
}

function hasCode(error: unknown, code: string): boolean {
  return (error as { code?: unknown } | undefined)?.code === code;
}
