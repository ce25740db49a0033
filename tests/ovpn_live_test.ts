/** Against a real OpenVPN. Where there is none all of it is skipped, but not where REQUIRE_OPENVPN is 1, as in CI. */
import { assert, assertEquals } from "@std/assert";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { type Address, bindDatagram } from "@trunkline/sockets/auto";
import {
  CommandError,
  dial,
  type DialOptions,
  encodeCommand,
  listen,
  listenAndServe,
  type ManagementClient,
  type ManagementError,
  type ManagementEvent,
} from "@trunkline/sockets/ovpn";
import { clientArgs, type OpenVpn, serverArgs, startOpenVpn } from "../examples/openvpn_process.ts";
import { rejection } from "./ovpn_fake.ts";
import { livePlace } from "./ovpn_live_server.ts";

const PASSWORD = `corr ect"horse\\battery`;
const { openvpn: OPENVPN, directory, namespace } = await livePlace();

let names = 0;
const newPath = (suffix: string): string => join(directory.path, `${++names}.${suffix}`);

/** What a test started, to be ended last first. (Node 22 has no AsyncDisposableStack.) */
class Cleanup {
  readonly #tasks: (() => void | Promise<void>)[] = [];

  defer(task: () => void | Promise<void>): void {
    this.#tasks.push(task);
  }

