/**
 * ChaCha20-Poly1305 by libsodium: the WebAssembly build that comes with this package, or sodium-native that the user brings.
 *
 * @module
 */
import { type Aead, AEAD_TAG_BYTES, checkKey } from "./aead.ts";

type FiveNumbers = readonly [number, number, number, number, number];
type ElevenNumbers = readonly [...FiveNumbers, ...FiveNumbers, number];

/** The part of libsodium.js that is used: the C functions and their memory, without its wrappers, which copy and allocate twice. */
interface SodiumModule {
  readonly HEAPU8: Uint8Array;
  _malloc(bytes: number): number;
  _free(at: number): void;
  /** Output, its length, message, its length (low, high), aad, its length (low, high), nothing, nonce, key. */
  _crypto_aead_chacha20poly1305_ietf_encrypt(...pointersAndLengths: ElevenNumbers): number;
  /** Output, its length, nothing, input, its length (low, high), aad, its length (low, high), nonce, key. */
  _crypto_aead_chacha20poly1305_ietf_decrypt(...pointersAndLengths: ElevenNumbers): number;
}

/** `undefined` where there is no WebAssembly, or it may not be compiled. */
export async function sodiumAead(): Promise<Aead | undefined> {
  try {
    const { default: sodium } = await import("libsodium-wrappers");
    await sodium.ready;
    return fromModule((sodium as unknown as { readonly libsodium: SodiumModule }).libsodium);
  } catch {
    return undefined;
  }
}

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const MAX_AAD_BYTES = 64;
/** A frame of the largest size; longer messages make it grow. */
const MESSAGE_BYTES = 65536 + AEAD_TAG_BYTES;

function fromModule(module: SodiumModule): Aead {
  const key = module._malloc(KEY_BYTES);
  const nonce = module._malloc(NONCE_BYTES);
  const aad = module._malloc(MAX_AAD_BYTES);
  let capacity = MESSAGE_BYTES;
  let message = module._malloc(capacity);
  let keyThere: Uint8Array | undefined;

  /** Copies what both directions need into the module's memory; gives that memory, which may have been replaced. */
  function place(box: { key: Uint8Array; nonce: Uint8Array; aad: Uint8Array }, bytes: number) {
    if (bytes > capacity) {
      module._free(message);
      message = module._malloc(capacity = bytes);
    }
    const memory = module.HEAPU8;
    if (keyThere !== box.key) memory.set(keyThere = checkKey(box.key), key);
    memory.set(box.nonce, nonce);
    memory.set(box.aad, aad);
    return memory;
  }

  return {
    name: "libsodium",
    seal(boxes) {
      for (const box of boxes) {
        const { input, output } = box;
        const memory = place(box, input.length + AEAD_TAG_BYTES);
        memory.set(input, message);
        // deno-fmt-ignore -- as C has them
        module._crypto_aead_chacha20poly1305_ietf_encrypt(
          message, 0, message, input.length, 0, aad, box.aad.length, 0, 0, nonce, key,
        );
        output.set(memory.subarray(message, message + input.length + AEAD_TAG_BYTES));
      }
    },
    open: (boxes) =>
      boxes.map((box) => {
        const { input } = box;
        const memory = place(box, input.length);
        memory.set(input, message);
        // deno-fmt-ignore -- as C has them
        const forged = module._crypto_aead_chacha20poly1305_ietf_decrypt(
          message, 0, 0, message, input.length, 0, aad, box.aad.length, 0, nonce, key,
        );
        if (forged !== 0) return undefined;
        return memory.slice(message, message + input.length - AEAD_TAG_BYTES);
      }),
  };
}

/** The part of sodium-native that is used. */
export interface SodiumLike {
  /** Seals `message` into `output`. */
  crypto_aead_chacha20poly1305_ietf_encrypt(
    output: Uint8Array,
    message: Uint8Array,
    aad: Uint8Array,
    secretNonce: null,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number;
  /** Opens `input` into `output`; throws if it is forged. */
  crypto_aead_chacha20poly1305_ietf_decrypt(
    output: Uint8Array,
    secretNonce: null,
    input: Uint8Array,
    aad: Uint8Array,
    nonce: Uint8Array,
    key: Uint8Array,
  ): number;
}

/**
 * Uses sodium-native, the fastest on every runtime, which you bring: `aead: fromSodium(sodium)`.
 *
 * @example
 * ```ts ignore
 * import sodium from "sodium-native";
 * import { client, fromSodium } from "@trunkline/sockets/mux";
 *
 * const mux = client(conn, { psk, aead: fromSodium(sodium) });
 * ```
 */
export function fromSodium(sodium: SodiumLike): Aead {
  return {
    name: "sodium-native",
    seal(boxes) {
      for (const { key, nonce, aad, input, output } of boxes) {
        sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
          output,
          input,
          aad,
          null,
          nonce,
          checkKey(key),
        );
      }
    },
    open: (boxes) =>
      boxes.map(({ key, nonce, aad, input }) => {
        checkKey(key);
        if (input.length < AEAD_TAG_BYTES) return undefined;
        const output = new Uint8Array(input.length - AEAD_TAG_BYTES);
        try {
          sodium.crypto_aead_chacha20poly1305_ietf_decrypt(output, null, input, aad, nonce, key);
          return output;
        } catch {
          return undefined;
        }
      }),
  };
}
