/** Calls over datagrams, with the sessions recorded from the Go package, and between runtimes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { concat } from "@std/bytes";
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, unlinkSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { connectUnixgram, listenUnixgram } from "../adapters/unixgram.ts";
import { Client, ClientMsgDecoder, dialServer, Server } from "@trunkline/sockets/uds";
import {
  bytes,
  fromHex,
  inDirectory,
  pattern,
  rawClient,
  type RawPeer,
  rawServer,
  SUPPORTED,
  text,
} from "./unixgram_fixtures.ts";

type Body = Parameters<typeof inDirectory>[0];
const check = (title: string, body: Body, skip = !SUPPORTED) =>
  test(`unixgram calls: ${title}`, { skip, timeout: 60_000 }, () => inDirectory(body));

interface Recorded {
  readonly dir: "client->setup" | "client->server" | "server->client";
  readonly hex?: string;
  readonly note?: string;
}
function recording<T>(name: string): T {
  const url = new URL(`./fixtures/uds/session-go-${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8"));
}

/** Adds the handlers of the recorded server. */
function registerAll(server: Server): void {
  server.register("Echo", (request) => request.data);
  server.register("größe", (request) => request.data);
  server.register("Fail", () => {
    throw new Error("no");
  });
  server.register("Length", ({ data }) => String(data.length));
}

/** One for clients of ours, whose answers may be large. */
async function serve(path: string): Promise<Server> {
  const server = new Server(undefined);
  registerAll(server);
  server.serve(await listenUnixgram(path));
  return server;
}

/** One for clients of the Go package. */
async function serveGo(path: string): Promise<Server> {
  const server = new Server(path, { transport: "unixgram" });
  registerAll(server);
  await server.start();
  return server;
}

async function callAll(client: Client): Promise<void> {
  assertEquals(text(await client.call("Echo", bytes("hello"))), "hello");
  assertEquals(await client.call("Echo"), new Uint8Array());
  const calls = Array.from({ length: 1000 }, (_, i) => client.call("Echo", bytes(`call ${i}`)));
  assertEquals((await Promise.all(calls)).map(text), calls.map((_, i) => `call ${i}`));
  assertEquals(text(await client.call("Length", pattern(3_000_000))), "3000000");
  const large = pattern(300_000);
  assertEquals(await client.call("Echo", large, { timeoutMs: 20_000 }), large);
}

check("1000 at once, and large ones", async (path, list) => {
  const server = await serve(path("setup"));
  const clients = [1, 2, 3].map(async () => new Client(await connectUnixgram(path("setup"))));
  for (const client of await Promise.all(clients)) {
    await callAll(client);
    await client.close();
  }
  await server.close();
  assertEquals(list(), []);
});

/** Waits until the server has dropped a client: the socket for it is gone, and its file. */
async function gone(client: RawPeer): Promise<void> {
  while (await client.send(new Uint8Array(1)).then(() => true, () => false));
}

check("a client that breaks the protocol loses its connection alone", async (path, list) => {
  const server = await serve(path("setup"));
  const client = new Client(await connectUnixgram(path("setup")));
  await client.call("Echo");
  const bad = await rawClient(path("setup"));
  await bad.send(new Uint8Array(64).fill(0xff));
  assertEquals(text(await client.call("Echo", bytes("still"))), "still");
  await gone(bad);
  bad.close();
  await client.close();
  await server.close();
  assertEquals(list(), []);
});

check("what the Go client sent is answered datagram for datagram", async (path) => {
  const server = await serveGo(path("setup"));
  const { sessions } = recording<{ sessions: { datagrams: Recorded[] }[] }>("client");
  let answers = 0;
  // The last session is that of a client that repeats a header for ever.
  for (const { datagrams } of sessions.slice(0, -1)) {
    const client = await rawClient(path("setup"));
    for (const { dir, hex } of datagrams.slice(2)) {
      if (dir === "client->server") await client.send(fromHex(hex!));
      else {
        assertEquals(await client.receive(), fromHex(hex!));
        answers++;
      }
    }
    client.close();
  }
  assertEquals(answers, 5);
  await server.close({ graceMs: 0 });
});

check("what was sent to the Go server is answered as it did", async (path) => {
  const server = await serveGo(path("setup"));
  const { datagrams } = recording<{ datagrams: Recorded[] }>("server");
  const client = await rawClient(path("setup"));
  let request = "";
  for (const { dir, hex, note = "" } of datagrams.slice(2)) {
    // From here on the Go server is out of step; ours ends the connection.
    if (note.startsWith("type 2")) {
      await client.send(fromHex(hex!));
      await gone(client);
      break;
    }
    if (dir === "client->server") {
      request = note;
      await client.send(fromHex(hex!));
      continue;
    }
    if (hex !== undefined) assertEquals(await client.receive(), fromHex(hex));
    // The recording has the first of two answers.
    if (request.startsWith("two requests")) {
      assertEquals(await client.receive(), fromHex("050301026869"));
    }
    // The Go server says nothing; ours says why.
    if (request.startsWith("unknown handler")) {
      assertMatch(text(await client.receive()), /no handler "XY"$/);
    }
  }
  client.close();
  await server.close({ graceMs: 0 });
});

check("a request that is far too large ends its client", async (path, list) => {
  const server = new Server(path("setup"), { transport: "unixgram", maxMessage: 1000 });
  registerAll(server);
  await server.start();
  const client = await dialServer(path("setup"), { transport: "unixgram" });
  const errorOf = (length: number) =>
    client.call("Length", pattern(length)).then(() => undefined, (error) => error);
  assertEquals(await errorOf(1000), undefined);
  assertMatch((await errorOf(1001)).message, /^a request of 1001 bytes, and at most 1000 come$/);
  assertEquals(await errorOf(1000), undefined);
  assertEquals((await errorOf(1_000_000)).code, "connection");
  await client.close();
  await server.close();
  assertEquals(list(), []);
});

