/**
 * The client's side of one connection.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import {
  decodeChunk,
  decodeFailure,
  decodeReply,
  decodeWindow,
  encodeCallHeader,
  HELLO,
  MORE,
  NO_METADATA,
  STREAM,
  TYPE,
} from "./_extension.ts";
import { Deadlines } from "./_deadlines.ts";
import { decodeServerHello, encodeClientHello } from "./_hello.ts";
import { Link } from "./_link.ts";
import { Assembly, ReceiveHalf } from "./_receive_half.ts";
import { SendHalf, WINDOW_BYTES } from "./_send_half.ts";
import { CHUNK_BYTES } from "./_sender.ts";
import { admit } from "./admission.ts";
import type { ClientSettings } from "./client_options.ts";
import { abortedError, waited } from "./_wait.ts";
import type { Hello, Pending, Request, StreamRequest } from "./_request.ts";
import { RemoteError, UdsError } from "./errors.ts";
import { type MessageStream, messageStream } from "./stream.ts";
import {
  CLIENT_DATA,
  CLIENT_KEEP_ALIVE,
  decodeServerBody,
  SERVER_DATA,
  SERVER_ERROR,
  type ServerMsg,
} from "./message.ts";

/** How long what is queued may take to leave at the end: nobody waits for the answers. */
const CLOSE_MS = 1000;
const EMPTY = new Uint8Array();
const DECODER = new TextDecoder();
const HELLO_NAME = new TextEncoder().encode(HELLO);

/** One for each connection. */
export class Caller {
  /** Settles with the end; resolves if that was in order. */
  readonly closed: Promise<void>;
  readonly #closed = Promise.withResolvers<void>();
  readonly #link: Link;
  readonly #settings: ClientSettings;
  readonly #assembly: Assembly;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;
  /** Whether the server knows our extensions; `undefined` before it has said so. */
  #extended: boolean | undefined;
  #greeting: Promise<void> | undefined;
  #hello: Hello | undefined;
  /** Whether we may talk to this server: `undefined` if there is nothing to find out. */
  #admitted: Promise<void> | undefined;
  readonly #deadlines = new Deadlines((now) => this.#expire(now));
  #keepAlive: ReturnType<typeof setInterval> | undefined;
  /** Why no more calls are made. */
  #end: UdsError | undefined;
  /** The same, while answers still come. */
  #goingAway: UdsError | undefined;

