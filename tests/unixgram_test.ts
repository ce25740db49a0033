/** Connections of datagrams between files, on the runtimes that have them. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { concat } from "@std/bytes";
import { lstatSync, unlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { bindOwn, requireWhole } from "../adapters/_unixgram_socket.ts";
import { ConnectError, type ConnectErrorCode } from "../adapters/types.ts";
import {
  connectUnixgram,
  goTemporaryDirectory,
  listenUnixgram,
  UNIXGRAM_BYTES,
} from "../adapters/unixgram.ts";
import { sleep } from "./adapter_suite.ts";
import {
  bind,
  bytes,
  denoDatagram,
  inDirectory,
  pattern,
  rawClient,
  rawServer,
  SUPPORTED,
  text,
} from "./unixgram_fixtures.ts";

type Body = Parameters<typeof inDirectory>[0];
const check = (title: string, body: Body, skip = !SUPPORTED) =>
  test(`unixgram: ${title}`, { skip, timeout: 30_000 }, () => inDirectory(body));

async function failure(promise: Promise<unknown>): Promise<ConnectError> {
  const [result] = await Promise.allSettled([promise]);
  assert(result.status === "rejected" && result.reason instanceof ConnectError, String(result));
  return result.reason;
}
async function fails(promise: Promise<unknown>, code: ConnectErrorCode): Promise<void> {
  const error = await failure(promise);
  assertEquals(error.code, code, error.message);
}

/** A server and a client of it. */
async function pair(path: string) {
  const listener = await listenUnixgram(path);
  const [client, server] = await Promise.all([connectUnixgram(path), listener.accept()]);
  return { listener, client, server };
}

/** All of so many bytes. */
async function readBytes(
  conn: { read(): Promise<Uint8Array | null> },
  length: number,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let got = 0; got < length;) {
    const chunk = await conn.read();
    assert(chunk !== null);
    chunks.push(chunk);
    got += chunk.length;
  }
  return concat(chunks);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(2);
}

check("bytes go both ways, and all files go with the connections", async (path, list) => {
  const { listener, client, server } = await pair(path("setup"));
  assertEquals(listener.addr, { path: path("setup") });
  assertEquals(client.remote, server.local);
  assertEquals(client.local, server.remote);
  const files = list();
  assertEquals(files.length, 3);
  for (const file of files) assertEquals(lstatSync(path(file)).mode & 0o777, 0o600);
  assertEquals(goTemporaryDirectory(), path("").replace(/\/$/, ""));

  await client.write(bytes("hello"));
  assertEquals(text((await server.read())!), "hello");
  await server.write(bytes("world"));
  assertEquals(text((await client.read())!), "world");
  const large = pattern(300_000);
  const [there, back] = await Promise.all([
    readBytes(server, large.length),
    readBytes(client, large.length),
    client.write(large),
    server.write(large),
  ]);
  assertEquals(there, large);
  assertEquals(back, large);

  await client.close();
  await client.closed;
  server.abort();
  await listener.close();
  await listener.closed;
  assertEquals(list(), []);
  assertEquals(listener.dropped, 0);
});

check("what is no handshake is ignored and counted, and leads nowhere", async (path, list) => {
  const listener = await listenUnixgram(path("setup"));
  const stranger = bind(path("stranger"));
  const name = crypto.randomUUID();
  const bad = [
    "../x",
    "../../../../../../../../tmp/not-a-uuid",
    "-".repeat(36),
    name.toUpperCase(),
    `${name}0`,
    name.slice(1),
    `${name.slice(1)}\n`,
    "\0".repeat(36),
    `${name.slice(0, 35)}\0`,
    `/${name.slice(1)}`,
    "",
    // Well formed, but nobody is bound there.
    name,
  ];
  for (const datagram of bad) await stranger.send(bytes(datagram), path("setup"));
  await stranger.send(new Uint8Array(100_000).fill(0xff), path("setup"));
  await until(() => listener.dropped === bad.length + 1);
  assertEquals(list(), ["setup", "stranger"]);
  const [client] = await Promise.all([connectUnixgram(path("setup")), listener.accept()]);
  client.abort();
  stranger.close();
  await listener.close();
});

check("neither a second handshake nor one with itself is one", async (path) => {
  const setup = path(crypto.randomUUID());
  const listener = await listenUnixgram(setup);
  const client = await rawClient(setup);
  const server = await listener.accept();
  await client.own.socket.send(bytes(client.own.name), setup);
  await client.own.socket.send(bytes(setup.slice(-36)), setup);
  await client.own.socket.send(bytes((server.local as { path: string }).path.slice(-36)), setup);
  await until(() => listener.dropped === 3);
  await client.send(bytes("still"));
  assertEquals(text((await server.read())!), "still");
  client.close();
  server.abort();
  await listener.close();
});

