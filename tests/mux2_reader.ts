/**
 * A second implementation of v2, from its specification and with nothing of the package in it: what both sides have said is read again
 * with the private keys of one of them, and a peer can be played with it.
 */
import { gcm } from "@noble/ciphers/aes.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { concat } from "@std/bytes";

const utf8 = (text: string) => new TextEncoder().encode(text);
const NOTHING = new Uint8Array(0);
const TAG_BYTES = 16;

const SUITES = {
  ChaChaPoly_BLAKE2b: { cipher: chacha20poly1305, hash: blake2b, littleEndian: true },
  AESGCM_SHA256: { cipher: gcm, hash: sha256, littleEndian: false },
} as const;
export type SuiteName = "ChaChaPoly_BLAKE2b" | "AESGCM_SHA256";
export type PatternName = "NNpsk0" | "XXpsk3";

const PATTERNS: Readonly<Record<PatternName, readonly string[]>> = {
  NNpsk0: ["psk e", "e ee"],
  XXpsk3: ["e", "e ee s es", "s se psk"],
};

/** The number of each pair in the hello. */
export const HELLO_NUMBERS: readonly (readonly [PatternName, SuiteName])[] = [
  ["NNpsk0", "ChaChaPoly_BLAKE2b"],
  ["NNpsk0", "AESGCM_SHA256"],
  ["XXpsk3", "ChaChaPoly_BLAKE2b"],
  ["XXpsk3", "AESGCM_SHA256"],
];

export function helloOf(pattern: PatternName, suite: SuiteName): Uint8Array {
  const number = 1 + HELLO_NUMBERS.findIndex(([p, s]) => p === pattern && s === suite);
  return Uint8Array.of(0x4d, 0x55, 0x58, 0x32, 1, number, 0xff, 0xff);
}

function seal(suite: SuiteName, key: Uint8Array, counter: bigint, aad: Uint8Array) {
  const { cipher, littleEndian } = SUITES[suite];
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, counter, littleEndian);
  return cipher(key, nonce, aad);
}

/** HKDF as Noise has it. */
function hkdf(suite: SuiteName, salt: Uint8Array, material: Uint8Array, count: number) {
  const { hash } = SUITES[suite];
  const secret = hmac(hash, salt, material);
  const outputs: Uint8Array[] = [];
  for (let i = 1; i <= count; i++) {
    outputs.push(hmac(hash, secret, concat([outputs.at(-1) ?? NOTHING, Uint8Array.of(i)])));
  }
  return outputs;
}

/** HKDF-SHA256 of RFC 5869, for one block. */
export function noisePsk(psk: Uint8Array): Uint8Array {
  const secret = hmac(sha256, new Uint8Array(32), psk);
  return hmac(sha256, secret, concat([utf8("trunkline mux v2 psk"), Uint8Array.of(1)]));
}

/** What is known of the keys of one side. */
interface Keys {
  ePrivate?: Uint8Array | undefined;
  sPrivate?: Uint8Array | undefined;
  ePublic?: Uint8Array;
  sPublic?: Uint8Array;
}

export interface NoiseParameters {
  readonly pattern: PatternName;
  readonly suite: SuiteName;
  /** As the user gives it. */
  readonly psk: Uint8Array;
  readonly client?: Pick<Keys, "ePrivate" | "sPrivate">;
  readonly server?: Pick<Keys, "ePrivate" | "sPrivate">;
}

/** A handshake, of which the private keys of at least one side are known. */
export class NoiseTwin {
  readonly hello: Uint8Array;
  readonly client: Keys;
  readonly server: Keys;
  readonly #suite: SuiteName;
  readonly #psk: Uint8Array;
  readonly #messages: readonly string[];
  #count = 0;
  #chaining: Uint8Array;
  #hash: Uint8Array;
  #key: Uint8Array = NOTHING;
  #counter = 0n;

  constructor({ pattern, suite, psk, client, server }: NoiseParameters) {
    this.hello = helloOf(pattern, suite);
    this.#suite = suite;
    this.#psk = noisePsk(psk);
    this.#messages = PATTERNS[pattern];
    this.client = { ...client };
    this.server = { ...server };
    this.#hash = new Uint8Array(SUITES[suite].hash.outputLen);
    this.#hash.set(utf8(`Noise_${pattern}_25519_${suite}`));
    this.#chaining = this.#hash;
    this.#mixHash(concat([utf8("trunkline mux v2"), this.hello]));
  }

  get done(): boolean {
    return this.#count === this.#messages.length;
  }

  /** The next message, with `payload` in it. */
  write(payload: Uint8Array): Uint8Array {
    return this.#process(payload, true);
  }

  /** The payload of the next message. */
  read(message: Uint8Array): Uint8Array {
    return this.#process(message, false);
  }

