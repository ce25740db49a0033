/** The methods against a real OpenVPN. Where there is none all of it is skipped, but not where REQUIRE_OPENVPN is 1, as in CI. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { test } from "node:test";
import {
  type ClientAuthEvent,
  CommandError,
  dial,
  GuardError,
  type ManagementClient,
  type ManagementEvent,
  MAX_CONFIG_LINE_BYTES,
} from "@trunkline/sockets/ovpn";
import {
  clientArgs,
  type NetworkNamespace,
  type OpenVpn,
  serverArgs,
  startOpenVpn,
} from "../examples/openvpn_process.ts";
import { order, send } from "../ovpn/client_core.ts";
import { rejection } from "./ovpn_fake.ts";
import { livePlace, next, session, state } from "./ovpn_live_server.ts";

const { openvpn: OPENVPN, directory, namespace } = await livePlace();

let names = 0;

/** Runs `body` with an OpenVPN and its manager. */
async function withOpenVpn<T>(
  args: readonly string[],
  body: (client: ManagementClient, daemon: OpenVpn) => Promise<T>,
  place?: NetworkNamespace,
): Promise<T> {
  const path = join(directory.path, `${++names}.sock`);
  const daemon = startOpenVpn(OPENVPN, [...args, "--management", path, "unix"], place);
  try {
    await daemon.logged(/unix domain socket listening/);
    const client = await dial(path);
    try {
      return await body(client, daemon);
    } finally {
      await client.close();
    }
  } finally {
    await daemon.stop();
  }
}

const HELD = [...clientArgs(), "--management-hold"];
const UNANNOUNCED = { allow: ["unannounced-client"] } as const;
const PEM = "-----BEGIN CERTIFICATE-----\nQUFB\n-----END CERTIFICATE-----";
const IDS = { clientId: 0, keyId: 1 };

/** [command, whether OpenVPN says no while it is held]. */
const WHILE_HELD: readonly (readonly [(client: ManagementClient) => Promise<unknown>, RegExp?])[] =
  [
    [async (it) => assertEquals(await it.hold(), true)],
    [(it) => it.setHold(true)],
    [(it) => it.setStateEvents(true)],
    [async (it) => assertEquals((await it.state())?.name, "CONNECTING")],
    [async (it) => assertEquals((await it.stateHistory("all")).length, 1)],
    [async (it) => assertEquals((await it.followStates(5)).length, 1)],
    [async (it) => assert((await it.logHistory("all")).length > 3)],
    [async (it) => assertEquals((await it.logHistory(1)).length, 1)],
    [async (it) => assertEquals((await it.followLog(2)).length, 2)],
    [(it) => it.setLogEvents(false)],
    [(it) => it.setEchoEvents(true)],
    [async (it) => assertEquals(await it.echoHistory("all"), [])],
    [async (it) => assertEquals(await it.followEchoes(4), [])],
    [(it) => it.setByteCountEvents(5)],
    [(it) => it.sendSignal("SIGHUP"), /ignored/],
    [(it) => it.status(), /not supported/],
    [(it) => it.latestStatus(), /not supported/],
    [async (it) => assert((await it.version()).openvpn.version?.startsWith("2."))],
    [(it) => it.setVersion(4)],
    [async (it) => assertEquals((await it.loadStats()).clients, 0)],
    [(it) => it.setVerb(4)],
    [async (it) => assertEquals(await it.verb(), 4)],
    [(it) => it.setVerb(16), /range/],
    [(it) => it.setMute(7)],
    [async (it) => assertEquals(await it.mute(), 7)],
    [(it) => it.setAuthRetry("nointeract")],
    [async (it) => assertEquals(await it.authRetry(), "nointeract")],
    [(it) => it.setEnvFilter(2)],
    [(it) => it.forgetPasswords()],
    [(it) => it.net(), /not supported/],
    [async (it) => assert((await it.help()).length > 30)],
    [(it) => it.sendUsername("Auth", "x"), /no username/],
    [(it) => it.sendPassword("Auth", "x"), /no password/],
    [(it) => it.needOk("x", "ok"), /no needok/],
    [(it) => it.needStr("x", "y"), /no needstr/],
    [(it) => it.proxy({ type: "NONE" }), /not supported/],
    [(it) => it.remote({ action: "SKIP", count: 2 }), /not supported/],
    [(it) => it.remoteEntryCount(), /not supported/],
    [(it) => it.remoteEntries([0, 2]), /not supported/],
    // Their lines are run as commands, and all that is said to them belongs to this one reply.
    [(it) => it.certificate(PEM, { allow: ["not-asked"] }), /not currently available/],
    [(it) => it.pkSign(new Uint8Array(256), { allow: ["not-asked"] }), /not currently available/],
    [(it) => it.rsaSign("QUFB", { allow: ["not-asked"] }), /not currently available/],
    [(it) => it.crResponse("x"), /not supported/],
    [(it) => it.clientAuth(IDS, ["a", "", "# b", "quit"], UNANNOUNCED), /not supported/],
    [(it) => it.clientAuthNt(IDS, UNANNOUNCED), /not supported/],
    [(it) => it.clientDeny(IDS, "a", "b", UNANNOUNCED), /not supported/],
    [(it) => it.clientPendingAuth(IDS, "CR_TEXT:R:x", 9, UNANNOUNCED), /not supported/],
    [(it) => it.clientKill(0, "HALT"), /not supported/],
    [(it) => it.kill("x"), /not supported/],
    [(it) => it.killAddress({ address: "192.0.2.1", port: 9, protocol: "udp" }), /not supported/],
    [(it) => it.clientCount(), /not supported/],
    [(it) => it.pushUpdateBroad("-dns"), /unknown command|not supported|failed/],
    [(it) => it.pushUpdateCid(0, "-dns"), /unknown command|not supported|failed/],
  ];

