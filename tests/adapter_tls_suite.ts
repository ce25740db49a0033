/** TLS: what is verified, agreed on and refused. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { test } from "node:test";
import {
  type Conn,
  ConnectError,
  type InetAddress,
  type TlsConnectOptions,
  type TlsListenOptions,
  type Transport,
} from "../adapters/types.ts";
import { pem } from "./adapter_fixtures.ts";
import { pattern, readAll, readExactly, rejectsWith, same, sleep } from "./adapter_suite.ts";

const SERVER: TlsListenOptions = { cert: pem("server.crt"), key: pem("server.key") };
const CLIENT: TlsConnectOptions = { ca: pem("ca.crt"), serverName: "localhost" };

export function tlsSuite(name: string, transport: Transport): void {
  const check = (title: string, body: () => Promise<void>) =>
    test(`${name} TLS: ${title}`, { timeout: 30_000 }, body);

  async function withTls(
    server: TlsListenOptions,
    client: TlsConnectOptions | boolean,
    body: (client: Conn, server: Conn) => Promise<void> | void,
  ): Promise<void> {
    const listener = await transport.listen("127.0.0.1:0", { tls: server });
    try {
      const accepting = listener.accept();
      accepting.catch(() => {});
      const connected = await transport.connect(listener.addr, { tls: client });
      const accepted = await accepting;
      try {
        await body(connected, accepted);
      } finally {
        connected.abort();
        accepted.abort();
      }
    } finally {
      await listener.close();
    }
  }
  const refused = (server: TlsListenOptions, client: TlsConnectOptions | boolean) =>
    rejectsWith(withTls(server, client, () => {}), "tls");

  check("certificates are verified: unknown CA and wrong name are refused", async () => {
    await refused(SERVER, { serverName: "localhost" });
    await refused(SERVER, true);
    await refused(SERVER, { ...CLIENT, serverName: "other.example" });
    await refused({ cert: pem("other.crt"), key: pem("other.key") }, CLIENT);
  });

  check("the address' own name is checked, an IP literal too", async () => {
    await withTls(SERVER, { ca: pem("ca.crt") }, (client) => {
      assertEquals(client.tls?.authorized, true);
      assert(client.tls!.peerCertificate!.length > 100);
    });
    await withTls(SERVER, { ...CLIENT, serverName: "127.0.0.1" }, () => {});
    await refused(SERVER, { ...CLIENT, serverName: "127.0.0.2" });
  });

  check(
    "verify: false accepts any certificate, and says so",
    () =>
      withTls(SERVER, { serverName: "localhost", verify: false }, (client) => {
        assertEquals(client.tls?.authorized, false);
      }),
  );

  check("versions and ALPN are agreed on", async () => {
    await withTls(
      { ...SERVER, alpn: ["b", "a"], minVersion: "TLSv1.3" },
      { ...CLIENT, alpn: ["a", "c"] },
      (client, server) => {
        assertEquals([client.tls?.alpn, server.tls?.alpn], ["a", "a"]);
        assertEquals([client.tls?.protocol, server.tls?.protocol], ["TLSv1.3", "TLSv1.3"]);
      },
    );
    await withTls(SERVER, CLIENT, (client) => assertEquals(client.tls?.alpn, undefined));
  });

  check("client certificates are asked for and checked", async () => {
    const server = { ...SERVER, ca: pem("ca.crt"), requireClientCert: true };
    const ours = { cert: pem("client.crt"), key: pem("client.key") };
    await withTls(server, { ...CLIENT, ...ours }, async (client, accepted) => {
      assertEquals(accepted.tls?.authorized, true);
      assert(accepted.tls!.peerCertificate!.length > 100);
      await client.write(pattern(10));
      same(await readExactly(accepted, 10), pattern(10));
    });
    // With TLS 1.3 the client hears of the refusal after its own side of the handshake.
    const listener = await transport.listen("127.0.0.1:0", { tls: server });
    for (const bad of [{}, { cert: pem("other.crt"), key: pem("other.key") }]) {
      await assertRejects(async () => {
        const client = await transport.connect(listener.addr, { tls: { ...CLIENT, ...bad } });
        const chunk = await client.read().finally(() => client.abort());
        if (chunk === null) throw new Error("ended");
      }, Error);
    }
    for (let i = 0; i < 200 && listener.dropped < 2; i++) await sleep(10);
    assertEquals(listener.dropped, 2);
    await listener.close();
  });

  check("garbage and silence cost the listener nothing but a count", async () => {
    const listener = await transport.listen("127.0.0.1:0", {
      tls: { ...SERVER, handshakeTimeoutMs: 200 },
    });
    const garbage = await transport.connect(listener.addr);
    await garbage.write(pattern(2000));
    const silent = await transport.connect(listener.addr);
    for (let i = 0; i < 500 && listener.dropped < 2; i++) await sleep(10);
    assertEquals(listener.dropped, 2);
    // Neither keeps its socket.
    for (const conn of [garbage, silent]) {
      await readAll(conn).catch((e) => rejectsWith(Promise.reject(e), "reset"));
    }
    const [client, server] = await Promise.all([
      transport.connect(listener.addr, { tls: CLIENT }),
      listener.accept(),
    ]);
    for (const conn of [garbage, silent, client, server]) conn.abort();
    await listener.close();
  });

  check("reloadTls() is for handshakes from then on; connections live on", async () => {
    const listener = await transport.listen("127.0.0.1:0", { tls: { ...SERVER, alpn: ["old"] } });
    const meet = async (tls: TlsConnectOptions) =>
      await Promise.all([transport.connect(listener.addr, { tls }), listener.accept()]);
    const before = await meet({ ...CLIENT, alpn: ["old"] });

    const ours = { cert: pem("client.crt"), key: pem("client.key") };
    listener.reloadTls({
      cert: pem("other.crt"),
      key: pem("other.key"),
      ca: [pem("ca.crt")],
      requireClientCert: true,
      alpn: ["new"],
      minVersion: "TLSv1.3",
    });
    await rejectsWith(transport.connect(listener.addr, { tls: { ...CLIENT, ...ours } }), "tls");
    const other = { ca: pem("other.crt"), serverName: "localhost" };
    const after = await meet({ ...other, ...ours, alpn: ["new", "old"] });
    assertEquals(after[0].tls?.alpn, "new");
    assertEquals(after[1].tls?.authorized, true);

    for (const [client, server] of [before, after]) {
      await client.write(pattern(1000));
      same(await readExactly(server, 1000), pattern(1000));
      await server.write(pattern(1000, 7));
      same(await readExactly(client, 1000), pattern(1000, 7));
    }
    // And back: nothing is left of what was asked of clients.
    listener.reloadTls(SERVER);
    const back = await meet({ ...CLIENT, alpn: ["new", "old"] });
    assertEquals(back[0].tls?.alpn, undefined);
    for (const conn of [...before, ...after, ...back]) conn.abort();
    await listener.close();
    assertEquals(assertThrows(() => listener.reloadTls(SERVER), ConnectError).code, "closed");
  });

  check("certificates that are none are told at once, and change nothing", async () => {
    const listener = await transport.listen("127.0.0.1:0", { tls: SERVER });
    const { cert, key } = SERVER as { cert: string; key: string };
    const broken = (text: string) => text.replace(/\n.{20}/, `\n${"B".repeat(20)}`);
    const bad: TlsListenOptions[] = [
      {},
      { cert },
      { key },
      { cert: "nonsense", key },
      { cert: `${cert}${broken(cert)}`, key },
      { cert, key: "nonsense" },
      { cert, key: broken(key) },
      { cert, key: pem("other.key") },
      { cert, key, ca: "nonsense" },
      { cert, key, ca: [pem("ca.crt"), broken(pem("ca.crt"))] },
    ];
    for (const tls of bad) {
      const error = assertThrows(() => listener.reloadTls(tls), ConnectError, "reloading TLS");
      assertEquals(error.code, "tls");
      assert(!error.message.includes("PRIVATE"), error.message);
      await rejectsWith(transport.listen("127.0.0.1:0", { tls }), "tls");
    }
    const wrong = { ...SERVER, handshakeTimeoutMs: 0 };
    assertThrows(() => listener.reloadTls(wrong), RangeError, "handshakeTimeoutMs");
    const [client, server] = await Promise.all([
      transport.connect(listener.addr, { tls: CLIENT }),
      listener.accept(),
    ]);
    client.abort();
    server.abort();
    await listener.close();

    const plain = await transport.listen("127.0.0.1:0");
    const error = assertThrows(() => plain.reloadTls(SERVER), ConnectError, "speaks no TLS");
    assertEquals(error.code, "unsupported");
    await plain.close();
  });

  check("a peer that speaks no TLS, and a signal, end the handshake", async () => {
    const listener = await transport.listen("127.0.0.1:0");
    const serving = listener.accept().then(async (conn) => {
      await conn.write(pattern(100));
      return conn;
    });
    await rejectsWith(transport.connect(listener.addr, { tls: CLIENT }), "tls");
    (await serving).abort();
    const signal = AbortSignal.timeout(50);
    await rejectsWith(transport.connect(listener.addr, { tls: CLIENT, signal }), "timeout");
    (await listener.accept()).abort();
    await listener.close();
  });

  check("a reset below TLS is a reset, also after our own end", async () => {
    for (const ended of [false, true]) {
      const listener = await transport.listen("127.0.0.1:0", { tls: SERVER });
      const { port } = listener.addr as InetAddress;
      const sockets: Socket[] = [];
      const proxy = createServer({ allowHalfOpen: true }, (near) => {
        const far = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
        near.pipe(far, { end: false });
        far.pipe(near, { end: false });
        sockets.push(near, far);
        for (const socket of sockets) socket.on("error", () => {});
      });
      await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
      const to = { hostname: "127.0.0.1", port: (proxy.address() as AddressInfo).port };
      const [client, server] = await Promise.all([
        transport.connect(to, { tls: CLIENT }),
        listener.accept(),
      ]);
      await server.write(pattern(5));
      same(await readExactly(client, 5), pattern(5));
      if (ended) await client.closeWrite();
      const reading = client.read();
      await sleep(20);
      for (const socket of sockets) socket.resetAndDestroy();
      await rejectsWith(reading, "reset");
      client.abort();
      server.abort();
      proxy.close();
      await listener.close();
    }
  });

  check("a caller's mistakes are told at once", async () => {
    await assertRejects(
      () => transport.connect("/tmp/none", { tls: true }),
      TypeError,
      "serverName",
    );
    // An empty name would be none to node, and nothing would be checked.
    for (const wrong of [{ serverName: "" }, { alpn: [""] }, { alpn: ["a", "é".repeat(128)] }]) {
      const tls = { ...CLIENT, ...wrong };
      await assertRejects(() => transport.connect("127.0.0.1:1", { tls }), TypeError);
    }
    for (
      const [wrong, kind] of [
        [{ alpn: [""] }, TypeError],
        [{ handshakeTimeoutMs: Infinity }, RangeError],
      ] as const
    ) {
      const tls = { ...SERVER, ...wrong };
      await assertRejects(() => transport.listen("127.0.0.1:0", { tls }), kind, "expected 1 to");
    }
    await rejectsWith(
      transport.listen("127.0.0.1:0", { tls: { cert: "nonsense", key: "nonsense" } }),
      "tls",
    );
  });
}
