/** Typed services of `./uds`: four kinds of calls, their errors and their ends. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  bytes,
  Client,
  type Codec,
  defineService,
  empty,
  type HandlerContext,
  json,
  type MethodDefinitions,
  registerService,
  RemoteError,
  Server,
  type Service,
  serviceClient,
  type ServiceHandlers,
  text,
} from "@trunkline/sockets/uds";
import { rejection } from "./uds_service.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

/** A server with a service, and a client of it. */
function serve<Methods extends MethodDefinitions>(
  service: Service<Methods>,
  handlers: ServiceHandlers<Methods>,
) {
  const server = new Server(undefined);
  registerService(server, service, handlers);
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const client = new Client(ours);
  const close = async () => {
    await client.close();
    await server.close({ graceMs: 0 });
  };
  return { server, client, calls: serviceClient(service, client), close };
}

/** The same number of turns of the event loop for everyone: long enough for what should not happen. */
const settle = () => new Promise((resolve) => setTimeout(resolve, 30));

const Numbers = defineService({
  square: { request: json<number>(), response: json<number>() },
  sum: { kind: "client-stream", request: json<number>(), response: json<number>() },
  upTo: { kind: "server-stream", request: json<number>(), response: json<number>() },
  doubled: { kind: "duplex", request: json<number>(), response: json<number>() },
}, { name: "numbers" });

class NumberHandlers implements ServiceHandlers<typeof Numbers["methods"]> {
  #factor = 2;
  square(number: number) {
    return number * number;
  }
  async sum(numbers: AsyncIterable<number>) {
    let sum = 0;
    for await (const number of numbers) sum += number;
    return sum;
  }
  *upTo(end: number) {
    for (let i = 1; i <= end; i++) yield i;
  }
  async *doubled(numbers: AsyncIterable<number>) {
    for await (const number of numbers) yield this.#factor * number;
  }
}

test("serviceClient() calls methods of all four kinds, by the handlers of an object", async () => {
  const { calls, client, close } = serve(Numbers, new NumberHandlers());
  assertEquals(await calls.square(7), 49);
  assertEquals(await calls.sum([1, 2, 3]), 6);
  assertEquals(await calls.sum([]), 0);
  assertEquals(
    await Array.fromAsync(calls.upTo(300)),
    Array.from({ length: 300 }, (_, i) => i + 1),
  );
  assertEquals(await Array.fromAsync(calls.upTo(0)), []);
  const source = async function* () {
    yield 1;
    await settle();
    yield 2;
  };
  assertEquals(await Array.fromAsync(calls.doubled(source())), [2, 4]);
  assertEquals(await client.call("numbers.square", utf8("3")), utf8("9"));
  await close();
});

test("a duplex call answers each message before the next one is there", async () => {
  const { calls, close } = serve(Numbers, new NumberHandlers());
  let answered: (() => void) | undefined;
  const answers: number[] = [];
  const source = async function* () {
    for (let i = 0; i < 5; i++) {
      const answer = new Promise<void>((resolve) => answered = resolve);
      yield i;
      await answer;
    }
  };
  for await (const answer of calls.doubled(source())) {
    answers.push(answer);
    answered!();
  }
  assertEquals(answers, [0, 2, 4, 6, 8]);
  await close();
});

test("bytes, text, json, empty and a codec of one's own go both ways", async () => {
  const date: Codec<Date> = {
    name: "date",
    encode: (value) => utf8(value.toISOString()),
    decode: (data) => Promise.resolve(new Date(new TextDecoder().decode(data))),
  };
  const echo = (value: unknown) => value as never;
  const { calls, close } = serve(
    defineService({
      bytes: { request: bytes, response: bytes },
      text: { request: text, response: text },
      texts: { kind: "duplex", request: text, response: text },
      json: { request: json(), response: json() },
      empty: { request: empty, response: empty },
      date: { request: date, response: date },
    }),
    { bytes: echo, text: echo, texts: echo, json: echo, empty: echo, date: echo },
  );
  const all = new Uint8Array(256).map((_, i) => i);
  assertEquals(await calls.bytes(all), all);
  assertEquals(await Array.fromAsync(calls.texts("ab")), ["a", "b"]);
  for (const value of ["", "\ufeffé\u{1f600}\0"]) assertEquals(await calls.text(value), value);
  for (const value of [null, 0, "", [1, [2]], { a: { b: "é" } }, "\ud800"]) {
    assertEquals(await calls.json(value), value);
  }
  assertEquals(await calls.empty(), undefined);
  assertEquals(await calls.date(new Date(86_400_000)), new Date(86_400_000));
  await close();
});

