/** The bytes in docs/spec-mux2.md are those of the code, and a real server answers who follows it. */
import { concat } from "@std/bytes";
import { assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { client, server } from "@trunkline/sockets/mux";
import { keyPairFrom } from "../adapters/x25519.ts";
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
import { Handshake } from "../mux/v2/noise.ts";
import { open, rekey, seal } from "../mux/v2/suite.ts";
import { utf8 } from "./mux_pair.ts";

const SUITE = "ChaChaPoly_BLAKE2b";
const HELLO = Uint8Array.of(...utf8("MUX2"), 1, 1, 0xff, 0xff);
const PROLOGUE = concat([utf8("trunkline mux v2"), HELLO]);
const NOTHING = new Uint8Array(0);

/** `count` bytes that count up. */
const counted = (first: number, count = 32): Uint8Array =>
  Uint8Array.from({ length: count }, (_, i) => first + i);

/** With its length in front. */
const framed = (bytes: Uint8Array): Uint8Array =>
  concat([Uint8Array.of(bytes.length >> 8, bytes.length), bytes]);

/** What the default options tell: window, streams, records, bytes and milliseconds. */
const SETTINGS = Uint8Array.of(
  ...[1, 0x80, 0x80, 8, 2, 0x80, 0x20, 3, 0x80, 0x80, 4],
  ...[4, 0x80, 0x80, 0x80, 0x80, 4, 5, 0xa0, 0xfe, 0x0a],
);
/** PING 1; OPEN, DATA and FIN of stream 0. */
const PING = Uint8Array.of(9, 0, 1, 1);
const HELLO_STREAM = concat([
  Uint8Array.of(2, 0, 1, 3, 1, 0, 5),
  utf8("hello"),
  Uint8Array.of(3, 0, 0),
]);
/** PING 1 and PONG 1. */
const ANSWER = Uint8Array.of(9, 0, 1, 1, 10, 0, 1, 1);
/** END in order; the first stream of ours that is not served is 2. */
const END = Uint8Array.of(12, 0, 2, 0, 2);

async function side(initiator: boolean, ephemeral?: Uint8Array): Promise<Handshake> {
  return new Handshake({
    pattern: "NNpsk0",
    suite: SUITE,
    initiator,
    prologue: PROLOGUE,
    psk: deriveNoisePsk(counted(0)),
    ephemeralKey: ephemeral && await keyPairFrom(ephemeral),
  });
}

/** The lines of the example: a name, and what it is in hexadecimal. */
async function example(): Promise<string> {
  const lines: string[] = [];
  const show = (name: string, bytes: Uint8Array): void => {
    const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    for (const [i, part] of (text.match(/.{1,64}/g) ?? []).entries()) {
      lines.push((i === 0 ? name : "").padEnd(22) + part);
    }
  };
  const [near, far] = [await side(true, counted(0x20)), await side(false, counted(0x40))];
  const publicKey = async (key: Uint8Array) => (await keyPairFrom(key)).publicKey;
  show("psk", counted(0));
  show("psk of Noise", deriveNoisePsk(counted(0)));
  show("C private key", counted(0x20));
  show("C public key", await publicKey(counted(0x20)));
  show("S private key", counted(0x40));
  show("S public key", await publicKey(counted(0x40)));
  show("prologue", PROLOGUE);
  show("settings of both", SETTINGS);
  show("C hello", HELLO);
  const first = await near.writeMessage(SETTINGS);
  show("C message 1", framed(first));
  assertEquals(await far.readMessage(first), SETTINGS);
  const second = await far.writeMessage(SETTINGS);
  show("S message 2", framed(second));
  assertEquals(await near.readMessage(second), SETTINGS);
  const { send, receive } = near.split();
  show("key of C", send);
  show("key of S", receive);
  show("C record 0, plain", PING);
  show("C record 0", framed(seal(SUITE, send, 0, NOTHING, PING)));
  show("S record 0, plain", ANSWER);
  show("S record 0", framed(seal(SUITE, receive, 0, NOTHING, ANSWER)));
  show("C record 1, plain", HELLO_STREAM);
  show("C record 1", framed(seal(SUITE, send, 1, NOTHING, HELLO_STREAM)));
  show("S record 1, plain", END);
  show("S record 1", framed(seal(SUITE, receive, 1, NOTHING, END)));
  show("key of C, the next", rekey(SUITE, send));
  return lines.join("\n") + "\n";
}

test("the example of docs/spec-mux2.md is what the code makes", async () => {
  const doc = readFileSync(new URL("../docs/spec-mux2.md", import.meta.url), "utf8");
  assertEquals(/```text\n(psk {2}[^`]*)```/.exec(doc)?.[1], await example());
});

test("a server of v2 answers who follows docs/spec-mux2.md", async () => {
  const [conn, served] = connPair();
  const mux = server(served, { psk: counted(0), protocol: "v2" });
  const near = await side(true);
  let rest: Uint8Array = NOTHING;
  const next = async (): Promise<Uint8Array> => {
    for (;;) {
      const size = rest.length < 2 ? Infinity : 2 + (rest[0]! << 8 | rest[1]!);
      if (rest.length >= size) {
        const whole = rest.subarray(2, size);
        rest = rest.subarray(size);
        return whole;
      }
      const chunk = await conn.read();
      if (chunk === null) throw new Error("the server has ended the connection");
      rest = concat([rest, chunk]);
    }
  };
  await conn.write(concat([HELLO, framed(await near.writeMessage(SETTINGS))]));
  assertEquals(await near.readMessage(await next()), SETTINGS);
  const { send, receive } = near.split();
  await conn.write(framed(seal(SUITE, send, 0, NOTHING, PING)));
  assertEquals(open(SUITE, receive, 0, NOTHING, await next()), ANSWER);
  await conn.write(framed(seal(SUITE, send, 1, NOTHING, HELLO_STREAM)));
  const stream = await mux.acceptStream();
  assertEquals(await stream.read(), utf8("hello"));
  assertEquals(await stream.read(), null);
  await conn.write(framed(seal(SUITE, send, 2, NOTHING, Uint8Array.of(12, 0, 2, 0, 0))));
  await conn.closeWrite();
  await mux.closed;
});

test("a client of v2 begins as docs/spec-mux2.md says", async () => {
  const [conn, served] = connPair();
  const mux = client(conn, { psk: counted(0), protocol: "v2" });
  let said: Uint8Array = NOTHING;
  while (said.length < 79) said = concat([said, (await served.read())!]);
  assertEquals(said.subarray(0, 10), concat([HELLO, Uint8Array.of(0, 69)]));
  const far = await side(false);
  assertEquals(await far.readMessage(said.subarray(10)), SETTINGS);
  mux.abort();
  served.abort();
});
