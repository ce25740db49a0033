/** The channel that events go through: bounded, fair, and nothing lost. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { test } from "node:test";
import {
  Channel,
  CHANNEL_BYTES,
  CHANNEL_CAPACITY,
  type ChannelItem,
  ManagerError,
} from "@trunkline/sockets/cmgr";
import { codeOf, within } from "./cmgr_support.ts";

interface Item extends ChannelItem {
  readonly n: number;
}
const item = (n: number, size = 0): Item => ({ n, data: new Uint8Array(size) });

/** Sends `count` items, and tells which of the senders that had to wait may go on. */
function sendAll(channel: Channel<Item>, count: number, size = 0): { readonly freed: number[] } {
  const freed: number[] = [];
  for (let n = 1; n <= count; n++) channel.send(item(n, size))?.then(() => freed.push(n));
  return { freed };
}

async function takeAll(channel: Channel<Item>, count: number): Promise<number[]> {
  const numbers: number[] = [];
  for (let i = 0; i < count; i++) {
    numbers.push((await within(channel.receive(), `item ${i}`))!.n);
  }
  return numbers;
}

/** Lets everything happen that needs no more than microtasks. */
const settled = () => new Promise<void>((resolve) => setTimeout(resolve));

test("Channel has the documented defaults", () => {
  assertEquals([CHANNEL_CAPACITY, CHANNEL_BYTES], [1024, 16 * 1024 * 1024]);
  const channel = new Channel();
  assertEquals([channel.capacity, channel.length, channel.closed], [1024, 0, false]);
});

test("Channel() refuses limits that are none", () => {
  for (const wrong of [0, -1, NaN, "5" as unknown as number]) {
    assertThrows(() => new Channel(wrong), RangeError, "capacity is");
    assertThrows(() => new Channel(1, { maxBytes: wrong }), RangeError, "maxBytes is");
  }
});

test("send() waits when `capacity` items are there, and no earlier", async () => {
  const channel = new Channel<Item>(3);
  for (let n = 1; n <= 3; n++) assertEquals(channel.send(item(n)), undefined);
  const waiting = channel.send(item(4));
  assert(waiting instanceof Promise);
  assertEquals(channel.length, 3);
  assertEquals((await channel.receive())!.n, 1);
  await within(waiting, "the sender");
  assertEquals(channel.length, 3);
  assertEquals(await takeAll(channel, 3), [2, 3, 4]);
});

test("send() waits when `maxBytes` are there; the last item may be more", async () => {
  const channel = new Channel<Item>(100, { maxBytes: 10 });
  assertEquals(channel.send(item(1, 9)), undefined);
  assertEquals(channel.send(item(2, 1000)), undefined);
  const { freed } = sendAll(channel, 2);
  await settled();
  assertEquals([freed, channel.length], [[], 2]);
  // 1000 are left, which is still too much.
  assertEquals((await channel.receive())!.n, 1);
  await settled();
  assertEquals(freed, []);
  assertEquals((await channel.receive())!.n, 2);
  await settled();
  assertEquals(freed, [1, 2]);
});

test("an item larger than `maxBytes` goes through an empty channel", async () => {
  const channel = new Channel<Item>(4, { maxBytes: 1 });
  assertEquals(channel.send(item(1, 5_000_000)), undefined);
  assertEquals((await channel.receive())!.data.length, 5_000_000);
});

test("senders that wait go on in the order of their calls, one for each item taken", async () => {
  const channel = new Channel<Item>(1);
  const { freed } = sendAll(channel, 5);
  for (let taken = 1; taken <= 5; taken++) {
    assertEquals(await takeAll(channel, 1), [taken]);
    await settled();
    assertEquals(freed, [2, 3, 4, 5].slice(0, taken));
  }
});

test("a sender that comes later never overtakes one that waits", async () => {
  const channel = new Channel<Item>(1);
  sendAll(channel, 2);
  const received = channel.receive();
  channel.send(item(3));
  assertEquals((await received)!.n, 1);
  assertEquals(await takeAll(channel, 2), [2, 3]);
});

test("receive() waits for an item; those who wait are served in turn", async () => {
  const channel = new Channel<Item>(1);
  const waiting = [channel.receive(), channel.receive(), channel.receive()];
  for (let n = 1; n <= 3; n++) assertEquals(channel.send(item(n)), undefined);
  assertEquals((await Promise.all(waiting)).map((it) => it!.n), [1, 2, 3]);
});

test("receive() ends with its signal, and loses nothing", async () => {
  const channel = new Channel<Item>(2);
  const stop = new AbortController();
  const waiting = channel.receive({ signal: stop.signal });
  const next = channel.receive();
  const reason = new Error("enough");
  stop.abort(reason);
  const error = await waiting.catch((it) => it);
  assert(error instanceof ManagerError);
  assertEquals([error.code, error.cause], ["aborted", reason]);
  channel.send(item(1));
  assertEquals((await next)!.n, 1);
  assertEquals(await codeOf(channel.receive({ signal: AbortSignal.timeout(1) })), "timeout");
  channel.send(item(2));
  assertEquals(await codeOf(channel.receive({ signal: stop.signal })), "aborted");
  assertEquals((await channel.receive())!.n, 2);
});

