import { resolveHost } from "@trunkline/sockets/auto";
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { rejectsWith } from "./adapter_suite.ts";

test("resolveHost: literals are given back, names looked up", async () => {
  for (const literal of ["127.0.0.1", "::1", "fe80::1%eth0", "::FFFF:127.0.0.1"]) {
    assertEquals(await resolveHost(literal), literal);
    assertEquals(await resolveHost(literal, { family: 4 }), literal);
  }
  assertEquals(await resolveHost("localhost", { family: 4 }), "127.0.0.1");
  assertEquals(["127.0.0.1", "::1"].includes(await resolveHost("localhost")), true);
});

test("resolveHost: what cannot be resolved is a typed error, and a signal ends the wait", async () => {
  await rejectsWith(resolveHost("none.invalid"), "not-found");
  for (const bad of ["", "a b", "127.1", "::1::", "host:1", undefined, 7]) {
    await rejectsWith(resolveHost(bad as string), "invalid-address");
  }
  const gone = AbortSignal.abort();
  await rejectsWith(resolveHost("localhost", { signal: gone }), "aborted");
  await rejectsWith(resolveHost("::1", { signal: gone }), "aborted");
  const controller = new AbortController();
  const resolving = resolveHost("none.invalid", { signal: controller.signal });
  controller.abort();
  await rejectsWith(resolving, "aborted");
});
