/** What a session is made of shows no secret: not in errors, not to whoever prints or serializes it, nor in warnings. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { inspect } from "node:util";
import { connPair } from "@trunkline/sockets/auto";
import {
  type Aead,
  client,
  generateIdentity,
  listen,
  type MuxOptions,
  type MuxWarning,
  nobleAead,
  server,
} from "@trunkline/sockets/mux";
import { deriveKey } from "@trunkline/sockets/mux";
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
import { hex } from "./mux2_noise_vectors.ts";
import { utf8 } from "./mux_pair.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const TEXT = "correct horse battery";
const [alice, bob, carol] = await Promise.all(
  [generateIdentity(), generateIdentity(), generateIdentity()],
);

/** All that somebody could print of it. */
function shown(value: unknown): string {
  const views = [String(value)];
  for (const showHidden of [true, false]) {
    views.push(
      inspect(value, { showHidden, depth: Infinity, maxArrayLength: Infinity, getters: true }),
    );
  }
  const runtime = globalThis as {
    readonly Deno?: { inspect(value: unknown, options: unknown): string };
    readonly Bun?: { inspect(value: unknown, options: unknown): string };
  };
  const options = { depth: 20, showHidden: true, iterableLimit: 10_000, getters: false };
  if (runtime.Deno) views.push(runtime.Deno.inspect(value, options));
  if (runtime.Bun) views.push(runtime.Bun.inspect(value, options));
  try {
    views.push(JSON.stringify(value) ?? "");
  } catch {
    // It has circles.
  }
  if (value instanceof Error) {
    views.push(value.message, value.stack ?? "", shown(value.cause ?? ""));
  }
  return views.join("\n");
}

/** Fails if `view` shows any of the secrets: as text, as four numbers in a row, as twelve digits in hexadecimal, or in base64. */
function assertSecret(view: string, secrets: readonly Uint8Array[], what: string): void {
  const dense = view.replaceAll(/\s+/g, "").toLowerCase();
  assert(!dense.includes(TEXT.replaceAll(" ", "")), `${what}: the psk`);
  for (const secret of secrets) {
    for (let at = 0; at + 6 <= secret.length; at++) {
      const [numbers, digits] = [secret.slice(at, at + 4).join(), hex(secret.slice(at, at + 6))];
      assert(!dense.includes(`,${numbers},`) && !dense.includes(digits), `${what}: ${numbers}`);
    }
    const base64 = btoa(String.fromCharCode(...secret)).toLowerCase();
    assert(!dense.includes(base64.slice(0, 12)), `${what}: ${base64}`);
  }
}

const SECRETS = [
  utf8(TEXT),
  deriveKey(TEXT),
  deriveNoisePsk(utf8(TEXT)),
  alice.privateKey,
  bob.privateKey,
];

/** An AEAD that tells which keys it was given. */
function telling(keys: Set<Uint8Array>): Aead {
  return {
    name: "telling",
    seal: (boxes) => {
      for (const { key } of boxes) keys.add(key);
      return nobleAead.seal(boxes);
    },
    open: (boxes) => {
      for (const { key } of boxes) keys.add(key);
      return nobleAead.open(boxes);
    },
  };
}

const CASES: readonly (readonly [string, Options, Options])[] = [
  ["v1", {}, {}],
  ["v2", { protocol: "v2" }, { protocol: "v2" }],
  ["both", { protocol: "v2" }, { protocol: ["v2", "v1"] }],
  ["v2 with identities", { protocol: "v2", identity: alice, knownPeers: [bob.publicKey] }, {
    protocol: "v2",
    identity: bob,
    knownPeers: [alice.publicKey],
  }],
];

for (const [name, options, serverOptions] of CASES) {
  test(`secrets: a session of ${name} shows none, before, while it lives, and after`, {
    timeout: 60_000,
  }, async () => {
    assertEquals(
      await unhandledDuring(async () => {
        const keys = new Set<Uint8Array>();
        const [near, far] = connPair({ lingerMs: 500 });
        const more = { psk: TEXT, aead: telling(keys) };
        const sessions = [
          client(near, { ...options, ...more }),
          server(far, { ...serverOptions, ...more }),
        ] as const;
        const check = (when: string): void => {
          const secrets = [...SECRETS, ...keys];
          for (const mux of sessions) {
            assertSecret(shown(mux), secrets, `the session ${when}`);
            assertSecret(shown(mux.stats()), secrets, `its stats ${when}`);
            assertSecret(shown(mux.streams), secrets, `its streams ${when}`);
          }
        };
        check("before");
        const stream = await sessions[0].openStream();
        await stream.write(utf8("hello"));
        const accepted = await sessions[1].acceptStream();
        await accepted.read();
        // Those of v2 are one for each direction.
        assert(keys.size >= 2, `${keys.size}`);
        check("while it lives");
        assertSecret(shown(stream), [...SECRETS, ...keys], "a stream");
        assertSecret(
          shown([stream.readable, stream.writable]),
          [...SECRETS, ...keys],
          "its streams",
        );
        const reason = new Error("enough");
        sessions[0].abort(reason);
        await sessions[1].closed.catch(() => {});
        const errors = await Promise.allSettled([
          ...sessions.map((mux) => mux.closed),
          ...sessions.map((mux) => mux.openStream()),
          accepted.read(),
          stream.write(utf8("more")),
        ]);
        for (const error of errors) {
          assertEquals(error.status, "rejected");
          assertSecret(
            shown((error as PromiseRejectedResult).reason),
            [...SECRETS, ...keys],
            "an error",
          );
        }
        check("after");
      }),
      [],
    );
  });
}

