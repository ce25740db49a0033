/**
 * Starts real OpenVPN processes, for the demo and for the tests: a held client needs no privilege, a server and a client that
 * talk to each other need root and get a network namespace of their own.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { Buffer } from "node:buffer";
import { delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The end of what a process said, in characters. */
const LOG_LIMIT = 64 * 1024;
/** How long a process may take to end by itself after SIGTERM. */
const STOP_TIMEOUT_MS = 3000;
const PORT = 11194;

/** Of util-linux, and of iproute2. */
const NAMESPACE_TOOLS = ["unshare", "nsenter", "ip"] as const;
type Tools = [unshare: string, nsenter: string, ip: string];

const TLS = fileURLToPath(new URL("../tests/fixtures/tls/", import.meta.url));

/** A running OpenVPN. */
export interface OpenVpn {
  readonly pid: number;
  /** Resolves with the exit code or the name of the signal. */
  readonly exited: Promise<number | string>;
  /** The last of what it logged. */
  readonly log: () => string;
  /** Resolves with the first match in the log; rejects if the process ends before. */
  logged(pattern: RegExp): Promise<RegExpExecArray>;
  /** Ends it, by SIGKILL if need be. */
  stop(): Promise<void>;
}

/** A network namespace that has nothing but a loopback interface. */
export interface NetworkNamespace {
  /** What to put before a command to run it there. */
  readonly enter: readonly string[];
  close(): void;
}

/** Where `name` is on PATH, or in the folders of system programs, which an ordinary user's PATH lacks. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  return folders.filter((folder) => folder !== "").map((folder) => join(folder, name)).find(
    (path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    },
  );
}

/** A private directory for sockets, removed by `close`, and when this process exits. */
export function workDirectory(): { readonly path: string; close(): void } {
  const path = mkdtempSync(join(tmpdir(), "openvpn-"));
  const remove = () => rmSync(path, { recursive: true, force: true });
  process.on("exit", remove);
  return {
    path,
    close() {
      process.off("exit", remove);
      remove();
    },
  };
}

/** What keeps {@linkcode createNamespace} from making one, if anything does. */
export function whyNoNamespace(): string | undefined {
  if (process.platform !== "linux") return "that takes Linux";
  if (process.getuid?.() !== 0) return "that takes root";
  const missing = NAMESPACE_TOOLS.find((name) => findProgram(name) === undefined);
  if (missing !== undefined) return `there is no \`${missing}\` on PATH`;
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun";
  try {
    execFileSync(findProgram("unshare")!, ["-n", "true"], { stdio: "ignore" });
  } catch {
    return "the system refuses a network namespace";
  }
  return undefined;
}

/** Makes a namespace, or returns undefined where {@linkcode whyNoNamespace} says why. */
export async function createNamespace(): Promise<NetworkNamespace | undefined> {
  if (whyNoNamespace() !== undefined) return undefined;
  const [unshare, nsenter, ip] = NAMESPACE_TOOLS.map((name) => findProgram(name)!) as Tools;
  // It lives as long as a process in it; this one ends with us, however we end.
  const holder = spawn(unshare, ["-n", "sh", "-c", "echo; exec cat"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  await new Promise((resolve) => holder.stdout.once("data", resolve));
  const enter = [nsenter, "-t", String(holder.pid), "-n"];
  execFileSync(nsenter, [...enter.slice(1), ip, "link", "set", "lo", "up"]);
  return { enter, close: () => void holder.kill("SIGKILL") };
}

/** Starts OpenVPN with `args`, in `namespace` if there is one. */
export function startOpenVpn(
  openvpn: string,
  args: readonly string[],
  namespace?: NetworkNamespace,
): OpenVpn {
  const [program, ...rest] = [...namespace?.enter ?? [], openvpn, ...args] as [string, ...string[]];
  const child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
  const killWithUs = () => child.kill("SIGKILL");
  process.on("exit", killWithUs);
  const exited = new Promise<number | string>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? signal ?? "unknown"));
  }).finally(() => process.off("exit", killWithUs));
  let log = "";
  const watchers = new Set<() => void>();
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding("utf8");
    output.on("data", (text: string) => {
      log = (log + text).slice(-LOG_LIMIT);
      for (const watcher of watchers) watcher();
    });
  }
  return {
    pid: child.pid!,
    exited,
    log: () => log,
    logged: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(log);
          if (match === null) return;
          watchers.delete(look);
          resolve(match);
        };
        watchers.add(look);
        look();
        exited.then((end) => reject(new Error(`OpenVPN ended with ${end}:\n${log}`)), reject);
      }),
    stop: () => stop(child, exited),
  };
}

async function stop(child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}

/** Options of a client that connects to {@linkcode serverArgs}; it takes no address and no route. */
export function clientArgs(remote = "127.0.0.1"): string[] {
  return [
    ...["--client", "--dev", "null", "--ifconfig-noexec", "--route-noexec", "--proto", "udp4"],
    ...["--remote", remote, String(PORT), "--nobind", "--connect-retry", "1", "1"],
    ...identity("client", "server"),
    ...["--verb", "3"],
  ];
}

/** Options of a server. */
export function serverArgs(): string[] {
  return [
    ...["--dev", "tun", "--server", "10.8.0.0", "255.255.255.0", "--topology", "subnet"],
    ...["--proto", "udp4", "--local", "127.0.0.1", "--port", String(PORT), "--dh", "none"],
    ...["--keepalive", "10", "60", "--data-ciphers", "AES-256-GCM"],
    ...identity("server", "client"),
    ...["--verb", "3"],
  ];
}

function identity(own: string, peer: string): string[] {
  return [
    ...["--cert", join(TLS, `${own}.crt`), "--key", join(TLS, `${own}.key`)],
    ...["--peer-fingerprint", fingerprint(join(TLS, `${peer}.crt`))],
  ];
}

/** The SHA-256 of a certificate in PEM, as OpenVPN writes it. */
function fingerprint(path: string): string {
  const base64 = readFileSync(path, "utf8").replace(/-----[^-]*-----|\s/g, "");
  const hex = createHash("sha256").update(Buffer.from(base64, "base64")).digest("hex");
  return hex.toUpperCase().match(/../g)!.join(":");
}
