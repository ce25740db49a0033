/** One suite for every adapter on every runtime that has it; what a runtime cannot do, {@linkcode Capabilities} says. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import { formatAddress } from "../adapters/address.ts";
import {
  type Address,
  type Conn,
  ConnectError,
  type ConnectErrorCode,
  type ConnectOptions,
  type ConnOptions,
  type ListenOptions,
  type Transport,
} from "../adapters/types.ts";

/** What an adapter can do on a runtime. Each flag gates tests, and is a row of the README's table. */
export interface Capabilities {
  /** Streams over TCP. */
  readonly tcp: boolean;
  /** Streams over unix sockets that are files. */
  readonly unix: boolean;
  /** Streams over unix sockets with an abstract name, which only Linux has. */
  readonly abstract: boolean;
  /** TLS on all of these. */
  readonly tls: boolean;
  /** Datagrams. */
  readonly udp: boolean;
  /** `abort()` resets a TCP connection, so that the peer sees `reset` and not an end. */
  readonly reset: boolean;
  /** Connections that nobody accepts are counted in `dropped` (Deno leaves them to the kernel). */
  readonly countsDropped: boolean;
  /** `peerCredentials()` works on unix connections, given `credentials: true`. */
  readonly credentials: boolean;
  /** Several listeners may share a port. */
  readonly reusePort: boolean;
  /** Several UDP sockets may share a port by `reusePort`; elsewhere the option is ignored. */
  readonly reusePortUdp: boolean;
  /** `keepAlive` may be a number; elsewhere the idle time is the system's. */
  readonly keepAliveTime: boolean;
  /** `backlog` of a listener is the kernel's. */
  readonly backlog: boolean;
}

/** A kind of stream: how to listen and connect. */
export interface Kind {
  readonly name: string;
  readonly address: () => Address | string;
  readonly listen?: ListenOptions;
  readonly connect?: ConnectOptions;
}

/** Bytes that a kernel may hold for a stopped reader, and then some: loopback TCP takes about 4 MB, the rest is our own queues. */
const KERNEL_BYTES = 24 * 1024 * 1024;
const MIB = 1024 * 1024;

/** A pattern in which every misplaced chunk shows. */
export function pattern(length: number, seed = 0): Uint8Array {
  const bytes = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.imul(i + seed, 2654435761);
  return new Uint8Array(bytes.buffer, 0, length);
}

export async function readAll(conn: Conn): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let chunk; (chunk = await conn.read()) !== null;) chunks.push(chunk);
  const all = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    all.set(chunk, offset);
    offset += chunk.length;
  }
  return all;
}

/** What `readExactly` read too much, for its next call. */
const surplus = new WeakMap<Conn, Uint8Array>();

export async function readExactly(conn: Conn, length: number): Promise<Uint8Array> {
  const all = new Uint8Array(length);
  for (let offset = 0; offset < length;) {
    const chunk = surplus.get(conn) ?? await conn.read();
    surplus.delete(conn);
    assert(chunk !== null, `the stream ended after ${offset} of ${length} bytes`);
    const taken = chunk.subarray(0, length - offset);
    all.set(taken, offset);
    offset += taken.length;
    if (taken.length < chunk.length) surplus.set(conn, chunk.subarray(taken.length));
  }
  return all;
}

export function same(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(at, -1, `differs at byte ${at}`);
}

