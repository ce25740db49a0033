import { describe, it } from "node:test";
import { inspect } from "node:util";
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { generateKeyPair, type KeyPair } from "../adapters/x25519.ts";
import { MuxError } from "../mux/errors.ts";
import {
  Handshake,
  type HandshakeOptions,
  MAX_NOISE_MESSAGE_BYTES,
  type NoisePattern,
} from "../mux/v2/noise.ts";
import { type NoiseSuite, open, seal } from "../mux/v2/suite.ts";
import { hex, LOW_ORDER_KEYS, nameOf, sideOf, unhex, vectors } from "./mux2_noise_vectors.ts";

const NOTHING = new Uint8Array(0);
const PSK = new Uint8Array(32).fill(0xa7);
const SUITES: readonly NoiseSuite[] = ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"];
const KINDS = SUITES.flatMap((suite) =>
  (["NNpsk0", "XXpsk3"] as const).map((pattern) => ({ pattern, suite }))
);

/** A Buffer's slice() is its own memory, and not a copy. */
const COPIES = {
  Uint8Array: (bytes: ArrayLike<number>): Uint8Array => Uint8Array.from(bytes),
  Buffer: (bytes: ArrayLike<number>): Uint8Array => Buffer.from(Uint8Array.from(bytes)),
};

type Changes = Partial<HandshakeOptions>;

async function side(kind: typeof KINDS[number], initiator: boolean, changes?: Changes) {
  const staticKey = kind.pattern === "XXpsk3" ? await generateKeyPair() : undefined;
  return new Handshake({
    ...{ ...kind, initiator, prologue: Uint8Array.of(1, 2, 3), psk: PSK, staticKey },
    ...changes,
  });
}

/** An initiator and a responder of their own keys. */
async function pairOf(kind: typeof KINDS[number], initiator?: Changes, responder?: Changes) {
  return [await side(kind, true, initiator), await side(kind, false, responder)] as const;
}

/** Passes messages with empty payloads until both are done. */
async function shake([initiator, responder]: readonly [Handshake, Handshake]): Promise<void> {
  for (let turn = 0; !initiator.done || !responder.done; turn++) {
    const [writer, reader] = turn % 2 === 0 ? [initiator, responder] : [responder, initiator];
    await reader.readMessage(await writer.writeMessage(NOTHING));
  }
}

async function assertAuthFailed(act: () => Promise<unknown>): Promise<MuxError> {
  const error = await assertRejects(act, MuxError);
  assertEquals(error.code, "auth-failed");
  assertEquals(
    error.message,
    "handshake: a message is damaged or forged, or the peer has another key",
  );
  assertEquals(error.cause, undefined);
  return error;
}

for (const vector of vectors) {
  const { pattern, suite } = nameOf(vector);
  const handshakeMessages = vector.messages.slice(0, pattern === "NNpsk0" ? 2 : 3);

  /** The reader of message `n` and the message, all before it being done. */
  const readerOf = async (n: number) => {
    const reader = await sideOf(vector, n % 2 === 1);
    for (const [i, { payload, ciphertext }] of handshakeMessages.slice(0, n).entries()) {
      if (i % 2 === n % 2) await reader.readMessage(unhex(ciphertext));
      else await reader.writeMessage(unhex(payload));
    }
    return reader;
  };

  describe(vector.protocol_name, () => {
    it("is what was published: messages, hash and records", async () => {
      const sides = [await sideOf(vector, true), await sideOf(vector, false)] as const;
      for (const [i, { payload, ciphertext }] of handshakeMessages.entries()) {
        const message = await sides[i % 2]!.writeMessage(unhex(payload));
        assertEquals(hex(message), ciphertext);
        assertEquals(hex(await sides[(i + 1) % 2]!.readMessage(message)), payload);
      }
      assertEquals(sides.map((side) => hex(side.hash)), Array(2).fill(vector.handshake_hash));
      const [ours, theirs] = sides.map((side) => side.split());
      assertEquals([ours!.send, ours!.receive], [theirs!.receive, theirs!.send]);
      for (let i = handshakeMessages.length; i < vector.messages.length; i++) {
        const { payload, ciphertext } = vector.messages[i]!;
        const key = i % 2 === 0 ? ours!.send : ours!.receive;
        const counter = Math.floor((i - handshakeMessages.length) / 2);
        assertEquals(hex(seal(suite, key, counter, NOTHING, unhex(payload))), ciphertext);
        assertEquals(hex(open(suite, key, counter, NOTHING, unhex(ciphertext))!), payload);
        assertEquals(open(suite, key, counter + 1, NOTHING, unhex(ciphertext)), undefined);
      }
    });

    it("detects a change of every single byte of every message", async () => {
      for (const [n, { ciphertext }] of handshakeMessages.entries()) {
        for (let at = 0; at < ciphertext.length / 2; at++) {
          const message = unhex(ciphertext);
          message[at]! ^= 1 << at % 8;
          const reader = await readerOf(n);
          await assertAuthFailed(() => reader.readMessage(message));
        }
      }
    });

    it("detects every cut of every message, and every surplus", async () => {
      for (const [n, { ciphertext }] of handshakeMessages.entries()) {
        const message = unhex(ciphertext);
        for (let length = 0; length < message.length; length++) {
          const reader = await readerOf(n);
          await assertAuthFailed(() => reader.readMessage(message.subarray(0, length)));
        }
        for (const length of [message.length + 1, 65535, 65536, 1_000_000]) {
          const longer = new Uint8Array(length);
          longer.set(message);
          const reader = await readerOf(n);
          await assertAuthFailed(() => reader.readMessage(longer));
        }
      }
    });
  });
}