  async close(): Promise<void> {
    for (const task of this.#tasks.reverse()) await task();
  }
}

function live(name: string, body: (cleanup: Cleanup) => Promise<void>): void {
  test(`OpenVPN: ${name}`, { skip: OPENVPN === "", timeout: 30_000 }, async () => {
    const cleanup = new Cleanup();
    try {
      await body(cleanup);
    } finally {
      await cleanup.close();
    }
  });
}

function start(
  cleanup: Cleanup,
  args: readonly string[],
  place?: typeof namespace,
): OpenVpn {
  const daemon = startOpenVpn(OPENVPN, args, place);
  cleanup.defer(() => daemon.stop());
  return daemon;
}

/** Starts an OpenVPN that listens for managers, held unless `args` say otherwise; gives where. */
async function startHeld(
  cleanup: Cleanup,
  { unix = true, password = false, args = [...clientArgs(), "--management-hold"], place }: {
    readonly unix?: boolean;
    readonly password?: boolean;
    readonly args?: readonly string[];
    readonly place?: typeof namespace;
  } = {},
): Promise<readonly [OpenVpn, Address | string]> {
  const passwordFile: string[] = [];
  if (password) {
    passwordFile.push(newPath("password"));
    writeFileSync(passwordFile[0]!, `${PASSWORD}\n`, { mode: 0o600 });
  }
  const path = newPath("sock");
  const where = unix ? [path, "unix"] : ["127.0.0.1", "0"];
  const daemon = start(cleanup, [...args, "--management", ...where, ...passwordFile], place);
  if (unix) {
    await daemon.logged(/unix domain socket listening/);
    return [daemon, path];
  }
  const [, port] = await daemon.logged(/MANAGEMENT: TCP Socket listening on \S+:(\d+)/);
  return [daemon, { hostname: "127.0.0.1", port: Number(port) }];
}

async function dialed(
  cleanup: Cleanup,
  address: Address | string,
  options?: DialOptions,
): Promise<ManagementClient> {
  const client = await dial(address, options);
  cleanup.defer(() => client.close());
  return client;
}

/** Begins to wait at once; resolves with the first event that is wanted. */
async function next(
  client: ManagementClient,
  wanted: (event: ManagementEvent) => boolean,
): Promise<ManagementEvent> {
  for await (const event of client.subscribe()) if (wanted(event)) return event;
  throw new Error("the connection ended before the event came");
}

function state(client: ManagementClient, name: string): Promise<ManagementEvent> {
  return next(client, (event) => event.type === "STATE" && event.name === name);
}

async function all(client: ManagementClient): Promise<ManagementEvent[]> {
  const events: ManagementEvent[] = [];
  for await (const event of client.events) events.push(event);
  return events;
}

for (const unix of [true, false]) {
  live(`a held client over ${unix ? "a unix socket" : "TCP"}`, async (cleanup) => {
    const [daemon, address] = await startHeld(cleanup, { unix });
    const client = await dialed(cleanup, address);
    const events = all(client);
    assert(client.managementVersion! >= 4);
    assertEquals(await client.pid(), daemon.pid);
    assertEquals((await client.command("hold")).success, "hold=1");
    assert((await client.command("version")).lines[0]?.startsWith("OpenVPN Version: OpenVPN 2."));
    assertEquals((await client.command("version 5")).success.includes("ERROR"), false);
    assert((await client.command("help")).lines.length > 30);
    assertEquals((await client.command("test 3")).lines.length, 3);
    const unknown = await rejection<CommandError>(client.command("frobnicate"));
    assert(unknown instanceof CommandError);
    assertEquals(unknown.reply.startsWith("unknown command"), true, unknown.reply);
    // An ERROR where a block is expected.
    assert(await rejection(client.latestStatus("3")) instanceof CommandError);
    // What a hostile text would do, quoted, is only text.
    const echoed = new TextDecoder().decode(encodeCommand("echo", `x" on\\`)).trimEnd();
    assert(await rejection(client.command(echoed)) instanceof CommandError);
    await client.setByteCountEvents(1);
    await client.setEchoEvents(true);
    await client.setStateEvents(true);
    const waits = state(client, "WAIT");
    await client.holdRelease();
    await waits;
    assertEquals((await client.latestState())?.name, "WAIT");
    assertEquals((await client.latestStatus("3"))[0], "OpenVPN STATISTICS");
    const exits = state(client, "EXITING");
    await client.sendSignal("SIGTERM");
    await exits;
    await client.closed;
    assertEquals(await daemon.exited, 0);
    const heard = (await events).map(({ type }) => type);
    assertEquals(heard.slice(0, 2), ["INFO", "HOLD"]);
    assert(!heard.includes("unknown") && !heard.includes("malformed") && !heard.includes("FATAL"));
    assertEquals([client.strayReplies, client.droppedEvents], [0, 0]);
  });

  live(`it dials in over ${unix ? "a unix socket" : "TCP"}`, async (cleanup) => {
    const listener = await listen(unix ? newPath("sock") : "127.0.0.1:0", { credentials: true });
    cleanup.defer(() => listener.close());
    const { addr } = listener;
    const where = "path" in addr ? [addr.path, "unix"] : [addr.hostname, String(addr.port)];
    const daemon = start(cleanup, [
      ...[...clientArgs(), "--management-hold"],
      ...["--management", ...where, "--management-client"],
    ]);
    const incoming = await listener.accept();
    const pid = incoming.peerCredentials()?.pid;
    assert(pid === undefined || pid === daemon.pid);
    const client = incoming.open();
    const holds = next(client, (event) => event.type === "HOLD");
    assertEquals(await client.pid(), daemon.pid);
    await holds;
    await client.close();
    // Losing its manager ends it.
    assertEquals(await daemon.exited, 0);
  });
}

live("listenAndServe() manages one that dials in", async (cleanup) => {
  const stop = new AbortController();
  const addr = Promise.withResolvers<Address>();
  const served = Promise.withResolvers<number>();
  const serving = listenAndServe("127.0.0.1:0", async (incoming) => {
    const client = incoming.open();
    served.resolve(await client.pid());
    await client.close();
  }, { signal: stop.signal, onListen: addr.resolve });
  const { hostname, port } = await addr.promise as { hostname: string; port: number };
  const where = [hostname, String(port), "--management-client"];
  const daemon = start(cleanup, [...clientArgs(), "--management-hold", "--management", ...where]);
  assertEquals(await served.promise, daemon.pid);
  await daemon.exited;
  stop.abort();
  assertEquals((await rejection(serving)).code, "aborted");
});

live("an incoming connection that is refused ends that OpenVPN", async (cleanup) => {
  const path = newPath("sock");
  const listener = await listen(path);
  cleanup.defer(() => listener.close());
  const where = ["--management", path, "unix", "--management-client"];
  const daemon = start(cleanup, [...clientArgs(), "--management-hold", ...where]);
  await (await listener.accept()).close();
  await daemon.exited;
});

for (const unix of [true, false]) {
  live(`the password over ${unix ? "a unix socket" : "TCP"}`, async (cleanup) => {
    const [daemon, address] = await startHeld(cleanup, { unix, password: true });
    const codeOf = async (options?: DialOptions) => {
      const error = await rejection<ManagementError>(dial(address, options));
      assert(!error.message.includes("guess"), error.message);
      return error.code;
    };

    const first = await dial(address, { password: PASSWORD });
    assertEquals(await first.pid(), daemon.pid);
    await first.close();

    assertEquals(await codeOf(), "password-required");
    assertEquals(await codeOf({ password: "guess" }), "wrong-password");

    const attempts: number[] = [];
    const threeTimes = (attempt: number) => `guess ${attempts.push(attempt)}`;
    assertEquals(await codeOf({ password: threeTimes }), "wrong-password");
    assertEquals(attempts, [1, 2, 3]);

    const third = await dial(address, {
      password: (attempt) => attempt < 3 ? "guess" : PASSWORD,
    });
    assertEquals(await third.pid(), daemon.pid);
    await third.close();
  });
}

live("a second manager is told so, and has its turn later", async (cleanup) => {
  const [daemon, address] = await startHeld(cleanup);
  const first = await dialed(cleanup, address);
  const second = await rejection<ManagementError>(dial(address, { greetingTimeoutMs: 300 }));
  assertEquals(second.code, "no-greeting");
  assertEquals(await first.pid(), daemon.pid);
  await first.close();
  const third = await dialed(cleanup, address);
  assertEquals(await third.pid(), daemon.pid);
});

live("a kill in the middle of a command", async (cleanup) => {
  const [daemon, address] = await startHeld(cleanup);
  const client = await dialed(cleanup, address);
  const events = all(client);
  await client.pid();
  process.kill(daemon.pid, "SIGSTOP");
  const pending = rejection<ManagementError>(client.command("status 3"));
  const queued = rejection<ManagementError>(client.pid());
  process.kill(daemon.pid, "SIGKILL");
  const { code } = await pending;
  assert(code === "disconnected" || code === "connection", code);
  assertEquals((await queued).code, code);
  assertEquals((await rejection<ManagementError>(client.closed)).code, code);
  const last = (await events).at(-1);
  assert(last?.type === "FATAL", last?.type);
  assertEquals(await daemon.exited, "SIGKILL");
});

live("one that is stuck: the command times out", async (cleanup) => {
  const [daemon, address] = await startHeld(cleanup);
  const client = await dialed(cleanup, address);
  await client.pid();
  process.kill(daemon.pid, "SIGSTOP");
  cleanup.defer(() => void process.kill(daemon.pid, "SIGCONT"));
  const error = await rejection<ManagementError>(client.pid({ timeoutMs: 200 }));
  assertEquals(error.code, "timeout");
  assertEquals((await rejection<ManagementError>(client.closed)).code, "timeout");
});

live("FATAL, and then its end", async (cleanup) => {
  const taken = await bindDatagram("127.0.0.1:0");
  cleanup.defer(() => taken.close());
  const { port } = taken.addr as { port: number };
  const args = clientArgs().filter((arg) => arg !== "--nobind");
  const [daemon, address] = await startHeld(cleanup, {
    args: [...args, "--local", "127.0.0.1", "--lport", String(port), "--management-hold"],
  });
  const client = await dialed(cleanup, address);
  const events = all(client);
  await client.holdRelease();
  await client.closed.catch(() => {});
  const fatal = (await events).find(({ type }) => type === "FATAL");
  assert(fatal?.type === "FATAL" && fatal.message.includes("bind failed"));
  assertEquals(await daemon.exited, 1);
});

test("OpenVPN: a server and its client", {
  skip: namespace === undefined,
  timeout: 60_000,
}, async () => {
  const cleanup = new Cleanup();
  try {
    const place = namespace;
    const [, serverAddress] = await startHeld(cleanup, { args: serverArgs(), place });
    const server = await dialed(cleanup, serverAddress);
    await server.setByteCountEvents(1);
    const clientOptions = { args: [...clientArgs(), "--management-hold"], place };
    const [daemon, clientAddress] = await startHeld(cleanup, clientOptions);
    const client = await dialed(cleanup, clientAddress);
    const seen = all(client);
    await client.setStateEvents(true);
    await client.setByteCountEvents(1);

    const connected = state(client, "CONNECTED");
    const counted = next(client, ({ type }) => type === "BYTECOUNT");
    const countedByServer = next(server, ({ type }) => type === "BYTECOUNT_CLI");
    await client.holdRelease();
    const event = await connected;
    assert(event.type === "STATE");
    assertEquals(event.description, "SUCCESS");
    assertEquals(event.tunnelAddress, "10.8.0.2");
    assertEquals([event.remoteAddress, event.remotePort], ["127.0.0.1", 11194]);
    await counted;
    const count = await countedByServer;
    assert(count.type === "BYTECOUNT_CLI" && count.bytesIn > 0);
    const clients = (await server.latestStatus("3")).filter((line) =>
      line.startsWith("CLIENT_LIST\t")
    );
    assertEquals(clients.length, 1);

    const reconnecting = state(client, "RECONNECTING");
    const held = next(client, ({ type }) => type === "HOLD");
    await client.sendSignal("SIGUSR1");
    await Promise.all([reconnecting, held]);
    const again = state(client, "CONNECTED");
    await client.holdRelease();
    await again;
    await client.sendSignal("SIGTERM");
    await client.closed;
    assertEquals(await daemon.exited, 0);
    assert((await seen).every(({ type }) => type !== "malformed" && type !== "unknown"));
    await server.command("exit");
    await server.closed;
  } finally {
    await cleanup.close();
  }
});
