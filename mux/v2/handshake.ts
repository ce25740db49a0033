/**
 * From the first byte of a v2 session to its keys (spec-mux2: handshake).
 *
 * @module
 */
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import type { Conn } from "../../adapters/types.ts";
import type { Head } from "../_head.ts";
import type { Config, MuxSuite } from "../config.ts";
import { MuxError } from "../errors.ts";
import { Handshake, type NoisePattern } from "./noise.ts";
import { LENGTH_BYTES } from "./record.ts";
import { decodeSettings, encodeSettings, type Settings, settingsOf } from "./settings.ts";

/** What both sides have agreed on. */
export interface Agreed {
  readonly suite: MuxSuite;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly ours: Settings;
  readonly theirs: Settings;
  /** Who the peer is, if it has told. */
  readonly peerKey: Uint8Array | undefined;
  /** True if the peer has proved that it has the psk, and that it speaks now. Otherwise its first record does. */
  readonly confirmed: boolean;
}

const text = new TextEncoder();
/** "MUX2", the version, the suite, and two bytes that make a gomux see a length that it refuses at once. */
const HELLO = { magic: text.encode("MUX2"), version: 1, bytes: 8, end: 0xff } as const;
/** Bound into the handshake together with the hello, so that nobody can change either. */
const PROLOGUE_LABEL = text.encode("trunkline mux v2");
/** Keeps this key apart from that of v1, which is made of the same psk. */
const PSK_LABEL = text.encode("trunkline mux v2 psk");
/** What a server does not like it does not tell. */
const STRANGER =
  "the peer has another psk, speaks no v2, does not allow the suite, or only one side has an identity";
/** The longest message of a handshake: more than settings will ever take. */
const MAX_MESSAGE_BYTES = 4096;

interface Kind {
  readonly pattern: NoisePattern;
  readonly suite: MuxSuite;
}

/** By their number in the hello. */
const KINDS: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [1, { pattern: "NNpsk0", suite: "ChaChaPoly_BLAKE2b" }],
  [2, { pattern: "NNpsk0", suite: "AESGCM_SHA256" }],
  [3, { pattern: "XXpsk3", suite: "ChaChaPoly_BLAKE2b" }],
  [4, { pattern: "XXpsk3", suite: "AESGCM_SHA256" }],
]);

/** The psk of Noise, of 32 bytes. */
export function deriveNoisePsk(psk: Uint8Array): Uint8Array {
  return hkdf(sha256, psk, undefined, PSK_LABEL, 32);
}

/** Whether what a client has sent begins a v2 session; undefined if more of it is needed to tell. Whatever does not is v1. */
export function beginsV2(bytes: Uint8Array): boolean | undefined {
  const { magic, end } = HELLO;
  const isHello = (i: number) =>
    i < magic.length ? bytes[i] === magic[i] : i < HELLO.bytes - 2 || bytes[i] === end;
  for (let i = 0; i < Math.min(bytes.length, HELLO.bytes); i++) if (!isHello(i)) return false;
  return bytes.length < HELLO.bytes ? undefined : true;
}

/**
 * Makes the first steps with the peer.
 *
 * @throws {MuxError} `auth-failed`: another psk, somebody whom we do not know, or (client) the end of the transport; `protocol`: no v2, or
 * one that is not allowed here; `truncated` (server): the end of the transport
 */
export async function shakeHands(
  conn: Conn,
  isClient: boolean,
  config: Config,
  head: Head,
): Promise<Agreed> {
  try {
    return isClient ? await asClient(conn, config, head) : await asServer(conn, config, head);
  } catch (cause) {
    if (cause instanceof MuxError) throw cause;
    throw ended(isClient, cause);
  }
}

function ended(isClient: boolean, cause?: unknown): MuxError {
  const options = cause === undefined ? {} : { cause };
  const text = "handshake: the transport ended";
  // A server that does not like our first message says nothing else.
  return isClient
    ? new MuxError("auth-failed", `${text}: ${STRANGER}`, options)
    : new MuxError("truncated", text, options);
}

async function asClient(conn: Conn, config: Config, head: Head): Promise<Agreed> {
  const suite = config.suites[0]!;
  const pattern = config.identity === undefined ? "NNpsk0" : "XXpsk3";
  const [number] = [...KINDS].find(([, kind]) => kind.pattern === pattern && kind.suite === suite)!;
  const hello = Uint8Array.of(...HELLO.magic, HELLO.version, number, HELLO.end, HELLO.end);
  const noise = await begin(true, { pattern, suite }, hello, config);
  const ours = settingsOf(config.limits.v2);
  const settings = encodeSettings(ours);
  if (pattern === "NNpsk0") {
    await send(conn, hello, await noise.writeMessage(settings));
    const theirs = decodeSettings(await noise.readMessage(await receive(head, true)));
    return agreed(noise, suite, ours, theirs, true);
  }
  // Nothing of ours before it is known who asks.
  await send(conn, hello, await noise.writeMessage(new Uint8Array(0)));
  const theirs = decodeSettings(await noise.readMessage(await receive(head, true)));
  await requireKnown(noise, config);
  await send(conn, new Uint8Array(0), await noise.writeMessage(settings));
  return agreed(noise, suite, ours, theirs, false);
}