for (const kind of KINDS) {
  describe(`Handshake ${kind.pattern} ${kind.suite}`, () => {
    it("gives both the same keys and hash, and others every time", async () => {
      const seen = new Set<string>();
      for (let i = 0; i < 3; i++) {
        const [initiator, responder] = await pairOf(kind);
        await shake([initiator, responder]);
        assertEquals(initiator.hash, responder.hash);
        const [ours, theirs] = [initiator.split(), responder.split()];
        assertEquals([ours.send, ours.receive], [theirs.receive, theirs.send]);
        for (const bytes of [ours.send, ours.receive, initiator.hash]) seen.add(hex(bytes));
        assertEquals([ours.send.length, ours.receive.length], [32, 32]);
      }
      assertEquals(seen.size, 9);
    });

    it("tells the peer's static key when its owner has proved to be it", async () => {
      const [one, two] = [await generateKeyPair(), await generateKeyPair()];
      const withKeys = kind.pattern === "XXpsk3";
      const [initiator, responder] = await pairOf(
        kind,
        withKeys ? { staticKey: one } : {},
        withKeys ? { staticKey: two } : {},
      );
      assertEquals(initiator.remoteStatic, undefined);
      await shake([initiator, responder]);
      assertEquals(initiator.remoteStatic, withKeys ? two.publicKey : undefined);
      assertEquals(responder.remoteStatic, withKeys ? one.publicKey : undefined);
    });

    it("carries payloads up to the longest message, and not one byte more", async () => {
      const [initiator, responder] = await pairOf(kind);
      const overhead = 48;
      const payload = new Uint8Array(MAX_NOISE_MESSAGE_BYTES - overhead + 1).fill(9);
      await assertRejects(() => initiator.writeMessage(payload), RangeError, "65536 bytes");
      // That was a mistake of ours, and changed nothing.
      const message = await initiator.writeMessage(payload.subarray(1));
      assertEquals(message.length, MAX_NOISE_MESSAGE_BYTES);
      assertEquals(await responder.readMessage(message), payload.subarray(1));
    });

    for (const [type, copyOf] of Object.entries(COPIES)) {
      it(`copies what it is given, as ${type}, and leaves it as it is`, async () => {
        const psk = copyOf(PSK);
        const prologue = copyOf([1, 2, 3]);
        const [initiator, responder] = await pairOf(kind, { prologue }, { psk });
        prologue.fill(0);
        const payload = copyOf([4, 5, 6]);
        const writing = initiator.writeMessage(payload);
        payload.fill(0);
        const message = copyOf(await writing);
        const reading = responder.readMessage(message);
        message.fill(0);
        const heard = await reading;
        assertEquals(hex(heard), "040506");
        assertEquals(Object.getPrototypeOf(heard), Uint8Array.prototype);
        await initiator.readMessage(copyOf(await responder.writeMessage(copyOf([]))));
        if (kind.pattern === "XXpsk3") {
          await responder.readMessage(await initiator.writeMessage(NOTHING));
        }
        assertEquals(initiator.split().send, responder.split().receive);
        assertEquals(hex(psk), hex(PSK));
      });
    }

    it("fails with another psk, on the first message that has it", async () => {
      const [initiator, responder] = await pairOf(kind, { psk: new Uint8Array(32) });
      const first = await initiator.writeMessage(NOTHING);
      if (kind.pattern === "NNpsk0") {
        await assertAuthFailed(() => responder.readMessage(first));
        return;
      }
      await responder.readMessage(first);
      await initiator.readMessage(await responder.writeMessage(NOTHING));
      const last = await initiator.writeMessage(NOTHING);
      await assertAuthFailed(() => responder.readMessage(last));
      assertEquals(responder.remoteStatic, undefined);
    });

    it("fails with another prologue, suite or pattern, and with its own message", async () => {
      const other = KINDS.filter(({ pattern, suite }) =>
        (pattern === kind.pattern) !== (suite === kind.suite)
      );
      const responders = [
        await side(kind, false, { prologue: NOTHING }),
        await side(kind, false, { prologue: Uint8Array.of(1, 2, 3, 0) }),
        ...await Promise.all(other.map((kind) => side(kind, false))),
      ];
      for (const responder of responders) {
        const message = await (await side(kind, true)).writeMessage(NOTHING);
        await assertAuthFailed(() => responder.readMessage(message));
      }
      const initiator = await side(kind, true);
      const message = await initiator.writeMessage(NOTHING);
      await assertAuthFailed(() => initiator.readMessage(message));
    });

    it("refuses public keys of low order, from whoever has the psk", async () => {
      for (const publicKey of LOW_ORDER_KEYS) {
        // The attacker has no use for a private key.
        const forged: KeyPair = { publicKey, derive: () => new Uint8Array(32).fill(1) };
        const [attacker, responder] = await pairOf(kind, { ephemeralKey: forged });
        await responder.readMessage(await attacker.writeMessage(NOTHING));
        await assertAuthFailed(() => responder.writeMessage(NOTHING));

        const [initiator, answering] = await pairOf(kind, {}, { ephemeralKey: forged });
        await answering.readMessage(await initiator.writeMessage(NOTHING));
        const answer = await answering.writeMessage(NOTHING);
        await assertAuthFailed(() => initiator.readMessage(answer));
      }
    });

    it("keeps its first error, for every call", async () => {
      const [initiator, responder] = await pairOf(kind);
      const message = await initiator.writeMessage(NOTHING);
      const error = await assertAuthFailed(() => responder.readMessage(message.subarray(1)));
      for (
        const act of [() => responder.readMessage(message), () => responder.writeMessage(message)]
      ) {
        assertStrictEquals(await assertRejects(act, MuxError), error);
      }
      for (const act of [() => responder.split(), () => responder.hash]) {
        assertStrictEquals(assertThrows(act, MuxError), error);
      }
      assertEquals(responder.done, false);
    });

    it("refuses calls out of turn, and goes on", async () => {
      const [initiator, responder] = await pairOf(kind);
      const refused = (act: () => Promise<unknown>, why: string) =>
        assertRejects(act, TypeError, why);
      await refused(() => initiator.readMessage(new Uint8Array(48)), "0 messages are done");
      await refused(() => responder.writeMessage(NOTHING), "0 messages are done");
      assertThrows(() => initiator.split(), TypeError, "not done");
      assertThrows(() => initiator.hash, TypeError, "not done");
      await refused(() => initiator.writeMessage("text" as unknown as Uint8Array), "payload");
      const writing = initiator.writeMessage(NOTHING);
      await refused(() => initiator.writeMessage(NOTHING), "another call is not done");
      await refused(() => initiator.readMessage(NOTHING), "another call is not done");
      const message = await writing;
      await refused(() => initiator.writeMessage(NOTHING), "1 messages are done");
      await refused(() => responder.readMessage([1] as unknown as Uint8Array), "message");
      await responder.readMessage(message);
      await refused(() => responder.readMessage(message), "1 messages are done");
      await initiator.readMessage(await responder.writeMessage(NOTHING));
      if (kind.pattern === "XXpsk3") {
        await responder.readMessage(await initiator.writeMessage(NOTHING));
      }
      for (const side of [initiator, responder]) {
        await refused(() => side.writeMessage(NOTHING), "messages are done");
        await refused(() => side.readMessage(NOTHING), "messages are done");
        side.split();
        assertThrows(() => side.split(), TypeError, "once");
        assertEquals(side.hash.length, kind.suite === "AESGCM_SHA256" ? 32 : 64);
      }
    });

    it("shows no secret", async () => {
      const [initiator, responder] = await pairOf(kind);
      const show = () =>
        [initiator, responder].map((side) =>
          inspect(side, { showHidden: true, depth: Infinity, maxArrayLength: null }) +
          JSON.stringify(side) + String(side)
        ).join();
      const before = show();
      await shake([initiator, responder]);
      const { send } = initiator.split();
      for (const shown of [before, show()]) {
        assert(!/a7\s?a7|167,\s*167/.test(shown), shown);
        assert(!shown.includes(send.subarray(0, 4).join(", ")), shown);
        assert(!shown.includes(hex(send).slice(0, 8)), shown);
      }
    });
  });
}

