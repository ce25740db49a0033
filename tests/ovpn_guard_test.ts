/** What is not sent because it would do harm, and answers that were meant for another client. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import {
  type ClientAuthEvent,
  type ClientSessionEvent,
  type CommandOptions,
  GuardError,
  type GuardName,
  type ManagementClient,
  ManagementError,
  type ManagementEvent,
  parseEvent,
} from "@trunkline/sockets/ovpn";
import { ClientRegistry, MAX_REMEMBERED_CLIENTS } from "../ovpn/_client_registry.ts";
import { type FakeDaemon, greetedPair, GREETING, rejection, silentPair } from "./ovpn_fake.ts";

const OK = "SUCCESS: fine\r\n";
const HOLD = ">HOLD:Waiting for hold release:0";
const NEED = ">PASSWORD:Need 'Auth' username/password";
const PEM = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----";

/** A client that has heard these events. */
async function pairAfter(
  ...lines: readonly string[]
): Promise<[ManagementClient, FakeDaemon]> {
  const [client, daemon] = silentPair({ timeoutMs: 3000 });
  await daemon.say(GREETING + lines.map((line) => `${line}\r\n`).join(""));
  await client.ready;
  return [client, daemon];
}

type Call = (client: ManagementClient, options?: CommandOptions) => Promise<unknown>;

