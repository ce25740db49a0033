/** The simulated OpenVPN: its queue, its buffers, its lives and deaths. What it says is proved by recordings. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { dial, listen, ManagementClient, type ManagementError } from "@trunkline/sockets/ovpn";
import {
  simulateDaemon,
  type SimulatedDaemon,
  type SimulationError,
} from "@trunkline/sockets/ovpn/testing";
import { rejection } from "./ovpn_fake.ts";

const decoder = new TextDecoder();
const NOW = 1795220000;

/** A raw manager of a daemon, which reads until a text has come. */
class Manager {
  readonly conn: Conn;
  #text = "";

  constructor(daemon: SimulatedDaemon) {
    const [ours, theirs] = connPair({ lingerMs: 10 });
    this.conn = ours;
    daemon.serve(theirs).catch(() => {});
  }

  /** Everything up to and with `end`, since the last time. */
  async until(end: string): Promise<string> {
    for (;;) {
      const at = this.#text.indexOf(end);
      if (at >= 0) {
        const text = this.#text.slice(0, at + end.length);
        this.#text = this.#text.slice(at + end.length);
        return text;
      }
      const chunk = await this.conn.read();
      if (chunk === null) throw new Error(`the end came before ${JSON.stringify(end)}`);
      this.#text += decoder.decode(chunk);
    }
  }

  async send(text: string): Promise<void> {
    await this.conn.write(new TextEncoder().encode(text));
  }
}

const PID = "SUCCESS: pid=4242\r\n";

test("a simulator loses a line that its buffer cannot hold with what came behind it", async () => {
  // Measured: of three whole lines in one write the second is lost, and the tail of the third is run.
  const daemon = simulateDaemon({ hold: true });
  const manager = new Manager(daemon);
  await manager.until(":0\r\n");
  const line = (start: string, length: number) => start.padEnd(length - 1, " a#") + "\n";
  const lines = [line("needstr a b ", 100), line("needstr n x ", 1000), line("needok x ", 413)];
  await manager.send(lines.join("") + "pid\n");
  assertEquals(
    await manager.until(PID),
    "ERROR: no needstr-string is currently needed at this time\r\n" +
      "ERROR: unknown command, enter 'help' for more options\r\n" + PID,
  );
  await manager.conn.close();
  await daemon.close();
});

test("a simulator reads words and numbers as OpenVPN does", async () => {
  // Each was seen with OpenVPN 2.6.14.
  const badBackslash = "ERROR: Options warning: Bad backslash";
  const cases: readonly (readonly [string, string])[] = [
    ["kill ho'ld'", "'ho'ld'' not found"],
    ['kill "a\\"b\\\\"', "'a\"b\\' not found"],
    ["kill 'a \\ b'", "'a \\ b' not found"],
    ["kill a\\ b", "'a b' not found"],
    ['kill \\"a', "'\"a' not found"],
    ["kill a\tb", "'ab' not found"],
    ["kill \\ a", "'a' not found"],
    ["kill \\; a", "requires 1 parameter"],
    ["kill \\", "requires 1 parameter"],
    ["kill a\\", "ERROR: Options error: Residual parse state (2) in TCP:0"],
    ["kill \\'a'", badBackslash],
    ["env-filter 7x", "env_filter_level=7"],
    ["env-filter", "env_filter_level=0"],
    ['kill "a', 'ERROR: Options error: No closing quotation (")'],
  ];
  const daemon = simulateDaemon({ mode: "server" });
  const manager = new Manager(daemon);
  await manager.until("info\r\n");
  for (const [line, answer] of cases) {
    await manager.send(`${line}\n`);
    const got = await manager.until("\r\n");
    assert(got.includes(answer), `${line}: ${got}`);
  }
  await manager.conn.close();
  await daemon.close();
});

test("a simulator serves one manager after the other, and repeats what it waits for", async () => {
  const daemon = simulateDaemon();
  const asked = daemon.askPassword("Auth", { challenge: { text: "PIN", echo: true } });
  const [first, second] = [new Manager(daemon), new Manager(daemon)];
  const need = ">PASSWORD:Need 'Auth' username/password SC:1,PIN\r\n";
  await first.until(need);
  // Half of an answer is kept for the next one.
  await first.send('state on\nusername Auth "a b"\n');
  await first.until("verified\r\n");
  await second.send("password Auth c\nstate off\n");
  await first.conn.close();
  await second.until(need);
  assertEquals(await asked, { username: "a b", password: "c" });
  daemon.state("WAIT");
  const told = await second.until("OFF\r\n");
  assert(!told.includes(">STATE"), told);
  await second.conn.close();
  await daemon.close();
});

