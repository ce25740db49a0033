/**
 * Calls handlers of a server.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import type { Conn, Duplex, Transport, WaitOptions } from "../adapters/types.ts";
import { Connection } from "./_connection.ts";
import { connectTo } from "./_transport.ts";
import { checkMetadata, MAX_NAME_BYTES, type Metadata } from "./_extension.ts";
import { type ClientOptions, clientSettings } from "./client_options.ts";
import { decodeDescription, DESCRIBE, type ServiceDescription } from "./description.ts";
import { RemoteError } from "./errors.ts";
import { type ClientCall, type ClientInterceptor, intercepted } from "./interceptor.ts";
import { SERVER_DATA, SERVER_ERROR, ServerMsg } from "./message.ts";
import type { MessageStream } from "./stream.ts";

/** Options of a call. What the Go package's messages cannot say takes a server of ours; another one is called without it. */
export interface CallOptions extends WaitOptions {
  /** How long to wait for the answer, in milliseconds; the server is told. @default the client's, of which it is not told */
  readonly timeoutMs?: number | undefined;
  /** Goes with the call. @default none */
  readonly metadata?: Metadata | undefined;
  /** Hears what came with the answer. @default nobody */
  readonly onMetadata?: ((metadata: Metadata) => void) | undefined;
}

/**
 * Options of a stream. `timeoutMs` is for all of it, and there is no default: without it only the opening has a time limit, the client's.
 * `onMetadata` is called at its end.
 */
export type StreamOptions = CallOptions;

/** Options of {@linkcode dialServer}. `signal` ends the wait for the connection. */
export interface DialServerOptions extends ClientOptions, WaitOptions {
  /**
   * Where connections come from, or `unixgram` for a server of the Go package itself: on Deno with `--unstable-net`, and on Bun; there are no
   * streams, deadlines are not told, and answers have at most about 4090 bytes. @default the adapter of the runtime
   */
  readonly transport?: Pick<Transport, "connect"> | "unixgram" | undefined;
  /** Whether a call that finds the connection ended opens another one first; see `redial`. @default false */
  readonly reconnect?: boolean | undefined;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const EMPTY = new Uint8Array();
const NO_OPTIONS: CallOptions = {};
/** How many names of handlers are kept encoded. */
const MAX_NAMES = 256;

/**
 * A connection to a server.
 *
 * 1. Each call settles: with the answer, a {@linkcode RemoteError} for one that is an error, or a {@linkcode UdsError}.
 * 2. Calls run side by side; a large message does not hold up small ones of a server of ours.
 * 3. `closed` resolves after `close()`, and when the server ends the connection in order; otherwise it rejects. It may be ignored. With
 *    `redial` it settles after `close()` alone.
 */
export class Client implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #names = new Map<string, Uint8Array>();
  readonly #interceptors: readonly ClientInterceptor[];

  /**
   * Takes over `duplex`; for a server that has a name there is {@linkcode dialServer}.
   *
   * @throws {RangeError | TypeError} for options that make no sense
   */
  constructor(duplex: Duplex | Conn, options: ClientOptions = {}) {
    this.#interceptors = options.interceptors ?? [];
    this.#connection = new Connection(duplex, clientSettings(options), options.redial);
  }

  /** Settles when the connection has ended. */
  get closed(): Promise<void> {
    return this.#connection.closed;
  }

