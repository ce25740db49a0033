/**
 * How fast a burst of clients is let in: see bench/ovpn.ts.
 *
 * @module
 */
import { type Conn, connect, listen } from "@trunkline/sockets/auto";
import { Demuxer, ManagementClient, serveAuth } from "@trunkline/sockets/ovpn";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { median, quantile } from "./figures.ts";

const GREETING = ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n";
const SESSION = new URL("../tests/fixtures/ovpn/server-client-auth.txt", import.meta.url);
const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();

/** The environment of a recorded request. */
function environment(): string {
  const text = readFileSync(SESSION, "utf8");
  const start = text.indexOf("\n", text.indexOf(">CLIENT:CONNECT,")) + 1;
  const end = ">CLIENT:ENV,END\r\n";
  return text.slice(start, text.indexOf(end, start) + end.length);
}

/**
 * The daemon's side of a connection, and no more than that: takes the commands one by one, as OpenVPN does. Gives when each request was
 * decided, in milliseconds from the first one.
 */
async function playDaemon(conn: Conn, requests: number): Promise<number[]> {
  const env = environment();
  const blocks = Array.from({ length: requests }, (_, id) => `>CLIENT:CONNECT,${id},1\r\n${env}`);
  const asked = ENCODER.encode(`SUCCESS: state\r\n${blocks.join("")}`);
  await conn.write(ENCODER.encode(GREETING));
  const demuxer = new Demuxer();
  const took: number[] = [];
  let start = 0;
  for (;;) {
    const chunk = await conn.read();
    if (chunk === null) throw new Error(`${took.length} of ${requests} requests were decided`);
    for (const { line } of demuxer.push(chunk)) {
      const command = DECODER.decode(line);
      if (command === "state on") {
        start = performance.now();
        conn.write(asked).catch(() => {});
        continue;
      }
      if (!command.startsWith("client-auth-nt ")) throw new Error(`it sends ${command}`);
      took.push(performance.now() - start);
      await conn.write(ENCODER.encode("SUCCESS: client-auth command succeeded\r\n"));
      if (took.length === requests) return took;
    }
  }
}

/** One burst over a unix socket. */
async function burst(path: string, requests: number): Promise<number[]> {
  const listener = await listen({ path });
  try {
    const accepting = listener.accept();
    const client = new ManagementClient(await connect({ path }));
    const server = serveAuth(client, (request) => request.accept());
    const daemon = await accepting;
    const took = await playDaemon(daemon, requests);
    await server.stop();
    if (server.counts.accepted !== requests) throw new Error(`${server.counts.accepted} accepted`);
    daemon.abort();
    await client.close();
    return took;
  } finally {
    await listener.close();
  }
}

/** Measures and prints. */
export async function benchAuth(requests: number, rounds: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "bench-"));
  const bursts: number[][] = [];
  try {
    for (let round = 0; round <= rounds; round++) {
      const took = await burst(join(directory, `${round}.sock`), requests);
      if (round > 0) bursts.push(took);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
  const after = (share: number) => median(bursts.map((took) => quantile(took, share)));
  const perSecond = 1000 * requests / after(1);
  console.log(
    `\n${requests} requests at once, over a unix socket, both ends in this process\n\n` +
      `serveAuth(): ${perSecond.toFixed(0)} decisions per second; half of them after ` +
      `${after(0.5).toFixed(0)} ms, 99 % after ${after(0.99).toFixed(0)} ms, ` +
      `all after ${after(1).toFixed(0)} ms`,
  );
}
