/**
 * Handshakes of the Noise Protocol Framework, revision 34, with a pre-shared key: NNpsk0, one round trip, where the key is all that
 * the two know of each other; and XXpsk3, where each has a static key of its own besides.
 *
 * @module
 */
import { agree, generateKeyPair, type KeyPair, X25519_KEY_BYTES } from "../../adapters/x25519.ts";
import { isNoiseSuite, NOISE_KEY_BYTES, NOISE_TAG_BYTES, type NoiseSuite } from "./suite.ts";
import { authFailed, SymmetricState } from "./symmetric_state.ts";

/** Which messages a handshake has. */
export type NoisePattern = "NNpsk0" | "XXpsk3";

/** The longest message of Noise (3): 65535 bytes. */
export const MAX_NOISE_MESSAGE_BYTES = 65535;

/** Noise 7.1. */
type Token = "e" | "s" | "ee" | "es" | "se" | "psk";

/** Noise 7.4 and 9.4: the initiator's message, the responder's, and so on by turns. */
const PATTERNS: Readonly<Record<NoisePattern, readonly (readonly Token[])[]>> = {
  NNpsk0: [["psk", "e"], ["e", "ee"]],
  XXpsk3: [["e"], ["e", "ee", "s", "es"], ["s", "se", "psk"]],
};

/** What a {@linkcode Handshake} takes. */
export interface HandshakeOptions {
  /** Which messages there are. */
  readonly pattern: NoisePattern;
  /** Which cipher and hash. */
  readonly suite: NoiseSuite;
  /** Whether we speak first. */
  readonly initiator: boolean;
  /** What both have said before, of any length: if they do not agree on it, the handshake fails. */
  readonly prologue: Uint8Array;
  /** 32 bytes that nobody else knows. */
  readonly psk: Uint8Array;
  /** Our identity: XXpsk3 needs it, NNpsk0 has none. */
  readonly staticKey?: KeyPair | undefined;
  /** For published test vectors alone. @default a new pair */
  readonly ephemeralKey?: KeyPair | undefined;
}

/**
 * One side of a handshake: {@linkcode Handshake.writeMessage} and {@linkcode Handshake.readMessage} by turns until
 * {@linkcode Handshake.done}, then {@linkcode Handshake.split}. The first error is the last: every later call rejects with the same one;
 * but a call out of turn, or with a wrong argument, is refused and changes nothing.
 *
 * @example
 * ```ts
 * import { Handshake } from "./noise.ts";
 *
 * const shared = {
 *   pattern: "NNpsk0",
 *   suite: "ChaChaPoly_BLAKE2b",
 *   prologue: new TextEncoder().encode("example"),
 *   psk: crypto.getRandomValues(new Uint8Array(32)),
 * } as const;
 * const client = new Handshake({ ...shared, initiator: true });
 * const server = new Handshake({ ...shared, initiator: false });
 *
 * const nothing = new Uint8Array(0);
 * await server.readMessage(await client.writeMessage(nothing));
 * await client.readMessage(await server.writeMessage(nothing));
 * const { send, receive } = client.split(); // what the server has as receive and send
 * ```
 */
export class Handshake {
  readonly #messages: readonly (readonly Token[])[];
  readonly #initiator: boolean;
  readonly #psk: Uint8Array;
  readonly #static: KeyPair | undefined;
  readonly #state: SymmetricState;
  #ephemeral: KeyPair | undefined;
  #remoteEphemeral: Uint8Array | undefined;
  #remoteStatic: Uint8Array | undefined;
  /** Messages written or read. */
  #count = 0;
  #busy = false;
  #split = false;
  #failure: { readonly error: unknown } | undefined;