test("a request that cannot be encoded rejects with what its codec threw, and is not sent", async () => {
  let handled = 0;
  const { calls, close } = serve(
    defineService({
      json: { request: json(), response: json() },
      text: { request: text, response: text },
      bytes: { request: bytes, response: bytes },
      many: { kind: "client-stream", request: json(), response: json() },
    }),
    { json: () => handled++, text: String, bytes: (data) => data, many: () => 0 },
  );
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  for (const value of [undefined, () => {}, Symbol("a"), 1n, cycle]) {
    assert(await rejection<Error>(calls.json(value)) instanceof TypeError);
    assert(await rejection<Error>(calls.many([value])) instanceof TypeError);
  }
  assertEquals(
    (await rejection(calls.text("\ud800"))).message,
    "a text with half a surrogate pair",
  );
  const wrong = "no bytes" as unknown as Uint8Array;
  assertEquals(
    (await rejection(calls.bytes(wrong))).message,
    "the codec bytes gave no Uint8Array",
  );
  assertEquals(handled, 0);
  await close();
});

test("a request that cannot be decoded is invalid-argument, and no handler sees it", async () => {
  const seen: unknown[] = [];
  const { server, client, close } = serve(
    defineService({
      json: { request: json(), response: empty },
      text: { request: text, response: empty },
      empty: { request: empty, response: empty },
      stream: { kind: "server-stream", request: json(), response: empty },
    }),
    {
      json: (value) => void seen.push(value),
      text: (value) => void seen.push(value),
      empty: (value) => void seen.push(value),
      stream: (value) => (seen.push(value), []),
    },
  );
  const invalid = [
    ["json", utf8("")],
    ["json", utf8("{")],
    ["json", utf8('"secret" x')],
    ["json", utf8("\ufeff1")],
    ["json", Uint8Array.of(0x22, 0xff, 0x22)],
    ["text", Uint8Array.of(0xc3)],
    ["empty", Uint8Array.of(0)],
  ] as const;
  for (const [name, data] of invalid) {
    const error = await rejection<RemoteError>(client.call(name, data, { timeoutMs: 10_000 }));
    assertEquals([error.remoteCode, error.message], [
      "invalid-argument",
      `${name}: the request is no ${name}`,
    ]);
  }
  for (
    const [messages, why] of [
      [["{"], "is no json"],
      [[], "is missing"],
      [["1", "2"], "is followed by another one"],
    ] as const
  ) {
    const { readable, writable } = await client.stream("stream");
    const writer = writable.getWriter();
    for (const message of messages) await writer.write(utf8(message));
    await writer.close();
    const error = await rejection<RemoteError>(readable.getReader().read());
    assertEquals([error.remoteCode, error.message], [
      "invalid-argument",
      `stream: the request ${why}`,
    ]);
  }
  assertEquals(seen, []);
  await close();
  await server.close();
});

test("a response that cannot be decoded is the error invalid-response of that call alone, without the data", async () => {
  const Wrong = defineService({
    call: { request: empty, response: json() },
    sum: { kind: "client-stream", request: empty, response: json() },
    list: { kind: "server-stream", request: empty, response: json<number>() },
  });
  const server = new Server(undefined);
  let answers: string[] = ["secret"];
  server.register("call", () => "secret");
  for (const name of ["sum", "list"]) {
    server.registerStream(name, async ({ writable }) => {
      const writer = writable.getWriter();
      for (const answer of answers) await writer.write(utf8(answer));
    });
  }
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const client = new Client(ours);
  const calls = serviceClient(Wrong, client);
  const failures = async () => [
    await rejection(calls.sum([])),
    await rejection(Array.fromAsync(calls.list())),
  ];
  for (const error of [await rejection(calls.call()), ...await failures()]) {
    assertEquals(error.code, "invalid-response");
    assertEquals(error.message.replace(/^\w+/, "it"), "it: the response is no json");
    assertEquals((error.cause as Error).message, "a text that is no JSON");
  }
  answers = [];
  assertEquals((await rejection(calls.sum([]))).message, "sum: the response is missing");
  answers = ["1", "2"];
  assertEquals(
    (await rejection(calls.sum([]))).message,
    "sum: the response is followed by another one",
  );
  assertEquals(await Array.fromAsync(calls.list()), [1, 2]);
  await client.close();
  await server.close();
});