test("a simulator gives CIDs again after a restart, holds again and tells who left", async () => {
  const daemon = simulateDaemon({ mode: "server", hold: true });
  const manager = new Manager(daemon);
  await manager.send("hold release\nstate on\n");
  await manager.until("ON\r\n");
  const alice = daemon.clientConnects({ commonName: "ali\nce", env: [["n", "1"], ["n", "2"]] });
  assertEquals([alice.clientId, alice.keyId, alice.commonName], [0, 1, "ali_ce"]);
  const block = await manager.until(">CLIENT:ENV,END\r\n");
  assert(block.includes(">CLIENT:ENV,n=1\r\n>CLIENT:ENV,n=2\r\n"), block);
  daemon.restart();
  assertEquals(await alice.decision, { kind: "gone" });
  assertEquals((await rejection<SimulationError>(alice.pending.take())).code, "gone");
  const restart = await manager.until(":2\r\n");
  assert(restart.includes(">CLIENT:DISCONNECT,0\r\n") && restart.includes("RECONNECTING,SIGUSR1"));
  await manager.send("hold release\n");
  await manager.until("CONNECTED,SUCCESS");
  const bob = daemon.clientConnects({ commonName: "bob" });
  assertEquals(bob.clientId, 0);
  await manager.until(">CLIENT:ENV,END\r\n");
  await manager.send(
    'client-pending-auth 0 1 OPEN_URL:x 30\nclient-auth 0 1\npush "route 1"\n\nquit\nEND\n',
  );
  assertEquals(await bob.pending.take(), { extra: "OPEN_URL:x", timeout: 30 });
  assertEquals(await bob.decision, { kind: "accepted", config: ['push "route 1"', "", "quit"] });
  await manager.until(">CLIENT:ESTABLISHED,0\r\n");
  const renewed = bob.reauth("again");
  assertEquals(bob.keyId, 3);
  await manager.send("client-deny 0 3 why because\nclient-kill 0 HALT,bye\n");
  assertEquals(await renewed, { kind: "denied", reason: "why", clientReason: "because" });
  assertEquals(await bob.killed, "HALT,bye");
  await manager.conn.close();
  await daemon.close();
  assertEquals(daemon.clients.length, 1 - 1);
});

test("a simulator cuts an overlong line together with its end", async () => {
  const daemon = simulateDaemon({ mode: "server" });
  const manager = new Manager(daemon);
  await manager.until("info\r\n");
  daemon.clientConnects({ commonName: "a", env: [["long", "x".repeat(11000)], ["next", "1"]] });
  const lines = (await manager.until("ENV,END\r\n")).split("\r\n");
  const long = lines.find((line) => line.includes("long="))!;
  assertEquals(long.indexOf(">CLIENT:ENV,next=1"), 10239);
  await manager.conn.close();
  await daemon.close();
});

test("a simulator cuts off a manager that does not read, and one whose body has no end", async () => {
  const daemon = simulateDaemon({ mode: "server" });
  const idle = new Manager(daemon);
  await idle.until("info\r\n");
  for (let i = 0; i < 1800; i++) daemon.send("x".repeat(10000));
  await rejection(idle.until("never"));
  const endless = new Manager(daemon);
  await endless.send("client-auth 0 1\n");
  const line = "x".repeat(700) + "\n";
  const sending = (async () => {
    for (let i = 0; i < 2000; i++) await endless.send(line);
  })().catch(() => {});
  await endless.until("info\r\n");
  await rejection(endless.until("never"));
  await sending;
  await daemon.close();
});

test("a simulator signs, is told certificates, confirmations, remotes, proxies and responses", async () => {
  const daemon = simulateDaemon();
  const manager = new Manager(daemon);
  await manager.send("version 3\npid\n");
  await manager.until(PID);
  const signature = daemon.sign(Uint8Array.of(1, 2, 3), "ECDSA");
  const certificate = daemon.needCertificate("hint");
  const confirmed = [daemon.needOk("token", "Insert it"), daemon.needStr("id", "Which")];
  const remote = daemon.askRemote("::1,1194,udp6");
  const proxy = daemon.askProxy("1,TCP,h");
  await manager.until(">PK_SIGN:AQID,ECDSA\r\n");
  await manager.send("pk-sig\nBAUG\nEND\n");
  assertEquals(await signature, Uint8Array.of(4, 5, 6));
  await manager.until(">NEED-CERTIFICATE:hint\r\n");
  await manager.send("certificate\na\nb\nEND\n");
  assertEquals(await certificate, "a\nb");
  await manager.until(">NEED-OK:Need 'token' confirmation MSG:Insert it\r\n");
  await manager.send("needok token cancel\n");
  await manager.until(">NEED-STR:Need 'id' string MSG:Which\r\n");
  await manager.send("needstr id 'a\\b'\n");
  assertEquals(await Promise.all(confirmed), ["cancel", "a\\b"]);
  await manager.until(">REMOTE:::1,1194,udp6\r\n");
  await manager.send("remote MOD h 1\n");
  assertEquals(await remote, ["MOD", "h", "1"]);
  await manager.until(">PROXY:1,TCP,h\r\n");
  await manager.send("proxy FTP h 1\ncr-response eA==\n");
  assertEquals([await proxy, await daemon.crResponses.take()], [["NONE"], "eA=="]);
  const bad = daemon.sign(new Uint8Array());
  await manager.until(">PK_SIGN:,RSA_PKCS1_PADDING\r\n");
  await manager.send("pk-sig\n!\nEND\n");
  assertEquals((await rejection(bad)).name, "TypeError");
  await manager.conn.close();
  await daemon.close();
});

