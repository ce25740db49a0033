/** From what the runtimes throw to a ConnectError. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { abortable, abortError, connectError, toConnectError } from "../adapters/_errors.ts";
import { ConnectError, type ConnectErrorCode } from "../adapters/types.ts";
import { rejectsWith, sleep } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

/** The `code` of node's errors (Deno's and Bun's own mostly have it too). */
const BY_CODE: Readonly<Record<string, ConnectErrorCode>> = {
  ECONNREFUSED: "refused",
  // A unix listener with a full backlog.
  EAGAIN: "refused",
  ETIMEDOUT: "timeout",
  ENOENT: "not-found",
  ENOTDIR: "not-found",
  ENOTFOUND: "not-found",
  EAI_AGAIN: "not-found",
  EAI_FAIL: "not-found",
  EAI_NONAME: "not-found",
  EACCES: "permission",
  EPERM: "permission",
  ERR_ACCESS_DENIED: "permission",
  EADDRINUSE: "in-use",
  EADDRNOTAVAIL: "unreachable",
  ENETUNREACH: "unreachable",
  EHOSTUNREACH: "unreachable",
  ENETDOWN: "unreachable",
  EHOSTDOWN: "unreachable",
  ECONNRESET: "reset",
  ECONNABORTED: "reset",
  ECANCELED: "reset",
  EPIPE: "broken-pipe",
  EBADF: "broken-pipe",
  ENOTCONN: "broken-pipe",
  ERR_STREAM_DESTROYED: "broken-pipe",
  ERR_SOCKET_CLOSED: "closed",
  ERR_SOCKET_DGRAM_NOT_RUNNING: "closed",
  ENAMETOOLONG: "invalid-address",
  ERR_SOCKET_BAD_PORT: "invalid-address",
  EPROTO: "tls",
  ERR_TLS_CERT_ALTNAME_INVALID: "tls",
  ERR_SSL_WRONG_VERSION_NUMBER: "tls",
  ERR_OSSL_PEM_NO_START_LINE: "tls",
  ERR_BORINGSSL: "tls",
  CERT_HAS_EXPIRED: "tls",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "tls",
  SELF_SIGNED_CERT_IN_CHAIN: "tls",
  DEPTH_ZERO_SELF_SIGNED_CERT: "tls",
  ENOTSUP: "unsupported",
  EMFILE: "other",
};

/** The names of Deno's error classes, and of the web's. */
const BY_NAME: Readonly<Record<string, ConnectErrorCode>> = {
  ConnectionRefused: "refused",
  TimedOut: "timeout",
  TimeoutError: "timeout",
  AbortError: "aborted",
  NotFound: "not-found",
  PermissionDenied: "permission",
  NotCapable: "permission",
  AddrInUse: "in-use",
  AddrNotAvailable: "unreachable",
  NetworkUnreachable: "unreachable",
  HostUnreachable: "unreachable",
  ConnectionReset: "reset",
  ConnectionAborted: "reset",
  BrokenPipe: "broken-pipe",
  NotConnected: "broken-pipe",
  BadResource: "closed",
  Interrupted: "closed",
  NotSupported: "unsupported",
  TypeError: "other",
};

function mapped(cause: unknown): ConnectErrorCode {
  const error = toConnectError(cause, "connecting to [::1]:7");
  assertStrictEquals(error.cause, cause);
  assertEquals(error.name, "ConnectError");
  assert(error instanceof ConnectError && error instanceof Error);
  assert(error.message.startsWith("connecting to [::1]:7: "), error.message);
  assert(!error.message.endsWith("."), error.message);
  return error.code;
}

test("toConnectError() goes by the code, then by the name", () => {
  for (const [code, expected] of Object.entries(BY_CODE)) {
    assertEquals(mapped(Object.assign(new Error("x"), { code })), expected, code);
  }
  for (const [name, expected] of Object.entries(BY_NAME)) {
    assertEquals(mapped(Object.assign(new Error("x"), { name })), expected, name);
  }
  for (const code of ["constructor", "toString", "__proto__"]) {
    assertEquals(mapped(Object.assign(new Error("x"), { code })), "other", code);
  }
  const both = Object.assign(new Error("x"), { code: "ECONNRESET", name: "NotFound" });
  assertEquals(mapped(both), "reset");
  // DOMException has a numeric code of its own.
  assertEquals(mapped(new DOMException("x", "TimeoutError")), "timeout");
});

