/**
 * The encrypted stream multiplexer: many streams over one connection, sealed with a pre-shared key. Between two of ours use
 * `protocol: "v2"`, with a handshake by the Noise framework and forward secrecy; v1, the default, is what Go's gomux v1.0.0 has on the
 * wire.
 *
 * - {@linkcode client}, {@linkcode server}: a session over a connection that one has
 * - {@linkcode dial}, {@linkcode listen}: the same with the connection
 * - {@linkcode generateIdentity}: who one is, besides having the psk (v2)
 * - {@linkcode FrameDecoder}, {@linkcode sealFrame}: the wire format of v1 alone, without any I/O
 *
 * @module
 */
export { type Aead, nobleAead, type OpenBox, type Opened, type SealBox } from "../adapters/aead.ts";
export type { AeadCipher } from "../adapters/aead.ts";
export { type AeadName, fromSodium, loadAead, type SodiumLike } from "../adapters/aead_load.ts";
export * from "../adapters/types.ts";
export type {
  MuxIdentity,
  MuxOptions,
  MuxProtocol,
  MuxSuite,
  MuxWarning,
  OpenOptions,
} from "./config.ts";
export * from "./dial.ts";
export * from "./errors.ts";
export { type GeneratedIdentity, generateIdentity } from "./identity.ts";
export { Mux } from "./session.ts";
export type { MuxStats } from "./stats.ts";
export { MuxStream } from "./stream.ts";
export * from "./v1/decode.ts";
export * from "./v1/encode.ts";
export { FLAG, type Frame } from "./v1/frame.ts";
export { deriveKey } from "./v1/key.ts";
