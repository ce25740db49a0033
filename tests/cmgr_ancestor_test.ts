/** What the Go ancestor was seen to do (tests/fixtures/cmgr), and where we do otherwise: spec 4 says why, row by row. */
import { assert, assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { bindDatagram, formatAddress, listen } from "@trunkline/sockets/auto";
import {
  Channel,
  ConnectionManager,
  discard,
  type SessionEvent,
  ST_ACCEPTED,
  ST_DATA,
  ST_DISC,
  ST_NEW,
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
  utf8,
  within,
} from "./cmgr_support.ts";
import { pattern, readAll, readExactly, same } from "./adapter_suite.ts";

interface Recorded {
  readonly state: string;
  readonly id: string;
  readonly from: string;
  readonly data: string;
  readonly len: number;
}
type Told = Omit<Recorded, "from">;

const FOLDER = new URL("./fixtures/cmgr/", import.meta.url);
const CASES = JSON.parse(readFileSync(new URL("connman-probe.json", FOLDER), "utf8"));
const GO_STATES: Readonly<Record<number, string>> = {
  [ST_NEW]: "ST_NEW",
  [ST_DATA]: "ST_DATA",
  [ST_DISC]: "ST_DISC",
  [ST_ACCEPTED]: "ST_ACCEPTED",
};

/** The recording of the case whose name begins so. */
function recording(number: string): unknown {
  const name = Object.keys(CASES).find((it) => it.startsWith(`${number} `));
  assert(name !== undefined, `no recording ${number}`);
  return CASES[name];
}

/** Lists of events of a recording, with our addresses in place of theirs: the n-th that it names is the n-th of `peers`. */
function recorded(number: string, peers: readonly string[]): Told[] {
  const lists = (recording(number) as unknown[]).flat() as (Recorded | string | null)[];
  const events = lists.filter((it): it is Recorded => it !== null && typeof it === "object");
  const theirs = [...new Set(events.flatMap(({ data }) => data.match(/[\d.]+:\d+$/) ?? []))];
  assertEquals(theirs.length, peers.length);
  return events.map(({ state, id, data, len }) => ({
    state,
    id,
    data: theirs.reduce((text, address, i) => text.replace(address, peers[i]!), data),
    len,
  }));
}

/** Our events in the words of a recording. What is always otherwise, `from` and the reason of an end (rows 3 and 12), is left out. */
function told(events: readonly SessionEvent[]): Told[] {
  return events.map(({ code, id, info, data }) => ({
    state: GO_STATES[code]!,
    id,
    data: code === ST_DISC ? "" : info,
    len: data.length,
  }));
}

/** Plain connections that a manager can connect to. */
async function server(scene: Scene) {
  const listener = await listen("127.0.0.1:0");
  scene.after(() => listener.close());
  const target = `127.0.0.1:${(listener.addr as { port: number }).port}`;
  const accept = async () => {
    const conn = await within(listener.accept(), "a connection");
    scene.after(() => conn.abort());
    return conn;
  };
  return { target, accept };
}

check("01: a session begins, has data and ends with the events of the ancestor", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const begin = await take(manager.events, 2);
  await client.write(utf8("hello"));
  const data = await take(manager.events, 1);
  await client.close();
  const all = [...begin, ...data, ...await take(manager.events, 1)];
  assertEquals(told(all), recorded("01", [formatAddress(client.local!)]));
});

check("01, spec 4 row 1: `new` can be answered as well as `accepted`", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [accepted, begun] = await take(manager.events, 2);
  await accepted!.writeStr("one ");
  await begun!.writeStr("two");
  assertEquals(text(await readExactly(client, 7)), "one two");
});

check("01, spec 4 row 3: every event says who the peer is", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await client.write(utf8("hello"));
  await client.close();
  const events = await takeUntil(manager.events, "disconnected");
  assertEquals(events.length, 4);
  for (const { from, address } of events) {
    assertEquals([from, address], [formatAddress(client.local!), client.local]);
  }
});

