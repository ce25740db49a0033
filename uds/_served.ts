/**
 * The server's side of one connection.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import {
  checkMetadata,
  decodeCall,
  decodeChunk,
  decodeWindow,
  encodeFailure,
  encodeReplyHeader,
  type Failure,
  HELLO,
  MAX_NAME_BYTES,
  type Metadata,
  MORE,
  NO_METADATA,
  PIECE_BYTES,
  STREAM,
  TYPE,
} from "./_extension.ts";
import { Deadlines } from "./_deadlines.ts";
import { Names } from "./_names.ts";
import { Gate } from "./_gate.ts";
import { decodeClientHello, encodeServerHello } from "./_hello.ts";
import { Open } from "./_open.ts";
import { Link } from "./_link.ts";
import { Assembly, ReceiveHalf } from "./_receive_half.ts";
import { CHUNK_BYTES } from "./_sender.ts";
import { SendHalf, WINDOW_BYTES } from "./_send_half.ts";
import type { Uint } from "./_uvarint.ts";
import { Context, type HandlerAnswer, type Registered, type StreamHandler } from "./context.ts";
import { dataOf, isPlain, isThenable, plainError, requireSize, textOf } from "./_answer.ts";
import { RemoteError, UdsError } from "./errors.ts";
import { Explanations } from "./_explanations.ts";
import {
  CLIENT_DATA,
  CLIENT_KEEP_ALIVE,
  ClientMsg,
  decodeClientBody,
  SERVER_DATA,
  SERVER_ERROR,
  ServerMsg,
} from "./message.ts";
import { kept } from "./decoder.ts";
import { messageStream } from "./stream.ts";
import type { ServerSettings } from "./server_options.ts";

/** The last answers have at least this time to leave. */
const LEAST_CLOSE_MS = 1000;
const EMPTY = new Uint8Array();
const OVER = new UdsError("closed", "the call is over");

/** One for each client. */
export class Served {
  /** Resolves with the end. */
  readonly closed: Promise<void>;
  readonly #closed = Promise.withResolvers<void>();
  readonly #link: Link;
  readonly #settings: ServerSettings;
  readonly #handlers: ReadonlyMap<string, Registered>;
  readonly #assembly: Assembly;
  readonly #deadlines = new Deadlines((now) => this.#expire(now));
  readonly #names = new Names();
  /** Of requests that wait. */
  #queuedBytes = 0;
  /** Of answers whose callers do not take them yet. */
  #answerBytes = 0;
  readonly #open = new Map<Uint, Open>();
  readonly #queue = new Map<Uint, Open>();
  readonly #gate: Gate;
  readonly #explanations = new Explanations();
  #running = 0;
  /** Of requests that are handled. */
  #runningBytes = 0;
  #starting = false;
  #waiting = false;
  #greeted = false;
  #draining = false;
  #idle: ReturnType<typeof setTimeout> | undefined;
  /** The highest id that was begun. */
  #lastId: Uint = -1;
  #whenDone: (() => void)[] = [];