check("empty datagrams harm nobody", async (path) => {
  const { listener, client, server } = await pair(path("setup"));
  const stranger = bind(path("stranger"));
  const [there, back] = [client.remote, client.local] as { path: string }[];
  for (let i = 0; i < 40; i++) {
    for (const to of [path("setup"), there!.path, back!.path]) {
      // Nobody reads before the first write, so a queue may be full.
      if (i < 5 || to === path("setup")) await stranger.send(new Uint8Array(), to);
    }
  }
  for (let i = 0; i < 50; i++) {
    await client.write(bytes("ping"));
    assertEquals(text(await readBytes(server, 4)), "ping");
    if (i % 5 === 0) {
      await stranger.send(new Uint8Array(), there!.path);
      await stranger.send(new Uint8Array(), back!.path);
    }
    await server.write(bytes("pong"));
    assertEquals(text(await readBytes(client, 4)), "pong");
  }
  const [other] = await Promise.all([connectUnixgram(path("setup")), listener.accept()]);
  assertEquals(listener.dropped, 40);
  other.abort();
  stranger.close();
  client.abort();
  server.abort();
  await listener.close();
});

check(
  "a socket with a name that is not the peer's is not heard, where Deno tells",
  async (path) => {
    const { listener, client, server } = await pair(path("setup"));
    const stranger = denoDatagram!({ transport: "unixpacket", path: path("stranger") });
    const { path: to } = server.local as { path: string };
    await stranger.send(bytes("from a stranger"), { transport: "unixpacket", path: to });
    stranger.close();
    await client.write(bytes("from the peer"));
    assertEquals(text((await server.read())!), "from the peer");
    client.abort();
    server.abort();
    await listener.close();
  },
  denoDatagram === undefined,
);

check("a peer that has gone is a broken pipe, behind what it said", async (path) => {
  const { listener, client, server } = await pair(path("setup"));
  await server.write(bytes("last words"));
  await server.close();
  await fails(client.write(bytes("too late")), "broken-pipe");
  assertEquals(text((await client.read())!), "last words");
  await fails(client.read(), "broken-pipe");
  await fails(client.closed, "broken-pipe");
  await listener.close();
});

check("nor is it waited for when its file is left behind", async (path) => {
  const setup = path("setup");
  const accepted = rawServer(setup);
  const client = await connectUnixgram(setup);
  const server = await accepted;
  const reading = failure(client.read());
  server.own.socket.close();
  await fails(client.write(bytes("too late")), "broken-pipe");
  assertEquals((await reading).code, "broken-pipe");
});

check("a peer that does not read makes a write wait, and loses nothing", async (path) => {
  const { listener, client, server } = await pair(path("setup"));
  const data = pattern(100 * UNIXGRAM_BYTES);
  const writing = client.write(data);
  let written = false;
  writing.then(() => written = true);
  await sleep(100);
  assert(!written);
  assertEquals(client.queued, data.length);
  assertEquals(await readBytes(server, data.length), data);
  await writing;
  assertEquals(client.queued, 0);

  const again = failure(client.write(data));
  await sleep(50);
  client.abort();
  assertEquals((await again).code, "aborted");
  const stuck = server.write(data);
  stuck.catch(() => {});
  await fails(server.close(), "broken-pipe");
  await listener.close();
});

check("a flush takes no longer than it may", async (path) => {
  const listener = await listenUnixgram(path("setup"), { flushTimeoutMs: 50 });
  const [client, server] = await Promise.all([connectUnixgram(path("setup")), listener.accept()]);
  server.write(pattern(100 * UNIXGRAM_BYTES)).catch(() => {});
  await fails(server.close(), "timeout");
  client.abort();
  await listener.close();
});

check("a stale socket is taken over, and nothing else is", async (path, list) => {
  const setup = path("setup");
  bind(setup).close();
  await fails(connectUnixgram(setup), "refused");
  const listener = await listenUnixgram(setup);
  await fails(listenUnixgram(setup), "in-use");
  const [client, server] = await Promise.all([connectUnixgram(setup), listener.accept()]);
  client.abort();
  server.abort();
  // It has seen that somebody asked.
  assertEquals(listener.dropped, 1);
  await listener.close();

  const busy = bind(setup);
  const stranger = bind(path("stranger"));
  for (let i = 0; i < 11; i++) await stranger.send(new Uint8Array(1), setup);
  await fails(listenUnixgram(setup), "in-use");
  stranger.close();
  busy.close();

  writeFileSync(path("file"), "kept");
  await fails(listenUnixgram(path("file")), "in-use");
  const stream = createServer();
  await new Promise<void>((resolve) => stream.listen(path("stream"), resolve));
  await fails(listenUnixgram(path("stream")), "in-use");
  assertEquals((await failure(connectUnixgram(path("stream")))).name, "ConnectError");
  await new Promise((resolve) => stream.close(resolve));
  assertEquals(list(), ["file", "setup", "stranger"]);
});