  /**
   * Calls a handler, and gives its answer, as a view of memory that others share: `slice()` it before its buffer is transferred. `data` must
   * not change before that.
   *
   * @throws {TypeError | RangeError} for what cannot be sent
   * @throws {RemoteError} for an answer that is an error
   * @throws {UdsError} `aborted`, `timeout`, `overloaded`, or what ended the connection
   */
  call(
    handler: string | Uint8Array,
    data: Uint8Array = EMPTY,
    options: CallOptions = NO_OPTIONS,
  ): Promise<Uint8Array> {
    if (this.#interceptors.length === 0) return this.#call(handler, data, options);
    const last = ({ handler, data, options }: ClientCall) => this.#call(handler, data, options);
    return intercepted(this.#interceptors, "call", last)({ handler, data, options });
  }

  /** The same, but gives an answer that is an error as it is: its code, `details` and `metadata` have no place in a message. */
  async callRaw(
    handler: string | Uint8Array,
    data: Uint8Array = EMPTY,
    options: CallOptions = NO_OPTIONS,
  ): Promise<ServerMsg> {
    let id = 0;
    const onId = (it: number) => id = it;
    const last = ({ handler, data, options }: ClientCall) =>
      this.#call(handler, data, options, onId);
    try {
      const answer = await intercepted(this.#interceptors, "call", last)({
        handler,
        data,
        options,
      });
      return new ServerMsg({ id, type: SERVER_DATA, data: answer });
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      const { remoteCode, details, message } = error;
      // Of a plain error they are its text as it came.
      const data = remoteCode === "error" ? details : ENCODER.encode(message);
      return new ServerMsg({ id, type: SERVER_ERROR, data });
    }
  }

  /**
   * Opens a stream to a handler of streams: messages in both directions, each with flow control of its own. The call ends when the
   * handler is done, by cancelling `readable` or aborting `writable`, and by `signal`.
   *
   * @throws {UdsError} `unsupported` by a server that has none; `aborted`, `timeout`, what ended the connection
   */
  async stream(
    handler: string | Uint8Array,
    options: StreamOptions = NO_OPTIONS,
  ): Promise<MessageStream> {
    const last = async ({ handler, options }: ClientCall) => {
      const { signal, timeoutMs, metadata, onMetadata } = options;
      checkOptions(timeoutMs, metadata);
      const name = typeof handler === "string" ? handler : DECODER.decode(handler);
      const bytes = this.#bytesOf(handler);
      const request = { name, handler: bytes, signal, timeoutMs, metadata, onMetadata };
      return await this.#connection.stream(request);
    };
    const call = { handler, data: EMPTY, options };
    return await intercepted(this.#interceptors, "stream", last)(call);
  }

  /**
   * What handlers the server has, if it tells.
   *
   * @throws {RemoteError} `unknown-handler` if its `describe()` was never called; @throws {UdsError} as `call`
   */
  async describe(options: CallOptions = NO_OPTIONS): Promise<ServiceDescription> {
    return decodeDescription(await this.call(DESCRIBE, EMPTY, options));
  }

  #call(
    handler: string | Uint8Array,
    data: Uint8Array,
    { signal, timeoutMs, metadata, onMetadata }: CallOptions,
    onId?: (id: number) => void,
  ): Promise<Uint8Array> {
    try {
      if (!(data instanceof Uint8Array)) throw new TypeError("the data of a call is no bytes");
      const name = typeof handler === "string" ? handler : DECODER.decode(handler);
      const bytes = this.#bytesOf(handler);
      checkOptions(timeoutMs, metadata);
      const more = { signal, timeoutMs, metadata, onMetadata, onId };
      const request = { name, handler: bytes, data, ...more };
      return this.#connection.call(request);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Names are few, and used again. */
  #bytesOf(handler: string | Uint8Array): Uint8Array {
    if (typeof handler !== "string") return checkName(handler);
    const known = this.#names.get(handler);
    if (known !== undefined) return known;
    const bytes = checkName(ENCODER.encode(handler));
    if (this.#names.size >= MAX_NAMES) this.#names.clear();
    this.#names.set(handler, bytes);
    return bytes;
  }

  /** Ends the connection; calls that were not answered reject with `closed`. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checkOptions(timeoutMs: number | undefined, metadata: Metadata | undefined): void {
  if (metadata !== undefined) checkMetadata(metadata);
  if (timeoutMs !== undefined) requireLimit("timeoutMs", timeoutMs);
}

function checkName(name: Uint8Array): Uint8Array {
  if (!(name instanceof Uint8Array)) throw new TypeError("the name of a handler is no text");
  if (name.length <= MAX_NAME_BYTES) return name;
  const text = `a handler's name of ${name.length} bytes, expected at most ${MAX_NAME_BYTES}`;
  throw new RangeError(text);
}

/**
 * Connects to a server: by its name, path or abstract name (see {@linkcode socketAddress}), or over a connection that one has.
 *
 * @throws {ConnectError} if there is no connection
 * @throws {UdsError} `unsupported` for what cannot be had: `peerCred` here, a token over `unixgram`
 */
export async function dialServer(
  server: string | Duplex | Conn,
  options: DialServerOptions = {},
): Promise<Client> {
  const { transport, signal, reconnect = false } = options;
  if (server === undefined || server === null || typeof server === "number") {
    throw new TypeError(`a server that is ${server}, expected a name or a connection`);
  }
  if (typeof server !== "string") {
    if (reconnect || transport !== undefined) {
      throw new TypeError("reconnect and transport are for a server that has a name");
    }
    return new Client(server, options);
  }
  if (reconnect && options.redial !== undefined) {
    throw new TypeError("both reconnect and redial are given");
  }
  const admission = clientSettings(options);
  const connect = (wait: WaitOptions) => connectTo(server, transport, admission, wait);
  const redial = reconnect ? connect : options.redial;
  const extensions = transport === "unixgram" ? false : options.extensions;
  return new Client(await connect({ signal }), { ...options, redial, extensions });
}
