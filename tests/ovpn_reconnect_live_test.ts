/** `ReconnectingClient` with real OpenVPNs that are killed, restarted, or dial in. */
import { assert, assertEquals } from "@std/assert";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { type Conn, connect, listen } from "@trunkline/sockets/auto";
import {
  ClientTable,
  type ManagementEvent,
  ReconnectingClient,
  type ReconnectOptions,
  type ResumedEvent,
  serveAuth,
} from "@trunkline/sockets/ovpn";
import { clientArgs, serverArgs, startOpenVpn } from "../examples/openvpn_process.ts";
import { livePlace } from "./ovpn_live_server.ts";

const { openvpn: OPENVPN, directory, namespace } = await livePlace();
const FAST = { minDelayMs: 20, maxDelayMs: 100 };
const TIMEOUT = { timeout: 30_000 };
let sockets = 0;

const newPath = () => join(directory.path, `${++sockets}.sock`);

function startHeld(path: string, ...args: readonly string[]) {
  const options = [...clientArgs(), "--management-hold", "--management", path, "unix", ...args];
  return startOpenVpn(OPENVPN, options);
}

async function startServer(path: string, ...args: readonly string[]) {
  const options = [...serverArgs(), "--management", path, "unix", ...args];
  const server = startOpenVpn(OPENVPN, options, namespace);
  await server.logged(/Initialization Sequence Completed/);
  return server;
}

/** The next event that `wanted` accepts. */
async function until<T extends ManagementEvent>(
  events: AsyncIterator<ManagementEvent, undefined>,
  wanted: (event: ManagementEvent) => event is T,
): Promise<T> {
  for (;;) {
    const { done, value } = await events.next();
    if (done) throw new Error("the events ended");
    if (wanted(value)) return value;
  }
}

function a<Type extends ManagementEvent["type"]>(type: Type) {
  return (event: ManagementEvent): event is Extract<ManagementEvent, { readonly type: Type }> =>
    event.type === type;
}

/** A client of which a test can cut the connection; the next one begins when `meanwhile` is done. */
function cuttable(path: string, options: ReconnectOptions = {}) {
  let current: Conn | undefined;
  let open = Promise.resolve();
  const client = new ReconnectingClient(async (wait) => {
    await open;
    return current = await connect({ path }, wait);
  }, { ...FAST, ...options });
  const events = client.subscribe();
  const cut = async (meanwhile: () => unknown = () => {}): Promise<ResumedEvent> => {
    const gate = Promise.withResolvers<void>();
    open = gate.promise;
    current!.abort();
    await until(events, a("disconnected"));
    await meanwhile();
    gate.resolve();
    return await until(events, a("resumed"));
  };
  return { client, events, cut };
}

test("OpenVPN: SIGKILL, and another process takes its place", {
  skip: OPENVPN === "",
  ...TIMEOUT,
}, async () => {
  const path = newPath();
  const first = startHeld(path);
  let second: typeof first | undefined;
  // It is not there yet: the first attempts fail.
  const client = new ReconnectingClient(path, FAST);
  const events = client.subscribe();
  try {
    await client.setLogEvents(true);
    await client.setEnvFilter(1);
    await until(events, a("HOLD"));
    await client.holdRelease();
    process.kill(first.pid, "SIGKILL");
    const { exiting, retryMs } = await until(events, a("disconnected"));
    assertEquals([exiting, retryMs! >= 10], [false, true]);
    const { error } = await until(events, a("connect-failed"));
    assertEquals(error.name, "ConnectError");
    second = startHeld(path);
    const { gap, refused } = await until(events, a("resumed"));
    assertEquals([gap?.daemon, gap?.complete, refused], ["replaced", false, []]);
    assertEquals(await client.pid(), second.pid);
    // Its hold is released as the one before was, and its log is told.
    await until(
      events,
      (event): event is ManagementEvent =>
        event.type === "LOG" && event.message.includes("'hold release'"),
    );
  } finally {
    await client.close();
    await first.stop();
    await second?.stop();
  }
});

