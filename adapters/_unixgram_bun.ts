/**
 * Datagrams between files on Bun, which has no API for them: the C library makes the socket and sends, and Bun's event loop reads
 * from it as if it were a stream, one chunk for each datagram. Linux alone.
 *
 * @module
 */
import { codedError } from "./_errors.ts";
import { builtin, platform, runtimeGlobal } from "./_node_builtins.ts";
import type { BindUnixgram, UnixgramReceived, UnixgramSocket } from "./_unixgram_socket.ts";
import { ConnectError } from "./types.ts";

/** The C library, without the variadic tail of fcntl, which is an int here. */
interface Libc {
  socket(family: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  sendto(
    fd: number,
    bytes: Uint8Array,
    length: number,
    flags: number,
    to: Uint8Array,
    toLength: number,
  ): number;
  fcntl(fd: number, command: number, argument: number): number;
  close(fd: number): number;
  __errno_location(): number;
}
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, unknown>,
  ): { readonly symbols: Libc; close(): void };
  readonly read: { i32(pointer: number, offset: number): number };
}
interface BunWatcher {
  pause(): void;
  resume(): void;
  terminate(): void;
}
interface BunLike {
  connect(options: Record<string, unknown>): Promise<unknown>;
}

const SYMBOLS = {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
  sendto: { args: ["i32", "ptr", "usize", "i32", "ptr", "u32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  __errno_location: { args: [], returns: "ptr" },
};
const LIBC = "libc.so.6";
const AF_UNIX = 1;
/** SOCK_DGRAM, SOCK_NONBLOCK and SOCK_CLOEXEC. */
const SOCKET_TYPE = 2 | 0x800 | 0x80000;
/** MSG_DONTWAIT and MSG_NOSIGNAL. */
const SEND_FLAGS = 0x40 | 0x4000;
const F_DUPFD_CLOEXEC = 1030;
/** struct sockaddr_un: the family and a path of at most 107 bytes with its NUL. */
const SOCKADDR_BYTES = 110;

/** How long a sender waits for room in the queue of its peer: nothing tells of it. Doubled each time. */
const SEND_WAIT_MS = { first: 1, most: 32 } as const;
/** Datagrams that were read but not asked for, at which reading pauses. */
const PAUSE_AT = 16;

/** @throws {ConnectError} `unsupported` elsewhere than on Linux */
export function bunUnixgram(doing: string): BindUnixgram {
  const bun = runtimeGlobal<BunLike>("Bun");
  if (bun === undefined || platform() !== "linux") {
    throw new ConnectError("unsupported", `${doing}: Bun can do that on Linux alone`);
  }
  return (path) => new BunUnixgram(bun, path);
}

class BunUnixgram implements UnixgramSocket {
  readonly #bun: BunLike;
  readonly #library: ReturnType<BunFfi["dlopen"]>;
  readonly #read: BunFfi["read"];
  readonly #fd: number;
  readonly #queue: Uint8Array[] = [];
  /** "none" also after an empty datagram, which Bun takes for the end of a stream. */
  #watching: "none" | "starting" | "on" | "paused" = "none";
  #watcher: BunWatcher | undefined;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(bun: BunLike, path: string) {
    this.#bun = bun;
    const ffi = builtin("bun:ffi") as BunFfi;
    this.#read = ffi.read;
    this.#library = openLibc(ffi);
    const { symbols } = this.#library;
    this.#fd = symbols.socket(AF_UNIX, SOCKET_TYPE, 0);
    const bound = this.#fd < 0 ? -1 : symbols.bind(this.#fd, sockaddr(path), SOCKADDR_BYTES);
    if (bound === 0) return;
    const error = codedError(this.#errorCode());
    if (this.#fd >= 0) symbols.close(this.#fd);
    this.#library.close();
    throw error;
  }

  /** To be asked for right behind the call that failed. */
  #errorCode(): string {
    const errno = this.#read.i32(this.#library.symbols.__errno_location(), 0);
    return builtin("node:util").getSystemErrorName(-errno);
  }

  async send(bytes: Uint8Array, path: string): Promise<void> {
    const to = sockaddr(path);
    for (let wait: number = SEND_WAIT_MS.first;; wait = Math.min(wait * 2, SEND_WAIT_MS.most)) {
      if (this.#failure !== undefined) throw this.#failure;
      const { symbols } = this.#library;
      const { length } = bytes;
      if (symbols.sendto(this.#fd, bytes, length, SEND_FLAGS, to, SOCKADDR_BYTES) >= 0) return;
      const code = this.#errorCode();
      if (code !== "EAGAIN" && code !== "ENOBUFS") throw codedError(code);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  async receive(): Promise<UnixgramReceived> {
    for (;;) {
      const data = this.#queue.shift();
      if (data !== undefined) return { data, from: undefined };
      if (this.#failure !== undefined) throw this.#failure;
      // First, since it may come at once.
      const woken = new Promise<void>((resolve) => this.#wake = resolve);
      this.#watch();
      await woken;
    }
  }

  /** Lets Bun read on, or begin with it. */
  #watch(): void {
    if (this.#watching === "paused") {
      this.#watching = "on";
      this.#watcher!.resume();
    }
    if (this.#watching !== "none") return;
    this.#watching = "starting";
    // A duplicate, since Bun closes what it is given.
    const fd = this.#library.symbols.fcntl(this.#fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return this.#fail(codedError(this.#errorCode()));
    const socket = {
      open: (watcher: BunWatcher) => {
        this.#watcher = watcher;
        this.#watching = "on";
        if (this.#failure !== undefined) watcher.terminate();
      },
      data: (_: BunWatcher, data: Uint8Array) => this.#push(data),
      close: () => {
        this.#watcher = undefined;
        this.#watching = "none";
        if (this.#failure === undefined) this.#push(new Uint8Array());
      },
      error: (_: BunWatcher, error: Error) => this.#fail(error),
    };
    // In a function, because Bun throws some errors at once.
    const open = async () => await this.#bun.connect({ fd, socket });
    open().catch((error) => this.#fail(error));
  }

  #push(data: Uint8Array): void {
    this.#queue.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    if (this.#queue.length >= PAUSE_AT && this.#watching === "on") {
      this.#watching = "paused";
      this.#watcher!.pause();
    }
    this.#wake?.();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  close(): void {
    this.#fail(codedError("ERR_SOCKET_CLOSED"));
    this.#queue.length = 0;
    this.#watcher?.terminate();
    this.#library.symbols.close(this.#fd);
    this.#library.close();
  }
}

function openLibc(ffi: BunFfi): ReturnType<BunFfi["dlopen"]> {
  try {
    return ffi.dlopen(LIBC, SYMBOLS);
  } catch (cause) {
    throw new ConnectError("unsupported", `loading ${LIBC}, which this system does not have`, {
      cause,
    });
  }
}

function sockaddr(path: string): Uint8Array {
  const address = new Uint8Array(SOCKADDR_BYTES);
  // Both machines that Bun runs on are little-endian.
  address[0] = AF_UNIX;
  address.set(new TextEncoder().encode(path), 2);
  return address;
}
