/**
 * Recorded sessions, read again by an implementation that has nothing of ours, and by ours: whoever changes a byte of the format, changes
 * it here.
 */
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { nobleAead } from "@trunkline/sockets/mux";
import { type Aead, nobleAesAead } from "../adapters/aead.ts";
import { keyPairFrom } from "../adapters/x25519.ts";
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
import { Handshake } from "../mux/v2/noise.ts";
import { RecordKeys, RecordSplitter } from "../mux/v2/record.ts";
import { decodeSettings, encodeSettings } from "../mux/v2/settings.ts";
import { unhex } from "./mux2_noise_vectors.ts";
import {
  helloOf,
  type PatternName,
  pieces,
  readSession,
  type SuiteName,
  type TwinFrame,
} from "./mux2_reader.ts";
import { text } from "./mux_pair.ts";

interface Recorded {
  readonly pattern: PatternName;
  readonly suite: SuiteName;
  readonly clientEphemeral: string;
  readonly serverEphemeral: string;
  readonly clientStatic?: string;
  readonly serverStatic?: string;
  readonly client: string;
  readonly server: string;
}

const FIXTURE = new URL("./fixtures/mux2/sessions.json", import.meta.url);
const { psk: pskHex, sessions } = JSON.parse(readFileSync(FIXTURE, "utf8")) as {
  readonly psk: string;
  readonly sessions: readonly Recorded[];
};
const PSK = unhex(pskHex);

const keysOf = (ephemeral: string, identity: string | undefined) => ({
  ePrivate: unhex(ephemeral),
  sPrivate: identity === undefined ? undefined : unhex(identity),
});

const FRAMES = [
  [
    ...["OPEN 0 1", "DATA 0 hello, this is the client", "CLOSE 0", "WINDOW 1 4000", "OPEN 2 3"],
    ...["STOP 2 300", "GOAWAY 0 3", "CLOSE 2", "END 0 0,3"],
  ],
  [
    ...["DATA 0 and this is the server", "FIN 0", "OPEN 1 7", "MAX_STREAMS 0 3", "DATA 1 2000"],
    ...["DATA 1 1000", "RESET 1 4000000000", "GOAWAY 0 4", "CLOSE 2", "END 0 0,4"],
  ],
];

/** As text, without pings, of which there are more where the last word of the handshake is the client's. */
function story(frames: readonly TwinFrame[]): string[] {
  return frames.filter(({ type }) => type !== "PING" && type !== "PONG")
    .map(({ type, id, values, body }) => {
      if (type !== "DATA") return `${type} ${id} ${values.join()}`.trim();
      return `${type} ${id} ${body.length < 100 ? text(body) : body.length}`;
    });
}

for (const recorded of sessions) {
  const { pattern, suite } = recorded;
  describe(`a recorded session with ${pattern} and ${suite}`, () => {
    const said = [unhex(recorded.client), unhex(recorded.server)] as const;
    const client = keysOf(recorded.clientEphemeral, recorded.clientStatic);
    const server = keysOf(recorded.serverEphemeral, recorded.serverStatic);
    const whole = { pattern, suite, psk: PSK, client, server };

    it("says what it has said, to whoever has the keys of either side", () => {
      for (const known of [whole, { ...whole, server: {} }, { ...whole, client: {} }]) {
        const { settings, frames, plains, rekeys } = readSession(known, ...said);
        assertEquals([...settings[0]], [[1, 2000], [2, 4096], [3, 3], [4, 2 ** 30], [5, 180_000]]);
        assertEquals([...settings[1]], [[1, 131072], [2, 2], [3, 65536], [4, 500], [5, 180_000]]);
        assertEquals(frames.map(story), FRAMES);
        for (const side of [0, 1] as const) {
          const of = (all: TwinFrame[], type: string) =>
            all.filter((it) => it.type === type).map(({ values }) => values[0]);
          assertEquals(of(frames[side], "PING"), of(frames[1 - side]!, "PONG"));
        }
        assert(plains[1].every(({ length }) => length % 64 === 0));
        assertEquals(rekeys[0], Math.ceil(plains[0].length / 3) - 1);
        assertEquals(rekeys[1], 2);
      }
    });

    it("is what our own parts make of it", async () => {
      const hello = said[0].subarray(0, 8);
      assertEquals(hello, helloOf(pattern, suite));
      const messages = [pieces(said[0].subarray(8)), pieces(said[1])] as const;
      const prologue = concat([new TextEncoder().encode("trunkline mux v2"), hello]);
      const ours = await Promise.all([client, server].map(async (keys, i) =>
        new Handshake({
          pattern,
          suite,
          initiator: i === 0,
          prologue,
          psk: deriveNoisePsk(PSK),
          ephemeralKey: await keyPairFrom(keys.ePrivate),
          staticKey: keys.sPrivate && await keyPairFrom(keys.sPrivate),
        })
      ));
      const told = readSession(whole, ...said);
      const settings: Uint8Array[] = [];
      const count = pattern === "NNpsk0" ? 2 : 3;
      for (let i = 0; i < count; i++) {
        const message = messages[i % 2]!.shift()!;
        const payload = await ours[(i + 1) % 2]!.readMessage(message);
        assertEquals(await ours[i % 2]!.writeMessage(payload), message);
        if (payload.length > 0) settings[i % 2] = payload;
      }
      const keys = ours.map((it) => it.split().send);
      const aead: Aead = suite === "AESGCM_SHA256" ? nobleAesAead : nobleAead;
      for (const [i, bytes] of said.entries()) {
        const decoded = decodeSettings(settings[i]!);
        assertEquals(encodeSettings(decoded), settings[i]);
        const after = { records: decoded.rekeyRecords, bytes: decoded.rekeyBytes };
        const records: Uint8Array[] = [];
        new RecordSplitter().push(bytes.subarray(i === 0 ? 8 : 0), records);
        records.splice(0, i === 0 ? count - 1 : 1);
        const opening = new RecordKeys(suite, keys[i]!, after);
        const aad = new Uint8Array(0);
        const boxes = records.map((input) => ({ ...opening.next(input.length), aad, input }));
        assertEquals(await aead.open(boxes), told.plains[i]!);
      }
    });
  });
}
