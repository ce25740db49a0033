/** Who may connect: decisions reach the client that they are about, and nobody else; whoever is not accepted is denied. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  type AuthDecision,
  type AuthError,
  type AuthHandler,
  type AuthServer,
  type ClientAuthRequest,
  dial,
  type ManagementClient,
  type ManagementError,
  MAX_CONFIG_LINE_BYTES,
  serveAuth,
  type ServeAuthOptions,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon, type SimulatedDaemon } from "@trunkline/sockets/ovpn/testing";
import { greetedPair, rejection } from "./ovpn_fake.ts";
import { unhandledDuring } from "./unhandled.ts";

const ALICE = { commonName: "alice", username: "al", password: "hunter2" };
const REFUSED = "Authentication failed, try again later";

interface Served {
  readonly daemon: SimulatedDaemon;
  readonly client: ManagementClient;
  readonly server: AuthServer;
  readonly errors: AuthError[];
  /** The parameters of every command that began with `client-`. */
  readonly sent: (readonly string[])[];
}

async function withServer(
  handler: AuthHandler,
  run: (served: Served) => Promise<void>,
  options: ServeAuthOptions = {},
): Promise<void> {
  const sent: (readonly string[])[] = [];
  const errors: AuthError[] = [];
  const daemon = simulateDaemon({
    mode: "server",
    onCommand: (parameters) => parameters[0]?.startsWith("client-") && sent.push(parameters),
  });
  const client = await dial(await daemon.listen());
  const server = serveAuth(client, handler, {
    onError: (error) => errors.push(error),
    ...options,
  });
  try {
    // State events are on when this has been answered.
    await client.pid();
    await run({ daemon, client, server, errors, sent });
  } finally {
    await client.close();
    await daemon.close();
    await server.closed.catch(() => {});
  }
}

/** A handler whose requests the test decides upon. */
class Desk {
  readonly #requests: ClientAuthRequest[] = [];
  readonly #decide: ((decision: AuthDecision) => void)[] = [];
  #arrived = Promise.withResolvers<void>();

  readonly handler: AuthHandler = (request) => {
    this.#requests.push(request);
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
    return new Promise((resolve) => this.#decide.push(resolve));
  };

  get length(): number {
    return this.#requests.length;
  }

  async request(index: number): Promise<ClientAuthRequest> {
    while (this.#requests.length <= index) await this.#arrived.promise;
    return this.#requests[index]!;
  }

  decide(index: number, decision: AuthDecision): void {
    this.#decide[index]!(decision);
  }
}

test("serveAuth() lets in, and keeps out, as the handler says", async () => {
  const lines = ['push "route 10.9.0.0 255.255.0.0"', "x".repeat(MAX_CONFIG_LINE_BYTES)];
  const handler: AuthHandler = (request) =>
    request.password === "hunter2" ? request.accept(lines) : request.deny("wrong", "Wrong");
  await withServer(handler, async ({ daemon, server, errors }) => {
    const alice = daemon.clientConnects(ALICE);
    const bob = daemon.clientConnects({ commonName: "bob", password: "x" });
    assertEquals(await alice.decision, { kind: "accepted", config: lines });
    assertEquals(await bob.decision, { kind: "denied", reason: "wrong", clientReason: "Wrong" });
    await server.stop();
    const { accepted, denied, running } = server.counts;
    assertEquals([accepted, denied, running, errors.length], [1, 1, 0, 0]);
    await server.closed;
  });
});

const FAILURES: readonly (readonly [string, AuthHandler, string, string])[] = [
  [
    "throws",
    () => {
      throw new Error("the database is down");
    },
    "handler",
    "the handler failed",
  ],
  ["rejects", () => Promise.reject(new Error("x")), "handler", "the handler failed"],
  [
    "gives nothing",
    (() => undefined) as unknown as AuthHandler,
    "no-decision",
    "the handler gave no decision about it",
  ],
  [
    "gives what only looks like a decision",
    () => ({ kind: "accept" }),
    "no-decision",
    "the handler gave no decision about it",
  ],
  [
    "accepts with a line that would end the body",
    (it) => it.accept(["END", "signal SIGTERM"]),
    "handler",
    "the handler failed",
  ],
];

for (const [what, handler, code, reason] of FAILURES) {
  test(`serveAuth() denies if the handler ${what}`, async () => {
    await withServer(handler, async ({ daemon, errors }) => {
      const alice = daemon.clientConnects(ALICE);
      assertEquals(await alice.decision, { kind: "denied", reason, clientReason: REFUSED });
      assertEquals(errors.map((error) => error.code), [code]);
      assert(!inspect(errors).includes("hunter2"));
    });
  });
}

test("serveAuth() denies what was decided about another request", async () => {
  let first: AuthDecision | undefined;
  await withServer((request) => first ??= request.accept(), async ({ daemon }) => {
    assertEquals((await daemon.clientConnects(ALICE).decision).kind, "accepted");
    assertEquals((await daemon.clientConnects(ALICE).decision).kind, "denied");
  });
});

test("serveAuth() denies a faulty environment without asking", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, errors }) => {
    const mallory = daemon.clientConnects({ ...ALICE, env: [["username", "root"]] });
    assertEquals((await mallory.decision).kind, "denied");
    assertEquals([errors[0]?.code, desk.length], ["unsound-env", 0]);
  });
});

