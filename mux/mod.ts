/**
 * The encrypted stream multiplexer: many streams over one connection, sealed with a pre-shared key, as Go's gomux v1.0.0 has it on
 * the wire.
 *
 * - {@linkcode client}, {@linkcode server}: a session over a connection that one has
 * - {@linkcode dial}, {@linkcode listen}: the same with the connection
 * - {@linkcode FrameDecoder}, {@linkcode sealFrame}: the wire format alone, without any I/O
 *
 * @module
 */
export { type Aead, nobleAead, type OpenBox, type Opened, type SealBox } from "../adapters/aead.ts";
export { type AeadName, fromSodium, loadAead, type SodiumLike } from "../adapters/aead_load.ts";
export * from "../adapters/types.ts";
export type { MuxOptions } from "./config.ts";
export * from "./decode.ts";
export * from "./dial.ts";
export * from "./encode.ts";
export * from "./errors.ts";
export { FLAG, type Frame } from "./frame.ts";
export { deriveKey } from "./key.ts";
export { Mux, type MuxStats } from "./session.ts";
export { MuxStream } from "./stream.ts";
