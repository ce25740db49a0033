/** Every AEAD of this runtime against the portable one, and that against the RFC. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import { type Aead, nobleAead, type SealBox } from "../adapters/aead.ts";
import {
  type AeadName,
  byLength,
  fromSodium,
  loadAead,
  NATIVE_FROM_BYTES,
  type SodiumLike,
} from "../adapters/aead_load.ts";
import { RUNTIME } from "./adapter_kinds.ts";
import { fromHex, pattern, toHex } from "./mux_vectors.ts";

/** What this runtime has. Node's WebCrypto has it too since 24, and warns. */
const NAMES: readonly AeadName[] = {
  deno: ["noble", "libsodium", "node", "webcrypto"],
  bun: ["noble", "libsodium", "webcrypto"],
  node: ["noble", "libsodium", "node"],
}[RUNTIME] as readonly AeadName[];

/** sodium-native as its users bring it, with its way to fail. */
const SODIUM_NATIVE: SodiumLike = {
  crypto_aead_chacha20poly1305_ietf_encrypt(output, input, aad, _, nonce, key) {
    nobleAead.seal([{ key, nonce, aad, input, output }]);
    return output.length;
  },
  crypto_aead_chacha20poly1305_ietf_decrypt(output, _, input, aad, nonce, key) {
    const [opened] = nobleAead.open([{ key, nonce, aad, input }]) as Uint8Array[];
    if (opened === undefined) throw new Error("could not verify data");
    output.set(opened);
    return output.length;
  },
};

const KEY = pattern(32, 1);
let nonces = 0;

function box(length: number, key = KEY): SealBox {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(4, ++nonces, true);
  const output = new Uint8Array(length + 16);
  return { key, nonce, aad: pattern(36, nonces), input: pattern(length, nonces), output };
}

const asOpen = ({ key, nonce, aad, output }: SealBox) => ({ key, nonce, aad, input: output });

function suite(title: string, load: () => Promise<Aead>): void {
  test(`AEAD ${title}: the example of RFC 8439 section 2.8.2`, async () => {
    const aead = await load();
    const text = "Ladies and Gentlemen of the class of '99: " +
      "If I could offer you only one tip for the future, sunscreen would be it.";
    const input = new TextEncoder().encode(text);
    const sealed = {
      key: fromHex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"),
      nonce: fromHex("070000004041424344454647"),
      aad: fromHex("50515253c0c1c2c3c4c5c6c7"),
      input,
      output: new Uint8Array(input.length + 16),
    };
    await aead.seal([sealed]);
    const expected = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" +
      "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
      "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
      "3ff4def08e4b7a9de576d26586cec64b6116" + "1ae10b594f09e26a7e902ecbd0600691";
    assertEquals(toHex(sealed.output), expected);
    const [opened] = await aead.open([asOpen(sealed)]);
    assertEquals(opened, input);
  });

  test(`AEAD ${title}: as noble, for all kinds of lengths at once`, async () => {
    const aead = await load();
    const lengths = [0, 1, 15, 16, 17, 63, 64, 65, 255, 1024, 8191, 8192, 8193, 65536, 70_001];
    const other = pattern(32, 9);
    const boxes = lengths.flatMap((length) => [box(length), box(length, other)]);
    const expected = boxes.map((it) => ({ ...it, output: new Uint8Array(it.output.length) }));
    await aead.seal(boxes);
    nobleAead.seal(expected);
    for (const [i, { output }] of boxes.entries()) assertEquals(output, expected[i]!.output);
    const opened = await aead.open(boxes.map(asOpen));
    assertEquals(opened.length, boxes.length);
    for (const [i, { input, output }] of boxes.entries()) {
      assertEquals(opened[i], input);
      assert(opened[i]!.buffer !== output.buffer, "memory of its own");
      assertEquals(opened[i]!.constructor, Uint8Array, "and not a Buffer");
    }
    await aead.seal([]);
    assertEquals(await aead.open([]), []);
  });

  test(`AEAD ${title}: what is forged is undefined, and its neighbours are opened`, async () => {
    const aead = await load();
    for (const length of [0, 5, 300, NATIVE_FROM_BYTES.node + 1, NATIVE_FROM_BYTES.webcrypto + 1]) {
      const boxes = Array.from({ length: 6 }, () => box(length));
      await aead.seal(boxes);
      const forged = boxes.map(asOpen);
      const flip = (bytes: Uint8Array, at: number) =>
        bytes.map((byte, i) => i === at ? byte ^ 128 : byte);
      forged[1] = { ...forged[1]!, input: flip(forged[1]!.input, 0) };
      forged[2] = { ...forged[2]!, input: flip(forged[2]!.input, length + 15) };
      forged[3] = { ...forged[3]!, aad: flip(forged[3]!.aad, 35) };
      forged[4] = { ...forged[4]!, nonce: flip(forged[4]!.nonce, 11) };
      const opened = await aead.open(forged);
      assertEquals(opened.map((it) => it?.length), [
        ...[length, undefined, undefined, undefined, undefined, length],
      ]);
    }
  });
}

for (const name of NAMES) suite(name, () => loadAead(name));
suite("fromSodium()", () => Promise.resolve(fromSodium(SODIUM_NATIVE)));
suite("the best", () => loadAead());
suite("two that are both elsewhere", () => {
  const later = (name: string): Aead => ({
    name,
    seal: async (boxes) => {
      await undefined;
      nobleAead.seal(boxes);
    },
    open: async (boxes) => {
      await undefined;
      return nobleAead.open(boxes);
    },
  });
  return Promise.resolve(byLength(later("a"), later("b"), 100));
});

test("loadAead() names what it found, and refuses what this runtime lacks", async () => {
  const native = RUNTIME === "bun" ? "webcrypto" : "node";
  const { name } = await loadAead();
  assertEquals(name, `libsodium, from ${NATIVE_FROM_BYTES[native]} bytes ${native}`);
  if (RUNTIME === "bun") await assertRejects(() => loadAead("node"), TypeError, "node");
});
