/** TCP: addresses, names and options, where the runtimes differ. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import type { Conn, InetAddress, Listener, Transport } from "../adapters/types.ts";
import { pem } from "./adapter_fixtures.ts";
import {
  type Capabilities,
  pattern,
  readExactly,
  rejectsWith,
  same,
  sleep,
} from "./adapter_suite.ts";

/** An address that no machine has (RFC 5737); it is bound only, so nothing is sent anywhere. */
const NOT_OURS = "192.0.2.1";
/** node:net on Deno reports EADDRNOTAVAIL as EINVAL, which may mean anything. */
const notOurs = "Deno" in globalThis ? ["unreachable", "other"] as const : ["unreachable"] as const;

/** Seconds until the first keep-alive probe of our end, or undefined if keep-alive is off: from /proc/net/tcp. */
function keepAliveSeconds(conn: Conn): number | undefined {
  const hex = (address: unknown) => (address as InetAddress).port.toString(16).padStart(4, "0");
  const ports = new RegExp(`:${hex(conn.local)} 0100007F:${hex(conn.remote)} `, "i");
  const row = readFileSync("/proc/net/tcp", "utf8").split("\n").find((line) => ports.test(line));
  const [, timer, ticks = ""] = /(\d\d):([0-9A-F]{8}) [0-9A-F]{8} +\d+ /.exec(row ?? "") ?? [];
  return timer === "02" ? Math.round(parseInt(ticks, 16) / 100) : undefined;
}

