/** Faults of whole sessions that were found by use: what a peer makes us hold, what is known when, and what errors tell. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import { describe, it, test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  client,
  generateIdentity,
  type Mux,
  type MuxError,
  type MuxOptions,
  server,
} from "@trunkline/sockets/mux";
import { TYPE } from "../mux/v2/frame.ts";
import { codeOf, PSK, type Speaks, spoken } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { lines } from "./mux2_line.ts";
import { frame, peered } from "./mux2_rogue.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const V2: Options = { protocol: "v2" };
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

/** On both protocols. */
function checkBoth(what: string, body: (speaks: Speaks) => Promise<void>): void {
  for (const { mux, speaks } of spoken(what)) check(`${mux}: ${what}`, () => body(speaks));
}

check("answers are limited while close() waits for a peer that does not read, too", async () => {
  for (const isClient of [true, false]) {
    const { mux, peer } = await peered(isClient, { closeTimeoutMs: 50_000 });
    if (!isClient) await peer.send(frame(TYPE.PING, 0, 1));
    await mux.ready;
    const stream = await mux.openStream();
    // More than the transport takes.
    stream.write(new Uint8Array(1_000_000)).catch(() => {});
    const closing = codeOf(mux.close());
    const closed = codeOf(mux.closed);
    let over = false;
    closed.finally(() => over = true);
    const many = concat(Array(16_000).fill(frame(TYPE.PING, 0, 1)));
    let records = 0;
    for (; records < 100 && !over; records++) await peer.send(many).catch(() => {});
    assertEquals([await closed, await closing], ["limit", "limit"]);
    // 100,000 answers, and what is on its way meanwhile.
    assert(records < 20, `${records} records of 16,000 pings`);
    assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
    await peer.run();
  }
});

checkBoth("keepalives do not pile up behind a write that is stuck", async (speaks) => {
  const { ends: [near, far], there } = lines();
  const options = { psk: PSK, ...speaks, keepaliveMs: 5, closeTimeoutMs: 20_000 };
  const [ours, theirs] = [client(near, options), server(far, { ...options, keepaliveMs: 60_000 })];
  await Promise.all([ours.ready, theirs.ready]);
  const stream = await ours.openStream();
  const accepted = await theirs.acceptStream();
  there.hold();
  await stream.write(Uint8Array.of(1));
  // Some sixty of them.
  await sleep(300);
  const before = theirs.stats().framesReceived;
  there.release();
  // Behind all that waited, since it is in order.
  const last = Uint8Array.of(2);
  await stream.write(last);
  for (let at = 0; at < 2;) at += (await accepted.read())!.length;
  const came = theirs.stats().framesReceived - before;
  assert(came < 20, `${came} frames came`);
  await Promise.all([ours.close(), theirs.close()]);
});

describe("peerKey", () => {
  it("is undefined before ready, and stays so for a client that is refused", async () => {
    const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
    const [near, far] = connPair({ lingerMs: 500 });
    const decided = Promise.withResolvers<boolean>();
    const asked = Promise.withResolvers<void>();
    const options = { psk: PSK, ...V2 };
    const ours = client(near, { ...options, identity: alice, knownPeers: [bob.publicKey] });
    const knownPeers = () => {
      asked.resolve();
      return decided.promise;
    };
    const theirs = server(far, { ...options, identity: bob, knownPeers });
    await asked.promise;
    // The client has done its part of the handshake by now.
    await sleep(20);
    assertEquals([ours.peerKey, theirs.peerKey], [undefined, undefined]);
    decided.resolve(false);
    assertEquals(await codeOf(ours.ready), "auth-failed");
    assertEquals(await codeOf(theirs.ready), "auth-failed");
    assertEquals([ours.peerKey, theirs.peerKey], [undefined, undefined]);
  });

  it("is there once ready has resolved", async () => {
    const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
    const [near, far] = connPair({ lingerMs: 500 });
    const options = { psk: PSK, ...V2, knownPeers: () => true };
    const ours = client(near, { ...options, identity: alice });
    const theirs = server(far, { ...options, identity: bob });
    await ours.ready;
    assertEquals(ours.peerKey, bob.publicKey);
    await theirs.ready;
    assertEquals(theirs.peerKey, alice.publicKey);
    await Promise.all([ours.close(), theirs.close()]);
  });
});

check("goAway() takes a signal as long as the handshake is not done", async () => {
  for (const protocol of ["v2", ["v2", "v1"]] as const) {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = server(near, { psk: PSK, protocol });
    assertEquals(await codeOf(mux.goAway({ signal: AbortSignal.abort() })), "aborted");
    const controller = new AbortController();
    const waiting = codeOf(mux.goAway({ signal: controller.signal }));
    controller.abort();
    assertEquals(await waiting, "aborted");
    assertEquals(await codeOf(mux.goAway({ signal: AbortSignal.timeout(5) })), "timeout");
    // The session does not mind.
    const peer = client(far, { psk: PSK, protocol: "v2" });
    await mux.goAway({ signal: new AbortController().signal });
    await Promise.all([peer.close(), mux.closed.catch(() => {})]);
  }
});

