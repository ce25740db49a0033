/** Services of `./uds` whose values are validated: by hand-made Standard Schemas, and by zod, valibot and arktype. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  Client,
  defineService,
  describeService,
  json,
  registerService,
  type RemoteError,
  Server,
  serviceClient,
  type StandardIssue,
  type StandardResult,
  type StandardSchema,
  type UdsError,
} from "@trunkline/sockets/uds";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";

/** A schema of what `validate` says. */
function schema<Input, Output = Input>(
  validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>,
): StandardSchema<Input, Output> {
  return { "~standard": { version: 1, vendor: "test", validate } };
}

const refusing = (...issues: StandardIssue[]) => schema<unknown>(() => ({ issues }));
const anything = json();

/** Calls `echo` of a service with these two; `handled` are the requests that its handler saw. */
async function echo(request: StandardSchema, response: StandardSchema, value: unknown) {
  const Echo = defineService({
    echo: { request, response },
    list: { kind: "server-stream", request: anything, response },
    last: { kind: "client-stream", request, response: anything },
  });
  const handled: unknown[] = [];
  const server = new Server(undefined);
  registerService(server, Echo, {
    echo: (it) => (handled.push(it), it),
    list: (it) => [it],
    async last(all) {
      let last: unknown;
      for await (const it of all) handled.push(last = it);
      return last;
    },
  });
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const client = new Client(ours);
  const calls = serviceClient(Echo, client);
  const results = await Promise.allSettled([
    calls.echo(value),
    Array.fromAsync(calls.list(value)),
    calls.last([value]),
  ]);
  await client.close();
  await server.close();
  const [call, list, last] = results.map((it) =>
    it.status === "fulfilled" ? it.value : it.reason as UdsError
  );
  return { call, list, last, handled };
}

const issuesOf = ({ details }: RemoteError) => JSON.parse(new TextDecoder().decode(details));

test("a validator's output reaches the handler, and that of its answer the caller", async () => {
  const add = (text: string) => schema<string>((value) => ({ value: `${value}${text}` }));
  assertEquals(await echo(add(">"), add("<"), "a"), {
    call: "a><",
    list: ["a<"],
    last: "a>",
    handled: ["a>", "a>"],
  });
  const later = schema<string>(async (value) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return value === "a" ? { value: "A" } : { issues: [{ message: "no" }] };
  });
  const { call } = await echo(later, add(""), "a");
  assertEquals(call, "A");
  const refused = await echo(later, add(""), "b");
  assertEquals((refused.call as RemoteError).remoteCode, "invalid-argument");
  assertEquals(refused.handled, []);
});

test("a request that is refused is invalid-argument, with the issues and without the value", async () => {
  const fine = schema<unknown>((value) => ({ value }));
  const cases: [StandardIssue[], string, unknown[]][] = [
    [[{ message: "it is secret" }], "as a whole", [{ message: "it is secret", path: [] }]],
    [
      [{ message: "no", path: ["a", 0, { key: "b\n" }] }, { message: "nor", path: [Symbol("s")] }],
      'at "a.0.b\\n", and 1 more',
      [{ message: "no", path: ["a", 0, "b\n"] }, { message: "nor", path: ["Symbol(s)"] }],
    ],
    [[], "as a whole", []],
  ];
  for (const [issues, where, told] of cases) {
    const { call, last, handled } = await echo(refusing(...issues), fine, "secret");
    for (const [name, error] of Object.entries({ echo: call, last })) {
      const { remoteCode, message } = error as RemoteError;
      assertEquals(remoteCode, "invalid-argument");
      assertEquals(message, `${name}: the request does not fit its schema ${where}`);
      assertEquals(issuesOf(error as RemoteError), told);
    }
    assertEquals(handled, []);
  }
});

test("of many and long issues only the beginning is told", async () => {
  const long = "a".repeat(100_000);
  const issue = { message: long, path: Array<string>(1000).fill(long) };
  const { call } = await echo(refusing(...Array<StandardIssue>(1000).fill(issue)), refusing(), 1);
  const error = call as RemoteError;
  assert(error.message.length < 300, `${error.message.length}`);
  assert(error.message.endsWith("and 999 more"));
  const issues = issuesOf(error);
  assertEquals(issues.length, 16);
  assertEquals([issues[0].message.length, issues[0].path.length, issues[0].path[0].length], [
    200,
    8,
    200,
  ]);
});

test("a response that is refused is the error invalid-response, which says where and not what", async () => {
  const fine = schema<unknown>((value) => ({ value }));
  const { call, list } = await echo(fine, refusing({ message: "secret", path: ["a"] }), "secret");
  for (const [name, error] of Object.entries({ echo: call, list })) {
    assertEquals((error as UdsError).code, "invalid-response");
    assertEquals(
      (error as UdsError).message,
      `${name}: the response does not fit its schema at "a"`,
    );
    assertEquals((error as UdsError).cause, undefined);
  }
});

test("what a validator throws is an error of the handler, or thrown to the caller", async () => {
  const broken = new RangeError("the validator broke");
  const breaking = schema<unknown>(() => Promise.reject(broken));
  const fine = schema<unknown>((value) => ({ value }));
  const { call, handled } = await echo(breaking, fine, 1);
  assertEquals((call as RemoteError).remoteCode, "handler");
  assertEquals(handled, []);
  const other = await echo(fine, breaking, 1);
  assertEquals([other.call, other.list], [broken, broken]);
});

const VALIDATORS = {
  zod: z.object({ user: z.object({ age: z.number() }), tag: z.string().default("none") }),
  valibot: v.object({
    user: v.object({ age: v.number() }),
    tag: v.optional(v.string(), "none"),
  }),
  arktype: type({ user: { age: "number" }, tag: "string = 'none'" }),
} satisfies Record<string, StandardSchema<unknown, { user: { age: number }; tag: string }>>;

for (const [vendor, validator] of Object.entries(VALIDATORS)) {
  test(`${vendor}: defaults are filled in, and what does not fit is told by its path`, async () => {
    assertEquals(validator["~standard"].vendor, vendor);
    const good = await echo(validator, validator, { user: { age: 3 } });
    const whole = { user: { age: 3 }, tag: "none" };
    assertEquals(good, { call: whole, list: [whole], last: whole, handled: [whole, whole] });
    const { call, list, handled } = await echo(validator, validator, { user: { age: "secret" } });
    const error = call as RemoteError;
    assertEquals(error.remoteCode, "invalid-argument");
    assertEquals(error.message, 'echo: the request does not fit its schema at "user.age"');
    const [issue] = issuesOf(error);
    assertEquals(issue.path, ["user", "age"]);
    assert(issue.message.length > 0);
    assertEquals((list as UdsError).code, "invalid-response");
    assertEquals(handled, []);
  });
}

test("a description has the JSON Schema of the input, where the validator can tell", () => {
  const { zod, valibot, arktype } = VALIDATORS;
  const { handlers } = describeService(defineService({
    a: { request: zod, response: arktype },
    b: { request: valibot, response: z.date() },
  }));
  const [a, b] = handlers;
  for (const { codec, schema } of [a!.request, a!.response]) {
    assertEquals([codec, schema?.["type"], schema?.["required"]], ["json", "object", ["user"]]);
  }
  assertEquals([b!.request, b!.response], [{ codec: "json" }, { codec: "json" }]);
});
