/**
 * The client's side of a service.
 *
 * @module
 */
import { decodeValue, encodeValue, type Refuse } from "./_format.ts";
import { only, received, sendAll } from "./_messages.ts";
import { type Method, methodsOf } from "./_method.ts";
import type { CallOptions, Client, StreamOptions } from "./client.ts";
import { UdsError } from "./errors.ts";
import type {
  Messages,
  MethodDefinition,
  MethodDefinitions,
  Received,
  Sent,
  Service,
} from "./service.ts";

/** How a method is called, by its kind. */
export type MethodCall<Method extends MethodDefinition> = Method extends
  { readonly kind: "client-stream" } ? (
    requests: Messages<Sent<Method["request"]>>,
    options?: StreamOptions,
  ) => Promise<Received<Method["response"]>>
  : Method extends { readonly kind: "server-stream" } ? (
      request: Sent<Method["request"]>,
      options?: StreamOptions,
    ) => AsyncIterableIterator<Received<Method["response"]>>
  : Method extends { readonly kind: "duplex" } ? (
      requests: Messages<Sent<Method["request"]>>,
      options?: StreamOptions,
    ) => AsyncIterableIterator<Received<Method["response"]>>
  : (
    request: Sent<Method["request"]>,
    options?: CallOptions,
  ) => Promise<Received<Method["response"]>>;

/** A call for each method. */
export type ServiceClient<Methods extends MethodDefinitions> = {
  readonly [Name in keyof Methods]: MethodCall<Methods[Name]>;
};

/**
 * The methods of a service as functions, over a client, which stays the caller's to close.
 *
 * 1. They reject, and iterations throw, with what `call` and `stream` of the client do; with what the codec throws if a request cannot be
 *    encoded; with what `requests` throws, which ends the call; and with the `UdsError` `invalid-response` for a response that is refused.
 * 2. A call that gives an iterable begins with the first step of its iteration, and to leave that early (`break`, `return`, an error) ends the
 *    call. So does `signal`.
 * 3. `requests` are asked for when there is room for the next one, and are left (`return()`) when the call is over.
 *
 * @example
 * ```ts
 * import { connPair } from "@trunkline/sockets/auto";
 * import { Client, defineService, json, registerService } from "@trunkline/sockets/uds";
 * import { Server, serviceClient } from "@trunkline/sockets/uds";
 *
 * const Sums = defineService({
 *   total: { kind: "client-stream", request: json<number>(), response: json<number>() },
 *   running: { kind: "duplex", request: json<number>(), response: json<number>() },
 * });
 * const server = new Server(undefined);
 * registerService(server, Sums, {
 *   async total(numbers) {
 *     let sum = 0;
 *     for await (const number of numbers) sum += number;
 *     return sum;
 *   },
 *   async *running(numbers) {
 *     let sum = 0;
 *     for await (const number of numbers) yield sum += number;
 *   },
 * });
 * const [ours, theirs] = connPair();
 * server.serveConn(theirs);
 * const client = new Client(ours);
 * const sums = serviceClient(Sums, client);
 * console.log(await sums.total([1, 2, 3])); // 6
 * console.log(await Array.fromAsync(sums.running([1, 2, 3]))); // 1, 3, 6
 * await client.close();
 * await server.close();
 * ```
 */
export function serviceClient<Methods extends MethodDefinitions>(
  service: Service<Methods>,
  client: Pick<Client, "call" | "stream">,
): ServiceClient<Methods> {
  const calls = methodsOf(service).map((method) => [method.name, callOf(method, client)]);
  return Object.freeze(Object.fromEntries(calls));
}

function callOf(method: Method, client: Pick<Client, "call" | "stream">): unknown {
  const refuse: Refuse = (why, { cause } = {}) => {
    const options = cause === undefined ? {} : { cause };
    return new UdsError("invalid-response", `${method.handler}: the response ${why}`, options);
  };
  const exchange = exchangeOf(method, client, refuse);
  switch (method.kind) {
    case "unary":
      return async (request: unknown, options?: CallOptions) => {
        const data = encodeValue(method.request, request);
        const answer = await client.call(method.handler, data, options);
        return await decodeValue(method.response, answer, refuse);
      };
    case "client-stream":
      return (requests: Messages<unknown>, options?: StreamOptions) =>
        only(exchange(requests, options), refuse);
    case "server-stream":
      return (request: unknown, options?: StreamOptions) => exchange([request], options);
    case "duplex":
      return exchange;
  }
}

/** A stream of requests for one of responses. */
function exchangeOf(
  { handler, request, response }: Method,
  client: Pick<Client, "stream">,
  refuse: Refuse,
): (requests: Messages<unknown>, options?: StreamOptions) => AsyncGenerator<unknown, void> {
  return async function* (requests, options) {
    const { readable, writable } = await client.stream(handler, options);
    const writer = writable.getWriter();
    const over = new AbortController();
    let failure: { readonly error: unknown } | undefined;
    const send = async (value: unknown) => {
      const data = encodeValue(request, value);
      // It fails when the call is over, and what comes says how that ended.
      await writer.write(data).catch(() => over.abort());
    };
    sendAll(requests, send, over.signal).then(
      () => writer.close(),
      (error) => {
        failure = { error };
        return writer.abort(error);
      },
    ).catch(() => {});
    try {
      yield* received(readable, response, refuse);
    } catch (error) {
      throw failure === undefined ? error : failure.error;
    } finally {
      over.abort();
      await readable.cancel().catch(() => {});
    }
  };
}
