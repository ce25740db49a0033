/**
 * What stands around calls: to log, to measure, to add and to check metadata.
 *
 * @module
 */
import type { CallOptions } from "./client.ts";
import type {
  Handler,
  HandlerAnswer,
  HandlerContext,
  Registered,
  StreamHandler,
} from "./context.ts";
import type { ClientMsg } from "./message.ts";
import type { MessageStream } from "./stream.ts";

/** A call, as a client's interceptor sees it. */
export interface ClientCall {
  /** The name of the handler. */
  readonly handler: string | Uint8Array;
  /** The request; empty for a stream. */
  readonly data: Uint8Array;
  /** As they were given to `call`, `callRaw` or `stream`. */
  readonly options: CallOptions;
}

/** Stands around the calls of a client. `next` goes on, with the call or another one, once, more often or never. */
export interface ClientInterceptor {
  /** Around `call` and `callRaw`, where an answer that is an error rejects. */
  call?(
    call: ClientCall,
    next: (call: ClientCall) => Promise<Uint8Array>,
  ): Promise<Uint8Array>;
  /** Around the opening of a stream. */
  stream?(
    call: ClientCall,
    next: (call: ClientCall) => Promise<MessageStream>,
  ): Promise<MessageStream>;
}

/** Stands around the handlers of a server; `next` goes on. What it throws is answered as what a handler throws. */
export interface ServerInterceptor {
  /** Around a handler of calls. */
  call?(
    request: ClientMsg,
    context: HandlerContext,
    next: Handler,
  ): HandlerAnswer | Promise<HandlerAnswer>;
  /** Around a handler of streams. */
  stream?(
    stream: MessageStream,
    context: HandlerContext,
    next: StreamHandler,
  ): void | Promise<void>;
}

/** `last` with the interceptors around it. */
export function intercepted<T>(
  interceptors: readonly ClientInterceptor[],
  kind: "call" | "stream",
  last: (call: ClientCall) => Promise<T>,
): (call: ClientCall) => Promise<T> {
  return interceptors.reduceRight((next, interceptor) => {
    // Of the kind that `last` is of.
    const around = interceptor[kind] as
      | ((call: ClientCall, next: (call: ClientCall) => Promise<T>) => Promise<T>)
      | undefined;
    return around === undefined ? next : (call) => around.call(interceptor, call, next);
  }, last);
}

/** A handler with the interceptors around it. */
export function interceptedHandler(
  interceptors: readonly ServerInterceptor[],
  handler: Registered,
): Registered {
  return interceptors.reduceRight<Registered>((next, interceptor) => {
    if (next.call !== undefined) {
      if (interceptor.call === undefined) return next;
      const call: Handler = (request, context) => interceptor.call!(request, context, next.call);
      return { call, description: next.description };
    }
    if (interceptor.stream === undefined) return next;
    const stream: StreamHandler = (stream, context) =>
      interceptor.stream!(stream, context, next.stream);
    return { stream, description: next.description };
  }, handler);
}