check("01, spec 4 row 12: the end says why, and the session how much there was", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await client.write(utf8("hello"));
  await client.close();
  const end = (await takeUntil(manager.events, "disconnected")).at(-1)!;
  assertEquals([end.reason, end.info, end.error, end.data.length], ["eof", "eof", undefined, 0]);
  const { state, bytesIn, bytesOut, messagesIn } = end.session.stats();
  assertEquals([state, bytesIn, bytesOut, messagesIn], ["ended", 5, 0, 1]);
  assertEquals(await codeOf(end.writeStr("late")), "disconnected");
});

check("01b-01d, spec 4 row 17: ids that nobody has are errors", async (scene) => {
  assertEquals([recording("01b"), recording("01c")], ["<nil>", "<nil>"]);
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  client.abort();
  await takeUntil(manager.events, "disconnected");
  for (const id of ["a1", "nobody", "a2", ""]) {
    assertEquals(await codeOf(manager.writeStr(id, "lost")), "no-such-session");
    assertEquals(await codeOf(manager.close(id)), "no-such-session");
  }
});

check("02: chunks of at most 2048 bytes, if one wants them", async (scene) => {
  assertEquals(recorded("02", []).map(({ len }) => len), [2048, 2048, 904]);
  const manager = await scene.listening({ chunkSize: 2048 });
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  const sent = pattern(5000);
  await client.write(sent);
  for (let at = 0; at < sent.length;) {
    const { data } = (await take(manager.events, 1))[0]!;
    assert(data.length > 0 && data.length <= 2048, `${data.length} bytes`);
    // Where the cuts are is the runtime's affair.
    same(data, sent.subarray(at, at += data.length));
  }
});

check("02, spec 4 row 10: by default data comes as the runtime has it", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  await client.write(new Uint8Array(300_000));
  for (let left = 300_000; left > 0;) {
    const { length } = (await take(manager.events, 1))[0]!.data;
    assert(length > 0 && length <= 65536, `${length} bytes`);
    left -= length;
  }
});

check("03: a peer that ends its side ends the session; what is written is lost", async (scene) => {
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  await take(manager.events, 2);
  await client.write(utf8("abc"));
  await client.closeWrite();
  assertEquals(told(await take(manager.events, 2)), recorded("03", []));
  // Row 17: the ancestor says nil here, and the client gets nothing either.
  assertEquals(await codeOf(manager.writeStr("a1", "reply")), "no-such-session");
  assertEquals((await readAll(client)).length, 0);
});

check("03, spec 4 row 16: with allowHalfOpen the reply arrives", async (scene) => {
  const manager = await scene.listening({ allowHalfOpen: true });
  const client = await scene.dial(manager);
  await client.write(utf8("abc"));
  await client.closeWrite();
  const events = await takeUntil(manager.events, "eof");
  assertEquals(brief(events), ["accepted a1", "new a1", "data a1 abc", "eof a1"]);
  assertEquals(events.at(-1)!.code, 4);
  assertEquals(manager.session("a1")!.stats().state, "half-open");
  await events.at(-1)!.writeStr("reply");
  await manager.close("a1");
  assertEquals(text(await readAll(client)), "reply");
  assertEquals(brief(await take(manager.events, 1)), ["disconnected a1 closed"]);
});

check("04, spec 4 row 4: two listeners give different ids", async (scene) => {
  const manager = await scene.listening();
  const second = await manager.listen("tcp", "any", "127.0.0.1");
  assertEquals(second, (recording("04") as string[])[0]!.split(" ")[3]!);
  const first = await scene.dial(manager);
  const begin = await take(manager.events, 2);
  const other = await scene.dial(manager, second);
  const both = [...begin, ...await take(manager.events, 2)];
  const theirs = recorded("04", [first, other].map(({ local }) => formatAddress(local!)));
  assertEquals(theirs.map(({ id }) => id), ["a1", "a1", "a1", "a1"]);
  // As recorded, but that the second session is a2.
  const renamed = theirs.map((it, i) =>
    i < 2 ? it : { ...it, id: "a2", data: it.data.replace("[a1]", "[a2]") }
  );
  assertEquals(told(both), renamed);
  await manager.writeStr("a1", "to 1st");
  await manager.writeStr("a2", "to 2nd");
  assertEquals(text(await readExactly(first, 6)), "to 1st");
  assertEquals(text(await readExactly(other, 6)), "to 2nd");
});

