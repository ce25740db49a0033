/**
 * What live tests share: a namespace for real OpenVPNs, their managers, and an end for everything that a test started. Where there is no
 * OpenVPN, or no root, they are skipped, but not where REQUIRE_OPENVPN is 1, as in CI.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import {
  type ClientSessionEvent,
  dial,
  type ManagementClient,
  type ManagementEvent,
  type StateEvent,
} from "@trunkline/sockets/ovpn";
import {
  clientArgs,
  createNamespace,
  findProgram,
  type NetworkNamespace,
  type OpenVpn,
  serverArgs,
  startOpenVpn,
  workDirectory,
} from "../examples/openvpn_process.ts";

/** Then all is ended, and what a test waits for fails with what OpenVPN has logged: not every runtime knows `timeout`. */
const TEST_LIMIT_MS = 30_000;
const SHOWN_LOG_LINES = 40;

/** An OpenVPN and its manager. */
export interface Managed {
  readonly daemon: OpenVpn;
  readonly manager: ManagementClient;
}

/** To connect by TCP, which tells a server at once that a client is gone. */
export const TCP = {
  server: ["--proto", "tcp4-server"],
  client: ["--proto", "tcp4-client"],
} as const;

/** A test with what it starts, all in one namespace and on one port: one server at a time. */
export type LiveTest = (name: string, body: (live: Live) => Promise<void>) => void;

/** Where the OpenVPNs of one test file run. */
export interface LivePlace {
  /** The program; empty if there is none. */
  readonly openvpn: string;
  /** For sockets and other files. */
  readonly directory: { readonly path: string };
  /** For servers, and clients that connect to them; `undefined` if there is none, as it takes root and a tun device. */
  readonly namespace: NetworkNamespace | undefined;
}

/** To be called once by a file with live tests, which ends it. */
export async function livePlace(): Promise<LivePlace> {
  const openvpn = findProgram("openvpn") ?? "";
  if (openvpn === "" && process.env["REQUIRE_OPENVPN"] === "1") {
    throw new Error("no openvpn is here");
  }
  const directory = workDirectory();
  after(() => directory.close());
  const namespace = openvpn === "" ? undefined : await createNamespace();
  after(() => namespace?.close());
  return { openvpn, directory, namespace };
}

/** To be called once, instead of `livePlace`. */
export async function liveTests(): Promise<LiveTest> {
  const { openvpn, directory, namespace } = await livePlace();
  const options = { skip: namespace === undefined, timeout: TEST_LIMIT_MS + 15_000 };
  let tests = 0;
  return (name, body) => {
    test(`OpenVPN: ${name}`, options, async () => {
      const live = new Live(openvpn, join(directory.path, String(++tests)), namespace);
      const limit = setTimeout(() => live.close(), TEST_LIMIT_MS);
      try {
        await body(live);
      } catch (error) {
        throw new Error(`${error}\n${live.logs()}`, { cause: error });
      } finally {
        clearTimeout(limit);
        await live.close();
      }
    });
  };
}

/** What one test has started. */
export class Live {
  readonly #openvpn: string;
  readonly #prefix: string;
  readonly #namespace: NetworkNamespace | undefined;
  readonly #daemons: OpenVpn[] = [];
  readonly #managers: ManagementClient[] = [];
  #files = 0;

  constructor(openvpn: string, prefix: string, namespace: NetworkNamespace | undefined) {
    this.#openvpn = openvpn;
    this.#prefix = prefix;
    this.#namespace = namespace;
  }

  /** A server that is ready for clients. */
  async server(...args: readonly string[]): Promise<Managed> {
    const server = await this.#manage([...serverArgs(), ...args]);
    await server.daemon.logged(/Initialization Sequence Completed/);
    return server;
  }

  /** A client that is held, so that its manager misses nothing, and asks it for name and password. */
  client(...args: readonly string[]): Promise<Managed> {
    const asks = ["--auth-user-pass", "--management-query-passwords", "--management-hold"];
    return this.#manage([...clientArgs(), ...asks, ...args]);
  }

  /** A client without a manager, which logs in with this name. */
  login(
    username: string,
    { server, args = [] }: {
      /** Its address. @default 127.0.0.1 */
      readonly server?: string;
      readonly args?: readonly string[];
    } = {},
  ): OpenVpn {
    const path = this.#newPath();
    writeFileSync(path, `${username}\npassword\n`, { mode: 0o600 });
    return this.#start([...clientArgs(server), "--auth-user-pass", path, ...args]);
  }

  /** What its OpenVPNs said last. */
  logs(): string {
    return this.#daemons.map(({ pid, log }) =>
      [`-- OpenVPN ${pid}`, ...log().trimEnd().split("\n").slice(-SHOWN_LOG_LINES)].join("\n")
    ).join("\n");
  }

  async close(): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.stop()));
    await Promise.all(this.#managers.map((manager) => manager.close()));
  }

  #newPath(): string {
    return `${this.#prefix}-${++this.#files}`;
  }

  #start(args: readonly string[]): OpenVpn {
    const daemon = startOpenVpn(this.#openvpn, args, this.#namespace);
    this.#daemons.push(daemon);
    return daemon;
  }

  async #manage(args: readonly string[]): Promise<Managed> {
    const path = this.#newPath();
    const daemon = this.#start([...args, "--management", path, "unix"]);
    await daemon.logged(/unix domain socket listening/);
    const manager = await dial(path);
    this.#managers.push(manager);
    return { daemon, manager };
  }
}

/** The first of `events` that `pick` makes something of. */
export async function next<E, T>(
  events: AsyncIterator<E, undefined>,
  pick: (event: E) => T | undefined,
): Promise<T> {
  for (;;) {
    const { value } = await events.next();
    if (value === undefined) throw new Error("it ended before the event came");
    const picked = pick(value);
    if (picked !== undefined) return picked;
  }
}

/** For {@linkcode next}: a `STATE` of this name. */
export function state(name: string): (event: ManagementEvent) => StateEvent | undefined {
  return (event) => event.type === "STATE" && event.name === name ? event : undefined;
}

/** For {@linkcode next}: a `CLIENT` of this kind. */
export function session(
  kind: ClientSessionEvent["kind"],
): (event: ManagementEvent) => ClientSessionEvent | undefined {
  return (event) =>
    event.type === "CLIENT" && event.kind === kind ? event as ClientSessionEvent : undefined;
}