  /**
   * Begins one.
   *
   * @throws {TypeError} for a pattern or suite that there is not, bytes that are none, a static key too many or too few
   * @throws {RangeError} for a psk of another length than 32 bytes
   */
  constructor(options: HandshakeOptions) {
    const { pattern, suite, initiator, prologue, psk, staticKey, ephemeralKey } = options;
    if (!Object.hasOwn(PATTERNS, pattern)) throw new TypeError(`no handshake pattern ${pattern}`);
    if (!isNoiseSuite(suite)) throw new TypeError(`no cipher suite ${suite}`);
    requireBytes("prologue", prologue);
    requireBytes("psk", psk);
    if (psk.length !== NOISE_KEY_BYTES) {
      throw new RangeError(`a psk of ${psk.length} bytes, expected ${NOISE_KEY_BYTES}`);
    }
    const messages = PATTERNS[pattern];
    if (messages.flat().includes("s") !== (staticKey !== undefined)) {
      throw new TypeError(`${pattern} with${staticKey === undefined ? "out" : ""} a static key`);
    }
    if (staticKey !== undefined && staticKey.publicKey?.length !== X25519_KEY_BYTES) {
      throw new TypeError("the static key is no pair of keys");
    }
    this.#messages = messages;
    this.#initiator = initiator;
    // Not slice(), which gives a Buffer's own memory.
    this.#psk = new Uint8Array(psk);
    this.#static = staticKey;
    this.#ephemeral = ephemeralKey;
    this.#state = new SymmetricState(suite, `Noise_${pattern}_25519_${suite}`);
    this.#state.mixHash(prologue);
  }

  /** Whether all messages were written and read. */
  get done(): boolean {
    return this.#failure === undefined && this.#count === this.#messages.length;
  }

  /** The peer's static key of 32 bytes, as soon as a message with it was read: it has proved that it has the private one. */
  get remoteStatic(): Uint8Array | undefined {
    return this.#remoteStatic;
  }

  /**
   * The hash of all that was said (64 or 32 bytes): both have the same, and no other session has it.
   *
   * @throws {TypeError} before the handshake is done
   */
  get hash(): Uint8Array {
    this.#requireDone("hash");
    return this.#state.hash.slice();
  }