test("secrets: errors of a handshake that fails show none", { timeout: 60_000 }, async () => {
  const failing: readonly (readonly [string, Options, Options])[] = [
    ["another psk", { protocol: "v2" }, { protocol: "v2", psk: `${TEXT}!` }],
    ["not known", CASES[3]![1], { ...CASES[3]![2], knownPeers: [carol.publicKey] }],
    ["another suite", { protocol: "v2", suites: ["AESGCM_SHA256"] }, {
      protocol: "v2",
      suites: ["ChaChaPoly_BLAKE2b"],
    }],
    ["v1", { protocol: "v2" }, {}],
    ["gomux", {}, { protocol: "v2" }],
  ];
  for (const [what, options, serverOptions] of failing) {
    const [near, far] = connPair({ lingerMs: 500 });
    const sessions = [
      client(near, { psk: TEXT, ...options }),
      server(far, { psk: TEXT, ...serverOptions }),
    ];
    for (const mux of sessions) {
      for (const promise of [mux.ready, mux.closed, mux.openStream(), mux.acceptStream()]) {
        const [result] = await Promise.allSettled([promise]);
        const { reason } = result as PromiseRejectedResult;
        assertSecret(shown(reason), [...SECRETS, alice.publicKey, bob.publicKey], what);
      }
      assertSecret(shown(mux), SECRETS, what);
    }
  }
});

test("secrets: errors and warnings about options show none", () => {
  const warnings: MuxWarning[] = [];
  const [near] = connPair();
  const wrong: readonly Options[] = [
    { protocol: "v3" as "v2" },
    { protocol: "v2", suites: [TEXT as "AESGCM_SHA256"].slice(1) },
    { protocol: "v2", identity: { privateKey: alice.privateKey.slice(1) }, knownPeers: [] },
    { protocol: "v2", identity: alice },
    { protocol: "v1", identity: alice, knownPeers: [] },
    { protocol: "v2", identity: alice, knownPeers: [alice.publicKey.slice(1)] },
    { windowBytes: -1 },
    { aead: {} as Aead },
  ];
  for (const options of wrong) {
    let error: unknown;
    try {
      client(near, { psk: TEXT, ...options });
    } catch (thrown) {
      error = thrown;
    }
    assert(error instanceof Error);
    assertSecret(shown(error), [...SECRETS, alice.publicKey], JSON.stringify(Object.keys(options)));
  }
  const mux = client(near, { psk: "hunter2", onWarning: (warning) => warnings.push(warning) });
  mux.abort();
  assertEquals(warnings.map(({ code }) => code), ["weak-psk"]);
  assert(!shown(warnings).includes("hunter2"));
});

test("secrets: a listener and its sessions show none", { timeout: 60_000 }, async () => {
  const options = {
    psk: TEXT,
    protocol: "v2",
    identity: alice,
    knownPeers: [bob.publicKey],
  } as const;
  const listener = await listen("127.0.0.1:0", options);
  assertSecret(shown(listener), SECRETS, "the listener");
  await listener.close();
});

test("secrets: the psk and the identity are copied, so that who gives them may wipe theirs", async () => {
  const psk = utf8(TEXT);
  const identity = { privateKey: alice.privateKey.slice() };
  const [near, far] = connPair({ lingerMs: 500 });
  const more = { protocol: "v2" } as const;
  const ours = client(near, { ...more, psk, identity, knownPeers: [bob.publicKey] });
  psk.fill(0);
  identity.privateKey.fill(0);
  const theirs = server(far, { ...more, psk: TEXT, identity: bob, knownPeers: [alice.publicKey] });
  await Promise.all([ours.ready, theirs.ready]);
  await ours.close();
  await theirs.closed;
});
