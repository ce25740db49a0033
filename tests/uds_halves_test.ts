/** The sender of `./uds`, the two halves of a call in pieces, and its decoders, by properties. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  ClientMsg,
  ClientMsgDecoder,
  ServerMsg,
  ServerMsgDecoder,
  UdsError,
} from "@trunkline/sockets/uds";
import { Assembly, ReceiveHalf } from "../uds/_receive_half.ts";
import { WINDOW_BYTES } from "../uds/_send_half.ts";
import type { Sender } from "../uds/_sender.ts";
import { MessageSplitter } from "../uds/decoder.ts";
import { randomOf } from "./mux_peer.ts";
import { type Half, HalvesPair, pause, SlowConn, slowSender, splits } from "./uds_halves_pair.ts";
import { unhandledDuring } from "./unhandled.ts";

const KIB = 1024;
/** Any message is a part of it, so that a byte in the wrong place is seen. */
const TEXT = Uint8Array.from({ length: 2 ** 21 }, (_, i) => (Math.imul(i, 0x9e3779b1) >>> 23) ^ i);
const textOf = (seed: number, size: number): Uint8Array =>
  TEXT.subarray(seed * 7919 % 2 ** 20).subarray(0, size);

const near = (size: number) => fc.integer({ min: -20, max: 20 }).map((by) => size + by);
/** Around every size at which something else is done. */
const size = fc.oneof(
  { weight: 4, arbitrary: fc.nat(100) },
  { weight: 2, arbitrary: fc.nat(20 * KIB) },
  { weight: 2, arbitrary: fc.constantFrom(32, 64, 128, 256).chain((kib) => near(kib * KIB)) },
  { weight: 1, arbitrary: near(1000 * KIB) },
);
const seed = fc.nat(2 ** 30);

/** Checks many plans, the same ones each time. */
function check<T>(
  title: string,
  plans: fc.Arbitrary<T>,
  runs: number,
  then: (plan: T) => Promise<void> | void,
): void {
  test(`uds halves: ${title}`, { timeout: 60_000 }, async () => {
    const property = fc.asyncProperty(plans, async (plan) => await then(plan));
    const unhandled = await unhandledDuring(() =>
      fc.assert(property, { numRuns: runs, seed: 20261121, endOnFailure: true })
    );
    assertEquals(unhandled, []);
  });
}

/** Nothing takes for ever. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not done within 10 s`)), 10_000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function assertSame(actual: Uint8Array | undefined, expected: Uint8Array): void {
  assertEquals(actual?.length, expected.length);
  // Not by assertEquals, which is slow with a million of them.
  assert(actual!.every((byte, i) => byte === expected[i]), "other bytes");
}

const sends = fc.record({ seed, sizes: fc.array(size, { maxLength: 30 }), wait: fc.boolean() });

check("all that is sent is written, whole and in order", sends, 60, async (plan) => {
  const random = randomOf(plan.seed);
  const written: Uint8Array[] = [];
  const errors: unknown[] = [];
  const conn = new SlowConn(random, (bytes) => written.push(bytes));
  const sender = slowSender(conn, (error) => errors.push(error));
  const data = (id: number, size: number) => textOf(plan.seed + id, size);
  for (const [id, size] of plan.sizes.entries()) {
    sender.send({ id, type: 1, data: data(id, size) });
    if (random() < 0.5) await pause(random);
    if (plan.wait) await within("low()", sender.low());
    if (plan.wait) assert(!sender.full);
  }
  await within("idle()", sender.idle());

  const decoder = new ServerMsgDecoder();
  const parts = written.flatMap((bytes) => [...splits(bytes, random)]);
  const messages = parts.flatMap((part) => [...decoder.push(part)]);
  assertEquals(messages.map(({ id }) => id), plan.sizes.map((_, id) => id));
  for (const [id, size] of plan.sizes.entries()) assertSame(messages[id]?.data, data(id, size));
  assertEquals([decoder.partial, errors], [false, []]);
});

const stops = fc.record({
  seed,
  sizes: fc.array(size, { minLength: 1, maxLength: 30 }),
  at: fc.nat(30),
});

check(
  "after stop() nothing is written, and nobody waits",
  stops,
  40,
  async ({ seed, sizes, at }) => {
    const random = randomOf(seed);
    const conn = new SlowConn(random, () => {});
    const sender = slowSender(conn, () => {});
    const waiting: Promise<void>[] = [];
    let writes = 0;
    for (const [id, size] of sizes.entries()) {
      if (id === at) {
        sender.stop();
        writes = conn.writes;
      }
      sender.send({ id, type: 1, data: textOf(id, size) });
      waiting.push(sender.low(), sender.idle());
      await pause(random);
    }
    if (at >= sizes.length) return sender.stop();
    await within("waiting", Promise.all([...waiting, sender.low(), sender.idle()]));
    assertEquals(conn.writes, writes);
  },
);

const MAX_MESSAGE = 2 ** 20;
const LIMITS = { maxMessage: MAX_MESSAGE, maxBuffered: 2 * MAX_MESSAGE };

const messages = fc.array(size, { maxLength: 6 });
const calls = fc.record({ seed, calls: fc.array(messages, { minLength: 1, maxLength: 6 }) });

const messageOf = (call: number, index: number, size: number) => textOf(31 * call + index, size);

/** Writes messages and the end, at once or each behind the one before. */
async function write({ send }: Half, call: number, sizes: readonly number[], random: () => number) {
  const pending: Promise<void>[] = [];
  const inTurn = random() < 0.5;
  for (const [i, size] of sizes.entries()) {
    await pause(random);
    const written = send.write(messageOf(call, i, size));
    // It may fail before all of them are waited for.
    written.catch(() => {});
    pending.push(written);
    if (inTurn) await written;
  }
  await Promise.all([...pending, send.end(new Uint8Array())]);
}