test("serveAuth() denies when the time is over, and tells the handler", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, errors, server, sent }) => {
    const alice = daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    assertEquals((await alice.decision).kind, "denied");
    assertEquals([errors[0]?.code, request.signal.aborted], ["timeout", true]);
    desk.decide(0, request.accept());
    await server.stop();
    assertEquals(sent.length, 1);
  }, { timeoutMs: 20 });
});

test("serveAuth() does not send what was decided about a client of before a restart", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, client, server, sent }) => {
    const before = daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    daemon.restart();
    assertEquals((await before.decision).kind, "gone");
    const after = daemon.clientConnects({ commonName: "mallory" });
    const next = await desk.request(1);
    assertEquals([next.clientId, next.keyId], [request.clientId, request.keyId]);
    assertEquals(request.signal.aborted, true);
    desk.decide(0, request.accept());
    await client.pid();
    assertEquals(sent, []);
    desk.decide(1, next.deny("unknown"));
    assertEquals((await after.decision).kind, "denied");
    await server.stop();
    assertEquals(server.counts.cancelled, 1);
  });
});

test("a decision that is overtaken by a restart is stale, and no error", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, client, server, sent, errors }) => {
    daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    // Its turn comes after that of `pid`, and the restart between them.
    const pid = client.pid();
    desk.decide(0, request.accept());
    daemon.restart();
    daemon.clientConnects({ commonName: "mallory" });
    await pid;
    await desk.request(1);
    await client.pid();
    assertEquals([sent, errors], [[], []]);
    assertEquals(server.counts.stale + server.counts.cancelled, 1);
  });
});

test("serveAuth() tells the handler when the client leaves, and when the connection ends", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, server, errors }) => {
    const alice = daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    const aborted = Promise.withResolvers<void>();
    request.signal.addEventListener("abort", () => aborted.resolve());
    alice.disconnects();
    await aborted.promise;
    assertEquals((await rejection<ManagementError>(request.response())).code, "aborted");
    daemon.clientConnects(ALICE);
    const second = await desk.request(1);
    daemon.dropManager();
    await server.closed.catch(() => {});
    assertEquals([second.signal.aborted, server.counts.cancelled], [true, 2]);
    assertEquals(errors, []);
  });
});

test("pending() asks a client, and response() is its answer", async () => {
  const opened = Promise.withResolvers<void>();
  const handler: AuthHandler = async (request) => {
    assertEquals([...request.sso], ["webauth", "crtext"]);
    await opened.promise;
    await request.pending({ kind: "CR_TEXT", text: "Code: 1,2?", echo: true });
    const code = await request.response();
    if (code !== "4711é") return request.deny("wrong code");
    await request.pending({ kind: "WEB_AUTH", url: "https://sso.example/x?state=1" }, {
      timeoutMs: 90_500,
    });
    return request.accept();
  };
  await withServer(handler, async ({ daemon, client, errors }) => {
    const env = [["IV_SSO", "webauth,crtext"]] as const;
    const alice = daemon.clientConnects({ ...ALICE, env });
    alice.respond(btoa("unasked"));
    await client.pid();
    opened.resolve();
    assertEquals(await alice.pending.take(), { extra: "CR_TEXT:R,E:Code: 1,2?", timeout: 65 });
    alice.respond("NDcxMcOp");
    const page = { extra: "WEB_AUTH::https://sso.example/x?state=1", timeout: 96 };
    assertEquals(await alice.pending.take(), page);
    assertEquals((await alice.decision).kind, "accepted");
    assertEquals(errors, []);
  });
});

test("pending() tells a client the time since its login, which is what that counts", async () => {
  const handler: AuthHandler = async (request) => {
    await new Promise((resolve) => setTimeout(resolve, 1600));
    await request.pending({ kind: "CR_TEXT", text: "Code?" }, { timeoutMs: 20_000 });
    return request.accept();
  };
  await withServer(handler, async ({ daemon }) => {
    const { timeout } = await daemon.clientConnects(ALICE).pending.take();
    assert(timeout! >= 27, `${timeout}`);
  });
});

