/**
 * Services: methods with types, of which clients and handlers are inferred. Nothing is generated.
 *
 * @module
 */
import { describeValue } from "./_format.ts";
import { methodsOf } from "./_method.ts";
import type { AnyCodec, Codec } from "./codec.ts";
import type { MethodKind, ServiceDescription } from "./description.ts";
import type { StandardSchema } from "./standard_schema.ts";

/** What a method takes and gives: by codecs, or by validators (Standard Schema, as of zod, valibot and arktype) of what goes as JSON. */
export interface MethodDefinition {
  /** How many messages a call has. @default "unary" */
  readonly kind?: MethodKind | undefined;
  /** What the caller sends. */
  readonly request: AnyCodec;
  /** What the handler sends. */
  readonly response: AnyCodec;
}

/** Methods by their names. */
export type MethodDefinitions = Readonly<Record<string, MethodDefinition>>;

/** What {@linkcode defineService} makes: the same value for the server and its clients. */
export interface Service<Methods extends MethodDefinitions = MethodDefinitions> {
  /** Stands before the names of its methods. */
  readonly name: string | undefined;
  /** As they were given. */
  readonly methods: Methods;
}

/** Options of {@linkcode defineService}. */
export interface ServiceOptions {
  /** Handlers are called `name.method`. @default none: they are called `method` */
  readonly name?: string | undefined;
}

/** What is given to be sent: of a validator its input. */
export type Sent<C> = C extends StandardSchema ? NonNullable<C["~standard"]["types"]>["input"]
  : C extends Codec<infer In, unknown> ? In
  : never;

/** What is received: of a validator its output. */
export type Received<C> = C extends StandardSchema ? NonNullable<C["~standard"]["types"]>["output"]
  : C extends Codec<never, infer Out> ? Out
  : never;

/** Messages to be sent, one after the other. */
export type Messages<T> = AsyncIterable<T> | Iterable<T>;

/**
 * Describes a service.
 *
 * 1. What is received is read by the codec, or read as JSON and validated: by the server before its handler sees it, by the client before the
 *    caller does. What is sent is not validated by the sender.
 * 2. A request that is refused is answered with the `RemoteError` `invalid-argument`, whose message tells where the fault is and whose `details`
 *    are the validator's issues as JSON (`[{ "message": ..., "path": [...] }]`, at most 16); one of a stream is thrown to the handler that
 *    reads it. A response that is refused is a `UdsError` `invalid-response` of that call alone. Neither message says what the value was.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { bytes, defineService, dialServer, json } from "@trunkline/sockets/uds";
 * import { registerService, Server, serviceClient } from "@trunkline/sockets/uds";
 *
 * const Files = defineService({
 *   size: { request: bytes, response: json<number>() },
 *   lines: { kind: "server-stream", request: json<{ from: number }>(), response: json<string>() },
 * }, { name: "files" });
 *
 * const server = new Server(undefined); // in life: new Server("my-service"), and start()
 * registerService(server, Files, {
 *   size: (data) => data.length,
 *   async *lines({ from }) {
 *     for (let i = from; i < from + 3; i++) yield `line ${i}`;
 *   },
 * });
 * const [ours, theirs] = connPair();
 * server.serveConn(theirs);
 *
 * const client = await dialServer(ours); // in life: dialServer("my-service")
 * const files = serviceClient(Files, client);
 * console.log(await files.size(new Uint8Array(5))); // 5
 * for await (const line of files.lines({ from: 7 })) console.log(line); // line 7, line 8, line 9
 * await client.close();
 * await server.close();
 * ```
 *
 * @throws {TypeError} for what is no codec or kind, and for names that cannot be used: empty, not well-formed, with `uds.` before them, `then`,
 * or one that every object has
 */
export function defineService<const Methods extends MethodDefinitions>(
  methods: Methods,
  { name }: ServiceOptions = {},
): Service<Methods> {
  const service = Object.freeze({ name, methods: Object.freeze({ ...methods }) });
  methodsOf(service);
  return service;
}

/** What can be said of a service without its server, which says it of all its handlers. */
export function describeService(service: Service): ServiceDescription {
  return {
    handlers: methodsOf(service).map(({ handler, kind, request, response }) => ({
      name: handler,
      ...(service.name === undefined ? {} : { service: service.name }),
      kind,
      request: describeValue(request),
      response: describeValue(response),
    })),
  };
}