/** Reads and checks messages, from a given one on, and the end. */
async function readAll(
  { receive }: Half,
  call: number,
  sizes: readonly number[],
  random: () => number,
  from = 0,
) {
  for (const [i, size] of sizes.entries()) {
    if (i < from) continue;
    await pause(random);
    assertSame(await receive.read(), messageOf(call, i, size));
  }
  assertEquals(await receive.read(), undefined);
}

check("messages arrive whole and in order, and then their end", calls, 60, async (plan) => {
  const random = randomOf(plan.seed);
  const pair = new HalvesPair(plan.calls.length, random, LIMITS);
  const work = plan.calls.flatMap((sizes, i) => [
    write(pair.halves[i]!, i, sizes, random),
    readAll(pair.halves[i]!, i, sizes, random),
  ]);
  await within("reading and writing", Promise.all(work));
  assertEquals(pair.error, undefined);
});

const stopped = fc.record({
  seed,
  sizes: fc.array(fc.integer({ min: 60 * KIB, max: 400 * KIB }), { minLength: 12, maxLength: 16 }),
  reads: fc.nat(4),
});

check("who stops reading stops who writes, and no other call", stopped, 20, async (plan) => {
  const random = randomOf(plan.seed);
  const pair = new HalvesPair(2, random, LIMITS);
  const [slow, other] = pair.halves as [Half, Half];
  let done = false;
  const writing = write(slow, 0, plan.sizes, random).then(() => done = true);
  for (let i = 0; i < plan.reads; i++) {
    assertSame(await slow.receive.read(), messageOf(0, i, plan.sizes[i]!));
  }
  const work = [write(other, 1, plan.sizes, random), readAll(other, 1, plan.sizes, random)];
  await within("the other call", Promise.all(work));
  assert(!done, "all was written, and not all was read");
  // A window, and a message that was the next to be read before all of it had come.
  const read = plan.sizes.slice(0, plan.reads).reduce((sum, size) => sum + size, 0);
  assert(slow.arrived - read <= WINDOW_BYTES + Math.max(...plan.sizes), `${slow.arrived - read}`);
  await within(
    "the rest",
    Promise.all([writing, readAll(slow, 0, plan.sizes, random, plan.reads)]),
  );
  assertEquals(pair.error, undefined);
});

const budgets = fc.record({
  seed,
  calls: fc.integer({ min: 2, max: 10 }),
  size: fc.integer({ min: 300 * KIB, max: MAX_MESSAGE }),
  maxBuffered: fc.constantFrom(1, WINDOW_BYTES, 4 * WINDOW_BYTES),
});