/** Gives the answers to the calls that come to a raw server, and the datagrams in which they came. */
async function answerCalls(server: RawPeer, answers: readonly Uint8Array[]): Promise<Uint8Array[]> {
  const decoder = new ClientMsgDecoder();
  const came: Uint8Array[] = [];
  for (let count = 0; count < answers.length;) {
    const datagram = await server.receive();
    came.push(datagram);
    for (const _ of decoder.push(datagram)) await server.send(answers[count++]!);
  }
  return came;
}

check("our client says to a Go server what the Go client said", async (path) => {
  const { sessions } = recording<{
    sessions: { clientArgs: string[]; clientOutput: string[]; datagrams: Recorded[] }[];
  }>("client");
  for (const { clientArgs, clientOutput, datagrams } of sessions.slice(0, -1)) {
    const of = (direction: Recorded["dir"]) =>
      datagrams.slice(2).filter(({ dir }) => dir === direction).map(({ hex }) => fromHex(hex!));
    const answers = of("server->client");
    const accepted = rawServer(path("setup"));
    const client = new Client(await connectUnixgram(path("setup")));
    const server = await accepted;
    const served = answerCalls(server, answers);
    const [, handler = "", , data = ""] = clientArgs;
    for (const line of clientOutput.slice(1)) {
      const answer = text(await client.call(handler, bytes(data)));
      assertEquals(answer, line.replace(/^\d+ id \d+ type 1 ?/, ""));
    }
    const came = await served;
    assertEquals(concat(came), concat(of("client->server")));
    // Ours sends a request in one datagram, the Go client its header alone.
    assertEquals(came.length, answers.length);
    await client.close();
    server.close();
    unlinkSync(path("setup"));
  }
});

check("a server that died fails the calls that wait", async (path) => {
  const accepted = rawServer(path("setup"));
  const client = new Client(await connectUnixgram(path("setup")), { keepAliveMs: 20 });
  const server = await accepted;
  const waiting = client.call("Echo").catch((error) => error);
  await server.receive();
  // As a process that was killed leaves it: no socket, but a file.
  server.own.socket.close();
  assertEquals((await waiting).code, "connection");
});

const CHILD = fileURLToPath(new URL("./unixgram_child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));

function present(runtime: string): boolean {
  try {
    execFileSync(runtime, ["--version"]);
    return true;
  } catch {
    return false;
  }
}

for (const [runtime, ...args] of [["deno", "run", "-A", "--unstable-net"], ["bun"]] as const) {
  check(`to a server on ${runtime}`, async (path, list) => {
    const child = spawn(runtime, [...args, CHILD, path("setup")], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    try {
      const line = await new Promise((resolve) =>
        child.stdout!.setEncoding("utf8").once("data", resolve)
      );
      assertEquals(line, "ready\n");
      const client = new Client(await connectUnixgram(path("setup")));
      await callAll(client);
      await client.close();
      child.stdin!.end();
      assertEquals(await exited, 0);
      assertEquals(list(), []);
    } finally {
      child.kill("SIGKILL");
    }
  }, !SUPPORTED || !present(runtime));
}

for (const [runtime, ...args] of [["deno", "run", "-A"], ["node"]] as const) {
  check(`unsupported by ${runtime} as it is`, (path) => {
    const said = execFileSync(runtime, [...args, CHILD, path("setup")], {
      cwd: ROOT,
      encoding: "utf8",
    });
    assert(said.startsWith("unsupported: listening on "), said);
    assertMatch(said, /--unstable-net/);
    return Promise.resolve();
  }, !present(runtime));
}

check("by the options of Server and dialServer", async (path) => {
  const server = new Server(path("setup"), { transport: "unixgram" });
  server.register("Echo", (request) => request.data);
  server.register("Fail", () => {
    throw new Error("x".repeat(10_000));
  });
  server.registerStream("All", ({ readable, writable }) => readable.pipeTo(writable));
  await server.start();
  const client = await dialServer(path("setup"), { transport: "unixgram", maxPending: 2000 });
  assertEquals(text(await client.call("Echo", bytes("hello"), { timeoutMs: 5000 })), "hello");
  const calls = Array.from({ length: 1000 }, (_, i) => client.call("Echo", bytes(`call ${i}`)));
  assertEquals((await Promise.all(calls)).map(text), calls.map((_, i) => `call ${i}`));
  // The whole of the answer is a datagram of Go's.
  const most = 4096 - 7;
  assertEquals((await client.call("Echo", pattern(most))).length, most);
  const code = async (promise: Promise<unknown>) => {
    const error = await promise.then(() => undefined, (error) => error);
    return [error?.code, error?.message.slice(0, 30)];
  };
  assertEquals(await code(client.call("Echo", pattern(most + 1))), [
    "remote",
    "an answer of 4090 bytes, and a",
  ]);
  assertEquals((await code(client.call("Fail")))[1], "handler(Fail) error: xxxxxxxxx");
  assertEquals((await code(client.call("uds.hello")))[1], 'no handler "uds.hello"');
  assertEquals((await code(client.stream("All")))[0], "unsupported");
  await client.close();
  await server.close();
  for (const options of [{ token: "a" }, { peerCred: "require" }] as const) {
    const transport = "unixgram" as const;
    const refused = new Server(path("setup"), { ...options, transport });
    assertEquals((await code(refused.start()))[0], "unsupported");
    const dialing = dialServer(path("setup"), { ...options, transport });
    assertEquals((await code(dialing))[0], "unsupported");
  }
});
