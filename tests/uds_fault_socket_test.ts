/** What stands at the path of a server, and what becomes of it. */
import { assert, assertEquals } from "@std/assert";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { listen } from "@trunkline/sockets/auto";
import { type ConnectError, dialServer, Server, type UdsError } from "@trunkline/sockets/uds";
import { newPaths } from "./uds_process.ts";
import { register, rejection, text } from "./uds_service.ts";

const newPath = newPaths();
const check = (name: string, body: () => Promise<void>) => test(name, { timeout: 30_000 }, body);

async function start(path: string): Promise<Server> {
  const server = new Server(path);
  register(server);
  await server.start();
  return server;
}

/** The server that answers at `path`, told by what only it has. */
async function whoAnswers(path: string): Promise<string> {
  const client = await dialServer(path);
  const name = text(await client.call("Who"));
  await client.close();
  return name;
}

for (const [how, steal] of [["unlinked", unlinkSync], ["renamed", moveAway]] as const) {
  check(`a socket file that was ${how} and is another's is left to that one`, async () => {
    const path = newPath();
    const first = await start(path);
    first.register("Who", () => "first");
    const client = await dialServer(path);
    steal(path);
    const second = await start(path);
    second.register("Who", () => "second");
    assertEquals(await whoAnswers(path), "second");
    // Who is connected stays so.
    assertEquals(text(await client.call("Who")), "first");
    assertEquals(text(await client.call("Length", new Uint8Array(300_000))), "300000");
    await client.close();
    await first.close();
    assertEquals(await whoAnswers(path), "second");
    await second.close();
    assert(!existsSync(path));
  });
}

check("a client of a stolen socket goes on until the server ends", async () => {
  const path = newPath();
  const server = await start(path);
  const client = await dialServer(path);
  unlinkSync(path);
  assertEquals((await rejection<ConnectError>(dialServer(path))).code, "not-found");
  assertEquals(text(await client.call("Näme ✓")), "✓");
  await server.close();
  await client.closed;
});

check(
  "a directory that is removed while it is served: calls go on, and close() resolves",
  async () => {
    const directory = `${newPath()}.d`;
    mkdirSync(directory);
    const path = join(directory, "s");
    const server = await start(path);
    const client = await dialServer(path);
    rmSync(directory, { recursive: true });
    assertEquals(text(await client.call("Näme ✓")), "✓");
    assertEquals((await rejection<ConnectError>(dialServer(path))).code, "not-found");
    await server.close();
    await client.closed;
  },
);

check("a directory that is another one by now is left alone", async () => {
  const directory = `${newPath()}.d`;
  mkdirSync(directory);
  const path = join(directory, "s");
  const server = await start(path);
  renameSync(directory, `${directory}.moved`);
  mkdirSync(directory);
  writeFileSync(path, "precious");
  await server.close();
  assertEquals(readFileSync(path, "utf8"), "precious");
});

check("places where no server can be", async () => {
  const path = newPath();
  const before = readdirSync(dirname(path));
  assertEquals((await rejection<ConnectError>(start(`${path}.none/s`))).code, "not-found");
  writeFileSync(path, "precious");
  assertEquals((await rejection<ConnectError>(start(path))).code, "in-use");
  assertEquals(readFileSync(path, "utf8"), "precious");
  assertEquals((await rejection<ConnectError>(start(join(path, "s")))).name, "ConnectError");
  // What Linux says of a file that is no socket.
  assertEquals((await rejection<ConnectError>(dialServer(path))).code, "refused");
  unlinkSync(path);
  mkdirSync(path);
  assertEquals((await rejection<ConnectError>(start(path))).code, "in-use");
  rmSync(path, { recursive: true });
  const long = join(dirname(path), "x".repeat(120));
  assertEquals((await rejection<ConnectError>(start(long))).code, "invalid-address");
  assertEquals((await rejection<ConnectError>(dialServer(long))).code, "invalid-address");
  const server = await start(path);
  assertEquals((await rejection<ConnectError>(start(path))).code, "in-use");
  assertEquals((await rejection<ConnectError>(server.start())).code, "in-use");
  // The one that was refused must not take the file along.
  assert(lstatSync(path).isSocket());
  await server.close();
  assertEquals(readdirSync(dirname(path)), before);
});

check("a socket that a dead server left is taken over, by one of many", async () => {
  const path = newPath();
  const dead = await listen({ path });
  linkSync(path, `${path}.left`);
  await dead.close();
  renameSync(`${path}.left`, path);
  assertEquals((await rejection<ConnectError>(dialServer(path))).code, "refused");
  const starts = await Promise.allSettled([1, 2, 3, 4].map(() => start(path)));
  const servers = starts.flatMap((it) => it.status === "fulfilled" ? [it.value] : []);
  assertEquals(servers.length, 1);
  const client = await dialServer(path);
  assertEquals(text(await client.call("Näme ✓")), "✓");
  await client.close();
  await servers[0]!.close();
  assert(!existsSync(path));
});

check("a server that is closed while it starts leaves nothing behind", async () => {
  const path = newPath();
  const server = new Server(path);
  const starting = server.start();
  await server.close();
  assertEquals((await rejection<UdsError>(starting)).code, "closed");
  assertEquals((await rejection<UdsError>(server.start())).code, "closed");
  await server.close();
  assertEquals((await rejection<ConnectError>(dialServer(path))).code, "not-found");
  assert(!existsSync(path));
});

function moveAway(path: string): void {
  renameSync(path, `${path}.moved`);
}