check(
  "many large messages with a small budget all arrive, one after the other",
  budgets,
  25,
  async (plan) => {
    const random = randomOf(plan.seed);
    const pair = new HalvesPair(plan.calls, random, { ...LIMITS, maxBuffered: plan.maxBuffered });
    const sizes = [plan.size, plan.size];
    const work = pair.halves.flatMap((half, i) => [
      write(half, i, sizes, random),
      readAll(half, i, sizes, random),
    ]);
    await within("reading and writing", Promise.all(work));
    assertEquals(pair.error, undefined);
    // Each may have a window that it was not asked for, the oldest what it likes, and the others what is under the budget.
    const most = plan.calls * WINDOW_BYTES + MAX_MESSAGE + plan.maxBuffered;
    assert(pair.mostPartial <= most, `${pair.mostPartial} bytes were kept`);
  },
);

const failures = fc.record({ seed, calls: calls.map(({ calls }) => calls), after: fc.nat(20) });

check("fail() wakes all who wait, and all who come", failures, 40, async (plan) => {
  const random = randomOf(plan.seed);
  const pair = new HalvesPair(plan.calls.length, random, LIMITS);
  const error = new UdsError("disconnected", "for this test");
  const outcomes = plan.calls.flatMap((sizes, i) => [
    write(pair.halves[i]!, i, [...sizes, 900 * KIB], random),
    // More than comes.
    readAll(pair.halves[i]!, i, [...sizes, 900 * KIB, 1], random),
  ]).map((work) => work.then(() => "done", (reason) => reason));
  for (let i = 0; i < plan.after; i++) await pause(random);
  for (const { send, receive } of pair.halves) {
    send.fail(error);
    receive.fail(error);
    // The first one counts.
    send.fail(new Error("another"));
    receive.fail(new Error("another"));
  }
  for (const outcome of await within("waiting", Promise.all(outcomes))) {
    assert(outcome === error || outcome === "done", String(outcome));
  }
  for (const { send, receive } of pair.halves) {
    assertEquals(await send.write(new Uint8Array(1)).catch((reason) => reason), error);
    assertEquals(await send.end(new Uint8Array()).catch((reason) => reason), error);
    receive.push(new Uint8Array(1), false);
  }
});

test("uds halves: what a peer must not send is an error of its own", async () => {
  const sender = { send() {} } as Partial<Sender> as Sender;
  const make = (maxMessage = MAX_MESSAGE) =>
    new ReceiveHalf(sender, 7, undefined, { maxMessage, assembly: new Assembly(maxMessage) });
  const codeOf = (act: () => void) => assertThrows(act, UdsError).code;

  const cut = make();
  cut.push(new Uint8Array(1), true);
  assertEquals(codeOf(() => make().push(new Uint8Array(), true)), "protocol");
  assertEquals(codeOf(() => cut.end()), "protocol");
  const ended = make();
  ended.end();
  assertEquals(codeOf(() => ended.push(new Uint8Array(1), false)), "protocol");
  const large = make(100);
  large.push(new Uint8Array(100), true);
  assertEquals(large.push(new Uint8Array(1), false)?.code, "too-large");
  const flooded = make();
  let taken = 0;
  const flood = () => {
    for (; taken <= WINDOW_BYTES; taken += 1000) flooded.push(new Uint8Array(1000), false);
  };
  assertEquals(codeOf(flood), "protocol");
  assert(taken > 0.9 * WINDOW_BYTES);
  assertEquals((await flooded.read())?.length, 1000);
});

const wire = fc.record({
  seed,
  messages: fc.array(
    fc.record({
      id: fc.bigInt({ min: 0n, max: 2n ** 56n - 1n }),
      type: fc.constantFrom(0, 1),
      handler: fc.uint8Array({ maxLength: 40 }),
      data: fc.oneof(fc.uint8Array({ maxLength: 40 }), size.map((size) => textOf(size, size))),
    }),
    { maxLength: 6 },
  ),
});