test("OpenVPN: SIGUSR1 and SIGHUP keep the connection, and between two connections they are told", {
  skip: namespace === undefined,
  ...TIMEOUT,
}, async () => {
  const path = newPath();
  const server = await startServer(path);
  const { client, events, cut } = cuttable(path);
  const peer = startOpenVpn(OPENVPN, clientArgs(), namespace);
  try {
    const isState = (name: string) => (event: ManagementEvent): event is ManagementEvent =>
      event.type === "STATE" && event.name === name;
    await peer.logged(/Initialization Sequence Completed/);
    const table = new ClientTable(client, { refreshMs: 200 });
    await table.refresh();
    assertEquals(table.clients.size, 1);
    const [row] = table.clients.values();
    assertEquals((await cut()).gap?.daemon, "same");
    await table.refresh();
    assertEquals([...table.clients.keys()], [row!.clientId]);

    for (const signal of ["SIGUSR1", "SIGHUP"] as const) {
      const { gap } = await cut(async () => {
        process.kill(server.pid, signal);
        const again = `${signal}\\[hard,\\] received[^]*Initialization Sequence Completed`;
        await server.logged(new RegExp(again));
      });
      assertEquals([gap?.daemon, gap?.complete], ["restarted", true]);
      assert(
        gap?.states.some(({ name, description }) =>
          name === "RECONNECTING" && description === signal
        ),
      );
      assertEquals(gap?.states.at(-1)?.name, "CONNECTED");
      assertEquals(gap?.restartedByDisconnect, false);
    }
    await client.sendSignal("SIGUSR1");
    await until(events, isState("RECONNECTING"));
    await until(events, isState("CONNECTED"));
    assertEquals(client.connected, true);

    // CIDs begin anew, and so does the table. Left alone, its client would take a minute to see it.
    process.kill(peer.pid, "SIGUSR1");
    const changes = table.subscribe();
    for (;;) {
      await table.refresh();
      const [now] = table.clients.values();
      if (now?.state === "connected" && now.serial !== row!.serial) break;
      await changes.next();
    }
    table.close();
  } finally {
    await client.close();
    await peer.stop();
    await server.stop();
  }
});

test("OpenVPN: --management-signal restarts it when the connection ends, which is learned", {
  skip: namespace === undefined,
  ...TIMEOUT,
}, async () => {
  const path = newPath();
  const server = await startServer(path, "--management-signal");
  const { client, cut } = cuttable(path);
  try {
    await client.ready;
    assertEquals(client.dropHurts, false);
    const { gap } = await cut(() => server.logged(/management-disconnect/));
    assertEquals([gap?.daemon, gap?.restartedByDisconnect], ["restarted", true]);
    assertEquals(client.dropHurts, true);
  } finally {
    await client.close();
    await server.stop();
  }
});

test("OpenVPN: a client whose CONNECT nobody heard logs in again, and is let in", {
  skip: namespace === undefined,
  ...TIMEOUT,
}, async () => {
  const path = newPath();
  const login = join(directory.path, "login");
  writeFileSync(login, "al\nsecret\n", { mode: 0o600 });
  const server = await startServer(path, "--management-client-auth");
  const { client, cut } = cuttable(path);
  let peer: ReturnType<typeof startOpenVpn> | undefined;
  const auth = serveAuth(client, (request) => request.accept(), { unheard: "restart" });
  try {
    await client.ready;
    await cut(async () => {
      peer = startOpenVpn(OPENVPN, [...clientArgs(), "--auth-user-pass", login], namespace);
      await server.logged(/authentication deferred for username/);
      await peer.logged(/Peer Connection Initiated/);
    });
    // Not before its --hand-window otherwise, which is longer than this test may take.
    await peer!.logged(/Initialization Sequence Completed/);
    assertEquals(auth.counts.accepted, 1);
  } finally {
    await client.close();
    await peer?.stop();
    await server.stop();
  }
});

test("OpenVPN: one that dials in, and exits with its connection, is waited for", {
  skip: OPENVPN === "",
  ...TIMEOUT,
}, async () => {
  const path = newPath();
  const listener = await listen({ path });
  const conns: Conn[] = [];
  const client = new ReconnectingClient(async (wait) => {
    conns.push(await listener.accept(wait));
    return conns.at(-1)!;
  }, { ...FAST, onTimeout: "keep" });
  const events = client.subscribe();
  const dialIn = () => startHeld(path, "--management-client");
  const first = dialIn();
  let second: typeof first | undefined;
  try {
    await client.setByteCountEvents(1);
    assertEquals(await client.pid(), first.pid);
    assertEquals(client.dropHurts, true);
    conns[0]!.abort();
    await first.exited;
    second = dialIn();
    await until(events, a("disconnected"));
    assertEquals((await until(events, a("resumed"))).gap?.daemon, "replaced");
    assertEquals(await client.pid(), second.pid);
  } finally {
    await client.close();
    await listener.close();
    await first.stop();
    await second?.stop();
  }
});