  constructor(duplex: Duplex | Conn, settings: ClientSettings) {
    this.#settings = settings;
    this.#assembly = new Assembly(settings.maxBuffered);
    this.closed = this.#closed.promise;
    this.closed.catch(() => {});
    this.#link = new Link(duplex, settings.maxMessage, {
      onMessage: (body) => this.#onMessage(body),
      onEnd: (error) => this.#onEnd(error),
    });
    this.#keepAlive = setInterval(() => {
      this.#send(0, CLIENT_KEEP_ALIVE, EMPTY, EMPTY);
    }, settings.keepAliveMs);
    if (!settings.extensions) this.#extended = false;
    if (settings.peerCred !== "off") this.#admitted = this.#admit();
    this.#link.read();
    if (settings.token !== undefined) this.#greet().catch(() => {});
  }

  /** Whether calls can be made. */
  get usable(): boolean {
    return (this.#end ?? this.#goingAway) === undefined;
  }

  /** Calls a handler. */
  call(request: Request): Promise<Uint8Array> {
    const { signal, timeoutMs, metadata, data } = request;
    // What Go's messages cannot say: then the server is asked first whether it knows more.
    const extension = signal !== undefined || timeoutMs !== undefined || metadata !== undefined ||
      request.onMetadata !== undefined || data.length > CHUNK_BYTES ||
      this.#settings.token !== undefined;
    const { maxMessage } = this.#settings;
    if (data.length > maxMessage) {
      const text = `${request.name}: ${data.length} bytes of data, and at most ${maxMessage} go`;
      return Promise.reject(new UdsError("too-large", text));
    }
    const first = extension && this.#extended === undefined ? this.#greet() : this.#admitted;
    return first === undefined ? this.#call(request) : this.#callAfter(first, request);
  }

  async #callAfter(first: Promise<void>, request: Request): Promise<Uint8Array> {
    const { name, signal, timeoutMs = this.#settings.timeoutMs } = request;
    const began = performance.now();
    await waited(name, first, { signal, timeoutMs });
    if (request.timeoutMs === undefined) return await this.#call(request);
    const left = timeoutMs - (performance.now() - began);
    return await this.#call({ ...request, timeoutMs: Math.max(1, left) });
  }

  /** Opens a stream to a handler of streams. */
  async stream(request: StreamRequest): Promise<MessageStream> {
    const { name, handler, signal, timeoutMs, metadata = NO_METADATA } = request;
    await waited(name, this.#greet(), {
      signal,
      timeoutMs: timeoutMs ?? this.#settings.timeoutMs,
    });
    if (this.#extended !== true) {
      throw new UdsError("unsupported", `${name}: this server knows no streams`);
    }
    this.#check(name, signal);
    const id = this.#nextId++;
    const deadline = timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;
    const send = new SendHalf(this.#link.sender, id, EMPTY, WINDOW_BYTES);
    const receive = this.#receive(id);
    const done = this.#watch(id, name, signal);
    const settle = { resolve: done, reject: done };
    this.#pending.set(id, { name, deadline, ...settle, send, receive, error: undefined });
    const header = encodeCallHeader({
      flags: STREAM,
      timeoutMs: Math.ceil(timeoutMs ?? 0),
      window: WINDOW_BYTES,
      metadata,
    });
    this.#link.sender.send({ id, type: TYPE.CALL, handler, header, data: EMPTY });
    this.#deadlines.arm(deadline);
    const giveUp = (cause: unknown) => {
      this.#cancel(id, new UdsError("aborted", `${name}: the stream was given up`, { cause }));
    };
    return messageStream(send, receive, this.#settings.maxMessage, {
      cancel: giveUp,
      abort: giveUp,
      end: () => send.end(EMPTY),
    });
  }

  /** Ends the connection; what was not answered rejects with `closed`. */
  async close(): Promise<void> {
    this.#onEnd(undefined, new UdsError("closed", "the client is closed"));
    await this.#link.close(CLOSE_MS);
  }

  /** Finds out whether the server is who it should be; ends the connection if it is not. */
  #admit(): Promise<void> {
    const admitted = admit(this.#link.conn, this.#settings).then(() => {
      this.#admitted = undefined;
    }, (error) => {
      this.#link.fail(error);
      throw error;
    });
    admitted.catch(() => {});
    return admitted;
  }

  /** Asks the server for our extensions, once. */
  #greet(): Promise<void> {
    return this.#greeting ??= this.#doGreet();
  }

  async #doGreet(): Promise<void> {
    await this.#admitted;
    const token = await this.#token();
    if (this.#end !== undefined) throw this.#end;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const hello = this.#hello = { id: this.#nextId++, token, resolve, reject };
    this.#send(hello.id, CLIENT_DATA, HELLO_NAME, encodeClientHello({ token }));
    // With a token nothing can be said before.
    if (token !== undefined) return await promise;
    const timer = setTimeout(() => {
      // It may still say so.
      this.#extended ??= false;
      this.#settleExplained();
      resolve();
    }, this.#settings.helloTimeoutMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A server that knows no such handler says so, or nothing. */
  #onHello({ token, resolve, reject }: Hello, { type, data }: ServerMsg): void {
    this.#hello!.id = -1;
    this.#extended = type === SERVER_DATA && decodeServerHello(data).extensions;
    this.#settleExplained();
    if (type === TYPE.FAILURE) {
      const [{ code, message }] = decodeFailure(data);
      if (code === "unauthorized") {
        return reject(new UdsError("unauthorized", `the server said: ${message}`));
      }
    }
    if (this.#extended || token === undefined) return resolve();
    reject(new UdsError("unauthorized", "the server takes no token"));
  }

  async #token(): Promise<string | undefined> {
    try {
      return await this.#settings.token?.();
    } catch (cause) {
      throw new UdsError("unauthorized", "there is no token", { cause });
    }
  }

  /** What the server had no more to say of. */
  #settleExplained(): void {
    for (const [id, { error }] of this.#pending) {
      if (error !== undefined) this.#settle(this.#take(id)!, error);
    }
  }

  /** @throws {UdsError} why no call can be made */
  #check(name: string, signal: AbortSignal | undefined): void {
    const end = this.#end ?? this.#goingAway;
    if (end !== undefined) throw end;
    if (signal?.aborted) throw abortedError(name, signal);
    if (this.#pending.size < this.#settings.maxPending) return;
    const text = `${name}: ${this.#pending.size} calls wait for an answer already`;
    throw new UdsError("overloaded", text);
  }

  #call(request: Request): Promise<Uint8Array> {
    const { name, handler, data, signal, timeoutMs, metadata, onMetadata, onId } = request;
    try {
      this.#check(name, signal);
    } catch (error) {
      return Promise.reject(error);
    }
    const id = this.#nextId++;
    onId?.(id);
    const wait = timeoutMs ?? this.#settings.timeoutMs;
    const deadline = performance.now() + wait;
    const large = data.length > CHUNK_BYTES;
    const extended = this.#extended === true &&
      (large || timeoutMs !== undefined || metadata !== undefined || onMetadata !== undefined);
    const send = extended && large
      ? new SendHalf(this.#link.sender, id, EMPTY, WINDOW_BYTES)
      : undefined;
    const answer = new Promise<Uint8Array>((resolve, reject) => {
      const settle = signal === undefined && onMetadata === undefined
        ? { resolve, reject }
        : settling(resolve, reject, onMetadata, this.#watch(id, name, signal));
      const pending = { name, deadline, ...settle, send, receive: undefined, error: undefined };
      this.#pending.set(id, pending);
    });
    if (extended) {
      const first = send?.take(data) ?? data;
      const header = encodeCallHeader({
        flags: large ? MORE : 0,
        timeoutMs: Math.ceil(wait),
        window: WINDOW_BYTES,
        metadata: metadata ?? NO_METADATA,
      });
      this.#link.sender.send({ id, type: TYPE.CALL, handler, header, data: first });
      send?.write(data.subarray(first.length)).catch(() => {});
    } else this.#send(id, CLIENT_DATA, handler, data);
    this.#deadlines.arm(deadline);
    return answer;
  }

  #send(id: number, type: number, handler: Uint8Array, data: Uint8Array): void {
    this.#link.sender.send({ id, type, handler, data });
  }

  #receive(id: number): ReceiveHalf {
    return new ReceiveHalf(this.#link.sender, id, EMPTY, {
      maxMessage: this.#settings.maxMessage,
      assembly: this.#assembly,
    });
  }

  /** Has `signal` give up a call; gives what lets go of it. */
  #watch(id: number, name: string, signal: AbortSignal | undefined): () => void {
    const onAbort = () => this.#cancel(id, abortedError(name, signal!));
    signal?.addEventListener("abort", onAbort, { once: true });
    return () => signal?.removeEventListener("abort", onAbort);
  }

  /** Gives up a call, and tells the server. */
  #cancel(id: number, error: Error): void {
    const pending = this.#take(id);
    if (pending === undefined) return;
    this.#settle(pending, error);
    if (this.#extended === true) this.#send(id, TYPE.CANCEL, EMPTY, EMPTY);
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #settle(pending: Pending, error: Error): void {
    pending.send?.fail(error);
    pending.receive?.fail(error);
    pending.reject(error);
  }

  /** Gives the next deadline. */
  #expire(now: number): number {
    let next = Infinity;
    for (const [id, { name, deadline }] of this.#pending) {
      if (deadline > now) next = Math.min(next, deadline);
      else this.#cancel(id, new UdsError("timeout", `${name}: no answer in time`));
    }
    return next;
  }

  #onMessage(body: Uint8Array): void {
    const message = decodeServerBody(body, { extensions: true });
    const { type, data } = message;
    const id = Number(message.id);
    if (id === this.#hello?.id) return this.#onHello(this.#hello, message);
    const pending = this.#pending.get(id);
    if (type === SERVER_DATA) {
      if (pending !== undefined) this.#onData(id, pending, data);
    } else if (type === SERVER_ERROR) {
      if (pending !== undefined) this.#onPlainError(id, pending, data);
    } else if (type === TYPE.FAILURE ? this.#hello === undefined : this.#extended !== true) {
      throw new UdsError("protocol", `a message of the type ${type}, which was not agreed upon`);
    } else this.#onExtension(message, id, pending);
  }

  #onData(id: number, pending: Pending, data: Uint8Array): void {
    // A large answer that could not come in pieces: the next ones should.
    if (data.length > CHUNK_BYTES && this.#extended === undefined) this.#greet().catch(() => {});
    requireNoStream(id, pending);
    this.#pending.delete(id);
    if (data.length <= this.#settings.maxMessage) {
      return pending.resolve(data, NO_METADATA);
    }
    const { maxMessage } = this.#settings;
    const text =
      `${pending.name}: an answer of ${data.length} bytes, and at most ${maxMessage} come`;
    this.#settle(pending, new UdsError("too-large", text));
  }

  /** A server of ours has more to say of it, once it is asked for our extensions. */
  #onPlainError(id: number, pending: Pending, text: Uint8Array): void {
    const error = new RemoteError("error", DECODER.decode(text), { details: text });
    if (this.#extended !== undefined) {
      this.#settle(this.#take(id)!, error);
      return;
    }
    pending.error = error;
    this.#greet().catch(() => {});
  }

  #onExtension({ type, data }: ServerMsg, id: number, pending: Pending | undefined): void {
    if (type === TYPE.GO_AWAY) return this.#onGoAway(id);
    // Of a call that was given up.
    if (pending === undefined) return;
    switch (type) {
      case TYPE.FAILURE: {
        const [{ code, message, metadata }, details] = decodeFailure(data);
        const error = new RemoteError(code, message, { details, metadata });
        // What came before it can still be read.
        pending.receive?.failAtEnd(error);
        return this.#settle(this.#take(id)!, error);
      }
      case TYPE.REPLY: {
        const [{ flags, metadata }, rest] = decodeReply(data);
        requireNoStream(id, pending);
        if ((flags & MORE) === 0) {
          this.#pending.delete(id);
          return pending.resolve(rest, metadata);
        }
        const receive = this.#receive(id);
        pending.receive = receive;
        receive.read().then((whole) => {
          this.#pending.delete(id);
          pending.resolve(whole!, metadata);
        }, () => {});
        return receive.push(rest, true);
      }
      case TYPE.CHUNK: {
        const [more, rest] = decodeChunk(data);
        if (pending.receive === undefined) {
          throw new UdsError("protocol", `call ${id}: a piece of nothing`);
        }
        return pending.receive.push(rest, more);
      }
      case TYPE.END: {
        const [{ metadata }] = decodeReply(data);
        this.#pending.delete(id);
        pending.receive?.end();
        pending.send?.fail(
          new UdsError("closed", `${pending.name}: the server has ended the call`),
        );
        return pending.resolve(EMPTY, metadata);
      }
      case TYPE.WINDOW:
        return pending.send?.grant(decodeWindow(data));
      default:
        throw new UdsError("protocol", `a message of the type ${type}`);
    }
  }

  /** Calls from `id` on were not begun. */
  #onGoAway(id: number): void {
    this.#goingAway = new UdsError("disconnected", "the server is closing");
    for (const other of [...this.#pending.keys()]) {
      const pending = other >= id ? this.#take(other) : undefined;
      if (pending !== undefined) this.#settle(pending, this.#goingAway);
    }
  }

  #onEnd(error: UdsError | undefined, own?: UdsError): void {
    if (this.#end !== undefined) return;
    this.#end = own ?? error ??
      new UdsError("disconnected", "the server has closed the connection");
    this.#deadlines.stop();
    clearInterval(this.#keepAlive);
    this.#hello?.reject(this.#end);
    for (const pending of this.#pending.values()) {
      this.#settle(pending, pending.error ?? this.#end);
    }
    this.#pending.clear();
    if (error === undefined) this.#closed.resolve();
    else this.#closed.reject(error);
  }
}

/** Lets go of the signal first, and tells what came with the answer. */
function settling(
  resolve: (data: Uint8Array) => void,
  reject: (error: unknown) => void,
  onMetadata: Request["onMetadata"],
  done: () => void,
): Pick<Pending, "resolve" | "reject"> {
  return {
    resolve(data, metadata) {
      done();
      try {
        onMetadata?.(metadata);
      } catch (error) {
        return reject(error);
      }
      resolve(data);
    },
    reject(error) {
      done();
      reject(error);
    },
  };
}

/** An answer in one piece, or the first piece of one. @throws {UdsError} `protocol` */
function requireNoStream(id: number, { receive }: Pending): void {
  if (receive === undefined) return;
  throw new UdsError("protocol", `call ${id}: an answer in one message where there are several`);
}