test(
  "OpenVPN: every method while it is held",
  { skip: OPENVPN === "", timeout: 30_000 },
  async () => {
    await withOpenVpn(HELD, async (client, daemon) => {
      for (const [call, refusal] of WHILE_HELD) {
        if (refusal === undefined) await call(client);
        else {
          const error = await rejection<CommandError>(call(client));
          assert(error instanceof CommandError && refusal.test(error.reply), `${call}: ${error}`);
        }
        assertEquals(await client.pid(), daemon.pid, String(call));
      }
      assertEquals(client.strayReplies, 0);
      await client.setVerb(9);
      assertEquals(
        (await rejection<GuardError>(client.setLogEvents(true))).guard,
        "log-at-high-verb",
      );
      for (const harm of [client.pkcs11Ids(), client.sendSignal("SIGUSR2")]) {
        assert(await rejection(harm) instanceof GuardError);
      }
      assertEquals(await client.pid(), daemon.pid);
    });
  },
);

test("OpenVPN: long lines of a body stay whole", {
  skip: OPENVPN === "",
  timeout: 30_000,
}, async () => {
  await withOpenVpn(HELD, async (client, daemon) => {
    for (const lengths of [[100, 1000, 413], [1000, 1000, 1000], [1023, 1023, 5], [768, 769, 9]]) {
      const lines = lengths.map((length) => "#".repeat(length));
      // Longer ones than clientAuth() takes.
      const refused = send(client, order(["client-auth", "0", "1"], [], { lines }), UNANNOUNCED);
      // It takes the body, and only then says that it is no server.
      assert(await rejection(refused) instanceof CommandError);
      assertEquals(await client.pid(), daemon.pid, lengths.join());
      assertEquals(client.strayReplies, 0, lengths.join());
    }
  });
});

const HARM: readonly (readonly [
  name: string,
  args: readonly string[],
  call: (client: ManagementClient) => Promise<unknown>,
])[] = [
  ["SIGUSR2 while held", HELD, (it) => it.sendSignal("SIGUSR2", { allow: ["signal-while-held"] })],
  ...["SIGUSR1", "SIGHUP", "SIGUSR2"].map((name) =>
    [
      `${name} while it asks`,
      [...clientArgs(), "--auth-user-pass", "--management-query-passwords"],
      (it: ManagementClient) => it.sendSignal(name, { allow: ["signal-while-asked"] }),
    ] as const
  ),
];

for (const [name, args, call] of HARM) {
  test(`OpenVPN: ${name} is its end, as the guard says`, {
    skip: OPENVPN === "",
    timeout: 30_000,
  }, async () => {
    await withOpenVpn(args, async (client, daemon) => {
      const events = client.subscribe();
      await next(events, (it) => it.type === "HOLD" || it.type === "PASSWORD" ? it : undefined);
      await call(client);
      await daemon.exited;
    });
  });
}

const request = (event: ManagementEvent): ClientAuthEvent | undefined =>
  event.type === "CLIENT" && (event.kind === "CONNECT" || event.kind === "REAUTH")
    ? event
    : undefined;

test("OpenVPN: a server's clients, and a request from before its restart", {
  skip: namespace === undefined,
  timeout: 60_000,
}, async () => {
  const args = [...serverArgs(), "--management-client-auth", "--auth-user-pass-optional"];
  await withOpenVpn(args, async (server) => {
    const events = server.subscribe();
    await server.setStateEvents(true);
    // It would try for a minute to go on with the server that has restarted.
    const first = await withOpenVpn(HELD, async (client) => {
      await client.holdRelease();
      return await next(events, request);
    }, namespace);
    assertEquals(first.envFaults, []);
    await server.sendSignal("SIGUSR1");
    await next(events, state("RECONNECTING"));
    await withOpenVpn(HELD, async (client) => {
      const connected = next(client.subscribe(), state("CONNECTED"));
      await client.setStateEvents(true);
      await client.setEchoEvents(true);
      await client.holdRelease();
      const second = await next(events, request);
      assertEquals([first.clientId, first.keyId], [second.clientId, second.keyId]);
      assertEquals((await rejection(server.clientAuth(first))).code, "stale");
      const ids = { clientId: second.clientId, keyId: second.keyId };
      assertEquals((await rejection<GuardError>(server.clientAuthNt(ids))).guard, "reused-client");
      const long = "x".repeat(MAX_CONFIG_LINE_BYTES - 'push "echo "'.length);
      await server.clientAuth(second, ['push "echo hello"', `push "echo ${long}"`, "# nothing"]);
      await connected;
      const echoes = await client.echoHistory("all");
      assertEquals(echoes.map(({ message }) => message), ["hello", long]);
      assertEquals([await server.clientCount(), await client.remoteEntryCount()], [1, 1]);
      const { format, clients: [row] } = await server.status();
      assertEquals([format, row?.clientId], [3, second.clientId]);
      assertEquals((await client.status()).format, "p2p");
      assert(await rejection(server.kill("nobody")) instanceof CommandError);
      const { address, port, protocol = "udp" } = row!.realAddress;
      assertEquals(await server.killAddress({ address, port, protocol }), 1);
      await next(events, session("DISCONNECT"));
      assertEquals((await rejection(server.clientKill(second))).code, "stale");
      assertEquals(await server.clientCount(), 0);
    }, namespace);
  }, namespace);
});
