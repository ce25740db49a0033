/** The methods: what they send, what they make of the reply, and what they refuse. */
import { assert, assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";
import { connPair } from "@trunkline/sockets/auto";
import { CommandError, encodeBody, ManagementClient } from "@trunkline/sockets/ovpn";
import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
import { takesPasswordLines } from "../ovpn/versions.ts";
import { type FakeDaemon, greetedPair, rejection, silentPair } from "./ovpn_fake.ts";

const OK = "SUCCESS: fine\r\n";
const END = "END\r\n";
const IDS = { clientId: "3", keyId: 1n };

/** A client whose daemon has greeted as this version of the management interface, and then said more. */
async function greetedAs(
  management: number,
  ...lines: readonly string[]
): Promise<[ManagementClient, FakeDaemon]> {
  const [client, daemon] = silentPair({ timeoutMs: 3000 });
  const greeting = `>INFO:OpenVPN Management Interface Version ${management} -- type 'help'\r\n`;
  await daemon.say(greeting + lines.map((line) => `${line}\r\n`).join(""));
  await client.ready;
  return [client, daemon];
}

/** [what is called, what is sent, what is answered, what it gives, and what was said before]. */
type Case = readonly [
  call: (client: ManagementClient) => Promise<unknown>,
  sent: string,
  reply: string,
  value?: unknown,
  before?: readonly string[],
];

const UNANNOUNCED = { allow: ["unannounced-client"] } as const;
const CONNECT = [">CLIENT:CONNECT,3,1", ">CLIENT:ENV,END"];
const PEM = ["-----BEGIN CERTIFICATE-----", "TWFkZSB1cA==", "-----END CERTIFICATE-----"];

const CASES: readonly Case[] = [
  [(it) => it.holdRelease(), "hold release", OK],
  [(it) => it.hold(), "hold", "SUCCESS: hold=1\r\n", true],
  [(it) => it.setHold(false), "hold off", OK],
  [(it) => it.setStateEvents(true), "state on", OK],
  [(it) => it.state(), "state", END],
  [(it) => it.latestState(), "state", END],
  [
    (it) => it.stateHistory(2).then((all) => all.map(({ name }) => name)),
    "state 2",
    "5,WAIT,,,,,,\r\n6,AUTH,,,,,,\r\nEND\r\n",
    ["WAIT", "AUTH"],
  ],
  [
    (it) => it.followStates("all").then((all) => all.length),
    "state on all",
    "SUCCESS: real-time\r\n5,WAIT,,,,,,\r\nEND\r\n",
    1,
  ],
  [(it) => it.setLogEvents(false), "log off", OK],
  [
    (it) => it.logHistory(1).then(([it]) => it?.message),
    "log 1",
    "7,I,Initialization done\r\nEND\r\n",
    "Initialization done",
  ],
  [(it) => it.setEchoEvents(false), "echo off", OK],
  [
    (it) => it.echoHistory("all").then(([it]) => it?.message),
    "echo all",
    "7,setenv A b\r\nEND\r\n",
    "setenv A b",
  ],
  [(it) => it.followEchoes(9), "echo on 9", "SUCCESS: on\r\nEND\r\n", []],
  [(it) => it.setByteCountEvents(0), "bytecount 0", OK],
  [(it) => it.sendSignal("SIGHUP"), "signal SIGHUP", OK],
  [
    (it) => it.status().then(({ format, clients }) => [format, clients[0]?.commonName]),
    "status 3",
    "TITLE\tOpenVPN 2\r\nHEADER\tCLIENT_LIST\tCommon Name\tReal Address\tBytes Received\tBytes Sent\r\n" +
    "CLIENT_LIST\tEND,>x\t192.0.2.1:1194\t10\t20\r\nEND\r\n",
    [3, "END,>x"],
  ],
  [(it) => it.latestStatus("2"), "status 2", "x\r\nEND\r\n", ["x"]],
  [(it) => it.pid(), "pid", "SUCCESS: pid=6\r\n", 6],
  [
    (it) => it.version().then(({ openvpn, management }) => [openvpn.version, management]),
    "version",
    "OpenVPN Version: OpenVPN 2.6.14 x\r\nManagement Version: 5\r\nEND\r\n",
    ["2.6.14", 5],
  ],
  [(it) => it.setVersion(3), "version 3\npid", "SUCCESS: pid=1\r\n"],
  [
    (it) => it.loadStats(),
    "load-stats",
    "SUCCESS: nclients=1,bytesin=9007199254740993,bytesout=4\r\n",
    { clients: 1, bytesIn: 9007199254740993n, bytesOut: 4 },
  ],
  [(it) => it.verb(), "verb", "SUCCESS: verb=4\r\n", 4],
  [(it) => it.setVerb(11), "verb 11", OK],
  [(it) => it.mute(), "mute", "SUCCESS: mute=40\r\n", 40],
  [(it) => it.setMute(0), "mute 0", OK],
  [(it) => it.authRetry(), "auth-retry", "SUCCESS: auth-retry=interact\r\n", "interact"],
  [(it) => it.setAuthRetry("nointeract"), "auth-retry nointeract", OK],
  [(it) => it.setEnvFilter(1), "env-filter 1", "SUCCESS: env_filter_level=1\r\n"],
  [(it) => it.forgetPasswords(), "forget-passwords", OK],
  [(it) => it.net(), "net", "adapter\r\nEND\r\n", ["adapter"]],
  [(it) => it.help(), "help", "Commands:\r\nEND\r\n", ["Commands:"]],
  [(it) => it.test(2), "test 2", "[0] The purpose\r\nEND\r\n", ["[0] The purpose", "END"]],
  [(it) => it.sendUsername("Auth", "a b"), 'username "Auth" "a b"', OK],
  [(it) => it.sendPassword("Auth", 'p"\\'), 'password "Auth" "p\\"\\\\"', OK],
  [(it) => it.needOk("token", "cancel"), 'needok "token" "cancel"', OK],
  [(it) => it.needStr("id", "a\\x20b"), 'needstr "id" "a\\\\x20b"', OK],
  [(it) => it.proxy({ type: "NONE" }), "proxy NONE", OK],
  [
    (it) => it.proxy({ type: "HTTP", host: "::1", port: 8080, noClearText: true }),
    'proxy HTTP "::1" "8080" "nct"',
    OK,
  ],
  [
    (it) => it.proxy({ type: "SOCKS", host: "p.example", port: 1 }),
    'proxy SOCKS "p.example" "1"',
    OK,
  ],
  [(it) => it.remote({ action: "ACCEPT" }), "remote ACCEPT", OK],
  [(it) => it.remote({ action: "SKIP" }), "remote SKIP", OK],
  [(it) => it.remote({ action: "SKIP", count: 2 }), "remote SKIP 2", OK],
  [
    (it) => it.remote({ action: "MOD", host: "2001:db8::2", port: 1194 }),
    'remote MOD "2001:db8::2" "1194"',
    OK,
  ],
  [(it) => it.remoteEntryCount(), "remote-entry-count", "3\r\nEND\r\n", 3],
  [
    (it) => it.remoteEntries(),
    "remote-entry-get all",
    "0,vpn.example,1194,udp4,enabled\r\nEND\r\n",
    [{ index: 0, host: "vpn.example", port: "1194", protocol: "udp4", enabled: true }],
  ],
  [(it) => it.remoteEntries([1, 3]), "remote-entry-get 1 3", END, []],
  [(it) => it.remoteEntries([7]), "remote-entry-get 7", END, []],
  [
    (it) => it.certificate(PEM.join("\r\n") + "\n"),
    ["certificate", ...PEM, "END"].join("\n"),
    OK,
    undefined,
    [
      ">NEED-CERTIFICATE:hint",
    ],
  ],
  [(it) => it.pkSign("QUJD\nREVG"), "pk-sig\nQUJD\nREVG\nEND", OK, undefined, [
    ">PK_SIGN:QQ==,ECDSA",
  ]],
  [(it) => it.pkSign(Uint8Array.of(0, 255)), "rsa-sig\nAP8=\nEND", OK, undefined, [
    ">RSA_SIGN:QQ==",
  ]],
  [(it) => it.rsaSign("QUJD"), "rsa-sig\nQUJD\nEND", OK, undefined, [">PK_SIGN:QQ=="]],
  [
    (it) => it.pkSign(new Uint8Array(100)),
    `pk-sig\n${"A".repeat(64)}\n${"A".repeat(64)}\n${"A".repeat(6)}==\nEND`,
    OK,
    undefined,
    [">PK_SIGN:QQ=="],
  ],
  [(it) => it.pkcs11Count(), "pkcs11-id-count", ">PKCS11ID-COUNT:2\r\n", 2],
  [
    (it) => it.pkcs11Entry(1),
    "pkcs11-id-get 1",
    ">PKCS11ID-ENTRY:'1', ID:'a\\x20b', BLOB:'QQ=='\r\n",
    { index: 1, id: "a\\x20b", blob: "QQ==" },
  ],
  [(it) => it.pkcs11Entry(9), "pkcs11-id-get 9", ">PKCS11ID-ENTRY:'9'\r\n"],
  [(it) => it.crResponse("žá"), 'cr-response "xb7DoQ=="', OK],
  [(it) => it.clientAuth(IDS), "client-auth 3 1\nEND", OK, undefined, CONNECT],
  [
    (it) => it.clientAuth({ clientId: 3, keyId: "1" }, ['push "route 10.9.0.0"', "", "# x"]),
    'client-auth 3 1\npush "route 10.9.0.0"\n\n# x\nEND',
    OK,
    undefined,
    CONNECT,
  ],
  [(it) => it.clientAuthNt(IDS), "client-auth-nt 3 1", OK, undefined, CONNECT],
  [(it) => it.clientAuthNt(IDS, UNANNOUNCED), "client-auth-nt 3 1", OK],
  [(it) => it.clientDeny(IDS, "late"), 'client-deny 3 1 "late"', OK, undefined, CONNECT],
  [
    (it) => it.clientDeny(IDS, "no", "CRV1:R:id:dQ==:Code?"),
    'client-deny 3 1 "no" "CRV1:R:id:dQ==:Code?"',
    OK,
    undefined,
    CONNECT,
  ],
  [
    (it) => it.clientPendingAuth(IDS, "CR_TEXT:R:Code?", 60),
    'client-pending-auth 3 "1" "CR_TEXT:R:Code?" "60"',
    OK,
    undefined,
    CONNECT,
  ],
  [(it) => it.clientKill(18446744073709551615n), "client-kill 18446744073709551615", OK],
  [(it) => it.clientKill("3", "HALT,bye"), 'client-kill 3 "HALT,bye"', OK],
  [
    (it) => it.kill("found, 9 client(s) killed"),
    'kill "found, 9 client(s) killed"',
    "SUCCESS: common name 'found, 9 client(s) killed' found, 2 client(s) killed\r\n",
    2,
  ],
  [(it) => it.clientCount(), "nclients", "SUCCESS: nclients=12\r\n", 12],
  [
    (it) => it.pushUpdateBroad("-dns"),
    'push-update-broad "-dns"',
    "SUCCESS: 4 client(s) updated\r\nSUCCESS: push-update command succeeded\r\n",
    4,
  ],
  [
    (it) => it.pushUpdateCid(7, "-dns"),
    'push-update-cid 7 "-dns"',
    "SUCCESS: 1 client(s) updated\r\nSUCCESS: push-update command succeeded\r\n",
    1,
  ],
];

for (const [call, sent, reply, value, before = []] of CASES) {
  test(`a method sends ${JSON.stringify(sent)}`, async () => {
    const [client, daemon] = await greetedAs(5, ...before);
    const result = call(client);
    for (const line of sent.split("\n")) assertEquals(await daemon.hear(), line);
    await daemon.say(reply);
    assertEquals(await result, value);
    const pid = client.pid();
    await daemon.answer("pid", "SUCCESS: pid=7\r\n");
    assertEquals(await pid, 7);
    assertEquals(client.strayReplies, 0);
    await client.close();
  });
}

test("pkcs11Ids() asks for each", async () => {
  const [client, daemon] = await greetedPair();
  const ids = client.pkcs11Ids();
  await daemon.answer("pkcs11-id-count", ">PKCS11ID-COUNT:3\r\n");
  await daemon.answer("pkcs11-id-get 0", ">PKCS11ID-ENTRY:'0', ID:'a', BLOB:'QQ=='\r\n");
  // It was taken out meanwhile.
  await daemon.answer("pkcs11-id-get 1", ">PKCS11ID-ENTRY:'1'\r\n");
  assertEquals(await ids, [{ index: 0, id: "a", blob: "QQ==" }]);
  await client.close();
});

test("exit() resolves when OpenVPN has hung up, with the replies before it", async () => {
  const [client, daemon] = await greetedPair();
  const pid = client.pid();
  let over = false;
  const exit = client.exit().then(() => over = true);
  await daemon.answer("pid", "SUCCESS: pid=7\r\n");
  assertEquals(await pid, 7);
  assertEquals(await daemon.hear(), "exit");
  assertEquals([await daemon.pending(), over], [false, false]);
  await daemon.conn.close();
  await exit;
  await client.closed;
});

test("test() asks for any number of lines, and for no fraction of one", async () => {
  const [client, daemon] = await greetedPair();
  const none = client.test(0);
  assertEquals(await daemon.hear(), "test 0");
  assertEquals(await none, []);
  assert(await rejection(client.test(0.5)) instanceof RangeError);
  await client.close();
});

test("every method is in the table of docs/ovpn.md", () => {
  const guide = readFileSync(new URL("../docs/ovpn.md", import.meta.url), "utf8");
  const table = guide.slice(guide.indexOf("### Commands"), guide.indexOf("### Guards"));
  const missing: string[] = [];
  let count = 0;
  for (
    let it = ManagementClient.prototype;
    it !== Object.prototype;
    it = Object.getPrototypeOf(it)
  ) {
    for (const name of Object.getOwnPropertyNames(it)) {
      if (
        /^(?:constructor|ready|closed|managementVersion|droppedEvents|strayReplies)$/.test(name)
      ) continue;
      if (/^(?:events|subscribe|close)$/.test(name)) continue;
      count++;
      if (!table.includes(`\`${name}(`)) missing.push(name);
    }
  }
  assertEquals(missing, []);
  assert(count > 50);
});

const REFUSED: readonly (readonly [
  (client: ManagementClient) => Promise<unknown>,
  typeof TypeError | typeof RangeError,
])[] = [
  [(it) => it.stateHistory(0), RangeError],
  [(it) => it.stateHistory(-1), RangeError],
  [(it) => it.logHistory(1.5), RangeError],
  [(it) => it.followLog(2 ** 31), RangeError],
  [(it) => it.setVersion(NaN), RangeError],
  [(it) => it.setVerb(-1), RangeError],
  [(it) => it.setMute("1; pid" as unknown as number), RangeError],
  [(it) => it.setAuthRetry("x" as "none"), TypeError],
  [(it) => it.needOk("a", "yes" as "ok"), TypeError],
  [(it) => it.needStr("a", "b\nc"), TypeError],
  [(it) => it.proxy({ type: "FTP" as "HTTP", host: "a", port: 1 }), TypeError],
  [(it) => it.proxy({ type: "HTTP", host: "", port: 1 }), TypeError],
  [(it) => it.proxy({ type: "HTTP", host: "a b", port: 1 }), TypeError],
  [(it) => it.proxy({ type: "SOCKS", host: "a", port: 0 }), RangeError],
  [(it) => it.proxy({ type: "SOCKS", host: "a", port: 65536 }), RangeError],
  [(it) => it.remote({ action: "FOO" as "ACCEPT" }), TypeError],
  [(it) => it.remote({ action: "SKIP", count: 0 }), RangeError],
  [(it) => it.remote({ action: "MOD", host: "", port: 1 }), TypeError],
  [(it) => it.remoteEntries([-1]), RangeError],
  [(it) => it.certificate("TWFkZSB1cA=="), TypeError],
  [(it) => it.certificate(`${PEM.join("\n")}\nEND\nquit`), TypeError],
  [(it) => it.pkSign(""), TypeError],
  [(it) => it.pkSign(new Uint8Array()), TypeError],
  [(it) => it.pkSign("QUJD\nEND\nquit"), TypeError],
  [(it) => it.pkSign("not base64!"), TypeError],
  [(it) => it.rsaSign("A".repeat(1024)), RangeError],
  [(it) => it.pkcs11Entry(0.5), RangeError],
  [(it) => it.crResponse("x".repeat(193)), RangeError],
  [(it) => it.clientAuth(IDS, ["END"]), TypeError],
  [(it) => it.clientAuth(IDS, ["E\0ND"]), TypeError],
  [(it) => it.clientAuth(IDS, ["END\r"]), TypeError],
  [(it) => it.clientAuth(IDS, ["a\nb"]), TypeError],
  [(it) => it.clientAuth(IDS, [`#${"x".repeat(255)}`]), RangeError],
  [(it) => it.clientAuth(IDS, [`#${"é".repeat(128)}`]), RangeError],
  [(it) => it.clientAuth({ clientId: "nope", keyId: 0 }), TypeError],
  [(it) => it.clientAuth({ clientId: "0 1\nquit", keyId: 0 }), TypeError],
  [(it) => it.clientAuthNt({ clientId: 0, keyId: -1 }), TypeError],
  [(it) => it.clientAuthNt({ clientId: 2 ** 53, keyId: 1 }), TypeError],
  [(it) => it.clientAuthNt({ clientId: "01", keyId: 1 }), TypeError],
  [(it) => it.clientAuthNt({ clientId: "18446744073709551616", keyId: 1 }), TypeError],
  [(it) => it.clientDeny(IDS, "a\nb"), TypeError],
  [(it) => it.clientPendingAuth(IDS, "x".repeat(247), 9), RangeError],
  [(it) => it.clientPendingAuth(IDS, "ž".repeat(124), 9), RangeError],
  [(it) => it.clientPendingAuth(IDS, "x", 0), RangeError],
  [(it) => it.clientPendingAuth(IDS, "x", 1.5), RangeError],
  [(it) => it.clientKill("1x"), TypeError],
  [(it) => it.kill("1.2.3.4:5"), TypeError],
  [(it) => it.killAddress({ address: "2001:db8::2", port: 1 }), TypeError],
  [(it) => it.killAddress({ address: "vpn.example", port: 1 }), TypeError],
  [(it) => it.killAddress({ address: "192.0.2.1" }), TypeError],
];

test("the methods refuse what would be another command, and send nothing", async () => {
  const [client, daemon] = await greetedPair();
  for (const [call, expected] of REFUSED) {
    const error = await rejection(call(client));
    assert(error instanceof expected, `${call}: ${error}`);
    assert(!/quit|nope|yes|x{9}/.test(error.message), error.message);
  }
  assert(!await daemon.pending());
  await client.close();
});

/** [what OpenVPN 2.7 says before its verdict, how many were updated, or the verdict]. */
const PUSH_UPDATES: readonly (readonly [lines: readonly string[], outcome: number | string])[] = [
  [["PUSH_UPDATE: not sending message to unsupported peer with ID: 1"], 2],
  [
    ["ERROR: Peer ID: 7 has not been updated", "ERROR: no client updated"],
    "push-update command failed",
  ],
  [["ERROR: no client updated"], "push-update command failed"],
  [["ERROR: cannot parse CID"], "push-update-cid fail during cid parsing"],
  [[], "The 'push-update-cid' command is not supported by the current daemon mode"],
];

test("push-update gives how many, or fails with whom it did not reach", async () => {
  const [client, daemon] = await greetedPair();
  for (const [lines, outcome] of PUSH_UPDATES) {
    const update = client.pushUpdateCid(7, "-dns");
    const verdict = typeof outcome === "string"
      ? [`ERROR: ${outcome}`]
      : [`SUCCESS: ${outcome} client(s) updated`, "SUCCESS: push-update command succeeded"];
    const reply = [...lines, ...verdict].map((line) => `${line}\r\n`).join("");
    await daemon.answer('push-update-cid 7 "-dns"', reply);
    if (typeof outcome === "string") {
      const error = await rejection<CommandError>(update);
      assert(error instanceof CommandError, `${error}`);
      assertEquals([error.reply, error.lines], [outcome, lines]);
    } else {
      assertEquals(await update, outcome);
    }
    assertEquals(client.strayReplies, 0);
  }
  await client.close();
});

test("a command and its body are one write, behind the command before it", async () => {
  const [client, daemon] = await greetedAs(5, ...CONNECT);
  const pid = client.pid();
  const auth = client.clientAuth(IDS, ["a", "b"]);
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await pid;
  assertEquals(
    new TextDecoder().decode((await daemon.conn.read())!),
    "client-auth 3 1\na\nb\nEND\n",
  );
  await daemon.say(OK);
  await auth;
  await client.close();
});

test("what OpenVPN makes of the body of a refused command is not the reply to the next one", async () => {
  const [client, daemon] = await greetedAs(6, ">PK_SIGN:QQ==");
  const sign = rejection<CommandError>(client.pkSign("c2VjcmV0\nc2VjcmV0"));
  const pid = client.pid();
  for (const line of ["pk-sig", "c2VjcmV0", "c2VjcmV0", "END"]) {
    assertEquals(await daemon.hear(), line);
  }
  await daemon.say("ERROR: The pk-sig command is not currently available\r\n");
  for (const line of ["c2VjcmV0", "c2VjcmV0"]) {
    assert(!await daemon.pending());
    await daemon.say(`ERROR: unknown command [${line}], enter 'help' for more options\r\n`);
  }
  await daemon.say("ERROR: unknown command [END], enter 'help' for more options\r\n");
  const error = await sign;
  assertEquals([error.reply, error.lines], ["The pk-sig command is not currently available", []]);
  assert(!inspect(error, { depth: 9, showHidden: true }).includes("c2VjcmV0"));
  await daemon.answer("pid", "SUCCESS: pid=5\r\n");
  assertEquals(await pid, 5);
  assertEquals(client.strayReplies, 0);
  await client.close();
});

test("encodeBody() writes lines as they are, and the END", () => {
  assertEquals(new TextDecoder().decode(encodeBody([" END", '"a', ""])), ' END\n"a\n\nEND\n');
  assertEquals(new TextDecoder().decode(encodeBody([])), "END\n");
});

test("encodeBody() keeps what follows a long line out of its last read", () => {
  const long = "x".repeat(768);
  const body = new TextDecoder().decode(encodeBody(["y".repeat(767), long]));
  assertEquals(body, `${"y".repeat(767)}\n${long}\n${"\r".repeat(256)}END\n`);
});

const VERSION = (text: string, management: number) =>
  `OpenVPN Version: OpenVPN ${text} x86_64\r\nManagement Version: ${management}\r\nEND\r\n`;
const ADDRESS = { address: "192.0.2.7", port: 1194, protocol: "tcp4-server" };
const KILLED = "SUCCESS: 1 client(s) at address tcp:192.0.2.7:1194 killed\r\n";

for (
  const [management, version, sent] of [
    [1, undefined, "192.0.2.7:1194"],
    [4, undefined, "192.0.2.7:1194"],
    [5, "2.6.14", "192.0.2.7:1194"],
    [5, "2.7.0", "tcp:192.0.2.7:1194"],
    [5, "2.7_beta1", "tcp:192.0.2.7:1194"],
    [5, "3.0", "tcp:192.0.2.7:1194"],
    [5, "unheard of", "tcp:192.0.2.7:1194"],
    [6, undefined, "tcp:192.0.2.7:1194"],
    [99, undefined, "tcp:192.0.2.7:1194"],
  ] as const
) {
  test(`killAddress() sends ${sent} to ${version ?? `version ${management}`}`, async () => {
    const [client, daemon] = await greetedAs(management);
    for (let round = 0; round < 2; round++) {
      const killed = client.killAddress(ADDRESS);
      const pid = client.pid();
      // Only once, and nothing comes in between.
      if (version !== undefined && (round === 0 || version === "unheard of")) {
        await daemon.answer(
          "version",
          version === "unheard of" ? END : VERSION(version, management),
        );
      }
      await daemon.answer(`kill "${sent}"`, KILLED);
      assertEquals(await killed, 1);
      await daemon.answer("pid", "SUCCESS: pid=1\r\n");
      await pid;
    }
    if (sent.startsWith("tcp")) {
      const error = rejection(client.killAddress({ ...ADDRESS, protocol: undefined }));
      if (version === "unheard of") await daemon.answer("version", END);
      assert(await error instanceof TypeError);
    }
    await client.close();
  });
}

test("a question before a command that fails, is aborted or outlives the client ends with it", async () => {
  const [client, daemon] = await greetedAs(5);
  const failed = rejection(client.killAddress(ADDRESS));
  await daemon.answer("version", "ERROR: no\r\n");
  assert(await failed instanceof CommandError);
  const stop = new AbortController();
  const aborted = rejection(client.killAddress(ADDRESS, { signal: stop.signal }));
  assertEquals(await daemon.hear(), "version");
  stop.abort();
  assertEquals((await aborted).code, "aborted");
  const next = client.killAddress(ADDRESS);
  await daemon.say(VERSION("2.6.14", 5));
  assertEquals(await daemon.hear(), 'kill "192.0.2.7:1194"');
  await daemon.say(KILLED);
  assertEquals(await next, 1);
  await client.close();
  const [other, asked] = await greetedAs(5);
  const late = rejection(other.killAddress(ADDRESS));
  assertEquals(await asked.hear(), "version");
  const closing = other.close();
  await asked.say(VERSION("2.6.14", 5));
  assertEquals(await asked.hear(), undefined);
  assertEquals((await late).code, "closed");
  await asked.conn.close();
  await closing;
});

test("client-pending-auth has the arguments of the daemon's version", async () => {
  for (
    const [management, line] of [
      [3, 'client-pending-auth 3 "OPEN_URL:u"'],
      [4, 'client-pending-auth 3 "OPEN_URL:u" "9"'],
      [5, 'client-pending-auth 3 "1" "OPEN_URL:u" "9"'],
      [77, 'client-pending-auth 3 "1" "OPEN_URL:u" "9"'],
    ] as const
  ) {
    const [client, daemon] = await greetedAs(management, ...CONNECT);
    const pending = client.clientPendingAuth(IDS, "OPEN_URL:u", 9);
    await daemon.answer(line, OK);
    await pending;
    await client.close();
  }
});

test("a long password is lines for those who take them, and refused by the others", async () => {
  const secret = "š\t".repeat(100);
  const need = ">PASSWORD:Need 'Auth' password";
  for (const management of [5, 6]) {
    const [client, daemon] = await greetedAs(management, need);
    const before = rejection(client.sendPassword("Auth", secret));
    assert(await before instanceof TypeError, "it was not told the version");
    const told = client.setVersion(5);
    await daemon.answer("version 5", "");
    await daemon.answer("pid", "SUCCESS: version\r\nSUCCESS: pid=1\r\n");
    await told;
    assert(await rejection(client.sendPassword("Auth", "a\0b")) instanceof TypeError);
    const sent = client.sendPassword("Auth", secret);
    if (management === 5) {
      assert(await rejection(sent) instanceof TypeError);
    } else {
      assertEquals(await daemon.hear(), 'password "Auth"');
      let base64 = "";
      for (let line = await daemon.hear(); line !== "END"; line = await daemon.hear()) {
        assert(line !== undefined && line.length <= 64);
        base64 += line;
      }
      const bytes = Uint8Array.from(atob(base64), (it) => it.charCodeAt(0));
      assertEquals(new TextDecoder().decode(bytes), secret);
      await daemon.say("SUCCESS: 'Auth' password entered, but not yet verified\r\n");
      await sent;
      const again = await rejection(client.sendPassword("Auth", secret));
      assertEquals(again.code, "guarded", "it does not wait any more");
    }
    assert(!await daemon.pending());
    await client.close();
  }
  assert(!takesPasswordLines(undefined, undefined) && takesPasswordLines(7, 6));
});

test("setLogEvents() and followLog() ask for the verb right before", async () => {
  const [client, daemon] = await greetedPair();
  const on = client.setLogEvents(true);
  const pid = client.pid();
  await daemon.answer("verb", "SUCCESS: verb=8\r\n");
  await daemon.answer("log on", OK);
  await on;
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await pid;
  const log = client.followLog("all");
  await daemon.answer("verb", "SUCCESS: verb=3\r\n");
  await daemon.answer("log on all", "SUCCESS: on\r\n1,I,x\r\nEND\r\n");
  assertEquals((await log).map(({ message }) => message), ["x"]);
  await client.close();
});

test("an event with an environment comes whole, and cut by the end with its fault", async () => {
  const [client, daemon] = await greetedPair();
  const events = Array.fromAsync(client.events);
  await daemon.say(
    ">CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,common_name=eva\r\n>LOG:1,I,x\r\n>CLIENT:ENV,END\r\n",
  );
  await daemon.say(">CLIENT:CONNECT,1,1\r\n>CLIENT:ENV,common_name=jan\r\n");
  await daemon.conn.close();
  await client.closed;
  const seen = (await events).map((it) =>
    it.type === "CLIENT" && it.kind === "CONNECT"
      ? [it.env.get("common_name"), it.envFaults]
      : it.type
  );
  assertEquals(seen, ["INFO", "LOG", ["eva", []], ["jan", ["incomplete"]]]);
});

test("maxEnvBytes bounds the environment of an event", async () => {
  const [client, daemon] = await greetedPair({ maxEnvBytes: 200 });
  const events = Array.fromAsync(client.events);
  const lines = [">CLIENT:CONNECT,0,1", `>CLIENT:ENV,a=${"x".repeat(300)}`, ">CLIENT:ENV,END"];
  await daemon.say(lines.map((line) => `${line}\r\n`).join(""));
  await daemon.conn.close();
  const event = (await events)[1];
  assert(event?.type === "CLIENT" && event.kind === "CONNECT");
  assertEquals([event.env.size, event.envFaults], [0, ["too-large"]]);
});

for (const version of ["2.6.14", "2.7.6"] as const) {
  test(`a simulated ${version} takes the forms that are its own`, async () => {
    const [ours, theirs] = connPair();
    const daemon = simulateDaemon({ mode: "server", version, clientAuth: false });
    daemon.serve(theirs);
    const server = new ManagementClient(ours, { closeTimeoutMs: 50 });
    daemon.clientConnects({ commonName: "eva", address: "192.0.2.1", port: 1194 });
    const { clients: [row] } = await server.status();
    const { address, port, protocol } = row!.realAddress;
    assertEquals(await server.killAddress({ address, port, protocol }), 1);
    await server.close();
    await daemon.close();

    const [mine, its] = connPair();
    const asking = simulateDaemon({ version });
    asking.serve(its);
    const client = new ManagementClient(mine, { closeTimeoutMs: 50 });
    await client.setVersion(5);
    const secret = "long".repeat(100);
    const answered = asking.askPassword("Auth", { wants: "password" });
    for await (const { type } of client.events) if (type === "PASSWORD") break;
    if (version === "2.7.6") {
      await client.sendPassword("Auth", secret);
      assertEquals((await answered).password, secret);
    } else {
      assert(await rejection(client.sendPassword("Auth", secret)) instanceof RangeError);
      await client.sendPassword("Auth", "short");
      assertEquals((await answered).password, "short");
    }
    await client.close();
    await asking.close();
  });
}
