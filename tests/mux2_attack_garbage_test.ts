/** Bytes that mean nothing, at any point of a session: it ends with an error of its own, and nothing is left of it. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import { test } from "node:test";
import { generateIdentity, type Mux, type MuxOptions } from "@trunkline/sockets/mux";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { dataFrame, frame, peered } from "./mux2_rogue.ts";
import { hearing, through } from "./mux2_relay.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const RUNS = { numRuns: 150 };
const V2: Options = { protocol: "v2", closeTimeoutMs: 2000 };
const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
const ALICE: Options = { ...V2, identity: alice, knownPeers: [bob.publicKey] };
const BOB: Options = { ...V2, identity: bob, knownPeers: [alice.publicKey] };
/** Also long ones, whose lengths mean something. */
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.tuple(fc.integer({ min: 0, max: 5000 }), fc.uint8Array({ maxLength: 5000 })).map(
    ([length, body]) => concat([Uint8Array.of(length >> 8, length), body]),
  ),
);

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 100_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

const KINDS: readonly (readonly [string, boolean, Options])[] = [
  ["a server", false, V2],
  ["a server of both", false, { ...V2, protocol: ["v2", "v1"] }],
  ["a server that wants to know who it is", false, BOB],
  ["a client", true, V2],
  ["a client with an identity", true, ALICE],
];

for (const [name, isClient, options] of KINDS) {
  check(`garbage: to ${name}, from the first byte on`, async () => {
    await fc.assert(
      fc.asyncProperty(bytes, async (garbage) => {
        const { told } = await hearing(isClient, garbage, options);
        assert(["auth-failed", "protocol", "truncated"].includes(told.closed!), told.closed);
        assertEquals([told.read, told.ended, told.left], ["", false, 0]);
        assertEquals(told.ready, told.closed);
      }),
      RUNS,
    );
  });
}

check("garbage: to a server, behind a true beginning of a client", async () => {
  for (const [options, serverOptions] of [[V2, V2], [ALICE, BOB]] as const) {
    const { said: [parts] } = await through((_, __, part) => [part], options, serverOptions);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), bytes, async (count, garbage) => {
        const sent = concat([...parts.slice(0, count), garbage]);
        const { told } = await hearing(false, sent, serverOptions);
        assert(["auth-failed", "protocol", "truncated"].includes(told.closed!), told.closed);
        assertEquals([told.stream, told.read, told.left], [false, "", 0]);
      }),
      RUNS,
    );
  }
});

/** Lets the session do all that it can, and see to its end. */
async function use(mux: Mux): Promise<string | undefined> {
  const using = Promise.allSettled([
    (async () => {
      for await (const stream of mux) {
        stream.write(new Uint8Array(10)).catch(() => {});
        stream.read().then(() => stream.close()).catch(() => {});
      }
    })(),
    mux.openStream().then(async (stream) => {
      await stream.write(new Uint8Array(1000));
      while (await stream.read() !== null);
      await stream.close();
    }),
    mux.ping(),
    mux.ready,
  ]);
  const code = await mux.closed.then(() => undefined, (error) => error.code);
  await using;
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  return code;
}

const CODES: readonly (string | undefined)[] = [
  undefined,
  "protocol",
  "window",
  "limit",
  "timeout",
  "truncated",
];

async function hears(isClient: boolean, plains: readonly Uint8Array[]): Promise<void> {
  const { mux, peer } = await peered(isClient, { closeTimeoutMs: 2000 });
  const using = use(mux);
  const running = peer.run();
  try {
    for (const plain of plains) await peer.send(plain);
    await peer.conn.closeWrite();
  } catch {
    // It was given up before the end.
  }
  const code = await using;
  assert(CODES.includes(code), code);
  await running;
}

check("garbage: in records of a peer that has the psk", async () => {
  const plain = fc.uint8Array({ maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(plain, { maxLength: 8 }), hears),
    RUNS,
  );
});

check("garbage: frames in any order, with any numbers, of a peer that has the psk", async () => {
  const number = fc.oneof(
    fc.integer({ min: 0, max: 9 }),
    fc.constantFrom(65536, 131072, 2 ** 31 - 1, 2 ** 32 - 1),
  );
  const id = fc.integer({ min: 0, max: 6 });
  const any = fc.oneof(
    fc.tuple(fc.integer({ min: 0, max: 14 }), id, fc.array(number, { maxLength: 3 })).map(
      ([type, id, values]) => frame(type, id, ...values),
    ),
    fc.tuple(id, fc.integer({ min: 0, max: 60_000 })).map(
      ([id, length]) => dataFrame(id, new Uint8Array(length)),
    ),
  );
  // Opens in their order come far enough for the rest to matter.
  const opened = fc.tuple(
    fc.constantFrom(0, 1),
    fc.integer({ min: 0, max: 3 }),
    fc.array(any, { maxLength: 12 }),
  )
    .map(([first, count, rest]) => [
      ...Array.from({ length: count }, (_, i) => frame(2, first + 2 * i, i)),
      ...rest,
    ]);
  await fc.assert(
    fc.asyncProperty(fc.boolean(), opened, (isClient, frames) => hears(isClient, frames)),
    { numRuns: 400 },
  );
});
