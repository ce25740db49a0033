/**
 * A whole session that was recorded, said again to another one; and sessions that are cut. Of v1 a recording is a session: it has no handshake.
 */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { generateIdentity, type MuxOptions, server } from "@trunkline/sockets/mux";
import { codeOf, PSK } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { END, hearing, MESSAGE, recorded, through, type Told } from "./mux2_relay.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
const V2: Options = { protocol: "v2", closeTimeoutMs: 3000 };
const ALICE: Options = { ...V2, identity: alice, knownPeers: [bob.publicKey] };
const BOB: Options = { ...V2, identity: bob, knownPeers: [alice.publicKey] };
const KINDS: readonly (readonly [string, Options, Options])[] = [
  ["v2 with ChaChaPoly", { ...V2, suites: ["ChaChaPoly_BLAKE2b"] }, V2],
  ["v2 with AESGCM", { ...V2, suites: ["AESGCM_SHA256"] }, V2],
  ["v2 with identities", ALICE, BOB],
];
const genuine = (told: Told) => told.read === MESSAGE && told.ended && told.closed === undefined;

function check(what: string, body: () => Promise<void>, timeout = 60_000): void {
  test(what, { timeout }, async () => assertEquals(await unhandledDuring(body), []));
}

check("v1: a recorded client is taken as genuine by a new server", async () => {
  const [said] = await recorded({});
  assert(genuine((await hearing(false, concat(said), {})).told));
});

/** What the client has heard, when all from its record number `from` on was swallowed, and both transports have ended. */
async function swallowed(from: number, options: Options, serverOptions = options): Promise<Told[]> {
  const { told } = await through(
    (way, i, part) => way === 0 && i >= from ? [END] : [part],
    options,
    serverOptions,
  );
  assertEquals(told[1].closed, "truncated");
  return told;
}

check("v1: who closes does not hear that its farewell was swallowed", async () => {
  assertEquals((await swallowed(8, { closeTimeoutMs: 3000 }))[0]!.closed, undefined);
});

for (const [name, options, serverOptions] of KINDS) {
  check(`${name}: who closes hears that its farewell was swallowed`, async () => {
    const [parts] = (await through((_, __, part) => [part], options, serverOptions)).said;
    const [told] = await swallowed(parts.length - 1, options, serverOptions);
    assertEquals(told!.closed, "truncated");
  });

  const record = async () => (await through((_, __, part) => [part], options, serverOptions)).said;

  check(`${name}: a recorded client is told from a live one by a new server`, async () => {
    const [said, answers] = await record();
    const { told, answer } = await hearing(false, concat(said), serverOptions);
    assertEquals(told.ready, "auth-failed");
    assertEquals(told.closed, "auth-failed");
    assertEquals([told.stream, told.read, told.left], [false, "", 0]);
    // It answers the first message, which may be a live one, and says nothing more.
    assertEquals(answer.length, answers[0]!.length);
  });

  check(`${name}: a recorded server is told from a live one by a new client`, async () => {
    const [, said] = await record();
    const { told } = await hearing(true, concat(said), options);
    assertEquals([told.ready, told.closed], ["auth-failed", "auth-failed"]);
    assertEquals([told.read, told.ended, told.left], ["", false, 0]);
  });

  check(`${name}: recorded records behind a live handshake are forged ones`, async () => {
    const others = await record();
    for (const direction of [0, 1] as const) {
      const first = direction === 1 ? 1 : others[0].findIndex((part) => part.length === 26);
      const { told } = await through(
        (way, i, part) => {
          if (way !== direction || i < first) return [part];
          return [others[direction][i] ?? part];
        },
        options,
        serverOptions,
      );
      assertEquals(told[1 - direction]!.closed, "auth-failed");
      assertEquals(told.map(({ ended }) => ended), [false, false]);
      if (direction === 0) assertEquals([told[1].ready, told[1].stream], ["auth-failed", false]);
    }
  });

  check(
    `${name}: a recorded first message, said a hundred times, makes no server say more`,
    async () => {
      const [said, answers] = await record();
      const first = concat(said.slice(0, 2));
      const limits = { handshakeTimeoutMs: 2000, keepaliveMs: 300 };
      await Promise.all(Array.from({ length: 100 }, async () => {
        const [near, far] = connPair({ lingerMs: 500 });
        const mux = server(near, { psk: PSK, ...serverOptions, ...limits });
        const opening = codeOf(mux.openStream());
        const accepting = codeOf(mux.acceptStream());
        await far.write(first);
        let bytes = 0;
        try {
          for (let chunk = await far.read(); chunk; chunk = await far.read()) bytes += chunk.length;
        } catch {
          // The server has given it up.
        }
        assertEquals(bytes, answers[0]!.length);
        assertEquals(await codeOf(mux.ready), "timeout");
        assertEquals(await codeOf(mux.closed), "timeout");
        assertEquals([await opening, await accepting], ["timeout", "timeout"]);
        assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
        await far.close().catch(() => {});
      }));
    },
  );

  for (const direction of [0, 1] as const) {
    const side = direction === 0 ? "client" : "server";
    check(`${name}: a session cut behind each byte of the ${side}`, async () => {
      const parts = (await record())[direction];
      const sizes = parts.map((part) => part.length);
      const total = sizes.reduce((sum, size) => sum + size, 0);
      const messages = direction === 1 ? 1 : name.endsWith("identities") ? 3 : 2;
      const handshake = sizes.slice(0, messages).reduce((sum, size) => sum + size, 0);
      // With an identity the server's first record is a part of the handshake: it shows that the server takes the client.
      const known = name.endsWith("identities") && direction === 1
        ? handshake + sizes[1]!
        : handshake;
      let cut = 0;
      while (cut < total) {
        let left = cut;
        const { told } = await through(
          (way, _, part) => {
            if (way !== direction) return [part];
            const piece = part.subarray(0, left);
            left -= piece.length;
            return piece.length === part.length ? [part] : [piece, END];
          },
          options,
          serverOptions,
        );
        const reader = told[1 - direction]!;
        const what = `behind ${cut} of ${total} bytes: ${JSON.stringify(told)}`;
        const expected = direction === 1 && cut < known ? "auth-failed" : "truncated";
        // A client that has said farewell needs nothing more of the server.
        const done = direction === 1 && reader.ended && reader.closed === undefined;
        assert(done || reader.closed === expected, what);
        for (const { read, ended, left } of told) {
          assert(MESSAGE.startsWith(read) && (!ended || read === MESSAGE), what);
          assertEquals(left, 0, what);
        }
        cut++;
      }
    }, 110_000);
  }
}
