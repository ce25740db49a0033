/** `ReconnectingClient`: what it does again, what it tells of, and what it gives up on. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  type ClientEvent,
  describeEvent,
  type ManagementError,
  ReconnectingClient,
  type ResumedEvent,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
import { backoffMs } from "../adapters/backoff.ts";
import { FakeDaemon, GREETING, rejection } from "./ovpn_fake.ts";
import { FAST, start, until } from "./ovpn_reconnecting.ts";

test("it connects at once, and commands wait for that", async () => {
  const { client, events, commands, end } = start();
  assertEquals(client.connected, false);
  assertEquals(await client.pid(), 4242);
  await client.ready;
  assertEquals([client.connected, client.managementVersion], [true, 5]);
  assertEquals(commands, ["state on all", "pid", "pid"]);
  const types = [];
  for (let i = 0; i < 3; i++) types.push((await events.next()).value!);
  assertEquals(types.map(({ type }) => type), ["connected", "INFO", "resumed"]);
  assertEquals((types[2] as ResumedEvent).gap, undefined);
  await end();
  await client.closed;
  assertEquals((await events.next()).done, true);
  assertEquals((await rejection(client.pid())).code, "closed");
});

test("what was turned on is turned on again, first the version, before any other command", async () => {
  const { client, commands, lose, end } = start();
  await client.setByteCountEvents(5);
  await client.setEnvFilter(2);
  await client.followLog(3);
  await client.command("echo on all");
  await client.setVersion(4);
  await client.setStateEvents(false);
  let late: Promise<number> | undefined;
  await lose(() => {
    assertEquals(client.connected, false);
    late = client.mute();
  });
  await late;
  assertEquals(commands, [
    // After `version n`, which some answer and some do not, comes a `pid`.
    ...["version 4", "pid", "env-filter 2", "state all", "verb", "log on all", "echo on all"],
    ...["bytecount 5", "pid", "mute"],
  ]);
  // Turned off again, it stays off.
  await client.setLogEvents(false);
  await client.setEchoEvents(false);
  await client.setByteCountEvents(0);
  await client.setStateEvents(true);
  await lose();
  const numbers = ["version 4", "pid", "env-filter 2"];
  assertEquals(commands, [...numbers, "state on all", "bytecount 0", "pid"]);
  await end();
});

test("what OpenVPN refuses of that is told, and the rest is done", async () => {
  const { client, daemon, commands, events, end } = start();
  await client.setLogEvents(true);
  await client.setVerb(3);
  await client.setByteCountEvents(1);
  // A verb of 9 would drown the manager in its own log: see the guard.
  await client.setVerb(9, { allow: ["log-at-high-verb"] });
  commands.length = 0;
  daemon.dropManager();
  const { refused } = await until(events, "resumed").then(() => until(events, "resumed"));
  assertEquals(refused.map(({ code }) => code), ["guarded"]);
  assertEquals(commands, ["state on all", "verb", "bytecount 1", "pid"]);
  await end();
});

test("a gap: OpenVPN ran on, and what it did meanwhile is told", async () => {
  const { client, daemon, lose, end } = start();
  await client.setLogEvents(true);
  await client.setEchoEvents(true);
  daemon.state("WAIT");
  daemon.log("heard");
  daemon.echo("heard");
  await client.pid();
  const gap = await lose(() => {
    daemon.state("AUTH");
    daemon.state("GET_CONFIG");
    daemon.log("missed");
    daemon.echo("missed");
  });
  assertEquals([gap.daemon, gap.complete, gap.restartedByDisconnect], ["same", true, false]);
  assertEquals(gap.states.map(({ name }) => name), ["AUTH", "GET_CONFIG"]);
  assert(gap.log.some(({ message }) => message === "missed"));
  assert(gap.log.every(({ message }) => message !== "heard"));
  assertEquals(gap.echoes.map(({ message }) => message), ["missed"]);
  assert(Number.isInteger(gap.ms) && gap.ms >= 0);
  // Once more, without anything.
  assertEquals((await lose()).states, []);
  await end();
});

test("a gap: a restart, another process, and a history that does not reach back", async () => {
  const { client, daemon, replace, lose, end } = start({ mode: "server" });
  await client.ready;
  assertEquals((await lose(() => daemon.restart("SIGUSR1"))).daemon, "restarted");
  assertEquals((await lose()).daemon, "same");
  const long = await lose(() => {
    for (let i = 0; i < 120; i++) daemon.state("WAIT");
  });
  assertEquals([long.daemon, long.complete], ["unknown", false]);
  assertEquals((await lose(() => void replace({ pid: 7 }))).daemon, "replaced");
  // In a container every process is number 1, or here 7; its history tells.
  const other = await lose(() => void replace({ pid: 7, now: () => 1 }));
  assertEquals([other.daemon, other.complete], ["replaced", false]);
  await end();
});

test("--management-signal is learned from the restart that it causes", async () => {
  const { client, lose, end } = start({ managementSignal: true, mode: "server" });
  await client.ready;
  assertEquals(client.dropHurts, false);
  const gap = await lose();
  assertEquals([gap.daemon, gap.restartedByDisconnect], ["restarted", true]);
  assertEquals(client.dropHurts, true);
  await end();
});

test("a command without a connection waits, for its time or until its signal", async () => {
  const failure = new Error("not there");
  const client = new ReconnectingClient(() => Promise.reject(failure), {
    minDelayMs: 1_000_000,
    maxDelayMs: 1_000_000,
  });
  const { code, cause } = await rejection<ManagementError>(client.pid({ timeoutMs: 20 }));
  assertEquals([code, cause], ["disconnected", failure]);
  const stop = new AbortController();
  const waiting = rejection<ManagementError>(client.pid({ signal: stop.signal }));
  stop.abort("enough");
  assertEquals((await waiting).code, "aborted");
  assertEquals((await rejection(client.pid({ signal: AbortSignal.abort() }))).code, "aborted");
  assertEquals((await rejection(client.pid({ timeoutMs: -1 }))).name, "RangeError");
  const left = rejection<ManagementError>(client.pid());
  await client.close();
  assertEquals((await left).code, "closed");
  assertEquals((await rejection(client.ready)).code, "closed");
});

test("an answer to a client of an earlier connection is stale", async () => {
  const { client, daemon, events, lose, end } = start({ mode: "server" });
  await client.ready;
  daemon.clientConnects({ commonName: "alice" });
  const event: ClientEvent = await until(events, "CLIENT");
  assertEquals(event.kind, "CONNECT");
  await lose();
  if (event.kind !== "CONNECT") return;
  assertEquals((await rejection(client.clientAuthNt(event))).code, "stale");
  await end();
});

test("what was sent is turned on again, though its caller did not wait for the reply", async () => {
  const { client, commands, lose, end } = start();
  await client.ready;
  const stop = new AbortController();
  const sent = rejection<ManagementError>(client.setByteCountEvents(5, { signal: stop.signal }));
  stop.abort();
  assertEquals((await sent).code, "aborted");
  await client.pid();
  await lose();
  assertEquals(commands, ["state on all", "bytecount 5", "pid"]);
  await end();
});

test("a gap tells nothing again, and that a history was refused", async () => {
  const { client, daemon, lose, end } = start();
  daemon.echo("old");
  assertEquals((await client.followEchoes("all")).map(({ message }) => message), ["old"]);
  assertEquals((await lose()).echoes, []);
  await client.setLogEvents(true);
  await client.setVerb(9, { allow: ["log-at-high-verb"] });
  const gap = await lose(() => daemon.log("missed"));
  assertEquals([gap.log, gap.complete], [[], false]);
  await end();
});

test("a password that is wrong three times in a row ends it, and it says so", async () => {
  const { client, events, end } = start({ password: "right" }, { password: "wrong" });
  const error = await rejection<ManagementError>(client.closed);
  assertEquals(error.code, "wrong-password");
  assertEquals(await rejection(client.ready), error);
  assertEquals(await rejection(client.pid()), error);
  const failed = (await Array.fromAsync(events)) as { type: string; retryMs?: number }[];
  assertEquals(failed.map(({ type }) => type), Array(3).fill("connect-failed"));
  assertEquals(failed.map(({ retryMs }) => retryMs === undefined), [false, false, true]);
  await end();
});

test("maxAttempts counts from the last connection, and then it gives up", async () => {
  let attempts = 0;
  const daemon = simulateDaemon();
  const client = new ReconnectingClient(async () => {
    if (++attempts !== 2) throw new Error(`attempt ${attempts}`);
    const [ours, theirs] = connPair();
    daemon.serve(theirs);
    return await Promise.resolve(ours);
  }, { ...FAST, maxAttempts: 3 });
  await client.ready;
  await client.command("exit");
  const error = await rejection<ManagementError>(client.closed);
  assertEquals([error.code, (error.cause as Error).message], ["connection", "attempt 5"]);
  assertEquals(attempts, 5);
  const told = (await Array.fromAsync(client.events)).map(describeEvent);
  assertEquals(told.at(-1), "attempt 3 to connect failed: attempt 5; no other attempt follows");
  await daemon.close();
});

test("the pauses double to the longest, and chance takes off up to a half", () => {
  const pauses = (random: number) =>
    [1, 2, 3, 4, 5, 2000].map((failures) => backoffMs(failures, 100, 1000, () => random));
  assertEquals(pauses(0), [100, 200, 400, 800, 1000, 1000]);
  assertEquals(pauses(1), [50, 100, 200, 400, 500, 500]);
});

test("a hold is left alone, released again, or released always", async () => {
  const held = { hold: true, mode: "server" } as const;
  const left = start(held, { hold: "leave" });
  await left.client.holdRelease();
  left.daemon.restart("SIGHUP");
  await until(left.events, "HOLD").then(() => until(left.events, "HOLD"));
  await left.client.pid();
  assertEquals(left.commands.filter((it) => it === "hold release"), ["hold release"]);
  await left.end();

  const again = start(held);
  await until(again.events, "HOLD");
  await again.client.pid();
  assertEquals(again.commands.includes("hold release"), false);
  await again.client.holdRelease();
  again.commands.length = 0;
  again.daemon.restart("SIGHUP");
  await until(again.events, "HOLD");
  while ((await until(again.events, "STATE")).name !== "CONNECTED");
  assertEquals(again.commands, ["hold release"]);
  await again.end();

  const always = start(held, { hold: "release" });
  while ((await until(always.events, "STATE")).name !== "CONNECTED");
  assertEquals(always.commands, ["state on all", "pid", "hold release"]);
  await always.end();
});

test("close() ends an attempt, a pause and a connection, and closes a connection that comes late", async () => {
  const late = Promise.withResolvers<Conn>();
  const [ours, theirs] = connPair();
  const attempting = new ReconnectingClient(() => late.promise);
  await attempting.close();
  late.resolve(ours);
  assertEquals((await rejection(theirs.read())).name, "ConnectError");

  const pausing = new ReconnectingClient(() => Promise.reject(new Error("no")), {
    minDelayMs: 1_000_000,
    maxDelayMs: 1_000_000,
  });
  await until(pausing.subscribe(), "connect-failed");
  await pausing.close();

  const stop = new AbortController();
  const { client, daemon, end } = start({}, { signal: stop.signal });
  await client.ready;
  stop.abort();
  await client.closed;
  await end();
  assertEquals(await daemon.exited, "closed");
  const never = new ReconnectingClient(() => late.promise, { signal: AbortSignal.abort() });
  await never.closed;
});

test("a hold is released after its pause, 300 s at most, and again if a late reply held that up", async () => {
  const delays: number[] = [];
  const original = globalThis.setTimeout;
  const [ours, theirs] = connPair();
  const daemon = new FakeDaemon(theirs);
  const client = new ReconnectingClient(() => Promise.resolve(ours), {
    ...{ hold: "release", timeoutMs: 30, greetingTimeoutMs: 10_000, onTimeout: "keep" },
    closeTimeoutMs: 10,
  });
  const holds = client.subscribe();
  await daemon.say(GREETING);
  await daemon.answer("state on all", "SUCCESS: on\r\nEND\r\n");
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await client.ready;
  globalThis.setTimeout = ((run: () => void, ms: number) => {
    delays.push(ms);
    return original(run, ms);
  }) as typeof setTimeout;
  try {
    for (const seconds of [7, 9999, 0]) {
      await daemon.say(`>HOLD:Waiting for hold release:${seconds}\r\n`);
      await until(holds, "HOLD");
    }
  } finally {
    globalThis.setTimeout = original;
  }
  assertEquals(delays.filter((ms) => ms !== 30), [7000, 300_000, 0]);
  const late = client.verb();
  assertEquals(await daemon.hear(), "verb");
  assertEquals((await rejection(late)).code, "timeout");
  // The release waits behind it, gives up, and is tried again.
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(await daemon.pending(), false);
  await daemon.say("SUCCESS: verb=3\r\n");
  await daemon.answer("hold release", "SUCCESS: hold release succeeded\r\n");
  await client.close();
  theirs.abort();
});

test("options that are none are refused", () => {
  const connect = () => Promise.reject(new Error("not there"));
  for (
    const options of [{ minDelayMs: 0 }, { maxDelayMs: 2 ** 31 }, { maxAttempts: 0 }, {
      timeoutMs: -1,
    }, { password: "x".repeat(1024) }]
  ) assertThrows(() => new ReconnectingClient(connect, options), RangeError);
  // deno-lint-ignore no-explicit-any
  assertThrows(() => new ReconnectingClient(connect, { hold: "no" as any }), TypeError);
  assertThrows(() => new ReconnectingClient("nowhere:99999:1"), Error);
});
