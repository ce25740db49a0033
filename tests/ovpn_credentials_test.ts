/** `provideCredentials`, against a simulated OpenVPN. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { inspect } from "node:util";
import { connPair } from "@trunkline/sockets/auto";
import {
  type AnswerError,
  type AnswerRequest,
  type ChallengeRequest,
  CommandError,
  type CredentialCallbacks,
  type LoginRequest,
  ManagementClient,
  provideCredentials,
  type QuestionRequest,
  type WebAuthRequest,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon, type SimulatorOptions } from "@trunkline/sockets/ovpn/testing";
import { rejection } from "./ovpn_fake.ts";
import { unhandledDuring } from "./unhandled.ts";

/** What a test waits for, one after the other. */
class Seen<T> {
  readonly all: T[] = [];
  #wake = Promise.withResolvers<void>();

  readonly push = (value: T): void => {
    this.all.push(value);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  };

  async at(index: number): Promise<T> {
    while (this.all.length <= index) await this.#wake.promise;
    return this.all[index]!;
  }
}

function start(
  callbacks: Omit<CredentialCallbacks, "onError">,
  options: SimulatorOptions & { signal?: AbortSignal } = {},
) {
  const { signal, ...simulated } = options;
  const commands: string[] = [];
  const daemon = simulateDaemon({
    onCommand: (parameters) => void commands.push(parameters.join("|")),
    ...simulated,
  });
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  const errors = new Seen<AnswerError>();
  const provider = provideCredentials(client, { ...callbacks, onError: errors.push }, { signal });
  const end = async () => {
    await client.close();
    await daemon.close();
    await provider.closed;
  };
  return { daemon, client, commands, errors, provider, end };
}

/** The signal fires. */
function fired(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true })
  );
}

const LOGIN = { username: 'al "x"', password: "p\\ š" };

test("provideCredentials() answers every kind of request by its callback", async () => {
  const names = new Seen<string>();
  const tell = <T>(answer: T) => ({ name, message }: AnswerRequest): T => {
    names.push(`${name}:${message}`);
    return answer;
  };
  const { daemon, errors, end, client } = start({
    auth: tell(LOGIN),
    username: tell("only"),
    proxy: tell({ username: "px", password: "" }),
    privateKey: tell("key"),
    pin: tell("1234"),
    needOk: tell(true),
    needStr: tell("a 'text'"),
  }, { version: "2.7.6" });
  await client.setVersion(5);
  assertEquals(await daemon.askPassword("Auth"), LOGIN);
  assertEquals((await daemon.askPassword("Auth", { wants: "username" })).username, "only");
  assertEquals(await daemon.askPassword("HTTP Proxy"), { username: "px", password: "" });
  assertEquals(await daemon.askPassword("SOCKS Proxy"), { username: "px", password: "" });
  const password = async (name: string) =>
    (await daemon.askPassword(name, { wants: "password" })).password;
  assertEquals(await password("Private Key"), "key");
  assertEquals(await password("My token"), "1234");
  assertEquals(await daemon.needOk("token-insertion-request", "Please: insert"), "ok");
  assertEquals(await daemon.needStr("pkcs11-id-request", "which"), "a 'text'");
  assertEquals(errors.all, []);
  assertEquals(names.all, [
    "Auth:",
    "Auth:",
    "HTTP Proxy:",
    "SOCKS Proxy:",
    "Private Key:",
    "My token:",
    "token-insertion-request:Please: insert",
    "pkcs11-id-request:which",
  ]);
  await end();
});

test("provideCredentials() sends a password that does not fit into a line where OpenVPN takes it", async () => {
  const long = "x".repeat(1000);
  const { daemon, client, end } = start({ privateKey: () => long }, { version: "2.7.6" });
  await client.setVersion(5);
  const { password } = await daemon.askPassword("Private Key", { wants: "password" });
  assertEquals(password, long);
  await end();
});

