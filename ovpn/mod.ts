/**
 * OpenVPN's management interface: a client, a listener for OpenVPNs that connect to us, and the parts that they are made of.
 *
 * - {@linkcode dial}, {@linkcode ManagementClient}: commands and events over one connection
 * - {@linkcode ReconnectingClient}: the same over one connection after the other
 * - {@linkcode listen}, {@linkcode ManagementListener}: the other direction, `--management-client`
 * - {@linkcode serveAuth}, {@linkcode ClientTable}: who may connect to a server, and who has
 * - {@linkcode provideCredentials}, {@linkcode provideKey}: answers to what an OpenVPN client asks for
 * - {@linkcode Demuxer}, {@linkcode parseEvent}, {@linkcode encodeCommand}: the wire format alone, without any I/O
 *
 * @example
 * ```ts
 * import { describeEvent, dial } from "@trunkline/sockets/ovpn";
 *
 * export async function watch(password: string): Promise<void> {
 *   const client = await dial("127.0.0.1:7505", { password });
 *   await client.setStateEvents(true);
 *   for await (const event of client.events) console.log(describeEvent(event));
 * }
 * ```
 *
 * @module
 */
export * from "../adapters/types.ts";
export type { Answer, Answering } from "./_answering.ts";
export * from "./answer_error.ts";
export * from "./assembler.ts";
export * from "./auth_request.ts";
export * from "./client.ts";
export type { ClientCore } from "./client_core.ts";
export * from "./client_table.ts";
export {
  encodeBody,
  encodeCommand,
  MAX_ARGUMENT_BYTES,
  MAX_ARGUMENTS,
  MAX_LINE_BYTES,
} from "./command.ts";
export { type GeneralCommands, type HistoryLength, StatusFormat } from "./commands_general.ts";
export { type ProxyAnswer, type QueryCommands, type RemoteAnswer } from "./commands_query.ts";
export {
  type ClientRef,
  type DecimalId,
  type KillAddress,
  MAX_PENDING_EXTRA_BYTES,
  type RequestRef,
  type ServerCommands,
} from "./commands_server.ts";
export type {
  ConnectedEvent,
  ConnectFailedEvent,
  ConnectionEvent,
  ConnectionGap,
  DaemonFate,
  DisconnectedEvent,
  ResumedEvent,
} from "./connection_events.ts";
export * from "./credential_callbacks.ts";
export * from "./credentials.ts";
export * from "./demultiplex.ts";
export * from "./demux.ts";
export * from "./describe.ts";
export * from "./ecdsa_der.ts";
export * from "./errors.ts";
export { dial, type DialOptions } from "./dial.ts";
export * from "./event.ts";
export * from "./external_key.ts";
export { GuardError, type GuardName } from "./guard.ts";
export * from "./history.ts";
export * from "./listener.ts";
export * from "./reconnecting_client.ts";
export type {
  AuthRetryMode,
  DaemonVersion,
  LoadStats,
  Pkcs11Entry,
  RemoteEntry,
} from "./reply_values.ts";
export type { Signer, SigningKey, SignRequest } from "./signer.ts";
export * from "./serve_auth.ts";
export * from "./status.ts";
