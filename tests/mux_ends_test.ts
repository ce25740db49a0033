/** How streams and sessions end where somebody waits, hurries, or makes a mistake. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import { type Conn, connect, connPair, listen as listenConn } from "@trunkline/sockets/auto";
import {
  client,
  dial,
  listen,
  type MuxError,
  type MuxStream,
  server,
} from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { closeBoth, codeOf, muxPair, PSK, type Speaks, spoken, streamPair } from "./mux_pair.ts";
import { unhandledDuring } from "./unhandled.ts";

const WINDOW = 131072;

/** On both protocols. */
function check(title: string, body: (speaks: Speaks) => Promise<void>): void {
  for (const { mux, speaks } of spoken(title)) {
    test(`${mux} ends: ${title}`, { timeout: 60_000 }, async () => {
      assertEquals(await unhandledDuring(() => body(speaks)), []);
    });
  }
}

/** More than anybody takes, piece by piece. */
function endless(): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(out) {
      await sleep(0);
      out.enqueue(new Uint8Array(65536));
    },
  }, { highWaterMark: 0 });
}

check("pipeTo() that is stuck is given up by abort() of its stream", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a] = await streamPair(near, far);
  // Its signal alone would not do: web streams wait for the write that is under way.
  const piping = codeOf(endless().pipeTo(a.writable));
  while (a.queued === 0) await sleep(1);
  a.abort();
  assertEquals(await piping, "stream-closed");
  assertEquals(near.stats().streams, 0);
  await closeBoth(near, far);
});

check("writer.abort() does not wait for the write that is stuck, which rejects", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a] = await streamPair(near, far);
  const writer = a.writable.getWriter();
  writer.closed.catch(() => {});
  const written = writer.write(new Uint8Array(3 * WINDOW)).then(() => "sent", () => "rejected");
  while (a.queued > 2 * WINDOW) await sleep(1);
  await writer.abort(new Error("enough"));
  assertEquals(await written, "rejected");
  await closeBoth(near, far);
});

check("web streams that nobody uses at the moment hear of an end", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a, b] = await streamPair(near, far);
  const [c] = await streamPair(near, far);
  const idle = () => new ReadableStream<Uint8Array>({ pull: () => new Promise(() => {}) });
  const piping = codeOf(idle().pipeTo(a.writable));
  const closed = codeOf(c.writable.getWriter().closed);
  const read = codeOf(c.readable.getReader().closed);
  await b.close();
  assertEquals(await piping, "peer-closed-stream");
  far.abort();
  assertEquals([await closed, await read], ["truncated", "truncated"]);
});

check("what breaks the web stream for good ends the stream", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a, b] = await streamPair(near, far);
  const writer = a.writable.getWriter();
  writer.closed.catch(() => {});
  await assertRejects(() => writer.write("text" as never), TypeError);
  await sleep(5);
  const aborted = { v1: null, v2: "reset" }[speaks.protocol];
  assertEquals(await b.read().catch(({ code }) => code), aborted);
  const [c, d] = await streamPair(near, far);
  c.setWriteDeadline(5);
  assertEquals(await codeOf(endless().pipeTo(c.writable)), "timeout");
  assertEquals(await endOf(d), aborted);
  assertEquals([near.stats().streams, far.stats().streams], [0, 0]);
  await closeBoth(near, far);
});

/** Reads to the end; its code if it is an error. */
async function endOf(stream: MuxStream): Promise<string | null> {
  try {
    while (await stream.read() !== null);
    return null;
  } catch (error) {
    return (error as MuxError).code;
  }
}

check("a write that nobody waits for rejects in silence", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a] = await streamPair(near, far);
  a.write(new Uint8Array(1e6));
  near.abort();
  far.abort();
  await sleep(5);
});

check(
  "bytes that are transferred before they are sent end their own stream only",
  async (speaks) => {
    const [near, far] = muxPair(speaks);
    const [a] = await streamPair(near, far);
    const [c, d] = await streamPair(near, far);
    const bytes = new Uint8Array(1000);
    const written = a.write(bytes).catch((error: MuxError) => error);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    const error = await written as MuxError;
    assertEquals(error.code, "stream-closed");
    assert(error.cause instanceof TypeError, String(error.cause));
    await c.write(new Uint8Array(7));
    assertEquals((await d.read())?.length, 7);
    await closeBoth(near, far);
  },
);

check(
  "thousands of streams that are closed at once all arrive, none is refused",
  async (speaks) => {
    const [near, far] = muxPair(speaks);
    const count = 6000;
    let bytes = 0;
    const accepting = (async () => {
      for (let i = 0; i < count; i++) {
        const stream = await far.acceptStream();
        if (i % 100 === 0) await sleep(0);
        for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
          bytes += chunk.length;
        }
        await stream.close();
      }
    })();
    for (let i = 0; i < count; i++) {
      const stream = await near.openStream();
      stream.write(new Uint8Array(100));
      await stream.close();
    }
    await accepting;
    assertEquals(bytes, 100 * count);
    assertEquals(far.stats().refusedStreams, 0);
    await closeBoth(near, far);
  },
);

