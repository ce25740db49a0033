import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  CommandError,
  type CommandReply,
  encodeCommand,
  ManagementClient,
  ManagementError,
  StatusFormat,
} from "@trunkline/sockets/ovpn";
import { greetedPair, GREETING, rejection, silentPair } from "./ovpn_fake.ts";

/** Runs one command against one reply; `pid` behind it proves that the pairing holds. */
async function exchange(
  command: string,
  reply: string,
  sent = command,
): Promise<CommandReply | Error> {
  const [client, daemon] = await greetedPair({ timeoutMs: 3000 });
  const result = client.command(command).catch((error) => error);
  const pid = client.pid();
  for (const line of sent.split("\n")) assertEquals(await daemon.hear(), line);
  if (reply !== "") assert(!await daemon.pending(), "one command in flight");
  await daemon.say(reply);
  const value = await result;
  await daemon.answer("pid", "SUCCESS: pid=7\r\n");
  assertEquals(await pid, 7, command);
  assertEquals(client.strayReplies, 0);
  await client.close();
  return value;
}

const REPLIES: readonly (readonly [string, string, Omit<CommandReply, "raw">])[] = [
  ["verb", "SUCCESS: verb=3\r\n", { success: "verb=3", lines: [] }],
  ["hold", "SUCCESS: hold=1\n", { success: "hold=1", lines: [] }],
  ["status 3", "TITLE\tx\r\nERROR: x\r\nSUCCESS: y\r\nEND,z\r\n END\r\nEND\r\n", {
    success: "",
    lines: ["TITLE\tx", "ERROR: x", "SUCCESS: y", "END,z", " END"],
  }],
  ["version", "OpenVPN Version: x\r\nManagement Version: 5\r\nEND\r\n", {
    success: "",
    lines: ["OpenVPN Version: x", "Management Version: 5"],
  }],
  ["remote-entry-get 9", "END\r\n", { success: "", lines: [] }],
  ["state on all", "SUCCESS: real-time\r\n1,CONNECTING,,\r\nEND\r\n", {
    success: "real-time",
    lines: ["1,CONNECTING,,"],
  }],
  ["state 5 on", "1,CONNECTING,,\r\nEND\r\nSUCCESS: real-time\r\n", {
    success: "real-time",
    lines: ["1,CONNECTING,,"],
  }],
  ["echo all", "END\r\n", { success: "", lines: [] }],
  ["log on", "SUCCESS: real-time\r\n", { success: "real-time", lines: [] }],
  ["test 2", "[0] x\r\n[1] x\r\n", { success: "", lines: ["[0] x", "[1] x"] }],
  ["test 0", "", { success: "", lines: [] }],
  ["test -1", "", { success: "", lines: [] }],
  ["pkcs11-id-count", ">PKCS11ID-COUNT:2\r\n", { success: "", lines: ["PKCS11ID-COUNT:2"] }],
  ["pkcs11-id-get 7", ">LOG:1,I,x\r\n>PKCS11ID-ENTRY:'7'\r\n", {
    success: "",
    lines: ["PKCS11ID-ENTRY:'7'"],
  }],
  [
    "push-update-cid 0 x",
    "SUCCESS: 1 client(s) updated\r\nSUCCESS: push-update command succeeded\r\n",
    {
      success: "push-update command succeeded",
      lines: ["SUCCESS: 1 client(s) updated"],
    },
  ],
  ["a-command-of-2031", "SUCCESS: fine\r\n", { success: "fine", lines: [] }],
  ["another-of-2031", "some\r\nSUCCESS: lines\r\nEND\r\n", {
    success: "",
    lines: ["some", "SUCCESS: lines"],
  }],
  ['"verb"', "SUCCESS: verb=3\r\n", { success: "verb=3", lines: [] }],
];

for (const [command, reply, expected] of REPLIES) {
  test(`command() reads the reply to: ${command}`, async () => {
    const value = await exchange(command, reply);
    assert(!(value instanceof Error), String(value));
    const { raw, ...rest } = value;
    assertEquals(rest, expected);
    assertEquals(raw.map((line) => new TextDecoder().decode(line)), expected.lines);
  });
}