check("05, spec 4 row 2: a connection of ours begins with `new` alone", async (scene) => {
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  const session = await manager.connect(target, "mine");
  assertEquals(session.id, "mine");
  const peer = await accept();
  await peer.write(utf8("answer"));
  await peer.close();
  const events = await takeUntil(manager.events, "disconnected");
  assertEquals(told(events), recorded("05", [target]));
});

check("06, spec 4 row 7: a connection that is refused leaves nothing behind", async (scene) => {
  const manager = scene.manager();
  const gone = await listen("127.0.0.1:0");
  await gone.close();
  assertEquals(await codeOf(manager.connect(gone.addr, "mine")), "refused");
  assertEquals([manager.sessions(), manager.events.length], [[], 0]);
  // The ancestor panics at both.
  assertEquals(await codeOf(manager.writeStr("mine", "lost")), "no-such-session");
  assertEquals(await codeOf(manager.close("mine")), "no-such-session");
  const { target } = await server(scene);
  assertEquals((await manager.connect(target, "mine")).id, "mine");
});

check("07, spec 4 row 5: a name that is used is refused, and the first goes on", async (scene) => {
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  await manager.connect(target, "same");
  const first = await accept();
  assertEquals(await codeOf(manager.connect(target, "same")), "duplicate-id");
  await first.write(utf8("still there!"));
  assertEquals(brief(await take(manager.events, 2)), ["new same", "data same still there!"]);
});

check("07, spec 4 row 5: `replace` closes the first one before", async (scene) => {
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  const first = await manager.connect(target, "same");
  const second = await manager.connect(target, "same", undefined, { replace: true });
  assertEquals((await readAll(await accept())).length, 0);
  const peer = await accept();
  await peer.write(utf8("hello"));
  const events = await takeUntil(manager.events, "data");
  assertEquals(brief(events), [
    "new same",
    "disconnected same closed",
    "new same",
    "data same hello",
  ]);
  assertEquals(events.map(({ session }) => session === first), [true, true, false, false]);
  assertEquals(manager.session("same"), second);
  await manager.connect(target, "fresh", undefined, { replace: true });
});

check("08, spec 4 rows 10, 11: datagrams are events, empty ones too, never cut", async (scene) => {
  const manager = scene.manager();
  const id = await manager.listen("udp", "any", "127.0.0.1");
  const [theirId, theirs] = recording("08") as [string, Recorded[]];
  assertEquals(theirId, `${id} <nil>`);
  const peer = await bindDatagram("127.0.0.1:0");
  scene.after(() => peer.close());
  for (const size of [5, 5000, 0]) {
    await peer.send(new Uint8Array(size), { hostname: "127.0.0.1", port: portOf(manager, id) });
  }
  const events = await take(manager.events, 3);
  assertEquals(told(events).map(({ len }) => len), [5, 5000, 0]);
  const { state, data } = theirs[0]!;
  for (const event of told(events)) {
    assertEquals([event.state, event.id, event.data], [state, id, data]);
  }
  for (const { from } of events) assertEquals(from, `127.0.0.1:${peer.addr.port}`);
  assertEquals(theirs.map(({ len }) => len), [5, 2048, 0]);
});

