/** A session of v2 as the side that closes, towards a peer that grants what it reads at once, also on the way to the end. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Conn, connect, connPair, listen, wrapConn } from "@trunkline/sockets/auto";
import { client, type Mux, type MuxError, server } from "@trunkline/sockets/mux";
import { sleep } from "./adapter_suite.ts";
import { closeBoth, codeOf, muxPair, streamPair, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { pattern } from "./mux_vectors.ts";
import {
  control,
  data,
  meet as meetOver,
  type Meeting,
  type MeetOptions,
  type Peer,
  TYPE,
} from "./mux2_scenario_peer.ts";
import { unhandledDuring } from "./unhandled.ts";
import { timersAfter } from "./timers.ts";

const WINDOW = 131072;

const check = (title: string, body: () => Promise<void>) =>
  test(`mux v2 scenario: closing: ${title}`, { timeout: 60_000 }, async () => {
    assertEquals(await unhandledDuring(body), []);
  });

/** Both ends of a TCP connection: in memory nothing is reset. */
async function tcpPair(): Promise<[Conn, Conn]> {
  const listener = await listen("127.0.0.1:0");
  const near = await connect(listener.addr);
  const far = await listener.accept();
  await listener.close();
  return [near, far];
}

/** Takes its time for each chunk, so that the last frames wait in the kernel when the session is done. */
function slowly(conn: Conn): Conn {
  const slow = new TransformStream<Uint8Array, Uint8Array>({
    async transform(chunk, out) {
      await sleep(1);
      out.enqueue(chunk);
    },
  });
  return wrapConn({ readable: conn.readable.pipeThrough(slow), writable: conn.writable });
}

async function meet(
  role: typeof client,
  slow = false,
  options: MeetOptions = {},
): Promise<Meeting> {
  const [near, far] = await tcpPair();
  const conns: [Conn, Conn] = [near, slow ? slowly(far) : far];
  return await meetOver(role, { conns, closeTimeoutMs: 20_000, ...options });
}

/** The peer has it all: each stream to its end, then the farewell, then the end of the transport, in order. */
async function assertWhole(
  { mux, peer }: Meeting,
  payloads: ReadonlyMap<number, Uint8Array>,
): Promise<void> {
  await peer.end();
  await mux.closed;
  for (const [id, payload] of payloads) {
    assert(peer.seen(id).opened);
    const came = peer.received(id);
    assert(came.length === payload.length, `stream ${id}: ${came.length} bytes`);
    assert(came.every((byte, at) => byte === payload[at]), `stream ${id}: other bytes`);
    assertEquals(peer.seen(id).ends, [TYPE.CLOSE]);
  }
  assertEquals([peer.frames.at(-1)!.type, peer.count(TYPE.END)], [TYPE.END, 1]);
  assertEquals(peer.count(TYPE.GOAWAY), 1);
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
}

/** Opens so many streams, writes to each and closes all and the session at once. */
async function writeAndClose(mux: Mux, count: number, size: number): Promise<{
  readonly payloads: Map<number, Uint8Array>;
  readonly done: Promise<unknown>;
}> {
  const payloads = new Map<number, Uint8Array>();
  const pending: Promise<void>[] = [];
  for (let i = 0; i < count; i++) {
    const stream = await mux.openStream();
    const payload = pattern(size, i);
    payloads.set(stream.id, payload);
    pending.push(stream.write(payload), stream.close());
  }
  return { payloads, done: Promise.all([...pending, mux.close()]) };
}

