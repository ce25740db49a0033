/** A process of another user calls. */
import { assert, assertEquals } from "@std/assert";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { dialServer, Server, type ServerOptions, type UdsError } from "@trunkline/sockets/uds";
import { canReadPeerCredentials } from "../adapters/peer_credentials.ts";
import { newPaths, startChild } from "./uds_process.ts";
import { register, rejection, text } from "./uds_service.ts";

/** Who has nothing, by convention. */
const NOBODY = 65_534;
const newPath = newPaths();
/** Where the runtime keeps what it compiled. */
const cache = mkdtempSync(join(tmpdir(), "uds-cache-"));
chmodSync(cache, 0o777);
after(() => rmSync(cache, { recursive: true, force: true }));
const env = { ...process.env, HOME: cache, DENO_DIR: cache, BUN_INSTALL: cache };

/** What a call of that user came to. */
async function probe(path: string): Promise<unknown> {
  const child = await startChild("probe", path, { uid: NOBODY, env });
  await child.exited;
  return JSON.parse(child.line);
}

/** That takes root, and files of this package and of the runtime that everybody may read. */
const possible = process.getuid?.() === 0 &&
  await probe("/nowhere/s").then((it) => it === "not-found", () => false);
const skip = !possible;

/** A server that the modes of its files let everybody reach. */
async function start(options: ServerOptions & { mode?: number }): Promise<[string, Server]> {
  const path = newPath();
  chmodSync(dirname(path), 0o755);
  const server = new Server(path, options);
  register(server);
  await server.start();
  return [path, server];
}

/** The server goes on, whoever was sent away. */
async function assertServes(path: string): Promise<void> {
  const client = await dialServer(path);
  assertEquals(text(await client.call("Näme ✓")), "✓");
  await client.close();
}

test(
  "another user does not get past the mode of a socket file",
  { skip, timeout: 30_000 },
  async () => {
    const [path, server] = await start({});
    assertEquals(await probe(path), "permission");
    await assertServes(path);
    await server.close();
  },
);

test("another user whom the modes let in is refused where it is known", {
  skip,
  timeout: 30_000,
}, async () => {
  const [path, server] = await start({ mode: 0o666, peerCred: "try" });
  const answer = await probe(path);
  await assertServes(path);
  await server.close();
  assertEquals(answer, canReadPeerCredentials() ? "unauthorized" : null);
});

test(
  "another user is refused, or let in, as authorize says",
  { skip, timeout: 30_000 },
  async () => {
    const strict = { mode: 0o666, peerCred: "require" } as const;
    if (!canReadPeerCredentials()) {
      assertEquals((await rejection<UdsError>(start(strict))).code, "unsupported");
      return;
    }
    const [path, server] = await start(strict);
    assertEquals(await probe(path), "unauthorized");
    await assertServes(path);
    await server.close();

    const [open, other] = await start({ ...strict, authorize: (peer) => peer?.uid === NOBODY });
    const peer = await probe(open) as { pid: number; uid: number; gid: number };
    assertEquals([peer.uid, peer.gid], [NOBODY, NOBODY]);
    assert(peer.pid !== process.pid);
    // By its own rule this server is not for us.
    const client = await dialServer(open);
    assertEquals(
      (await rejection(client.call("Näme ✓"))).message,
      `the server said: the user 0 may not talk to us`,
    );
    await client.close();
    await other.close();
  },
);
