/** What is built on a client, while a reply of OpenVPN is late and the connection is kept; and before there is a connection. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  type AnswerError,
  type AuthError,
  type CredentialCallbacks,
  type ManagementError,
  type ManagementEvent,
  provideCredentials,
  provideKey,
  ReconnectingClient,
  type ReconnectOptions,
  serveAuth,
} from "@trunkline/sockets/ovpn";
import {
  simulateDaemon,
  type SimulatedDaemon,
  type SimulatorOptions,
} from "@trunkline/sockets/ovpn/testing";
import { greetedPair, rejection } from "./ovpn_fake.ts";

const KEEP = { timeoutMs: 300, onTimeout: "keep" } as const;
const OK = "SUCCESS: fine\r\n";

function connectOf(clientId: number): string {
  return `>CLIENT:CONNECT,${clientId},1\r\n>CLIENT:ENV,END\r\n`;
}

test("serveAuth() tells of a decision that was held up too long, and goes on", async () => {
  const [client, daemon] = await greetedPair(KEEP);
  const [asked, decide, told] = [
    Promise.withResolvers<void>(),
    Promise.withResolvers<void>(),
    Promise.withResolvers<AuthError>(),
  ];
  const server = serveAuth(client, async (request) => {
    asked.resolve();
    await decide.promise;
    return request.accept();
  }, { onError: told.resolve });
  await daemon.answer("state on", OK);
  await daemon.say(connectOf(0));
  await asked.promise;
  const late = rejection<ManagementError>(client.loadStats({ timeoutMs: 1 }));
  assertEquals((await late).code, "timeout");
  decide.resolve();
  const { code, cause } = await told.promise;
  assertEquals([code, (cause as ManagementError).code], ["not-sent", "timeout"]);
  assertEquals([server.counts.failed, server.counts.cancelled], [1, 0]);
  await daemon.answer("load-stats", OK);
  await daemon.say(connectOf(1));
  await daemon.answer("client-auth-nt 1 1", OK);
  await server.stop();
  assertEquals(server.counts.accepted, 1);
  await client.close();
});

test("pending() whose reply is late rejects, and the request is still open", async () => {
  const [client, daemon] = await greetedPair(KEEP);
  const failed = Promise.withResolvers<string>();
  const decide = Promise.withResolvers<void>();
  let signal: AbortSignal | undefined;
  const server = serveAuth(client, async (request) => {
    ({ signal } = request);
    const step = { kind: "OPEN_URL", url: "https://sso.example/" } as const;
    failed.resolve((await rejection<ManagementError>(request.pending(step))).code);
    await decide.promise;
    return request.accept();
  });
  await daemon.answer("state on", OK);
  await daemon.say(connectOf(0));
  assertEquals(await failed.promise, "timeout");
  assertEquals([signal?.aborted, server.counts.running], [false, 1]);
  assertEquals((await daemon.hear())?.split(" ")[0], "client-pending-auth");
  await daemon.say(OK);
  const pid = client.pid({ timeoutMs: 10_000 });
  await daemon.answer("pid", "SUCCESS: pid=7\r\n");
  await pid;
  decide.resolve();
  await daemon.answer("client-auth-nt 0 1", OK);
  await server.stop();
  assertEquals([server.counts.accepted, server.counts.cancelled], [1, 0]);
  await client.close();
});

test("serveAuth() asks for STATE events again while the reply is late, and ends if they are refused", async () => {
  const [client, daemon] = await greetedPair({ ...KEEP, timeoutMs: 20 });
  const server = serveAuth(client, (request) => request.accept());
  assertEquals(await daemon.hear(), "state on");
  // It waits behind that one.
  assertEquals((await rejection<ManagementError>(client.pid())).code, "timeout");
  await daemon.say(OK);
  await daemon.answer("state on", "ERROR: no\r\n");
  assertEquals((await rejection<ManagementError>(server.closed)).code, "command");
  await client.close();
});

test("provideKey() tells its version again while the reply is late", async () => {
  const [client, daemon] = await greetedPair({ ...KEEP, timeoutMs: 20 });
  const told = Promise.withResolvers<AnswerError>();
  const answering = provideKey(client, () => undefined, { onError: told.resolve });
  assertEquals([await daemon.hear(), await daemon.hear()], ["version 3", "pid"]);
  const { code, cause } = await told.promise;
  assertEquals([code, (cause as ManagementError).code], ["not-sent", "timeout"]);
  await daemon.say("SUCCESS: pid=7\r\n");
  assertEquals([await daemon.hear(), await daemon.hear()], ["version 3", "pid"]);
  answering.stop();
  await client.close();
});

/** A client of the OpenVPN that `current` gives; without one an attempt to connect fails. */
function connectTo(
  current: () => SimulatedDaemon | undefined,
  options: ReconnectOptions = {},
): ReconnectingClient {
  return new ReconnectingClient(() => {
    const daemon = current();
    if (daemon === undefined) return Promise.reject(new Error("nobody listens"));
    const [ours, theirs] = connPair();
    daemon.serve(theirs);
    return Promise.resolve(ours);
  }, { minDelayMs: 1, maxDelayMs: 2, ...options });
}

