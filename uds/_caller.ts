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
  type Metadata,
  MORE,
  NO_METADATA,
  STREAM,
  TYPE,
} from "./_extension.ts";
import { Greeting } from "./_greeting.ts";
import { Deadlines } from "./_deadlines.ts";
import { Link } from "./_link.ts";
import { Assembly, ReceiveHalf } from "./_receive_half.ts";
import { SendHalf, WINDOW_BYTES } from "./_send_half.ts";
import { CHUNK_BYTES } from "./_sender.ts";
import { admit } from "./admission.ts";
import type { ClientSettings } from "./client_options.ts";
import { abortedError, timeoutError, waited } from "./_wait.ts";
import type { Pending, Request, StreamRequest } from "./_request.ts";
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
const WITH_EXTENSIONS = { extensions: true };
const EMPTY = new Uint8Array();
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
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
  readonly #greeting: Greeting;
  /** Whether we may talk to this server: `undefined` if there is nothing to find out. */
  #admission: PromiseWithResolvers<void> | undefined;
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
    this.#greeting = new Greeting(settings, {
      ready: () => this.#admitted,
      send: (data) => {
        const id = this.#nextId++;
        this.#send(id, CLIENT_DATA, HELLO_NAME, data);
        return id;
      },
      explained: () => this.#settleExplained(),
    });
    if (settings.peerCred !== "off") this.#admit();
    this.#link.read();
    if (settings.token !== undefined) this.#greeting.known();
  }

  /** Whether calls can be made. */
  get usable(): boolean {
    return (this.#end ?? this.#goingAway) === undefined;
  }

  /** Calls a handler. */
  call(request: Request): Promise<Uint8Array> {
    const { name, data } = request;
    const { maxMessage } = this.#settings;
    if (data.length > maxMessage) {
      const text = `${name}: ${data.length} bytes of data, and at most ${maxMessage} go`;
      return Promise.reject(new UdsError("too-large", text));
    }
    const first = this.#before(request);
    return first === undefined ? this.#call(request) : this.#callAfter(first, request);
  }

  /** What has to be known first of the server. */
  #before({ signal, timeoutMs, metadata, onMetadata, data }: Request): Promise<void> | undefined {
    const greeting = this.#greeting;
    if (this.#settings.token !== undefined && greeting.extended !== true) return greeting.known();
    if (greeting.extended !== undefined) return this.#admitted;
    // Another server would not hear of it: so this one has to say that it is another.
    if (metadata !== undefined || onMetadata !== undefined) return greeting.known();
    const better = signal !== undefined || timeoutMs !== undefined || data.length > CHUNK_BYTES;
    return (better ? greeting.soon() : undefined) ?? this.#admitted;
  }

  async #callAfter(first: Promise<void>, request: Request): Promise<Uint8Array> {
    const { name, signal, timeoutMs = this.#settings.timeoutMs } = request;
    const { deadline = performance.now() + timeoutMs } = request;
    await waited(name, first, { signal, deadline });
    return await this.#call({ ...request, deadline });
  }

  /** Opens a stream to a handler of streams. */
  async stream(request: StreamRequest): Promise<MessageStream> {
    const { name, handler, signal, timeoutMs, metadata = NO_METADATA, onMetadata } = request;
    const { deadline: limit = performance.now() + (timeoutMs ?? this.#settings.timeoutMs) } =
      request;
    await waited(name, this.#greeting.known(), { signal, deadline: limit });
    if (this.#greeting.extended !== true) {
      throw new UdsError("unsupported", `${name}: this server knows no streams`);
    }
    this.#check(name, signal);
    const id = this.#nextId++;
    const deadline = timeoutMs === undefined ? Infinity : limit;
    const send = new SendHalf(this.#link.sender, id, EMPTY, WINDOW_BYTES);
    const receive = this.#receive(id);
    const ignore = () => {};
    const settle = settling(ignore, ignore, onMetadata, this.#watch(id, name, signal));
    const rest = { send, receive, stream: true, error: undefined };
    this.#pending.set(id, { name, deadline, ...settle, ...rest });
    const header = encodeCallHeader({
      flags: STREAM,
      timeoutMs: timeoutMs === undefined ? 0 : left(deadline),
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

  /** Ends the connection; what was not answered rejects with `closed`, and so do calls from now on. */
  async close(): Promise<void> {
    const closed = new UdsError("closed", "the client is closed");
    this.#onEnd(undefined, closed);
    this.#end = closed;
    await this.#link.close(CLOSE_MS);
  }

  /** Finds out whether the server is who it should be; ends the connection if it is not. */
  #admit(): void {
    const admission = Promise.withResolvers<void>();
    admission.promise.catch(() => {});
    this.#admission = admission;
    admit(this.#link.conn, this.#settings).then(() => {
      this.#admission = undefined;
      admission.resolve();
    }, (error) => this.#link.fail(error));
  }

  get #admitted(): Promise<void> | undefined {
    return this.#admission?.promise;
  }

  /** What the server has no more to say of. */
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
    const { maxPending, maxBuffered } = this.#settings;
    // Those that were given up are in no table any more, but the server may not have read them.
    const { queued } = this.#link.sender;
    if (this.#pending.size < maxPending && queued <= maxBuffered) return;
    const text =
      `${name}: ${this.#pending.size} calls wait already, and ${queued} bytes to be sent`;
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
    const { deadline = performance.now() + (timeoutMs ?? this.#settings.timeoutMs) } = request;
    const large = data.length > CHUNK_BYTES;
    const extended = this.#greeting.extended === true &&
      (large || timeoutMs !== undefined || metadata !== undefined || onMetadata !== undefined);
    const send = extended && large
      ? new SendHalf(this.#link.sender, id, EMPTY, WINDOW_BYTES)
      : undefined;
    const answer = new Promise<Uint8Array>((resolve, reject) => {
      const settle = signal === undefined && onMetadata === undefined
        ? { resolve, reject }
        : settling(resolve, reject, onMetadata, this.#watch(id, name, signal));
      const rest = { send, receive: undefined, stream: false, error: undefined };
      this.#pending.set(id, { name, deadline, ...settle, ...rest });
    });
    if (extended) {
      const first = send?.take(data) ?? data;
      const header = encodeCallHeader({
        flags: large ? MORE : 0,
        timeoutMs: left(deadline),
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
    if (this.#greeting.extended === true) this.#send(id, TYPE.CANCEL, EMPTY, EMPTY);
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
      else this.#cancel(id, timeoutError(name));
    }
    return next;
  }

  #onMessage(body: Uint8Array): void {
    const message = decodeServerBody(body, WITH_EXTENSIONS);
    const { type, data } = message;
    const id = Number(message.id);
    if (id === this.#greeting.id) return this.#greeting.answer(message);
    const pending = this.#pending.get(id);
    if (type === SERVER_DATA) {
      if (pending !== undefined) this.#onData(id, pending, data);
    } else if (type === SERVER_ERROR) {
      if (pending !== undefined) this.#onPlainError(id, pending, data);
    } else if (type === TYPE.FAILURE ? !this.#greeting.asked : this.#greeting.extended !== true) {
      throw new UdsError("protocol", `a message of the type ${type}, which was not agreed upon`);
    } else this.#onExtension(message, id, pending);
  }

  #onData(id: number, pending: Pending, data: Uint8Array): void {
    // A large answer that could not come in pieces: the next ones should.
    if (data.length > CHUNK_BYTES) this.#greeting.soon();
    requireNoStream(id, pending);
    this.#resolve(id, pending, data, NO_METADATA);
  }

  #resolve(id: number, pending: Pending, data: Uint8Array, metadata: Metadata): void {
    this.#pending.delete(id);
    const { maxMessage } = this.#settings;
    if (data.length <= maxMessage) return pending.resolve(data, metadata);
    const text =
      `${pending.name}: an answer of ${data.length} bytes, and at most ${maxMessage} come`;
    this.#settle(pending, new UdsError("too-large", text));
  }

  /** A server of ours has more to say of it, once it is asked for our extensions. */
  #onPlainError(id: number, pending: Pending, text: Uint8Array): void {
    const error = new RemoteError("error", DECODER.decode(text), { details: text });
    if (this.#greeting.soon() === undefined) this.#settle(this.#take(id)!, error);
    else pending.error = error;
  }

  #onExtension({ type, data }: ServerMsg, id: number, pending: Pending | undefined): void {
    if (type === TYPE.GO_AWAY) return this.#onGoAway(id);
    if (type > TYPE.WINDOW) throw new UdsError("protocol", `a message of the type ${type}`);
    // Of a call that was given up.
    if (pending === undefined) return;
    switch (type) {
      case TYPE.FAILURE: {
        const [{ code, message, metadata }, details] = decodeFailure(data);
        const error = this.#errorOf(pending, new RemoteError(code, message, { details, metadata }));
        // What came before it can still be read.
        pending.receive?.failAtEnd(error);
        return this.#settle(this.#take(id)!, error);
      }
      case TYPE.REPLY: {
        const [{ flags, metadata }, rest] = decodeReply(data);
        requireNoStream(id, pending);
        if ((flags & MORE) === 0) return this.#resolve(id, pending, rest, metadata);
        const receive = this.#receive(id);
        pending.receive = receive;
        receive.read().then((whole) => {
          this.#pending.delete(id);
          pending.resolve(whole!, metadata);
        }, () => {});
        return this.#push(id, receive, rest, true);
      }
      case TYPE.CHUNK: {
        const [more, rest] = decodeChunk(data);
        if (pending.receive === undefined) {
          throw new UdsError("protocol", `call ${id}: a piece of nothing`);
        }
        return this.#push(id, pending.receive, rest, more);
      }
      case TYPE.END: {
        const [{ metadata }] = decodeReply(data);
        if (!pending.stream) throw new UdsError("protocol", `call ${id}: the end of no stream`);
        // Fails in the middle of a message: then the call ends with the connection.
        pending.receive?.end();
        this.#pending.delete(id);
        pending.send?.fail(
          new UdsError("closed", `${pending.name}: the server has ended the call`),
        );
        return pending.resolve(EMPTY, metadata);
      }
      case TYPE.WINDOW:
        return pending.send?.grant(decodeWindow(data));
    }
  }

  /** A message that is too large ends its call alone. */
  #push(id: number, receive: ReceiveHalf, part: Uint8Array, more: boolean): void {
    const error = receive.push(part, more);
    if (error !== undefined) this.#cancel(id, error);
  }

  /** What the server says of the client's own limits has the codes of the client. */
  #errorOf({ name }: Pending, error: RemoteError): UdsError {
    if (error.remoteCode === "deadline") return timeoutError(name, error);
    if (error.remoteCode !== "unauthorized" || this.#greeting.extended) return error;
    return new UdsError("unauthorized", `the server said: ${error.message}`, { cause: error });
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
    this.#greeting.end(this.#end);
    this.#admission?.reject(this.#end);
    for (const pending of this.#pending.values()) {
      this.#settle(pending, pending.error ?? this.#end);
    }
    this.#pending.clear();
    if (error === undefined) this.#closed.resolve();
    else this.#closed.reject(error);
  }
}

/** How long a call may still take, in milliseconds, as it is told. */
function left(deadline: number): number {
  return Math.max(1, Math.ceil(deadline - performance.now()));
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
