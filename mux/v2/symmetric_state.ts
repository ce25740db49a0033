/**
 * The SymmetricState of Noise (5.2), with the CipherState (5.1) that a handshake needs in it.
 *
 * @module
 */
import { MuxError } from "../errors.ts";
import { hash, hashBytes, hkdf, NOISE_KEY_BYTES, type NoiseSuite, open, seal } from "./suite.ts";

const NOTHING = new Uint8Array(0);

/** The one error for all that can be wrong with a message: which it was helps an attacker alone. */
export function authFailed(): MuxError {
  return new MuxError(
    "auth-failed",
    "handshake: a message is damaged or forged, or the peer has another key",
  );
}

/** All that was said and agreed so far in a handshake, as one hash and one key. */
export class SymmetricState {
  readonly #suite: NoiseSuite;
  #chainingKey: Uint8Array;
  #hash: Uint8Array;
  /** With a psk, every message mixes a key before it seals anything (9.2), so "no key yet" is no case; the ciphers refuse this one. */
  #key: Uint8Array = NOTHING;
  #counter = 0;

  /** InitializeSymmetric. */
  constructor(suite: NoiseSuite, protocolName: string) {
    this.#suite = suite;
    // No name of ours is longer than the hash, so none is hashed.
    this.#hash = new Uint8Array(hashBytes(suite));
    this.#hash.set(new TextEncoder().encode(protocolName));
    this.#chainingKey = this.#hash.slice();
  }

  /** The hash of all that was said so far. */
  get hash(): Uint8Array {
    return this.#hash;
  }

  /** MixHash. */
  mixHash(data: Uint8Array): void {
    this.#hash = hash(this.#suite, this.#hash, data);
  }

  /** MixKey. */
  mixKey(material: Uint8Array): void {
    const [chainingKey, key] = hkdf(this.#suite, this.#chainingKey, material, 2);
    this.#replaceKeys(chainingKey!, key!);
  }

  /** MixKeyAndHash. */
  mixKeyAndHash(material: Uint8Array): void {
    const [chainingKey, forHash, key] = hkdf(this.#suite, this.#chainingKey, material, 3);
    this.mixHash(forHash!);
    this.#replaceKeys(chainingKey!, key!);
  }

  /** EncryptAndHash. */
  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    const ciphertext = seal(this.#suite, this.#key, this.#counter++, this.#hash, plaintext);
    this.mixHash(ciphertext);
    return ciphertext;
  }

  /**
   * DecryptAndHash.
   *
   * @throws {MuxError} `auth-failed`
   */
  decryptAndHash(ciphertext: Uint8Array): Uint8Array {
    const plaintext = open(this.#suite, this.#key, this.#counter++, this.#hash, ciphertext);
    if (plaintext === undefined) throw authFailed();
    this.mixHash(ciphertext);
    return plaintext;
  }

  /** Split: the key of the initiator's records and that of the responder's. */
  split(): readonly [initiator: Uint8Array, responder: Uint8Array] {
    const [initiator, responder] = hkdf(this.#suite, this.#chainingKey, NOTHING, 2);
    return [initiator!.slice(0, NOISE_KEY_BYTES), responder!.slice(0, NOISE_KEY_BYTES)];
  }

  /** Overwrites the keys: what was recorded of the session stays closed to whoever gets our memory later. */
  forget(): void {
    this.#chainingKey.fill(0);
    this.#key.fill(0);
  }

  #replaceKeys(chainingKey: Uint8Array, key: Uint8Array): void {
    this.forget();
    this.#chainingKey = chainingKey;
    this.#key = key.subarray(0, NOISE_KEY_BYTES);
    this.#counter = 0;
  }
}