for (const role of [client, server]) {
  const theirs = role === client ? 1 : 0;
  for (const slow of [false, true]) {
    const who = `${role.name}, to a peer that is ${slow ? "slow" : "fast"}`;
    check(`nothing is lost of 40 streams with a full window each: ${who}`, async () => {
      for (let run = 0; run < 2; run++) {
        const meeting = await meet(role, slow);
        const { payloads, done } = await writeAndClose(meeting.mux, 40, WINDOW);
        await done;
        await assertWhole(meeting, payloads);
      }
    });
  }

  check(`what is beyond the window follows when the peer grants: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    peer.granting = false;
    const { payloads, done } = await writeAndClose(mux, 5, 3 * WINDOW);
    for (const id of payloads.keys()) await peer.until(() => peer.seen(id).bytes === WINDOW, "it");
    assertEquals([peer.farewell, peer.count(TYPE.CLOSE)], [false, 0]);
    peer.granting = true;
    peer.send(...[...payloads.keys()].map((id) => control(TYPE.WINDOW, id, WINDOW)));
    await done;
    await assertWhole(meeting, payloads);
  });

  check(`a peer that sends until it hears of the end is not reset: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    peer.answering = false;
    const chatty = await mux.openStream();
    peer.send(control(TYPE.OPEN, theirs, 3));
    await mux.acceptStream();
    const { payloads, done } = await writeAndClose(mux, 20, WINDOW);
    const talk = async () => {
      for (const id of [chatty.id, theirs]) {
        // It keeps to its window, and to what it knows.
        const room = () => WINDOW + peer.seen(id).credit;
        for (let sent = 0; !peer.farewell; await sleep(0)) {
          if (sent + 9000 > room() || peer.seen(id).ends.length > 0) break;
          sent += 9000;
          await peer.send(data(id, new Uint8Array(9000)));
        }
      }
      // What was on its way when the farewell came.
      await peer.until(() => peer.farewell, "the farewell");
      for (let i = 0; i < 50; i++) {
        peer.send(data(chatty.id, new Uint8Array(100)), control(TYPE.WINDOW, theirs, 1000));
      }
      // Behind the end of our transport, which it may have heard of by now.
      await peer.sayFarewell();
      await peer.conn.close();
    };
    await Promise.all([talk(), done]);
    await assertWhole(meeting, payloads);
  });

  check(`a peer that closes as soon as it hears of the end has it all: ${role.name}`, async () => {
    for (let run = 0; run < 10; run++) {
      const meeting = await meet(role);
      const { mux, peer } = meeting;
      const gone = peer.until(() => peer.farewell, "the farewell").then(() => peer.sayFarewell())
        .then(() => peer.conn.close());
      const { payloads, done } = await writeAndClose(mux, 10, 20_000);
      await Promise.all([done, gone]);
      await assertWhole(meeting, payloads);
    }
  });

  check(`streams of the peer that nobody accepted are closed too: ${role.name}`, async () => {
    const meeting = await meet(role);
    const { mux, peer } = meeting;
    for (const id of [theirs, theirs + 2]) {
      peer.send(control(TYPE.OPEN, id, 3), data(id, new Uint8Array(WINDOW / 4)));
      peer.send(data(id, new Uint8Array(WINDOW / 4)));
    }
    while (mux.stats().bytesReceived < WINDOW) await sleep(1);
    await mux.close();
    for (const id of [theirs, theirs + 2]) assertEquals(peer.seen(id).ends, [TYPE.CLOSE]);
    await assertWhole(meeting, new Map());
  });
}

check("a farewell of both sides at once is in order, and each says one", async () => {
  for (let run = 0; run < 20; run++) {
    const { mux, peer } = await meet(client);
    const stream = await mux.openStream();
    await stream.write(utf8("x"));
    await peer.until(() => peer.seen(0).bytes === 1, "a byte");
    const theirs = peer.sayFarewell();
    if (run % 2 === 0) await sleep(run / 2);
    await Promise.all([mux.close(), mux.closed, theirs]);
    await peer.end();
    assertEquals(peer.count(TYPE.END), 1);
    assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  }
});

check("a peer that dies meanwhile is told as such", async () => {
  const { mux, peer } = await meet(client);
  peer.granting = false;
  const stream = await mux.openStream();
  const written = codeOf(stream.write(new Uint8Array(2 * WINDOW)));
  const closing = codeOf(mux.close());
  await peer.until(() => peer.seen(0).bytes === WINDOW, "a full window");
  peer.conn.abort();
  assertEquals([await closing, await codeOf(mux.closed)], ["truncated", "truncated"]);
  assertEquals([await written, await codeOf(stream.closed)], ["truncated", "truncated"]);
});

check("a peer that ends the transport without a farewell may not have everything", async () => {
  const { mux, peer } = await meet(client);
  peer.answering = false;
  const closing = codeOf(mux.close());
  await peer.until(() => peer.farewell, "the farewell");
  await peer.conn.close();
  assertEquals([await closing, await codeOf(mux.closed)], ["truncated", "truncated"]);
});

check("a peer that never ends its transport is waited for so long, and then told", async () => {
  const [near, far] = connPair({ lingerMs: 20 });
  const options = { conns: [near, far] as const, closeTimeoutMs: 100, reading: false };
  const { mux } = await meetOver(client, options);
  await mux.openStream();
  const ended = (async () => {
    while (await far.read() !== null);
  })();
  assertEquals(await codeOf(mux.close()), "timeout");
  assertEquals(await codeOf(mux.closed), "timeout");
  await ended.catch(() => {});
  far.abort();
});