test("provideCredentials() answers a static challenge in both forms", async () => {
  const requests = new Seen<LoginRequest>();
  const { daemon, end } = start({
    auth: (request) => {
      requests.push(request);
      return { ...LOGIN, response: "12:3" };
    },
  });
  const plain = await daemon.askPassword("Auth", {
    challenge: { text: "PIN, or: SC:", echo: true },
  });
  // "p\\ š" and "12:3"
  assertEquals(plain.password, "SCRV1:cFwgxaE=:MTI6Mw==");
  const concat = await daemon.askPassword("Auth", { challenge: { text: "PIN", concat: true } });
  assertEquals(concat.password, "p\\ š12:3");
  assertEquals(requests.all.map(({ message, challenge }) => [message, challenge]), [
    ["PIN, or: SC:", { text: "PIN, or: SC:", echo: true, concat: false }],
    ["PIN", { text: "PIN", echo: false, concat: true }],
  ]);
  await end();
});

test("provideCredentials() answers the next password after a dynamic challenge", async () => {
  const requests = new Seen<ChallengeRequest>();
  let logins = 0;
  const { daemon, end, errors } = start({
    auth: () => (logins++, LOGIN),
    challenge: (request) => {
      requests.push(request);
      return "654 321";
    },
  });
  await daemon.askPassword("Auth");
  daemon.verificationFailed("Auth", "CRV1:R,E:Om01u7:Y3Ix:Please: enter the PIN");
  daemon.restart();
  assertEquals(await daemon.askPassword("Auth"), {
    username: "cr1",
    password: "CRV1::Om01u7::654 321",
  });
  // One that has only to be confirmed.
  daemon.verificationFailed("Auth", "CRV1::st/2+x==:Y3Ix:Approve, then OK");
  assertEquals((await daemon.askPassword("Auth")).password, "CRV1::st/2+x==::");
  // It is used up.
  assertEquals(await daemon.askPassword("Auth"), LOGIN);
  assertEquals(logins, 2);
  assertEquals(
    requests.all.map((it) => [it.message, it.echo, it.responseRequired, it.username, it.attempt]),
    [
      ["Please: enter the PIN", true, true, "cr1", 1],
      ["Approve, then OK", false, false, "cr1", 1],
    ],
  );
  // A password that is refused later is asked for as such.
  daemon.verificationFailed("Auth", "CRV1:R:state:Y3Ix:again");
  daemon.verificationFailed("Auth", "locked");
  assertEquals(await daemon.askPassword("Auth"), LOGIN);
  assertEquals(errors.all, []);
  await end();
});

test("provideCredentials() counts what was refused, by name, until OpenVPN is connected", async () => {
  const requests = new Seen<AnswerRequest>();
  const { daemon, client, end } = start({
    auth: (request) => (requests.push(request), LOGIN),
    privateKey: (request) => (requests.push(request), "x"),
  });
  await client.setStateEvents(true);
  await daemon.askPassword("Private Key", { wants: "password" });
  daemon.verificationFailed("Private Key");
  await daemon.askPassword("Private Key", { wants: "password" });
  daemon.verificationFailed("Private Key");
  await daemon.askPassword("Private Key", { wants: "password" });
  await daemon.askPassword("Auth");
  daemon.verificationFailed("Auth", "bad ['otp']");
  await daemon.askPassword("Auth");
  daemon.state("CONNECTED", "SUCCESS");
  await daemon.askPassword("Auth");
  assertEquals(requests.all.map(({ name, attempt, reason }) => [name, attempt, reason]), [
    ["Private Key", 1, undefined],
    ["Private Key", 2, undefined],
    ["Private Key", 3, undefined],
    ["Auth", 1, undefined],
    ["Auth", 2, "bad ['otp']"],
    ["Auth", 1, undefined],
  ]);
  await end();
});

test("provideCredentials() answers the same question as often as it is really asked", async () => {
  let calls = 0;
  const { daemon, errors, end } = start({ needOk: () => (calls++, true) });
  const asked = Array.from({ length: 50 }, () => daemon.needOk("token", "insert it"));
  assertEquals(await Promise.all(asked), asked.map(() => "ok"));
  assertEquals([calls, errors.all], [50, []]);
  await end();
});

