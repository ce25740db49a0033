/**
 * The server's side of a service.
 *
 * @module
 */
import { decodeValue, encodeIssues, encodeValue, type Refuse } from "./_format.ts";
import { only, received, sendAll } from "./_messages.ts";
import { type Method, methodsOf } from "./_method.ts";
import type { Handler, HandlerContext, StreamHandler } from "./context.ts";
import type { MethodDescription } from "./description.ts";
import { RemoteError } from "./errors.ts";
import {
  describeService,
  type Messages,
  type MethodDefinition,
  type MethodDefinitions,
  type Received,
  type Sent,
  type Service,
} from "./service.ts";

/** The handler of a method, by its kind. */
export type MethodHandler<Method extends MethodDefinition> = Method extends
  { readonly kind: "client-stream" } ? (
    requests: AsyncIterable<Received<Method["request"]>>,
    context: HandlerContext,
  ) => Sent<Method["response"]> | Promise<Sent<Method["response"]>>
  : Method extends { readonly kind: "server-stream" } ? (
      request: Received<Method["request"]>,
      context: HandlerContext,
    ) => Messages<Sent<Method["response"]>>
  : Method extends { readonly kind: "duplex" } ? (
      requests: AsyncIterable<Received<Method["request"]>>,
      context: HandlerContext,
    ) => Messages<Sent<Method["response"]>>
  : (
    request: Received<Method["request"]>,
    context: HandlerContext,
  ) => Sent<Method["response"]> | Promise<Sent<Method["response"]>>;

/** A handler for each method. */
export type ServiceHandlers<Methods extends MethodDefinitions> = {
  readonly [Name in keyof Methods]: MethodHandler<Methods[Name]>;
};

/** What {@linkcode registerService} needs of a `Server`. */
export interface ServiceRegistry {
  /** Adds a handler. */
  register(name: string, handler: Handler, description: MethodDescription): void;
  /** Adds a handler of streams. */
  registerStream(name: string, handler: StreamHandler, description: MethodDescription): void;
}

type AnyHandler = (request: unknown, context: HandlerContext) => unknown;

/**
 * Adds the handlers of a service to a server. Those of streams give what they send by an (async) generator or another iterable: it is asked for
 * the next message when the one before has left, and its `return()` is called when the call ends early. Requests of a stream are read when the
 * handler asks for them; it need not read them all.
 *
 * @throws {TypeError} if a handler is missing, or there is one of its name
 */
export function registerService<Methods extends MethodDefinitions>(
  server: ServiceRegistry,
  service: Service<Methods>,
  handlers: NoInfer<ServiceHandlers<Methods>>,
): void {
  const methods = methodsOf(service);
  for (const { name, handler } of methods) {
    if (typeof handlers[name] !== "function") throw new TypeError(`no handler for ${handler}`);
  }
  const { handlers: descriptions } = describeService(service);
  for (const [i, method] of methods.entries()) {
    const handle = (handlers[method.name] as AnyHandler).bind(handlers);
    const description = descriptions[i]!;
    if (method.kind === "unary") {
      server.register(method.handler, unaryHandler(method, handle), description);
    } else {
      server.registerStream(method.handler, streamHandler(method, handle), description);
    }
  }
}

function unaryHandler({ handler, request, response }: Method, handle: AnyHandler): Handler {
  const refuse = refusal(handler);
  return async ({ data }, context) => {
    const value = await decodeValue(request, data, refuse);
    return encodeValue(response, await handle(value, context));
  };
}

function streamHandler(method: Method, handle: AnyHandler): StreamHandler {
  const { handler, kind, request, response } = method;
  const refuse = refusal(handler);
  return async ({ readable, writable }, context) => {
    const writer = writable.getWriter();
    const send = (value: unknown) => writer.write(encodeValue(response, value));
    const requests = received(readable, request, refuse);
    const answer = handle(
      kind === "server-stream" ? await only(requests, refuse) : requests,
      context,
    );
    if (kind === "client-stream") await send(await answer);
    else await sendAll(answer as Messages<unknown>, send, context.signal);
  };
}

function refusal(handler: string): Refuse {
  return (why, { issues } = {}) =>
    new RemoteError("invalid-argument", `${handler}: the request ${why}`, {
      details: issues === undefined ? undefined : encodeIssues(issues),
    });
}
