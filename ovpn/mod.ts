/**
 * OpenVPN's management interface.
 *
 * @module
 */
export * from "./demultiplex.ts";
export * from "./demux.ts";
export * from "./describe.ts";
export * from "./event.ts";