const ERRORS: readonly (readonly [string, string, string, string[]?])[] = [
  [
    "status",
    "ERROR: The 'status' command is not supported by the current daemon mode\r\n",
    "The 'status' command is not supported by the current daemon mode",
  ],
  ["state zero", "ERROR: state parameter\r\n", "state parameter"],
  ["state bad on", "ERROR: state parameter\r\nSUCCESS: on\r\n", "state parameter"],
  ["state on bad", "SUCCESS: on\r\nERROR: state parameter\r\n", "state parameter"],
  [
    "auth-retry x",
    "--auth-retry method must be\r\nERROR: bad auth-retry parameter\r\n",
    "bad auth-retry parameter",
    ["--auth-retry method must be"],
  ],
  [
    "pkcs11-id-count",
    "ERROR: unknown command, enter 'help' for more options\r\n",
    "unknown command, enter 'help' for more options",
  ],
  [
    "push-update-cid 1 x",
    "PUSH_UPDATE: not sending\r\nERROR: Peer ID: 1 has not been updated\r\nERROR: no client updated\r\nERROR: push-update command failed\r\n",
    "push-update command failed",
    [
      "PUSH_UPDATE: not sending",
      "ERROR: Peer ID: 1 has not been updated",
      "ERROR: no client updated",
    ],
  ],
  [
    "push-update-cid x y",
    "ERROR: cannot parse CID\r\nERROR: push-update-cid fail during cid parsing\r\n",
    "push-update-cid fail during cid parsing",
    ["ERROR: cannot parse CID"],
  ],
  [
    "push-update-broad",
    "ERROR: the 'push-update-broad' command requires 1 parameter\r\n",
    "the 'push-update-broad' command requires 1 parameter",
  ],
  [
    "test",
    "ERROR: the 'test' command requires 1 parameter\r\n",
    "the 'test' command requires 1 parameter",
  ],
];

for (const [command, reply, expected, lines = []] of ERRORS) {
  test(`command() rejects with a CommandError for: ${command}`, async () => {
    const error = await exchange(command, reply);
    assert(error instanceof CommandError && error instanceof ManagementError);
    assertEquals(error.code, "command");
    assertEquals(error.command, command.split(" ")[0]);
    assertEquals(error.reply, expected);
    assertEquals(error.lines, lines);
  });
}

test("a line that OpenVPN cannot read has one reply, whatever its first word is", async () => {
  const reply = 'Options error: No closing quotation (") in TCP:0';
  for (const start of ["needstr a", "test 0", "state on all", "exit", "version 3", "status"]) {
    const error = await exchange(`${start} "x`, `ERROR: ${reply}\r\n`);
    assert(error instanceof CommandError);
    // No command that was run.
    assertEquals([error.command, error.reply], ["command", reply]);
  }
});

test("command() sends version n with pid, and reads both kinds of reply", async () => {
  const silent = await exchange("version 3", "SUCCESS: pid=1\r\n", "version 3\npid");
  assertEquals(silent, { success: "", lines: [], raw: [] });
  const told = "SUCCESS: Management client version set to 4\r\nSUCCESS: pid=1\r\n";
  const value = await exchange("version 4", told, "version 4\npid");
  assertEquals(value, { success: "Management client version set to 4", lines: [], raw: [] });
});

for (const name of ["exit", "quit"]) {
  test(`command("${name}") resolves when OpenVPN has hung up`, async () => {
    const [client, daemon] = await greetedPair();
    const gone = client.command(name);
    const late = rejection(client.pid());
    assertEquals(await daemon.hear(), name);
    await daemon.conn.close();
    assertEquals(await gone, { success: "", lines: [], raw: [] });
    assertEquals((await late).code, "disconnected");
    await client.closed;
  });
}

test("command() refuses what OpenVPN would not answer or misread, and sends nothing", async () => {
  const [client, daemon] = await greetedPair();
  for (
    const line of [
      "",
      "  ",
      "# pid",
      ";",
      "pid\nkill x",
      "pid\r",
      "a\tb",
      "\0",
      "client-auth 0 1",
      "pk-sig",
      "certificate",
      "password Auth",
    ]
  ) {
    assert(await rejection(client.command(line)) instanceof TypeError, JSON.stringify(line));
  }
  const long = await rejection(client.command("x".repeat(1024)));
  assert(long instanceof RangeError && !long.message.includes("xxx"));
  assert(!await daemon.pending());
  await client.close();
});

test("command() takes what encodeCommand() makes", async () => {
  const [client, daemon] = await greetedPair();
  const killed = client.command(encodeCommand("kill", 'a "b"\\'));
  await daemon.answer('kill "a \\"b\\"\\\\"', "SUCCESS: common name killed\r\n");
  assertEquals((await killed).success, "common name killed");
  for (const bytes of ["kill a\npid\n", "client-auth 0 1\n", "", "\n"]) {
    const error = await rejection(client.command(new TextEncoder().encode(bytes)));
    assert(error instanceof TypeError);
  }
  assert(await rejection(client.command(Uint8Array.of(255, 10))) instanceof TypeError);
  assert(!await daemon.pending());
  await client.close();
});