test("what a simulator waits for ends by a signal, a restart and its exit", async () => {
  const daemon = simulateDaemon();
  const codes = [];
  const stop = new AbortController();
  const [aborted, later] = [daemon.needStr("a", "", stop), daemon.needStr("b", "")];
  const response = rejection<SimulationError>(daemon.crResponses.take());
  stop.abort();
  codes.push((await rejection<SimulationError>(aborted)).code);
  codes.push((await rejection<SimulationError>(daemon.needStr("c", "", stop))).code);
  codes.push((await rejection<SimulationError>(daemon.crResponses.take(stop))).code);
  daemon.restart("SIGHUP");
  codes.push((await rejection<SimulationError>(later)).code);
  const last = daemon.askPassword();
  await daemon.close();
  codes.push((await rejection<SimulationError>(last)).code, (await response).code);
  codes.push((await rejection<SimulationError>(daemon.askRemote("x"))).code);
  assertEquals(codes, ["aborted", "aborted", "aborted", "restarted", "exited", "exited", "exited"]);
  assertEquals(await daemon.exited, "closed");
});

test("a simulator dies of SIGTERM, FATAL, a signal while it asks, and of a manager it dialled", async () => {
  const listener = await listen("127.0.0.1:0");
  const daemon = simulateDaemon();
  await daemon.dial(listener.addr);
  const client = (await listener.accept()).open();
  assertEquals(await client.pid(), 4242);
  await client.close();
  assertEquals(await daemon.exited, "management-exit");
  await listener.close();

  for (const [command, reason] of [["SIGTERM", "SIGTERM"], ["SIGUSR1", "ERROR: could not read"]]) {
    const daemon = simulateDaemon();
    const asked = rejection(daemon.askPassword());
    const client = await dial(await daemon.listen());
    await client.sendSignal(command!, { allow: ["signal-while-asked"] });
    assert((await daemon.exited).startsWith(reason!));
    await asked;
    await client.close();
    await daemon.close();
    await rejection(daemon.listen());
  }
});

test("a simulator restarts when the manager leaves, if it is to", async () => {
  const daemon = simulateDaemon({ managementSignal: true, password: "p" });
  const address = await daemon.listen();
  const wrong = await rejection<ManagementError>(dial(address, { password: "q" }));
  assertEquals(wrong.code, "wrong-password");
  const first = await dial(address, { password: "p" });
  await first.close();
  const second = await dial(address, { password: "p" });
  const { lines } = await second.command("state all");
  assertEquals(lines.map((line) => line.split(",")[2]), ["", "management-disconnect"]);
  daemon.dropManager();
  await second.closed.catch(() => {});
  await daemon.close();
});

test("simulateDaemon() refuses what is not simulated", async () => {
  const version = "2.5" as "2.7.6";
  assertThrows(() => simulateDaemon({ version }), TypeError);
  const client = simulateDaemon();
  assertThrows(() => client.clientConnects({ commonName: "a" }), TypeError);
  await client.close();
});

test("a simulator tells every command, bytes as they are counted, and 2.7 forgets the interval", async () => {
  const heard: string[] = [];
  const onCommand = (parameters: readonly string[]) => void heard.push(parameters.join("|"));
  const daemon = simulateDaemon({ version: "2.7.6", onCommand, pid: 7, now: () => NOW });
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  await client.setByteCountEvents(1);
  const events = client.subscribe();
  daemon.byteCount(2 ** 40, 3);
  daemon.log("text");
  daemon.echo("setenv A b");
  let event = (await events.next()).value;
  if (event?.type === "INFO") event = (await events.next()).value;
  assert(event?.type === "BYTECOUNT");
  assertEquals([event.bytesIn, event.bytesOut], [2 ** 40, 3]);
  assertEquals(heard, ["bytecount|1"]);
  await client.close();
  const next = new Manager(daemon);
  await next.until("info\r\n");
  daemon.byteCount(1, 1);
  await next.send("echo all\n");
  assertEquals(await next.until("END\r\n"), `${NOW},setenv A b\r\nEND\r\n`);
  await next.conn.close();
  await daemon.close();
});