const ends: Readonly<Record<string, (near: Mux, far: Mux) => unknown>> = {
  "of both sides": (near, far) => closeBoth(near, far),
  "of one side": (near) => near.close(),
  "by abort()": (near) => near.abort(),
};

for (const [name, end] of Object.entries(ends)) {
  check(`after an end ${name} no timer is left, in the handshake neither`, async () => {
    const left = await timersAfter(async () => {
      const [near, far] = muxPair({ protocol: "v2" });
      const [a, b] = await streamPair(near, far);
      const [c] = await streamPair(far, near);
      for (const stream of [a, b, c]) stream.setDeadline(1e7);
      await a.write(new Uint8Array(WINDOW));
      const full = a.write(utf8("x")).catch(() => {});
      const closing = a.close().catch(() => {});
      await c.closeWrite();
      await b.closeRead();
      await Promise.all([full, closing]);
      await end(near, far);
      await Promise.allSettled([near.closed, far.closed]);
      await sleep(20);
    });
    assertEquals(left, 0);
    for (let turns = 0; turns < 8; turns++) {
      const left = await timersAfter(async () => {
        const [near, far] = muxPair({ protocol: "v2" });
        const opening = [near, far].map((mux) => mux.openStream().catch(() => {}));
        for (let i = 0; i < turns; i++) await sleep(0);
        await Promise.resolve(end(near, far)).catch(({ code }: MuxError) => code);
        await Promise.allSettled([near.closed, far.closed, near.ready, far.ready, ...opening]);
        for (const mux of [near, far]) assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
        await sleep(30);
      });
      assertEquals(left, 0, `after ${turns} turns`);
    }
  });
}

check("nothing is sent behind the farewell", async () => {
  const { mux, peer } = await meetOver(client, { reading: false });
  const stream = await mux.openStream();
  const written = stream.write(new Uint8Array(WINDOW));
  await sleep(5);
  const closed = mux.close();
  await sleep(5);
  // It is refused without a word.
  peer.send(control(TYPE.OPEN, 1, 3), control(TYPE.PING, 0, 9));
  await sleep(20);
  peer.read();
  await Promise.all([written, closed, peer.end()]);
  assertEquals(peer.frames.slice(-2).map(({ type }) => type), [TYPE.CLOSE, TYPE.END]);
});

/** The types of all frames on a stream, but for grants. */
const types = (peer: Peer, id: number): number[] =>
  peer.frames.filter((frame) => frame.id === id && frame.type < TYPE.WINDOW).map(({ type }) =>
    type
  );

check("a stream's close() and a write race, 500 times", async () => {
  const { mux, peer } = await meetOver(client);
  const taken = new Map<number, number>();
  for (let run = 0; run < 500; run++) {
    const stream = await mux.openStream();
    const size = run % 7 === 0 ? 70_000 : 5;
    let bytes = 0;
    const writing = (async () => {
      // In memory nothing but promises is at work: without an end no timer would have its turn.
      for (let left = size > 5 ? 3 : 100; left > 0; left--) {
        await stream.write(new Uint8Array(size));
        bytes += size;
      }
    })().catch((error: MuxError) => void (bytes += error.written ?? 0));
    for (let left = run % 23; left > 0; left--) await undefined;
    if (run % 5 === 4) await sleep(0);
    if (run % 4 === 0) stream.abort();
    else if (run % 4 === 1) await stream.close();
    else if (run % 4 === 2) stream.reset(run);
    else {
      await stream.closeWrite();
      await stream.closeRead();
    }
    await writing;
    taken.set(stream.id, bytes);
  }
  await mux.close();
  await peer.end();
  const endings = [[TYPE.RESET], [TYPE.CLOSE], [TYPE.RESET], [TYPE.FIN, TYPE.STOP]];
  for (const [id, bytes] of taken) {
    const all = types(peer, id);
    const first = all.findIndex((type) => type > TYPE.OPEN);
    assertEquals(all[0], TYPE.OPEN);
    assertEquals(all.slice(first), endings[id / 2 % 4], `the end of stream ${id}, and no more`);
    assertEquals(peer.seen(id).bytes, bytes, `stream ${id}`);
  }
});
