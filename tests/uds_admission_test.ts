/** Who may call: tokens and the user at the other end. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { inspect } from "node:util";
import { type Conn, connPair, type PeerCredentials } from "@trunkline/sockets/auto";
import {
  Client,
  type ClientOptions,
  type ConnectError,
  dialServer,
  RemoteError,
  Server,
  type ServerOptions,
} from "@trunkline/sockets/uds";
import { canReadPeerCredentials } from "../adapters/peer_credentials.ts";
import { rejection } from "./uds_service.ts";

const OURS = process.getuid?.() ?? 0;
const FOREIGN: PeerCredentials = { pid: 2, uid: OURS + 1, gid: OURS + 1 };

/** A connection that comes from the process `peer`. */
function from(conn: Conn, peer: PeerCredentials | undefined): Conn {
  return new Proxy(conn, {
    get(target, key) {
      if (key === "peerCredentials") return () => peer;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function start(server: ServerOptions, client: ClientOptions, peer?: PeerCredentials) {
  const [ours, theirs] = connPair();
  const it = new Server(undefined, server);
  const handled: unknown[] = [];
  it.register("Echo", (request, context) => {
    handled.push(context.peer);
    return request.data;
  });
  it.serveConn(from(theirs, peer));
  const close = async () => {
    await caller.close();
    await it.close();
  };
  const caller = new Client(from(ours, peer), client);
  return { client: caller, server: it, handled, close };
}

test("a server lets in its own user and root, and whom authorize says", async () => {
  const own = { pid: 1, uid: OURS, gid: OURS };
  for (
    const [peer, options, expected] of [
      [own, { peerCred: "try" }, "ok"],
      [{ ...own, uid: 0 }, { peerCred: "try" }, "ok"],
      [undefined, { peerCred: "try" }, "ok"],
      [FOREIGN, {}, "ok"],
      [FOREIGN, { peerCred: "try" }, "unauthorized"],
      [FOREIGN, { peerCred: "off" }, "ok"],
      [FOREIGN, { peerCred: "require" }, "unauthorized"],
      [undefined, { peerCred: "require" }, "unauthorized"],
      [own, { peerCred: "require" }, "ok"],
      [FOREIGN, { peerCred: "try", authorize: (peer) => peer?.uid === FOREIGN.uid }, "ok"],
      [FOREIGN, { peerCred: "try", authorize: () => Promise.resolve(true) }, "ok"],
      [own, { peerCred: "try", authorize: () => false }, "unauthorized"],
      [undefined, { peerCred: "try", authorize: (peer) => peer !== undefined }, "unauthorized"],
      [own, {
        authorize() {
          throw new Error("no list");
        },
      }, "unauthorized"],
    ] satisfies [PeerCredentials | undefined, ServerOptions, string][]
  ) {
    for (const call of [{}, { timeoutMs: 5000 }]) {
      const { client, handled, close } = start(options, {}, peer);
      const result = await client.call("Echo", new Uint8Array(1), call).catch((error) => error);
      const code = result instanceof RemoteError
        ? result.remoteCode
        : result instanceof Uint8Array
        ? "ok"
        : result.code;
      assertEquals([code, handled.length], [expected, expected === "ok" ? 1 : 0]);
      if (expected === "ok") {
        assertEquals(handled[0], (options.peerCred ?? "off") === "off" ? undefined : peer);
      }
      await close();
    }
  }
});

test("a client talks to whom authorize says", async () => {
  for (
    const [options, expected] of [
      [{}, "ok"],
      [{ peerCred: "try" }, "unauthorized"],
      [{ authorize: () => true }, "ok"],
      [{ peerCred: "require" }, "unauthorized"],
      [{ peerCred: "try", authorize: (peer) => peer?.pid === 2 }, "ok"],
    ] satisfies [ClientOptions, string][]
  ) {
    const { client, handled, close } = start({ peerCred: "off" }, options, FOREIGN);
    const result = await client.call("Echo").then(() => "ok", (error) => error.code);
    assertEquals([result, handled.length], [expected, expected === "ok" ? 1 : 0]);
    if (expected !== "ok") assertEquals((await rejection(client.closed)).code, "unauthorized");
    await close();
  }
});

test("a token, in the options or in a file, is needed by each client", async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const file = join(directory, "token");
  writeFileSync(file, "secret\nsomething else\n", { mode: 0o600 });
  for (
    const [server, client, expected] of [
      [{ token: "secret" }, { token: "secret" }, "ok"],
      [{ tokenFile: file }, { token: "secret" }, "ok"],
      [{ token: "secret" }, { tokenFile: file }, "ok"],
      [{ token: "secret" }, { token: "secreT" }, "unauthorized"],
      [{ token: "secret" }, { token: "secret2" }, "unauthorized"],
      [{ token: "secret" }, {}, "unauthorized"],
      [{ token: "secret" }, { tokenFile: `${file}2` }, "unauthorized"],
      [{ tokenFile: `${file}2` }, { token: "secret" }, "unauthorized"],
      [{}, { token: "secret" }, "ok"],
    ] satisfies [ServerOptions, ClientOptions, string][]
  ) {
    for (const call of [{}, { timeoutMs: 5000 }]) {
      const { client: caller, handled, close } = start(server, client);
      const result = await caller.call("Echo", undefined, call).catch((error) => error);
      const code = result instanceof RemoteError ? result.remoteCode : result.code ?? "ok";
      assertEquals([code, handled.length], [expected, expected === "ok" ? 1 : 0]);
      assert(!/secre/.test(inspect([result, caller], { depth: 9 })));
      await close();
    }
  }
  chmodSync(file, 0o644);
  const server = new Server(join(directory, "socket"), { tokenFile: file });
  assertEquals((await rejection<ConnectError>(server.start())).code, "permission");
  chmodSync(file, 0o600);
  writeFileSync(file, "\n");
  assertEquals((await rejection<ConnectError>(server.start())).code, "other");
  await server.close();
  rmSync(directory, { recursive: true });
});

test("the options of admission are checked", () => {
  assertThrows(() => new Server("a", { token: "" }), TypeError);
  assertThrows(() => new Server("a", { token: "a", tokenFile: "b" }), TypeError);
  assertThrows(() => new Server("a", { peerCred: "off", authorize: () => true }), TypeError);
  assertThrows(() => new Server("a", { peerCred: "yes" as "try" }), TypeError);
  assertThrows(() => new Server("a", { admissionTimeoutMs: 0 }), RangeError);
});

test("who does not prove that it may call loses its connection", async () => {
  const [ours, theirs] = connPair();
  const server = new Server(undefined, { token: "secret", admissionTimeoutMs: 50 });
  server.serveConn(theirs);
  const client = new Client(ours, { keepAliveMs: 10 });
  await client.closed;
  await server.close();
});

const supported = canReadPeerCredentials();

test("peerCred require over a socket tells who calls", { skip: !supported }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "uds-"));
  const path = join(directory, "socket");
  const server = new Server(path, { peerCred: "require" });
  server.register("Who", (_, { peer }) => JSON.stringify(peer));
  await server.start();
  const client = await dialServer(path, { peerCred: "require" });
  const peer = JSON.parse(new TextDecoder().decode(await client.call("Who")));
  assertEquals([peer.pid, peer.uid], [process.pid, OURS]);
  await client.close();
  await server.close();
  rmSync(directory, { recursive: true });
});

test("peerCred require is unsupported where nothing tells", { skip: supported }, async () => {
  const server = new Server("/nowhere/socket", { peerCred: "require" });
  assertEquals((await rejection(server.start())).code, "unsupported");
  const dialing = dialServer("/nowhere/socket", { peerCred: "require" });
  assertEquals((await rejection(dialing)).code, "unsupported");
});
