/** `ClientTable`, against a simulated server. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  ClientTable,
  type ClientTableOptions,
  ManagementClient,
  type ManagementError,
  type TableChange,
  type TableClient,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon, type SimulatorOptions } from "@trunkline/sockets/ovpn/testing";
import { greetedPair, rejection } from "./ovpn_fake.ts";
import { unhandledDuring } from "./unhandled.ts";

/** Reports come when a test asks for them, and not by the clock. */
const NEVER_MS = 1_000_000;
const HOSTILE = [">FATAL:boo", "END", "SUCCESS: x", "a,b", "x:1", 'q"\\ ;#', "__proto__", "é€😀"];

function start(simulated: SimulatorOptions = {}, options: ClientTableOptions = {}) {
  const commands: string[] = [];
  const daemon = simulateDaemon({
    mode: "server",
    onCommand: (parameters) => void commands.push(parameters.join("|")),
    ...simulated,
  });
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  const table = new ClientTable(client, { refreshMs: NEVER_MS, settleMs: NEVER_MS, ...options });
  const end = async () => {
    table.close();
    await client.close();
    await daemon.close();
  };
  return { daemon, client, table, commands, end };
}

const namesOf = (clients: Iterable<TableClient>) => [...clients].map((it) => it.commonName);

/** The next change that `wanted` accepts. */
async function until(
  changes: AsyncIterator<TableChange>,
  wanted: (change: TableChange) => boolean,
): Promise<TableChange> {
  for (;;) {
    const { done, value } = await changes.next();
    if (done) throw new Error("the changes ended");
    if (wanted(value)) return value;
  }
}

/** What is told in one line. */
function told(change: TableChange): string {
  if (change.type === "resync") return `resync ${change.reason} ${namesOf(change.clients)}`;
  return `${change.type} ${change.client.commonName} ${change.client.state}`;
}

/** A row that must be there. */
function row(table: ClientTable, clientId = "0"): TableClient {
  const found = table.clients.get(clientId);
  assert(found !== undefined);
  return found;
}

test("ClientTable follows a client from its login to its end", async () => {
  const { daemon, client, table, end } = start({}, { byteCountSeconds: 1 });
  const changes = table.subscribe();
  await table.refresh();
  assertEquals(told((await changes.next()).value!), "resync start ");
  const alice = daemon.clientConnects({
    commonName: "alice",
    username: "al",
    password: "secret",
    address: "192.0.2.7",
    port: 5000,
    virtualAddress6: "fd00::1000",
  });
  assertEquals(told((await changes.next()).value!), "added alice pending");
  assertEquals(row(table).realAddress?.text, "192.0.2.7:5000");
  assertEquals([row(table).keyId, row(table).since], ["1", undefined]);
  await client.clientAuthNt({ clientId: 0, keyId: 1 });
  await until(changes, (it) => it.type === "changed" && it.client.state === "connected");
  await table.refresh();
  const { serial, since, cipher, ...rest } = row(table);
  assertEquals([serial, cipher, typeof since?.seconds], [1, "AES-256-GCM", "number"]);
  assertEquals(rest, {
    clientId: "0",
    keyId: "1",
    peerId: 0,
    commonName: "alice",
    username: "al",
    realAddress: { text: "192.0.2.7:5000", protocol: undefined, address: "192.0.2.7", port: 5000 },
    virtualAddress: "10.8.0.2",
    virtualAddress6: "fd00::1000",
    bytesReceived: 0,
    bytesSent: 0,
    state: "connected",
  });
  alice.traffic(1000, 2000);
  const counted = await until(changes, (it) => it.type === "changed" && it.client.bytesSent > 0);
  assert(counted.type === "changed");
  assertEquals([counted.client.bytesReceived, counted.previous.bytesReceived], [1000, 0]);
  alice.traffic(1500, 2500);
  alice.disconnects();
  const removed = await until(changes, (it) => it.type === "removed");
  assert(removed.type === "removed");
  assertEquals([removed.client.serial, removed.client.bytesSent], [serial, 2500]);
  assertEquals(table.clients.size, 0);
  assert(!JSON.stringify(removed).includes("secret"));
  await end();
  assertEquals((await changes.next()).done, true);
});

