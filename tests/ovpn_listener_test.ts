/** OpenVPNs that connect to us: accepting, serving, and how both end. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  type Address,
  type Conn,
  connect,
  connPair,
  listen as listenSocket,
  type Listener,
  type Transport,
  wrapConn,
} from "@trunkline/sockets/auto";
import {
  ConnectError,
  IncomingConnection,
  listen,
  listenAndServe,
  type ManagementClient,
  ManagementError,
  ManagementListener,
  type ServeOptions,
} from "@trunkline/sockets/ovpn";
import { type Recording, replayRecording } from "@trunkline/sockets/ovpn/testing";
import { Inbox } from "../adapters/_inbox.ts";
import { rejectsWith, sleep } from "./adapter_suite.ts";
import { GREETING, rejection } from "./ovpn_fake.ts";
import { unhandledDuring } from "./unhandled.ts";

/** A test that also fails if any promise rejected with nobody to hear of it. */
function check(title: string, body: () => Promise<void>): void {
  test(title, { timeout: 30_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

/** Plays an OpenVPN that is asked for its pid, until the manager leaves. */
async function openvpn(conn: Conn, pid: number): Promise<void> {
  const recording: Recording = [
    { from: "daemon", at: 0, text: GREETING },
    { from: "manager", at: 1, text: "pid\n" },
    { from: "daemon", at: 2, text: `>STATE:1,WAIT,,,,,,\r\nSUCCESS: pid=${pid}\r\n` },
  ];
  await replayRecording(conn, recording);
}

async function dialIn(addr: Address, pid: number): Promise<void> {
  await openvpn(await connect(addr), pid);
}

/** A listener in memory, and what happens to it. */
function fakeListener() {
  const inbox = new Inbox<Conn>(8, "accepting");
  const close = () => {
    inbox.end(new ConnectError("closed", "accepting: closed"));
    return Promise.resolve();
  };
  /** What the next calls of `accept` reject with. */
  const failures: Error[] = [];
  const raw: Listener = {
    addr: { path: "\0in-memory" },
    dropped: 0,
    closed: inbox.closed,
    accept: (options) =>
      failures.length > 0 ? Promise.reject(failures.shift()) : inbox.take(options),
    reloadTls: () => assert(false, "it speaks no TLS"),
    close,
    [Symbol.asyncIterator]: () => inbox.iterate(),
    [Symbol.asyncDispose]: close,
  };
  /** An OpenVPN connects; gives its end. */
  const dialIn = (): Conn => {
    const [ours, theirs] = connPair();
    inbox.push(ours);
    return theirs;
  };
  const breakBy = (error: ConnectError) => inbox.end(error, true);
  return { listener: new ManagementListener(raw), raw, failures, dialIn, breakBy };
}

const tooManyFiles = () => new ConnectError("other", "accepting: failed (EMFILE)");

for (const kind of ["TCP", "unix"]) {
  check(`listen() accepts over ${kind}, and both ends talk`, async () => {
    const where = kind === "unix" ? mkdtempSync(join(tmpdir(), "ovpn-")) : undefined;
    const listener = await listen(where === undefined ? "127.0.0.1:0" : join(where, "m.sock"));
    const conn = await connect(listener.addr);
    const daemon = openvpn(conn, 42);
    const incoming = await listener.accept();
    if (where === undefined) {
      assertEquals(incoming.remote, conn.local);
      assertEquals(incoming.local, listener.addr);
    } else assertEquals(listener.addr, { path: join(where, "m.sock") });
    const client = incoming.open();
    assertEquals(await client.pid(), 42);
    await client.close();
    await daemon;
    const types: string[] = [];
    for await (const { type } of client.events) types.push(type);
    assertEquals(types, ["INFO", "STATE"]);
    await listener.close();
    await listener.closed;
    if (where !== undefined) rmSync(where, { recursive: true });
  });
}

check("listen() takes a transport, and passes options on", async () => {
  const { raw } = fakeListener();
  const asked: unknown[] = [];
  const transport: Pick<Transport, "listen"> = {
    listen(address, options) {
      asked.push(address, options?.backlog);
      return Promise.resolve(raw);
    },
  };
  const listener = await listen("127.0.0.1:1", { transport, backlog: 7 });
  assertEquals(asked, ["127.0.0.1:1", 7]);
  assertStrictEquals(listener.addr, raw.addr);
  await listener[Symbol.asyncDispose]();
  await raw.closed;
});

check("several OpenVPNs are managed at once", async () => {
  const listener = await listen("127.0.0.1:0");
  const pids = [1, 2, 3, 4, 5];
  const daemons = pids.map((pid) => dialIn(listener.addr, pid));
  const clients: ManagementClient[] = [];
  for (const _ of pids) clients.push((await listener.accept()).open());
  const told = await Promise.all(clients.map((client) => client.pid()));
  assertEquals(told.sort(), pids);
  await listener.close();
  await Promise.all(clients.map((client) => client.close()));
  await Promise.all(daemons);
});

check("iteration yields each connection and ends when closed; they live on", async () => {
  const listener = await listen("127.0.0.1:0");
  const daemons = [1, 2].map((pid) => dialIn(listener.addr, pid));
  const clients: ManagementClient[] = [];
  for await (const incoming of listener) {
    if (clients.push(incoming.open()) === 2) await listener.close();
  }
  const told = await Promise.all(clients.map((client) => client.pid()));
  assertEquals(told.sort(), [1, 2]);
  await Promise.all([...clients.map((client) => client.close()), ...daemons]);
});

check("iteration of a broken listener throws its error", async () => {
  const { listener, ...fake } = fakeListener();
  const next = listener[Symbol.asyncIterator]().next();
  const error = new ConnectError("other", "accepting: failed");
  fake.breakBy(error);
  assertStrictEquals(await rejection(next), error);
  assertStrictEquals(await rejection(listener.closed), error);
});

check("accept() ends by signal, and by close()", async () => {
  const listener = await listen("127.0.0.1:0");
  const controller = new AbortController();
  const aborted = listener.accept({ signal: controller.signal });
  const waiting = listener.accept();
  controller.abort();
  await rejectsWith(aborted, "aborted");
  const daemon = dialIn(listener.addr, 1);
  const client = (await waiting).open();
  assertEquals(await client.pid(), 1);
  await Promise.all([client.close(), daemon]);
  const pending = listener.accept();
  await Promise.all([listener.close(), rejectsWith(pending, "closed")]);
  await rejectsWith(listener.accept(), "closed");
  await listener.close();
  (await listenSocket(listener.addr)).close();
});

check("serve() runs handlers concurrently; what they opened lives on", async () => {
  const { listener, ...fake } = fakeListener();
  const daemons = [1, 2, 3].map((pid) => openvpn(fake.dialIn(), pid));
  const clients: ManagementClient[] = [];
  const all = Promise.withResolvers<void>();
  let returned = 0;
  const serving = listener.serve(async (incoming) => {
    // Each waits for all, so one after the other would never end.
    if (clients.push(incoming.open()) === 3) all.resolve();
    await all.promise;
    if (++returned === 3) await listener.close();
  });
  await serving;
  assertEquals(await Promise.all(clients.map((client) => client.pid())), [1, 2, 3]);
  await Promise.all([...clients.map((client) => client.close()), ...daemons]);
});

check(
  "serve() closes the connection of a handler that throws, tells onError, goes on",
  async () => {
    const { listener, ...fake } = fakeListener();
    const errors: unknown[] = [];
    const served: number[] = [];
    const boom = new Error("boom");
    const serving = listener.serve((incoming) => {
      const call = served.push(served.length + 1);
      if (call === 1) throw boom;
      const client = incoming.open();
      if (call === 2) return client.pid().then(() => Promise.reject(boom));
      return client.pid().then((pid) => (assertEquals(pid, 3), client.close()));
    }, { onError: (error) => void errors.push(error) });
    const unopened = fake.dialIn();
    assertEquals(await unopened.read(), null);
    await unopened.close();
    await openvpn(fake.dialIn(), 2);
    await openvpn(fake.dialIn(), 3);
    await listener.close();
    await serving;
    assertEquals(served, [1, 2, 3]);
    assertEquals(errors.length, 2);
    for (const error of errors) assertStrictEquals(error, boom);
  },
);

check("serve() without onError drops a ManagementError, and ends with any other", async () => {
  const { listener, ...fake } = fakeListener();
  const errors: unknown[] = [];
  const boom = new Error("boom");
  const serving = listener.serve(async (incoming) => {
    errors.push(await rejection(incoming.open().pid()));
    throw errors.length < 3 ? errors.at(-1) : boom;
  });
  const ended = rejection(serving);
  for (const daemon of [fake.dialIn(), fake.dialIn(), fake.dialIn()]) await daemon.close();
  assertStrictEquals(await ended, boom);
  assertEquals(errors.length, 3);
  for (const error of errors) {
    assert(error instanceof ManagementError);
    assertEquals(error.code, "disconnected");
  }
  await listener.close();
});

check("serve() ends with what onError throws", async () => {
  const mistake = new Error("a mistake in onError");
  const sources: readonly ServeOptions["onError"][] = [() => {
    throw mistake;
  }, () => Promise.reject(mistake)];
  for (const onError of sources) {
    const ofHandler = fakeListener();
    const handled = ofHandler.listener.serve(() => Promise.reject(new Error("boom")), { onError });
    const [error] = await Promise.all([rejection(handled), ofHandler.dialIn().close()]);
    assertStrictEquals(error, mistake);
    const ofAccept = fakeListener();
    ofAccept.failures.push(tooManyFiles());
    const accepted = ofAccept.listener.serve(() => {}, { onError });
    assertStrictEquals(await rejection(accepted), mistake);
    await Promise.all([ofHandler.listener.close(), ofAccept.listener.close()]);
  }
});

check("serve() tells onError that accept failed, and goes on", async () => {
  for (const heard of [true, false]) {
    const { listener, ...fake } = fakeListener();
    const failures = [tooManyFiles(), tooManyFiles(), tooManyFiles()];
    fake.failures.push(...failures);
    const errors: unknown[] = [];
    const onError = heard ? (error: unknown) => void errors.push(error) : undefined;
    const serving = listener.serve(async (incoming) => {
      const client = incoming.open();
      assertEquals(await client.pid(), 1);
      await client.close();
      await listener.close();
    }, { onError });
    await openvpn(fake.dialIn(), 1);
    await serving;
    assertEquals(errors, heard ? failures : []);
  }
});

check("serve() ends with what broke the listener, at once or in the pause", async () => {
  for (const pausing of [false, true]) {
    const { listener, ...fake } = fakeListener();
    const errors: unknown[] = [];
    const failure = tooManyFiles();
    if (pausing) fake.failures.push(failure);
    const serving = listener.serve(() => {}, { onError: (error) => void errors.push(error) });
    const ended = rejection(serving);
    await sleep(10);
    const error = new ConnectError("other", "accepting: the listener broke");
    fake.breakBy(error);
    assertStrictEquals(await ended, pausing ? failure : error);
    assertEquals(errors, []);
    assertStrictEquals(await rejection(listener.serve(() => {})), error);
  }
});

check("serve() ends by signal; connections and the listener stay", async () => {
  const listener = await listen("127.0.0.1:0");
  const controller = new AbortController();
  const opened = Promise.withResolvers<ManagementClient>();
  const { signal } = controller;
  const serving = listener.serve((incoming) => opened.resolve(incoming.open()), { signal });
  const first = dialIn(listener.addr, 1);
  const client = await opened.promise;
  controller.abort();
  await rejectsWith(serving, "aborted");
  await rejectsWith(listener.serve(() => {}, { signal }), "aborted");
  assertEquals(await client.pid(), 1);

  const second = dialIn(listener.addr, 2);
  const next = (await listener.accept()).open();
  assertEquals(await next.pid(), 2);
  await Promise.all([client.close(), next.close(), listener.close(), first, second]);
  await rejectsWith(connect(listener.addr), "refused");
});

check("serve() of a listener that is closed and aborted: what came first", async () => {
  for (const closeFirst of [true, false]) {
    const { listener } = fakeListener();
    const controller = new AbortController();
    const serving = listener.serve(() => {}, { signal: controller.signal });
    const ended = Promise.allSettled([serving]);
    if (closeFirst) listener.close();
    controller.abort();
    listener.close();
    assertEquals((await ended)[0].status, closeFirst ? "fulfilled" : "rejected");
    if (!closeFirst) await rejectsWith(serving, "aborted");
  }
});

check("listenAndServe() tells where, ends by signal, and frees the address", async () => {
  const controller = new AbortController();
  const where = Promise.withResolvers<Address>();
  const opened = Promise.withResolvers<ManagementClient>();
  const serving = listenAndServe("127.0.0.1:0", (incoming) => opened.resolve(incoming.open()), {
    signal: controller.signal,
    onListen: where.resolve,
  });
  const ended = rejectsWith(serving, "aborted");
  const addr = await where.promise;
  assert("port" in addr && addr.port > 0);
  const daemon = dialIn(addr, 1);
  const client = await opened.promise;
  controller.abort();
  await ended;
  const again = await listenSocket(addr);
  assertEquals(again.addr, addr);
  await again.close();
  assertEquals(await client.pid(), 1);
  await Promise.all([client.close(), daemon]);
});

check("listenAndServe() does not listen on a bad address, or when aborted", async () => {
  const onListen = () => {
    throw new Error("nothing to hear");
  };
  for (const address of ["127.0.0.1", "127.0.0.1:65536", { hostname: "", port: 1 }]) {
    const serving = listenAndServe(address, () => {}, { onListen });
    await rejectsWith(serving, "invalid-address");
  }
  const signal = AbortSignal.abort();
  await rejectsWith(listenAndServe("127.0.0.1:0", () => {}, { signal, onListen }), "aborted");
});

check("listenAndServe() stops listening when onListen or a handler throws", async () => {
  let addr: Address | undefined;
  const boom = new Error("boom");
  const fail = () => Promise.reject(boom);
  const onListen = (at: Address) => {
    addr = at;
    throw boom;
  };
  assertStrictEquals(await rejection(listenAndServe("127.0.0.1:0", fail, { onListen })), boom);
  await rejectsWith(connect(addr!), "refused");

  const where = Promise.withResolvers<Address>();
  const ended = rejection(listenAndServe("127.0.0.1:0", fail, { onListen: where.resolve }));
  const daemon = await connect(addr = await where.promise);
  assertEquals(await daemon.read(), null);
  await daemon.close();
  assertStrictEquals(await ended, boom);
  await rejectsWith(connect(addr), "refused");
});

check("open() is for once, but may be tried again after bad options", async () => {
  const [ours, theirs] = connPair();
  const incoming = new IncomingConnection(ours);
  assertThrows(() => incoming.open({ timeoutMs: 0 }), RangeError, "timeoutMs");
  const client = incoming.open();
  assertThrows(() => incoming.open(), TypeError, "open already");
  const daemon = openvpn(theirs, 9);
  assertEquals(await client.pid(), 9);
  await incoming.close();
  await incoming.close();
  await client.closed;
  await daemon;
});

check("close() before open() sends nothing, and OpenVPN sees the end", async () => {
  const listener = await listen("127.0.0.1:0");
  const [daemon, incoming] = await Promise.all([connect(listener.addr), listener.accept()]);
  await daemon.write(new TextEncoder().encode(GREETING));
  const closing = incoming.close();
  assertEquals(await daemon.read(), null);
  await daemon.close();
  await closing;
  await incoming.close();
  assertThrows(() => incoming.open(), TypeError, "closed");
  await listener.close();
});

check("remote, local and peerCredentials() are those of the connection", async () => {
  const [duplex, theirs] = connPair();
  const addresses = {
    local: { hostname: "127.0.0.1", port: 1 },
    remote: { hostname: "127.0.0.1", port: 2 },
  };
  const conn = wrapConn({ readable: duplex.readable, writable: duplex.writable }, addresses);
  const who = { pid: 1, uid: 2, gid: 3 };
  conn.peerCredentials = () => who;
  const incoming = new IncomingConnection(conn);
  assertStrictEquals(incoming.local, addresses.local);
  assertStrictEquals(incoming.remote, addresses.remote);
  assertStrictEquals(incoming.peerCredentials(), who);
  await Promise.all([incoming.close(), theirs.read().then(() => theirs.close())]);
});