test("pending() refuses what a client would not get, and response() what cannot be read", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, sent }) => {
    const alice = daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    const text = "x".repeat(237);
    assert(await rejection(request.pending({ kind: "CR_TEXT", text })) instanceof RangeError);
    assertEquals(sent, []);
    await request.pending({ kind: "CR_TEXT", text: text.slice(1) });
    for (const url of ["javascript:1", "no url"]) {
      assert(await rejection(request.pending({ kind: "OPEN_URL", url })) instanceof TypeError);
    }
    alice.respond("***");
    assertEquals((await rejection<AuthError>(request.response())).code, "unreadable-response");
    const waiting = request.response({ signal: AbortSignal.timeout(1) });
    assertEquals((await rejection<ManagementError>(waiting)).code, "aborted");
    desk.decide(0, request.accept());
    assertEquals((await alice.decision).kind, "accepted");
    assertEquals((await rejection<ManagementError>(request.response())).code, "aborted");
  });
});

test("serveAuth() asks again when a key is renewed, or knows the client by its names", async () => {
  for (const reauth of ["ask", "accept-same"] as const) {
    let asked = 0;
    const handler: AuthHandler = (request) => {
      asked++;
      return request.kind === "CONNECT" ? request.accept() : request.deny("again");
    };
    await withServer(handler, async ({ daemon, server }) => {
      const alice = daemon.clientConnects(ALICE);
      const nobody = daemon.clientConnects({ commonName: "" });
      await Promise.all([alice.decision, nobody.decision]);
      while (server.counts.accepted < 2) await new Promise((resolve) => setTimeout(resolve, 1));
      const kind = reauth === "ask" ? "denied" : "accepted";
      assertEquals((await alice.reauth("other")).kind, kind);
      assertEquals((await nobody.reauth()).kind, "denied");
      assertEquals(asked, reauth === "ask" ? 4 : 3);
    }, { reauth });
  }
});

test("serveAuth() runs maxConcurrent handlers, lets maxWaiting wait, and denies more", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon, server, errors }) => {
    const clients = Array.from({ length: 5 }, () => daemon.clientConnects(ALICE));
    assertEquals((await clients[4]!.decision).kind, "denied");
    assertEquals([desk.length, server.counts.waiting, errors[0]?.code], [2, 2, "too-many"]);
    for (const [index, client] of clients.slice(0, 4).entries()) {
      desk.decide(index, (await desk.request(index)).accept());
      assertEquals((await client.decision).kind, "accepted");
    }
  }, { maxConcurrent: 2, maxWaiting: 2 });
});

test("stop() denies open requests, or leaves them", async () => {
  for (const open of ["deny", "leave"] as const) {
    const desk = new Desk();
    await withServer(desk.handler, async ({ daemon, server, client, sent }) => {
      const alice = daemon.clientConnects(ALICE);
      const request = await desk.request(0);
      await server.stop({ open });
      await server.closed;
      assertEquals(request.signal.aborted, true);
      if (open === "deny") assertEquals((await alice.decision).kind, "denied");
      await client.pid();
      assertEquals(sent.length, open === "deny" ? 1 : 0);
    });
  }
});

test("stop() denies, or leaves, also requests that have come and were not read yet", async () => {
  for (const open of ["deny", "leave"] as const) {
    const [client, daemon] = await greetedPair();
    await daemon.say(">CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,END\r\n");
    const pid = client.pid();
    await daemon.answer("pid", "SUCCESS: pid=7\r\n");
    await pid;
    const server = serveAuth(client, (request) => request.accept());
    const stopped = server.stop({ open });
    await daemon.answer("state on", "SUCCESS: on\r\n");
    if (open === "deny") {
      const line = `client-deny 0 1 "this server is not served any more" "${REFUSED}"`;
      await daemon.answer(line, "SUCCESS: client-deny command succeeded\r\n");
    }
    assertEquals(await daemon.pending(), false);
    await stopped;
    assertEquals(server.counts.denied, open === "deny" ? 1 : 0);
    await client.close();
  }
});

test("serveAuth() ignores what onError throws, at once or later", async () => {
  const reasons = await unhandledDuring(async () => {
    const onError = (error: AuthError) => {
      if (error.code === "handler") throw new Error("x");
      return Promise.reject(new Error("y"));
    };
    const handler = (request: ClientAuthRequest) => {
      if (request.commonName === "bob") return undefined as unknown as AuthDecision;
      throw new Error("z");
    };
    await withServer(handler, async ({ daemon }) => {
      assertEquals((await daemon.clientConnects(ALICE).decision).kind, "denied");
      assertEquals((await daemon.clientConnects({ commonName: "bob" }).decision).kind, "denied");
    }, { onError });
  });
  assertEquals(reasons, []);
});