const HARM: readonly (readonly [
  guard: GuardName,
  before: readonly string[],
  call: Call,
  sent: string,
])[] = [
  ["pkcs11-while-held", [HOLD], (it, o) => it.pkcs11Count(o), "pkcs11-id-count"],
  ["pkcs11-while-held", [HOLD], (it, o) => it.pkcs11Entry(0, o), "pkcs11-id-get 0"],
  ["pkcs11-while-held", [HOLD], (it, o) => it.pkcs11Ids(o), "pkcs11-id-count"],
  ["pkcs11-while-held", [HOLD], (it, o) => it.command("'pkcs11-id-get' 0", o), "'pkcs11-id-get' 0"],
  ["signal-while-held", [HOLD], (it, o) => it.sendSignal("SIGUSR2", o), "signal SIGUSR2"],
  ["signal-while-asked", [NEED], (it, o) => it.sendSignal("SIGUSR1", o), "signal SIGUSR1"],
  ["signal-while-asked", [NEED], (it, o) => it.command('signal "SIGHUP"', o), 'signal "SIGHUP"'],
  [
    "signal-while-asked",
    [">NEED-OK:Need 't' confirmation MSG:x"],
    (it, o) => it.sendSignal("SIGUSR2", o),
    "signal SIGUSR2",
  ],
  [
    "signal-while-asked",
    [">NEED-STR:Need 't' string MSG:x"],
    (it, o) => it.sendSignal("SIGHUP", o),
    "signal SIGHUP",
  ],
  [
    "signal-while-asked",
    [">NEED-CERTIFICATE:x"],
    (it, o) => it.sendSignal("SIGHUP", o),
    "signal SIGHUP",
  ],
  ["signal-while-asked", [">PK_SIGN:QQ=="], (it, o) => it.sendSignal("SIGHUP", o), "signal SIGHUP"],
  ["proxy-fails-open", [], (it, o) => it.command("proxy FTP a 1", o), "proxy FTP a 1"],
  ["proxy-fails-open", [], (it, o) => it.command("proxy HTTP a", o), "proxy HTTP a"],
  ["proxy-fails-open", [], (it, o) => it.command("proxy SOCKS a 0x50", o), "proxy SOCKS a 0x50"],
  ["proxy-fails-open", [], (it, o) => it.command("proxy none", o), "proxy none"],
  [
    "proxy-fails-open",
    [">PROXY:1,UDP,vpn.example"],
    (it, o) => it.proxy({ type: "HTTP", host: "a", port: 1 }, o),
    'proxy HTTP "a" "1"',
  ],
  ["not-asked", [], (it, o) => it.certificate(PEM, o), `certificate\n${PEM}\nEND`],
  [
    "not-asked",
    [">NEED-CERTIFICATE:x", HOLD],
    (it, o) => it.certificate(PEM, o),
    `certificate\n${PEM}\nEND`,
  ],
  ["not-asked", [], (it, o) => it.pkSign("QQ==", o), "pk-sig\nQQ==\nEND"],
  ["not-asked", [">NEED-CERTIFICATE:x"], (it, o) => it.rsaSign("QQ==", o), "rsa-sig\nQQ==\nEND"],
  [
    "not-asked",
    [">PK_SIGN:QQ==", ">STATE:1,RECONNECTING,SIGUSR1,,,,,"],
    (it, o) => it.pkSign("QQ==", o),
    "pk-sig\nQQ==\nEND",
  ],
  [
    "unannounced-client",
    [],
    (it, o) => it.clientAuthNt({ clientId: 0, keyId: 1 }, o),
    "client-auth-nt 0 1",
  ],
  [
    "unannounced-client",
    [">CLIENT:CONNECT,0,1", ">CLIENT:ENV,END"],
    (it, o) => it.clientDeny({ clientId: 0, keyId: 2 }, "r", undefined, o),
    'client-deny 0 2 "r"',
  ],
  [
    "ended-client",
    [">CLIENT:CONNECT,0,1", ">CLIENT:ENV,END", ">CLIENT:DISCONNECT,0", ">CLIENT:ENV,END"],
    (it, o) => it.clientAuth({ clientId: "0", keyId: "1" }, [], o),
    "client-auth 0 1\nEND",
  ],
  [
    "ended-client",
    [">CLIENT:ESTABLISHED,0", ">CLIENT:ENV,END", HOLD],
    (it, o) => it.clientKill(0, undefined, o),
    "client-kill 0",
  ],
  [
    "reused-client",
    [">CLIENT:CONNECT,0,1", ">CLIENT:ENV,END", ">CLIENT:DISCONNECT,0", ">CLIENT:ENV,END"].concat([
      ">CLIENT:CONNECT,0,1",
      ">CLIENT:ENV,END",
    ]),
    (it, o) => it.command("client-auth-nt 0 1", o),
    "client-auth-nt 0 1",
  ],
  [
    // Nothing tells of the restart but the pair, which is new each time.
    "reused-client",
    [">CLIENT:CONNECT,0,1", ">CLIENT:ENV,END", ">CLIENT:CONNECT,0,1", ">CLIENT:ENV,END"],
    (it, o) => it.clientAuthNt({ clientId: 0, keyId: 1 }, o),
    "client-auth-nt 0 1",
  ],
  [
    "reused-client",
    [">CLIENT:ESTABLISHED,4", ">CLIENT:ENV,END", ">CLIENT:ESTABLISHED,4", ">CLIENT:ENV,END"],
    (it, o) => it.pushUpdateCid(4, "-dns", o),
    'push-update-cid 4 "-dns"',
  ],
];

for (const [guard, before, call, sent] of HARM) {
  test(`${guard} refuses ${sent.split("\n")[0]} after ${before.at(-1) ?? "the greeting"}, unless it is allowed`, async () => {
    const [client, daemon] = await pairAfter(...before);
    const error = await rejection<GuardError>(call(client));
    assert(error instanceof GuardError && error instanceof ManagementError, String(error));
    assertEquals(error.guard, guard);
    assertEquals(error.code, guard.endsWith("-client") ? "stale" : "guarded");
    assertEquals(error.name, "GuardError");
    assert(error.message.includes(guard), error.message);
    const others = ["log-at-high-verb"] as const;
    assertEquals((await rejection<GuardError>(call(client, { allow: others }))).guard, guard);
    assert(!await daemon.pending(), "nothing was sent");
    const pid = client.pid();
    await daemon.answer("pid", "SUCCESS: pid=2\r\n");
    assertEquals(await pid, 2, "the session goes on");
    const allowed = call(client, { allow: [guard] });
    allowed.catch(() => {});
    for (const line of sent.split("\n")) assertEquals(await daemon.hear(), line);
    await client.close();
  });
}

