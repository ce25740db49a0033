/** The options of a connection manager: what reaches the sockets, whose word wins, and what is refused. */
import { assertEquals } from "@std/assert";
import { auto, connPair, type TlsListenOptions, type Transport } from "@trunkline/sockets/auto";
import type { ListenerOptions, ListenKind } from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  portOf,
  take,
  takeUntil,
  text,
  utf8,
  within,
} from "./cmgr_support.ts";
import { pem } from "./adapter_fixtures.ts";
import { readExactly } from "./adapter_suite.ts";

const SERVER: TlsListenOptions = { cert: pem("server.crt"), key: pem("server.key") };

/** The runtime's sockets, and a record of how they were asked for. */
class RecordingTransport implements Transport {
  readonly calls: object[] = [];
  readonly connect: Transport["connect"] = (address, options) => {
    this.calls.push({ ...options });
    return auto.connect(address, options);
  };
  readonly listen: Transport["listen"] = (address, options) => {
    this.calls.push({ ...options });
    return auto.listen(address, options);
  };
  readonly bindDatagram: Transport["bindDatagram"] = (address, options) => {
    this.calls.push({ ...options });
    return auto.bindDatagram(address, options);
  };
  /** The last call, without its signal. */
  last(): object {
    const { signal: _, ...options } = this.calls.at(-1) as { signal?: AbortSignal };
    return options;
  }
}

check("spec 4 row 34: what is for the sockets reaches them, and nothing else", async (scene) => {
  const transport = new RecordingTransport();
  const shared = { keepAlive: 5000, flushTimeoutMs: 1000, lingerMs: 100, credentials: false };
  const manager = scene.manager({ transport, ...shared, noDelay: false, idleTimeout: 90_000 });
  await manager.listen("tcp", "any", "127.0.0.1", undefined, { backlog: 7, reusePort: true });
  assertEquals(transport.last(), { ...shared, noDelay: false, backlog: 7, reusePort: true });
  await manager.connect(manager.address("l0"), "x", undefined, { noDelay: true, lingerMs: 1 });
  assertEquals(transport.last(), { ...shared, noDelay: true, lingerMs: 1 });
});

check("by default nothing is said to the sockets", async (scene) => {
  const transport = new RecordingTransport();
  const manager = scene.manager({ transport });
  await manager.listen("tcp", "any", "127.0.0.1");
  assertEquals(transport.last(), {});
  await manager.listen("udp", "any", "127.0.0.1");
  assertEquals(transport.last(), {});
  await manager.connect(manager.address("l0"), "x");
  assertEquals(transport.last(), {});
});

check("an option that is undefined leaves the manager's own", async (scene) => {
  const transport = new RecordingTransport();
  const manager = scene.manager({
    transport,
    framing: "lines",
    noDelay: false,
    reusePort: true,
    maxPendingDatagrams: 5,
  });
  const unset: ListenerOptions = {
    framing: undefined,
    noDelay: undefined,
    reusePort: undefined,
    maxPendingDatagrams: undefined,
  };
  await manager.listen("udp", "any", "127.0.0.1", undefined, unset);
  assertEquals(transport.last(), { reusePort: true, maxPending: 5 });
  await manager.listen("tcp", "any", "127.0.0.1", undefined, unset);
  assertEquals(transport.last(), { reusePort: true, noDelay: false });
  const client = await scene.dial(manager);
  await client.write(utf8("a\nb\n"));
  const events = brief(await take(manager.events, 4));
  assertEquals(events.slice(2), ["data a1 a", "data a1 b"]);
});

check("a listener's word wins over the manager's, for its sessions", async (scene) => {
  const manager = scene.manager({ framing: "lines", chunkSize: 1 });
  const raw = await manager.listen("tcp", "any", "127.0.0.1", undefined, { framing: "raw" });
  const lines = await manager.listen("tcp", "any", "127.0.0.1");
  for (const [listener, expected] of [[raw, ["a", "b", "\n"]], [lines, ["ab"]]] as const) {
    const client = await scene.dial(manager, listener);
    await take(manager.events, 2);
    await client.write(utf8("ab\n"));
    const events = await take(manager.events, expected.length);
    assertEquals(events.map(({ data }) => text(data)), [...expected]);
  }
});

