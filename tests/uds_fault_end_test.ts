/** Ends of every kind, at every moment: each call settles, and nothing is left. */
import { assert, assertEquals } from "@std/assert";
import { readdirSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { connect } from "@trunkline/sockets/auto";
import { type Client, type ConnectError, dialServer, Server } from "@trunkline/sockets/uds";
import { newPaths } from "./uds_process.ts";
import { bytes, register, rejection, text, until } from "./uds_service.ts";
import { WireClient } from "./uds_wire.ts";
import { unhandledDuring } from "./unhandled.ts";

const newPath = newPaths();
const check = (name: string, body: () => Promise<void>, timeout = 30_000) =>
  test(name, { timeout }, body);
const LINUX = process.platform === "linux";

async function start() {
  const path = newPath();
  const server = new Server(path, { maxConcurrent: 8 });
  const state = register(server);
  await server.start();
  return { path, server, state };
}

/** Open files, and timers where the runtime tells. */
function held(): { readonly files: number; readonly timers: number } {
  const timers = process.getActiveResourcesInfo().filter((it) => it === "Timeout").length;
  return { files: LINUX ? readdirSync("/proc/self/fd").length : 0, timers };
}

/** Calls and streams of every kind, in all states. Each promise settles with the end. */
function everything(client: Client): Promise<unknown>[] {
  const large = new Uint8Array(700_000);
  const streams = ["Both", "Ignore", "Sum"].map(async (name) => {
    const { readable, writable } = await client.stream(name);
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    const writing = (async () => {
      for (;;) await writer.write(large);
    })();
    const reading = (async () => {
      while (!(await reader.read()).done);
    })();
    await Promise.allSettled([writing, reading]);
    await writing;
  });
  return [
    ...streams,
    ...["Hang", "Never", "Echo"].flatMap((name) => [
      client.call(name),
      client.call(name, large),
      client.call(name, undefined, { timeoutMs: 20_000 }),
      client.call(name, large, { signal: new AbortController().signal }),
    ]),
    client.callRaw("Make", bytes("3000000")),
    client.call("Make", bytes("3000000"), { metadata: { a: "b" } }),
  ];
}

const CODES = ["closed", "disconnected", "connection", "remote"];

/** Every one of them has settled, in one of the ways that an end has. */
async function assertSettled(all: Promise<unknown>[]): Promise<void> {
  for (const it of await Promise.allSettled(all)) {
    if (it.status === "rejected") assert(CODES.includes(it.reason.code), it.reason);
  }
}

for (const turns of [0, 1, 3, 10, 30]) {
  check(`a server that closes in the middle of everything, after ${turns} turns`, async () => {
    const { path, server } = await start();
    const clients = await Promise.all([1, 2, 3].map(() => dialServer(path)));
    const reasons = await unhandledDuring(async () => {
      const all = clients.flatMap(everything);
      const settled = assertSettled(all);
      for (let i = 0; i < turns; i++) await new Promise((resolve) => setTimeout(resolve));
      await server.close({ graceMs: turns });
      await settled;
      for (const client of clients) {
        // On a busy machine what is queued takes longer than it may, and the connection is thrown away.
        const end = await client.closed.then(() => "disconnected", ({ code }) => code);
        assert(["disconnected", "connection"].includes(end), end);
        assertEquals((await rejection(client.call("Echo"))).code, end);
        await client.close();
      }
    });
    assertEquals(reasons, []);
  });

  check(`a client that closes in the middle of everything, after ${turns} turns`, async () => {
    const { path, server, state } = await start();
    const client = await dialServer(path);
    const reasons = await unhandledDuring(async () => {
      const settled = assertSettled(everything(client));
      for (let i = 0; i < turns; i++) await new Promise((resolve) => setTimeout(resolve));
      await Promise.all([client.close(), client.close()]);
      await settled;
      await client.closed;
      for (const it of [client.call("Echo"), client.stream("Both"), client.callRaw("Echo")]) {
        assertEquals((await rejection(it)).code, "closed");
      }
      await until(() => state.ended === state.begun);
      await client.close();
    });
    assertEquals(reasons, []);
    await Promise.all([server.close(), server.close({ graceMs: 0 })]);
    await server.close();
  });
}

check("a dial that is given up, and one to nobody", async () => {
  const path = newPath();
  const codeOf = async (promise: Promise<unknown>) => (await rejection<ConnectError>(promise)).code;
  assertEquals(await codeOf(dialServer(path)), "not-found");
  const { path: there, server } = await start();
  assertEquals(await codeOf(dialServer(there, { signal: AbortSignal.abort() })), "aborted");
  for (let i = 0; i < 20; i++) {
    const stop = new AbortController();
    const dialing = dialServer(there, { signal: stop.signal });
    for (let turn = 0; turn < i; turn++) await Promise.resolve();
    stop.abort();
    // It may have been too late, which is no harm to what was dialled.
    const client = await dialing.catch(({ code }) => void assertEquals(code, "aborted"));
    if (client) assertEquals(text(await client.call("Näme ✓")), "✓");
    await client?.close();
  }
  // Nobody accepts, or the server is gone between the two.
  const dials = Array.from({ length: 20 }, () => dialServer(there));
  const closing = server.close();
  for (const dialing of await Promise.allSettled(dials)) {
    if (dialing.status === "rejected") {
      assert(["not-found", "refused", "reset"].includes(dialing.reason.code), dialing.reason);
      continue;
    }
    const { code } = await rejection(dialing.value.call("Hang"));
    assert(CODES.includes(code), code);
    await dialing.value.close();
  }
  await closing;
  assertEquals(await codeOf(dialServer(there)), "not-found");
});

/** How many come and go, in waves. */
const CLIENTS = 10_000;
const WAVE = 100;

check("10,000 clients that come and go leave nothing behind", async () => {
  const { path, server, state } = await start();
  const client = await dialServer(path);
  assertEquals(text(await client.call("Echo", bytes("x"), { timeoutMs: 20_000 })), "x");
  const one = async (i: number) => {
    // Some in order, some in the middle of a call, some without a word.
    if (i % 4 === 3) return (await connect({ path })).abort();
    if (i % 4 === 2) {
      const wire = new WireClient(await connect({ path }), { reading: false });
      await wire.send({ id: 1, handler: "Never" });
      return wire.close();
    }
    const other = await dialServer(path);
    assertEquals(text(await other.call("Echo", bytes(String(i)))), String(i));
    await other.close();
  };
  const wave = async (from: number) => {
    await Promise.all(Array.from({ length: WAVE }, (_, i) => one(from + i)));
    await until(() => state.ended === state.begun);
  };
  await wave(0);
  const before = held();
  for (let done = WAVE; done < CLIENTS; done += WAVE) await wave(done);
  await client.call("Echo");
  await until(() => {
    const { files, timers } = held();
    return files <= before.files && timers <= before.timers;
  });
  await client.close();
  // With no calls that are open there is nothing to wait for.
  await server.close();
}, 120_000);
