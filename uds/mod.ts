/**
 * Calls between the processes of one machine, over unix sockets: after the Go package domainsockets.
 *
 * @module
 */
export {
  ClientMsgDecoder,
  type DecoderOptions,
  DEFAULT_MAX_MESSAGE,
  type MessageDecoder,
  ServerMsgDecoder,
} from "./decoder.ts";
export * from "./errors.ts";
export {
  CLIENT_DATA,
  CLIENT_KEEP_ALIVE,
  ClientMsg,
  type ClientMsgInit,
  type DecodeOptions,
  KEEP_ALIVE,
  MIB,
  SERVER_DATA,
  SERVER_ERROR,
  ServerMsg,
  type ServerMsgInit,
  type Uint,
} from "./message.ts";
export * from "./setup.ts";
