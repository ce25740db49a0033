/** TLS of a connection manager: what is verified, refused, counted and reloaded. */
import { assertEquals } from "@std/assert";
import {
  connect,
  type InetAddress,
  type TlsConnectOptions,
  type TlsListenOptions,
} from "@trunkline/sockets/auto";
import { ConnectionManager, type StreamSession } from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  portOf,
  type Scene,
  take,
  takeUntil,
  text,
  thrown,
  until,
  utf8,
  within,
} from "./cmgr_support.ts";
import { pem } from "./adapter_fixtures.ts";
import { pattern, readAll, readExactly, same } from "./adapter_suite.ts";

const SERVER: TlsListenOptions = { cert: pem("server.crt"), key: pem("server.key") };
const OTHER: TlsListenOptions = { cert: pem("other.crt"), key: pem("other.key") };
const CLIENT: TlsConnectOptions = { ca: pem("ca.crt"), serverName: "localhost" };

/** A manager that listens for TLS, as `l0`, and how to connect to it. */
async function listening(scene: Scene, tls: TlsListenOptions = SERVER, options = {}) {
  const manager = scene.manager();
  await manager.listenTls("any", tls, undefined, options);
  return { manager, target: `127.0.0.1:${portOf(manager)}` };
}

check("listenTls() and connect() with tls speak TLS, verified as asked", async (scene) => {
  const { manager, target } = await listening(scene);
  const client = scene.manager();
  const session = await client.connect(target, "me", undefined, { tls: CLIENT });
  assertEquals([session.kind, session.tls?.authorized], ["tls", true]);
  await session.write(pattern(100_000));
  const events = await take(manager.events, 2);
  assertEquals(brief(events), ["accepted a1", "new a1"]);
  const served = events[0]!.session as StreamSession;
  assertEquals([served.kind, served.tls?.protocol], ["tls", "TLSv1.3"]);
  for (let left = 100_000; left > 0;) left -= (await take(manager.events, 1))[0]!.data.length;
  await manager.writeStr("a1", "answer");
  assertEquals(brief(await take(client.events, 2)), ["new me", "data me answer"]);
  await manager.close("a1");
  assertEquals(brief(await take(client.events, 1)), ["disconnected me eof"]);
});

check("spec 4 row 30: `accepted` comes after the handshake, and never without", async (scene) => {
  const { manager, target } = await listening(scene, SERVER, { handshakeTimeout: 100 });
  const silent = await scene.client(target);
  await within(readAll(silent).catch(() => {}), "its end");
  await until(() => manager.stats().listeners[0]!.dropped === 1);
  // At another one: a busy machine may not be done within that time.
  const patient = await listening(scene);
  await scene.manager().connect(patient.target, "me", undefined, { tls: CLIENT });
  const [accepted] = await take(patient.manager.events, 2);
  assertEquals((accepted!.session as StreamSession).tls?.protocol, "TLSv1.3");
  assertEquals([manager.events.length, manager.stats().listeners[0]!.accepted], [0, 0]);
});

check("garbage instead of a handshake is counted, and nothing else", async (scene) => {
  const { manager, target } = await listening(scene);
  for (let i = 0; i < 3; i++) {
    const client = await scene.client(target);
    await client.write(utf8("GET / HTTP/1.0\r\n\r\n"));
    await within(readAll(client).catch(() => {}), "its end");
  }
  await until(() => manager.stats().listeners[0]!.dropped === 3);
  const { accepted, sessions } = manager.stats().listeners[0]!;
  assertEquals([accepted, sessions, manager.events.length], [0, 0, 0]);
});

check("a certificate that is not trusted is refused; the name is free then", async (scene) => {
  const { target } = await listening(scene);
  const manager = scene.manager();
  const wrong: (TlsConnectOptions | true)[] = [
    true,
    { serverName: "localhost" },
    { ...CLIENT, serverName: "other.example" },
    { ...CLIENT, ca: pem("other.crt") },
  ];
  for (const tls of wrong) {
    assertEquals(await codeOf(manager.connect(target, "me", undefined, { tls })), "tls");
  }
  assertEquals([manager.sessions(), manager.events.length], [[], 0]);
  const unverified = { tls: { verify: false } };
  const session = await manager.connect(target, "me", undefined, unverified);
  assertEquals(session.tls?.authorized, false);
});

check("a peer that speaks no TLS is refused", async (scene) => {
  const plain = await scene.listening();
  const manager = scene.manager();
  const connecting = manager.connect(plain.address("l0"), "me", undefined, { tls: CLIENT });
  await takeUntil(plain.events, "data");
  await plain.writeStr("a1", "220 mail ready\r\n");
  assertEquals(await codeOf(connecting), "tls");
});

