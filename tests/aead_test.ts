/** Every AEAD of this runtime against the portable one, and that against the RFC. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import {
  type Aead,
  type AeadCipher,
  nobleAead,
  nobleAesAead,
  type SealBox,
} from "../adapters/aead.ts";
import {
  type AeadName,
  AES_WEB_FROM_BYTES,
  byLength,
  fromSodium,
  loadAead,
  NATIVE_FROM_BYTES,
  type SodiumLike,
} from "../adapters/aead_load.ts";
import { RUNTIME } from "./adapter_kinds.ts";
import { fromHex, pattern, toHex } from "./mux_vectors.ts";

/** What this runtime has for ChaCha20-Poly1305. Node's WebCrypto has it too since 24, and warns. */
const NAMES: readonly AeadName[] = {
  deno: ["noble", "libsodium", "node", "webcrypto"],
  bun: ["noble", "libsodium", "webcrypto"],
  node: ["noble", "libsodium", "node"],
}[RUNTIME] as readonly AeadName[];

/** What every runtime has for AES-256-GCM. */
const AES_NAMES: readonly AeadName[] = ["noble", "node", "webcrypto"];

/** A published example. */
interface Vector {
  readonly source: string;
  readonly key: string;
  readonly nonce: string;
  readonly aad: string;
  readonly input: string;
  readonly output: string;
}

const text = "Ladies and Gentlemen of the class of '99: " +
  "If I could offer you only one tip for the future, sunscreen would be it.";

const AES_KEY = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
const AES_NONCE = "cafebabefacedbaddecaf888";
const AES_INPUT = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
const AES_OUTPUT = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
  "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";

const VECTORS: Readonly<Record<AeadCipher, readonly Vector[]>> = {
  "ChaCha20-Poly1305": [{
    source: "RFC 8439 section 2.8.2",
    key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    nonce: "070000004041424344454647",
    aad: "50515253c0c1c2c3c4c5c6c7",
    input: toHex(new TextEncoder().encode(text)),
    output: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" +
      "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
      "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
      "3ff4def08e4b7a9de576d26586cec64b6116" + "1ae10b594f09e26a7e902ecbd0600691",
  }],
  // McGrew and Viega, The Galois/Counter Mode of Operation, appendix B: those with keys of 256 bits and nonces of 96.
  "AES-256-GCM": [
    {
      source: "GCM test case 13",
      key: "00".repeat(32),
      nonce: "00".repeat(12),
      aad: "",
      input: "",
      output: "530f8afbc74536b9a963b4f1c4cb738b",
    },
    {
      source: "GCM test case 14",
      key: "00".repeat(32),
      nonce: "00".repeat(12),
      aad: "",
      input: "00".repeat(16),
      output: "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919",
    },
    {
      source: "GCM test case 15",
      key: AES_KEY,
      nonce: AES_NONCE,
      aad: "",
      input: AES_INPUT,
      output: AES_OUTPUT + "b094dac5d93471bdec1a502270e3cc6c",
    },
    {
      source: "GCM test case 16",
      key: AES_KEY,
      nonce: AES_NONCE,
      aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      input: AES_INPUT.slice(0, 120),
      output: AES_OUTPUT.slice(0, 120) + "76fc6ece0f4e1768cddf8853bb2d551b",
    },
  ],
};

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

/** Lengths on both sides of where another implementation takes over. */
const THRESHOLDS = [...Object.values(NATIVE_FROM_BYTES), AES_WEB_FROM_BYTES].flatMap((bytes) => [
  bytes - 1,
  bytes,
]);

const KEY = pattern(32, 1);
let nonces = 0;

function box(length: number, key = KEY): SealBox {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(4, ++nonces, true);
  const output = new Uint8Array(length + 16);
  return { key, nonce, aad: pattern(36, nonces), input: pattern(length, nonces), output };
}

const asOpen = ({ key, nonce, aad, output }: SealBox) => ({ key, nonce, aad, input: output });