async function asServer(conn: Conn, config: Config, head: Head): Promise<Agreed> {
  while (beginsV2(head.rest) === undefined) {
    if (!await head.fill(head.rest.length + 1)) throw ended(false);
  }
  if (!beginsV2(head.rest)) {
    throw new MuxError("protocol", "handshake: the peer does not speak v2; is it a gomux?");
  }
  const hello = head.take(HELLO.bytes).slice();
  const [version, number] = hello.subarray(HELLO.magic.length);
  if (version !== HELLO.version) {
    throw new MuxError("protocol", `handshake: the peer speaks version ${version}, expected 1`);
  }
  const kind = KINDS.get(number!);
  const pattern = config.identity === undefined ? "NNpsk0" : "XXpsk3";
  if (kind?.pattern !== pattern || !config.suites.includes(kind.suite)) {
    const asked = kind === undefined ? `suite ${number}` : `${kind.pattern} with ${kind.suite}`;
    const text = `the peer asks for ${asked}, allowed is ${pattern} with ${
      config.suites.join(", ")
    }`;
    const hint = pattern === "XXpsk3" ? ", for one with an identity" : "";
    throw new MuxError("protocol", `handshake: ${text}${hint}`);
  }
  const noise = await begin(false, kind, hello, config);
  const ours = settingsOf(config.limits.v2);
  const settings = encodeSettings(ours);
  const first = await noise.readMessage(await receive(head, false));
  await send(conn, new Uint8Array(0), await noise.writeMessage(settings));
  if (pattern === "NNpsk0") {
    // The first message may have been recorded: only a record shows that the client speaks now.
    return agreed(noise, kind.suite, ours, decodeSettings(first), false);
  }
  const theirs = decodeSettings(await noise.readMessage(await receive(head, false)));
  await requireKnown(noise, config);
  return agreed(noise, kind.suite, ours, theirs, false);
}

async function begin(
  initiator: boolean,
  { pattern, suite }: Kind,
  hello: Uint8Array,
  { psk, identity }: Config,
): Promise<Handshake> {
  const prologue = new Uint8Array(PROLOGUE_LABEL.length + hello.length);
  prologue.set(PROLOGUE_LABEL);
  prologue.set(hello, PROLOGUE_LABEL.length);
  return new Handshake({
    pattern,
    suite,
    initiator,
    prologue,
    psk: deriveNoisePsk(psk),
    staticKey: await identity,
  });
}

function agreed(
  noise: Handshake,
  suite: MuxSuite,
  ours: Settings,
  theirs: Settings,
  confirmed: boolean,
): Agreed {
  const { send: sendKey, receive: receiveKey } = noise.split();
  return { suite, sendKey, receiveKey, ours, theirs, peerKey: noise.remoteStatic, confirmed };
}

async function requireKnown(noise: Handshake, { isKnown }: Config): Promise<void> {
  const key = noise.remoteStatic!;
  let known: unknown;
  try {
    known = await isKnown(key.slice());
  } catch (cause) {
    throw new MuxError("auth-failed", "handshake: knownPeers has thrown", { cause });
  }
  if (known !== true) throw new MuxError("auth-failed", "handshake: the peer is not a known one");
}

async function send(conn: Conn, before: Uint8Array, message: Uint8Array): Promise<void> {
  const bytes = new Uint8Array(before.length + LENGTH_BYTES + message.length);
  bytes.set(before);
  bytes[before.length] = message.length >> 8;
  bytes[before.length + 1] = message.length;
  bytes.set(message, before.length + LENGTH_BYTES);
  await conn.write(bytes);
}

async function receive(head: Head, isClient: boolean): Promise<Uint8Array> {
  if (!await head.fill(LENGTH_BYTES)) throw ended(isClient);
  const [high, low] = head.rest;
  const length = high! << 8 | low!;
  if (length > MAX_MESSAGE_BYTES) {
    const isHello = beginsV2(head.rest.subarray(0, HELLO.magic.length)) !== false;
    const text = isHello && isClient
      ? "handshake: the peer says hello, too: are both clients?"
      : `handshake: a message of ${length} bytes, at most ${MAX_MESSAGE_BYTES}`;
    throw new MuxError("protocol", text);
  }
  if (!await head.fill(LENGTH_BYTES + length)) throw ended(isClient);
  return head.take(LENGTH_BYTES + length).subarray(LENGTH_BYTES);
}
