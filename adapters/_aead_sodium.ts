/**
 * ChaCha20-Poly1305 by libsodium: the WebAssembly build that comes with this package, or sodium-native that the user brings.
 *
 * @module
 */
import { type Aead, AEAD_TAG_BYTES, checkBox, type OpenBox } from "./aead.ts";

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
/** A frame of the largest size with its associated data; longer messages make it grow. */
const MESSAGE_BYTES = 65536 + AEAD_TAG_BYTES + 64;

function fromModule(module: SodiumModule): Aead {
  const key = module._malloc(KEY_BYTES);
  const nonce = module._malloc(NONCE_BYTES);
  let capacity = MESSAGE_BYTES;
  let message = module._malloc(capacity);
  let keyThere: Uint8Array | undefined;

  /** Copies all but the message, of at most `bytes`, into the module's memory; gives that memory, which may have been replaced. */
  function place(box: Pick<OpenBox, "key" | "nonce" | "aad">, bytes: number): Uint8Array {
    checkBox(box);
    if (bytes + box.aad.length > capacity) {
      module._free(message);
      message = module._malloc(capacity = bytes + box.aad.length);
    }
    const memory = module.HEAPU8;
    if (keyThere !== box.key) memory.set(keyThere = box.key, key);
    memory.set(box.nonce, nonce);
    memory.set(box.aad, message + bytes);
    return memory;
  }

  return {
    name: "libsodium",
    seal(boxes) {
      for (const box of boxes) {
        const { input, output } = box;
        const bytes = input.length + AEAD_TAG_BYTES;
        const memory = place(box, bytes);
        memory.set(input, message);
        // deno-fmt-ignore -- as C has them
        module._crypto_aead_chacha20poly1305_ietf_encrypt(
          message, 0, message, input.length, 0, message + bytes, box.aad.length, 0, 0, nonce, key,
        );
        output.set(memory.subarray(message, message + bytes));
      }
    },
    open: (boxes) =>
      boxes.map((box) => {
        const { input } = box;
        const bytes = input.length;
        const memory = place(box, bytes);
        memory.set(input, message);
        // deno-fmt-ignore -- as C has them
        const forged = module._crypto_aead_chacha20poly1305_ietf_decrypt(
          message, 0, 0, message, bytes, 0, message + bytes, box.aad.length, 0, nonce, key,
        );
        if (forged !== 0) return undefined;
        return memory.slice(message, message + bytes - AEAD_TAG_BYTES);
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
      for (const box of boxes) {
        checkBox(box);
        const { key, nonce, aad, input, output } = box;
        sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
          output,
          input,
          aad,
          null,
          nonce,
          key,
        );
      }
    },
    open: (boxes) =>
      boxes.map((box) => {
        checkBox(box);
        const { key, nonce, aad, input } = box;
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