const HARMLESS: readonly (readonly [readonly string[], Call, string])[] = [
  [[], (it) => it.pkcs11Count(), "pkcs11-id-count"],
  [[HOLD, ">STATE:1,WAIT,,,,,,"], (it) => it.pkcs11Count(), "pkcs11-id-count"],
  [
    [">NEED-STR:Need 'pkcs11-id-request' string MSG:x"],
    (it) => it.pkcs11Count(),
    "pkcs11-id-count",
  ],
  [[HOLD], (it) => it.sendSignal("SIGTERM"), "signal SIGTERM"],
  [[HOLD], (it) => it.sendSignal("SIGUSR1"), "signal SIGUSR1"],
  [[NEED], (it) => it.sendSignal("SIGTERM"), "signal SIGTERM"],
  [[NEED, HOLD], (it) => it.sendSignal("SIGUSR1"), "signal SIGUSR1"],
  [
    [">PROXY:1,TCP,a"],
    (it) => it.proxy({ type: "HTTP", host: "a", port: 1 }),
    'proxy HTTP "a" "1"',
  ],
  [
    [">PROXY:1,UDP,a"],
    (it) => it.proxy({ type: "SOCKS", host: "a", port: 1 }),
    'proxy SOCKS "a" "1"',
  ],
  [[], (it) => it.command("proxy"), "proxy"],
  [[], (it) => it.command("client-auth-nt 0 1"), "client-auth-nt 0 1"],
  [[], (it) => it.clientKill(8), "client-kill 8"],
  [[], (it) => it.command("log on"), "log on"],
  [
    [">CLIENT:REAUTH,8,3", ">CLIENT:ENV,END"],
    (it) => it.clientAuthNt({ clientId: 8, keyId: 3 }),
    "client-auth-nt 8 3",
  ],
  [
    // A new session of the same client: another key, and established once more.
    [">CLIENT:CONNECT,8,1", ">CLIENT:ENV,END", ">CLIENT:ESTABLISHED,8", ">CLIENT:ENV,END"].concat([
      ">CLIENT:CONNECT,8,2",
      ">CLIENT:ENV,END",
      ">CLIENT:ESTABLISHED,8",
      ">CLIENT:ENV,END",
    ]),
    (it) => it.clientAuthNt({ clientId: 8, keyId: 2 }),
    "client-auth-nt 8 2",
  ],
];

for (const [before, call, sent] of HARMLESS) {
  test(`no guard refuses ${sent} after ${before.at(-1) ?? "the greeting"}`, async () => {
    const [client, daemon] = await pairAfter(...before);
    call(client).catch(() => {});
    assertEquals(await daemon.hear(), sent);
    await client.close();
  });
}

test("guards know what our own commands have changed", async () => {
  const [client, daemon] = await pairAfter(HOLD);
  const exchange = async (call: Promise<unknown>, line: string) => {
    await daemon.answer(line, OK);
    await call;
  };
  await exchange(client.holdRelease(), "hold release");
  await exchange(client.sendSignal("SIGUSR2"), "signal SIGUSR2");
  await daemon.say(`${NEED}\r\n`);
  await exchange(client.sendUsername("Auth", "a"), 'username "Auth" "a"');
  assertEquals((await rejection(client.sendSignal("SIGUSR1"))).code, "guarded");
  await exchange(client.sendPassword("Auth", "b"), 'password "Auth" "b"');
  await exchange(client.sendSignal("SIGUSR1"), "signal SIGUSR1");
  await daemon.say(">NEED-OK:Need 't' confirmation MSG:x\r\n");
  await exchange(client.needOk("t", "ok"), 'needok "t" "ok"');
  await exchange(client.sendSignal("SIGUSR1"), "signal SIGUSR1");
  await daemon.say(">PASSWORD:Need 'Auth' username\r\n");
  await exchange(client.sendUsername("Auth", "a"), 'username "Auth" "a"');
  await exchange(client.sendSignal("SIGUSR1"), "signal SIGUSR1");
  // Refused: it is still wanted.
  await daemon.say(">NEED-STR:Need 't' string MSG:x\r\n");
  const wrong = rejection(client.needStr("u", "x"));
  await daemon.answer('needstr "u" "x"', "ERROR: needstr-string of type 'u' entered\r\n");
  await wrong;
  assertEquals((await rejection(client.sendSignal("SIGUSR1"))).code, "guarded");
  await client.close();
});

