/** Attacks on the handshake by somebody who has no psk, or is not known: changed, sent back, of another psk, of another suite. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { client, generateIdentity, type MuxOptions, server } from "@trunkline/sockets/mux";
import { PSK } from "./mux_pair.ts";
import { cutter, editedLine, END, speak, talk, through, type Told } from "./mux2_relay.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const [alice, bob, carol] = await Promise.all(
  [generateIdentity(), generateIdentity(), generateIdentity()],
);
const V2: Options = { protocol: "v2", closeTimeoutMs: 3000 };
const ALICE: Options = { ...V2, identity: alice, knownPeers: [bob.publicKey] };
const BOB: Options = { ...V2, identity: bob, knownPeers: [alice.publicKey] };
const CHACHA: Options = { suites: ["ChaChaPoly_BLAKE2b"] };
const AES: Options = { suites: ["AESGCM_SHA256"] };
interface Kind {
  readonly name: string;
  readonly options: readonly [Options, Options];
  /** How many messages the client has in a handshake. */
  readonly messages: number;
}
const KINDS: readonly Kind[] = [
  { name: "NNpsk0, ChaChaPoly", options: [{ ...V2, ...CHACHA }, V2], messages: 1 },
  { name: "NNpsk0, AESGCM", options: [{ ...V2, ...AES }, V2], messages: 1 },
  { name: "XXpsk3, ChaChaPoly", options: [{ ...ALICE, ...CHACHA }, BOB], messages: 2 },
  { name: "XXpsk3, AESGCM", options: [{ ...ALICE, ...AES }, BOB], messages: 2 },
];

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

/** Nothing came of it: no stream, no byte, nothing left. */
function assertNothing(told: Told, codes: readonly string[], what: string): void {
  assert(codes.includes(told.closed!), `${what}: closed ${told.closed}`);
  assertEquals(told.ready, told.closed, what);
  assertEquals([told.stream, told.read, told.ended, told.left], [false, "", false, 0], what);
}

/** On the client a stream may have been opened before it was known that the server does not take it. */
function assertRefused(told: readonly [Told, Told], codes: readonly string[], what: string): void {
  assertNothing({ ...told[0], stream: false }, ["auth-failed"], `${what}, client`);
  assertNothing(told[1], codes, `${what}, server`);
}

/** What a session makes of its own parts, sent back to it behind `begin`. */
async function reflected(
  isClient: boolean,
  begin: readonly Uint8Array[],
  options: Options,
  back: (parts: readonly Uint8Array[]) => readonly Uint8Array[],
): Promise<Told> {
  const [near, far] = connPair({ lingerMs: 500 });
  const speaking = speak((isClient ? client : server)(near, { psk: PSK, ...options }), isClient);
  await far.write(concat(begin));
  const cut = cutter("v2", isClient ? 0 : 1);
  const parts: Uint8Array[] = [];
  while (parts.length < (isClient ? 2 : 1)) parts.push(...cut((await far.read())!));
  await far.write(concat(back(parts))).then(() => far.closeWrite()).catch(() => {});
  const told = await speaking;
  await far.close().catch(() => {});
  return told;
}