test("receive() leaves nothing on a signal that lives longer", async () => {
  const channel = new Channel<Item>(1);
  const { signal } = new AbortController();
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
  signal.removeEventListener = (...args: Parameters<typeof add>) => (listeners--, remove(...args));
  const waiting = channel.receive({ signal });
  assertEquals(listeners, 1);
  channel.send(item(1));
  await waiting;
  assertEquals(listeners, 0);
});

test("close() lets what is there be taken, then gives null", async () => {
  const channel = new Channel<Item>(2);
  sendAll(channel, 2);
  channel.close();
  channel.close();
  assertEquals(channel.closed, true);
  assertEquals(channel.send(item(9)), undefined);
  assertEquals(await takeAll(channel, 2), [1, 2]);
  assertEquals([await channel.receive(), await channel.receive()], [null, null]);
});

test("close() frees who waits to send, and who waits to receive", async () => {
  const full = new Channel<Item>(1);
  const { freed } = sendAll(full, 3);
  full.close();
  await settled();
  assertEquals(freed, [2, 3]);
  assertEquals(await takeAll(full, 1), [1]);
  assertEquals(await full.receive(), null);
  const empty = new Channel<Item>(1);
  const waiting = [empty.receive(), empty.receive()];
  empty.close();
  assertEquals(await within(Promise.all(waiting), "the receivers"), [null, null]);
});

test("a loop ends when the channel is closed and empty", async () => {
  const channel = new Channel<Item>(5);
  sendAll(channel, 5);
  channel.close();
  const numbers: number[] = [];
  for await (const { n } of channel) numbers.push(n);
  assertEquals(numbers, [1, 2, 3, 4, 5]);
});

test("a loop that is left early loses nothing, and closes nothing", async () => {
  const channel = new Channel<Item>(5);
  sendAll(channel, 5);
  for await (const { n } of channel) if (n === 2) break;
  const failing = async () => {
    for await (const { n } of channel) throw new Error(`at ${n}`);
  };
  assertEquals(await failing().catch((error) => error.message), "at 3");
  assertEquals([channel.closed, await takeAll(channel, 2)], [false, [4, 5]]);
});

test("several loops share the items: each is taken once", async () => {
  const channel = new Channel<Item>(4);
  const shares: number[][] = [[], [], []];
  const loops = shares.map(async (share) => {
    for await (const { n } of channel) {
      share.push(n);
      await settled();
    }
  });
  for (let n = 0; n < 60; n++) await channel.send(item(n));
  channel.close();
  await within(Promise.all(loops), "the loops");
  for (const share of shares) assert(share.length > 0, "a loop got nothing");
  assertEquals(shares.flat().sort((a, b) => a - b), Array.from({ length: 60 }, (_, n) => n));
});

test("remove() takes out items and senders that wait, and lets others in", async () => {
  const channel = new Channel<Item>(2);
  const { freed } = sendAll(channel, 6);
  channel.remove(({ n }) => n % 2 === 1);
  await settled();
  // 1 was there; 3 and 5 waited and are dropped; 4 took the free place.
  assertEquals(freed.sort(), [3, 4, 5]);
  assertEquals(await takeAll(channel, 3), [2, 4, 6]);
  assertEquals(channel.length, 0);
});

test("remove() gives back the bytes of what it takes out", async () => {
  const channel = new Channel<Item>(100, { maxBytes: 10 });
  channel.send(item(0, 10));
  const { freed } = sendAll(channel, 1, 10);
  channel.remove(({ n }) => n === 0);
  await settled();
  assertEquals(freed, [1]);
  assertEquals(await takeAll(channel, 1), [1]);
  assertEquals(channel.send(item(2, 10)), undefined);
});

test("any order of calls: nothing is lost, doubled or overtaken, and the limits hold", async () => {
  const call = fc.oneof(
    fc.record({ kind: fc.constant("send" as const), size: fc.nat(12) }),
    fc.record({ kind: fc.constant("receive" as const), size: fc.constant(0) }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(call, { maxLength: 60 }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 20 }),
      async (calls, capacity, maxBytes) => {
        const channel = new Channel<Item>(capacity, { maxBytes });
        let sent = 0;
        const receiving: Promise<Item | null>[] = [];
        for (const { kind, size } of calls) {
          if (kind === "receive") receiving.push(channel.receive());
          else channel.send(item(sent++, size));
          assert(channel.length <= capacity, `${channel.length} items, at most ${capacity} fit`);
        }
        while (receiving.length < sent) receiving.push(channel.receive());
        channel.close();
        const numbers = (await Promise.all(receiving)).map((it) => it?.n ?? null);
        const expected = Array.from(receiving, (_, n) => n < sent ? n : null);
        assertEquals(numbers, expected);
      },
    ),
    { numRuns: 200 },
  );
});

test("an iterator that was left takes nothing any more", async () => {
  const channel = new Channel<Item>(4);
  const left = channel[Symbol.asyncIterator]();
  const waiting = left.next();
  await left.return!();
  assertEquals(await waiting, { done: true, value: undefined });
  assertEquals((await left.next()).done, true);
  channel.send(item(1));
  assertEquals(await channel.receive(), item(1));
});
