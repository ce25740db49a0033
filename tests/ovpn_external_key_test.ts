/** `provideKey`, against a simulated OpenVPN; signatures are verified by another implementation. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import {
  constants,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  privateEncrypt,
  sign,
  verify,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";
import { connPair } from "@trunkline/sockets/auto";
import {
  type AnswerError,
  ecdsaToDer,
  type KeyOptions,
  ManagementClient,
  provideKey,
  type Signer,
  type SignRequest,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon, type SimulatorOptions } from "@trunkline/sockets/ovpn/testing";

const MESSAGE = new TextEncoder().encode("the transcript of a handshake, which is no digest");
const { subtle } = globalThis.crypto;

async function start(
  key: CryptoKey | readonly CryptoKey[] | Signer,
  { simulated = {}, ...options }: Partial<KeyOptions> & { simulated?: SimulatorOptions } = {},
) {
  const daemon = simulateDaemon(simulated);
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  const errors: AnswerError[] = [];
  const told = Promise.withResolvers<AnswerError>();
  const onError = (error: AnswerError) => {
    errors.push(error);
    told.resolve(error);
  };
  const provider = provideKey(client, key, { onError, ...options });
  await client.pid();
  const end = async () => {
    await client.close();
    await daemon.close();
    await provider.closed;
  };
  return { daemon, client, errors, told: told.promise, provider, end };
}

type Generated = { readonly privateKey: CryptoKey; readonly publicKey: CryptoKey };

async function generate(
  algorithm: RsaHashedKeyGenParams | EcKeyGenParams | { name: "Ed25519" },
): Promise<{ readonly key: CryptoKey; readonly verifier: KeyObject }> {
  const pair = await subtle.generateKey(algorithm, false, ["sign", "verify"]) as Generated;
  const spki = await subtle.exportKey("spki", pair.publicKey);
  const verifier = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
  return { key: pair.privateKey, verifier };
}

const rsa = (name: string, hash: string, modulusLength = 2048) =>
  generate({ name, hash, modulusLength, publicExponent: Uint8Array.of(1, 0, 1) });

test("provideKey() signs messages with RSA keys of WebCrypto, PKCS#1 and PSS", async () => {
  const pkcs1 = await rsa("RSASSA-PKCS1-v1_5", "SHA-256");
  const pss256 = await rsa("RSA-PSS", "SHA-256");
  const pss512 = await rsa("RSA-PSS", "SHA-512");
  const keys = [pkcs1.key, pss256.key, pss512.key];
  const { daemon, errors, end } = await start(keys);
  const first = await daemon.sign(MESSAGE, "RSA_PKCS1_PADDING,hashalg=SHA256,data=message");
  assert(verify("sha256", MESSAGE, pkcs1.verifier, first));
  const padding = constants.RSA_PKCS1_PSS_PADDING;
  for (
    const [algorithm, hash, verifier, saltLength] of [
      ["SHA256,saltlen=digest", "sha256", pss256.verifier, 32],
      ["SHA2-256,saltlen=max", "sha256", pss256.verifier, 256 - 32 - 2],
      ["SHA512,saltlen=digest", "sha512", pss512.verifier, 64],
    ] as const
  ) {
    const signature = await daemon.sign(
      MESSAGE,
      `RSA_PKCS1_PSS_PADDING,hashalg=${algorithm},data=message`,
    );
    assert(verify(hash, MESSAGE, { key: verifier, padding, saltLength }, signature), algorithm);
  }
  assertEquals(errors, []);
  await end();
});

test("provideKey() signs messages with ECDSA keys of WebCrypto, in DER", async () => {
  for (
    const [namedCurve, hash] of [["P-256", "SHA256"], ["P-384", "SHA384"], ["P-521", "SHA512"]]
  ) {
    const { key, verifier } = await generate({ name: "ECDSA", namedCurve: namedCurve! });
    const { daemon, end } = await start(key);
    // Whose r or s begins with zeros or a high bit is a matter of chance.
    for (let round = 0; round < 20; round++) {
      const message = MESSAGE.subarray(round);
      const signature = await daemon.sign(message, `ECDSA,hashalg=${hash},data=message`);
      assert(verify(hash!.toLowerCase(), message, verifier, signature), `${namedCurve}`);
    }
    await end();
  }
});

test("provideKey() signs with an Ed25519 key of WebCrypto, with and without the digest flag", async () => {
  const { key, verifier } = await generate({ name: "Ed25519" });
  const { daemon, end } = await start(key);
  for (const algorithm of ["ED25519", "ED25519,data=message"]) {
    assert(verify(null, MESSAGE, verifier, await daemon.sign(MESSAGE, algorithm)));
  }
  await end();
});

test("provideKey() tells what keys of WebCrypto cannot sign", async () => {
  const { key } = await rsa("RSA-PSS", "SHA-256");
  for (
    const [algorithm, text] of [
      ["RSA_PKCS1_PADDING", "takes no digest"],
      ["RSA_NO_PADDING", "takes no digest"],
      ["ECDSA", "takes no digest"],
      ["RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=digest", "takes no digest"],
      ["RSA_PKCS1_PADDING,hashalg=SHA256,data=message", "none of 1 keys"],
      ["RSA_PKCS1_PSS_PADDING,hashalg=SHA384,saltlen=digest,data=message", "SHA384"],
      ["RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=7,data=message", ", 7"],
      ["ECDSA,hashalg=SHA256,data=message", "none of 1 keys"],
      ["ED25519", "none of 1 keys"],
      ["SOMETHING,data=message", "none of 1 keys"],
    ] as const
  ) {
    const { daemon, told, end } = await start(key);
    daemon.sign(MESSAGE, algorithm).catch(() => {});
    const error = await told;
    assertEquals(error.code, "unsupported-key", algorithm);
    assert(error.message.includes(text), error.message);
    await end();
  }
});

const CERTIFICATE = readFileSync(new URL("fixtures/tls/client.crt", import.meta.url), "utf8");

test("provideKey() gives a signer all that OpenVPN tells, and passes its signature on", async () => {
  const requests: SignRequest[] = [];
  const { daemon, end } = await start((request) => {
    requests.push(request);
    return Uint8Array.of(1, 2, 255, requests.length);
  });
  const algorithms = [
    "RSA_PKCS1_PADDING",
    "RSA_NO_PADDING",
    "RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=max",
    "ECDSA",
    "ED25519",
    "ED448",
    "ECDSA,hashalg=SHA384,data=message",
  ];
  for (const [index, algorithm] of algorithms.entries()) {
    assertEquals(await daemon.sign(MESSAGE, algorithm), Uint8Array.of(1, 2, 255, index + 1));
  }
  assertEquals(requests.map(({ data }) => data), algorithms.map(() => MESSAGE));
  assertEquals(
    requests.map((it) => [it.algorithm, it.hash, it.saltLength, it.message]),
    [
      ["RSA_PKCS1_PADDING", undefined, undefined, false],
      ["RSA_NO_PADDING", undefined, undefined, false],
      ["RSA_PKCS1_PSS_PADDING", "SHA256", "max", false],
      ["ECDSA", undefined, undefined, false],
      ["ED25519", undefined, undefined, true],
      ["ED448", undefined, undefined, true],
      ["ECDSA", "SHA384", undefined, true],
    ],
  );
  await end();
});

test("provideKey() signs the same data as often as it is asked, also for a daemon that was told no version", async () => {
  let calls = 0;
  const algorithms = new Set<string | undefined>();
  const { daemon, client, errors, end } = await start(({ algorithm }) => {
    algorithms.add(algorithm);
    return Uint8Array.of(++calls);
  });
  const asked = Array.from({ length: 20 }, () => daemon.sign(MESSAGE));
  const signatures = await Promise.all(asked);
  assertEquals(signatures.map(([number]) => number), asked.map((_, index) => index + 1));
  await client.setVersion(1);
  assertEquals(await daemon.sign(MESSAGE), Uint8Array.of(21));
  assertEquals([...algorithms], ["RSA_PKCS1_PADDING", undefined]);
  assertEquals(errors, []);
  await end();
});

test("provideKey() tells of signers that fail, and goes on", async () => {
  const bad: [() => unknown, string][] = [
    [() => undefined, "unanswered"],
    [() => Promise.reject(new Error("no token")), "callback"],
    [() => "AAAA", "invalid-answer"],
    [() => new Uint8Array(0), "invalid-answer"],
  ];
  for (const [give, code] of bad) {
    let first = true;
    const signer = () => first ? (first = false, give()) : Uint8Array.of(7);
    const { daemon, told, end } = await start(signer as Signer);
    const stop = new AbortController();
    daemon.sign(MESSAGE, "ECDSA", { signal: stop.signal }).catch(() => {});
    const error = await told;
    assertEquals(error.code, code);
    stop.abort();
    assertEquals(await daemon.sign(MESSAGE, "ECDSA"), Uint8Array.of(7));
    assert(!inspect(error).includes("AAAA"));
    await end();
  }
});

test("provideKey() withdraws what OpenVPN does not wait for any more", async () => {
  const seen = Promise.withResolvers<SignRequest>();
  const late = Promise.withResolvers<Uint8Array>();
  const commands: string[] = [];
  const { daemon, client, errors, end } = await start((request) => {
    seen.resolve(request);
    return late.promise;
  }, { simulated: { onCommand: (parameters) => void commands.push(parameters.join(" ")) } });
  await client.setStateEvents(true);
  daemon.sign(MESSAGE).catch(() => {});
  const { signal } = await seen.promise;
  daemon.restart();
  await new Promise<void>((resolve) =>
    signal.aborted ? resolve() : signal.addEventListener("abort", () => resolve(), { once: true })
  );
  late.resolve(Uint8Array.of(1));
  await client.pid();
  assert(!commands.includes("pk-sig"));
  assertEquals(errors, []);
  await end();
});

test("provideKey() gives the certificate as often as it is asked for", async () => {
  const none = () => undefined;
  const { daemon, end } = await start(none, { certificate: CERTIFICATE });
  const lines = CERTIFICATE.trim();
  assert((await daemon.needCertificate("a hint")).includes(lines));
  assert((await daemon.needCertificate("a hint")).includes(lines));
  await end();
  const without = await start(none);
  without.daemon.needCertificate("x").catch(() => {});
  assertEquals((await without.told).code, "no-callback");
  await without.end();
  const wrong = await start(none, { certificate: "no PEM" });
  wrong.daemon.needCertificate("x").catch(() => {});
  assertEquals((await wrong.told).code, "invalid-answer");
  await wrong.end();
});

test("provideKey() refuses keys that cannot sign, and versions without algorithms", async () => {
  const daemon = simulateDaemon();
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  const pair = await subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, [
    "sign",
    "verify",
  ]);
  const onError = () => {};
  assertThrows(() => provideKey(client, [], { onError }), TypeError);
  const noFunction = "" as unknown as () => void;
  assertThrows(() => provideKey(client, pair.privateKey, { onError: noFunction }), TypeError);
  assertThrows(() => provideKey(client, pair.publicKey, { onError }), TypeError);
  for (const version of [2, 3.5, NaN]) {
    assertThrows(() => provideKey(client, pair.privateKey, { onError, version }), RangeError);
  }
  await client.close();
  await daemon.close();
});

test("provideKey() takes a signer of node:crypto, which can sign a DigestInfo", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const padding = constants.RSA_PKCS1_PADDING;
  // As in docs/ovpn.md.
  const { daemon, told, end } = await start(({ data, algorithm, message, hash }) => {
    if (message) return sign(hash, data, privateKey);
    if (algorithm !== "RSA_PKCS1_PADDING") return undefined;
    return privateEncrypt({ key: privateKey, padding }, data);
  });
  const digest = createHash("sha256").update(MESSAGE).digest();
  const info = Buffer.concat([
    Buffer.from("3031300d060960864801650304020105000420", "hex"),
    digest,
  ]);
  const signature = await daemon.sign(info, "RSA_PKCS1_PADDING");
  assert(verify("sha256", MESSAGE, publicKey, signature));
  const whole = await daemon.sign(MESSAGE, "RSA_PKCS1_PADDING,hashalg=SHA512,data=message");
  assert(verify("sha512", MESSAGE, publicKey, whole));
  daemon.sign(digest, "RSA_NO_PADDING").catch(() => {});
  assertEquals((await told).code, "unanswered");
  await end();
});

test("ecdsaToDer() writes the shortest numbers, and refuses what is no signature", () => {
  const vectors: [string, string][] = [
    ["0001", "3006020100020101"],
    ["7f80", "300702017f02020080"],
    ["00000000", "3006020100020100"],
    ["00010080", "300702010102020080"],
    ["ff".repeat(132), `30818a0243${"00"}${"ff".repeat(66)}0243${"00"}${"ff".repeat(66)}`],
  ];
  for (const [raw, der] of vectors) {
    assertEquals(Buffer.from(ecdsaToDer(Buffer.from(raw, "hex"))).toString("hex"), der);
  }
  for (const length of [0, 1, 63, 134]) {
    assertThrows(() => ecdsaToDer(new Uint8Array(length)), RangeError);
  }
});