test("ClientTable sees without client-auth who came, who left and who came instead", async () => {
  const { daemon, table, end } = start({ clientAuth: false });
  const early = daemon.clientConnects({ commonName: "early", address: "2001:db8::2" });
  await table.refresh();
  const changes = table.subscribe();
  assertEquals(told((await changes.next()).value!), "resync start early");
  daemon.clientConnects({ commonName: "late" });
  assertEquals(told((await changes.next()).value!), "added late connected");
  early.disconnects();
  await table.refresh();
  assertEquals(
    told(await until(changes, (it) => it.type === "removed")),
    "removed early connected",
  );
  assertEquals(namesOf(table.clients.values()), ["late"]);
  await end();
});

test("ClientTable asks for reports by the clock and after events", async () => {
  for (const options of [{ refreshMs: 5 }, { settleMs: 5 }]) {
    const { daemon, table, end } = start({ clientAuth: false }, options);
    await table.refresh();
    const changes = table.subscribe();
    const bob = daemon.clientConnects({ commonName: "bob" });
    // An event does not tell the time: a report has been asked for.
    await until(changes, (it) => it.type === "changed" && it.client.since !== undefined);
    bob.disconnects();
    if (options.refreshMs !== undefined) await until(changes, (it) => it.type === "removed");
    await end();
  }
});

test("ClientTable has one report on its way, and shares the next one", async () => {
  const { table, commands, end } = start();
  await Promise.all(Array.from({ length: 50 }, () => table.refresh()));
  assertEquals(commands.filter((it) => it.startsWith("status")), ["status|3", "status|3"]);
  await table.refresh();
  assertEquals(commands.filter((it) => it.startsWith("status")).length, 3);
  await end();
});

test("ClientTable does not take one client for another after a restart", async () => {
  for (const clientAuth of [true, false]) {
    for (const signal of ["SIGUSR1", "SIGHUP"] as const) {
      const { daemon, table, end } = start({ clientAuth, now: () => 1795220000 });
      daemon.clientConnects({ commonName: "alice", address: "192.0.2.1" });
      await table.refresh();
      const before = row(table);
      const changes = table.subscribe();
      await changes.next();
      daemon.restart(signal);
      daemon.clientConnects({ commonName: "mallory", address: "192.0.2.2" });
      await until(changes, (it) => it.type === "resync" && it.reason === "restart");
      await table.refresh();
      const after = row(table);
      assertEquals([after.commonName, after.clientId], ["mallory", before.clientId]);
      assert(after.serial !== before.serial);
      assertEquals(await table.kill(before), "replaced");
      assertEquals(daemon.clients.length, 1);
      assertEquals(await table.kill(after), "killed");
      assertEquals(daemon.clients.length, 0);
      await end();
    }
  }
});

test("ClientTable begins anew when a client contradicts, though no event told of a restart", async () => {
  const { daemon, client, table, end } = start({ clientAuth: false });
  daemon.clientConnects({ commonName: "alice" });
  await table.refresh();
  await client.setStateEvents(false);
  const before = row(table);
  const changes = table.subscribe();
  await changes.next();
  daemon.restart();
  daemon.clientConnects({ commonName: "bob", address: "192.0.2.2" });
  // The event of the new one is from elsewhere.
  assertEquals(told((await changes.next()).value!), "resync restart ");
  assertEquals(told((await changes.next()).value!), "added bob connected");
  assert(row(table).serial !== before.serial);
  assertEquals(await table.kill(before), "replaced");
  await end();
});

test("ClientTable.kill() kills whatever the name, the address and the version", async () => {
  for (const version of ["2.6.14", "2.7.6"] as const) {
    for (const clientAuth of [true, false]) {
      const { daemon, table, commands, end } = start({ clientAuth, version });
      for (const [index, commonName] of HOSTILE.entries()) {
        const address = index % 2 === 0 ? "2001:db8::2" : "192.0.2.1";
        daemon.clientConnects({ commonName, address, username: commonName });
      }
      await table.refresh();
      assertEquals(namesOf(table.clients.values()), HOSTILE);
      for (const [index, commonName] of HOSTILE.entries()) {
        const victim = daemon.clients[0]!;
        assertEquals(victim.commonName, commonName);
        const target = row(table, String(index));
        assertEquals(await table.kill(target, { message: "HALT,go away" }), "killed");
        assertEquals(await victim.killed, "HALT,go away");
        assertEquals(await table.kill(target), "gone");
      }
      assertEquals(commands.filter((it) => it.startsWith("kill")), []);
      assertEquals(table.clients.size, 0);
      await end();
    }
  }
});

