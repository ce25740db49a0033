/** What is built on a client, over a `ReconnectingClient` that loses its connection; and connections that must not end. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  type ClientAuthRequest,
  ClientTable,
  type ManagementError,
  provideCredentials,
  provideKey,
  ReconnectingClient,
  type ReconnectOptions,
  serveAuth,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon, type SimulatorOptions } from "@trunkline/sockets/ovpn/testing";
import { greetedPair, rejection } from "./ovpn_fake.ts";

function start(simulated: SimulatorOptions = {}, options: ReconnectOptions = {}) {
  const commands: string[] = [];
  const daemon = simulateDaemon({
    ...simulated,
    onCommand: (parameters) => void commands.push(parameters.join(" ")),
  });
  const connect = (): Promise<Conn> => {
    const [ours, theirs] = connPair();
    daemon.serve(theirs);
    return Promise.resolve(ours);
  };
  const client = new ReconnectingClient(connect, { minDelayMs: 1, maxDelayMs: 2, ...options });
  const events = client.subscribe();
  const until = async (type: string) => {
    for (;;) {
      const { done, value } = await events.next();
      if (done) throw new Error(`the events ended before ${type}`);
      if (value.type === type) return;
    }
  };
  /** Ends the connection and waits for the next one. */
  const lose = async () => {
    await client.ready;
    daemon.dropManager();
    await until("disconnected");
    await until("resumed");
  };
  const end = async () => {
    await client.close();
    await daemon.close();
  };
  return { client, daemon, commands, lose, end };
}

test("ClientTable begins anew with each connection, and counts bytes on", async () => {
  const { client, daemon, commands, lose, end } = start({ mode: "server", clientAuth: false });
  const table = new ClientTable(client, {
    refreshMs: 1_000_000,
    settleMs: 1_000_000,
    byteCountSeconds: 2,
  });
  const alice = daemon.clientConnects({ commonName: "alice", address: "192.0.2.1" });
  await table.refresh();
  const [row] = table.clients.values();
  const changes = table.subscribe();
  assertEquals((await changes.next()).value?.type, "resync");
  const bob = daemon.clientConnects({ commonName: "bob", address: "192.0.2.2" });
  await table.refresh();
  // The first report could not know what the event told meanwhile.
  await table.refresh();
  const before = table.clients.get(String(bob.clientId))!;
  await lose();
  alice.disconnects();
  await table.refresh();
  assertEquals([...table.clients.values()].map(({ commonName }) => commonName), ["bob"]);
  const { value } = await changes.next();
  // One in place of all that was told before.
  assertEquals(value?.type === "resync" && [value.reason, value.clients.length], ["lost", 1]);
  assertEquals(await table.kill(row!), "gone");
  // It is the same client, by all that is known of it.
  assertEquals(await table.kill(before), "killed");
  assertEquals(commands.filter((it) => it === "bytecount 2").length, 2);
  await end();
  await table.closed;
});

test("serveAuth cancels what was open, and serves the clients of the next connection", async () => {
  const { client, daemon, lose, end } = start({ mode: "server" });
  const asked: ClientAuthRequest[] = [];
  const reasons: unknown[] = [];
  const called: (() => void)[] = [];
  const calls = [1, 2].map(() => new Promise<void>((resolve) => called.push(resolve)));
  const auth = serveAuth(client, async (request) => {
    asked.push(request);
    called.shift()!();
    if (asked.length > 1) return request.accept();
    return await new Promise(() => {
      request.signal.addEventListener("abort", () => reasons.push(request.signal.reason));
    });
  });
  await client.ready;
  daemon.clientConnects({ commonName: "alice", username: "alice" });
  await calls[0];
  await lose();
  assertEquals(reasons.map((reason) => (reason as ManagementError).code), ["aborted"]);
  const bob = daemon.clientConnects({ commonName: "bob", username: "bob" });
  await calls[1];
  const decision = await bob.decision;
  assertEquals(decision.kind, "accepted");
  await client.pid();
  assertEquals(auth.counts.cancelled, 1);
  assertEquals(auth.counts.accepted, 1);
  await end();
  await auth.closed;
});

