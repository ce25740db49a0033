/**
 * Who signs for `provideKey`.
 *
 * @module
 */
import type { Answer } from "./_answering.ts";
import { AnswerError } from "./answer_error.ts";
import { ecdsaToDer } from "./ecdsa_der.ts";

/** What is to be signed, and how. */
export interface SignRequest {
  /**
   * What to sign. If it is not a `message`: a digest; for `RSA_PKCS1_PADDING` a DigestInfo with it inside (in TLS 1.1 and before: MD5 and
   * SHA-1 together); for `RSA_NO_PADDING` a whole padded block.
   */
  readonly data: Uint8Array;
  /**
   * `RSA_PKCS1_PADDING`, `RSA_NO_PADDING`, `RSA_PKCS1_PSS_PADDING`, `ECDSA`, `ED25519` or `ED448`; `undefined` if OpenVPN does not tell
   * (2.4, where it is RSA with PKCS#1 padding, and whoever was not told `version 3`).
   */
  readonly algorithm: string | undefined;
  /** The digest in OpenVPN's words, such as `SHA256`: that of PSS, and of a `message`. */
  readonly hash: string | undefined;
  /** Of PSS: `digest` (as long as the digest) or `max`. */
  readonly saltLength: string | undefined;
  /** Whether `data` is the message itself, which is to be digested: so with the flag `digest`, and always for Ed25519 and Ed448. */
  readonly message: boolean;
  /** Fires when the signature is not waited for any more. */
  readonly signal: AbortSignal;
}

/** Makes a signature, for ECDSA in DER (see {@linkcode ecdsaToDer}); `undefined` for none. */
export type Signer = (request: SignRequest) => Answer<Uint8Array>;

const HASH_BYTES: ReadonlyMap<string, number> = new Map([
  ["SHA-1", 20],
  ["SHA-256", 32],
  ["SHA-384", 48],
  ["SHA-512", 64],
]);

/** A `CryptoKey` of WebCrypto, by a name that the types of Node have too. */
export type SigningKey = Parameters<typeof crypto.subtle.sign>[1];

/** What a key's `algorithm` has, by its kind. */
interface KeyDetails {
  readonly name: string;
  readonly hash?: { readonly name: string };
  readonly modulusLength?: number;
}

/**
 * Signs by WebCrypto, with the first of `keys` that can.
 *
 * @throws {TypeError} if there is none, or one that may not sign
 */
export function cryptoKeySigner(keys: readonly SigningKey[]): Signer {
  if (keys.length === 0) throw new TypeError("there is no key to sign with");
  for (const { type, usages } of keys) {
    if (type !== "private" || !usages.includes("sign")) {
      throw new TypeError('a key to sign with is private and has the usage "sign"');
    }
  }
  return async (request) => {
    requireMessage(request);
    for (const key of keys) {
      const scheme = schemeOf(key, request);
      if (scheme === undefined) continue;
      // A copy: data of a SharedArrayBuffer would be none that it takes.
      const signature = await crypto.subtle.sign(scheme, key, new Uint8Array(request.data));
      const bytes = new Uint8Array(signature);
      return request.algorithm === "ECDSA" ? ecdsaToDer(bytes) : bytes;
    }
    const { algorithm, hash, saltLength } = request;
    const wanted = [algorithm, hash, saltLength].filter((it) => it !== undefined).join(", ");
    throw new AnswerError(
      "unsupported-key",
      `signing: none of ${keys.length} keys is one for ${wanted}`,
    );
  };
}

/** WebCrypto digests what it signs, so a digest would be digested once more. */
function requireMessage({ algorithm, message }: SignRequest): void {
  if (algorithm === undefined) {
    const text = "signing: OpenVPN does not tell for which algorithm";
    throw new AnswerError("unsupported-key", text);
  }
  if (message) return;
  throw new AnswerError(
    "unsupported-key",
    `signing: WebCrypto takes no digest for ${algorithm}: ` +
      "have the message sent by the flag digest of --management-external-key, or use a signer",
  );
}

/** How this key would sign that, if it can. */
function schemeOf(
  key: SigningKey,
  { algorithm, hash: told, saltLength }: SignRequest,
): { readonly name: string; readonly hash?: string; readonly saltLength?: number } | undefined {
  const { name, hash: bound, modulusLength = 0 }: KeyDetails = key.algorithm;
  const hash = webHash(told);
  const hashBytes = HASH_BYTES.get(hash ?? "");
  switch (algorithm) {
    case "RSA_PKCS1_PADDING":
      return name === "RSASSA-PKCS1-v1_5" && hash !== undefined && hash === bound?.name
        ? { name }
        : undefined;
    case "RSA_PKCS1_PSS_PADDING": {
      if (name !== "RSA-PSS" || hashBytes === undefined || hash !== bound?.name) return undefined;
      if (saltLength === "digest") return { name, saltLength: hashBytes };
      // RFC 8017, 9.1.1: what is left of the block, which has one bit less than the modulus.
      const max = Math.ceil((modulusLength - 1) / 8) - hashBytes - 2;
      return saltLength === "max" && max >= 0 ? { name, saltLength: max } : undefined;
    }
    case "ECDSA":
      return name === "ECDSA" && hash !== undefined ? { name, hash } : undefined;
    case "ED25519":
      return name === "Ed25519" ? { name } : undefined;
    case "ED448":
      return name === "Ed448" ? { name } : undefined;
    default:
      return undefined;
  }
}

/** OpenSSL's names are `SHA256` and `SHA2-256`. */
function webHash(name: string | undefined): string | undefined {
  const bits = /^SHA(?:2-|-)?(1|256|384|512)$/i.exec(name ?? "")?.[1];
  return bits === undefined ? undefined : `SHA-${bits}`;
}