test("ClientTable.kill() tells who is leaving, takes rows that events made, and refuses bad messages", async () => {
  const { daemon, table, commands, end } = start();
  await table.refresh();
  const changes = table.subscribe();
  daemon.clientConnects({ commonName: "alice" });
  await until(changes, (it) => it.type === "added");
  const known = row(table);
  assertEquals(known.since, undefined);
  for (const [message, type] of [["a\nb", TypeError], ["x".repeat(257), RangeError]] as const) {
    const error = await table.kill(known, { message }).then(() => undefined, (it) => it);
    assert(error instanceof type);
  }
  assertEquals(commands.filter((it) => it.startsWith("client-kill")), []);
  assertEquals(await table.kill(known), "killed");
  await until(changes, (it) => it.type === "removed");
  assertEquals(await table.kill(known), "gone");
  await end();
});

test("ClientTable gives a slow consumer one resync, and the others everything", async () => {
  const { daemon, table, end } = start({ clientAuth: false }, { maxBufferedChanges: 3 });
  await table.refresh();
  const [slow, fast] = [table.subscribe(), table.subscribe()];
  for (const it of [slow, fast]) await it.next();
  for (let i = 0; i < 3; i++) {
    daemon.clientConnects({ commonName: `c${i}` });
    await fast.next();
  }
  assertEquals(told((await slow.next()).value!), "added c0 connected");
  for (let i = 3; i < 9; i++) {
    daemon.clientConnects({ commonName: `c${i}` });
    assertEquals(told((await fast.next()).value!), `added c${i} connected`);
  }
  assertEquals(told((await slow.next()).value!), "resync slow c0,c1,c2,c3,c4,c5,c6,c7,c8");
  daemon.clientConnects({ commonName: "c9" });
  assertEquals(told((await slow.next()).value!), "added c9 connected");
  await end();
});

test("ClientTable can be made twice of one client", async () => {
  const { daemon, client, table, end } = start({ clientAuth: false });
  const second = new ClientTable(client, { refreshMs: NEVER_MS, settleMs: NEVER_MS });
  daemon.clientConnects({ commonName: "alice" });
  await Promise.all([table.refresh(), second.refresh()]);
  assertEquals([...table.clients.values()], [...second.clients.values()]);
  table.close();
  daemon.clientConnects({ commonName: "bob" });
  await second.refresh();
  assertEquals([table.clients.size, second.clients.size], [1, 2]);
  assertEquals(await second.kill(row(second, "1")), "killed");
  second.close();
  await end();
});

test("ClientTable ends with its signal, its connection and close(), and so do its waits", async () => {
  const unhandled = await unhandledDuring(async () => {
    const code = (wait: Promise<unknown>) => rejection<ManagementError>(wait).then((it) => it.code);
    const early = start({}, { signal: AbortSignal.abort() });
    assertEquals(await code(early.table.refresh()), "closed");
    await early.end();

    const controller = new AbortController();
    const aborted = start({}, { signal: controller.signal });
    const change = aborted.table.subscribe();
    await change.next();
    const [waiting, refresh] = [change.next(), code(aborted.table.refresh())];
    controller.abort();
    assertEquals([(await waiting).done, await refresh], [true, "closed"]);
    await aborted.table.closed;
    assertEquals(await aborted.client.pid(), 4242);
    await aborted.end();

    const { daemon, table, end } = start();
    assertEquals(await code(table.refresh({ signal: AbortSignal.abort() })), "aborted");
    const stop = new AbortController();
    const refreshing = code(table.refresh({ signal: stop.signal }));
    const changing = table.subscribe({ signal: stop.signal });
    stop.abort();
    assertEquals([await refreshing, await code(changing.next())], ["aborted", "aborted"]);
    await table.refresh();
    await daemon.close();
    await table.closed;
    assertEquals(await code(table.refresh()), "closed");
    await end();
  });
  assertEquals(unhandled, []);
});

