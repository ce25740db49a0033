/**
 * Calls between the processes of one machine, over unix sockets: after the Go package domainsockets.
 *
 * @example
 * ```ts
 * import { dialServer, Server } from "@trunkline/sockets/uds";
 *
 * export async function main(): Promise<void> {
 *   const server = new Server("my-service");
 *   server.register("Echo", (request) => request.data);
 *   await server.start();
 *   const client = await dialServer("my-service");
 *   console.log(await client.call("Echo", new Uint8Array([1, 2])));
 *   await client.close();
 *   await server.close();
 * }
 * ```
 *
 * @module
 */
export * from "../adapters/types.ts";
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
export {
  type CallOptions,
  Client,
  dialServer,
  type DialServerOptions,
  type StreamOptions,
} from "./client.ts";
export type { Redial } from "./_connection.ts";
export type { AdmissionOptions, Authorize, PeerCred } from "./admission.ts";
export type { ClientOptions } from "./client_options.ts";
export type { ClientCall, ClientInterceptor, ServerInterceptor } from "./interceptor.ts";
export type { Handler, HandlerAnswer, HandlerContext, StreamHandler } from "./context.ts";
export { MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, type Metadata } from "./_extension.ts";
export { socketAddress } from "./name.ts";
export { type CloseServerOptions, type ListenServerOptions, Server } from "./server.ts";
export type { ServerOptions } from "./server_options.ts";
export type { MessageStream } from "./stream.ts";
export { type AnyCodec, bytes, type Codec, empty, json, text } from "./codec.ts";
export {
  type HandlerDescription,
  MAX_DESCRIPTION_BYTES,
  type MethodDescription,
  type MethodKind,
  type ServiceDescription,
  type ValueDescription,
} from "./description.ts";
export * from "./service.ts";
export * from "./service_client.ts";
export * from "./service_server.ts";
export * from "./standard_schema.ts";