check("a handshake ends with its signal, its time, and where nobody is", async (path, list) => {
  const setup = path("setup");
  await fails(connectUnixgram(setup), "not-found");
  const silent = bind(setup);
  const stop = new AbortController();
  const aborted = failure(connectUnixgram(setup, { signal: stop.signal }));
  assertEquals(list().length, 2);
  stop.abort();
  assertEquals((await aborted).code, "aborted");
  await fails(connectUnixgram(setup, { signal: stop.signal }), "aborted");
  await fails(connectUnixgram(setup, { signal: AbortSignal.timeout(20) }), "timeout");
  const late = await failure(connectUnixgram(setup, { handshakeTimeoutMs: 20 }));
  assertEquals(late.code, "timeout");
  assertMatch(late.message, /^connecting to .*setup by datagrams: timed out$/);
  // An answer that is none is not taken for one.
  const { data } = await silent.receive();
  const lost = failure(connectUnixgram(setup, { handshakeTimeoutMs: 200 }));
  for (let name = text(data);;) {
    await silent.send(bytes("../../../etc/passwd".padEnd(36, "x")), path(name)).catch(() => {});
    if (list().includes(name)) break;
    name = text((await silent.receive()).data);
  }
  assertEquals((await lost).code, "timeout");
  silent.close();
  await fails(listenUnixgram(path("other"), { signal: stop.signal }), "aborted");
  assertEquals(list(), ["setup"]);
});

check(
  "a client that reads nothing is given up, and its server's file with it",
  async (path, list) => {
    for (const handshakeTimeoutMs of [30, 30_000]) {
      const listener = await listenUnixgram(path("setup"), { handshakeTimeoutMs });
      const full = bindOwn(bind, path(""));
      const stranger = bind(path("stranger"));
      for (let i = 0; i < 11; i++) await stranger.send(new Uint8Array(1), full.path);
      await stranger.send(bytes(full.name), path("setup"));
      await until(() => list().length === 4 || listener.dropped === 1);
      if (handshakeTimeoutMs === 30) await until(() => listener.dropped === 1);
      await listener.close();
      assertEquals(list(), [full.name, "stranger"].sort());
      stranger.close();
      full.close();
      unlinkSync(path("stranger"));
    }
  },
);

check("no more than `maxPeers`, and their places are given again", async (path) => {
  const setup = path("setup");
  const listener = await listenUnixgram(setup, { maxPeers: 2 });
  const clients = await Promise.all([connectUnixgram(setup), connectUnixgram(setup)]);
  const served = await listener.accept();
  await fails(connectUnixgram(setup, { handshakeTimeoutMs: 50 }), "timeout");
  assertEquals(listener.dropped, 1);
  await served.close();
  clients.push(await connectUnixgram(setup));
  for (const client of clients) client.abort();
  await listener.close();
});

check("a listener that closes leaves those that were accepted", async (path, list) => {
  const { listener, client, server } = await pair(path("setup"));
  const waiting = await connectUnixgram(path("setup"));
  const accepting = [listener.accept(), listener.accept()];
  (await accepting[0])!.abort();
  const unaccepted = await connectUnixgram(path("setup"));
  accepting.push(listener.accept());
  const last = await accepting[1]!;
  await listener.close();
  await listener.close();
  await fails(accepting[2]!, "closed");
  for await (const _ of listener) assert(false);
  await client.write(bytes("on"));
  assertEquals(text((await server.read())!), "on");
  await fails(connectUnixgram(path("setup")), "not-found");
  for (const conn of [client, server, waiting, unaccepted, last]) conn.abort();
  assertEquals(list(), []);
});

check("addresses and limits that are none are refused", async (path) => {
  for (const bad of ["\0name", "", "a\0b", `/${"x".repeat(107)}`]) {
    await fails(connectUnixgram(bad), "invalid-address");
    await fails(listenUnixgram(bad), "invalid-address");
  }
  for (const options of [{ handshakeTimeoutMs: 0 }, { maxPeers: 0 }, { flushTimeoutMs: -1 }]) {
    const error = await listenUnixgram(path("setup"), options).catch((error) => error);
    assert(error instanceof RangeError);
  }
  process.env["TMPDIR"] = `/${"x".repeat(80)}`;
  await fails(connectUnixgram(path("setup")), SUPPORTED ? "invalid-address" : "unsupported");
  await fails(listenUnixgram(path("setup")), SUPPORTED ? "invalid-address" : "unsupported");
  requireWhole(new Uint8Array(512 * 1024 - 1));
  try {
    requireWhole(new Uint8Array(512 * 1024));
    assert(false);
  } catch (error) {
    assertEquals((error as ConnectError).code, "other");
  }
}, false);

check("a runtime that cannot says what would help", async (path, list) => {
  for (const promise of [connectUnixgram(path("setup")), listenUnixgram(path("setup"))]) {
    const error = await failure(promise);
    assertEquals(error.code, "unsupported");
    assertMatch(error.message, /--unstable-net/);
  }
  assertEquals(list(), []);
}, SUPPORTED);