test("the methods send what the management interface documents", async () => {
  const [client, daemon] = await greetedPair();
  const ok = "SUCCESS: ok\r\n";
  const calls: readonly [Promise<unknown>, string, string][] = [
    [client.holdRelease(), "hold release", ok],
    [client.setStateEvents(true), "state on", ok],
    [client.setStateEvents(false), "state off", ok],
    [client.setEchoEvents(true), "echo on", ok],
    [client.setEchoEvents(false), "echo off", ok],
    [client.setByteCountEvents(5), "bytecount 5", ok],
    [client.setByteCountEvents(0), "bytecount 0", ok],
    [client.sendSignal("SIGUSR1"), "signal SIGUSR1", ok],
    [client.sendPassword("Private Key", 'p"w\\'), 'password "Private Key" "p\\"w\\\\"', ok],
    [client.sendUsername("Auth", "käthe"), 'username "Auth" "käthe"', ok],
    [client.latestStatus(), "status", "a\r\nEND\r\n"],
    [client.latestStatus(StatusFormat.V3), "status 3", "b\r\nEND\r\n"],
    [client.latestState(), "state", "END\r\n"],
  ];
  for (const [call, line, reply] of calls) {
    await daemon.answer(line, reply);
    await call;
  }
  const state = client.latestState();
  await daemon.answer(
    "state",
    "1795220642,CONNECTED,SUCCESS,10.8.0.2,198.51.100.17,11194,,,fd00:8::1000\r\nEND\r\n",
  );
  const { raw: _, ...rest } = (await state)!;
  assertEquals(rest, {
    type: "STATE",
    time: 1795220642,
    name: "CONNECTED",
    description: "SUCCESS",
    tunnelAddress: "10.8.0.2",
    remoteAddress: "198.51.100.17",
    remotePort: 11194,
    localAddress: "",
    localPort: undefined,
    tunnelAddress6: "fd00:8::1000",
  });
  await client.close();
});

test("the methods refuse arguments that are none", async () => {
  const [client, daemon] = await greetedPair();
  for (const seconds of [-1, 1.5, NaN, Infinity, 2 ** 31]) {
    assert(await rejection(client.setByteCountEvents(seconds)) instanceof RangeError);
  }
  for (const name of ["", "SIG TERM", "sigterm\n", "SIGTERM\nexit"]) {
    assert(await rejection(client.sendSignal(name)) instanceof TypeError);
  }
  assert(await rejection(client.latestStatus("9" as "3")) instanceof TypeError);
  assert(await rejection(client.sendPassword("Auth", "a\nb")) instanceof TypeError);
  assert(await rejection(client.sendPassword("Auth", "a".repeat(257))) instanceof RangeError);
  assert(!await daemon.pending());
  await client.close();
});

test("pid() rejects with protocol for a reply without a number", async () => {
  const [client, daemon] = await greetedPair();
  const pid = rejection(client.pid());
  await daemon.answer("pid", "SUCCESS: pid=x\r\n");
  assertEquals((await pid).code, "protocol");
  await client.close();
});

test("events between a command and its reply belong to neither", async () => {
  const [client, daemon] = await greetedPair();
  const events = client.subscribe();
  const status = client.latestStatus("3");
  await daemon.answer(
    "status 3",
    ">LOG:1,D,MANAGEMENT: CMD 'status 3'\r\nTITLE\r\n>HOLD:x:0\r\nEND\r\n",
  );
  assertEquals(await status, ["TITLE"]);
  for (const type of ["INFO", "LOG", "HOLD"]) assertEquals((await events.next()).value?.type, type);
  await client.close();
});

test("a reply that nobody asked for is counted and harms nothing", async () => {
  const [client, daemon] = await greetedPair();
  await daemon.say("SUCCESS: pk-sign command succeeded\r\n>HOLD:x:0\r\n");
  for await (const event of client.events) if (event.type === "HOLD") break;
  assertEquals(client.strayReplies, 1);
  const pid = client.pid();
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  assertEquals(await pid, 1);
  await client.close();
});

test("a reply of more than maxReplyBytes ends the connection", async () => {
  const [client, daemon] = await greetedPair({ maxReplyBytes: 1000 });
  const status = rejection(client.latestStatus("3"));
  await daemon.hear();
  const flood = daemon.say("x\r\n".repeat(1000)).catch(() => {});
  const error = await status;
  assert(error instanceof ManagementError && error.code === "protocol");
  assertEquals(await rejection(client.closed), error);
  await flood;
});

test("what is kept of a reply or an event is its line, not the chunk that it came in", async () => {
  const [client, daemon] = await greetedPair();
  const status = client.command("status 3");
  const block = ">CLIENT:ESTABLISHED,0\r\n>CLIENT:ENV,a=b\r\n>CLIENT:ENV,END\r\n";
  const outside = ">CLIENT:ENV,a=b\r\n";
  const log = ">LOG:1,I,x\r\n".repeat(5000);
  await daemon.answer("status 3", `${block}${outside}${log}line\r\nEND\r\n`);
  const { raw } = await status;
  assertEquals(raw[0]!.buffer.byteLength, 4);
  await daemon.conn.close();
  for await (const event of client.events) {
    assertEquals(event.raw.buffer.byteLength, event.raw.byteLength);
  }
});

