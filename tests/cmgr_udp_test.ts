/** UDP sockets of a connection manager. */
import { assert, assertEquals } from "@std/assert";
import { bindDatagram, type Datagram, type InetAddress } from "@trunkline/sockets/auto";
import {
  Channel,
  type ConnectionManager,
  resolveUdpAddr,
  type UdpSession,
} from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  portOf,
  type Scene,
  take,
  takeUntil,
  text,
  until,
  utf8,
  within,
} from "./cmgr_support.ts";
import { pattern, same } from "./adapter_suite.ts";

/** The most that a datagram takes over IPv4. */
const MAX_BYTES = 65_507;

async function peer(scene: Scene, hostname = "127.0.0.1"): Promise<Datagram> {
  const socket = await bindDatagram({ hostname, port: 0 });
  scene.after(() => socket.close());
  return socket;
}

const received = async (socket: Datagram) =>
  text((await within(socket.receive(), "a datagram")).data);

/** A manager with the UDP socket `u0`, and a peer of it. */
async function pair(scene: Scene): Promise<{
  manager: ConnectionManager;
  session: UdpSession;
  other: Datagram;
}> {
  const manager = scene.manager();
  await manager.listen("udp", "any", "127.0.0.1");
  return { manager, session: manager.session("u0") as UdpSession, other: await peer(scene) };
}

check("a UDP socket has no `new`; its datagrams say who sent them", async (scene) => {
  const { manager, session, other } = await pair(scene);
  await other.send(utf8("hello"), session.local as InetAddress);
  const [event] = await take(manager.events, 1);
  const { state, code, id, from, address, info } = event!;
  assertEquals([state, code, id, info], ["data", 1, "u0", ""]);
  assertEquals([from, address], [`127.0.0.1:${other.addr.port}`, other.addr]);
  assertEquals([event!.session, session.from, session.remote], [session, "", undefined]);
  assertEquals([session.kind, session.local], ["udp", manager.address("u0")]);
});

check("a listener may have the sink that its datagrams go to", async (scene) => {
  const sink = new Channel(4);
  const manager = scene.manager();
  const id = await manager.listenUdp("any", sink);
  const other = await peer(scene);
  await other.send(utf8("x"), { hostname: "127.0.0.1", port: portOf(manager, id) });
  const [event] = await take(sink, 1);
  // From a socket that takes both families, as IPv4 all the same.
  assertEquals(event!.from, `127.0.0.1:${other.addr.port}`);
  await event!.writeStr("answer");
  assertEquals(await received(other), "answer");
});

check("datagrams of 0 to 65507 bytes come and go whole", async (scene) => {
  const { manager, session, other } = await pair(scene);
  for (const size of [0, 1, 2048, 2049, 65_000, MAX_BYTES]) {
    await other.send(pattern(size), session.local as InetAddress);
    const [event] = await take(manager.events, 1);
    same(event!.data, pattern(size));
    await event!.write(event!.data);
    same((await within(other.receive(), "its echo")).data, pattern(size));
  }
  const { bytesIn, bytesOut, messagesIn, messagesOut, dropped, queued } = session.stats();
  assertEquals([bytesIn, messagesIn], [bytesOut, messagesOut]);
  assertEquals([messagesIn, dropped, queued], [6, 0, 0]);
});

check("a datagram that is too large is refused, and the next goes", async (scene) => {
  const { manager, session, other } = await pair(scene);
  const large = new Uint8Array(MAX_BYTES + 1);
  assertEquals(await codeOf(session.writeTo(other.addr, large)), "RangeError");
  assertEquals(await codeOf(manager.writeUdpAddr("u0", other.addr, large)), "RangeError");
  await session.writeTo(other.addr, utf8("fits"));
  assertEquals([await received(other), session.queued], ["fits", 0]);
});

