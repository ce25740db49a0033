/**
 * A program of its own for tests that need a process with other rights or another network:
 * `adapter_child.ts <adapter> <action> [address] [host to send to]` prints what came of it as one line of JSON.
 */
import process from "node:process";
import type { Conn, Transport } from "../adapters/types.ts";

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code ?? String(error);

async function pair(transport: Transport, address: string, tls: boolean): Promise<string> {
  const listener = await transport.listen(address, tls ? { tls: await serverTls() } : {});
  const accepting = listener.accept();
  accepting.catch(() => {});
  try {
    const client = await transport.connect(
      listener.addr,
      tls ? { tls: { verify: false, serverName: "localhost" } } : {},
    );
    const server = await accepting;
    await client.write(new Uint8Array(3));
    await server.read();
    await Promise.all([client.close(), server.close()]);
    return "ok";
  } finally {
    await listener.close();
  }
}

async function serverTls(): Promise<{ cert: string; key: string }> {
  const { pem } = await import("./adapter_fixtures.ts");
  return { cert: pem("server.crt"), key: pem("server.key") };
}

async function udp(transport: Transport, address: string, to?: string): Promise<string> {
  const socket = await transport.bindDatagram(address);
  const { hostname, port } = socket.addr;
  try {
    await socket.send(new Uint8Array(3), { hostname: to ?? hostname, port });
    await socket.receive();
    return "ok";
  } finally {
    await socket.close();
  }
}

async function credentials(transport: Transport, address: string): Promise<string> {
  const listener = await transport.listen(address, { credentials: true });
  const [client, server] = await Promise.all([
    transport.connect(address, { credentials: true }),
    listener.accept(),
  ]);
  const told = [client.peerCredentials()?.pid, server.peerCredentials()?.pid];
  client.abort();
  server.abort();
  await listener.close();
  return told.every((pid) => pid === process.pid) ? "ok" : "unknown";
}

/** How many connections, of 20, fit into a backlog that nobody serves. */
async function fill(transport: Transport, address: string): Promise<number> {
  const opened: Conn[] = [];
  try {
    while (opened.length < 20) opened.push(await transport.connect(address));
  } catch (error) {
    if (codeOf(error) !== "refused") throw error;
  }
  for (const conn of opened) conn.abort();
  return opened.length;
}

/** Named in full, so that Deno needs no permission to load them. */
const LOAD: Readonly<Record<string, () => Promise<Transport>>> = {
  auto: async () => (await import("../adapters/auto.ts")).auto,
  deno: async () => (await import("../adapters/deno.ts")).deno,
  bun: async () => (await import("../adapters/bun.ts")).bun,
  node: async () => (await import("../adapters/node.ts")).node,
};

const [, , name = "", action = "", address = "", to] = process.argv;

async function run(): Promise<unknown> {
  const transport = await LOAD[name]!();
  if (action === "import") return "ok";
  if (action === "pair") return await pair(transport, address, false);
  if (action === "tls") return await pair(transport, address, true);
  if (action === "udp") return await udp(transport, address, to);
  if (action === "credentials") return await credentials(transport, address);
  if (action === "fill") return await fill(transport, address);
  if (action === "listen") return await transport.listen(address).then((it) => it.close());
  const signal = action === "abort" ? AbortSignal.timeout(200) : undefined;
  return await transport.connect(address, { signal }).then((conn) => conn.abort());
}

run().then((result) => result ?? "ok", codeOf).then((result) => {
  console.log(JSON.stringify(result));
  // What is left open by a failure must not keep the test waiting, unless it asks whether something is.
  if (action !== "abort") process.exit(0);
});