check("client certificates can be asked for", async (scene) => {
  const tls = { ...SERVER, ca: pem("ca.crt"), requireClientCert: true };
  const { manager, target } = await listening(scene, tls);
  const ours = { cert: pem("client.crt"), key: pem("client.key") };
  const client = scene.manager();
  await client.connect(target, "known", undefined, { tls: { ...CLIENT, ...ours } });
  const [accepted] = await take(manager.events, 2);
  assertEquals((accepted!.session as StreamSession).tls?.authorized, true);
  // With TLS 1.3 one without hears of it after its own side of the handshake.
  await client.connect(target, "unknown", undefined, { tls: CLIENT })
    .then(() => takeUntil(client.events, "disconnected", "unknown"), () => {});
  await until(() => manager.stats().listeners[0]!.dropped === 1);
  assertEquals(manager.stats().listeners[0]!.accepted, 1);
});

check("certificates and keys that are none are refused by listenTls()", async (scene) => {
  const manager = scene.manager();
  const { cert, key } = SERVER as { cert: string; key: string };
  const wrong: TlsListenOptions[] = [
    {},
    { cert },
    { key },
    { cert: "nonsense", key },
    { cert, key: pem("other.key") },
  ];
  for (const tls of wrong) assertEquals(await codeOf(manager.listenTls("any", tls)), "tls");
  const hasty = manager.listenTls("any", SERVER, undefined, { handshakeTimeout: 0 });
  assertEquals(await codeOf(hasty), "RangeError");
  assertEquals(manager.stats().listeners, []);
  assertEquals(await manager.listenTls("any", SERVER), "l0");
});

check("reloadTls() is for the next handshakes; sessions go on", async (scene) => {
  const { manager, target } = await listening(scene);
  const client = scene.manager();
  const before = await client.connect(target, "before", undefined, { tls: CLIENT });
  manager.reloadTls("l0", OTHER);
  assertEquals(await codeOf(client.connect(target, "x", undefined, { tls: CLIENT })), "tls");
  const other = { ca: pem("other.crt"), serverName: "localhost" };
  const after = await client.connect(target, "after", undefined, { tls: other });
  for (const session of [before, after]) await session.writeStr("alive");
  const events = brief(await take(manager.events, 6)).filter((it) => it.startsWith("data"));
  assertEquals(events.length, 2);
});

check("reloadTls() of what is no certificate or no listener changes nothing", async (scene) => {
  const { manager, target } = await listening(scene);
  assertEquals(thrown(() => manager.reloadTls("l0", { cert: "nonsense", key: "x" })), "tls");
  for (const id of ["l1", "a1", ""]) {
    assertEquals(thrown(() => manager.reloadTls(id, SERVER)), "no-such-session");
  }
  await manager.listen("tcp", "any", "127.0.0.1");
  assertEquals(thrown(() => manager.reloadTls("l1", SERVER)), "unsupported");
  await scene.manager().connect(target, "me", undefined, { tls: CLIENT });
});

check("a handshake ends with the signal and the time of connect()", async (scene) => {
  const plain = await scene.listening();
  const manager = scene.manager();
  const connect = (options: object) =>
    codeOf(manager.connect(plain.address("l0"), "me", undefined, { tls: CLIENT, ...options }));
  assertEquals(await connect({ timeoutMs: 50 }), "timeout");
  const stop = new AbortController();
  const connecting = connect({ signal: stop.signal });
  await takeUntil(plain.events, "new", "a2");
  stop.abort();
  assertEquals(await connecting, "aborted");
  assertEquals(manager.sessions(), []);
});

check("a half-closed TLS session can still answer", async (scene) => {
  const { manager } = await listening(scene, SERVER, { allowHalfOpen: true });
  const address = { hostname: "127.0.0.1", port: (manager.address("l0") as InetAddress).port };
  const client = await connect(address, { tls: CLIENT });
  scene.after(() => client.abort());
  await client.write(utf8("question"));
  await client.closeWrite();
  const events = await takeUntil(manager.events, "eof");
  assertEquals(brief(events.slice(2)), ["data a1 question", "eof a1"]);
  await events[0]!.write(pattern(300_000));
  manager.close("a1");
  same(await readExactly(client, 300_000), pattern(300_000));
  assertEquals(text(await readAll(client)), "");
});

check("a session over TLS reconnects with its options", async (scene) => {
  const { manager, target } = await listening(scene);
  const client = new ConnectionManager();
  scene.after(() => client.shutdown({ graceMs: 100 }));
  const reconnect = { minDelayMs: 1, maxDelayMs: 5 };
  await client.connect(target, "me", undefined, { tls: CLIENT, reconnect });
  await take(manager.events, 2);
  await manager.close("a1");
  const events = await takeUntil(client.events, "reconnecting");
  assertEquals(brief(events), ["new me", "reconnecting me eof"]);
  const [again] = await take(client.events, 1);
  assertEquals([again!.state, (again!.session as StreamSession).tls?.authorized], ["new", true]);
});