test("log-at-high-verb refuses log events at verb 9, and verb 9 with log events", async () => {
  const [client, daemon] = await greetedPair();
  const refused = async (call: Promise<unknown>) =>
    assertEquals((await rejection<GuardError>(call)).guard, "log-at-high-verb");
  const exchange = async (call: Promise<unknown>, ...lines: readonly string[]) => {
    for (const line of lines) {
      await daemon.answer(line, line === "verb" ? "SUCCESS: verb=9\r\n" : OK);
    }
    await call;
  };
  await Promise.all([
    refused(client.setLogEvents(true)),
    daemon.answer("verb", "SUCCESS: verb=9\r\n"),
  ]);
  await refused(client.command("log on"));
  await refused(client.command("log all on"));
  await exchange(client.setLogEvents(true, { allow: ["log-at-high-verb"] }), "verb", "log on");
  await refused(client.setVerb(11));
  await exchange(client.setVerb(8), "verb 8");
  await refused(client.command('verb "9x"'));
  await exchange(client.setLogEvents(false), "log off");
  await exchange(client.command("verb 9"), "verb 9");
  await refused(client.command("log on"));
  // It reads its configuration again.
  await daemon.say(">STATE:1,RECONNECTING,SIGHUP,,,,,\r\n");
  await exchange(client.command("log on"), "log on");
  await client.close();
});

test("a guard judges when the turn of the command has come", async () => {
  const [client, daemon] = await greetedPair();
  const pid = client.pid();
  const count = rejection<GuardError>(client.pkcs11Count());
  const verb = client.verb();
  await daemon.answer("pid", `SUCCESS: pid=1\r\n${HOLD}\r\n`);
  await pid;
  assertEquals((await count).guard, "pkcs11-while-held");
  await daemon.answer("verb", "SUCCESS: verb=1\r\n");
  assertEquals(await verb, 1);
  await client.close();
});

test("a signature is taken once", async () => {
  const [client, daemon] = await pairAfter(">PK_SIGN:QQ==");
  const first = client.pkSign("QQ==");
  const second = rejection(client.pkSign("QQ=="));
  for (const line of ["pk-sig", "QQ==", "END"]) assertEquals(await daemon.hear(), line);
  await daemon.say(OK);
  await first;
  assertEquals((await second).code, "guarded");
  // The next request may come before the reply to the answer of the one before.
  await daemon.say(">PK_SIGN:Qg==\r\n");
  for (let round = 0; round < 2; round++) {
    const sign = client.pkSign("Qg==");
    for (const line of ["pk-sig", "Qg==", "END"]) assertEquals(await daemon.hear(), line);
    await daemon.say(`>PK_SIGN:Qw==\r\n${OK}`);
    await sign;
  }
  await client.close();
});

const block = (header: string): string => `>CLIENT:${header}\r\n>CLIENT:ENV,END\r\n`;