for (const { name, options, messages } of KINDS) {
  check(`${name}: a hello with any byte changed is refused`, async () => {
    for (let at = 0; at < 8; at++) {
      for (const change of [1, 3, 0x20, 0x80, 0xff]) {
        const { told } = await through((way, i, part) => {
          if (way === 0 && i === 0) part[at]! ^= change;
          return [part];
        }, ...options);
        // Another suite of the same pattern is one that the server takes, but not what the client has said.
        assertRefused(told, ["protocol", "auth-failed"], `byte ${at} ^ ${change}`);
      }
    }
  });

  check(`${name}: each other version, suite and last bytes in the hello are refused`, async () => {
    for (let value = 0; value < 256; value++) {
      for (const at of value % 16 === 0 ? [4, 5, 6, 7] : [5]) {
        let same = false;
        const { told } = await through((way, i, part) => {
          if (way !== 0 || i > 0) return [part];
          same = part[at] === value;
          part[at] = value;
          return [part];
        }, ...options);
        if (!same) assertRefused(told, ["protocol", "auth-failed"], `byte ${at} is ${value}`);
        else assertEquals(told[1].closed, undefined);
      }
    }
  });

  check(`${name}: a message of the client with any byte changed is refused`, async () => {
    for (let message = 1; message <= messages; message++) {
      let bytes = Infinity;
      for (let at = 0; at < bytes; at++) {
        const { told } = await through((way, i, part) => {
          if (way !== 0 || i !== message) return [part];
          bytes = part.length;
          part[at]! ^= 0x10;
          return [part, END];
        }, ...options);
        // A length that is not so says that more comes, or is longer than any.
        const codes = at < 2 ? ["truncated", "protocol", "auth-failed"] : ["auth-failed"];
        assertRefused(told, codes, `message ${message}, byte ${at}`);
      }
    }
  });

  check(`${name}: the message of the server with any byte changed is refused`, async () => {
    let bytes = Infinity;
    for (let at = 0; at < bytes; at++) {
      const { told } = await through((way, i, part) => {
        if (way !== 1 || i > 0) return [part];
        bytes = part.length;
        part[at]! ^= 0x10;
        return [part, END];
      }, ...options);
      const what = `byte ${at}`;
      // More than a message has is no message.
      assertNothing(told[0], at === 0 ? ["protocol"] : ["auth-failed"], what);
      // Its client has gone away, for all that the server knows.
      assertNothing(told[1], ["truncated"], what);
    }
  });

  check(`${name}: a message of another handshake with the same psk is refused`, async () => {
    const { said: others } = await through((_, __, part) => [part], ...options);
    for (const way of [0, 1] as const) {
      for (let at = 1 - way; at < (way === 0 ? 1 + messages : 1); at++) {
        const { told } = await through(
          (to, i, part) => to === way && i === at ? [others[way][at]!] : [part],
          ...options,
        );
        const codes = way === 0 ? ["auth-failed"] : ["truncated"];
        // To a first message of another time the server answers, which the client cannot read.
        const first = way === 0 && at === 1 ? [...codes, "truncated"] : codes;
        assertRefused(told, first, `direction ${way}, message ${at}`);
      }
    }
  });

  check(`${name}: a client's own bytes sent back to it are refused`, async () => {
    for (const order of [[1], [0, 1], [0], [1, 1]]) {
      const told = await reflected(true, [], options[0], (parts) => order.map((i) => parts[i]!));
      assertNothing({ ...told, stream: false }, ["auth-failed", "protocol"], order.join());
    }
  });

  check(`${name}: a server's own message sent back to it is refused`, async () => {
    const { said } = await through((_, __, part) => [part], ...options);
    const begin = said[0].slice(0, 2);
    for (const times of [1, 2]) {
      const back = (parts: readonly Uint8Array[]) => Array(times).fill(parts[0]);
      const told = await reflected(false, begin, options[1], back);
      assertNothing(told, ["auth-failed"], `${times}`);
    }
  });

  check(`${name}: a server with another psk refuses, and is refused`, async () => {
    for (const psk of ["open sesami", PSK.slice(1), `${PSK} `, "\0"]) {
      const line = editedLine("v2");
      const near = client(line.ends[0], { psk: PSK, ...options[0] });
      const far = server(line.ends[1], { ...options[1], psk });
      const told = await talk(near, far);
      await line.over;
      assertRefused(told, ["auth-failed"], psk);
    }
  });
}

check("who is not known is refused, and so is who does not know us", async () => {
  const strangers: readonly (readonly [string, Options, Options, string])[] = [
    ["the client", ALICE, { ...BOB, knownPeers: [carol.publicKey] }, "auth-failed"],
    ["nobody is", ALICE, { ...BOB, knownPeers: [] }, "auth-failed"],
    ["the client, by a function", ALICE, { ...BOB, knownPeers: () => false }, "auth-failed"],
    ["by one that says no later", ALICE, {
      ...BOB,
      knownPeers: () => Promise.resolve(false),
    }, "auth-failed"],
    ["by one that throws", ALICE, {
      ...BOB,
      knownPeers: () => {
        throw new Error("no database");
      },
    }, "auth-failed"],
    // The client goes away before it has said who it is.
    ["the server", { ...ALICE, knownPeers: [carol.publicKey] }, BOB, "truncated"],
    ["the server is ourselves", ALICE, { ...ALICE, knownPeers: [alice.publicKey] }, "truncated"],
  ];
  for (const [what, options, serverOptions, code] of strangers) {
    const { told } = await through((_, __, part) => [part], options, serverOptions);
    assertRefused(told, [code], what);
  }
});

check("a function that says neither yes nor no, but something true, knows nobody", async () => {
  const known = (() => 1) as unknown as () => boolean;
  const { told } = await through((_, __, part) => [part], ALICE, { ...BOB, knownPeers: known });
  assertRefused(told, ["auth-failed"], "1");
});

check("NNpsk0 with who wants an identity, and the other way round, is refused", async () => {
  for (const pair of [[V2, BOB], [ALICE, V2]] as const) {
    const { told } = await through((_, __, part) => [part], ...pair);
    assertRefused(told, ["protocol"], String(pair[0] === V2));
  }
});

check("a suite that is not allowed is refused", async () => {
  for (const [ours, theirs] of [[AES, CHACHA], [CHACHA, AES]]) {
    for (const [one, other] of [[V2, V2], [ALICE, BOB]]) {
      const pair = [{ ...one, ...ours }, { ...other, ...theirs }] as const;
      const { told } = await through((_, __, part) => [part], ...pair);
      assertRefused(told, ["protocol"], JSON.stringify(ours));
    }
  }
});
