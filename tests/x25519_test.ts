import { describe, it } from "node:test";
import { inspect } from "node:util";
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { X25519 } from "../adapters/_x25519_key.ts";
import { nobleX25519 } from "../adapters/_x25519_noble.ts";
import { nodeX25519 } from "../adapters/_x25519_node.ts";
import { webX25519 } from "../adapters/_x25519_web.ts";
import { agree, generateKeyPair, keyPairFrom } from "../adapters/x25519.ts";
import { hex, LOW_ORDER_KEYS, unhex } from "./mux2_noise_vectors.ts";

/** RFC 7748 6.1. */
const ALICE = {
  secret: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
  public: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
};
const BOB = {
  secret: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
  public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
};
const SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";

/** All three exist on Deno, Bun and Node: one that is missing is a failure. */
const IMPLEMENTATIONS: Readonly<Record<string, () => Promise<X25519 | undefined>>> = {
  node: () => Promise.resolve(nodeX25519()),
  web: webX25519,
  noble: () => Promise.resolve(nobleX25519),
};

for (const [name, load] of Object.entries(IMPLEMENTATIONS)) {
  describe(`X25519 by ${name}`, () => {
    it("gives the keys and the secret of RFC 7748", async () => {
      const x25519 = (await load())!;
      const alice = await x25519.from(unhex(ALICE.secret));
      const bob = await x25519.from(unhex(BOB.secret));
      assertEquals(hex(alice.publicKey), ALICE.public);
      assertEquals(hex(bob.publicKey), BOB.public);
      assertEquals(hex(await agree(alice, bob.publicKey)), SHARED);
      assertEquals(hex(await agree(bob, alice.publicKey)), SHARED);
    });

    it("makes pairs that agree with those of the portable one, and never one twice", async () => {
      const x25519 = (await load())!;
      const [ours, other] = [await x25519.generate(), await x25519.generate()];
      const theirs = await nobleX25519.generate();
      assertEquals(await agree(ours, theirs.publicKey), await agree(theirs, ours.publicKey));
      assert(hex(ours.publicKey) !== hex(other.publicKey));
      for (const bytes of [ours.publicKey, await agree(ours, theirs.publicKey)]) {
        assertEquals(Object.getPrototypeOf(bytes), Uint8Array.prototype, "no Buffer");
        assertEquals(bytes.length, 32);
      }
    });

    it("ignores the highest bit of a public key, as RFC 7748 5 says", async () => {
      const alice = await (await load())!.from(unhex(ALICE.secret));
      const marked = unhex(BOB.public);
      marked[31]! |= 0x80;
      assertEquals(hex(await agree(alice, marked)), SHARED);
    });

    it("refuses points of low order", async () => {
      const alice = await (await load())!.from(unhex(ALICE.secret));
      for (const key of LOW_ORDER_KEYS) {
        await assertRejects(() => agree(alice, key), RangeError, "public key");
      }
    });

    it("keeps a copy of a private key and shows it nowhere", async () => {
      const secret = new Uint8Array(32).fill(0x5b);
      const pair = await (await load())!.from(secret);
      const { publicKey } = await nobleX25519.from(secret);
      secret.fill(0);
      const peer = await nobleX25519.generate();
      assertEquals(await agree(pair, peer.publicKey), await agree(peer, publicKey));
      const shown = inspect(pair, { showHidden: true, depth: Infinity }) + JSON.stringify(pair);
      assert(!/5b5b|91,\s*91|5b 5b|W1tb/.test(shown), shown);
    });
  });
}

describe("X25519", () => {
  it("refuses keys that are none", async () => {
    const pair = await generateKeyPair();
    for (const length of [0, 31, 33, 64]) {
      const key = new Uint8Array(length);
      await assertRejects(() => keyPairFrom(key), RangeError, `a private key of ${length} bytes`);
      await assertRejects(() => agree(pair, key), RangeError, `a public key of ${length} bytes`);
    }
    const junks: unknown[] = [
      undefined,
      null,
      "x".repeat(32),
      Array(32).fill(1),
      new ArrayBuffer(32),
    ];
    for (const junk of junks) {
      await assertRejects(() => keyPairFrom(junk as Uint8Array), TypeError, "a private key is");
      await assertRejects(() => agree(pair, junk as Uint8Array), TypeError, "a public key is");
    }
  });

  it("copies a private key before it waits", async () => {
    const secret = unhex(ALICE.secret);
    const making = keyPairFrom(secret);
    secret.fill(0);
    assertEquals(hex(await agree(await making, unhex(BOB.public))), SHARED);
  });

  it("makes sure itself that what was agreed on is not zero", async () => {
    const pair = { publicKey: new Uint8Array(32), derive: () => new Uint8Array(32) };
    await assertRejects(() => agree(pair, unhex(BOB.public)), RangeError, "low order");
  });

  it("takes private keys as they are, in part of a buffer and of any class", async () => {
    const buffer = Buffer.from(`00${ALICE.secret}00`, "hex");
    const pair = await keyPairFrom(buffer.subarray(1, 33));
    assertEquals(hex(pair.publicKey), ALICE.public);
    assertEquals(hex(buffer), `00${ALICE.secret}00`, "untouched");
    buffer.fill(0);
    assertEquals(hex(await agree(pair, Buffer.from(BOB.public, "hex"))), SHARED);
  });
});