test("ClientTable tells what it cannot be made of", async () => {
  const held = start({ hold: true });
  assertEquals((await rejection<ManagementError>(held.table.refresh())).code, "command");
  await held.client.holdRelease();
  held.daemon.clientConnects({ commonName: "alice" });
  await held.table.refresh();
  assertEquals(namesOf(held.table.clients.values()), ["alice"]);
  const limits = [{ refreshMs: 0 }, { settleMs: -1 }, { maxBufferedChanges: 0 }];
  for (const options of [...limits, { byteCountSeconds: 1.5 }]) {
    assertThrows(() => new ClientTable(held.client, options), RangeError);
  }
  await held.end();
  const peer = start({ mode: "client" });
  assertEquals((await rejection<ManagementError>(peer.table.refresh())).code, "protocol");
  await peer.end();
});

/** A server that says exactly what a test writes: `onStatus` gives what comes in place of the rows of a report, and after its `END`. */
function scripted(
  onStatus: (count: number) => { readonly rows: string[]; readonly after?: string },
) {
  const [ours, theirs] = connPair();
  const say = (text: string) => theirs.write(new TextEncoder().encode(text));
  const commands: string[] = [];
  const answer = (command: string): string => {
    commands.push(command);
    if (!command.startsWith("status")) return "SUCCESS: done\r\n";
    const { rows, after = "" } = onStatus(commands.filter((it) => it === command).length);
    const header = "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\t" +
      "Bytes Received\tBytes Sent\tConnected Since\tConnected Since (time_t)\tClient ID";
    return ["TITLE\tOpenVPN 2.6.14", header, ...rows, "END", ""].join("\r\n") + after;
  };
  const serve = async () => {
    await say(">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n");
    let text = "";
    for (let chunk = await theirs.read(); chunk !== null; chunk = await theirs.read()) {
      text += new TextDecoder().decode(chunk);
      for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n")) {
        await say(answer(text.slice(0, at)));
        text = text.slice(at + 1);
      }
    }
    await theirs.close();
  };
  serve().catch(() => {});
  const client = new ManagementClient(ours, { maxBufferedEvents: 100 });
  const table = new ClientTable(client, { refreshMs: NEVER_MS, settleMs: NEVER_MS });
  const end = async () => {
    table.close();
    await client.close();
  };
  return { client, table, commands, say, end };
}

/** A row of a report. */
function line(name: string, id: number, { since = 1000, sent = 0, from = "192.0.2.1:1" } = {}) {
  return ["CLIENT_LIST", name, from, "10.8.0.2", 0, sent, "then", since, id].join("\t");
}

const EVENT_END = "\r\n>CLIENT:ENV,END\r\n";

test("ClientTable believes events that come with a report more than the report", async () => {
  const late = `>CLIENT:DISCONNECT,1${EVENT_END}>CLIENT:CONNECT,3,1${EVENT_END}`;
  const { table, end } = scripted((count) => ({
    rows: [line("a", 0), line("b", 1), ...count > 3 ? [line("c", 3)] : []],
    after: count === 3 ? late : "",
  }));
  // The table asked for the first report by itself.
  const wanted = [["a", "b"], ["a", undefined], ["a", "b", "c"]];
  for (const [index, names] of wanted.entries()) {
    await table.refresh();
    assertEquals(namesOf(table.clients.values()).toSorted(), names.toSorted(), String(index));
  }
  await end();
});

test("ClientTable begins anew when a report contradicts, and keeps one that only moved", async () => {
  const { table, end } = scripted((count) => ({
    rows: [
      [line("a", 0), line("b", 1)],
      [line("a", 0, { from: "198.51.100.1:2" }), line("b", 1)],
      [line("a", 0, { since: 2000 })],
      ["CLIENT_LIST\tunreadable"],
    ][count - 1]!,
  }));
  // The second report: the table asked for the first one by itself.
  await table.refresh();
  const moved = row(table);
  assertEquals([moved.serial, moved.realAddress?.port, table.clients.size], [1, 2, 2]);
  const changes = table.subscribe();
  await changes.next();
  await table.refresh();
  assertEquals(told((await changes.next()).value!), "resync restart a");
  assert(row(table).serial !== moved.serial);
  // Nobody is gone because a line could not be read.
  await table.refresh();
  assertEquals(table.clients.size, 1);
  await end();
});

