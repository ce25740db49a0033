/**
 * Handshakes and records with noise-handshake, another implementation, on libsodium. It speaks NNpsk0 of the one suite.
 *
 * It has no XXpsk3, but XXpsk0, and keeps what a pattern is in two fields: with `psk` moved to the end of the last message and the
 * name changed, its own code runs XXpsk3.
 */
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { generateKeyPair } from "../adapters/x25519.ts";
import { MuxError } from "../mux/errors.ts";
import { Handshake, type NoisePattern } from "../mux/v2/noise.ts";
import { open, seal } from "../mux/v2/suite.ts";

interface Keys {
  readonly publicKey: Uint8Array;
  readonly secretKey: Uint8Array;
}

interface Theirs {
  handshake: readonly (readonly unknown[])[];
  protocol: Uint8Array;
  readonly complete: boolean;
  readonly hash: Uint8Array;
  readonly tx: Uint8Array;
  readonly rx: Uint8Array;
  readonly rs: Uint8Array | null;
  readonly s: Keys;
  initialise(prologue: Uint8Array): void;
  send(payload: Uint8Array): Uint8Array;
  recv(message: Uint8Array): Uint8Array;
}

interface TheirCipher {
  encrypt(plaintext: Uint8Array): Uint8Array;
  decrypt(ciphertext: Uint8Array): Uint8Array;
}

// It is CommonJS, and has no types.
const require = createRequire(import.meta.url);
const NoiseHandshake: new (
  pattern: string,
  initiator: boolean,
  keys: Keys | undefined,
  options: { readonly psk: Uint8Array },
) => Theirs = require("noise-handshake");
const Cipher: new (key: Uint8Array) => TheirCipher = require("noise-handshake/cipher.js");

const SUITE = "ChaChaPoly_BLAKE2b";
const PSK = Buffer.alloc(32, 0xa7);
const PROLOGUE = Buffer.from("prologue");

function theirSide(pattern: NoisePattern, initiator: boolean, psk: Uint8Array = PSK): Theirs {
  const known = pattern === "XXpsk3" ? "XXpsk0" : pattern;
  const theirs = new NoiseHandshake(known, initiator, undefined, { psk });
  if (pattern === "XXpsk3") {
    const [[pskToken, ...first], second, third] = theirs.handshake as [
      unknown[],
      unknown[],
      unknown[],
    ];
    theirs.handshake = [first, second, [...third, pskToken]];
    theirs.protocol = Buffer.from(`Noise_XXpsk3_25519_${SUITE}`);
  }
  theirs.initialise(PROLOGUE);
  return theirs;
}

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i * 7 + length);

for (const pattern of ["NNpsk0", "XXpsk3"] as const) {
  for (const initiator of [true, false]) {
    describe(`${pattern} with noise-handshake, we as ${initiator ? "initiator" : "responder"}`, () => {
      const sides = async () => {
        const staticKey = pattern === "XXpsk3" ? await generateKeyPair() : undefined;
        const common = { pattern, suite: SUITE, initiator, prologue: PROLOGUE, psk: PSK } as const;
        return { staticKey, ours: new Handshake({ ...common, staticKey }) };
      };

      it("agrees on payloads, hash, identities and 300 records each way", async () => {
        const { staticKey, ours } = await sides();
        const theirs = theirSide(pattern, !initiator);
        for (let turn = 0; !ours.done; turn++) {
          const payload = bytes(turn * 100);
          const heard = (turn % 2 === 0) === initiator
            ? theirs.recv(Buffer.from(await ours.writeMessage(payload)))
            : await ours.readMessage(theirs.send(Buffer.from(payload)));
          assertEquals(new Uint8Array(heard), payload);
        }
        assert(theirs.complete);
        assertEquals(ours.hash, new Uint8Array(theirs.hash));
        if (staticKey !== undefined) {
          assertEquals(ours.remoteStatic, new Uint8Array(theirs.s.publicKey));
          assertEquals(staticKey.publicKey, new Uint8Array(theirs.rs!));
        }
        const { send, receive } = ours.split();
        assertEquals(PSK, Buffer.alloc(32, 0xa7));
        const [receiver, sender] = [new Cipher(theirs.rx), new Cipher(theirs.tx)];
        const nothing = new Uint8Array(0);
        for (let counter = 0; counter < 300; counter++) {
          const payload = bytes(counter);
          const record = seal(SUITE, send, counter, nothing, payload);
          assertEquals(new Uint8Array(receiver.decrypt(Buffer.from(record))), payload);
          const answer = new Uint8Array(sender.encrypt(Buffer.from(payload)));
          assertEquals(open(SUITE, receive, counter, nothing, answer), payload);
        }
      });

      it("fails on either side with another psk", async () => {
        const { ours } = await sides();
        const theirs = theirSide(pattern, !initiator, Buffer.alloc(32, 1));
        const last = pattern === "NNpsk0" ? 0 : 2;
        for (let turn = 0; turn <= last; turn++) {
          const weWrite = (turn % 2 === 0) === initiator;
          const message = weWrite
            ? Buffer.from(await ours.writeMessage(new Uint8Array(0)))
            : theirs.send(Buffer.alloc(0));
          if (turn < last) {
            if (weWrite) theirs.recv(message);
            else await ours.readMessage(message);
          } else if (weWrite) assertThrows(() => theirs.recv(message), Error);
          else {
            const error = await assertRejects(() => ours.readMessage(message), MuxError);
            assertEquals(error.code, "auth-failed");
          }
        }
      });
    });
  }
}
