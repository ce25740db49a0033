/** `ReconnectingClient`: connections that end at the wrong moment. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  type ClientAuthEvent,
  type ManagementError,
  ReconnectingClient,
  type ReconnectOptions,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
import { FakeDaemon, GREETING, rejection } from "./ovpn_fake.ts";
import { FAST, start, until } from "./ovpn_reconnecting.ts";
import { unhandledDuring } from "./unhandled.ts";

/** A client of daemons that a test speaks for; `next()` is the next of them, which has greeted. */
function scripted(options: ReconnectOptions = {}) {
  const conns: FakeDaemon[] = [];
  const client = new ReconnectingClient(() => {
    const [ours, theirs] = connPair();
    conns.push(new FakeDaemon(theirs));
    return Promise.resolve(ours);
  }, { ...FAST, closeTimeoutMs: 10, ...options });
  let count = 0;
  const next = async () => {
    const index = count++;
    while (conns[index] === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    await conns[index].say(GREETING);
    return conns[index];
  };
  const end = async () => {
    await client.close();
    for (const { conn } of conns) conn.abort();
  };
  return { client, next, end };
}

const STATES = "SUCCESS: on\r\nEND\r\n";
const PID = "SUCCESS: pid=1\r\n";
const CONNECT = ">CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,END\r\n";

test("a command in flight is lost with its connection, one in the queue is not", async () => {
  const { client, next, end } = scripted();
  const serve = async () => {
    const daemon = await next();
    await daemon.answer("state on all", STATES);
    await daemon.answer("pid", PID);
    return daemon;
  };
  const first = await serve();
  await client.ready;
  const sent = rejection<ManagementError>(client.mute());
  const queued = client.verb();
  assertEquals(await first.hear(), "mute");
  first.conn.abort();
  assertEquals((await sent).code, "connection");
  const second = await serve();
  await second.answer("verb", "SUCCESS: verb=4\r\n");
  assertEquals(await queued, 4);
  await end();
});

test("a connection that ends while it is set up leaves all of the gap to the next one", async () => {
  const { client, next, end } = scripted();
  const events = client.subscribe();
  const history = ["1,CONNECTED,,,,,,", "2,RECONNECTING,x,,,,,", "3,CONNECTED,,,,,,"];
  const serve = async (lines: number) => {
    const daemon = await next();
    const block = history.slice(0, lines).map((line) => `${line}\r\n`).join("");
    await daemon.answer("state on all", `SUCCESS: on\r\n${block}END\r\n`);
    assertEquals(await daemon.hear(), "pid");
    return daemon;
  };
  const first = await serve(1);
  await first.say("SUCCESS: pid=1\r\n");
  await client.ready;
  first.conn.abort();
  (await serve(3)).conn.abort();
  await (await serve(3)).say("SUCCESS: pid=1\r\n");
  await until(events, "resumed");
  const { gap } = await until(events, "resumed");
  assertEquals([gap?.daemon, gap?.states.map(({ time }) => time)], ["restarted", [2, 3]]);
  await end();
});

test("ids of an earlier connection do not reach a client of the next one", async () => {
  const { client, daemon, commands, events, lose, end } = start({ mode: "server" });
  await client.ready;
  daemon.clientConnects({ commonName: "alice" });
  await until(events, "CLIENT");
  const ids = { clientId: "0", keyId: "1" };
  const calls = () => [
    client.clientAuthNt(ids),
    client.clientKill("0"),
    client.command("client-auth-nt 0 1"),
  ];
  await lose(async () => {
    for (const call of calls()) assertEquals((await rejection(call)).code, "disconnected");
    daemon.restart("SIGUSR1");
  });
  // Nobody has it, as far as this connection was told.
  for (const call of calls()) assertEquals((await rejection(call)).code, "stale");
  const mallory = daemon.clientConnects({ commonName: "mallory" });
  const event = await until(events, "CLIENT");
  for (const call of calls()) assertEquals((await rejection(call)).code, "stale");
  assertEquals(commands.filter((it) => it.startsWith("client-")), []);
  if (event.kind === "CONNECT") await client.clientAuthNt(event);
  assertEquals((await mallory.decision).kind, "accepted");
  // It ran on: the same ids are the same clients.
  assertEquals((await lose()).daemon, "same");
  await client.clientKill("0");
  assertEquals(await mallory.killed, "RESTART");
  await end();
});

test("commands wait in the order of their calls, also those that a consumer of resumed makes", async () => {
  const { client, commands, lose, end } = start();
  await client.ready;
  const consumer = client.subscribe();
  const late: Promise<unknown>[] = [];
  const consuming = (async () => {
    for await (const event of consumer) {
      if (event.type !== "resumed" || late.length === 0) continue;
      await client.mute();
      return;
    }
  })();
  await lose(() => {
    late.push(client.verb(), client.loadStats());
  });
  await Promise.all([...late, consuming]);
  assertEquals(commands.slice(-3), ["verb", "load-stats", "mute"]);
  await end();
});

test("close() in any turn of a connection leaves nothing open, and closed resolves", async () => {
  for (let hops = 0; hops < 40; hops++) {
    const conns: Conn[] = [];
    const client = new ReconnectingClient(() => {
      const [ours, theirs] = connPair();
      conns.push(theirs);
      theirs.write(new TextEncoder().encode(GREETING)).catch(() => {});
      return Promise.resolve(ours);
    }, { ...FAST, closeTimeoutMs: 5, maxAttempts: 1 });
    for (let hop = 0; hop < hops; hop++) await undefined;
    await client.close();
    await client.closed;
    for (const conn of conns) {
      while (await conn.read().catch(() => null) !== null);
      conn.abort();
    }
  }
});

test("a connection that ends in any turn of its set-up is not taken for one", async () => {
  const daemon = simulateDaemon();
  for (let hops = 0; hops < 40; hops++) {
    const connected = Promise.withResolvers<Conn>();
    let attempts = 0;
    const client = new ReconnectingClient(async () => {
      if (++attempts > 1) return await new Promise<Conn>(() => {});
      const [ours, theirs] = connPair();
      daemon.serve(theirs);
      connected.resolve(ours);
      return ours;
    }, { ...FAST, closeTimeoutMs: 5 });
    const conn = await connected.promise;
    for (let hop = 0; hop < hops; hop++) await undefined;
    conn.abort();
    const events = client.subscribe();
    for (let type = ""; !["connect-failed", "disconnected"].includes(type);) {
      type = (await events.next()).value!.type;
    }
    assertEquals(client.connected, false);
    await client.close();
  }
  await daemon.close();
});

test("a stream that does not end holds up neither the next connection nor close()", async () => {
  const client = new ReconnectingClient(() => {
    const encoder = new TextEncoder();
    let sent = false;
    return Promise.resolve({
      readable: new ReadableStream<Uint8Array>({
        pull(controller) {
          if (sent) return controller.close();
          sent = true;
          controller.enqueue(encoder.encode(GREETING));
        },
      }),
      writable: new WritableStream<Uint8Array>({ close: () => new Promise(() => {}) }),
    });
  }, { ...FAST, closeTimeoutMs: 10 });
  const events = client.subscribe();
  await until(events, "disconnected");
  await until(events, "disconnected");
  await client.close();
});

test("events of connections that nobody has read are forgotten with the next one", async () => {
  const daemon = simulateDaemon();
  const client = new ReconnectingClient(() => {
    const [ours, theirs] = connPair();
    daemon.serve(theirs);
    return Promise.resolve(ours);
  }, { ...FAST, maxBufferedEvents: 10 });
  for (let round = 0; round < 12; round++) {
    await client.pid();
    await client.command("exit");
  }
  await client.pid();
  const events = client.subscribe();
  const types = [];
  for (let i = 0; i < 3; i++) types.push((await events.next()).value?.type);
  assertEquals(types, ["connected", "INFO", "resumed"]);
  await client.close();
  await daemon.close();
});

test("a client that comes while a later connection is set up is answered over it, or not at all", async () => {
  const { client, next, end } = scripted();
  const events = client.subscribe();
  const first = await next();
  await first.answer("state on all", STATES);
  await first.answer("pid", PID);
  await client.ready;
  first.conn.abort();

  const second = await next();
  await second.answer("state on all", STATES);
  await second.say(CONNECT);
  const early = await until(events, "CLIENT");
  const lost = rejection<ManagementError>(client.clientAuthNt(early as ClientAuthEvent));
  assertEquals(await second.hear(), "pid");
  second.conn.abort();
  assertEquals((await lost).code, "disconnected");

  const third = await next();
  await third.answer("state on all", STATES);
  await third.say(CONNECT);
  const event = await until(events, "CLIENT");
  const accepted = client.clientAuthNt(event as ClientAuthEvent);
  await third.answer("pid", PID);
  await third.answer("client-auth-nt 0 1", "SUCCESS: done\r\n");
  await accepted;
  await end();
});

test("ids that were good after a reconnection are not after the next restart", async () => {
  const { client, daemon, events, lose, end } = start({ mode: "server" });
  await client.ready;
  const ids = { clientId: "0", keyId: "1" };
  daemon.clientConnects({ commonName: "alice" });
  await until(events, "CLIENT");
  assertEquals((await lose()).daemon, "same");
  daemon.restart("SIGUSR1");
  const bob = daemon.clientConnects({ commonName: "bob" });
  while ((await until(events, "CLIENT")).kind !== "CONNECT");
  assertEquals((await rejection(client.clientAuthNt(ids))).code, "stale");
  await client.clientAuthNt(ids, { allow: ["reused-client"] });
  assertEquals((await bob.decision).kind, "accepted");
  await end();
});

test("commands that waited twice are sent in the order of their calls", async () => {
  const { client, next, end } = scripted();
  const waiting = [client.setMute(1), client.setMute(2)];
  const first = await next();
  await first.answer("state on all", STATES);
  await first.answer("pid", PID);
  await client.ready;
  assertEquals(await first.hear(), "mute 1");
  waiting.push(client.setMute(3));
  first.conn.abort();
  await rejection(waiting[0]!);
  const second = await next();
  await second.answer("state on all", STATES);
  await second.answer("pid", PID);
  await second.answer("mute 2", "SUCCESS: done\r\n");
  await second.answer("mute 3", "SUCCESS: done\r\n");
  await Promise.all(waiting.slice(1));
  await end();
});

test("a command that is aborted in the turn of the set-up's end rejects once", async () => {
  const unhandled = await unhandledDuring(async () => {
    for (let hops = 0; hops < 16; hops++) {
      const { client, next, end } = scripted();
      const stop = new AbortController();
      const aborted = rejection<ManagementError>(client.loadStats({ signal: stop.signal }));
      const events = client.subscribe();
      const daemon = await next();
      await daemon.answer("state on all", STATES);
      assertEquals(await daemon.hear(), "pid");
      await daemon.say(`${PID}>ECHO:1,now\r\n`);
      await until(events, "ECHO");
      for (let hop = 0; hop < hops; hop++) await undefined;
      stop.abort();
      assertEquals((await aborted).code, "aborted");
      await end();
    }
  });
  assertEquals(unhandled, []);
});

test("the release of a hold that is over does not release the next one", async () => {
  const { client, next, end } = scripted({ hold: "release" });
  const events = client.subscribe();
  const first = await next();
  await first.say(">HOLD:Waiting for hold release:0\r\n");
  assertEquals(await first.hear(), "state on all");
  // It waits for the set-up, which fails.
  await new Promise((resolve) => setTimeout(resolve, 10));
  first.conn.abort();
  const second = await next();
  await second.say(">HOLD:Waiting for hold release:60\r\n");
  await second.answer("state on all", STATES);
  await second.answer("pid", PID);
  await until(events, "resumed");
  assertEquals(await second.pending(), false);
  await end();
});