check("08, spec 4 row 20: an answer to a datagram goes to its sender", async (scene) => {
  const manager = scene.manager();
  const id = await manager.listen("udp", "any", "127.0.0.1");
  const peers = await Promise.all([bindDatagram("127.0.0.1:0"), bindDatagram("127.0.0.1:0")]);
  for (const peer of peers) {
    scene.after(() => peer.close());
    await peer.send(utf8("hello"), { hostname: "127.0.0.1", port: portOf(manager, id) });
  }
  // In the order other than that of asking, so that a peer that was remembered would show.
  for (const event of (await take(manager.events, 2)).reverse()) {
    await event.writeStr(event.from);
    await event.writeN(utf8("12345"), 2);
  }
  for (const peer of peers) {
    const [name, cut] = [await peer.receive(), await peer.receive()];
    assertEquals([text(name.data), text(cut.data)], [`127.0.0.1:${peer.addr.port}`, "12"]);
  }
});

check("08b, spec 4 row 19: writeUdp() resolves what the ancestor cannot", async (scene) => {
  assertEquals(recording("08b"), "unknown network ip");
  const manager = scene.manager();
  const id = await manager.listen("udp", "any", "127.0.0.1");
  await manager.writeUdp(id, `127.0.0.1:${portOf(manager, id)}`, "to myself");
  assertEquals(brief(await take(manager.events, 1)), ["data u0 to myself"]);
});

check("08c, 08d, spec 4 row 18: writing without a peer is an error; it closes", async (scene) => {
  assert([recording("08c"), recording("08d")].every((it) => String(it).startsWith("panic")));
  const manager = scene.manager();
  const id = await manager.listen("udp", "any", "127.0.0.1");
  assertEquals(await codeOf(manager.writeStr(id, "whom?")), "not-bound");
  await manager.close(id);
  assertEquals(brief(await take(manager.events, 1)), ["disconnected u0 closed"]);
  assertEquals(await codeOf(manager.close(id)), "no-such-session");
});

check("09, spec 4 row 13: close() of ours is told, once and last", async (scene) => {
  const manager = await scene.listening();
  await scene.dial(manager);
  await take(manager.events, 2);
  await manager.close("a1");
  const events = await take(manager.events, 1);
  assertEquals(told(events), recorded("09", []));
  assertEquals(events[0]!.reason, "closed");
  await manager.shutdown({ graceMs: 100 });
  assertEquals(await manager.events.receive(), null);
});

check("09b, spec 4 row 25: a listener that is closed leaves its sessions open", async (scene) => {
  const manager = await scene.listening();
  (await scene.dial(manager)).abort();
  await takeUntil(manager.events, "disconnected");
  const client = await scene.dial(manager);
  const begin = await take(manager.events, 2);
  const address = manager.address("l0");
  await manager.close("l0");
  await client.write(utf8("still"));
  const all = [...begin, ...await take(manager.events, 1)];
  assertEquals(told(all), recorded("09b", [formatAddress(client.local!)]));
  assertEquals(await codeOf(scene.client(address)), "refused");
});

check("10, spec 4 row 21: writeN() sends exactly n bytes", async (scene) => {
  const theirs = recording("10") as string[];
  assert(theirs[0]!.endsWith("n=3) sends 0123456789") && theirs[2]!.includes("sends 012 "));
  const manager = await scene.listening();
  const client = await scene.dial(manager);
  const [accepted] = await take(manager.events, 2);
  await manager.writeN("a1", utf8("0123456789"), 3);
  await accepted!.writeN(utf8("abcdefghij"), 3);
  await accepted!.session.writeN(utf8("ABCDEFGHIJ"), 3);
  for (const n of [0, -1]) await manager.writeN("a1", utf8("none"), n);
  for (const n of [4, 1.5, NaN]) {
    assertEquals(await codeOf(manager.writeN("a1", utf8("abc"), n)), "RangeError");
    assertEquals(await codeOf(accepted!.writeN(utf8("abc"), n)), "RangeError");
  }
  await manager.close("a1");
  assertEquals(text(await readAll(client)), "012abcABC");
});

check("11, 11c, spec 4 rows 9, 31: a busy port is an error", async (scene) => {
  const first = await scene.listening();
  const port = portOf(first);
  const manager = scene.manager();
  assertEquals(await codeOf(manager.listen("tcp", port, "127.0.0.1")), "in-use");
  assertEquals(await codeOf(manager.listenTcp(port)), "in-use");
  const opening = ConnectionManager.open({ port });
  assertEquals([recording("11"), await codeOf(opening)], ["true", "in-use"]);
  // The first id is not lost by what failed.
  assertEquals(await manager.listenTcp("any"), "l0");
});