check("targets that are none are refused, and leave their names free", async (scene) => {
  const manager = scene.manager();
  for (const target of ["", "nonsense", "127.0.0.1", "127.0.0.1:99999", "unix:", "[::1:5"]) {
    assertEquals(await codeOf(manager.connect(target, "x")), "invalid-address", target);
  }
  for (const target of [undefined, null, 5]) {
    const connecting = manager.connect(target as unknown as string, "x");
    assertEquals(await codeOf(connecting), "TypeError", String(target));
  }
  assertEquals(await codeOf(manager.connect("/nowhere/x.sock", "x")), "not-found");
  assertEquals(await codeOf(manager.listenUnix("")), "invalid-address");
  assertEquals([manager.sessions(), manager.stats().listeners], [[], []]);
});

check("tls is refused where a kind has none, and never left out in silence", async (scene) => {
  const manager = scene.manager();
  for (const kind of ["tcp", "tcp4", "tcp6", "udp"] as ListenKind[]) {
    const listening = manager.listen(kind, "any", "", undefined, { tls: SERVER });
    assertEquals(await codeOf(listening), "TypeError", kind);
  }
});

check("listen() of the kind tls takes an interface", async (scene) => {
  const manager = scene.manager();
  await manager.listen("tls", "any", "127.0.0.1", undefined, { tls: SERVER });
  assertEquals(manager.address("l0"), { hostname: "127.0.0.1", port: portOf(manager) });
  assertEquals(manager.stats().listeners[0]!.kind, "tls");
  const tls = { ca: pem("ca.crt"), serverName: "localhost" };
  await scene.manager().connect(manager.address("l0"), "x", undefined, { tls });
  assertEquals(brief(await take(manager.events, 2)), ["accepted a1", "new a1"]);
});

check("connect() with replace ends with its signal, and waits for no old one", async (scene) => {
  const server = await scene.listening();
  const manager = scene.manager();
  const [conn, peer] = connPair();
  scene.after(() => peer.abort());
  const stalled = manager.adopt(conn, "x");
  // The peer takes none of the second.
  for (let i = 0; i < 2; i++) stalled.write(new Uint8Array(100_000));
  const stop = new AbortController();
  const options = { replace: true, signal: stop.signal };
  const connecting = codeOf(manager.connect(server.address("l0"), "x", undefined, options));
  stop.abort();
  assertEquals(await connecting, "aborted");
});

check("close() while the next connection is being opened ends that", async (scene) => {
  const server = await scene.listening();
  const opening = Promise.withResolvers<void>();
  let calls = 0;
  const transport: Transport = {
    ...auto,
    connect(address, options = {}) {
      if (++calls === 1) return auto.connect(address, options);
      opening.resolve();
      return new Promise((_, reject) => {
        options.signal!.addEventListener("abort", () => reject(new Error("given up")));
      });
    },
  };
  const manager = scene.manager({ transport });
  const reconnect = { minDelayMs: 1, maxDelayMs: 2 };
  const session = await manager.connect(server.address("l0"), "x", undefined, { reconnect });
  await takeUntil(server.events, "new");
  await server.close("a1");
  await within(opening.promise, "the second attempt");
  await within(session.close(), "close()");
  const events = brief(await takeUntil(manager.events, "disconnected"));
  assertEquals(events, ["new x", "reconnecting x eof", "disconnected x closed"]);
  assertEquals(calls, 2);
});

check("a transport of one's own is used for all", async (scene) => {
  const transport = new RecordingTransport();
  const manager = scene.manager({ transport });
  await manager.listen("tcp", "any", "127.0.0.1");
  const session = await manager.connect(manager.address("l0"), "x");
  await session.writeStr("hello");
  const events = await takeUntil(manager.events, "data");
  await events.at(-1)!.writeStr("answer");
  assertEquals(brief(await takeUntil(manager.events, "data")).at(-1), "data x answer");
  assertEquals(transport.calls.length, 2);
  const client = await scene.dial(manager);
  await manager.writeToAll(utf8("all"));
  // The client may not be accepted yet.
  await takeUntil(manager.events, "new", "a2");
  await manager.writeStr("a2", "all");
  assertEquals(text(await readExactly(client, 3)), "all");
});