check("close() waits for what is on its way over a slow line", async (speaks) => {
  // Both ends of a TCP connection through somebody who takes his time: nothing may be reset.
  const [ours, toRelay] = await tcpPair();
  const [fromRelay, theirs] = await tcpPair();
  const total = 20 * WINDOW;
  const relaying = Promise.all([
    slowly(toRelay, fromRelay),
    fromRelay.readable.pipeTo(toRelay.writable).catch(() => {}),
  ]);
  const near = client(ours, { psk: PSK, ...speaks });
  const far = server(theirs, { psk: PSK, ...speaks });
  let received = 0;
  const receiving = (async () => {
    for await (const stream of far) {
      for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
        received += chunk.length;
      }
    }
  })();
  for (let i = 0; i < 20; i++) {
    const stream = await near.openStream();
    stream.write(new Uint8Array(WINDOW));
  }
  await near.close();
  await far.closed;
  await receiving;
  assertEquals(received, total);
  await relaying;
});

/** About 4 MB in 3 seconds, which is longer than a connection of the adapters lingers. */
async function slowly(from: Conn, to: Conn): Promise<void> {
  for (let chunk = await from.read(); chunk; chunk = await from.read()) {
    await sleep(chunk.length / 900);
    await to.write(chunk);
  }
  await to.closeWrite();
}

async function tcpPair(): Promise<[Conn, Conn]> {
  const listener = await listenConn("127.0.0.1:0");
  const near = await connect(listener.addr);
  const far = await listener.accept();
  await listener.close();
  return [near, far];
}

check("closing waits no longer than its signal", async (speaks) => {
  const [near, far] = connPair();
  const mux = client(near, { psk: PSK, ...speaks });
  // One that nobody reads from in the end.
  const other = server(far, { psk: PSK, ...speaks });
  const stream = await mux.openStream();
  stream.write(new Uint8Array(2 * WINDOW)).catch(() => {});
  const signal = AbortSignal.timeout(10);
  assertEquals(await codeOf(stream.closeWrite({ signal })), "timeout");
  assertEquals(await codeOf(stream.close({ signal })), "timeout");
  assertEquals(await codeOf(mux.close({ signal })), "timeout");
  mux.abort();
  other.abort();
});

check("a deadline of a stream that is over sets no timer", async (speaks) => {
  const [near, far] = muxPair(speaks);
  const [a, b] = await streamPair(near, far);
  await b.close();
  assertEquals(await a.read(), null);
  const { setTimeout: set } = globalThis;
  let timers = 0;
  globalThis.setTimeout = ((...parameters: Parameters<typeof set>) => {
    timers++;
    return set(...parameters);
  }) as typeof set;
  a.setDeadline(60_000);
  globalThis.setTimeout = set;
  assertEquals(timers, 0);
  await closeBoth(near, far);
});

check("ready tells that the peer has the psk; another one is no success", async (speaks) => {
  const [near, far] = muxPair(speaks);
  await Promise.all([near.ready, far.ready]);
  await closeBoth(near, far);
  const [ours, theirs] = connPair();
  const mine = client(ours, { psk: PSK, ...speaks });
  const yours = server(theirs, { psk: "another", ...speaks });
  assertEquals(await codeOf(yours.ready), "auth-failed");
  const error = await mine.ready.then(() => undefined, (error: MuxError) => error);
  assertEquals(error?.code, { v1: "truncated", v2: "auth-failed" }[speaks.protocol]);
  assert(error?.message.includes("psk"), error?.message);
});

check(
  "listen() and dial() refuse a psk that is none, and listen() keeps a copy of its own",
  async (speaks) => {
    const none = { psk: undefined as unknown as string, ...speaks };
    await assertRejects(() => listen("127.0.0.1:0", none), TypeError, "psk");
    await assertRejects(() => dial("127.0.0.1:1", none), TypeError, "psk");
    const psk = new Uint8Array(32).fill(5);
    const listener = await listen("127.0.0.1:0", { psk, ...speaks });
    psk.fill(0);
    const near = await dial(listener.addr, { psk: new Uint8Array(32).fill(5), ...speaks });
    const far = await listener.accept();
    await Promise.all([near.ready, far.ready]);
    await closeBoth(near, far);
    await listener.close();
  },
);

check("an aead that is none is refused", (speaks) => {
  const [ours] = connPair();
  try {
    client(ours, { psk: PSK, ...speaks, aead: {} as never });
    throw new Error("it was taken");
  } catch (error) {
    assert(error instanceof TypeError, String(error));
  }
  ours.abort();
  return Promise.resolve();
});
