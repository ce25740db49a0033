/**
 * The encrypted stream multiplexer: many streams over one connection, sealed with a pre-shared key, as Go's gomux v1.0.0 has it on
 * the wire.
 *
 * @module
 */
export * from "./decode.ts";
export * from "./encode.ts";
export * from "./errors.ts";
export { FLAG, type Frame } from "./frame.ts";
export { deriveKey } from "./key.ts";
