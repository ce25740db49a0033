/**
 * The one contract between the sessions of this package and the sockets of a runtime: {@linkcode Conn},
 * {@linkcode Listener}, {@linkcode Datagram} and the {@linkcode ConnectError} that all of them reject with.
 *
 * @module
 */

/** Where a TCP or UDP socket is: a host name or IP literal (IPv6 without brackets) and a port, 0 to 65535. */
export interface InetAddress {
  /** A host name, an IPv4 literal, or an IPv6 literal without brackets (`fe80::1%eth0` with a zone). */
  readonly hostname: string;
  /** 0 to 65535; 0 lets a listener take a free port. */
  readonly port: number;
}

/**
 * Where a unix socket is. A path that starts with NUL (`"\0name"`) is a Linux abstract name.
 * Limit: 107 bytes of UTF-8 on Linux, 103 on macOS; more is `invalid-address`, never cut.
 */
export interface UnixAddress {
  /** The path of the socket file, or `"\0name"`. */
  readonly path: string;
}

/** Where a stream socket is. Its text forms are read by `parseAddress` and written by `formatAddress`. */
export type Address = InetAddress | UnixAddress;

/**
 * What went wrong, the same on every runtime:
 *
 * - `refused`: nobody listens there, or so many wait to be accepted that there is no room for another
 * - `timeout`: a time limit ran out (also a signal from `AbortSignal.timeout`)
 * - `not-found`: no such host name or socket file
 * - `permission`: the operating system or the runtime's permission model says no
 * - `in-use`: the address is taken
 * - `unreachable`: no route, or an address that this machine does not have
 * - `reset`: the peer threw the connection away
 * - `broken-pipe`: written to a peer that no longer reads
 * - `closed`: used after our own `close()`
 * - `aborted`: an `AbortSignal` fired, or `abort()` was called
 * - `tls`: handshake or certificate trouble
 * - `invalid-address`: an address that cannot be one, or that does not fit
 * - `unsupported`: this runtime cannot do that
 * - `other`: none of these; look at `cause`
 */
export type ConnectErrorCode =
  | "refused"
  | "timeout"
  | "not-found"
  | "permission"
  | "in-use"
  | "unreachable"
  | "reset"
  | "broken-pipe"
  | "closed"
  | "aborted"
  | "tls"
  | "invalid-address"
  | "unsupported"
  | "other";

/**
 * The only error that an adapter throws or rejects with, apart from `TypeError` and `RangeError` for a
 * caller's mistake. `cause` is what the runtime threw.
 */
