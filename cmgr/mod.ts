/**
 * One manager for all connections of a daemon: TCP, TLS, UDP and unix sockets, named sessions, and everything that happens on one channel.
 * After the Go package `cmgr` of ScottDaniels.
 *
 * @module
 */
export type { ListenKind } from "./_binding.ts";
export { type BroadcastOptions, type BroadcastResult, type SlowPolicy } from "./broadcast.ts";
export {
  Channel,
  CHANNEL_BYTES,
  CHANNEL_CAPACITY,
  type ChannelItem,
  type ChannelOptions,
  discard,
  type Sink,
} from "./channel.ts";
export { ManagerError, type ManagerErrorCode, type ManagerErrorOptions } from "./errors.ts";
export {
  type DisconnectReason,
  type EventParts,
  LISTENER,
  SessionEvent,
  type SessionState,
  ST_ACCEPTED,
  ST_CLOSING,
  ST_DATA,
  ST_DISC,
  ST_EOF,
  ST_NEW,
  ST_RECONNECTING,
} from "./event.ts";
export type { Framing } from "./framing.ts";
export { CONNECT_TIMEOUT_MS, ConnectionManager, GRACE_MS } from "./manager.ts";
export type { Meter, MetricAttributes, MetricInstrument, MetricOptions } from "./metrics.ts";
export type {
  CloseIdOptions,
  ConnectSessionOptions,
  ListenerOptions,
  ManagerOptions,
  OpenManagerOptions,
  ReconnectOptions,
  Refusal,
  SessionOptions,
  ShutdownOptions,
} from "./options.ts";
export type {
  BaseSession,
  CloseSessionOptions,
  Session,
  StreamSession,
  UdpSession,
} from "./session.ts";
export type {
  ListenerStats,
  ManagerStats,
  RefusalCounts,
  RefusalReason,
  SessionStats,
} from "./stats.ts";
export { type ResolveOptions, resolveUdpAddr } from "./udp_address.ts";
export { formatAddress, parseAddress } from "../adapters/address.ts";
export * from "../adapters/types.ts";