export function netSuite(name: string, transport: Transport, can: Capabilities): void {
  const check = (title: string, body: () => Promise<void>, options: { skip?: boolean } = {}) =>
    test(`${name} net: ${title}`, { timeout: 30_000, ...options }, body);

  async function withListener(
    listening: Promise<Listener>,
    body: (listener: Listener, addr: InetAddress) => Promise<void>,
  ): Promise<void> {
    const listener = await listening;
    try {
      await body(listener, listener.addr as InetAddress);
    } finally {
      await listener.close();
    }
  }

  check("what no option can be is told before anything is opened", async () => {
    for (const wrong of [{ flushTimeoutMs: Infinity }, { lingerMs: -1 }, { lingerMs: NaN }]) {
      await assertRejects(() => transport.connect("127.0.0.1:1", wrong), RangeError);
      await assertRejects(() => transport.listen("127.0.0.1:0", wrong), RangeError);
    }
    for (const address of [undefined, null, 7]) {
      const call = () => transport.connect(address as unknown as string);
      await assertRejects(call, TypeError, "an address is text");
    }
  });

  check(
    "a v4 peer of a dual-stack listener has its v4 address",
    () =>
      withListener(transport.listen("[::]:0"), async (listener, { hostname, port }) => {
        assertEquals(hostname, "::");
        for (const host of ["127.0.0.1", "::1"]) {
          const to = { hostname: host, port };
          const [client, server] = await Promise.all([transport.connect(to), listener.accept()]);
          assertEquals(server.local, to);
          assertEquals(client.remote, to);
          assertEquals(server.remote, client.local);
          assertEquals((server.remote as InetAddress).hostname, host);
          client.abort();
          server.abort();
        }
      }),
  );

  check("a v4 sender to a dual-stack UDP socket has its v4 address", async () => {
    const all = await transport.bindDatagram("[::]:0");
    const v4 = await transport.bindDatagram("127.0.0.1:0");
    await v4.send(pattern(3), { hostname: "127.0.0.1", port: all.addr.port });
    assertEquals((await all.receive()).from, v4.addr);
    await Promise.all([all.close(), v4.close()]);
  }, { skip: !can.udp });

  check(
    "reusePort lets listeners share a port, and each keeps what it got",
    () =>
      withListener(
        transport.listen("127.0.0.1:0", { reusePort: true }),
        (first, addr) =>
          withListener(transport.listen(addr, { reusePort: true }), async (second) => {
            assertEquals(second.addr, addr);
            // Without the option the port is taken.
            await rejectsWith(transport.listen(addr), "in-use");
            const clients = await Promise.all([...Array(8)].map(() => transport.connect(addr)));
            const accepted: Conn[] = [];
            const stop = new AbortController();
            const accepting = [first, second].map(async (listener) => {
              for (;;) accepted.push(await listener.accept({ signal: stop.signal }));
            });
            for (let i = 0; i < 500 && accepted.length < 8; i++) await sleep(10);
            stop.abort();
            for (const loop of accepting) await rejectsWith(loop, "aborted");
            assertEquals(
              accepted.map((conn) => (conn.remote as InetAddress).port).sort(),
              clients.map((conn) => (conn.local as InetAddress).port).sort(),
            );
            for (const conn of [...clients, ...accepted]) conn.abort();
          }),
      ),
    { skip: !can.reusePort },
  );

  check("reusePort lets UDP sockets share a port, where the runtime can", async () => {
    const first = await transport.bindDatagram("127.0.0.1:0", { reusePort: true });
    const binding = transport.bindDatagram(first.addr, { reusePort: true });
    if (can.reusePortUdp) await (await binding).close();
    else await rejectsWith(binding, "in-use");
    await first.close();
  }, { skip: !can.udp });

  check("a host name that does not exist is not-found", async () => {
    const { message, cause } = await rejectsWith(
      transport.connect("none.invalid:9"),
      "not-found",
    );
    assert(message.includes("none.invalid:9") && cause !== undefined, message);
    // Bun's listeners do not say why.
    const codes = "Bun" in globalThis ? ["not-found", "other"] as const : ["not-found"] as const;
    await rejectsWith(transport.listen("none.invalid:0"), ...codes);
    await rejectsWith(transport.bindDatagram("none.invalid:0"), "not-found");
  });

  check(
    "localhost is connected to, and refused when nobody listens at any of its addresses",
    () =>
      withListener(transport.listen("127.0.0.1:0"), async (listener, { port }) => {
        const localhost = { hostname: "localhost", port };
        const [client, server] = await Promise.all([
          transport.connect(localhost),
          listener.accept(),
        ]);
        client.abort();
        server.abort();
        await listener.close();
        await rejectsWith(transport.connect(localhost), "refused");
      }),
  );

  check(
    "a dead port is refused, and the error says which",
    () =>
      withListener(transport.listen("127.0.0.1:0"), async (listener, addr) => {
        await listener.close();
        const { message, cause } = await rejectsWith(transport.connect(addr), "refused");
        assertEquals(message, `connecting to 127.0.0.1:${addr.port}: connection refused`);
        assert(cause !== undefined);
      }),
  );

  check("nobody can be connected to at port 0", async () => {
    const { message } = await rejectsWith(transport.connect("127.0.0.1:0"), "invalid-address");
    assertEquals(message, "connecting to 127.0.0.1:0: invalid address");
  });

  check(
    "an error of listen() says what was being done",
    () =>
      withListener(transport.listen("127.0.0.1:0"), async (_, addr) => {
        const { message } = await rejectsWith(transport.listen(addr), "in-use");
        assertEquals(message, `listening on 127.0.0.1:${addr.port}: address in use`);
      }),
  );

  check(
    "close() of a TLS listener ends connections in the handshake, and no others",
    () =>
      withListener(
        transport.listen("127.0.0.1:0", {
          tls: { cert: pem("server.crt"), key: pem("server.key"), handshakeTimeoutMs: 60_000 },
        }),
        async (listener, addr) => {
          const silent = await transport.connect(addr);
          const [client, server] = await Promise.all([
            transport.connect(addr, { tls: { ca: pem("ca.crt") } }),
            listener.accept(),
          ]);
          await listener.close();
          const end = silent.read({ signal: AbortSignal.timeout(10_000) });
          assert(await end.catch(({ code }) => code) !== "timeout");
          await client.write(pattern(3));
          same(await readExactly(server, 3), pattern(3));
          for (const conn of [silent, client, server]) conn.abort();
        },
      ),
    { skip: !can.tls },
  );

  check(
    "localAddress is where a connection comes from; a bad one is a typed error",
    () =>
      withListener(transport.listen("127.0.0.1:0"), async (listener, addr) => {
        const [client, server] = await Promise.all([
          transport.connect(addr, { localAddress: "127.0.0.9" }),
          listener.accept(),
        ]);
        assertEquals((client.local as InetAddress).hostname, "127.0.0.9");
        assertEquals(server.remote, client.local);
        client.abort();
        server.abort();
        await rejectsWith(transport.connect(addr, { localAddress: NOT_OURS }), ...notOurs);
        await rejectsWith(transport.connect(addr, { localAddress: "x" }), "invalid-address");
      }),
  );

  check("listening on an address that is not ours is unreachable", async () => {
    const at = { hostname: NOT_OURS, port: 0 };
    await rejectsWith(transport.listen(at), ...notOurs);
    await rejectsWith(transport.listen(at, { reusePort: true }), ...notOurs);
  });

  check(
    "keep-alive is set here and there, with its idle time where the runtime can",
    () =>
      withListener(transport.listen("127.0.0.1:0", { keepAlive: 60_000 }), async (listener) => {
        const [client, server] = await Promise.all([
          transport.connect(listener.addr, { keepAlive: 120_000 }),
          listener.accept(),
        ]);
        const within = (actual: number | undefined, seconds: number) =>
          assert(actual !== undefined && actual > seconds - 30 && actual <= seconds, `${actual}`);
        // Deno's own sockets have the system's time.
        const system = Number(readFileSync("/proc/sys/net/ipv4/tcp_keepalive_time", "utf8"));
        within(keepAliveSeconds(client), can.keepAliveTime ? 120 : system);
        within(keepAliveSeconds(server), can.keepAliveTime ? 60 : system);
        client.setKeepAlive(false);
        assertEquals(keepAliveSeconds(client), undefined);
        client.setKeepAlive(90_000);
        within(keepAliveSeconds(client), can.keepAliveTime ? 90 : system);
        client.abort();
        server.abort();
        const [plain, accepted] = await Promise.all([
          transport.connect(listener.addr),
          listener.accept(),
        ]);
        assertEquals(keepAliveSeconds(plain), undefined);
        plain.abort();
        accepted.abort();
      }),
    { skip: process.platform !== "linux" },
  );

  check(
    "a backlog of 1 loses nobody who connects",
    () =>
      withListener(transport.listen("127.0.0.1:0", { backlog: 1 }), async (listener) => {
        const connecting = [1, 2].map(() => transport.connect(listener.addr));
        const served = [await listener.accept(), await listener.accept()];
        const clients = await Promise.all(connecting);
        for (const [i, client] of clients.entries()) {
          await client.write(pattern(4, i));
          const { port } = client.local as InetAddress;
          const peer = served.find((conn) => (conn.remote as InetAddress).port === port)!;
          same(await readExactly(peer, 4), pattern(4, i));
        }
        for (const conn of [...clients, ...served]) conn.abort();
      }),
  );
}