test("what a handler throws comes with its code and details, without options of the call", async () => {
  const fail = () => {
    throw new RemoteError("mine", "no luck", { details: utf8("x"), metadata: { a: "1" } });
  };
  let left = false;
  const definition = { request: empty, response: json<number>() };
  const { calls, close } = serve(
    defineService({
      call: definition,
      plain: definition,
      unencodable: definition,
      sum: { ...definition, kind: "client-stream" },
      list: { ...definition, kind: "server-stream" },
      late: { ...definition, kind: "server-stream" },
      wrong: { ...definition, kind: "server-stream" },
    }),
    {
      call: fail,
      plain: () => Promise.reject(new Error("oh")),
      unencodable: () => undefined as unknown as number,
      sum: fail,
      list: fail,
      async *late() {
        yield 1;
        await settle();
        fail();
      },
      async *wrong() {
        try {
          yield undefined as unknown as number;
        } finally {
          left = true;
        }
      },
    },
  );
  const late: number[] = [];
  const errors = await Promise.all([
    rejection<RemoteError>(calls.call()),
    rejection<RemoteError>(calls.sum([])),
    rejection<RemoteError>(Array.fromAsync(calls.list())),
    rejection<RemoteError>((async () => {
      for await (const number of calls.late()) late.push(number);
    })()),
  ]);
  for (const error of errors) {
    assert(error instanceof RemoteError);
    assertEquals([error.remoteCode, error.message], ["mine", "no luck"]);
    assertEquals([error.details, { ...error.metadata }], [utf8("x"), { a: "1" }]);
  }
  assertEquals(late, [1]);
  const plain = await rejection<RemoteError>(calls.plain());
  assertEquals([plain.remoteCode, plain.message], ["handler", "handler(plain) error: oh"]);
  for (
    const error of [
      await rejection<RemoteError>(calls.unencodable()),
      await rejection<RemoteError>(Array.fromAsync(calls.wrong())),
    ]
  ) {
    assertEquals(error.remoteCode, "handler");
    assert(error.message.endsWith(") error: JSON has nothing for undefined"), error.message);
  }
  assert(left);
  await close();
});

test("metadata, deadlines and signals of a call reach its handler", async () => {
  let context: HandlerContext | undefined;
  const { calls, close } = serve(
    defineService({
      call: { request: empty, response: empty },
      wait: { request: empty, response: empty },
      list: { kind: "server-stream", request: empty, response: empty },
    }),
    {
      call(_, it) {
        context = it;
        it.replyMetadata = { got: it.metadata["a"] ?? "" };
      },
      wait: (_, { signal }) =>
        new Promise((resolve) => signal.addEventListener("abort", () => resolve())),
      list: (_, it) => (context = it, []),
    },
  );
  let metadata: unknown;
  const options = { metadata: { a: "1" }, timeoutMs: 10_000 };
  await calls.call(undefined, { ...options, onMetadata: (it) => metadata = { ...it } });
  assertEquals(metadata, { got: "1" });
  assert(context!.deadline !== undefined);
  context = undefined;
  await Array.fromAsync(calls.list(undefined, options));
  assertEquals({ ...context!.metadata }, { a: "1" });
  assert(context!.deadline !== undefined);
  const stop = new AbortController();
  const aborted = rejection(calls.wait(undefined, { signal: stop.signal }));
  await calls.call();
  stop.abort();
  assertEquals((await aborted).code, "aborted");
  await close();
});

/** A service that can tell when its handlers were left. */
function endless() {
  const left = Promise.withResolvers<void>();
  const sourceLeft = Promise.withResolvers<void>();
  const definition = { request: json<number>(), response: json<number>() };
  const it = serve(
    defineService({
      list: { ...definition, kind: "server-stream" },
      waiting: { ...definition, kind: "server-stream" },
      talk: { ...definition, kind: "duplex" },
      sum: { ...definition, kind: "client-stream" },
    }),
    {
      async *list() {
        try {
          // With a pause: who reads all of it from memory would let no timer fire.
          for (let i = 0;; i++) {
            await new Promise((resolve) => setTimeout(resolve, 1));
            yield i;
          }
        } finally {
          left.resolve();
        }
      },
      waiting: () => {
        let next = 0;
        const never = Promise.withResolvers<IteratorResult<number>>();
        return {
          [Symbol.asyncIterator]: () => ({
            next: () => next++ === 0 ? Promise.resolve({ value: 1, done: false }) : never.promise,
            return: () => {
              left.resolve();
              never.resolve({ value: undefined, done: true });
              return never.promise;
            },
          }),
        };
      },
      async *talk(numbers) {
        try {
          for await (const number of numbers) yield number;
        } finally {
          left.resolve();
        }
      },
      async sum(numbers) {
        try {
          for await (const _ of numbers);
        } finally {
          left.resolve();
        }
        return 0;
      },
    },
  );
  const source = async function* (count = Infinity) {
    try {
      for (let i = 0; i < count; i++) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        yield i;
      }
    } finally {
      sourceLeft.resolve();
    }
  };
  return { ...it, left: left.promise, sourceLeft: sourceLeft.promise, source };
}

