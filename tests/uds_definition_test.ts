/** What a service is defined by, and what is told of it. */
import { assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import {
  bytes,
  defineService,
  describeService,
  json,
  MAX_DESCRIPTION_BYTES,
  type MethodDefinition,
  registerService,
  Server,
  type UdsError,
} from "@trunkline/sockets/uds";
import { decodeDescription, encodeDescription, plainDescription } from "../uds/description.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

test("defineService() refuses names and methods that cannot be used", () => {
  const method: MethodDefinition = { request: bytes, response: bytes };
  for (const name of ["", "then", "constructor", "toString", "uds.hello", "\ud800"]) {
    assertThrows(() => defineService({ [name]: method }), TypeError, "cannot be that of");
  }
  assertThrows(() => defineService({ ["__proto__"]: method }), TypeError, "cannot be that of");
  for (const name of ["", "uds", "uds.x", "\udc00"]) {
    assertThrows(() => defineService({ a: method }, { name }), TypeError, "cannot be that of");
  }
  const wrong = [
    { request: bytes },
    { ...method, response: {} },
    { ...method, request: { "~standard": { version: 2, vendor: "x", validate() {} } } },
    { ...method, kind: "other" },
  ];
  for (const definition of wrong) {
    assertThrows(() => defineService({ a: definition as MethodDefinition }), TypeError);
  }
  defineService({ udsx: method, "a.b": method, Then: method });
});

test("registerService() refuses a handler that is missing, and names that are taken", async () => {
  const service = defineService({
    a: { request: bytes, response: bytes },
    b: { request: bytes, response: bytes },
  });
  const echo = (data: Uint8Array) => data;
  const server = new Server(undefined);
  const none = { a: echo } as { a: typeof echo; b: typeof echo };
  assertThrows(() => registerService(server, service, none), TypeError, "no handler for b");
  // Nothing was registered then.
  registerService(server, service, { a: echo, b: echo });
  assertThrows(() => registerService(server, service, { a: echo, b: echo }), TypeError, "twice");
  await server.close();
});

test("describeService() tells what goes, and the description survives its encoding", () => {
  const service = defineService({
    square: { request: json<number>(), response: json<number>() },
    sum: { kind: "client-stream", request: json<number>(), response: json<number>() },
  }, { name: "numbers" });
  const description = describeService(service);
  assertEquals(description.handlers[1], {
    name: "numbers.sum",
    service: "numbers",
    kind: "client-stream",
    request: { codec: "json" },
    response: { codec: "json" },
  });
  assertEquals(decodeDescription(encodeDescription(description)), description);
  const plain = { handlers: [{ name: "Echo", ...plainDescription(false) }] };
  assertEquals(decodeDescription(encodeDescription(plain)), plain);
  assertEquals(plainDescription(true).kind, "duplex");
});

test("a description that is none, or too large, is refused", () => {
  const value = { codec: "json" };
  const handler = { name: "a", kind: "unary" as const, request: value, response: value };
  const bad: unknown[] = [
    null,
    [],
    {},
    { handlers: {} },
    { handlers: [null] },
    { handlers: [{ ...handler, name: 1 }] },
    { handlers: [{ ...handler, service: 1 }] },
    { handlers: [{ ...handler, kind: "other" }] },
    { handlers: [{ ...handler, request: "json" }] },
    { handlers: [{ ...handler, response: {} }] },
    { handlers: [{ ...handler, request: { codec: "json", schema: [] } }] },
  ];
  const code = (data: Uint8Array) => {
    try {
      return decodeDescription(data);
    } catch (error) {
      return (error as UdsError).code;
    }
  };
  for (const it of bad) assertEquals(code(utf8(JSON.stringify(it))), "protocol");
  assertEquals(code(Uint8Array.of(0xff)), "protocol");
  const later = { handlers: [{ ...handler, more: 1 }], more: 1 };
  assertEquals(code(utf8(JSON.stringify(later))), { handlers: [handler] });
  assertEquals(code(new Uint8Array(MAX_DESCRIPTION_BYTES + 1)), "too-large");
  const long = { ...plainDescription(false), name: "a".repeat(MAX_DESCRIPTION_BYTES) };
  assertThrows(() => encodeDescription({ handlers: [long] }), Error, "a description of");
});
