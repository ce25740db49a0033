/** A process of either side is killed in the middle of calls. */
import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { dialServer, Server, type UdsError } from "@trunkline/sockets/uds";
import { newPaths, startChild } from "./uds_process.ts";
import { register, rejection, text, until } from "./uds_service.ts";

const newPath = newPaths();
const check = (name: string, body: () => Promise<void>) => test(name, { timeout: 30_000 }, body);
/** What has ended in order, and what has not: which of both, the kernel decides. */
const ENDS = ["disconnected", "connection"];

check("a server that is killed ends all calls and streams by a typed error", async () => {
  const path = newPath();
  const child = await startChild("serve", path);
  const client = await dialServer(path);
  const data = new Uint8Array(1_000_000);
  const { readable, writable } = await client.stream("Both");
  const reader = readable.getReader();
  const writer = writable.getWriter();
  await Promise.all([writer.write(data), reader.read()]);
  const ignored = (await client.stream("Ignore")).writable.getWriter();
  const open: Promise<unknown>[] = [
    client.call("Never"),
    client.call("Never", undefined, { timeoutMs: 20_000 }),
    client.call("Never", undefined, { signal: new AbortController().signal }),
    client.callRaw("Never"),
    reader.read(),
    // The second one that nobody reads waits for the server.
    ignored.write(data).then(() => ignored.write(data)),
  ];
  const ends = open.map((it) => rejection<UdsError>(it));
  assertEquals(text(await client.call("Length", data)), "1000000");
  child.process.kill("SIGKILL");
  for (const { code } of await Promise.all(ends)) assert(ENDS.includes(code), code);
  await client.closed.catch(({ code }: UdsError) => assert(ENDS.includes(code), code));
  assert(ENDS.includes((await rejection(client.call("Echo"))).code));
  assert(ENDS.includes((await rejection(client.stream("Both"))).code));
  await client.close();
  await rejection(writer.write(data));
  await child.exited;

  // It could not remove its file, which nobody serves.
  assert(existsSync(path));
  assertEquals((await rejection<UdsError>(dialServer(path))).code, "refused");
  const next = new Server(path);
  register(next);
  await next.start();
  const again = await dialServer(path);
  assertEquals(text(await again.call("Näme ✓")), "✓");
  await again.close();
  await next.close();
  assert(!existsSync(path));
});

check("a server that is killed under load ends every call, each once", async () => {
  const path = newPath();
  const child = await startChild("serve", path);
  const clients = await Promise.all([1, 2, 3].map(() => dialServer(path)));
  let answered = 0;
  const calls = clients.flatMap((client) =>
    Array.from(
      { length: 60 },
      (_, i) =>
        client.call("Echo", new Uint8Array(i % 3 === 0 ? 300_000 : i)).then(() => {
          // In the middle of them.
          if (++answered === 20) child.process.kill("SIGKILL");
        }),
    )
  );
  for (const result of await Promise.allSettled(calls)) {
    if (result.status === "rejected") assert(ENDS.includes(result.reason.code), result.reason);
  }
  assert(answered >= 20);
  await Promise.all(clients.map((client) => client.close()));
});

check("a client that connects again goes on with the next server", async () => {
  const path = newPath();
  const first = await startChild("serve", path);
  const client = await dialServer(path, { reconnect: true });
  assertEquals(text(await client.call("Näme ✓")), "✓");
  const lost = rejection<UdsError>(client.call("Never"));
  first.process.kill("SIGKILL");
  // Nobody knows what has become of it, so it is not made again.
  assert(ENDS.includes((await lost).code));
  await first.exited;
  const nobody = await rejection<UdsError>(client.call("Näme ✓"));
  assertEquals([nobody.code, (nobody.cause as UdsError).code], ["connection", "refused"]);
  const second = await startChild("serve", path);
  assertEquals(text(await client.call("Näme ✓")), "✓");
  assertEquals(text(await client.call("Length", new Uint8Array(300_000))), "300000");
  await client.close();
  second.process.kill("SIGKILL");
  assertEquals((await rejection<UdsError>(client.call("Näme ✓"))).code, "closed");
});

check("a client that is killed ends its handlers, and the server serves others", async () => {
  const path = newPath();
  const server = new Server(path);
  const state = register(server);
  await server.start();
  const client = await dialServer(path);
  const children = await Promise.all([startChild("call", path), startChild("call", path)]);
  assertEquals(state, { begun: 6, ended: 0 });
  const [first, second] = children;
  first!.process.kill("SIGKILL");
  await until(() => state.ended === 3);
  assertEquals(text(await client.call("Näme ✓")), "✓");
  assertEquals(state, { begun: 6, ended: 3 });
  second!.process.kill("SIGKILL");
  await until(() => state.ended === 6);
  // With nobody left to wait for, this is at once.
  await client.close();
  await server.close({ graceMs: 20_000 });
});