  /** The key of the client's records, and that of the server's. */
  split(): [client: Uint8Array, server: Uint8Array] {
    const [client, server] = hkdf(this.#suite, this.#chaining, NOTHING, 2);
    return [client!.slice(0, 32), server!.slice(0, 32)];
  }

  #process(input: Uint8Array, writing: boolean): Uint8Array {
    const { client, server } = this;
    const [speaker] = this.#count % 2 === 0 ? [client] : [server];
    const parts: Uint8Array[] = [];
    for (const token of this.#messages[this.#count++]!.split(" ")) {
      if (token === "e") {
        if (writing) {
          speaker!.ePrivate ??= x25519.utils.randomSecretKey();
          parts.push(speaker!.ePublic = x25519.getPublicKey(speaker!.ePrivate));
        } else [speaker!.ePublic, input] = [input.slice(0, 32), input.subarray(32)];
        this.#mixHash(speaker!.ePublic!);
        this.#mixKey(speaker!.ePublic!);
      } else if (token === "s") {
        if (writing) {
          speaker!.sPublic = x25519.getPublicKey(speaker!.sPrivate!);
          parts.push(this.#encrypt(speaker!.sPublic));
        } else {
          speaker!.sPublic = this.#decrypt(input.subarray(0, 32 + TAG_BYTES));
          input = input.subarray(32 + TAG_BYTES);
        }
      } else if (token === "psk") {
        const [chaining, forHash, key] = hkdf(this.#suite, this.#chaining, this.#psk, 3);
        this.#chaining = chaining!;
        this.#mixHash(forHash!);
        this.#setKey(key!);
      } else {
        const [c, s] = [token[0] as "e" | "s", token[1] as "e" | "s"];
        const [ours, theirs] = [client[`${c}Private`], server[`${s}Private`]];
        const secret = ours
          ? x25519.getSharedSecret(ours, server[`${s}Public`]!)
          : x25519.getSharedSecret(theirs!, client[`${c}Public`]!);
        this.#mixKey(secret);
      }
    }
    if (!writing) return this.#decrypt(input);
    return concat([...parts, this.#encrypt(input)]);
  }

  #mixHash(data: Uint8Array): void {
    this.#hash = SUITES[this.#suite].hash(concat([this.#hash, data]));
  }

  #mixKey(material: Uint8Array): void {
    const [chaining, key] = hkdf(this.#suite, this.#chaining, material, 2);
    this.#chaining = chaining!;
    this.#setKey(key!);
  }

  #setKey(key: Uint8Array): void {
    this.#key = key.slice(0, 32);
    this.#counter = 0n;
  }

  #encrypt(plain: Uint8Array): Uint8Array {
    const sealed = seal(this.#suite, this.#key, this.#counter++, this.#hash).encrypt(plain);
    this.#mixHash(sealed);
    return sealed;
  }

  #decrypt(sealed: Uint8Array): Uint8Array {
    const plain = seal(this.#suite, this.#key, this.#counter++, this.#hash).decrypt(sealed);
    this.#mixHash(sealed);
    return plain;
  }
}

/** Seals or opens the records of one direction. */
export class RecordTwin {
  /** How often the key has changed. */
  rekeys = 0;
  readonly #suite: SuiteName;
  readonly #records: number;
  readonly #bytes: number;
  #key: Uint8Array;
  #counter = 0n;
  #recordsNow = 0;
  #bytesNow = 0;

  constructor(suite: SuiteName, key: Uint8Array, settings: ReadonlyMap<number, number>) {
    this.#suite = suite;
    this.#key = key;
    this.#records = settings.get(SETTING.rekeyRecords) ?? 65536;
    this.#bytes = settings.get(SETTING.rekeyBytes) ?? 2 ** 30;
  }

  /** With the length in front. */
  seal(plain: Uint8Array): Uint8Array {
    const length = plain.length + TAG_BYTES;
    const sealed = this.#next(length).encrypt(plain);
    return concat([Uint8Array.of(length >> 8, length & 0xff), sealed]);
  }

  /** Without it. */
  open(record: Uint8Array): Uint8Array {
    return this.#next(record.length).decrypt(record);
  }

  #next(length: number) {
    if (this.#recordsNow >= this.#records || this.#bytesNow >= this.#bytes) {
      const zeros = new Uint8Array(32);
      this.#key = seal(this.#suite, this.#key, 0xffffffffffffffffn, NOTHING).encrypt(zeros)
        .slice(0, 32);
      this.#recordsNow = this.#bytesNow = 0;
      this.rekeys++;
    }
    this.#recordsNow++;
    this.#bytesNow += length;
    return seal(this.#suite, this.#key, this.#counter++, NOTHING);
  }
}

/** The numbers of the settings. */
export const SETTING = {
  windowBytes: 1,
  streams: 2,
  rekeyRecords: 3,
  rekeyBytes: 4,
  idleTimeoutMs: 5,
} as const;

/** LEB128. */
export function number(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let left = BigInt(value);; left >>= 7n) {
    const low = Number(left & 0x7fn);
    if (left < 0x80n) return Uint8Array.from([...bytes, low]);
    bytes.push(low | 0x80);
  }
}

export function numbers(...values: readonly number[]): Uint8Array {
  return concat(values.map(number));
}

/** Takes a number off the front. */
function takeNumber(bytes: Uint8Array): [number, Uint8Array] {
  const end = bytes.findIndex((byte) => byte < 0x80) + 1;
  if (end === 0) throw new Error("a number without an end");
  let value = 0n;
  for (let i = end - 1; i >= 0; i--) value = value << 7n | BigInt(bytes[i]! & 0x7f);
  return [Number(value), bytes.subarray(end)];
}

export function takeNumbers(bytes: Uint8Array): number[] {
  const values: number[] = [];
  while (bytes.length > 0) {
    const [value, rest] = takeNumber(bytes);
    values.push(value);
    bytes = rest;
  }
  return values;
}

export function settingsMap(payload: Uint8Array): Map<number, number> {
  const values = takeNumbers(payload);
  const map = new Map<number, number>();
  for (let i = 0; i < values.length; i += 2) map.set(values[i]!, values[i + 1]!);
  return map;
}

/** By their numbers. */
const NAMES: readonly FrameName[] = [
  ...["PADDING", "DATA", "OPEN", "FIN", "STOP", "CLOSE", "RESET", "WINDOW"] as const,
  ...["MAX_STREAMS", "PING", "PONG", "GOAWAY", "END"] as const,
];
export type FrameName =
  | "PADDING"
  | "DATA"
  | "OPEN"
  | "FIN"
  | "STOP"
  | "CLOSE"
  | "RESET"
  | "WINDOW"
  | "MAX_STREAMS"
  | "PING"
  | "PONG"
  | "GOAWAY"
  | "END";

export interface TwinFrame {
  readonly type: FrameName;
  readonly id: number;
  /** All numbers, but of data. */
  readonly values: readonly number[];
  readonly body: Uint8Array;
}

export function framesOf(plain: Uint8Array): TwinFrame[] {
  const frames: TwinFrame[] = [];
  while (plain.length > 0 && plain[0] !== 0) {
    const type = NAMES[plain[0]!]!;
    const [id, afterId] = takeNumber(plain.subarray(1));
    const [length, rest] = takeNumber(afterId);
    if (rest.length < length) throw new Error("a frame beyond its record");
    const body = rest.slice(0, length);
    frames.push({ type, id, values: type === "DATA" ? [] : takeNumbers(body), body });
    plain = rest.subarray(length);
  }
  return frames;
}

export function frame(
  type: FrameName,
  id: number,
  body: Uint8Array | readonly number[] = [],
): Uint8Array {
  const bytes = body instanceof Uint8Array ? body : numbers(...body);
  return concat([Uint8Array.of(NAMES.indexOf(type)), number(id), number(bytes.length), bytes]);
}

/** Cuts bytes into what has a length of two bytes in front; fails if something is left. */
export function pieces(bytes: Uint8Array): Uint8Array[] {
  const all: Uint8Array[] = [];
  while (bytes.length > 0) {
    const length = bytes[0]! << 8 | bytes[1]!;
    if (bytes.length < 2 + length) throw new Error("a piece is not whole");
    all.push(bytes.subarray(2, 2 + length));
    bytes = bytes.subarray(2 + length);
  }
  return all;
}

export interface Told {
  readonly settings: readonly [client: Map<number, number>, server: Map<number, number>];
  /** The records of each side, opened. */
  readonly plains: readonly [client: Uint8Array[], server: Uint8Array[]];
  readonly frames: readonly [client: TwinFrame[], server: TwinFrame[]];
  readonly rekeys: readonly [number, number];
  readonly twin: NoiseTwin;
}

/** Reads a whole session again, from all bytes of the client and all of the server. */
export function readSession(
  parameters: NoiseParameters,
  client: Uint8Array,
  server: Uint8Array,
): Told {
  const twin = new NoiseTwin(parameters);
  if (!twin.hello.every((byte, i) => client[i] === byte)) throw new Error("another hello");
  const said = [pieces(client.subarray(8)), pieces(server)] as const;
  const payloads: Uint8Array[] = [];
  for (let i = 0; !twin.done; i++) payloads.push(twin.read(said[i % 2]!.shift()!));
  // The server's are in the second message, the client's in its last one.
  const settings = [payloads.length === 2 ? payloads[0]! : payloads[2]!, payloads[1]!]
    .map(settingsMap) as [Map<number, number>, Map<number, number>];
  const keys = twin.split();
  const records = keys.map((key, i) => new RecordTwin(parameters.suite, key, settings[i]!));
  const plains = said.map((all, i) => all.map((record) => records[i]!.open(record)));
  return {
    settings,
    plains,
    frames: plains.map((all) => all.flatMap(framesOf)),
    rekeys: records.map(({ rekeys }) => rekeys),
    twin,
  } as unknown as Told;
}
