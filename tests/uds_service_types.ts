/** What the compiler must know of services: never run, but checked with everything else. */
import { connPair } from "@trunkline/sockets/auto";
import {
  bytes,
  Client,
  type Codec,
  defineService,
  empty,
  json,
  type Received,
  registerService,
  type Sent,
  type Server,
  serviceClient,
  type StandardSchema,
} from "@trunkline/sockets/uds";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";

/** Compiles only if both are the same type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true
  : never;
function same<A, B>(_: Same<A, B>): void {}

interface Point {
  readonly x: number;
  readonly y: number;
}

declare const trimmed: StandardSchema<string, { readonly length: number }>;
declare const dated: Codec<Date, string>;

const Shapes = defineService({
  area: { request: json<Point>(), response: json<number>() },
  ping: { request: empty, response: empty },
  store: { kind: "client-stream", request: bytes, response: json<number>() },
  list: { kind: "server-stream", request: json<string>(), response: json<Point>() },
  talk: { kind: "duplex", request: trimmed, response: dated },
}, { name: "shapes" });

const withZod = z.object({ n: z.number().default(1) });
const withValibot = v.object({ n: v.optional(v.number(), 1) });
const withArktype = type({ n: "number = 1" });
same<Sent<typeof withZod>, { n?: number | undefined }>(true);
same<Received<typeof withZod>, { n: number }>(true);
same<Sent<typeof withValibot>, { n?: number | undefined }>(true);
same<Received<typeof withValibot>, { n: number }>(true);
same<Sent<typeof withArktype>, { n?: number }>(true);
same<Received<typeof withArktype>, { n: number }>(true);
same<Sent<typeof dated>, Date>(true);
same<Received<typeof dated>, string>(true);

export async function clients(): Promise<void> {
  const shapes = serviceClient(Shapes, new Client(connPair()[0]));
  same<number, Awaited<ReturnType<typeof shapes.area>>>(true);
  await shapes.area({ x: 1, y: 2 }, { timeoutMs: 1 });
  await shapes.ping();
  await shapes.store([new Uint8Array()]);
  for await (const point of shapes.list("a")) same<typeof point, Point>(true);
  for await (const date of shapes.talk(["a"])) same<typeof date, string>(true);
  // @ts-expect-error: a request of another type
  await shapes.area({ x: 1 });
  // @ts-expect-error: no request
  await shapes.area();
  // @ts-expect-error: one request instead of many
  await shapes.store(new Date());
  // @ts-expect-error: many instead of one
  shapes.list(["a"]);
  // @ts-expect-error: no promise
  shapes.list("a").then;
  // @ts-expect-error: no such method
  await shapes.other();
  shapes.list("a", { onMetadata: () => {} });
}

export function handlers(server: Server): void {
  const good = {
    area: ({ x, y }: Point) => x * y,
    ping: () => {},
    async store(parts: AsyncIterable<Uint8Array>) {
      let length = 0;
      for await (const part of parts) length += part.length;
      return length;
    },
    async *list(name: string) {
      yield { x: name.length, y: 0 };
    },
    async *talk(words: AsyncIterable<{ readonly length: number }>) {
      for await (const { length } of words) yield new Date(length);
    },
  };
  registerService(server, Shapes, good);
  registerService(server, Shapes, {
    ...good,
    area: (point, { signal }) => (same<typeof point, Point>(true), Number(signal.aborted)),
    list: (name) => (same<typeof name, string>(true), [{ x: 1, y: 2 }]),
  });
  const { ping: _, ...missing } = good;
  // @ts-expect-error: no handler for ping
  registerService(server, Shapes, missing);
  // @ts-expect-error: an answer of another type
  registerService(server, Shapes, { ...good, area: () => "1" });
  // @ts-expect-error: a request of another type
  registerService(server, Shapes, { ...good, area: (point: string) => point.length });
  // @ts-expect-error: one answer instead of many
  registerService(server, Shapes, { ...good, list: () => ({ x: 1, y: 2 }) });
  // @ts-expect-error: no such method
  registerService(server, Shapes, { ...good, other: () => {} });
}

export function definitions(): void {
  // @ts-expect-error: no such kind
  defineService({ a: { kind: "other", request: bytes, response: bytes } });
  // @ts-expect-error: no codec
  defineService({ a: { request: bytes, response: JSON } });
  // @ts-expect-error: nothing comes back
  defineService({ a: { request: bytes } });
}
