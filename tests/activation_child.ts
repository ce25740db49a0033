/**
 * Both sides of socket activation, as processes of their own.
 *
 * - `launch <plan> <command...>`, on Node alone, which can tell the descriptors of sockets: runs the command with them from 3 on.
 * - `serve` answers calls, and echoes over TCP, on what it was handed; prints where, and ends by the call `Close`.
 * - `try <fd...>` prints what came of listening on each.
 *
 * Every one of them ends with its standard input.
 */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { type EventEmitter, once } from "node:events";
import { linkSync, openSync, readdirSync, readlinkSync, renameSync } from "node:fs";
import { connect, createServer } from "node:net";
import process from "node:process";
import { activatedListeners, listenFd } from "@trunkline/sockets/auto";
import { Server } from "@trunkline/sockets/uds";

/** What the command is given. */
export interface LaunchPlan {
  readonly sockets: readonly ("tcp" | "udp" | "file" | "connected" | { readonly path: string })[];
  readonly names?: string;
  /** How often the command runs, one after the other. */
  readonly runs?: number;
}

interface Held {
  readonly fd: number;
  /** Lets go of our copy, without a trace. */
  letGo(): void;
}

/** The descriptors of this process that are sockets: node has no lasting way to ask one for its own. */
function socketFds(): number[] {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      // That of the directory that was read.
      return false;
    }
  }).map(Number);
}

/** What `make` makes, and a descriptor that came with it. */
async function withFd<T extends EventEmitter>(make: () => T, event: string): Promise<[T, number]> {
  const before = new Set(socketFds());
  const made = make();
  await once(made, event);
  return [made, socketFds().find((fd) => !before.has(fd))!];
}

async function hold(socket: LaunchPlan["sockets"][number]): Promise<Held> {
  if (socket === "file") return { fd: openSync("/dev/null", "r"), letGo() {} };
  if (socket === "udp") {
    const [bound, fd] = await withFd(() => createSocket("udp4").bind(0, "127.0.0.1"), "listening");
    return { fd, letGo: () => bound.close() };
  }
  const at = typeof socket === "object" ? socket : { host: "127.0.0.1", port: 0 };
  const [server, listening] = await withFd(() => createServer().listen(at), "listening");
  if (socket === "connected") {
    const { port } = server.address() as { port: number };
    const [connection, fd] = await withFd(() => connect(port, "127.0.0.1"), "connect");
    return { fd, letGo: () => (connection.destroy(), server.close()) };
  }
  const letGo = () => {
    const file = typeof socket === "object" && !socket.path.startsWith("\0");
    if (!file) return server.close();
    // Node would take the file along.
    linkSync(socket.path, `${socket.path}.kept`);
    server.close();
    renameSync(`${socket.path}.kept`, socket.path);
  };
  return { fd: listening, letGo };
}

async function launch(plan: LaunchPlan, command: readonly string[]): Promise<void> {
  const held: Held[] = [];
  for (const socket of plan.sockets) held.push(await hold(socket));
  // The shell keeps the sockets between two runs, as systemd would.
  const run = `sh -c 'LISTEN_PID=$$ exec "$@"' sh "$@"`;
  const script = Array.from({ length: plan.runs ?? 1 }, () => run).join("; ");
  const { LISTEN_FDNAMES: _, ...env } = process.env;
  const child = spawn("sh", ["-c", script, "sh", ...command], {
    stdio: ["inherit", "inherit", "inherit", ...held.map(({ fd }) => fd)],
    env: {
      ...env,
      LISTEN_FDS: String(held.length),
      ...(plan.names !== undefined && { LISTEN_FDNAMES: plan.names }),
    },
  });
  // Connections are for the child alone.
  for (const { letGo } of held) letGo();
  const [code] = await once(child, "exit");
  process.exit(code ?? 1);
}

async function serve(): Promise<void> {
  const server = new Server(undefined);
  server.register("Echo", ({ data }) => data);
  server.register("Pid", () => String(process.pid));
  server.register("Close", () => {
    setTimeout(() => server.close().then(() => process.exit(0)));
  });
  const listeners = await activatedListeners();
  console.log(JSON.stringify(listeners.map(({ name, listener }) => [name, listener.addr])));
  for (const { listener } of listeners) {
    if ("path" in listener.addr) server.serve(listener);
    else {
      for await (const conn of listener) conn.readable.pipeTo(conn.writable).catch(() => {});
    }
  }
}

async function attempt(fd: number): Promise<unknown> {
  return await listenFd(fd).then(() => "listening", ({ code, message }) => [code, message]);
}

const [, , action = "", ...args] = process.argv;
// The launcher must leave its input to the child.
if (action === "serve" || action === "try") {
  process.stdin.on("end", () => process.exit(1)).resume();
}
if (action === "launch") launch(JSON.parse(args[0]!), args.slice(1));
if (action === "serve") {
  serve().catch(({ code, message }) => {
    console.log(JSON.stringify([code, message]));
    process.exit(0);
  });
}
if (action === "try") {
  Promise.all(args.map((fd) => attempt(Number(fd)))).then((results) => {
    console.log(JSON.stringify(results));
    process.exit(0);
  });
}