check("write() goes to the peer that the socket is bound to", async (scene) => {
  const { manager, session, other } = await pair(scene);
  const another = await peer(scene);
  assertEquals(await codeOf(session.writeStr("whom?")), "not-bound");
  session.bind(other.addr);
  assertEquals([session.from, session.remote], [`127.0.0.1:${other.addr.port}`, other.addr]);
  await manager.writeStr("u0", "one");
  await session.writeN(utf8("twofold"), 3);
  assertEquals([await received(other), await received(other)], ["one", "two"]);
  // Binding closes it to nobody, and an answer goes to its asker.
  await another.send(utf8("me too"), session.local as InetAddress);
  const [event] = await take(manager.events, 1);
  await event!.writeStr("you too");
  assertEquals(await received(another), "you too");
  session.unbind();
  assertEquals(await codeOf(manager.writeStr("u0", "whom?")), "not-bound");
  assertEquals(session.from, "");
});

check("spec 4 row 24: a broadcast goes from UDP sockets that are bound", async (scene) => {
  const { manager, session, other } = await pair(scene);
  const nobody = { sent: 0, skipped: 0, failed: 0 };
  assertEquals(await manager.writeToAll(utf8("lost")), nobody);
  session.bind(other.addr);
  assertEquals(await manager.writeToAll(utf8("to all")), { ...nobody, sent: 1 });
  assertEquals(await received(other), "to all");
});

check("writeUdp() takes names, texts and bytes", async (scene) => {
  const { manager, other } = await pair(scene);
  const { port } = other.addr;
  await manager.writeUdp("u0", `127.0.0.1:${port}`, "text ✓");
  await manager.writeUdp("u0", `localhost:${port}`, utf8("by name"));
  await manager.writeUdp("u0", `localhost:${port}`, "again");
  await manager.writeUdpAddr("u0", other.addr, "address");
  await manager.writeUdpAddr("u0", { hostname: "localhost", port }, utf8("name"));
  for (const expected of ["text ✓", "by name", "again", "address", "name"]) {
    assertEquals(await received(other), expected);
  }
});

check("writeUdp() of a name finds the family of its socket", async (scene) => {
  const manager = scene.manager();
  const ids = [
    await manager.listen("udp", "any", "127.0.0.1"),
    await manager.listen("udp", "any", ""),
  ];
  const other = await peer(scene);
  for (const id of ids) {
    await manager.writeUdp(id, `localhost:${other.addr.port}`, id);
    assertEquals(await received(other), id);
  }
});

check("a name that was resolved for one family is not used for the other", async (scene) => {
  const manager = scene.manager();
  const [four, six] = [
    await manager.listen("udp4", "any", "127.0.0.1"),
    await manager.listen("udp6", "any", "::1"),
  ];
  const to = `localhost:${portOf(manager, four)}`;
  await manager.writeUdp(four, to, "x");
  // Whether it has an address of the other family is the machine's affair.
  const expected = await resolveUdpAddr(to, { family: 6 }).then(() => "sent", ({ code }) => code);
  const result = await manager.writeUdp(six, to, "x").then(() => "sent", ({ code }) => code);
  assertEquals(result, expected);
});

check("writeUdp() refuses what is no UDP socket, no address and no data", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  await take(manager.events, 2);
  const udp = await manager.listen("udp", "any", "127.0.0.1");
  for (const id of ["a1", "l0", "nobody"]) {
    assertEquals(await codeOf(manager.writeUdp(id, "127.0.0.1:9", "x")), "no-such-session");
  }
  for (const to of ["127.0.0.1", "/path", "", "unix:x", "127.1:9", ":9", "127.0.0.1:99999"]) {
    assertEquals(await codeOf(manager.writeUdp(udp, to, "x")), "invalid-address", to);
  }
  const nowhere = { hostname: "127.0.0.1", port: -1 };
  assertEquals(await codeOf(manager.writeUdpAddr(udp, nowhere, "x")), "invalid-address");
  const wrong = 5 as unknown as string;
  assertEquals(await codeOf(manager.writeUdp(udp, "127.0.0.1:9", wrong)), "TypeError");
  assertEquals(manager.session(udp)!.queued, 0);
});

