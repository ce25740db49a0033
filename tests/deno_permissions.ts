/** The least that Deno must be allowed, by what a program does: tried by permissions_test.ts, told by docs/adapters.md. */

export interface Permission {
  /** What the program does, for a reader. */
  readonly doing: string;
  /** The flags, as a shell takes them: `$SOCK` is a path in `$DIR`. */
  readonly flags: readonly string[];
  /** What adapter_child.ts is told to do, after the name of the entry point. */
  readonly args: readonly string[];
  /** What it then prints. */
  readonly prints: string;
}

export type Task =
  | "import"
  | "connect"
  | "connectByName"
  | "listen"
  | "udp"
  | "connectUnix"
  | "listenUnix"
  | "abstract"
  | "credentials";

/** The listener makes a directory with a name that nobody knows before; so no path can be named for `--allow-net`. */
const UNIX_LISTENER = ["--allow-read=$DIR", "--allow-write=$DIR", "--allow-net"];

/** In the order of the table. */
export const PERMISSIONS: Readonly<Record<Task, Permission>> = {
  import: {
    doing: "import the entry point",
    flags: [],
    args: ["import"],
    prints: "ok",
  },
  connect: {
    doing: "connect over TCP or TLS",
    flags: ["--allow-net=127.0.0.1:1"],
    args: ["connect", "127.0.0.1:1"],
    prints: "refused",
  },
  connectByName: {
    doing: "the same by a host name",
    flags: ["--allow-net=localhost:1"],
    args: ["connect", "localhost:1"],
    prints: "refused",
  },
  listen: {
    doing: "listen for TCP or TLS on any port",
    flags: ["--allow-net=127.0.0.1"],
    args: ["pair", "127.0.0.1:0"],
    prints: "ok",
  },
  udp: {
    doing: "bind a UDP socket and send",
    flags: ["--allow-net=127.0.0.1"],
    args: ["udp", "127.0.0.1:0"],
    prints: "ok",
  },
  connectUnix: {
    doing: "connect to a unix path",
    flags: ["--allow-read=$SOCK", "--allow-write=$SOCK", "--allow-net=unix:$SOCK"],
    args: ["connect", "$SOCK"],
    prints: "not-found",
  },
  listenUnix: {
    doing: "listen on a unix path",
    flags: UNIX_LISTENER,
    args: ["pair", "$SOCK"],
    prints: "ok",
  },
  abstract: {
    doing: "an abstract name, either end",
    flags: ["--allow-net"],
    args: ["pair", "unix:@trunkline-$$"],
    prints: "ok",
  },
  credentials: {
    doing: "`peerCredentials()`, listening",
    flags: [...UNIX_LISTENER, "--allow-ffi"],
    args: ["credentials", "$SOCK"],
    prints: "ok",
  },
};
