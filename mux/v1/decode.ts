/**
 * Opens frames. Sessions open many at once, see aead.ts.
 *
 * @module
 */
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { MuxError } from "../errors.ts";
import {
  type Frame,
  FrameSplitter,
  HEADER_BYTES,
  NONCE_BYTES,
  NONCE_OFFSET,
  readUint32,
} from "./frame.ts";
import { KEY_BYTES } from "./key.ts";

/**
 * Bytes in, frames out, in chunks of any size. Holds at most one incomplete frame.
 *
 * @example
 * ```ts
 * import { deriveKey, FLAG, FrameDecoder, sealFrame } from "@trunkline/sockets/mux";
 *
 * const key = deriveKey("open sesame");
 * const nonce = crypto.getRandomValues(new Uint8Array(24));
 * const sealed = sealFrame({ id: 0, flags: FLAG.DATA, payload: new Uint8Array(3) }, key, nonce);
 * for (const { id, payload } of new FrameDecoder(key).push(sealed)) console.log(id, payload);
 * ```
 */
export class FrameDecoder {
  readonly #key: Uint8Array;
  readonly #splitter = new FrameSplitter();
  #error: MuxError | undefined;

  /**
   * Makes a decoder for what was sealed with `key`; see `deriveKey`.
   *
   * @throws {RangeError} for a key that has not 32 bytes
   */
  constructor(key: Uint8Array) {
    if (key.length !== KEY_BYTES) {
      throw new RangeError(`a key of ${key.length} bytes, expected ${KEY_BYTES}`);
    }
    this.#key = new Uint8Array(key);
  }

  /** True in the middle of a frame: a transport that ends here has lost something. */
  get partial(): boolean {
    return this.#splitter.partial;
  }

  /**
   * Takes the next bytes, at once; gives the frames that they complete. `chunk` may be used again. After an error every later call gives
   * the same one.
   *
   * @throws {MuxError} while iterating, behind the frames that were good: `auth-failed`, or `protocol` for a length that no frame has
   */
  push(chunk: Uint8Array): Iterable<Frame> {
    const frames: Frame[] = [];
    if (this.#error === undefined) {
      const sealed: Uint8Array[] = [];
      try {
        try {
          this.#splitter.push(chunk, sealed);
        } finally {
          for (const bytes of sealed) frames.push(openFrame(bytes, this.#key));
        }
      } catch (error) {
        this.#error = error as MuxError;
      }
    }
    return framesThen(frames, this.#error);
  }
}

function* framesThen(frames: Frame[], error: MuxError | undefined): Generator<Frame, void> {
  yield* frames;
  if (error !== undefined) throw error;
}

function openFrame(bytes: Uint8Array, key: Uint8Array): Frame {
  const header = bytes.subarray(0, HEADER_BYTES);
  const nonce = bytes.slice(NONCE_OFFSET, NONCE_OFFSET + NONCE_BYTES);
  try {
    const payload = xchacha20poly1305(key, nonce, header).decrypt(bytes.subarray(HEADER_BYTES));
    return {
      id: readUint32(bytes, 0),
      flags: readUint32(bytes, 8),
      length: readUint32(bytes, 4),
      payload,
      nonce,
    };
  } catch (cause) {
    throw new MuxError("auth-failed", "a frame cannot be opened with this key", { cause });
  }
}