check("resolveUdpAddr() gives the address of a text", async () => {
  assertEquals(await resolveUdpAddr("127.0.0.1:53"), { hostname: "127.0.0.1", port: 53 });
  assertEquals(await resolveUdpAddr("[::1]:53"), { hostname: "::1", port: 53 });
  const local = await resolveUdpAddr("localhost:53", { family: 4 });
  assertEquals(local, { hostname: "127.0.0.1", port: 53 });
  for (const wrong of ["localhost", "/run/x.sock", "", "x:y", "[::1:53"]) {
    assertEquals(await codeOf(resolveUdpAddr(wrong)), "invalid-address");
  }
  assertEquals(await codeOf(resolveUdpAddr("nobody.invalid:53")), "not-found");
  const signal = AbortSignal.abort();
  assertEquals(await codeOf(resolveUdpAddr("nobody.invalid:53", { signal })), "aborted");
});

check("datagrams that wait to leave are bounded, empty ones too", async (scene) => {
  const manager = scene.manager({ maxQueuedBytes: 10_000 });
  const id = await manager.listen("udp", "any", "127.0.0.1");
  const other = await peer(scene);
  for (const size of [0, 1000]) {
    const sends = Array.from(
      { length: 1000 },
      () => manager.writeUdpAddr(id, other.addr, new Uint8Array(size)),
    );
    const session = manager.session(id)!;
    assert(session.queued <= 10_000, `${session.queued} bytes wait`);
    const results = await within(Promise.allSettled(sends), "all sends");
    const codes = results.flatMap((it) => it.status === "rejected" ? [it.reason.code] : []);
    assert(codes.length > 0 && codes.length < 1000, `${codes.length} of 1000 refused`);
    assertEquals([...new Set(codes)], ["queue-full"]);
    assertEquals([session.queued, manager.stats().queued], [0, 0]);
  }
});

check("datagrams that wait for a name are bounded as well", async (scene) => {
  const manager = scene.manager({ maxQueuedBytes: 10_000 });
  const id = await manager.listen("udp", "any", "127.0.0.1");
  const sends = Array.from(
    { length: 100 },
    () => manager.writeUdp(id, "none.invalid:9", new Uint8Array(1000)),
  );
  const results = await within(Promise.allSettled(sends), "all sends");
  const codes = results.map((it) => it.status === "rejected" ? it.reason.code : "sent");
  assertEquals([...new Set(codes)].sort(), ["not-found", "queue-full"]);
  assertEquals([manager.session(id)!.queued, manager.stats().queued], [0, 0]);
});

check("a signal ends writeUdp() while its name is resolved", async (scene) => {
  const { manager, other } = await pair(scene);
  const { port } = other.addr;
  const stop = new AbortController();
  const { signal } = stop;
  const sending = codeOf(manager.writeUdp("u0", `localhost:${port}`, "lost", { signal }));
  stop.abort();
  assertEquals(await sending, "aborted");
  assertEquals(await codeOf(manager.writeUdp("u0", "localhost:9", "x", { signal })), "aborted");
  // The question goes on, and whoever else has it gets the answer.
  await manager.writeUdp("u0", `localhost:${port}`, "sent");
  assertEquals(await received(other), "sent");
});

check("spec 4 row 32: udp4 and udp6 take one family", async (scene) => {
  const manager = scene.manager();
  const four = await manager.listen("udp4", "any", "");
  const six = await manager.listen("udp6", "any", "");
  const [by4, by6] = [await peer(scene), await peer(scene, "::1")];
  await by4.send(utf8("refused?"), { hostname: "127.0.0.1", port: portOf(manager, six) });
  await by4.send(utf8("four"), { hostname: "127.0.0.1", port: portOf(manager, four) });
  await by6.send(utf8("six"), { hostname: "::1", port: portOf(manager, six) });
  const events = await take(manager.events, 2);
  assertEquals(brief(events).sort(), ["data u0 four", "data u1 six"]);
  for (const event of events) await event.writeStr("answer");
  assertEquals([await received(by4), await received(by6)], ["answer", "answer"]);
});

check("a sink that does not take datagrams costs no memory; they are counted", async (scene) => {
  const sink = new Channel(1);
  const manager = scene.manager();
  const id = await manager.listen("udp", "any", "127.0.0.1", sink, { maxPendingDatagrams: 2 });
  const other = await peer(scene);
  const session = manager.session(id) as UdpSession;
  for (let i = 0; i < 20; i++) await other.send(utf8(`${i}`), session.local as InetAddress);
  await until(() => session.stats().dropped > 0);
  assertEquals(brief(await take(sink, 2)), ["data u0 0", "data u0 1"]);
});

