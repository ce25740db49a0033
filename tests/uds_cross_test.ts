/** Calls between two runtimes: this one is the client, each that is on PATH the server. */
import { assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { dialServer } from "@trunkline/sockets/uds";
import { type Child, newPaths, runtimes, startChild } from "./uds_process.ts";
import { udsSuite } from "./uds_suite.ts";

const newPath = newPaths();

for (const runtime of runtimes()) {
  const path = newPath();
  let server: Promise<Child> | undefined;

  udsSuite(runtime, async () => {
    await (server ??= startChild("serve", path, { runtime }));
    return await dialServer(path);
  });

  // A timer or a socket that was left would keep it.
  test(`uds to ${runtime}: the server has ended by itself, and its file is gone`, {
    timeout: 30_000,
  }, async () => {
    assertEquals(await (await server)?.exited, 0);
    assertEquals(existsSync(path), false);
  });
}