test("ClientTable.kill() shows who is still leaving, keeps exact counts, and spares one that moved", async () => {
  const most = 2n ** 64n - 1n;
  let from = "192.0.2.1:1";
  const { table, commands, say, end } = scripted(() => ({
    rows: [line("a", 0, { from }), line("b", 7)],
  }));
  await table.refresh();
  const a = row(table);
  assertEquals(await table.kill(row(table, "7"), { message: "HALT" }), "killed");
  assertEquals(row(table, "7").state, "leaving");
  await table.refresh();
  assertEquals(row(table, "7").state, "leaving");
  const changes = table.subscribe();
  await changes.next();
  await say(`>BYTECOUNT_CLI:7,${most},5\r\n>BYTECOUNT_CLI:__proto__,1,1\r\n`);
  await until(changes, (it) => it.type === "changed");
  assertEquals([row(table, "7").bytesReceived, row(table, "7").bytesSent], [most, 5]);
  from = "192.0.2.1:2";
  assertEquals(await table.kill(a), "replaced");
  assertEquals(await table.kill(row(table)), "killed");
  const kills = commands.filter((it) => it.startsWith("client-kill"));
  assertEquals(kills, ['client-kill 7 "HALT"', "client-kill 0"]);
  await end();
});

test("ClientTable begins anew when more came at once than may wait", async () => {
  const { table, say, end } = scripted(() => ({ rows: [line("a", 0)] }));
  await table.refresh();
  const changes = table.subscribe();
  await changes.next();
  const flood = Array.from({ length: 1000 }, (_, id) => `>CLIENT:CONNECT,${id + 1},1${EVENT_END}`);
  await say(flood.join(""));
  const lost = await until(changes, (it) => it.type === "resync");
  assert(lost.type === "resync" && lost.reason === "lost");
  await table.refresh();
  assertEquals(row(table).commonName, "a");
  await end();
});

test("ClientTable knows an address again in the ways that OpenVPN writes it", async () => {
  const ways = [["192.0.2.9", "::ffff:192.0.2.9"], ["fe80::1%eth0", "fe80::1"]] as const;
  for (const [told, shown] of ways) {
    const { table, say, end } = scripted((count) => ({
      rows: count > 2 ? [line("a", 0, { from: shown })] : [],
    }));
    await table.refresh();
    const changes = table.subscribe();
    await changes.next();
    await say(`>CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,untrusted_ip6=${told}${EVENT_END}`);
    await until(changes, (it) => it.type === "added");
    await table.refresh();
    assertEquals([row(table).serial, row(table).realAddress?.text], [1, shown]);
    await end();
  }
});

test("kill() is not sent if the chunk that frees its turn tells of a restart, too", async () => {
  const [client, daemon] = await greetedPair();
  const table = new ClientTable(client, { refreshMs: NEVER_MS, settleMs: NEVER_MS });
  const header =
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tBytes Received\tBytes Sent\tClient ID";
  const report =
    `TITLE\tOpenVPN\r\n${header}\r\nCLIENT_LIST\talice\t192.0.2.1:5\t1\t2\t0\r\nEND\r\n`;
  await daemon.answer("state on", "SUCCESS: on\r\n");
  await daemon.answer("status 3", report);
  const changes = table.subscribe();
  while ((await changes.next()).value?.type !== "added");
  const killing = table.kill(row(table));
  const pid = client.pid();
  await daemon.answer("status 3", report);
  assertEquals(await daemon.hear(), "pid");
  // The kill waits for its turn by then.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const restart =
    ">STATE:1,RECONNECTING,SIGUSR1,,,,,\r\n>CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,END\r\n";
  await daemon.say(`SUCCESS: pid=1\r\n${restart}`);
  assertEquals(await pid, 1);
  assertEquals(await killing, "gone");
  assertEquals(await daemon.pending(), false);
  table.close();
  await client.close();
});

test("ClientTable keeps the port of an IPv6 client, which reports leave out", async () => {
  const { daemon, table, end } = start();
  await table.refresh();
  daemon.clientConnects({ commonName: "alice", address: "2001:db8::7", port: 40001 });
  await table.refresh();
  assertEquals(row(table).realAddress?.port, 40001);
  assertEquals(row(table).realAddress?.text, "[2001:db8::7]:40001");
  await end();
});