test("a default reply limit takes the status of 50000 clients", async () => {
  const [client, daemon] = await greetedPair();
  const status = client.latestStatus("3");
  await daemon.hear();
  const row = `CLIENT_LIST\t${"n".repeat(150)}\r\n`;
  for (let i = 0; i < 50; i++) await daemon.say(row.repeat(1000));
  await daemon.say("END\r\n");
  assertEquals((await status).length, 50_000);
  await client.close();
});

test("managementVersion is that of the greeting", async () => {
  const [client] = await greetedPair();
  assertEquals(client.managementVersion, 5);
  await client.close();
});

test("no error and no inspection holds a password", async () => {
  const secret = "hunter2-".repeat(40);
  const [client, daemon] = await greetedPair({ password: "management-hunter2", timeoutMs: 1000 });
  const errors = [
    await rejection(client.sendPassword("Auth", secret)),
    await rejection(client.command(`password Auth "${secret}`.slice(0, 300) + "\n")),
  ];
  const long = rejection(client.command(`password Auth ${secret}`));
  await daemon.hear();
  await daemon.say(
    `ERROR: Options error: Parameter at TCP:0 is too long (256 chars max): ${secret}\r\n`,
  );
  errors.push(await long);
  const unknown = rejection(client.command("needstr a b"));
  await daemon.hear();
  await daemon.say(`ERROR: unknown command [${secret}], enter 'help' for more options\r\n`);
  errors.push(await unknown);
  const pending = rejection(client.sendPassword("Auth", "hunter2"));
  await daemon.hear();
  await daemon.conn.close();
  errors.push(await pending);
  for (const value of [client, ...errors]) {
    assert(!inspect(value, { depth: 9, showHidden: true }).includes("hunter2"), String(value));
    assert(!String(value).includes("hunter2"));
    assert(!JSON.stringify(value).includes("hunter2"));
  }
});

test("a ManagementClient runs over any pair of streams", async () => {
  const there = new TransformStream<Uint8Array, Uint8Array>();
  const back = new TransformStream<Uint8Array, Uint8Array>();
  const client = new ManagementClient({ readable: back.readable, writable: there.writable });
  const writer = back.writable.getWriter();
  await writer.write(new TextEncoder().encode(GREETING));
  const pid = client.pid();
  const reader = there.readable.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "pid\n");
  await writer.write(new TextEncoder().encode("SUCCESS: pid=3\r\n"));
  assertEquals(await pid, 3);
  const rest = reader.read();
  const closing = client.close();
  assertEquals((await rest).done, true);
  await writer.close();
  await closing;
});

test("two clients in one process do not meet", async () => {
  const [one, daemonOne] = await greetedPair();
  const [two, daemonTwo] = await greetedPair();
  const pids = Promise.all([one.pid(), two.pid()]);
  await daemonTwo.answer("pid", "SUCCESS: pid=2\r\n");
  await daemonOne.answer("pid", "SUCCESS: pid=1\r\n");
  assertEquals(await pids, [1, 2]);
  await Promise.all([one.close(), two.close()]);
});

test("limits that are none are RangeErrors, and a password that cannot be sent a TypeError", () => {
  const names = [
    "timeoutMs",
    "greetingTimeoutMs",
    "maxBufferedEvents",
    "maxEnvBytes",
    "maxReplyBytes",
    "closeTimeoutMs",
  ];
  const attempt = (options: object) => {
    try {
      const [client] = silentPair(options);
      client.close();
    } catch (error) {
      return error;
    }
  };
  for (const name of names) {
    for (const value of [0, -1, NaN]) {
      assert(attempt({ [name]: value }) instanceof RangeError, name);
    }
    // A timer that is longer fires at once.
    const none = attempt({ [name]: Infinity }) instanceof RangeError;
    assertEquals(none, name.endsWith("Ms"), name);
  }
  assert(attempt({ password: "a\nb" }) instanceof TypeError);
  assert(attempt({ onTimeout: "wait" }) instanceof TypeError);
  assert(attempt({ password: "a".repeat(1024) }) instanceof RangeError);
  assertStrictEquals(attempt({ password: "" }), undefined);
});

test("a byte order mark is part of a line, and END with one is no end", async () => {
  const [client, daemon] = await greetedPair();
  const lines = client.net();
  await daemon.answer("net", "\ufeffEND\r\n\ufeffa\r\nEND\r\n");
  assertEquals(await lines, ["\ufeffEND", "\ufeffa"]);
  assertEquals(client.strayReplies, 0);
  await client.close();
});
