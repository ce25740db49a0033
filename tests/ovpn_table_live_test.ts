/** Status reports and `ClientTable`: the clients of a real OpenVPN, whatever they are called, and after a restart. */
import { assert, assertEquals } from "@std/assert";
import { ClientTable, serveAuth, type TableClient } from "@trunkline/sockets/ovpn";
import { liveTests, next, session, TCP } from "./ovpn_live_server.ts";
import { rejection } from "./ovpn_fake.ts";

const live = await liveTests();

const AUTH = "--management-client-auth";
const EVENT = ">FATAL:boo";
/** What splits a row, begins a reply, ends one, begins an event, ends an argument. */
const NAMES: readonly string[] = ["a,b", "SUCCESS: x", "END", EVENT, `q" \\ ; kill 'x`];
/** Reports come after events, not by the clock. */
const QUIET = { refreshMs: 600_000, settleMs: 20 } as const;

/** A client that ends instead of coming again. */
const ONCE = [...TCP.client, "--remap-usr1", "SIGTERM"];

interface Named {
  readonly username: string | undefined;
  readonly commonName: string | undefined;
}

for (const byUsername of [true, false]) {
  const kind = byUsername ? "common names" : "usernames";
  live(`status and the kill of exactly one client, with hostile ${kind}`, async (live) => {
    const args = byUsername ? ["--username-as-common-name"] : [];
    const { manager } = await live.server(AUTH, "--duplicate-cn", ...args, ...TCP.server);
    const events = manager.subscribe();
    serveAuth(manager, (request) => request.accept());
    const daemons = new Map(NAMES.map((name) => [name, live.login(name, { args: ONCE })]));
    for (const _ of NAMES) await next(events, session("ESTABLISHED"));
    const namesOf = (rows: Iterable<Named>) =>
      [...rows].map(({ username, commonName }) => [username, commonName]).sort();
    const expected = (names: readonly string[]) =>
      names.map((name) => [name, byUsername ? name : "client"]).sort();

    const { clients, routes, unparsed } = await manager.status();
    assertEquals(namesOf(clients), expected(NAMES));
    assertEquals(
      routes.map(({ commonName, address }) => [commonName, address]).sort(),
      clients.map(({ commonName, virtualAddress }) => [commonName, virtualAddress]).sort(),
    );
    assertEquals(unparsed, []);
    for (const { authenticated, realAddress } of clients) {
      assertEquals([authenticated, realAddress.address], [true, "127.0.0.1"]);
    }

    const table = new ClientTable(manager, QUIET);
    await table.refresh();
    assertEquals(namesOf(table.clients.values()), expected(NAMES));
    const rows = new Map([...table.clients.values()].map((row) => [row.username!, row]));
    const row = (name: string): TableClient => rows.get(name)!;
    const leave = async (...names: readonly string[]) => {
      const left: string[] = [];
      for (const _ of names) left.push((await next(events, session("DISCONNECT"))).clientId);
      assertEquals(left.sort(), names.map((name) => row(name).clientId).sort());
    };

    assertEquals(await table.kill(row(EVENT), { message: "HALT,go" }), "killed");
    await leave(EVENT);
    assertEquals(await daemons.get(EVENT)!.exited, 0);
    assertEquals(await table.kill(row(EVENT)), "gone");
    const others = NAMES.filter((name) => name !== EVENT);
    assertEquals(namesOf((await manager.status()).clients), expected(others));
    await table.refresh();
    assertEquals(
      [...table.clients.values()].map(({ serial }) => serial).sort(),
      others.map((name) => row(name).serial).sort(),
    );

    const address = { ...row("END").realAddress!, protocol: "tcp" };
    assertEquals(await manager.killAddress(address), 1);
    await leave("END");
    if (byUsername) {
      assert(await rejection(manager.kill("SUCCESS: x")) instanceof TypeError);
      for (const name of ["a,b", NAMES[4]!]) {
        assertEquals(await manager.kill(name), 1);
        await leave(name);
      }
    } else {
      assertEquals(await manager.kill("client"), 3);
      await leave("a,b", "SUCCESS: x", NAMES[4]!);
    }
    assertEquals(manager.strayReplies, 0);
    table.close();
  });
}