test("serveAuth restarts clients whose CONNECT nobody heard, and no others", async () => {
  const { client, daemon, commands, lose, end } = start({ mode: "server" });
  const alice = daemon.clientConnects({ commonName: "alice", username: "alice" });
  const auth = serveAuth(client, async (request) => {
    if (request.username === "bob") return await new Promise<never>(() => {});
    return request.accept();
  }, { unheard: "restart" });
  assertEquals(await alice.killed, "RESTART");
  const carol = daemon.clientConnects({ commonName: "carol", username: "carol" });
  assertEquals((await carol.decision).kind, "accepted");
  const bob = daemon.clientConnects({ commonName: "bob", username: "bob" });
  await client.pid();
  assertEquals(commands.filter((it) => it.startsWith("client-kill")), ["client-kill 0"]);
  commands.length = 0;
  // Nobody can answer bob any more.
  await lose();
  assertEquals(await bob.killed, "RESTART");
  assertEquals(commands.filter((it) => it.startsWith("client-kill")), ["client-kill 2"]);
  await end();
  await auth.closed;

  const other = start({ mode: "server" });
  other.daemon.clientConnects({ commonName: "alice", username: "alice" });
  const leaving = serveAuth(other.client, (request) => request.accept());
  await other.client.pid();
  assertEquals(other.commands, ["state on all", "pid", "state on", "pid"]);
  await leaving.stop();
  await other.end();
});

test("provideCredentials answers what is asked for again, and provideKey has told its version", async () => {
  const { client, daemon, commands, lose, end } = start({ version: "2.7.6" });
  const signals: AbortSignal[] = [];
  const first = Promise.withResolvers<void>();
  const never = new Promise<undefined>(() => {});
  provideCredentials(client, {
    auth: ({ signal }) => {
      signals.push(signal);
      first.resolve();
      return signals.length === 1 ? never : { username: "al", password: "secret" };
    },
    onError: () => {},
  });
  provideKey(client, () => undefined, { onError: () => {} });
  await client.ready;
  const asked = daemon.askPassword();
  await first.promise;
  await lose();
  assertEquals(await asked, { username: "al", password: "secret" });
  assertEquals(signals.map(({ aborted }) => aborted), [true, false]);
  assertEquals(commands.filter((it) => it === "version 3").length, 2);
  await end();
});

test("onTimeout keep: a slow reply keeps the connection, and nothing is sent before it is there", async () => {
  const [client, daemon] = await greetedPair({ timeoutMs: 20, onTimeout: "keep" });
  const events = client.subscribe();
  await events.next();
  const slow = rejection<ManagementError>(client.pid());
  const queued = rejection<ManagementError>(client.verb());
  assertEquals((await slow).code, "timeout");
  const stop = new AbortController();
  const aborted = rejection<ManagementError>(client.mute({ signal: stop.signal }));
  stop.abort();
  assertEquals((await aborted).code, "aborted");
  // The time in the queue counts now.
  assertEquals((await queued).code, "timeout");
  assertEquals((await rejection(client.mute())).code, "timeout");
  const verb = client.verb({ timeoutMs: 10_000 });
  assertEquals(await daemon.hear(), "pid");
  assertEquals(await daemon.pending(), false);
  await daemon.say(">BYTECOUNT:1,2\r\n");
  assertEquals((await events.next()).value?.type, "BYTECOUNT");
  await daemon.say("SUCCESS: pid=1\r\n");
  await daemon.say(">BYTECOUNT:3,4\r\n");
  assertEquals((await events.next()).value?.type, "BYTECOUNT");
  await daemon.answer("verb", "SUCCESS: verb=4\r\n");
  assertEquals(await verb, 4);
  assertEquals(client.strayReplies, 0);
  // The end of it is told as ever.
  const last = rejection<ManagementError>(client.mute());
  await last;
  await daemon.conn.close();
  assertEquals((await rejection(client.closed)).code, "disconnected");
});

test("a client that may not drop its connection waits for a slow set-up", async () => {
  const conns: Conn[] = [];
  const client = new ReconnectingClient(() => {
    const [ours, theirs] = connPair();
    conns.push(theirs);
    return Promise.resolve(ours);
  }, { timeoutMs: 20, greetingTimeoutMs: 10_000, closeTimeoutMs: 10, onTimeout: "keep" });
  assertEquals(client.dropHurts, true);
  assertEquals((await rejection(client.pid())).code, "disconnected");
  const say = (text: string) => conns[0]!.write(new TextEncoder().encode(text));
  await say(">INFO:OpenVPN Management Interface Version 5\r\n");
  assertEquals((await rejection(client.pid({ timeoutMs: 50 }))).code, "disconnected");
  await say("SUCCESS: on\r\nEND\r\n");
  await new Promise((resolve) => setTimeout(resolve, 1));
  await say("SUCCESS: pid=7\r\n");
  await client.ready;
  assertEquals(conns.length, 1);
  await client.close();
  conns[0]!.abort();
});