/** Reads the next requests for a decision. */
async function requests(
  events: AsyncIterator<ManagementEvent, undefined>,
  count: number,
): Promise<ClientAuthEvent[]> {
  const found: ClientAuthEvent[] = [];
  while (found.length < count) {
    const { value } = await events.next();
    assert(value !== undefined);
    if (value.type === "CLIENT" && (value.kind === "CONNECT" || value.kind === "REAUTH")) {
      found.push(value);
    }
  }
  return found;
}

test("an answer to an event never reaches another client with the same ids", async () => {
  for (
    const restart of [
      block("DISCONNECT,0"),
      ">STATE:1,RECONNECTING,SIGUSR1,,,,,\r\n",
      `${HOLD}\r\n`,
      ">STATE:1,EXITING,SIGTERM,,,,,\r\n",
      // Nothing at all: another manager was there, or its lines were lost.
      "",
    ]
  ) {
    const [client, daemon] = await greetedPair();
    const events = client.subscribe();
    await daemon.say(block("CONNECT,0,1") + restart + block("CONNECT,0,1"));
    const [alice, bob] = await requests(events, 2);
    const late = [
      client.clientAuth(alice!, ["x"]),
      client.clientAuthNt(alice!),
      client.clientDeny(alice!, "r"),
      client.clientPendingAuth(alice!, "x", 9),
      client.clientKill(alice!),
      client.pushUpdateCid(alice!, "-dns"),
      // No name makes it the right one.
      client.clientAuthNt(alice!, {
        allow: ["reused-client", "ended-client", "unannounced-client"],
      }),
    ];
    for (const call of late) assertEquals((await rejection(call)).code, "stale");
    assert(!await daemon.pending());
    const answer = client.clientAuth(bob!);
    assertEquals([await daemon.hear(), await daemon.hear()], ["client-auth 0 1", "END"]);
    await daemon.say(OK);
    await answer;
    await client.close();
  }
});

test("an answer that waits for its turn is dropped when its client goes", async () => {
  const [client, daemon] = await greetedPair();
  const events = client.subscribe();
  await daemon.say(block("CONNECT,0,1"));
  const [request] = await requests(events, 1);
  const pid = client.pid();
  const late = rejection(client.clientAuthNt(request!));
  await daemon.answer("pid", block("DISCONNECT,0") + block("CONNECT,0,1") + "SUCCESS: pid=1\r\n");
  await pid;
  assertEquals((await late).code, "stale");
  assert(!await daemon.pending());
  await client.close();
});

test("an event of another connection, or of nobody, answers nothing", async () => {
  const [one, daemonOne] = await greetedPair();
  const [two, daemonTwo] = await greetedPair();
  const [ofOne, ofTwo] = [one.subscribe(), two.subscribe()];
  await Promise.all([daemonOne.say(block("CONNECT,0,1")), daemonTwo.say(block("CONNECT,0,1"))]);
  const [request] = await requests(ofOne, 1);
  await requests(ofTwo, 1);
  assertEquals((await rejection(two.clientAuthNt(request!))).code, "stale");
  const made = parseEvent("CLIENT:CONNECT,0,1") as ClientAuthEvent;
  assertEquals((await rejection(two.clientAuthNt(made))).code, "stale");
  const copy = { ...request! };
  assertEquals((await rejection(one.clientAuthNt(copy))).code, "stale");
  assert(!await daemonOne.pending() && !await daemonTwo.pending());
  await Promise.all([one.close(), two.close()]);
});

test("any event about a client is that client, and a response answers its own request", async () => {
  const [client, daemon] = await greetedPair();
  const events = client.subscribe();
  await daemon.say(
    block("CONNECT,5,1") + block("CR_RESPONSE,5,1,QQ==") + block("ESTABLISHED,5") +
      ">CLIENT:ADDRESS,5,10.8.0.2,1\r\n" + block("REAUTH,5,2"),
  );
  const about: ManagementEvent[] = [];
  while (about.length < 6) about.push((await events.next()).value!);
  for (const event of about) {
    if (event.type !== "CLIENT") continue;
    const kill = client.clientKill(event);
    await daemon.answer("client-kill 5", OK);
    await kill;
    if (event.kind === "ADDRESS" || !("keyId" in event)) continue;
    const answer = client.clientAuthNt(event);
    await daemon.answer(`client-auth-nt 5 ${event.keyId}`, OK);
    await answer;
  }
  await client.close();
});

