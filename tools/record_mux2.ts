/**
 * Records whole v2 sessions into tests/fixtures/mux2/sessions.json: `deno run -A tools/record_mux2.ts`. To be run again only when the wire
 * format changes on purpose: what was recorded is what tests hold later versions to.
 *
 * The keys of a handshake are random. Here they are not, since there is neither node:crypto nor WebCrypto to make them: the portable X25519
 * asks for random bytes, and is given counted ones.
 */
import { writeFileSync } from "node:fs";
import { x25519 } from "@noble/curves/ed25519.js";
import { type Conn, wrapConn } from "@trunkline/sockets/auto";
import { client, type MuxOptions, nobleAead, server } from "@trunkline/sockets/mux";
import { nobleAesAead } from "../adapters/aead.ts";

const PSK = Uint8Array.from({ length: 32 }, (_, i) => 7 * i + 1);
const hex = (bytes: Uint8Array) =>
  Array.from(bytes, (it) => it.toString(16).padStart(2, "0")).join("");

/** Every key that was made, in turn. */
const made: Uint8Array[] = [];
function countedKeys(): void {
  let seed = 0;
  const random = (bytes: Uint8Array) => {
    seed++;
    bytes.forEach((_, i) => bytes[i] = 31 * i + 17 * seed);
    made.push(bytes.slice());
    return bytes;
  };
  Object.defineProperty(globalThis.crypto, "getRandomValues", { value: random });
  Object.defineProperty(globalThis.crypto, "subtle", { value: undefined });
  Object.defineProperty(globalThis.process, "getBuiltinModule", { value: () => undefined });
}

/** Two ends in memory, and what each has written. */
function recorded(): { ends: [Conn, Conn]; said: [Uint8Array[], Uint8Array[]] } {
  const said: [Uint8Array[], Uint8Array[]] = [[], []];
  const line = (into: Uint8Array[]) =>
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        into.push(chunk.slice());
        controller.enqueue(chunk);
      },
    });
  const [there, back] = [line(said[0]), line(said[1])];
  return {
    ends: [
      wrapConn({ readable: back.readable, writable: there.writable }),
      wrapConn({ readable: there.readable, writable: back.writable }),
    ],
    said,
  };
}

const bytesOf = (length: number) => Uint8Array.from({ length }, (_, i) => i * 31 + length);
const utf8 = (text: string) => new TextEncoder().encode(text);

async function readAll(stream: { read(): Promise<Uint8Array | null> }): Promise<void> {
  while (await stream.read() !== null);
}

/** One of everything. */
async function record(name: string, ours: Partial<MuxOptions>, theirs: Partial<MuxOptions>) {
  made.length = 0;
  const { ends, said } = recorded();
  const near = client(ends[0], { psk: PSK, protocol: "v2", ...ours });
  const far = server(ends[1], { psk: PSK, protocol: "v2", ...theirs });
  await Promise.all([near.ready, far.ready]);
  // Each side makes its own when it is its turn to speak.
  const [clientEphemeral, serverEphemeral] = made.filter(({ length }) => length === 32).map(hex);
  await near.ping();
  const stream = await near.openStream({ priority: 1 });
  await stream.write(utf8("hello, this is the client"));
  const accepted = await far.acceptStream();
  await accepted.read();
  await accepted.write(utf8("and this is the server"));
  await accepted.closeWrite();
  await readAll(stream);
  await stream.close();
  const back = await far.openStream({ priority: 7 });
  const taken = await near.acceptStream();
  const long = back.write(bytesOf(3000));
  await taken.read();
  await long;
  back.reset(4_000_000_000);
  await taken.read().catch(() => {});
  const stopped = await near.openStream();
  stopped.stop(300);
  await far.acceptStream();
  await far.goAway();
  await near.ping();
  await Promise.all([near.close(), far.close()]);
  const whole = said.map((chunks) => hex(Uint8Array.from(chunks.flatMap((chunk) => [...chunk]))));
  return { name, clientEphemeral, serverEphemeral, client: whole[0], server: whole[1] };
}

countedKeys();
const identities = ["client", "server"].map((_, i) => {
  const privateKey = Uint8Array.from({ length: 32 }, (_, at) => 5 * at + 100 * i);
  return { privateKey, publicKey: x25519.getPublicKey(privateKey) };
});
const [alice, bob] = identities as [typeof identities[0], typeof identities[0]];
const sessions: unknown[] = [];
for (const suite of ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const) {
  const common = { suites: [suite], aead: suite === "AESGCM_SHA256" ? nobleAesAead : nobleAead };
  for (const pattern of ["NNpsk0", "XXpsk3"] as const) {
    const named = pattern === "XXpsk3";
    const who = named ? { identity: alice, knownPeers: [bob.publicKey] } : {};
    const other = named ? { identity: bob, knownPeers: [alice.publicKey] } : {};
    const ours = { ...common, ...who, rekeyRecords: 3, windowBytes: 2000 };
    const theirs = { ...common, ...other, rekeyBytes: 500, padBytes: 64, maxStreams: 2 };
    sessions.push({
      pattern,
      suite,
      ...await record(`${pattern} ${suite}`, ours, theirs),
      ...(named && { clientStatic: hex(alice.privateKey), serverStatic: hex(bob.privateKey) }),
    });
  }
}
const path = new URL("../tests/fixtures/mux2/sessions.json", import.meta.url);
writeFileSync(path, `${JSON.stringify({ psk: hex(PSK), sessions }, null, 2)}\n`);
