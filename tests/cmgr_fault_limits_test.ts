/** Whom a manager does not take, what it ends by itself, and what it cannot open. */
import { assert, assertEquals } from "@std/assert";
import {
  type ConnectError,
  ConnectionManager,
  type ManagerError,
  type Refusal,
  type SessionEvent,
} from "@trunkline/sockets/cmgr";
import { mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { check, dial, emptied, ended, Log, portOf, watchTimers } from "./cmgr_fault_rig.ts";
import { rejection, until } from "./uds_service.ts";

const echo = (event: SessionEvent) => {
  if (event.state === "data") event.write(event.data);
};

/** Whether a client is served, or ended. */
function servedOrNot(client: Socket): Promise<boolean> {
  if (client.destroyed) return Promise.resolve(false);
  return new Promise((resolve) => {
    client.once("data", () => resolve(true));
    client.once("end", () => resolve(false));
    client.once("close", () => resolve(false));
    client.write("x");
  });
}

check(
  "maxSessions: more are refused, counted and reported; a place that is left is taken; shutdown() waits for nobody",
  async () => {
    const refusals: Refusal[] = [];
    const log = new Log(echo);
    const manager = await ConnectionManager.open({
      port: "any",
      sink: log.sink,
      maxSessions: 10,
      onRefused: (refusal) => refusals.push(refusal),
    });
    const clients = await Promise.all(Array.from({ length: 100 }, () => dial(portOf(manager))));
    const served = await Promise.all(clients.map(servedOrNot));
    assertEquals(served.filter((it) => it).length, 10);
    assertEquals(manager.stats().listeners[0]!.refused["max-sessions"], 90);
    assertEquals(refusals.length, 90);
    for (const { listener, from, reason } of refusals) {
      assertEquals([listener, reason], ["l0", "max-sessions"]);
      assert(from.startsWith("127.0.0.1:"), from);
    }
    const target = `127.0.0.1:${portOf(manager)}`;
    const full = await rejection<ManagerError>(manager.connect(target, "eleventh"));
    assertEquals(full.code, "too-many-sessions");
    clients[served.indexOf(true)]!.destroy();
    await until(() => manager.sessions().length === 9);
    await until(async () => {
      const next = await dial(portOf(manager));
      return await servedOrNot(next);
    });
    assertEquals(log.wrong, []);
    // None of those that were refused has been a session.
    assertEquals(log.counts.accepted, 11);
    await manager.shutdown();
    await Promise.all(clients.map(ended));
  },
);

check("maxSessionsPerAddress holds for each address by itself", async () => {
  const refusals: Refusal[] = [];
  const log = new Log(echo);
  const manager = new ConnectionManager({
    maxSessionsPerAddress: 3,
    onRefused: (refusal) => refusals.push(refusal),
  });
  const id = await manager.listenTcp("any", log.sink);
  const port = portOf(manager, id);
  const many = await Promise.all(Array.from({ length: 20 }, () => dial(port)));
  const served = await Promise.all(many.map(servedOrNot));
  assertEquals(served.filter((it) => it).length, 3);
  // Another address of the same machine.
  const session = await manager.connect(`127.0.0.1:${port}`, "other", undefined, {
    localAddress: "127.0.0.2",
  });
  await until(() => log.counts.accepted === 4);
  assertEquals(manager.stats().listeners[0]!.refused["per-address"], 17);
  assertEquals(refusals.length, 17);
  await session.close();
  for (const client of many) client.destroy();
  await until(() => log.over);
  // Its count was not left behind: the place is free again.
  const again = await dial(port);
  assertEquals(await servedOrNot(again), true);
  again.destroy();
  await until(() => log.over);
  await manager.shutdown();
});

check(
  "acceptRate: a burst is taken, more are refused, and after a while the next is taken",
  async () => {
    const log = new Log(echo);
    const manager = await ConnectionManager.open({ port: "any", sink: log.sink, acceptRate: 5 });
    const clients = await Promise.all(Array.from({ length: 50 }, () => dial(portOf(manager))));
    const served = (await Promise.all(clients.map(servedOrNot))).filter((it) => it).length;
    const { refused, accepted } = manager.stats().listeners[0]!;
    assertEquals([accepted, refused["accept-rate"]], [served, 50 - served]);
    assert(served >= 5 && served < 50, `${served}`);
    await until(async () => {
      const next = await dial(portOf(manager));
      const taken = await servedOrNot(next);
      next.destroy();
      return taken;
    });
    for (const client of clients) client.destroy();
    await until(() => log.over);
    assertEquals(log.wrong, []);
    await manager.shutdown();
  },
);

check("what onRefused and onError throw harms nobody", async () => {
  const fail = () => {
    throw new Error("no luck");
  };
  const log = new Log((event) => event.state === "data" ? fail() : undefined);
  const manager = await ConnectionManager.open({
    port: "any",
    sink: log.sink,
    maxSessions: 1,
    onRefused: fail,
    onError: fail,
  });
  const first = await dial(portOf(manager));
  await until(() => log.counts.new === 1);
  for (let i = 0; i < 10; i++) await ended(await dial(portOf(manager)));
  first.write("x");
  await until(() => log.counts.data === 1);
  first.destroy();
  await until(() => log.over);
  await manager.shutdown();
});

check(
  "idleTimeout ends who does nothing, not who writes, nor who is written to; no timer is left",
  async () => {
    await watchTimers(async (timers) => {
      const log = new Log();
      const manager = await ConnectionManager.open({
        port: "any",
        sink: log.sink,
        idleTimeout: 300,
      });
      const clients: Socket[] = [];
      for (let i = 0; i < 3; i++) {
        clients.push(await dial(portOf(manager)));
        await until(() => manager.sessions().length === i + 1);
      }
      const [idle, writer, reader] = clients as [Socket, Socket, Socket];
      reader.resume();
      const busy = setInterval(() => {
        writer.write("x");
        manager.session("a3")?.writeStr("x");
      }, 20);
      await ended(idle);
      await until(() => log.end("a1") !== undefined);
      const { reason, error } = log.end("a1")!;
      assertEquals([reason, (error as ManagerError).code], ["timeout", "idle"]);
      assertEquals(manager.sessions().map(({ id }) => id), ["a2", "a3"]);
      clearInterval(busy);
      await Promise.all([ended(writer), ended(reader)]);
      await until(() => log.over);
      assertEquals([log.wrong, log.reasons.timeout], [[], 3]);
      await emptied(manager);
      await until(() => timers() === 0);
      await manager.shutdown();
    });
  },
);

check(
  "a port, a path and a UDP port in use are refused by their code, leave nothing behind, and can be had later",
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "cmgr-"));
    const path = join(directory, "s");
    try {
      const first = await ConnectionManager.open({ port: "any" });
      await first.listenUnix(path);
      const udp = await first.listen("udp4", "any", "127.0.0.1");
      const second = new ConnectionManager();
      const listens = [
        () => second.listenTcp(portOf(first)),
        () => second.listenUnix(path),
        () => second.listen("udp4", portOf(first, udp), "127.0.0.1"),
        () => ConnectionManager.open({ port: portOf(first) }),
      ];
      for (const listen of listens) {
        const error = await rejection<ConnectError>(listen());
        assertEquals([error.name, error.code], ["ConnectError", "in-use"]);
      }
      const { listeners, sessions } = second.stats();
      assertEquals([listeners, sessions], [[], []]);
      const port = portOf(first);
      await first.shutdown();
      // A number is given when something listens.
      assertEquals(await second.listenTcp(port), "l0");
      assertEquals(await second.listenUnix(path), "l1");
      await second.shutdown();
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