test("challenge() asks by denying, and the answers of challenges are read", async () => {
  const handler: AuthHandler = (request) => {
    const { dynamicResponse, staticResponse } = request;
    if (staticResponse?.password === "pw" && staticResponse.response === "é") {
      return request.challenge({ text: "PIN: a:b?", stateId: "s1", echo: true });
    }
    return dynamicResponse?.stateId === "s1" && dynamicResponse.response === "1::2"
      ? request.accept()
      : request.deny("wrong");
  };
  await withServer(handler, async ({ daemon }) => {
    const asked = daemon.clientConnects({ ...ALICE, password: "SCRV1:cHc=:w6k=" });
    assertEquals(await asked.decision, {
      kind: "denied",
      reason: "challenge",
      clientReason: "CRV1:R,E:s1:YWw=:PIN: a:b?",
    });
    const answers = daemon.clientConnects({ ...ALICE, password: "CRV1::s1::1::2" });
    assertEquals((await answers.decision).kind, "accepted");
  });
});

test("a request refuses what could not be sent as it is, and shows no password", async () => {
  const desk = new Desk();
  await withServer(desk.handler, async ({ daemon }) => {
    daemon.clientConnects(ALICE);
    const request = await desk.request(0);
    assertThrows(() => request.accept(["x".repeat(MAX_CONFIG_LINE_BYTES + 1)]), RangeError);
    assertThrows(() => request.accept(["a\nb"]), TypeError);
    assertThrows(() => request.deny("x".repeat(257)), RangeError);
    assertThrows(() => request.deny("x", "a\0"), TypeError);
    assertThrows(() => request.challenge({ text: "x", stateId: "a:b" }), TypeError);
    assertEquals(request.password, "hunter2");
    for (const shown of [inspect(request, { depth: 9 }), JSON.stringify(request)]) {
      assert(!shown.includes("hunter2") && shown.includes("alice"), shown);
    }
  });
});

test("serveAuth() denies open requests when STATE events were dropped: one may have told of a restart", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 4 });
  const desk = new Desk();
  const server = serveAuth(client, desk.handler);
  await daemon.answer("state on", "SUCCESS: on\r\n");
  await daemon.say(">CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,END\r\n");
  const request = await desk.request(0);
  await daemon.say(">STATE:1,WAIT,,,,,,\r\n".repeat(20));
  await daemon.answer(
    `client-deny 0 1 "events were lost" "${REFUSED}"`,
    "SUCCESS: client-deny command succeeded\r\n",
  );
  assertEquals(request.signal.aborted, true);
  await client.close();
  await server.closed;
  assertEquals(server.counts.denied, 1);
});

test("serveAuth() does not serve without STATE events", async () => {
  const [client, daemon] = await greetedPair();
  const server = serveAuth(client, (request) => request.accept());
  await daemon.answer("state on", "ERROR: no\r\n");
  assertEquals((await rejection<ManagementError>(server.closed)).code, "command");
  await client.close();
});

test("serveAuth() reports an answer that OpenVPN does not take", async () => {
  const [client, daemon] = await greetedPair();
  const reported = Promise.withResolvers<AuthError>();
  const server = serveAuth(client, (request) => request.accept(), { onError: reported.resolve });
  await daemon.answer("state on", "SUCCESS: on\r\n");
  await daemon.say(">CLIENT:CONNECT,0,1\r\n>CLIENT:ENV,END\r\n");
  await daemon.answer("client-auth-nt 0 1", "ERROR: client-auth command failed\r\n");
  const { code, cause } = await reported.promise;
  assertEquals([code, (cause as ManagementError).code, server.counts.failed], [
    "not-sent",
    "command",
    1,
  ]);
  await client.close();
});

test("serveAuth() answers a burst, and stops by a signal", async () => {
  const controller = new AbortController();
  await withServer((request) => request.accept(), async ({ daemon, server }) => {
    const clients = Array.from({ length: 2000 }, () => daemon.clientConnects(ALICE));
    for (const { decision } of clients) assertEquals((await decision).kind, "accepted");
    controller.abort();
    await server.closed;
    assertEquals(server.counts.waiting, 0);
  }, { signal: controller.signal, maxConcurrent: 16 });
});

test("serveAuth() refuses limits that are none, and what it could not call", async () => {
  const [client] = await greetedPair();
  const noFunction = null as unknown as () => AuthDecision;
  assertThrows(() => serveAuth(client, noFunction), TypeError, "handler");
  const onError = noFunction;
  assertThrows(() => serveAuth(client, (it) => it.accept(), { onError }), TypeError, "onError");
  for (const limit of ["timeoutMs", "maxConcurrent", "maxWaiting"]) {
    assertThrows(() => serveAuth(client, (it) => it.accept(), { [limit]: 0 }), RangeError);
  }
  for (const name of ["reauth", "unheard"]) {
    assertThrows(() => serveAuth(client, (it) => it.accept(), { [name]: "no" }), TypeError, name);
  }
  const server = serveAuth(client, (it) => it.accept());
  const open = "no" as "deny";
  assert(await rejection(server.stop({ open })) instanceof TypeError);
  await client.close();
});