test("leaving an iteration ends the call, its handler's generator and what was sent to it", async () => {
  for (const name of ["list", "waiting"] as const) {
    const { calls, left, close } = endless();
    for await (const _ of calls[name](0)) break;
    await left;
    await close();
  }
  const { calls, left, source, sourceLeft, close } = endless();
  for await (const number of calls.talk(source())) if (number === 3) break;
  await Promise.all([left, sourceLeft]);
  await close();
});

test("a signal and a deadline end a stream on both sides", async () => {
  for (const name of ["list", "waiting", "talk", "sum"] as const) {
    for (const how of ["signal", "deadline", "close"] as const) {
      const { calls, left, source, sourceLeft, client, close } = endless();
      const stop = new AbortController();
      const options = how === "deadline" ? { timeoutMs: 40 } : { signal: stop.signal };
      if (how !== "deadline") {
        setTimeout(() => how === "signal" ? stop.abort() : client.close(), 20);
      }
      const error = await rejection(
        name === "sum"
          ? calls.sum(source(), options)
          : name === "talk"
          ? Array.fromAsync(calls.talk(source(), options))
          : Array.fromAsync(calls[name](0, options)),
      );
      const codes = { signal: ["aborted"], deadline: ["timeout", "remote"], close: ["closed"] };
      assert(codes[how].includes(error.code), `${name} ${how}: ${error.code}`);
      await left;
      if (name === "talk" || name === "sum") await sourceLeft;
      await close();
    }
  }
});

test("what a source throws is what the call rejects with, and its handler hears of the end", async () => {
  const broken = new Error("the source broke");
  const source = async function* () {
    yield 1;
    throw broken;
  };
  const first = endless();
  assertStrictEquals(await rejection(first.calls.sum(source())), broken);
  await first.left;
  await first.close();
  const second = endless();
  assertStrictEquals(await rejection(Array.fromAsync(second.calls.talk(source()))), broken);
  await second.left;
  await second.close();
  const third = endless();
  const none = 5 as unknown as number[];
  assert(await rejection<Error>(third.calls.sum(none)) instanceof TypeError);
  await third.left;
  await third.close();
});

test("a handler that is done before all requests came leaves the rest, and its answer arrives", async () => {
  const sourceLeft = Promise.withResolvers<void>();
  const { calls, close } = serve(
    defineService({
      first: { kind: "client-stream", request: json<number>(), response: json<number>() },
      none: { kind: "duplex", request: json<number>(), response: json<string>() },
    }),
    {
      async first(numbers) {
        for await (const number of numbers) return number;
        return -1;
      },
      none: () => ["done"],
    },
  );
  const source = async function* () {
    try {
      for (;;) {
        yield 7;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    } finally {
      sourceLeft.resolve();
    }
  };
  assertEquals(await calls.first(source()), 7);
  await sourceLeft.promise;
  assertEquals(await Array.fromAsync(calls.none([1, 2, 3])), ["done"]);
  assertEquals(await calls.first([8]), 8);
  await close();
});

test("who reads slowly is sent no more than a window, in both directions", async () => {
  const large = new Uint8Array(50_000);
  let produced = 0;
  const counted = function* (count: number) {
    for (let i = 0; i < count; i++) {
      produced++;
      yield large;
    }
  };
  const go = Promise.withResolvers<void>();
  const { calls, close } = serve(
    defineService({
      down: { kind: "server-stream", request: json<number>(), response: bytes },
      up: { kind: "client-stream", request: bytes, response: json<number>() },
    }),
    {
      down: counted,
      async up(parts) {
        await go.promise;
        let count = 0;
        for await (const _ of parts) count++;
        return count;
      },
    },
  );
  let received = 0;
  for await (const _ of calls.down(100)) {
    if (received++ > 0) continue;
    await settle();
    assert(produced < 20, `${produced}`);
  }
  assertEquals([received, produced], [100, 100]);
  produced = 0;
  const up = calls.up(counted(100));
  await settle();
  assert(produced < 20, `${produced}`);
  go.resolve();
  assertEquals(await up, 100);
  await close();
});

test("a client of a service is no promise, and can be awaited", async () => {
  const { calls, close } = serve(Numbers, new NumberHandlers());
  assertStrictEquals(await Promise.resolve(calls), calls);
  assertEquals(Object.keys(calls), ["square", "sum", "upTo", "doubled"]);
  await close();
});
