/**
 * Calls handlers of a server.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import { requireLimit } from "../adapters/limits.ts";
import type { Conn, Duplex, Transport, WaitOptions } from "../adapters/types.ts";
import { Caller, type Reply } from "./_caller.ts";
import { checkMetadata, type Metadata } from "./_extension.ts";
import { type ClientOptions, clientSettings } from "./client_options.ts";
import { RemoteError } from "./errors.ts";
import { SERVER_DATA, SERVER_ERROR, ServerMsg } from "./message.ts";
import { socketAddress } from "./name.ts";
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

/** Options of {@linkcode dialServer}. `signal` ends the wait for the connection. */
export interface DialServerOptions extends ClientOptions, WaitOptions {
  /** Where connections come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "connect"> | undefined;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();
/** How many names of handlers are kept encoded. */
const MAX_NAMES = 256;

/**
 * A connection to a server.
 *
 * 1. Each call settles: with the answer, a {@linkcode RemoteError} for one that is an error, or a {@linkcode UdsError}.
 * 2. Calls run side by side; a large message does not hold up small ones of a server of ours.
 * 3. `closed` resolves after `close()`, and when the server ends the connection in order; otherwise it rejects. It may be ignored.
 */
export class Client implements AsyncDisposable {
  readonly #caller: Caller;
  readonly #names = new Map<string, Uint8Array>();

  /** Takes over `duplex`. @throws {RangeError} if a limit is not positive */
  constructor(duplex: Duplex | Conn, options: ClientOptions = {}) {
    this.#caller = new Caller(duplex, clientSettings(options));
  }

  /** Settles when the connection has ended. */
  get closed(): Promise<void> {
    return this.#caller.closed;
  }

  /**
   * Calls a handler, and gives its answer.
   *
   * @throws {RemoteError} for an answer that is an error
   * @throws {UdsError} `aborted`, `timeout`, `overloaded`, or what ended the connection
   */
  async call(
    handler: string | Uint8Array,
    data: Uint8Array = new Uint8Array(),
    options: CallOptions = {},
  ): Promise<Uint8Array> {
    return (await this.#call(handler, data, options)).data;
  }

  /**
   * Opens a stream to a handler of streams: messages in both directions, each with flow control of its own. The call ends when the
   * handler is done, by cancelling `readable` or aborting `writable`, and by `signal`.
   *
   * @throws {UdsError} `unsupported` by a server that has none; `aborted`, `timeout`, what ended the connection
   */
  stream(
    handler: string | Uint8Array,
    { signal, timeoutMs, metadata }: Omit<CallOptions, "onMetadata"> = {},
  ): Promise<MessageStream> {
    if (metadata !== undefined) checkMetadata(metadata);
    if (timeoutMs !== undefined) requireLimit("timeoutMs", timeoutMs);
    const name = typeof handler === "string" ? handler : DECODER.decode(handler);
    const bytes = typeof handler === "string" ? this.#nameOf(handler) : handler;
    return this.#caller.stream({ name, handler: bytes, signal, timeoutMs, metadata });
  }

  /** The same, but gives an answer that is an error as it is. */
  async callRaw(
    handler: string | Uint8Array,
    data: Uint8Array = new Uint8Array(),
    options: CallOptions = {},
  ): Promise<ServerMsg> {
    try {
      return new ServerMsg({ type: SERVER_DATA, data: await this.call(handler, data, options) });
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      return new ServerMsg({ type: SERVER_ERROR, data: ENCODER.encode(error.message) });
    }
  }

  async #call(
    handler: string | Uint8Array,
    data: Uint8Array,
    { onMetadata, metadata, signal, timeoutMs }: CallOptions,
  ): Promise<Reply> {
    if (metadata !== undefined) checkMetadata(metadata);
    if (timeoutMs !== undefined) requireLimit("timeoutMs", timeoutMs);
    const name = typeof handler === "string" ? handler : DECODER.decode(handler);
    const bytes = typeof handler === "string" ? this.#nameOf(handler) : handler;
    const reply = await this.#caller.call({
      name,
      handler: bytes,
      data,
      signal,
      timeoutMs,
      metadata,
    });
    onMetadata?.(reply.metadata);
    return reply;
  }

  /** Names are few, and used again. */
  #nameOf(handler: string): Uint8Array {
    const known = this.#names.get(handler);
    if (known !== undefined) return known;
    const bytes = ENCODER.encode(handler);
    if (this.#names.size >= MAX_NAMES) this.#names.clear();
    this.#names.set(handler, bytes);
    return bytes;
  }

  /** Ends the connection; calls that were not answered reject with `closed`. */
  close(): Promise<void> {
    return this.#caller.close();
  }

  /** The same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Connects to a server: by its name, path or abstract name (see {@linkcode socketAddress}), or over a connection that one has.
 *
 * @throws {ConnectError} if there is no connection
 */
export async function dialServer(
  server: string | Duplex | Conn,
  options: DialServerOptions = {},
): Promise<Client> {
  if (typeof server !== "string") return new Client(server, options);
  clientSettings(options);
  const { transport = auto, signal } = options;
  return new Client(await transport.connect(await socketAddress(server), { signal }), options);
}