check("close() of a UDP socket frees its port and ends it once", async (scene) => {
  const { manager, session, other } = await pair(scene);
  const { port } = session.local as InetAddress;
  await Promise.all([manager.close("u0"), session.close(), session.close({ discard: true })]);
  const [end] = await take(manager.events, 1);
  assertEquals([end!.state, end!.reason, end!.session], ["disconnected", "closed", session]);
  assertEquals(await codeOf(session.writeTo(other.addr, utf8("late"))), "disconnected");
  assertEquals(await codeOf(end!.writeStr("late")), "disconnected");
  assertEquals(session.stats().state, "ended");
  assertEquals(await manager.listen("udp", port, "127.0.0.1"), "u1");
});

check("spec 4 row 14: close() with discard drops datagrams that nobody took", async (scene) => {
  const { manager, session, other } = await pair(scene);
  for (let i = 0; i < 3; i++) await other.send(utf8("x"), session.local as InetAddress);
  await until(() => manager.events.length === 3);
  await session.close({ discard: true });
  assertEquals(brief(await take(manager.events, 1)), ["disconnected u0 closed"]);
});

check("what was sent before close() has left", async (scene) => {
  const { session, other } = await pair(scene);
  for (let i = 0; i < 20; i++) session.writeTo(other.addr, utf8(`${i}`));
  await session.close();
  for (let i = 0; i < 20; i++) assertEquals(await received(other), `${i}`);
});

check("a peer that is not there ends nothing", async (scene) => {
  const { manager, session, other } = await pair(scene);
  const gone = await bindDatagram("127.0.0.1:0");
  await gone.close();
  for (let i = 0; i < 5; i++) {
    // Some systems tell of the port unreachable by the next call; the socket lives on.
    await session.writeTo(gone.addr, utf8("x")).catch(() => {});
  }
  await other.send(utf8("alive"), session.local as InetAddress);
  assertEquals(brief(await take(manager.events, 1)), ["data u0 alive"]);
});

check("a busy UDP port is an error, and makes no session", async (scene) => {
  const { manager, session } = await pair(scene);
  const { port } = session.local as InetAddress;
  assertEquals(await codeOf(manager.listen("udp", port, "127.0.0.1")), "in-use");
  assertEquals(manager.sessions().length, 1);
});

check("multicast: a group by the loopback interface, and its end", async (scene) => {
  const manager = scene.manager();
  // A free port: that of a socket that is closed again.
  const probe = await bindDatagram("0.0.0.0:0");
  const group = { hostname: "239.1.2.3", port: probe.addr.port };
  await probe.close();
  const id = await manager.listenMulticast("127.0.0.1", `239.1.2.3:${group.port}`);
  assertEquals([id, portOf(manager, id)], ["m0", group.port]);
  const other = await bindDatagram("0.0.0.0:0");
  scene.after(() => other.close());
  other.setMulticastInterface("127.0.0.1");
  await other.send(utf8("to the group"), group);
  const [event] = await take(manager.events, 1);
  assertEquals(brief([event!]), ["data m0 to the group"]);
  await event!.writeStr("answer");
  assertEquals(await received(other), "answer");
  await manager.close(id);
  assertEquals(brief(await takeUntil(manager.events, "disconnected")), ["disconnected m0 closed"]);
});

check("multicast: groups and interfaces that are none leave no socket", async (scene) => {
  const manager = scene.manager();
  for (
    const [iface, group] of [
      ["127.0.0.1", "127.0.0.1:5000"],
      ["none0", "239.1.2.3:5000"],
      ["127.0.0.1", "239.1.2.3"],
      ["127.0.0.1", "/path"],
    ] as const
  ) {
    assertEquals(await codeOf(manager.listenMulticast(iface, group)), "invalid-address", group);
  }
  assertEquals([manager.sessions(), manager.events.length], [[], 0]);
});