test("toConnectError() takes the first of several addresses for all", () => {
  const each = ["ECONNREFUSED", "ENETUNREACH"].map((code) =>
    Object.assign(new Error("x"), { code })
  );
  assertEquals(mapped(new AggregateError(each)), "refused");
  assertEquals(mapped(new AggregateError([new AggregateError(each)])), "refused");
  assertEquals(mapped(new AggregateError([])), "other");
  // Node puts the code on the aggregate as well.
  assertEquals(mapped(Object.assign(new AggregateError([]), { code: "ETIMEDOUT" })), "timeout");
});

test("toConnectError() knows Deno's failed look-up, which has no code", () => {
  const text = "failed to lookup address information: Name or service not known";
  assertEquals(mapped(new Error(text)), "not-found");
});

test("toConnectError() takes whatever can be thrown", () => {
  for (const thrown of ["text", 5, null, {}, Object.create(null), [], () => {}, Symbol("x")]) {
    assertEquals(mapped(thrown), "other");
  }
  assertEquals(toConnectError(undefined, "reading").code, "other");
});

test("toConnectError() leaves a ConnectError alone", () => {
  const error = connectError("refused", "connecting");
  assertStrictEquals(toConnectError(error, "something else"), error);
  assertEquals("cause" in error, false);
});

test("a message shows the cause only where the code says nothing", () => {
  const cause = Object.assign(new Error("the details"), { code: "EWHATEVER" });
  assertEquals(connectError("other", "x", cause).message, "x: failed (EWHATEVER: the details)");
  assert(connectError("tls", "x", new Error("why")).message.endsWith("(why)"));
  // As OpenSSL writes them.
  const lines = new Error("two\nlines\n");
  assertEquals(connectError("tls", "x", lines).message, "x: TLS failed (two lines)");
  assert(!connectError("refused", "x", cause).message.includes("details"));
});

test("abortError() tells a time limit from an abort", () => {
  const limited = AbortSignal.abort(new DOMException("x", "TimeoutError"));
  assertEquals(abortError(limited, "x").code, "timeout");
  for (const reason of [undefined, new Error("mine"), "text", new DOMException("x")]) {
    const { code, cause } = abortError(AbortSignal.abort(reason), "x");
    assertEquals(code, "aborted");
    if (reason !== undefined) assertStrictEquals(cause, reason);
  }
});

test("AbortSignal.timeout() and any() of it end a wait with timeout", async () => {
  const limited = AbortSignal.timeout(5);
  const never = new Promise<never>(() => {});
  // The timer of such a signal does not keep a process alive.
  await Promise.all([rejectsWith(abortable(never, limited, "x"), "timeout"), sleep(50)]);
  const any = AbortSignal.any([limited, new AbortController().signal]);
  await rejectsWith(abortable(never, any, "x"), "timeout");
});

test("abortable() passes results and maps errors", async () => {
  const { signal } = new AbortController();
  assertEquals(await abortable(Promise.resolve(1), signal, "x"), 1);
  assertEquals(await abortable(Promise.resolve(1), undefined, "x"), 1);
  const failure = Object.assign(new Error("x"), { code: "EPIPE" });
  await rejectsWith(abortable(Promise.reject(failure), signal, "x"), "broken-pipe");
  await rejectsWith(abortable(Promise.reject(failure), undefined, "x"), "broken-pipe");
});

test("abortable() hands over what comes too late, once, and swallows late errors", async () => {
  const unhandled = await unhandledDuring(async () => {
    const controller = new AbortController();
    const late: number[] = [];
    const slow = sleep(5).then(() => 7);
    const failing = sleep(5).then(() => Promise.reject(new Error("late")));
    const waits = [slow, failing].map((promise) =>
      abortable<unknown>(promise, controller.signal, "x", (value) => late.push(value as number))
    );
    controller.abort();
    for (const wait of waits) await rejectsWith(wait, "aborted");
    await sleep(20);
    assertEquals(late, [7]);
  });
  assertEquals(unhandled, []);
});
