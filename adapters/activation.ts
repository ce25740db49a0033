/**
 * Sockets that another process has made and listens on for us: systemd's socket activation, after sd_listen_fds(3).
 *
 * @module
 */
import { abortError, toConnectError } from "./_errors.ts";
import { unixPathOf } from "./_activation_path.ts";
import { checkMaxPending } from "./_inbox.ts";
import { environment, processId, unsetEnvironment } from "./_node_builtins.ts";
import { NodeListener } from "./_node_listener.ts";
import { checkOptions } from "./_options.ts";
import { ConnectError, type ConnOptions, type Listener, type WaitOptions } from "./types.ts";

/** The first descriptor that is handed over; the others follow it (SD_LISTEN_FDS_START). */
const FIRST_FD = 3;
/** What systemd calls a socket that has no name. */
const NO_NAME = "unknown";
/** The most that `LISTEN_FDS` may say: it is the environment's word alone, and room is made for as many. */
export const MAX_ACTIVATED_SOCKETS = 1024;

/** Options of {@linkcode listenFd}. */
export interface ListenFdOptions extends ConnOptions, WaitOptions {
  /** As in `listen`; it takes the place of what the socket had, `Backlog=` of its unit. @default 511 */
  readonly backlog?: number | undefined;
  /** As in `listen`. @default 512 */
  readonly maxPending?: number | undefined;
}

/** A socket that was handed over. */
export interface ActivatedSocket {
  /** Its file descriptor. */
  readonly fd: number;
  /** `FileDescriptorName=` of its unit, by default the name of that; `"unknown"` if names were not handed over. */
  readonly name: string;
}

/** One that we listen on. */
export interface ActivatedListener extends ActivatedSocket {
  /** Accepts its connections. */
  readonly listener: Listener;
}

/**
 * The sockets that were handed to this process, by `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`; none if these are for another process,
 * or not there. They are for one caller: the variables are taken out of the environment, so that the next one, and every process that we
 * start, finds none. For whoever has sockets that are no stream sockets too; see {@linkcode activatedListeners}.
 *
 * @throws {ConnectError} `invalid-address` if a variable is malformed, and nothing is taken then; `permission`: Deno needs
 * `--allow-env=LISTEN_PID,LISTEN_FDS,LISTEN_FDNAMES`
 */
export function activatedSockets(): ActivatedSocket[] {
  try {
    const [pid, fds] = [environment("LISTEN_PID"), environment("LISTEN_FDS")];
    if (pid === undefined || fds === undefined) return [];
    if (wholeNumber("LISTEN_PID", pid) !== processId()) return [];
    const count = wholeNumber("LISTEN_FDS", fds, MAX_ACTIVATED_SOCKETS);
    const names = environment("LISTEN_FDNAMES")?.split(":");
    if (names !== undefined && names.length !== count) {
      throw malformed(`LISTEN_FDNAMES has ${names.length} names, and LISTEN_FDS is ${count}`);
    }
    for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) unsetEnvironment(name);
    return Array.from({ length: count }, (_, i) => ({
      fd: FIRST_FD + i,
      name: names?.[i] ?? NO_NAME,
    }));
  } catch (error) {
    throw toConnectError(error, "looking for activated sockets");
  }
}

/**
 * Listens on every socket of {@linkcode activatedSockets}: all of them, or on none.
 *
 * @throws {ConnectError} as `activatedSockets` and {@linkcode listenFd}
 *
 * @example
 * ```ts
 * import { activatedListeners } from "@trunkline/sockets/auto";
 *
 * for (const { name, listener } of await activatedListeners()) {
 *   console.log(`listening on ${name}`); // no line without a supervisor that hands sockets over
 *   await listener.close();
 * }
 * ```
 */
export async function activatedListeners(
  options: ListenFdOptions = {},
): Promise<ActivatedListener[]> {
  const listening: ActivatedListener[] = [];
  try {
    for (const socket of activatedSockets()) {
      listening.push({ ...socket, listener: await listenFd(socket.fd, options) });
    }
  } catch (error) {
    await Promise.all(listening.map(({ listener }) => listener.close()));
    throw error;
  }
  return listening;
}

/**
 * Listens on a stream socket that this process has inherited, TCP or unix. From then on the descriptor belongs to the listener: `close()`
 * closes it, and leaves the socket to whoever else has it, with its file and with the connections that come from then on.
 *
 * `addr` has the path `""` for a unix socket where that cannot be told: it takes Linux, and on Deno `--allow-all`.
 *
 * @throws {ConnectError} `invalid-address` if the descriptor is no stream socket that can listen (a datagram or a connected socket, a
 * file, none at all); `unsupported` where there is no node:net
 * @throws {RangeError} if `fd` is none
 */
export async function listenFd(fd: number, options: ListenFdOptions = {}): Promise<Listener> {
  if (!Number.isInteger(fd) || fd < 0) {
    throw new RangeError(`a file descriptor is ${fd}, expected a whole number from 0 on`);
  }
  checkOptions(options);
  checkMaxPending(options.maxPending);
  const name = `file descriptor ${fd}`;
  const doing = `listening on ${name}`;
  if (options.signal?.aborted) throw abortError(options.signal, doing);
  try {
    const path = await unixPathOf(fd) ?? "";
    return await NodeListener.start({ path }, { fd }, options, name);
  } catch (error) {
    const mapped = toConnectError(error, doing);
    // The one error of node:net for all that it cannot listen on.
    if ((mapped.cause as { code?: unknown } | undefined)?.code !== "EINVAL") throw mapped;
    const text = `${doing}: no stream socket that can listen`;
    throw new ConnectError("invalid-address", text, { cause: mapped.cause });
  }
}

function wholeNumber(name: string, text: string, most = 0x7fffffff): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
  if (value >= 1 && value <= most) return value;
  throw malformed(`${name} is ${JSON.stringify(text)}, expected 1 to ${most}`);
}

function malformed(what: string): ConnectError {
  return new ConnectError("invalid-address", `looking for activated sockets: ${what}`);
}