/** What went wrong at both ends, each as its code and message. */
async function refusal(
  make: readonly [typeof client, typeof server],
  options: readonly [Options, Options],
): Promise<string[]> {
  const [near, far] = connPair({ lingerMs: 500 });
  const sessions: Mux[] = [
    make[0](near, { psk: PSK, ...options[0] }),
    make[1](far, { psk: PSK, ...options[1] }),
  ];
  return await Promise.all(sessions.map(async (mux) => {
    const error = await mux.closed.then(() => undefined, (error: MuxError) => error);
    assertEquals(await codeOf(mux.ready), error!.code);
    return `${error!.code}: ${error!.message}`;
  }));
}

describe("what a handshake that fails tells", () => {
  const ends = [client, server] as const;
  const v1: Options = { protocol: "v1" };
  const identified = async (): Promise<Options> => ({
    ...V2,
    identity: await generateIdentity(),
    knownPeers: () => true,
  });

  it("an identity at the client alone", async () => {
    const [ours, theirs] = await refusal(ends, [await identified(), V2]);
    assertMatch(ours!, /^auth-failed: .*only one side has an identity/);
    assertMatch(theirs!, /^protocol: .*XXpsk3.*NNpsk0/);
  });

  it("an identity at the server alone", async () => {
    const [ours, theirs] = await refusal(ends, [V2, await identified()]);
    assertMatch(ours!, /^auth-failed: .*only one side has an identity/);
    assertMatch(theirs!, /^protocol: .*NNpsk0.*XXpsk3.*identity/);
  });

  it("a suite that is not allowed", async () => {
    const [ours, theirs] = await refusal(ends, [
      { ...V2, suites: ["AESGCM_SHA256"] },
      { ...V2, suites: ["ChaChaPoly_BLAKE2b"] },
    ]);
    assertMatch(ours!, /^auth-failed: .*does not allow the suite/);
    assertMatch(theirs!, /^protocol: .*AESGCM_SHA256.*ChaChaPoly_BLAKE2b/);
  });

  it("another psk", async () => {
    const [ours, theirs] = await refusal(ends, [V2, { ...V2, psk: "another one" }]);
    assertMatch(ours!, /^auth-failed: .*another psk/);
    assertMatch(theirs!, /^auth-failed: /);
  });

  it("a v2 client of a v1 server", async () => {
    const [ours, theirs] = await refusal(ends, [V2, v1]);
    assertMatch(ours!, /^auth-failed: .*speaks no v2/);
    assertMatch(theirs!, /^protocol: .*speak v2/);
  });

  it("a v1 client of a v2 server", async () => {
    const [ours, theirs] = await refusal(ends, [v1, V2]);
    assertMatch(ours!, /^truncated: .*another one.*speak v2/);
    assertMatch(theirs!, /^protocol: .*does not speak v2/);
  });

  it("two v2 clients", async () => {
    const both = await refusal([client, client], [V2, V2]);
    // Whoever sees it first gives the transport up, at times before the other one has read.
    for (const it of both) assertMatch(it, /^(protocol: .*both clients|auth-failed: )/);
    assert(both.some((it) => it.includes("both clients")), both.join("; "));
  });
});

describe("what only v2 has", () => {
  const given: readonly Options[] = [
    { suites: ["AESGCM_SHA256"] },
    { padBytes: 128 },
    { rekeyRecords: 100 },
    { rekeyBytes: 2 ** 20 },
  ];
  for (const options of given) {
    const [name] = Object.keys(options);
    it(`${name} is a TypeError on v1 alone`, () => {
      const [near] = connPair();
      for (const make of [client, server]) {
        for (const protocol of ["v1", ["v1"]] as const) {
          assertThrows(() => make(near, { psk: PSK, protocol, ...options }), TypeError, name);
        }
        assertThrows(() => make(near, { psk: PSK, ...options }), TypeError, name);
      }
      near.abort();
    });

    it(`${name} is taken where v2 may be spoken`, async () => {
      const [near, far] = connPair({ lingerMs: 500 });
      const [ours, theirs] = [
        client(near, { psk: PSK, protocol: "v2", ...options }),
        server(far, { psk: PSK, protocol: ["v2", "v1"], ...options }),
      ];
      await Promise.all([ours.ready, theirs.ready]);
      await Promise.all([ours.close(), theirs.close()]);
    });
  }
});