check('11b, 11d, spec 4 row 8: port 0 and `""` make no listener', async (scene) => {
  assertEquals(recording("11b"), 'id="" err=<nil>');
  const manager = await ConnectionManager.open({ port: "" });
  scene.after(() => manager.shutdown());
  for (const port of [0, "0", ""]) {
    assertEquals(await manager.listenTcp(port), "");
    assertEquals(await manager.listenUdp(port), "");
  }
  assertEquals(manager.stats().listeners, []);
  assertEquals(recording("11d"), 'id="l0" err=<nil>');
  assertEquals(await manager.listenTcp("any"), "l0");
});

check("12, spec 4 row 26: a slow reader gets each session's events in order", async (scene) => {
  const theirs = (recording("12") as Recorded[]).map(({ state, id }) => `${state} ${id}`);
  assertEquals(theirs, ["ST_ACCEPTED a1", "ST_ACCEPTED a2", "ST_NEW a1", "ST_NEW a2"]);
  const channel = new Channel(1);
  const manager = scene.manager();
  await manager.listen("tcp", "any", "127.0.0.1", channel);
  for (let i = 0; i < 3; i++) await scene.dial(manager);
  const events = brief(await take(channel, 6));
  for (const id of ["a1", "a2", "a3"]) {
    assertEquals(events.filter((it) => it.endsWith(id)), [`accepted ${id}`, `new ${id}`]);
  }
});

check("13, spec 4 row 15: the name may be used again while its end is handled", async (scene) => {
  assertEquals(recording("13"), "happened: false");
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  const connect = () => manager.connect(target, "same");
  await connect();
  for (let i = 0; i < 50; i++) {
    (await accept()).abort();
    await takeUntil(manager.events, "disconnected");
    await connect();
  }
  const last = await accept();
  await last.write(utf8("alive"));
  assertEquals(brief(await take(manager.events, 2)), ["new same", "data same alive"]);
});

check("14, spec 4 row 27: without a sink the manager's own events tell", async (scene) => {
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  await manager.connect(target, "mine", undefined);
  const peer = await accept();
  await manager.writeStr("mine", "ab");
  assertEquals(text(await readExactly(peer, 2)), "ab");
  assertEquals(brief(await take(manager.events, 1)), ["new mine"]);
});

check("14, spec 4 row 27: `discard` drops, and reads on", async (scene) => {
  const manager = scene.manager();
  const { target, accept } = await server(scene);
  const session = await manager.connect(target, "mine", discard);
  const peer = await accept();
  // More than the kernel holds for who does not read.
  for (let i = 0; i < 32; i++) await peer.write(new Uint8Array(1024 * 1024));
  await peer.close();
  assertEquals([session.stats().bytesIn, manager.events.length], [32 * 1024 * 1024, 0]);
});

check("spec 4 row 29: listStats() prints what the ancestor prints", async (scene) => {
  const read = (name: string) => readFileSync(new URL(name, FOLDER), "utf8");
  const heading = read("list_stats.stderr.txt").match(/.* listeners:\n/)![0];
  const theirs = heading + read("list_stats.stdout.txt");
  const manager = await ConnectionManager.open({ port: "any" });
  scene.after(() => manager.shutdown({ graceMs: 100 }));
  const client = await scene.dial(manager);
  await client.write(utf8("x"));
  const events = await takeUntil(manager.events, "data");
  await manager.writeStr("a1", "12345678901234567890123");
  await readExactly(client, 23);
  let printed = "";
  manager.listStats((line) => printed += `${line}\n`);
  const ours = [`[::]:${portOf(manager)}`, events[0]!.from];
  assertEquals(printed, theirs.replace(/\S+:\d+/g, () => ours.shift()!));
});
