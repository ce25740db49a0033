/**
 * Keeps a manager busy for as long as one likes: `deno task soak [--hours=1 | --seconds=20] [--seed=1]`; other runtimes run this file as it is.
 * Clients of every kind come, talk, stall and go by chance. At quiet points, when all of them are gone, it looks at what is left: heap, file
 * descriptors, timers, sessions. It fails if there is more at the end than in the middle, or if an event came out of order.
 */
import { randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { ConnectionManager, type StreamSession } from "../cmgr/mod.ts";
import { pem } from "../tests/adapter_fixtures.ts";
import { Log, openFiles, watchTimers } from "../tests/cmgr_fault_rig.ts";
import { until } from "../tests/uds_service.ts";

/** What there is at a quiet point. */
interface Sample {
  /** Bytes of the heap, and of buffers beside it, after a collection. */
  readonly heap: number;
  readonly files: number;
  readonly timers: number;
  readonly sessions: number;
}

/** Heap that a collector may leave by chance. */
const SLACK_BYTES = 4 * 1024 * 1024;
/** Clients at once. */
const CROWD = 40;
/** Clients between two quiet points; so many that what each leaves behind would be seen. */
const ROUND = 600;
const TLS = { ca: pem("ca.crt"), serverName: "localhost" };

const { values } = parseArgs({
  options: {
    hours: { type: "string" },
    seconds: { type: "string", default: "20" },
    seed: { type: "string", default: String(randomInt(1 << 30)) },
  },
});
const seconds = values.hours === undefined ? Number(values.seconds) : Number(values.hours) * 3600;
if (!(seconds > 0)) throw new RangeError("--hours or --seconds is no positive number");

/** xorshift: the same choices in the same order for a seed; who makes which one, the sockets decide. */
let state = Number(values.seed) | 1;
function chance(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

function collector(): () => void {
  const bun = (globalThis as { Bun?: { gc(wait: boolean): void } }).Bun;
  if (bun !== undefined) return () => bun.gc(true);
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function soak(timers: () => number): Promise<void> {
  const collect = collector();
  const directory = mkdtempSync(join(tmpdir(), "soak-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const server = new ConnectionManager({
    lingerMs: 50,
    stallTimeout: 1000,
    lowWaterMark: 10_000,
    // Clients that give up within their handshake are gone by then.
    handshakeTimeout: 2000,
  });
  // Every other one is answered with backpressure, the others whatever they take.
  const served = new Log((event) => {
    if (event.state !== "data") return;
    if (event.session.kind === "udp") return void event.write(event.data);
    const written = event.write(event.data);
    return event.data.length % 2 === 0 ? written.catch(() => {}) : undefined;
  });
  const path = join(directory, "socket");
  const tls = { cert: pem("server.crt"), key: pem("server.key") };
  const tcpAt = await server.listenTcp("any", served.sink);
  const tlsAt = await server.listenTls("any", tls, served.sink);
  await server.listenUnix(path, served.sink);
  const udp = await server.listen("udp4", "any", "127.0.0.1", served.sink);
  const portOf = (id: string) => (server.address(id) as { readonly port: number }).port;
  const [tcpPort, tlsPort] = [portOf(tcpAt), portOf(tlsAt)];
  const udpTo = { hostname: "127.0.0.1", port: portOf(udp) };

  const clients = new ConnectionManager({ lingerMs: 50 });
  const log = new Log();
  let [count, failed] = [0, 0];
  /** The fewest files of a quiet point. */
  let least = Infinity;

  async function talk(session: StreamSession): Promise<void> {
    for (let i = chance(8); i > 0; i--) {
      // Some do not wait for their peer, and find no room or nobody.
      const written = session.write(
        new Uint8Array(chance(3) === 0 ? chance(300_000) : chance(200)),
      );
      if (chance(2) === 0) await written.catch(() => {});
      if (chance(3) === 0) await pause(chance(5));
    }
    if (chance(20) === 0) await clients.writeToAll(new Uint8Array(chance(1000)), { slow: "skip" });
    if (chance(4) === 0) await session.closeWrite().catch(() => {});
  }

  async function client(): Promise<void> {
    const id = `client ${count++}`;
    const kind = chance(10);
    if (kind === 0) {
      const id = await clients.listen("udp4", "any", "127.0.0.1", log.sink);
      for (let i = chance(20); i > 0; i--) {
        await clients.writeUdpAddr(id, udpTo, new Uint8Array(chance(2000)));
      }
      return await clients.close(id);
    }
    const target = kind < 3
      ? { path }
      : { hostname: "127.0.0.1", port: kind < 5 ? tlsPort : tcpPort };
    const reconnect = chance(4) === 0 && { minDelayMs: 1, maxDelayMs: 8 };
    const options = { reconnect, ...(3 <= kind && kind < 5 && { tls: TLS }) };
    // Some never take what they are answered, so that the server finds them slow or stalled.
    const sink = chance(10) === 0
      ? (event: Parameters<typeof log.sink>[0]) => {
        log.sink(event);
        if (event.state === "data") return pause(200);
      }
      : log.sink;
    // On a busy machine the time for a handshake may be too short.
    const session = await clients.connect(target, id, sink, options).catch(() => undefined);
    if (session === undefined) return void failed++;
    await talk(session);
    // Now and then it is the server who ends it.
    if (chance(4) === 0) {
      const [peer] = server.sessions().filter(({ kind }) => kind !== "udp");
      await peer?.close().catch(() => {});
    }
    await session.close({ discard: chance(2) === 0 }).catch(() => {});
  }

  async function round(): Promise<Sample> {
    const last = count + ROUND;
    const one = async () => {
      while (count < last) await client();
    };
    await Promise.all(Array.from({ length: CROWD }, one));
    await until(() => clients.sessions().length === 0 && log.over);
    await until(() => server.sessions().length === 1 && server.stats().queued === 0);
    // The server looks for sessions that stand still as long as it has any, its UDP socket too.
    await until(() => timers() <= 1);
    for (const it of [log, served]) {
      if (it.wrong.length > 0) throw new Error(`out of order: ${it.wrong.join(", ")}`);
      it.forget();
    }
    // What a collector frees, and a runtime closes, may take it more than one turn.
    let [heap, files] = [Infinity, Infinity];
    for (let i = 0; i < 10 || i < 50 && files > least; i++) {
      await pause(60);
      collect();
      const { heapUsed, external } = process.memoryUsage();
      heap = Math.min(heap, heapUsed + external);
      files = Math.min(files, openFiles());
    }
    least = Math.min(least, files);
    const sessions = server.sessions().length + clients.sessions().length;
    return { heap, files, timers: timers(), sessions };
  }

  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 1000;
  let [middle, printedAt] = [await round(), 0];
  let end = middle;
  while (elapsed() < seconds) {
    end = await round();
    if (elapsed() < seconds / 2) middle = end;
    if (elapsed() - printedAt < 60) continue;
    printedAt = elapsed();
    console.log(`${printedAt.toFixed(0)} s, ${count} clients: ${JSON.stringify(end)}`);
  }
  const grown = () =>
    end.heap > middle.heap * 1.1 + SLACK_BYTES || end.files > middle.files ||
    end.timers > middle.timers || end.sessions > middle.sessions;
  // What is there by chance is gone the next time.
  for (let again = 0; grown() && again < 2; again++) end = await round();
  await Promise.all([clients.shutdown(), server.shutdown()]);
  console.log(
    JSON.stringify({ seconds: elapsed(), seed: values.seed, clients: count, failed, middle, end }),
  );
  if (failed > count / 10) throw new Error(`${failed} of ${count} clients had no connection`);
  if (grown()) throw new Error("there is more at the end than in the middle");
}

await watchTimers(soak);