test("provideCredentials() answers a request that is repeated once, and throws away a late answer", async () => {
  const requests = new Seen<AnswerRequest>();
  const answer = Promise.withResolvers<string>();
  const { daemon, client, commands, errors, end } = start({
    privateKey: (request) => (requests.push(request), answer.promise),
    needOk: () => false,
  });
  await client.setStateEvents(true);
  const first = daemon.askPassword("Private Key", { wants: "password" });
  first.catch(() => {});
  daemon.send(">PASSWORD:Need 'Private Key' password");
  const { signal } = await requests.at(0);
  daemon.log("nothing stops");
  daemon.restart();
  await fired(signal);
  assertEquals(requests.all.length, 1);
  answer.resolve("too late");
  assertEquals(await daemon.needOk("x", "y"), "cancel");
  assert(!commands.some((command) => command.includes("too late")));
  assertEquals(errors.all, []);
  await end();
});

test("provideCredentials() goes on with others while a callback waits", async () => {
  const requests = new Seen<QuestionRequest>();
  const { daemon, client, end } = start({
    question: (request) => (requests.push(request), new Promise(() => {})),
    needStr: () => "s",
    auth: () => LOGIN,
  });
  await client.ready;
  daemon.send(">INFOMSG:CR_TEXT:R,E:The code");
  const { signal, message, echo } = await requests.at(0);
  assertEquals([message, echo], ["The code", true]);
  assertEquals(await daemon.needStr("a", "b"), "s");
  assertEquals(signal.aborted, false);
  // A new login ends what the old one waited for.
  await daemon.askPassword("Auth");
  assertEquals(signal.aborted, true);
  await end();
});

test("provideCredentials() tells of everything that it cannot answer, and goes on", async () => {
  const wrong = new Error("no keyboard");
  let next: () => unknown = () => undefined;
  const { daemon, client, errors, end } = start({
    auth: (() => next()) as NonNullable<CredentialCallbacks["auth"]>,
    needOk: () => true,
  });
  const codes: string[] = [];
  const messages: string[] = [];
  const expect = async (give: () => unknown, name = "Auth") => {
    next = give;
    const stop = new AbortController();
    const asked = daemon.askPassword(name, { signal: stop.signal });
    asked.catch(() => {});
    const error = await errors.at(codes.length);
    codes.push(error.code);
    messages.push(inspect(error));
    stop.abort();
    assertEquals(await daemon.needOk("x", "y"), "ok");
    return error;
  };
  await client.ready;
  await expect(() => undefined);
  assertEquals((await expect(() => Promise.reject(wrong))).cause, wrong);
  await expect(() => {
    throw wrong;
  });
  await expect(() => ({ username: "secret-x" }));
  await expect(() => ({ username: "a", password: 1234567 }));
  await expect(() => ({ username: "a", password: "secret\n" }));
  await expect(() => ({ username: "a", password: `secret${"x".repeat(300)}` }));
  await expect(() => LOGIN, "Something Else");
  assertEquals(codes, [
    "unanswered",
    "callback",
    "callback",
    "invalid-answer",
    "invalid-answer",
    "invalid-answer",
    "invalid-answer",
    "no-callback",
  ]);
  assert(!messages.some((text) => /secret|1234567/.test(text)), messages.join("\n"));
  await end();
});

test("provideCredentials() tells that OpenVPN refused an answer", async () => {
  const { daemon, client, errors, end } = start({ needOk: () => true });
  await client.ready;
  daemon.send(">NEED-OK:Need 'x' confirmation MSG:nobody waits for it");
  const error = await errors.at(0);
  assertEquals(error.code, "not-sent");
  assert(error.cause instanceof CommandError);
  await end();
});

test("provideCredentials() refuses an onError that it could not call", async () => {
  const client = new ManagementClient(connPair()[0], { closeTimeoutMs: 50 });
  for (const onError of [undefined, null, "x", {}]) {
    const callbacks = { onError } as unknown as CredentialCallbacks;
    assertThrows(() => provideCredentials(client, callbacks), TypeError, "onError");
  }
  await client.close();
});