for (const side of ["client", "server"] as const) {
  const Msg = side === "client" ? ClientMsg : ServerMsg;
  const Decoder = side === "client" ? ClientMsgDecoder : ServerMsgDecoder;

  check(`${side}: messages at any splits are what they are whole`, wire, 80, (plan) => {
    const random = randomOf(plan.seed);
    const encoded = plan.messages.map((message) => new Msg(message).encode());
    const decoder = new Decoder();
    const parts = encoded.flatMap((bytes) => [...splits(bytes, random)]);
    const decoded = parts.flatMap((part) => [...decoder.push(part)]);
    assertEquals(decoded.length, encoded.length);
    for (const [i, message] of decoded.entries()) assertSame(message.encode(), encoded[i]!);
    assertEquals(decoder.partial, false);
  });

  const small = fc.array(
    fc.record({
      id: fc.nat(300),
      handler: fc.string({ maxLength: 9 }),
      data: fc.uint8Array({ maxLength: 200 }),
    }),
    { minLength: 1, maxLength: 5 },
  );
  const mutations = fc.record({
    seed,
    messages: small,
    changes: fc.array(
      fc.record({
        at: fc.nat(2000),
        how: fc.constantFrom("set", "insert", "delete"),
        byte: fc.nat(255),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  });

  check(
    `${side}: changed bytes are messages or a UdsError, at any splits the same`,
    mutations,
    400,
    (plan) => {
      const bytes = plan.messages.flatMap((message) => [...new Msg(message).encode()]);
      for (const { at, how, byte } of plan.changes) {
        bytes.splice(
          at % (bytes.length + 1),
          how === "insert" ? 0 : 1,
          ...how === "delete" ? [] : [byte],
        );
      }
      const changed = Uint8Array.from(bytes);
      const outcome = (parts: Iterable<Uint8Array>) => {
        const decoder = new Decoder({ maxMessage: 500, extensions: true });
        const seen: unknown[] = [];
        try {
          for (const part of parts) {
            for (const { id, type, data } of decoder.push(part)) {
              assert(data.length <= 500);
              seen.push([id, type, data]);
            }
          }
          return [...seen, decoder.partial];
        } catch (error) {
          assert(error instanceof UdsError, String(error));
          return [...seen, error.code];
        }
      };
      assertEquals(outcome(splits(changed, randomOf(plan.seed))), outcome([changed]));
    },
  );

  const { vectors } = JSON.parse(
    readFileSync(new URL(`fixtures/uds/${side}-decode.json`, import.meta.url), "utf8"),
  ) as { vectors: { name: string; wire: { hex?: string } }[] };
  test(`uds halves: ${side}: every vector of the Go package is the same at every split`, () => {
    for (const { name, wire: { hex = "" } } of vectors) {
      const bytes = Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
      const outcome = (...parts: Uint8Array[]) => {
        const decoder = new Decoder();
        const ids: unknown[] = [];
        try {
          for (const part of parts) for (const { id } of decoder.push(part)) ids.push(id);
          return [...ids, decoder.partial];
        } catch (error) {
          assert(error instanceof UdsError, String(error));
          return [...ids, error.code];
        }
      };
      const whole = outcome(bytes);
      // Of a long one the splits at both ends tell.
      const ends = (at: number) => at < 300 || at > bytes.length - 300;
      for (let at = 0; at <= bytes.length; at++) {
        if (ends(at)) assertEquals(outcome(bytes.slice(0, at), bytes.slice(at)), whole, name);
      }
    }
  });
}

test("uds halves: memory is taken for what has come, and not for what is claimed", () => {
  const original = Uint8Array;
  let most = 0;
  const counting = new Proxy(original, {
    construct(target, args) {
      if (typeof args[0] === "number") most = Math.max(most, args[0]);
      return Reflect.construct(target, args);
    },
  });
  const splitter = new MessageSplitter(2 ** 26);
  globalThis.Uint8Array = counting;
  try {
    // 60 MB are claimed, and 10,000 bytes come, one by one.
    const bodies: Uint8Array[] = [];
    const byte = new original(1);
    for (const part of [0x80, 0xce, 0xcd, 0x1c]) splitter.push(original.of(part), bodies);
    for (let i = 0; i < 10_000; i++) splitter.push(byte, bodies);
    assertEquals(bodies, []);
  } finally {
    globalThis.Uint8Array = original;
  }
  assert(most >= 10_000 && most <= 20_000, `${most} bytes`);
});
