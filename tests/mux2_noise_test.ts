import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { keyPairFrom } from "../adapters/x25519.ts";
import { Handshake, type NoisePattern } from "../mux/v2/noise.ts";
import { hex, type NoiseVector, unhex, vectors } from "./mux2_noise_vectors.ts";
import { type NoiseSuite, open, seal } from "../mux/v2/suite.ts";

async function sideOf(vector: NoiseVector, initiator: boolean): Promise<Handshake> {
  const [, pattern, , ...suite] = vector.protocol_name.split("_");
  const [prologue, psks, fixed, ephemeral] = initiator
    ? [vector.init_prologue, vector.init_psks, vector.init_static, vector.init_ephemeral]
    : [vector.resp_prologue, vector.resp_psks, vector.resp_static, vector.resp_ephemeral];
  return new Handshake({
    pattern: pattern as NoisePattern,
    suite: suite.join("_") as NoiseSuite,
    initiator,
    prologue: unhex(prologue),
    psk: unhex(psks[0]!),
    staticKey: fixed === undefined ? undefined : await keyPairFrom(unhex(fixed)),
    ephemeralKey: await keyPairFrom(unhex(ephemeral)),
  });
}
const NOTHING = new Uint8Array(0);
describe("published vectors", () => {
  for (const vector of vectors) {
    it(`${vector.protocol_name}`, async () => {
      const initiator = await sideOf(vector, true), responder = await sideOf(vector, false);
      const suite = vector.protocol_name.split("_").slice(3).join("_") as NoiseSuite;
      const messages = [...vector.messages];
      let n = 0;
      for (; !(initiator.done && responder.done); n++) {
        const { payload, ciphertext } = messages[n]!;
        const [writer, reader] = n % 2 === 0 ? [initiator, responder] : [responder, initiator];
        const message = await writer.writeMessage(unhex(payload));
        assertEquals(hex(message), ciphertext);
        assertEquals(hex(await reader.readMessage(message)), payload);
      }
      assertEquals(hex(initiator.hash), vector.handshake_hash);
      assertEquals(hex(responder.hash), vector.handshake_hash);
      const keys = [initiator.split(), responder.split()] as const;
      const counters = [0, 0];
      for (; n < messages.length; n++) {
        const { payload, ciphertext } = messages[n]!;
        const side = n % 2;
        const { send } = keys[side]!, { receive } = keys[1 - side]!;
        const counter = counters[side]!++;
        assertEquals(hex(seal(suite, send, counter, NOTHING, unhex(payload))), ciphertext);
        assertEquals(hex(open(suite, receive, counter, NOTHING, unhex(ciphertext))!), payload);
      }
    });
  }
});