test("provideCredentials() ignores what onError throws, at once or later", async () => {
  const failures = [
    () => {
      throw new Error("x");
    },
    () => Promise.reject(new Error("y")),
  ];
  const reasons = await unhandledDuring(async () => {
    for (const fail of failures) {
      const daemon = simulateDaemon();
      const [ours, theirs] = connPair();
      daemon.serve(theirs);
      const client = new ManagementClient(ours);
      const told = Promise.withResolvers<void>();
      provideCredentials(client, {
        onError() {
          told.resolve();
          return fail();
        },
        needOk: () => true,
      });
      await client.ready;
      daemon.needStr("a", "b").catch(() => {});
      await told.promise;
      daemon.restart();
      assertEquals(await daemon.needOk("a", "b"), "ok");
      await client.close();
      await daemon.close();
    }
  });
  assertEquals(reasons, []);
});

test("provideCredentials() opens pages once, and only those of the web", async () => {
  const pages = new Seen<WebAuthRequest>();
  const { daemon, client, errors, end } = start({ webAuth: pages.push });
  await client.setStateEvents(true);
  const url = "https://sso.example/auth?state=AbC123";
  daemon.send(`>INFOMSG:WEB_AUTH:external,proxy=secret-host:${url}`);
  daemon.send(`>INFOMSG:WEB_AUTH:external:${url}`);
  const page = await pages.at(0);
  await pages.at(1);
  daemon.send(`>INFOMSG:WEB_AUTH:external:${url}`);
  daemon.send(`>INFOMSG:OPEN_URL:${url}2`);
  await pages.at(2);
  assertEquals(
    pages.all.map((it) => [it.name, it.url, it.flags]),
    [
      ["WEB_AUTH", url, ["external", "proxy=secret-host"]],
      ["WEB_AUTH", url, ["external"]],
      ["OPEN_URL", `${url}2`, []],
    ].slice(0, 3),
  );
  assert(!/AbC123|secret/.test(`${inspect(page)}${JSON.stringify(page)}`));
  for (const bad of ["javascript:alert(1)", "file:///etc/passwd", "no url"]) {
    daemon.send(`>INFOMSG:OPEN_URL:${bad}`);
  }
  await errors.at(2);
  assertEquals(errors.all.map(({ code }) => code), ["unsafe-url", "unsafe-url", "unsafe-url"]);
  assert(!inspect(errors.all).includes("passwd"));
  daemon.send(`>INFOMSG:OPEN_URL:${url}`);
  const { signal } = await pages.at(3);
  assertEquals(signal.aborted, false);
  daemon.state("CONNECTED", "SUCCESS");
  await fired(signal);
  await end();
});

test("provideCredentials() answers a question as often as it is asked", async () => {
  let calls = 0;
  const { daemon, client, end } = start({ question: () => `code ${++calls}` });
  await client.holdRelease();
  for (const round of [1, 2]) {
    daemon.send(">INFOMSG:CR_TEXT:R:The code");
    assertEquals(atob(await daemon.crResponses.take()), `code ${round}`);
  }
  daemon.send(">INFOMSG:CR_TEXT::Just to read");
  daemon.send(">INFOMSG:CR_TEXT:R:The code");
  assertEquals(atob(await daemon.crResponses.take()), "code 4");
  await end();
});

test("provideCredentials() ends with stop(), its signal and the connection", async () => {
  const requests = new Seen<AnswerRequest>();
  const needStr = (
    request: AnswerRequest,
  ) => (requests.push(request), new Promise<never>(() => {}));
  const stopped = start({ needStr });
  const asked = stopped.daemon.needStr("a", "b");
  asked.catch(() => {});
  const { signal } = await requests.at(0);
  stopped.provider.stop();
  stopped.provider.stop();
  await stopped.provider.closed;
  assertEquals(signal.aborted, true);
  assertEquals(await stopped.client.pid() > 0, true);
  await stopped.end();

  const controller = new AbortController();
  const aborted = start({ needStr }, { signal: controller.signal });
  aborted.daemon.needStr("a", "b").catch(() => {});
  await requests.at(1);
  controller.abort();
  await aborted.provider.closed;
  assertEquals(requests.all[1]?.signal.aborted, true);
  await aborted.end();

  const never = start({ needStr }, { signal: AbortSignal.abort() });
  await never.provider.closed;
  await never.end();

  const lost = start({ needStr });
  lost.daemon.needStr("a", "b").catch(() => {});
  const last = await requests.at(2);
  await lost.daemon.close();
  await lost.provider.closed;
  assertEquals(last.signal.aborted, true);
  await lost.end();
});