for (const clientAuth of [true, false]) {
  const kind = clientAuth ? "with client-auth" : "without client-auth";
  const args = [...clientAuth ? [AUTH] : [], "--keepalive", "1", "60", ...TCP.server];
  /** Without it nothing but a report tells that somebody has left. */
  const options = clientAuth ? QUIET : { refreshMs: 100, settleMs: 20 };

  live(`ClientTable follows a client from its login to its end, ${kind}`, async (live) => {
    const { manager } = await live.server(...args);
    const decided = Promise.withResolvers<void>();
    if (clientAuth) {
      serveAuth(manager, async (request) => {
        await decided.promise;
        return request.accept();
      });
    }
    const table = new ClientTable(manager, { ...options, byteCountSeconds: 1 });
    const changes = table.subscribe();
    assertEquals((await changes.next()).value?.type, "resync");
    await table.refresh();
    assertEquals(table.clients.size, 0);
    const daemon = live.login("al", { args: TCP.client });

    const first = await next(changes, (it) => it.type === "added" ? it.client : undefined);
    const { serial, clientId, state, realAddress } = first;
    assertEquals([clientId, state], ["0", clientAuth ? "pending" : "connected"]);
    assertEquals(realAddress?.address, "127.0.0.1");
    decided.resolve();
    const ready = await next(changes, (it) => {
      if (it.type !== "changed") return undefined;
      return it.client.cipher !== undefined && it.client.state === "connected"
        ? it.client
        : undefined;
    });
    assertEquals([ready.virtualAddress, ready.cipher], ["10.8.0.2", "AES-256-GCM"]);
    assertEquals([ready.commonName, ready.username], ["client", clientAuth ? "al" : undefined]);
    assertEquals(ready.realAddress?.port, realAddress?.port);
    // Pings go both ways.
    const counted = await next(changes, (it) => {
      if (it.type !== "changed") return undefined;
      const { bytesReceived, bytesSent } = it.client;
      return bytesReceived > ready.bytesReceived && bytesSent > ready.bytesSent
        ? it.client
        : undefined;
    });
    assertEquals(counted.serial, serial);

    await daemon.stop();
    const last = await next(changes, (it) => it.type === "removed" ? it.client : undefined);
    assertEquals([last.serial, last.clientId, table.clients.size], [serial, "0", 0]);
    assert(last.bytesReceived >= counted.bytesReceived && last.bytesSent >= counted.bytesSent);
    assertEquals(await table.kill(last), "gone");
  });

  live(`ClientTable takes no client for one of before a restart, ${kind}`, async (live) => {
    const { manager } = await live.server(...args);
    if (clientAuth) serveAuth(manager, (request) => request.accept());
    const table = new ClientTable(manager, options);
    const changes = table.subscribe();
    assertEquals((await changes.next()).value?.type, "resync");
    const connected = () =>
      next(changes, (it) => {
        if (it.type !== "added" && it.type !== "changed") return undefined;
        const { state, since } = it.client;
        return state === "connected" && since !== undefined ? it.client : undefined;
      });
    const before = live.login("al", { args: ONCE });
    const old = await connected();

    await manager.sendSignal("SIGUSR1");
    const resync = await next(changes, (it) => it.type === "resync" ? it : undefined);
    assertEquals([resync.reason, resync.clients], ["restart", []]);
    await before.exited;
    const daemon = live.login("bo", { args: TCP.client });
    const row = await connected();
    assertEquals(row.clientId, old.clientId);
    assert(row.serial !== old.serial);
    assertEquals(await table.kill(old), "replaced");
    await table.refresh();
    assertEquals([...table.clients.values()].map(({ serial }) => serial), [row.serial]);
    assertEquals(await table.kill(row, { message: "HALT" }), "killed");
    assertEquals(await daemon.exited, 0);
    await next(changes, (it) => it.type === "removed" ? it : undefined);
    assertEquals([await manager.clientCount(), table.clients.size], [0, 0]);
  });
}

live("ClientTable kills exactly one of clients that OpenVPN shows without a port", async (live) => {
  // Before 2.7 that is so for IPv6.
  const { manager } = await live.server(
    ...[AUTH, "--duplicate-cn", "--proto", "tcp6-server", "--local", "::1"],
  );
  const events = manager.subscribe();
  serveAuth(manager, (request) => request.accept());
  const table = new ClientTable(manager, QUIET);
  const daemons = ["al", "al"].map((name) => {
    return live.login(name, { server: "::1", args: ["--proto", "tcp6-client"] });
  });
  for (const _ of daemons) await next(events, session("ESTABLISHED"));
  await table.refresh();
  const [one, other] = [...table.clients.values()] as [TableClient, TableClient];
  assertEquals(await table.kill(one, { message: "HALT" }), "killed");
  const { clientId } = await next(events, session("DISCONNECT"));
  assertEquals(clientId, one.clientId);
  assertEquals(await Promise.race(daemons.map(({ exited }) => exited)), 0);
  await table.refresh();
  assertEquals([...table.clients.values()].map(({ serial }) => serial), [other.serial]);
});

live(
  "ClientTable kills a client that waits to be let in, whose request is cancelled",
  async (live) => {
    const { manager } = await live.server(AUTH, ...TCP.server);
    const asked = Promise.withResolvers<AbortSignal>();
    const server = serveAuth(manager, ({ signal }) => {
      asked.resolve(signal);
      return new Promise(() => {});
    });
    const table = new ClientTable(manager, QUIET);
    const changes = table.subscribe();
    assertEquals((await changes.next()).value?.type, "resync");
    const daemon = live.login("al", { args: TCP.client });
    const signal = await asked.promise;
    await table.refresh();
    const [row] = table.clients.values();
    assertEquals(row?.state, "pending");
    assertEquals(await table.kill(row!, { message: "HALT" }), "killed");
    assertEquals(await daemon.exited, 0);
    const last = await next(changes, (it) => it.type === "removed" ? it.client : undefined);
    assertEquals([last.serial, table.clients.size], [row!.serial, 0]);
    // That everybody has heard when this is answered.
    await manager.pid();
    assertEquals([signal.aborted, server.counts.cancelled], [true, 1]);
  },
);