  /**
   * Writes our next message, with `payload` sealed in it.
   *
   * @throws {TypeError} if it is not our turn, or the payload is no `Uint8Array`
   * @throws {RangeError} if the message would be longer than 65535 bytes
   * @throws {MuxError} `auth-failed` if the peer's key is not one to agree with
   */
  async writeMessage(payload: Uint8Array): Promise<Uint8Array> {
    requireBytes("payload", payload);
    const tokens = this.#turn(true);
    const length = lengthOf(tokens) + payload.length;
    if (length > MAX_NOISE_MESSAGE_BYTES) {
      throw new RangeError(`a message of ${length} bytes, at most ${MAX_NOISE_MESSAGE_BYTES}`);
    }
    return await this.#exclusively(async () => {
      const message = new Uint8Array(length);
      let offset = 0;
      const write = (bytes: Uint8Array): void => {
        message.set(bytes, offset);
        offset += bytes.length;
      };
      // Until we wait for a key: the caller may change it then.
      const copy = new Uint8Array(payload);
      for (const token of tokens) {
        if (token === "e") {
          this.#ephemeral ??= await generateKeyPair();
          write(this.#ephemeral.publicKey);
          this.#mixEphemeral(this.#ephemeral.publicKey);
        } else if (token === "s") {
          write(this.#state.encryptAndHash(this.#static!.publicKey));
        } else await this.#mixToken(token);
      }
      write(this.#state.encryptAndHash(copy));
      return message;
    });
  }

  /**
   * Reads the peer's next message and returns the payload that was sealed in it.
   *
   * @throws {TypeError} if it is not the peer's turn, or the message is no `Uint8Array`
   * @throws {MuxError} `auth-failed` if the message is short, long, damaged or forged, or the peer has another psk or prologue
   */
  async readMessage(message: Uint8Array): Promise<Uint8Array> {
    requireBytes("message", message);
    const tokens = this.#turn(false);
    return await this.#exclusively(async () => {
      if (message.length < lengthOf(tokens) || message.length > MAX_NOISE_MESSAGE_BYTES) {
        throw authFailed();
      }
      // In memory of its own: we wait, and keep some of it.
      let rest = new Uint8Array(message);
      const read = (length: number): Uint8Array => {
        const bytes = rest.subarray(0, length);
        rest = rest.subarray(length);
        return bytes;
      };
      let remoteStatic = this.#remoteStatic;
      for (const token of tokens) {
        if (token === "e") {
          this.#remoteEphemeral = read(X25519_KEY_BYTES);
          this.#mixEphemeral(this.#remoteEphemeral);
        } else if (token === "s") {
          remoteStatic = this.#state.decryptAndHash(read(X25519_KEY_BYTES + NOISE_TAG_BYTES));
        } else await this.#mixToken(token, remoteStatic);
      }
      const payload = this.#state.decryptAndHash(rest);
      this.#remoteStatic = remoteStatic;
      return payload;
    });
  }

  /**
   * The keys of the records, 32 bytes each, once: they are the caller's then, and forgotten here.
   *
   * @throws {TypeError} before the handshake is done, or for the second time
   */
  split(): { readonly send: Uint8Array; readonly receive: Uint8Array } {
    this.#requireDone("keys");
    if (this.#split) throw new TypeError("the keys of a handshake are given away once");
    this.#split = true;
    const [initiator, responder] = this.#state.split();
    this.#forget();
    return this.#initiator
      ? { send: initiator, receive: responder }
      : { send: responder, receive: initiator };
  }

  /** The tokens of the next message, which is ours to write or to read. */
  #turn(writing: boolean): readonly Token[] {
    if (this.#failure !== undefined) throw this.#failure.error;
    const tokens = this.#messages[this.#count];
    const ours = (this.#count % 2 === 0) === this.#initiator;
    if (tokens === undefined || ours !== writing || this.#busy) {
      const state = this.#busy ? "another call is not done" : `${this.#count} messages are done`;
      throw new TypeError(`${writing ? "writing" : "reading"} a handshake message: ${state}`);
    }
    return tokens;
  }

  /** Works on a message; an error is kept, and the keys are not. */
  async #exclusively(work: () => Promise<Uint8Array>): Promise<Uint8Array> {
    this.#busy = true;
    try {
      const result = await work();
      this.#count++;
      return result;
    } catch (error) {
      this.#failure = { error };
      this.#forget();
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  /** With a psk a public key is mixed into the key as well (9.2). */
  #mixEphemeral(publicKey: Uint8Array): void {
    this.#state.mixHash(publicKey);
    this.#state.mixKey(publicKey);
  }

  async #mixToken(
    token: "ee" | "es" | "se" | "psk",
    remoteStatic: Uint8Array | undefined = this.#remoteStatic,
  ): Promise<void> {
    if (token === "psk") return this.#state.mixKeyAndHash(this.#psk);
    // The first letter is the initiator's key, the second the responder's.
    const [ours, theirs] = this.#initiator ? token : [...token].reverse();
    const pair = ours === "e" ? this.#ephemeral! : this.#static!;
    const publicKey = theirs === "e" ? this.#remoteEphemeral! : remoteStatic!;
    let secret: Uint8Array;
    try {
      secret = await agree(pair, publicKey);
    } catch {
      throw authFailed();
    }
    this.#state.mixKey(secret);
    secret.fill(0);
  }

  #requireDone(what: string): void {
    if (this.#failure !== undefined) throw this.#failure.error;
    if (!this.done) throw new TypeError(`the ${what} of a handshake that is not done`);
  }

  #forget(): void {
    this.#state.forget();
    this.#psk.fill(0);
    this.#ephemeral = undefined;
  }
}

/** Bytes of a message whose payload is empty. */
function lengthOf(tokens: readonly Token[]): number {
  const keys = tokens.filter((token) => token === "e" || token === "s").length;
  const tags = tokens.includes("s") ? 2 : 1;
  return keys * X25519_KEY_BYTES + tags * NOISE_TAG_BYTES;
}

function requireBytes(name: string, bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`the ${name} is no Uint8Array`);
}