test("provideCredentials() tells of a challenge that it cannot read", async () => {
  const requests = new Seen<AnswerRequest>();
  const { daemon, client, errors, end } = start({
    auth: (request) => (requests.push(request), LOGIN),
  });
  await client.ready;
  daemon.verificationFailed("Auth", "CRV1:R,E:secret-state");
  assertEquals((await errors.at(0)).code, "unreadable-challenge");
  assert(!inspect(errors.all).includes("secret-state"));
  assertEquals(await daemon.askPassword("Auth"), LOGIN);
  assertEquals([requests.all[0]?.attempt, requests.all[0]?.reason], [2, undefined]);
  await end();
});

test("provideCredentials() rejects closed when it has lost requests", async () => {
  const daemon = simulateDaemon();
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours, { maxBufferedEvents: 4 });
  await client.ready;
  const provider = provideCredentials(client, { onError: () => {} });
  for (let i = 0; i < 200; i++) daemon.send(`>NEED-OK:Need '${i}' confirmation MSG:x`);
  await client.pid();
  assertEquals((await rejection<Error & { code: string }>(provider.closed)).code, "overflow");
  await client.close();
  await daemon.close();
});

test("provideCredentials() counts failures of 64 names", async () => {
  const requests = new Seen<AnswerRequest>();
  const { daemon, client, end } = start({
    pin: (request) => (requests.push(request), "1"),
  });
  await client.ready;
  const pin = (name: string) => daemon.askPassword(name, { wants: "password" });
  for (let i = 0; i < 64; i++) daemon.verificationFailed(`${i} token`);
  await pin("0 token");
  await pin("63 token");
  daemon.verificationFailed("64 token");
  await pin("0 token");
  await pin("64 token");
  assertEquals(requests.all.map(({ attempt }) => attempt), [2, 2, 1, 2]);
  await end();
});

test("provideCredentials() calls the methods of an object on it", async () => {
  class Vault implements CredentialCallbacks {
    readonly #key = "of the vault";
    readonly #pages: string[] = [];
    readonly opened = new Seen<readonly string[]>();

    privateKey(): string {
      return this.#key;
    }

    webAuth({ url }: WebAuthRequest): void {
      this.#pages.push(url);
      this.opened.push(this.#pages);
    }

    onError(error: AnswerError): void {
      throw error;
    }
  }
  const vault = new Vault();
  const daemon = simulateDaemon();
  const [ours, theirs] = connPair();
  daemon.serve(theirs);
  const client = new ManagementClient(ours);
  provideCredentials(client, vault);
  const { password } = await daemon.askPassword("Private Key", { wants: "password" });
  assertEquals(password, "of the vault");
  daemon.send(">INFOMSG:OPEN_URL:https://sso.example/");
  assertEquals(await vault.opened.at(0), ["https://sso.example/"]);
  await client.close();
  await daemon.close();
});

test("a dynamic challenge that comes with the reply to the password is answered", async () => {
  for (let round = 0; round < 2; round++) {
    const daemon = simulateDaemon();
    const [ours, theirs] = connPair();
    daemon.serve(theirs);
    const client = new ManagementClient(ours);
    provideCredentials(client, {
      auth: () => ({ username: "al", password: "secret" }),
      challenge: ({ message }) => `answer to ${message}`,
      onError: () => {},
    });
    assertEquals((await daemon.askPassword("Auth")).password, "secret");
    // Nobody has read the reply to it yet.
    daemon.verificationFailed("Auth", "CRV1:R,E:one:YWw=:One?");
    daemon.state("RECONNECTING", "auth-failure");
    assertEquals((await daemon.askPassword("Auth")).password, "CRV1::one::answer to One?");
    daemon.verificationFailed("Auth", "CRV1:R,E:two:YWw=:Two?");
    assertEquals((await daemon.askPassword("Auth")).password, "CRV1::two::answer to Two?");
    await client.pid();
    // A challenge is answered once.
    assertEquals((await daemon.askPassword("Auth")).password, "secret");
    await client.close();
    await daemon.close();
  }
});