function suite(
  title: string,
  load: () => Promise<Aead>,
  cipher: AeadCipher = "ChaCha20-Poly1305",
): void {
  title = `${cipher} by ${title}`;
  const noble = cipher === "AES-256-GCM" ? nobleAesAead : nobleAead;

  for (const { source, ...hex } of VECTORS[cipher]) {
    test(`AEAD ${title}: the example of ${source}`, async () => {
      const aead = await load();
      const input = fromHex(hex.input);
      const sealed = {
        key: fromHex(hex.key),
        nonce: fromHex(hex.nonce),
        aad: fromHex(hex.aad),
        input,
        output: new Uint8Array(input.length + 16),
      };
      await aead.seal([sealed]);
      assertEquals(toHex(sealed.output), hex.output);
      assertEquals(await aead.open([asOpen(sealed)]), [input]);
    });
  }

  test(`AEAD ${title}: as noble, for all kinds of lengths at once`, async () => {
    const aead = await load();
    const lengths = [0, 1, 15, 16, 17, 63, 64, 65, 255, 1024, 8191, 8192, 8193, 65536, 70_001];
    const other = pattern(32, 9);
    const boxes = lengths.flatMap((length) => [
      box(length),
      box(length, other),
      { ...box(length), aad: new Uint8Array(0) },
    ]);
    const expected = boxes.map((it) => ({ ...it, output: new Uint8Array(it.output.length) }));
    await aead.seal(boxes);
    noble.seal(expected);
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
    for (const length of [0, 5, 300, ...THRESHOLDS]) {
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

  test(`AEAD ${title}: what is cut is undefined, down to nothing`, async () => {
    const aead = await load();
    const whole = box(40);
    await aead.seal([whole]);
    for (const length of [0, 1, 15, 16, 17, 55]) {
      const input = whole.output.subarray(0, length);
      const opened = await aead.open([{ ...asOpen(whole), input }, asOpen(whole)]);
      assertEquals(opened, [undefined, whole.input]);
    }
  });

  test(`AEAD ${title}: a key or a nonce of another length is a RangeError`, async () => {
    const aead = await load();
    const rejects = async (wrong: SealBox, message: string) => {
      await assertRejects(async () => await aead.seal([wrong]), RangeError, message);
      await assertRejects(async () => await aead.open([asOpen(wrong)]), RangeError, message);
    };
    for (const length of [0, 16, 31, 33]) {
      const key = pattern(length, 1);
      await rejects({ ...box(10), key }, `a key for an AEAD has 32 bytes, not ${length}`);
    }
    for (const length of [0, 8, 11, 24]) {
      const nonce = pattern(length, 1);
      await rejects({ ...box(10), nonce }, `a nonce for an AEAD has 12 bytes, not ${length}`);
    }
  });

  test(`AEAD ${title}: associated data may be longer than the message`, async () => {
    const aead = await load();
    const boxes = [70, 5000, 100_000].map((length) => ({ ...box(20), aad: pattern(length, 2) }));
    const expected = boxes.map((it) => ({ ...it, output: new Uint8Array(it.output.length) }));
    await aead.seal(boxes);
    noble.seal(expected);
    assertEquals(boxes.map((it) => toHex(it.output)), expected.map((it) => toHex(it.output)));
    assertEquals(await aead.open(boxes.map(asOpen)), boxes.map((it) => it.input));
  });

  test(`AEAD ${title}: what is made of a key belongs to that object`, async () => {
    const aead = await load();
    const key = pattern(32, 3);
    const first = box(50, key);
    await aead.seal([first, { ...box(50, pattern(32, 4)) }]);
    // The same bytes in another object are the same key.
    const same = { ...asOpen(first), key: pattern(32, 3) };
    const other = { ...asOpen(first), key: pattern(32, 5) };
    assertEquals(await aead.open([same, other, asOpen(first)]), [
      ...[first.input, undefined, first.input],
    ]);
  });

  test(`AEAD ${title}: says which cipher it is`, async () => {
    assertEquals((await load()).cipher ?? "ChaCha20-Poly1305", cipher);
  });
}

for (const name of NAMES) suite(name, () => loadAead(name));
for (const name of AES_NAMES) suite(name, () => loadAead(name, "AES-256-GCM"), "AES-256-GCM");
suite("the best", () => loadAead(undefined, "AES-256-GCM"), "AES-256-GCM");
suite("fromSodium()", () => Promise.resolve(fromSodium(SODIUM_NATIVE)));
suite("the best", () => loadAead());

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

suite(
  "two that are both elsewhere",
  () => Promise.resolve(byLength(later("a"), later("b"), 100)),
);

test("byLength() leaves no rejection unhandled when both refuse", async () => {
  const aead = byLength(nobleAead, later("b"), 100);
  const wrong = [box(10, pattern(16, 1)), box(200, pattern(16, 1))];
  await assertRejects(async () => await aead.seal(wrong), RangeError);
  await assertRejects(async () => await aead.open(wrong.map(asOpen)), RangeError);
  // Long enough for the runtime to notice one.
  await new Promise((resolve) => setTimeout(resolve, 0));
});

test("loadAead() names what it found, and refuses what this runtime lacks", async () => {
  const native = RUNTIME === "bun" ? "webcrypto" : "node";
  const { name } = await loadAead();
  assertEquals(name, `libsodium, from ${NATIVE_FROM_BYTES[native]} bytes ${native}`);
  if (RUNTIME === "bun") await assertRejects(() => loadAead("node"), TypeError, "node");
  const aes = await loadAead(undefined, "AES-256-GCM");
  const onDeno = `node, from ${AES_WEB_FROM_BYTES} bytes webcrypto`;
  assertEquals(aes.name, RUNTIME === "deno" ? onDeno : "node");
  await assertRejects(
    () => loadAead("libsodium", "AES-256-GCM"),
    TypeError,
    "this runtime has no AEAD called libsodium for AES-256-GCM",
  );
  await assertRejects(
    () => loadAead(undefined, "AES-128-GCM" as AeadCipher),
    TypeError,
    "there is no AEAD for AES-128-GCM",
  );
});

test("loadAead() loads each once", async () => {
  for (const name of [undefined, ...AES_NAMES]) {
    const aead = await loadAead(name, "AES-256-GCM");
    assert(aead === await loadAead(name, "AES-256-GCM"));
  }
  assert(await loadAead("node", "AES-256-GCM") !== await loadAead("noble", "AES-256-GCM"));
});