/** An OpenVPN, and what it was sent. */
function simulate(options: SimulatorOptions = {}) {
  const commands: string[] = [];
  const onCommand = (parameters: readonly string[]) => void commands.push(parameters.join(" "));
  return { daemon: simulateDaemon({ ...options, onCommand }), commands };
}

async function until(
  events: AsyncIterator<ManagementEvent, undefined>,
  type: ManagementEvent["type"],
): Promise<void> {
  for (;;) {
    const { done, value } = await events.next();
    if (done) throw new Error(`the events ended before ${type}`);
    if (value.type === type) return;
  }
}

test("provideKey() tells its version over the first connection, however late that comes", async () => {
  const { daemon, commands } = simulate();
  let up = false;
  const client = connectTo(() => up ? daemon : undefined, { timeoutMs: 100 });
  const told = Promise.withResolvers<AnswerError>();
  provideKey(client, () => Uint8Array.of(1), { onError: told.resolve });
  const { code, cause } = await told.promise;
  assertEquals([code, (cause as ManagementError).code], ["not-sent", "disconnected"]);
  up = true;
  await client.ready;
  await client.mute();
  // Before what is called when the client is ready: OpenVPN may ask for a signature then.
  assertEquals(commands.slice(-3), ["version 3", "pid", "mute"]);
  assertEquals(await daemon.sign(new Uint8Array(1), "ECDSA"), Uint8Array.of(1));
  await client.close();
  await daemon.close();
});

test("serveAuth() has STATE events although it was begun in a long gap", async () => {
  const { daemon, commands } = simulate({ mode: "server" });
  let up = true;
  const client = connectTo(() => up ? daemon : undefined, { timeoutMs: 100 });
  const events = client.subscribe();
  await client.setStateEvents(false);
  up = false;
  daemon.dropManager();
  await until(events, "disconnected");
  const server = serveAuth(client, (request) => request.accept());
  // It was called later, and gives up later.
  assertEquals((await rejection<ManagementError>(client.pid())).code, "disconnected");
  commands.length = 0;
  up = true;
  await until(events, "resumed");
  await client.pid();
  assertEquals(commands.includes("state on"), true);
  const alice = daemon.clientConnects({ commonName: "alice" });
  assertEquals((await alice.decision).kind, "accepted");
  await client.close();
  await daemon.close();
  await server.closed;
});

test("provideCredentials() answers a challenge over the next connection, but not to another process", async () => {
  for (const replaced of [false, true]) {
    const first = simulate().daemon;
    const other = simulate({ pid: 4711 }).daemon;
    let current = first;
    const client = connectTo(() => current);
    const events = client.subscribe();
    const attempts: number[] = [];
    const callbacks: CredentialCallbacks = {
      auth: ({ attempt }) => {
        attempts.push(attempt);
        return { username: "al", password: "secret" };
      },
      challenge: () => "123",
      onError: () => {},
    };
    provideCredentials(client, callbacks);
    await client.ready;
    await first.askPassword();
    first.verificationFailed("Auth");
    await first.askPassword();
    first.verificationFailed("Auth", "CRV1:R,E:state:YWw=:Code?");
    await client.pid();
    if (replaced) current = other;
    first.dropManager();
    await until(events, "disconnected");
    // It is asked for as soon as there is a connection, before it is known whose it is.
    const login = await current.askPassword();
    assertEquals(login.password, replaced ? "secret" : "CRV1::state::123");
    current.verificationFailed("Auth");
    await current.askPassword();
    assertEquals(attempts, replaced ? [1, 2, 1, 2] : [1, 2, 3]);
    await client.close();
    await first.close();
    await other.close();
  }
});

test("serveAuth() looks again for clients that nobody heard when the report was late", async () => {
  const [client, daemon] = await greetedPair({ ...KEEP, timeoutMs: 30 });
  const server = serveAuth(client, (request) => request.accept(), { unheard: "restart" });
  const columns = "Common Name\tReal Address\tVirtual Address\tBytes Received\tBytes Sent\t" +
    "Username\tClient ID\tData Channel Cipher";
  const report = `TITLE\tOpenVPN\r\nHEADER\tCLIENT_LIST\t${columns}\r\n` +
    "CLIENT_LIST\tal\t192.0.2.1:5\t\t1\t2\tal\t7\tBF-CBC\r\nEND\r\n";
  await daemon.answer("state on", OK);
  assertEquals(await daemon.hear(), "status 3");
  await new Promise((resolve) => setTimeout(resolve, 60));
  await daemon.say(report);
  await daemon.answer("status 3", report);
  await daemon.answer("client-kill 7", OK);
  await server.stop();
  await client.close();
});