test("a client has its three newest keys", async () => {
  const [client, daemon] = await greetedPair();
  const events = client.subscribe();
  await daemon.say(block("CONNECT,0,1") + [2, 3, 4].map((it) => block(`REAUTH,0,${it}`)).join(""));
  const all = await requests(events, 4);
  assertEquals((await rejection(client.clientAuthNt(all[0]!))).code, "stale");
  for (const request of all.slice(1)) {
    const answer = client.clientAuthNt(request);
    await daemon.answer(`client-auth-nt 0 ${request.keyId}`, OK);
    await answer;
  }
  await client.close();
});

test("another way to write an id is no way around, and what is no id is OpenVPN's to refuse", async () => {
  const [client, daemon] = await pairAfter(">CLIENT:ESTABLISHED,0", ">CLIENT:ENV,END", HOLD);
  for (const text of ["00", "+0", "0x0", '" 0"', "-0"]) {
    const error = await rejection<GuardError>(client.command(`client-kill ${text}`));
    assertEquals(error.guard, "ended-client", text);
  }
  for (
    const line of ["client-kill foo", "client-kill", "client-deny 0 k r", "client-deny abc 0 r"]
  ) {
    const refused = rejection(client.command(line));
    await daemon.answer(line, "ERROR: cannot parse\r\n");
    assertEquals((await refused).code, "command");
  }
  assert(!await daemon.pending());
  await client.close();
});

test("the memory of clients is bounded", () => {
  const registry = new ClientRegistry();
  const see = (id: number) => {
    registry.see(parseEvent(`CLIENT:CONNECT,${id},1`));
    registry.see(parseEvent(`CLIENT:DISCONNECT,${id}`));
  };
  const guardOf = (id: number) => {
    try {
      registry.refuseStale(["client-auth-nt", String(id), "1"], undefined);
    } catch (error) {
      return (error as GuardError).guard;
    }
  };
  for (let id = 0; id < MAX_REMEMBERED_CLIENTS; id++) see(id);
  assertEquals(guardOf(0), "ended-client");
  see(MAX_REMEMBERED_CLIENTS);
  assertEquals([guardOf(0), guardOf(1)], ["unannounced-client", "ended-client"]);
});

test("the memory of clients whose end is not told is bounded, too", () => {
  const registry = new ClientRegistry();
  const event = parseEvent("CLIENT:ESTABLISHED,0") as ClientSessionEvent;
  registry.see(event);
  registry.bind(event);
  const kill = () => registry.refuseStale(["client-kill", "0"], event);
  for (let id = 1; id < MAX_REMEMBERED_CLIENTS; id++) {
    registry.see(parseEvent(`CLIENT:ESTABLISHED,${id}`));
  }
  kill();
  registry.see(parseEvent(`CLIENT:ESTABLISHED,${MAX_REMEMBERED_CLIENTS}`));
  assertThrows(kill, ManagementError, "is gone");
});

test("a refused command leaves the errors of the others alone", async () => {
  const [client, daemon] = await pairAfter(HOLD);
  const refused = Array.from({ length: 3 }, () => rejection(client.pkcs11Count()));
  const pid = client.pid();
  for (const error of await Promise.all(refused)) assertEquals(error.code, "guarded");
  await daemon.answer("pid", "SUCCESS: pid=8\r\n");
  assertEquals(await pid, 8);
  await daemon.conn.close();
  const end = await rejection(client.pid());
  assertStrictEquals(await rejection(client.pkcs11Count()), end);
});