describe("Handshake", () => {
  it("refuses options that are none", async () => {
    const good = { ...KINDS[0]!, initiator: true, prologue: NOTHING, psk: PSK };
    const make = (changes: Record<string, unknown>) => () =>
      new Handshake({ ...good, ...changes } as HandshakeOptions);
    assertThrows(make({ pattern: "NN" as NoisePattern }), TypeError, "no handshake pattern NN");
    assertThrows(make({ pattern: "toString" }), TypeError, "no handshake pattern toString");
    assertThrows(make({ suite: "ChaChaPoly_SHA256" }), TypeError, "no cipher suite");
    assertThrows(make({ psk: "secret" }), TypeError, "the psk is no Uint8Array");
    assertThrows(make({ psk: PSK.subarray(1) }), RangeError, "a psk of 31 bytes, expected 32");
    assertThrows(make({ prologue: undefined }), TypeError, "the prologue is no Uint8Array");
    assertThrows(make({ pattern: "XXpsk3" }), TypeError, "XXpsk3 without a static key");
    const raw = make({ pattern: "XXpsk3", staticKey: new Uint8Array(32) });
    assertThrows(raw, TypeError, "the static key is no pair of keys");
    const staticKey = await generateKeyPair();
    assertThrows(make({ staticKey }), TypeError, "NNpsk0 with a static key");
  });
});