export class ConnectError extends Error {
  /** Always `"ConnectError"`. */
  override readonly name = "ConnectError";
  /** What went wrong; see {@linkcode ConnectErrorCode}. */
  readonly code: ConnectErrorCode;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: ConnectErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** An option bag with the signal that every wait takes. */
export interface WaitOptions {
  /**
   * Ends the wait with a {@linkcode ConnectError} `aborted` (or `timeout` for `AbortSignal.timeout`); what is no part of the adapters has an
   * error class of its own with the same codes.
   */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@linkcode Conn.read}. */
export interface ReadOptions extends WaitOptions {
  /**
   * Memory to read into, for who reads much and is done with a chunk before the next: the chunk may then be a view of its beginning, which
   * saves Deno new memory for each. Elsewhere, and together with `signal`, it is not used.
   */
  readonly into?: Uint8Array | undefined;
}

/** Who is at the other end of a unix connection, as the kernel noted at its `connect()` or `listen()`. */
export interface PeerCredentials {
  /** Process id. */
  readonly pid: number;
  /** User id. */
  readonly uid: number;
  /** Group id. */
  readonly gid: number;
}

/** What a TLS handshake agreed on. */
export interface TlsInfo {
  /** The protocol version, for instance `"TLSv1.3"`. */
  readonly protocol: string | undefined;
  /** The ALPN protocol that was agreed on, or `undefined`. */
  readonly alpn: string | undefined;
  /** True if the peer showed a certificate that our CAs vouch for. */
  readonly authorized: boolean;
  /** The peer's certificate in DER, or `undefined` if it showed none. */
  readonly peerCertificate: Uint8Array | undefined;
}

/**
 * One byte stream with a peer: a TCP, TLS or unix connection, or whatever else `wrapConn` was given.
 *
 * Use either the pair `readable` / `writable` or the cheap path `read()` / `write()` for a direction, not both
 * at once. Guarantees:
 *
 * 1. Bytes arrive in the order written; each is delivered once. What came before an error is delivered before the error.
 * 2. `write()` never mixes with another write. Everything written before `close()` or `closeWrite()` is sent before the FIN.
 * 3. A peer that does not read slows `write()`; a reader that does not read slows the peer. Neither fills memory.
 * 4. After an error every later call rejects with that same error (the sticky error).
 * 5. `closed` is settled once, and ignoring it never makes an unhandled rejection.
 * 6. `close()`, `closeWrite()` and `abort()` may be called again at any time; they then do nothing.
 */
export interface Conn extends AsyncDisposable {
  /** Our end, if the runtime tells (a unix client has none). */
  readonly local: Address | undefined;
  /** The peer's end, if the runtime tells (a unix client that was accepted has none). */
  readonly remote: Address | undefined;
  /** What TLS agreed on; `undefined` on a connection without TLS. */
  readonly tls: TlsInfo | undefined;
  /**
   * The bytes from the peer as a byte stream (BYOB readers work). It ends at the peer's FIN. Cancelling it stops
   * reading and leaves writing open.
   */
  readonly readable: ReadableStream<Uint8Array>;
  /** The bytes to the peer. Closing it is `closeWrite()`, aborting it is `abort()`. */
  readonly writable: WritableStream<Uint8Array>;
  /**
   * Resolves after an orderly end: both directions ended, or our own `close()`. Rejects with the sticky error otherwise.
   */
  readonly closed: Promise<void>;
  /** Bytes given to `write()` that the kernel, or its TLS, does not have yet. */
  readonly queued: number;
  /**
   * Reads the next bytes: a chunk of at least one byte that belongs to the caller, or `null` at the end of the stream.
   * A wait that is ended by `signal` loses nothing: the bytes stay for the next read. Calls are served in order.
   */
  read(options?: ReadOptions): Promise<Uint8Array | null>;
  /**
   * Writes all of `bytes`; resolves when the kernel, or its TLS, has them. Do not change `bytes` until then. Writes are sent in
   * the order of the calls. A write that `signal` ends after its bytes began to leave aborts the connection, since the
   * peer would otherwise see half of it; one that was still queued is taken back.
   */
  write(bytes: Uint8Array, options?: WaitOptions): Promise<void>;
  /** Sends what was written, then FIN; reading stays open (half-close). */
  closeWrite(): Promise<void>;
  /**
   * Sends what was written, then FIN, then throws away what the peer still sends until its own FIN, so that the
   * kernel has no reason to reset the connection under data that is still on its way. Bounded by
   * `flushTimeoutMs` and `lingerMs` of {@linkcode ConnOptions}. Pending reads reject with `closed`.
   */
  close(): Promise<void>;
  /** Gives the connection up at once, with a reset where the runtime can. Every pending call rejects with `aborted`. */
  abort(reason?: unknown): void;
  /** Turns Nagle's algorithm off (`true`, the default of every adapter) or on. No effect on a unix socket. */
  setNoDelay(on?: boolean): void;
  /** Turns TCP keep-alive on or off; a number is the idle time before the first probe, in milliseconds. */
  setKeepAlive(on: boolean | number): void;
  /** The process at the other end of a unix connection; `undefined` where there is none or the runtime cannot tell. */
  peerCredentials(): PeerCredentials | undefined;
}

/** What `close()` may take, also on a connection that is no socket. */
export interface CloseOptions {
  /**
   * How long `close()` may take to hand what was written to the kernel, in milliseconds, 1 to 2147483647; then the connection
   * is aborted and `close()` rejects with `timeout`. @default 30000
   */
  readonly flushTimeoutMs?: number | undefined;
  /** How long `close()` waits for the peer's FIN after ours, in milliseconds, 0 to 2147483647. @default 2000 */
  readonly lingerMs?: number | undefined;
}

/** Options of every connection, connected or accepted. */
export interface ConnOptions extends CloseOptions {
  /** Turns Nagle's algorithm off. @default true */
  readonly noDelay?: boolean | undefined;
  /** TCP keep-alive; a number is the idle time in milliseconds before the first probe. @default false */
  readonly keepAlive?: boolean | number | undefined;
  /**
   * Makes `peerCredentials()` work on a unix connection where that needs another kind of socket (Deno: needs
   * `--allow-ffi`, and costs throughput). @default false
   */
  readonly credentials?: boolean | undefined;
}

/** Certificates, keys and CAs: PEM text. */
export interface TlsOptions {
  /** The CAs to trust, PEM. @default the runtime's own list */
  readonly ca?: string | readonly string[] | undefined;
  /** Our certificate chain, PEM. A listener needs one. */
  readonly cert?: string | undefined;
  /** The private key of `cert`, PEM. */
  readonly key?: string | undefined;
  /** ALPN protocols, the preferred one first, of 1 to 255 bytes each. */
  readonly alpn?: readonly string[] | undefined;
  /** The lowest protocol version. @default "TLSv1.2" */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3" | undefined;
}

/** TLS on a connection that we open. */
export interface TlsConnectOptions extends TlsOptions {
  /** The name for SNI and for the check of the certificate, never empty. @default the hostname of the address */
  readonly serverName?: string | undefined;
  /** Whether the peer's certificate must be valid for `serverName`. @default true */
  readonly verify?: boolean | undefined;
}

/** TLS on connections that we accept. */
export interface TlsListenOptions extends TlsOptions {
  /** Whether a client must show a certificate that `ca` vouches for. @default false */
  readonly requireClientCert?: boolean | undefined;
  /** How long a handshake may take, in milliseconds, 1 to 2147483647; then the client's socket is closed. @default 10000 */
  readonly handshakeTimeoutMs?: number | undefined;
}

/** Options of `connect`. */
export interface ConnectOptions extends ConnOptions, WaitOptions {
  /** Speaks TLS; `true` for the defaults. */
  readonly tls?: TlsConnectOptions | boolean | undefined;
  /** The local IP address to connect from. */
  readonly localAddress?: string | undefined;
}

/** Options of `listen`. */
export interface ListenOptions extends ConnOptions, WaitOptions {
  /** Speaks TLS. */
  readonly tls?: TlsListenOptions | undefined;
  /** Length of the kernel's queue of connections that wait for `accept`; no effect on Bun. @default 511 */
  readonly backlog?: number | undefined;
  /** Lets several processes listen on one port (SO_REUSEPORT). @default false */
  readonly reusePort?: boolean | undefined;
  /** Permission bits of a unix socket file. @default 0o600 */
  readonly mode?: number | undefined;
  /**
   * How many accepted connections may wait for the application; more are closed at once and counted in
   * `Listener.dropped`. Deno's own listeners leave them to the kernel's backlog instead. @default 512
   */
  readonly maxPending?: number | undefined;
}

/** Accepts connections. Iterating it yields each {@linkcode Conn}; the iteration ends when it is closed. */
export interface Listener extends AsyncIterable<Conn>, AsyncDisposable {
  /** Where it listens, with the real port. */
  readonly addr: Address;
  /** Connections that were closed because more than `maxPending` waited, or because their TLS handshake failed. */
  readonly dropped: number;
  /** Resolves after `close()`; rejects with the error that ended it otherwise. */
  readonly closed: Promise<void>;
  /** Waits for the next connection; rejects with `closed` once the listener is closed. */
  accept(options?: WaitOptions): Promise<Conn>;
  /**
   * Takes a new certificate, and all else of `tls`: what is not given is the default again, nothing is left of the options before.
   * Handshakes that begin from here on go by it; connections that exist, and handshakes under way, keep theirs.
   *
   * @throws {ConnectError} `tls` if the PEM is none or `key` does not belong to `cert`, and then all is as before;
   * `unsupported` on a listener that speaks no TLS; `closed`
   */
  reloadTls(tls: TlsListenOptions): void;
  /**
   * Stops listening; resolves when the address is free again. Connections that were accepted live on; those that still waited are
   * closed. A unix socket file is removed only if it is still ours.
   */
  close(): Promise<void>;
}

/** One UDP datagram as it came. */
export interface ReceivedDatagram {
  /** The payload, whole; may be empty. */
  readonly data: Uint8Array;
  /** Who sent it. */
  readonly from: InetAddress;
}

/** Options of `bindDatagram`. */
export interface DatagramOptions extends WaitOptions {
  /** Lets several sockets bind the same address (SO_REUSEADDR; multicast needs it). @default false */
  readonly reuseAddress?: boolean | undefined;
  /** Lets several sockets share one port (SO_REUSEPORT). @default false */
  readonly reusePort?: boolean | undefined;
  /** Datagrams that may wait for `receive()`; more are dropped and counted. @default 1024 */
  readonly maxPending?: number | undefined;
}

/** A UDP socket. Iterating it yields each datagram; the iteration ends when it is closed. */
export interface Datagram extends AsyncIterable<ReceivedDatagram>, AsyncDisposable {
  /** Where it is bound, with the real port. */
  readonly addr: InetAddress;
  /** Datagrams dropped because more than `maxPending` waited. The kernel's own drops are not seen. */
  readonly dropped: number;
  /** Resolves after `close()`; rejects with the error that ended it otherwise. */
  readonly closed: Promise<void>;
  /**
   * Sends one datagram of at most 65507 bytes, in the order of the calls; a host name in `to` is resolved. A send that `close()`
   * overtakes rejects with `closed`.
   */
  send(data: Uint8Array, to: InetAddress | string): Promise<void>;
  /** Waits for the next datagram; rejects with `closed` once the socket is closed. */
  receive(options?: WaitOptions): Promise<ReceivedDatagram>;
  /**
   * Receives what is sent to a multicast group as well, for instance `"239.1.2.3"` or `"ff15::1"`. `iface` is the name of an interface
   * (`"eth0"`) or one of its addresses; an IPv6 group may name it instead (`"ff02::1%eth0"`). Without, the system chooses. Join a
   * socket that is bound to the group's port, at `0.0.0.0` or `::`. To join what is joined already does nothing.
   *
   * @throws {ConnectError} `invalid-address` if it is no multicast address, if this machine has no such interface, or none with an
   * IPv4 address for an IPv4 group; `unsupported` for an IPv4 group at an IPv6 socket on Deno; `permission` on Deno without
   * `--allow-sys=networkInterfaces` where an interface is named; `closed`
   */
  joinMulticast(group: string, iface?: string): void;
  /** Takes back a {@linkcode joinMulticast} with the same group and interface; does nothing if there was none. Closing does so too. */
  leaveMulticast(group: string, iface?: string): void;
  /**
   * By which interface datagrams to multicast groups of the socket's own family leave, where their address names none. By default
   * that is the one whose address the socket is bound to (IPv4), else the system chooses. Errors are those of `joinMulticast`.
   */
  setMulticastInterface(iface: string): void;
  /** Closes the socket. */
  close(): Promise<void>;
}

/** The functions of one adapter, as a value that can be handed to a session. */
export interface Transport {
  /** Opens a connection. */
  connect(address: Address | string, options?: ConnectOptions): Promise<Conn>;
  /** Starts to listen. */
  listen(address: Address | string, options?: ListenOptions): Promise<Listener>;
  /** Binds a UDP socket. */
  bindDatagram(address: InetAddress | string, options?: DatagramOptions): Promise<Datagram>;
}

/** What `wrapConn` takes: the two halves of any byte stream. */
export interface Duplex {
  /** The bytes from the peer. */
  readonly readable: ReadableStream<Uint8Array>;
  /** The bytes to the peer. */
  readonly writable: WritableStream<Uint8Array>;
}