  constructor(
    duplex: Duplex | Conn,
    handlers: ReadonlyMap<string, Registered>,
    settings: ServerSettings,
  ) {
    this.#handlers = handlers;
    this.#settings = settings;
    this.#assembly = new Assembly(settings.maxBuffered);
    this.closed = this.#closed.promise;
    this.#link = new Link(duplex, settings.maxMessage, {
      onMessage: (body) => this.#onMessage(body),
      onEnd: (error) => this.#onEnd(error),
      // A client that does not read its answers is not read, either.
      busy: () => this.#busy(),
    }, { asGo: !settings.extensions });
    this.#gate = new Gate(settings, () => this.#link.close());
    this.#watchIdle();
    this.#meet();
  }

  /** Gives when it may go on with its calls. */
  #busy(): Promise<void> | undefined {
    return this.#link.sender.unread ? this.#link.sender.read() : undefined;
  }

  /** Nothing is read of a client before it is known who it is. */
  async #meet(): Promise<void> {
    await this.#gate.meet(this.#link.conn);
    await this.#link.read();
  }

  /** Takes no more calls; resolves when those that were begun are answered, or after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    if (!this.#draining) {
      this.#draining = true;
      if (this.#greeted) {
        this.#link.sender.send({
          id: typeof this.#lastId === "bigint" ? this.#lastId + 1n : this.#lastId + 1,
          type: TYPE.GO_AWAY,
          data: EMPTY,
        });
      }
    }
    if (this.#open.size > 0 && graceMs > 0) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const done = new Promise<void>((resolve) => this.#whenDone.push(resolve));
      const late = new Promise<void>((resolve) => timer = setTimeout(resolve, graceMs));
      await Promise.race([done, late, this.closed]);
      clearTimeout(timer);
    }
    const error = new RemoteError("closing", "the server is closing");
    for (const open of [...this.#open.values()]) this.#end(open, error);
    await this.#link.close(Math.max(graceMs, LEAST_CLOSE_MS));
  }

  #onMessage(body: Uint8Array): void {
    const message = decodeClientBody(body, this.#settings);
    const { length } = message.handlerBytes;
    if (length > MAX_NAME_BYTES) throw new UdsError("protocol", `a name of ${length} bytes`);
    switch (message.type) {
      case CLIENT_KEEP_ALIVE:
        return;
      case CLIENT_DATA:
        return this.#onPlainCall(message);
      default:
        if (!this.#greeted) {
          const text = `a message of the type ${message.type} before ${HELLO}`;
          throw new UdsError("protocol", text);
        }
        this.#onExtension(message);
    }
  }

  #onPlainCall(message: ClientMsg): void {
    const name = this.#names.textOf(message.handlerBytes);
    if (this.#settings.extensions && name === HELLO) return this.#onHello(message);
    const window = this.#greeted ? WINDOW_BYTES : Infinity;
    const context = new Context(name, this.#gate.peer);
    this.#begin(new Open(message, context, { plain: true, window, timeoutMs: 0 }));
  }

  #onHello({ id, data }: ClientMsg): void {
    const { token } = decodeClientHello(data);
    for (const [failed, failure] of this.#explanations.take()) this.#sendFailure(failed, failure);
    if (this.#gate.refusal === undefined) return this.#greet(id);
    this.#gate.prove(token).then((refusal) => {
      if (refusal === undefined) return this.#greet(id);
      this.#sendFailure(id, encodeFailure(refusal));
      this.#link.close();
    }, (error) => this.#link.fail(error));
  }

  #greet(id: Uint): void {
    this.#greeted = true;
    this.#send(id, SERVER_DATA, encodeServerHello());
  }

  #onExtension(message: ClientMsg): void {
    const { id, type, data } = message;
    if (type === TYPE.CALL) return this.#onCall(message);
    if (type > TYPE.WINDOW) throw new UdsError("protocol", `a message of the type ${type}`);
    const open = this.#open.get(id);
    // Of a call that has been answered, or cancelled.
    if (open === undefined) return;
    switch (type) {
      case TYPE.CANCEL:
        return this.#finish(open, new UdsError("aborted", "the caller gave up"));
      case TYPE.CHUNK: {
        const [more, rest] = decodeChunk(data);
        if (open.receive === undefined) {
          throw new UdsError("protocol", `call ${id}: a piece of nothing`);
        }
        return this.#push(open, open.receive, rest, more);
      }
      case TYPE.END:
        return open.receive?.end();
      case TYPE.WINDOW:
        return open.send?.grant(decodeWindow(data));
    }
  }

  #onCall({ id, handlerBytes, data }: ClientMsg): void {
    const [{ flags, timeoutMs, window, metadata }, rest] = decodeCall(data);
    const name = this.#names.textOf(handlerBytes);
    const deadline = timeoutMs === 0 ? undefined : Date.now() + timeoutMs;
    const context = new Context(name, this.#gate.peer, metadata, deadline);
    const make = (data: Uint8Array) => new ClientMsg({ id, handler: handlerBytes, data });
    const coming = { plain: false, window, timeoutMs };
    if (flags === 0) return this.#begin(new Open(make(rest), context, coming));
    const receive = new ReceiveHalf(this.#link.sender, id, undefined, {
      maxMessage: this.#settings.maxMessage,
      assembly: this.#assembly,
    });
    if (flags === STREAM) {
      const send = new SendHalf(this.#link.sender, id, undefined, window);
      return this.#begin(new Open(make(EMPTY), context, { ...coming, receive, send }));
    }
    const partial = new Open(make(EMPTY), context, { ...coming, receive });
    // What else comes of a call that is refused, nobody has asked for.
    if (!this.#admit(partial)) return;
    receive.read().then((whole) => {
      if (this.#open.get(id) !== partial) return;
      partial.request = make(whole!);
      this.#start(partial);
    }, () => {});
    this.#push(partial, receive, rest, true);
  }

  /** A message that is too large ends its call alone. */
  #push(open: Open, receive: ReceiveHalf, part: Uint8Array, more: boolean): void {
    const error = receive.push(part, more);
    if (error !== undefined) this.#end(open, new RemoteError("too-large", error.message));
  }

  #begin(open: Open): void {
    if (!this.#admit(open)) return;
    const { length } = open.request.data;
    if (length <= this.#settings.maxMessage) return this.#start(open);
    const text = `a request of ${length} bytes, and at most ${this.#settings.maxMessage} come`;
    this.#end(open, new RemoteError("too-large", text));
  }

  /** False if it is refused. */
  #admit(open: Open): boolean {
    const { id } = open.request;
    if (this.#open.has(id)) throw new UdsError("protocol", `call ${id} a second time`);
    const refusal = this.#gate.refusal ?? this.#overload();
    if (refusal !== undefined) {
      this.#answerError(open, refusal);
      return false;
    }
    if (id > this.#lastId) this.#lastId = id;
    this.#explanations.forget(id);
    this.#open.set(id, open);
    this.#deadlines.arm(open.deadline);
    return true;
  }

  /** Gives the next deadline. */
  #expire(now: number): number {
    let next = Infinity;
    for (const open of [...this.#open.values()]) {
      if (open.deadline > now) next = Math.min(next, open.deadline);
      else this.#end(open, new RemoteError("deadline", "no answer before the deadline"));
    }
    return next;
  }

  /** Answers a call in the place of its handler, which is told. */
  #end(open: Open, error: RemoteError): void {
    if (this.#open.get(open.request.id) !== open) return;
    this.#answerError(open, error);
    this.#finish(open, error);
  }

  #overload(): RemoteError | undefined {
    if (this.#draining) return new RemoteError("closing", "the server is closing");
    const { maxConcurrent, maxQueued } = this.#settings;
    if (this.#open.size < maxConcurrent + maxQueued) return undefined;
    return new RemoteError("overloaded", `${this.#open.size} calls are open already`);
  }

  #start(open: Open): void {
    if (this.#queue.size === 0 && !this.#waits()) return this.#run(open);
    const { id, handlerBytes, data } = open.request;
    open.request = new ClientMsg({ id, handler: kept(handlerBytes), data: kept(data) });
    this.#queue.set(id, open);
    this.#queuedBytes += data.length;
    this.#next();
    if (this.#queuedBytes <= this.#settings.maxBuffered || !this.#queue.has(id)) return;
    const text = `${this.#queuedBytes} bytes of requests wait already`;
    this.#end(open, new RemoteError("overloaded", text));
  }

  /** Begins those that wait, as far as there are places, and the client reads the answers. */
  #next(): void {
    // A handler that answers at once comes here again.
    if (this.#starting) return;
    this.#starting = true;
    while (this.#queue.size > 0 && !this.#waits()) {
      const [open] = this.#queue.values();
      this.#unqueue(open!);
      this.#run(open!);
    }
    this.#starting = false;
    const busy = this.#queue.size > 0 && !this.#waiting ? this.#busy() : undefined;
    if (busy === undefined) return;
    this.#waiting = true;
    busy.then(() => (this.#waiting = false, this.#next()));
  }

  /** Whether the next call has to: for a place, or until the client takes what there is for it. */
  #waits(): boolean {
    const { maxConcurrent, maxBuffered } = this.#settings;
    return this.#running >= maxConcurrent || this.#runningBytes > maxBuffered ||
      this.#answerBytes > maxBuffered || this.#link.sender.unread;
  }

  #unqueue({ request: { id, data } }: Open): void {
    if (this.#queue.delete(id)) this.#queuedBytes -= data.length;
  }

  /** The handler is done, and has its place for another call. */
  #done(requestBytes: number): void {
    this.#running--;
    this.#runningBytes -= requestBytes;
    if (this.#queue.size > 0) this.#next();
  }

  #run(open: Open): void {
    const { length } = open.request.data;
    this.#running++;
    this.#runningBytes += length;
    try {
      const answer = this.#handle(open);
      if (!isThenable(answer)) {
        this.#answer(open, answer);
        return this.#done(length);
      }
      Promise.resolve(answer).then((it) => this.#answer(open, it))
        .catch((error) => this.#fail(open, error)).then(() => this.#done(length));
    } catch (error) {
      this.#fail(open, error);
      this.#done(length);
    }
  }

  #handle(open: Open): HandlerAnswer | Promise<HandlerAnswer> {
    const { request, context } = open;
    const name = context.handler;
    const handler = this.#handlers.get(name);
    if (handler === undefined) {
      const text = `no handler ${JSON.stringify(name)}`;
      throw new RemoteError("unknown-handler", text);
    }
    // A stream begins with both halves.
    const streams = open.send !== undefined;
    if (streams !== (handler.stream !== undefined)) {
      const text = `${name} ${streams ? "takes no stream" : "takes a stream"}`;
      throw new RemoteError("unsupported", text);
    }
    return handler.stream === undefined
      ? handler.call(request, context)
      : this.#handleStream(open, handler.stream);
  }

  async #handleStream(open: Open, handler: StreamHandler): Promise<void> {
    const { context, send, receive } = open;
    const stream = messageStream(send!, receive!, this.#settings.maxMessage, {
      cancel: () => receive!.stop(),
      abort: (reason) => this.#fail(open, reason),
      end: () => Promise.resolve(),
    });
    await handler(stream, context);
    await stream.written();
    if (this.#open.get(open.request.id) !== open) return;
    checkMetadata(context.replyMetadata);
    await send!.end(encodeReplyHeader({ flags: 0, metadata: context.replyMetadata }));
    this.#finish(open);
  }

  /** The handler has answered. */
  #answer(open: Open, answer: HandlerAnswer): void {
    const { request: { id }, context } = open;
    // Nobody waits for it any more, or it was a stream.
    if (this.#open.get(id) !== open) return;
    const { replyMetadata } = context;
    if (replyMetadata !== NO_METADATA) checkMetadata(replyMetadata);
    const data = dataOf(answer);
    requireSize(id, data, this.#settings);
    if (answer instanceof ServerMsg && answer.type === SERVER_ERROR) {
      this.#send(id, SERVER_ERROR, data);
    } else if (!this.#greeted || open.plain && isPlain(data, context)) {
      this.#send(id, SERVER_DATA, data);
    } else if (this.#reply(open, data, replyMetadata)) {
      // It is over when its last piece is sent.
      return;
    }
    this.#finish(open);
  }

  /** True if pieces of it are still to be sent. */
  #reply(open: Open, data: Uint8Array, metadata: Metadata): boolean {
    const { id } = open.request;
    const { sender } = this.#link;
    if (data.length <= CHUNK_BYTES && data.length + PIECE_BYTES <= open.window) {
      const header = encodeReplyHeader({ flags: 0, metadata });
      sender.send({ id, type: TYPE.REPLY, header, data });
      return false;
    }
    const send = open.send = new SendHalf(sender, id, undefined, open.window);
    const first = send.take(data);
    const header = encodeReplyHeader({ flags: MORE, metadata });
    sender.send({ id, type: TYPE.REPLY, header, data: first });
    open.answerBytes = data.length;
    this.#answerBytes += data.length;
    send.write(data.subarray(first.length)).then(() => this.#finish(open), () => {});
    return true;
  }

  /** The handler has failed. */
  #fail(open: Open, error: unknown): void {
    if (this.#open.get(open.request.id) !== open) return;
    const text = (error: unknown) => `handler(${open.context.handler}) error: ${textOf(error)}`;
    try {
      const failure = error instanceof RemoteError
        ? error
        : new RemoteError("handler", text(error));
      this.#answerError(open, failure);
    } catch (cause) {
      this.#answerError(open, new RemoteError("handler", text(cause)));
    }
    this.#finish(open);
  }

  #answerError({ request: { id } }: Open, error: RemoteError): void {
    const failure = encodeFailure(error);
    if (this.#greeted) return this.#sendFailure(id, failure);
    this.#explanations.add(id, failure);
    this.#send(id, SERVER_ERROR, plainError(error, this.#settings));
  }

  #sendFailure(id: Uint, { header, data }: Failure): void {
    this.#link.sender.send({ id, type: TYPE.FAILURE, header, data });
  }

  /** A call is over: with a `reason` its handler is told that nobody waits any more. */
  #finish(open: Open, reason?: Error): void {
    const { id } = open.request;
    if (this.#open.get(id) !== open) return;
    this.#open.delete(id);
    this.#unqueue(open);
    if (open.answerBytes > 0) {
      this.#answerBytes -= open.answerBytes;
      // Not now: more may be over.
      queueMicrotask(() => this.#next());
    }
    if (reason !== undefined) open.context.cancel(reason);
    // Whoever still holds the streams of it.
    const over = reason ?? OVER;
    open.receive?.fail(over);
    open.send?.fail(over);
    if (this.#open.size > 0 || this.#whenDone.length === 0) return;
    for (const done of this.#whenDone.splice(0)) done();
  }

  #send(id: Uint, type: number, data: Uint8Array): void {
    this.#link.sender.send({ id, type, data });
  }

  #watchIdle(ms: number = this.#settings.idleMs): void {
    const { idleMs } = this.#settings;
    this.#idle = setTimeout(() => {
      // One of whose calls only wait for itself is idle, too.
      if (this.#running > 0) return this.#watchIdle();
      const left = this.#link.heardAt + idleMs - performance.now();
      if (left > 0) return this.#watchIdle(left);
      this.#link.close();
    }, ms);
  }

  #onEnd(error: UdsError | undefined): void {
    clearTimeout(this.#idle);
    const reason = error ?? new UdsError("disconnected", "the caller has left");
    for (const open of [...this.#open.values()]) this.#finish(open, reason);
    clearTimeout(this.#idle);
    this.#gate.stop();
    this.#deadlines.stop();
    this.#closed.resolve();
  }
}