export async function rejectsWith(
  promise: Promise<unknown>,
  ...codes: ConnectErrorCode[]
): Promise<ConnectError> {
  const error = await assertRejects(() => promise, ConnectError);
  assert(codes.includes(error.code), `code ${error.code} (${error.message}), expected ${codes}`);
  return error;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Writes until nothing more is taken for a while; resolves with the bytes given and the last write, which still waits. */
export async function fill(conn: Conn): Promise<{ written: number; last: Promise<void> }> {
  const block = pattern(64 * 1024);
  for (let written = 0;;) {
    const last = conn.write(block);
    written += block.length;
    last.catch(() => {});
    const taken = await Promise.race([last.then(() => true), sleep(300).then(() => false)]);
    if (!taken) return { written, last };
    assert(written < 4 * KERNEL_BYTES, "writing to a stopped reader never waits");
  }
}

export function streamSuite(
  name: string,
  transport: Transport,
  kind: Kind,
  can: Capabilities,
): void {
  const check = (title: string, body: () => Promise<void>) =>
    test(`${name} ${kind.name}: ${title}`, { timeout: 30_000 }, body);

  /** Runs `body` with a connected pair and closes everything after it. */
  async function withPair(
    body: (client: Conn, server: Conn) => Promise<void>,
    options: ConnOptions = {},
  ): Promise<void> {
    const listener = await transport.listen(kind.address(), { ...kind.listen, ...options });
    const [client, server] = await Promise.all([
      transport.connect(listener.addr, { ...kind.connect, ...options }),
      listener.accept(),
    ]);
    try {
      await body(client, server);
    } finally {
      client.abort();
      server.abort();
      await listener.close();
    }
  }

  check("a pair echoes and knows its addresses", () =>
    withPair(async (client, server) => {
      await client.write(pattern(100));
      same(await readExactly(server, 100), pattern(100));
      await server.write(pattern(50, 7));
      same(await readExactly(client, 50), pattern(50, 7));
      assertEquals(client.remote, server.local);
      assertEquals(client.local, server.remote);
      assertEquals(client.queued, 0);
      assertEquals(client.tls !== undefined, kind.connect?.tls !== undefined);
    }));

  check(
    "a read into given memory gives what came, in it or not",
    () =>
      withPair(async (client, server) => {
        const into = new Uint8Array(64);
        const all = new Uint8Array(300);
        client.write(pattern(300));
        for (let at = 0; at < 300;) {
          const chunk = await server.read({ into });
          assert(chunk !== null && chunk.length > 0);
          if (chunk.buffer === into.buffer) assert(chunk.length <= into.length);
          all.set(chunk, at);
          at += chunk.length;
        }
        same(all, pattern(300));
      }),
  );

  check(
    "closeWrite() leaves reading open, both ways, and may be called again",
    () =>
      withPair(async (client, server) => {
        await client.closeWrite();
        await client.closeWrite();
        assertEquals(await server.read(), null);
        assertEquals(await server.read(), null);
        server.write(pattern(300_000));
        same(await readExactly(client, 300_000), pattern(300_000));
        await server.closeWrite();
        assertEquals(await client.read(), null);
        // Both directions have ended: nothing is left to close.
        await Promise.all([client.closed, server.closed]);
        await rejectsWith(client.write(pattern(1)), "closed");
      }),
  );

  check(
    "closeWrite() sends all that was written, however large",
    () =>
      withPair(async (client, server) => {
        client.write(pattern(8 * MIB));
        assert(client.queued > 0);
        const done = client.closeWrite();
        same(await readAll(server), pattern(8 * MIB));
        await done;
        assertEquals(client.queued, 0);
      }),
  );

  check(
    "close() loses nothing, though the peer's data was never read",
    () =>
      withPair(async (client, server) => {
        await client.write(pattern(100_000));
        server.write(pattern(8 * MIB));
        const closed = server.close();
        await sleep(50);
        same(await readAll(client), pattern(8 * MIB));
        await client.close();
        await closed;
        await server.closed;
      }),
  );

  check("concurrent writes are not mixed", () =>
    withPair(async (client, server) => {
      const sizes = [...Array(40).keys()].map((i) => i % 3 === 0 ? 300_000 + i : 10 + i);
      const writes = sizes.map((size, i) => client.write(pattern(size, i)));
      for (const [i, size] of sizes.entries()) {
        same(await readExactly(server, size), pattern(size, i));
      }
      await Promise.all(writes);
    }));

  check(
    "a stopped reader stops the writer, and nothing is lost",
    () =>
      withPair(async (client, server) => {
        const { written, last } = await fill(client);
        assert(written < KERNEL_BYTES, `${written} bytes went to a reader that does not read`);
        assert(client.queued > 0 && client.queued <= 128 * 1024, `${client.queued} bytes queued`);
        const received = await readExactly(server, written);
        const block = pattern(64 * 1024);
        for (let at = 0; at < written; at += block.length) {
          same(received.subarray(at, at + block.length), block);
        }
        await last;
      }),
  );

  check(
    "a FIN behind unread data is seen after that data",
    () =>
      withPair(async (client, server) => {
        client.write(pattern(2 * MIB));
        client.closeWrite();
        await sleep(100);
        same(await readAll(server), pattern(2 * MIB));
      }),
  );

  check(
    "close() and abort() may be called again; later calls reject with closed",
    () =>
      withPair(async (client, server) => {
        const pending = client.read();
        const closing = client.close();
        await rejectsWith(pending, "closed");
        await rejectsWith(client.read(), "closed");
        await rejectsWith(client.write(pattern(1)), "closed");
        assertEquals(await server.read(), null);
        await server.close();
        await closing;
        await client.close();
        client.abort();
        await client[Symbol.asyncDispose]();
        await Promise.all([client.closed, server.closed]);
      }),
  );

  check(
    "abort() rejects what is pending, here and there",
    () =>
      withPair(async (client, server) => {
        const reading = client.read();
        const peer = server.read();
        const reason = new Error("enough");
        client.abort(reason);
        assertEquals((await rejectsWith(reading, "aborted")).cause, reason);
        const error = await rejectsWith(client.closed, "aborted");
        assertEquals(await client.write(pattern(1)).catch((e) => e), error);
        assertEquals(await client.read().catch((e) => e), error);
        await client.close();
        if (can.reset && kind.name.startsWith("tcp")) await rejectsWith(peer, "reset");
        // Elsewhere an end, or a reset if the kernel had reason for one.
        else assertEquals(await peer.catch((e) => e.code === "reset" ? null : e), null);
      }),
  );

  check(
    "abort() releases the socket while a FIN is under way: the peer hears of it",
    () =>
      withPair(async (client, server) => {
        const closing = client.closeWrite();
        client.abort();
        await closing.catch(() => {});
        // What the peer may still write to a socket that nobody has closed is endless.
        let error: unknown;
        for (let i = 0; i < 200 && error === undefined; i++) {
          error = await server.write(pattern(1000)).then(() => sleep(5), (e) => e);
        }
        assert(error instanceof ConnectError, "200 writes to an aborted peer succeeded");
        assert(error.code === "reset" || error.code === "broken-pipe", error.code);
      }),
  );

  check(
    "abort() drops what is queued, and the peer does not wait for it",
    () =>
      withPair(async (client, server) => {
        await fill(client);
        const queued = client.write(pattern(MIB));
        client.abort();
        await rejectsWith(queued, "aborted");
        assertEquals(client.queued, 0);
        const end = await readAll(server).then(() => "end", (error) => error.code);
        assert(end === "end" || end === "reset", end);
      }),
  );

  check(
    "writing to a peer that has gone fails, and stays failed",
    () =>
      withPair(async (client, server) => {
        server.abort();
        let error: unknown;
        for (let i = 0; i < 200 && error === undefined; i++) {
          error = await client.write(pattern(1000)).then(() => sleep(5), (e) => e);
        }
        assert(error instanceof ConnectError, "200 writes to a dead peer succeeded");
        assert(error.message.includes(formatAddress(client.remote!)), error.message);
        assert(error.code === "reset" || error.code === "broken-pipe", error.code);
        assertEquals(await client.write(pattern(1)).catch((e) => e), error);
        assertEquals(await client.closed.catch((e) => e), error);
        await client.close();
      }),
  );

  check("an aborted read loses nothing", () =>
    withPair(async (client, server) => {
      const controller = new AbortController();
      const reading = server.read({ signal: controller.signal });
      const next = server.read();
      controller.abort();
      await rejectsWith(reading, "aborted");
      await rejectsWith(server.read({ signal: controller.signal }), "aborted");
      await rejectsWith(server.read({ signal: AbortSignal.timeout(10) }), "timeout");
      await client.write(pattern(10));
      same((await next)!, pattern(10));
    }));

  check(
    "an aborted write is taken back while queued, and aborts the connection when under way",
    () =>
      withPair(async (client, server) => {
        const { written, last } = await fill(client);
        const controller = new AbortController();
        const queued = client.write(pattern(500_000), { signal: controller.signal });
        controller.abort();
        await rejectsWith(queued, "aborted");
        assertEquals(client.queued, client.queued % (64 * 1024 + 1));
        await readExactly(server, written);
        await last;
        await client.write(pattern(5));
        same(await readExactly(server, 5), pattern(5));

        const second = new AbortController();
        const underWay = client.write(pattern(64 * MIB), { signal: second.signal });
        await sleep(20);
        second.abort();
        await rejectsWith(underWay, "aborted");
        await rejectsWith(client.closed, "aborted");
      }),
  );

  check(
    "close() gives a stopped reader flushTimeoutMs, and a peer that stays lingerMs",
    async () => {
      await withPair(async (client) => {
        await fill(client);
        await rejectsWith(client.close(), "timeout");
        await rejectsWith(client.closed, "timeout");
      }, { flushTimeoutMs: 100 });
      await withPair(async (client, server) => {
        await client.close();
        await client.closed;
        assertEquals(await server.read(), null);
      }, { lingerMs: 50 });
    },
  );

  check(
    "web streams: pipes, BYOB, and an end that leaves writing open",
    () =>
      withPair(async (client, server) => {
        const writer = client.writable.getWriter();
        writer.write(pattern(200_000));
        writer.close();
        const byob = server.readable.getReader({ mode: "byob" });
        const parts: Uint8Array[] = [];
        for (;;) {
          const { done, value } = await byob.read(new Uint8Array(1000));
          if (done) break;
          assert(value.length <= 1000);
          parts.push(value);
        }
        same(new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()), pattern(200_000));
        await writer.closed;

        const upper = new TransformStream<Uint8Array, Uint8Array>();
        const piped = upper.readable.pipeTo(server.writable);
        const into = upper.writable.getWriter();
        into.write(pattern(100_000, 3));
        into.close();
        let length = 0;
        for await (const chunk of client.readable) length += chunk.length;
        assertEquals(length, 100_000);
        await piped;
        await Promise.all([client.closed, server.closed]);
      }),
  );

  check(
    "web streams: cancelling stops reading only, aborting ends all",
    () =>
      withPair(async (client, server) => {
        await server.readable.cancel();
        await server.write(pattern(10));
        same(await readExactly(client, 10), pattern(10));
        await client.writable.abort(new Error("no more"));
        await rejectsWith(client.closed, "aborted");
      }),
  );

  check(
    "socket options are taken, on a closed connection too",
    () =>
      withPair(async (client, server) => {
        for (const conn of [client, server]) {
          conn.setNoDelay(false);
          conn.setNoDelay();
          conn.setKeepAlive(true);
          conn.setKeepAlive(5000);
          conn.setKeepAlive(false);
        }
        await client.write(pattern(10));
        same(await readExactly(server, 10), pattern(10));
        client.abort();
        client.setNoDelay();
        client.setKeepAlive(true);
        assertEquals(client.peerCredentials(), undefined);
      }, { keepAlive: 1000, noDelay: false }),
  );
}
