/** `serveAuth` decides about the clients of a real OpenVPN, and their managers tell what has reached them. */
import { assert, assertEquals } from "@std/assert";
import {
  type AnswerError,
  type AuthHandler,
  type ClientAuthRequest,
  type CredentialCallbacks,
  type ManagementClient,
  ManagementError,
  provideCredentials,
  serveAuth,
} from "@trunkline/sockets/ovpn";
import { type Live, liveTests, next, state, TCP } from "./ovpn_live_server.ts";
import { rejection } from "./ovpn_fake.ts";

const live = await liveTests();

const AUTH = "--management-client-auth";
/** What a client is told upon whom the handler has not decided. */
const UNDECIDED = "Authentication failed, try again later";
const PASSWORD = "pa:ss wörd";

interface Visitor {
  readonly manager: ManagementClient;
  /** What its callbacks could not answer. */
  readonly errors: readonly AnswerError[];
  /** Gives `CONNECTED`, or why it may not connect. */
  outcome(): Promise<string>;
}

/** A client that is on its way. */
async function visit(
  live: Live,
  username: string,
  { args = [], callbacks = {} }: {
    readonly args?: readonly string[] | undefined;
    readonly callbacks?: Partial<CredentialCallbacks> | undefined;
  } = {},
): Promise<Visitor> {
  const { manager } = await live.client(...args);
  const events = manager.subscribe();
  const errors: AnswerError[] = [];
  provideCredentials(manager, {
    auth: ({ challenge }) => ({ username, password: PASSWORD, response: challenge && "1234" }),
    onError: (error) => void errors.push(error),
    ...callbacks,
  });
  await manager.setStateEvents(true);
  await manager.setEchoEvents(true);
  await manager.setHold(false);
  await manager.holdRelease();
  const outcome = () =>
    next(events, (event) => {
      if (event.type === "STATE" && event.name === "CONNECTED") return event.name;
      if (event.type !== "PASSWORD" || event.kind !== "verification-failed") return undefined;
      // To a question there is an answer, and then another outcome.
      return event.dynamicChallenge === undefined ? event.reason ?? "" : undefined;
    });
  return { manager, errors, outcome };
}

/** What is decided about a client, what it does, and what it hears. */
interface Case {
  readonly decide: AuthHandler;
  readonly callbacks?: Partial<CredentialCallbacks>;
  readonly args?: readonly string[];
  readonly outcome: string;
}

/** By username. */
function cases(): Record<string, Case> {
  const knows = ["--push-peer-info", "--setenv", "IV_SSO", "webauth,openurl,crtext"];
  const page = "https://login.example/in?state=a,b:c&x=%20";
  const seen = { web: Promise.withResolvers<unknown>(), url: Promise.withResolvers<unknown>() };
  return {
    accepted: {
      decide: (request) => {
        assertEquals(request.password, PASSWORD);
        assertEquals([...request.sso], []);
        return request.accept(['push "echo hello"', "# END", "", 'push "echo \\"a  b\\" c"']);
      },
      outcome: "CONNECTED",
    },
    denied: {
      decide: (request) => request.deny('a "reason"', `say "please", 'al' \\ ]`),
      outcome: `say "please", 'al' \\ ]`,
    },
    failing: {
      decide: () => {
        throw new Error("secret");
      },
      outcome: UNDECIDED,
    },
    late: {
      decide: async (request) => {
        await request.pending({ kind: "CR_TEXT", text: "Nobody answers" }, { timeoutMs: 100 });
        // The client is gone before.
        return request.deny(await request.response());
      },
      args: knows,
      outcome: UNDECIDED,
    },
    static: {
      decide: (request) => {
        assertEquals(request.staticResponse, { password: PASSWORD, response: "1234" });
        return request.accept();
      },
      args: ["--static-challenge", "PIN?", "0"],
      outcome: "CONNECTED",
    },
    dynamic: {
      decide: (request) => {
        const { dynamicResponse } = request;
        if (dynamicResponse === undefined) {
          return request.challenge({ text: "Token: which, now?", stateId: "st/4+=", echo: true });
        }
        assertEquals(dynamicResponse, {
          stateId: "st/4+=",
          response: "dynamic|Token: which, now?|true",
        });
        return request.accept();
      },
      callbacks: { challenge: ({ username, message, echo }) => `${username}|${message}|${echo}` },
      args: ["--auth-retry", "interact"],
      outcome: "CONNECTED",
    },
    text: {
      decide: async (request) => {
        assertEquals([...request.sso], ["webauth", "openurl", "crtext"]);
        for (const text of ["Code: a,b?", "And: now?"]) {
          await request.pending({ kind: "CR_TEXT", text, echo: true }, { timeoutMs: 30_000 });
          assertEquals(await request.response(), `${text} ü`);
        }
        return request.accept();
      },
      callbacks: { question: ({ message }) => `${message} ü` },
      args: knows,
      outcome: "CONNECTED",
    },
    web: {
      decide: async (request) => {
        await request.pending({ kind: "WEB_AUTH", url: page, flags: ["hidden", "external"] });
        assertEquals(await seen.web.promise, [page, ["hidden", "external"]]);
        return request.accept();
      },
      callbacks: { webAuth: ({ url, flags }) => seen.web.resolve([url, flags]) },
      args: knows,
      outcome: "CONNECTED",
    },
    url: {
      decide: async (request) => {
        await request.pending({ kind: "OPEN_URL", url: page });
        assertEquals(await seen.url.promise, [page, []]);
        return request.deny("enough", "you have seen it");
      },
      callbacks: { webAuth: ({ url, flags }) => seen.url.resolve([url, flags]) },
      args: knows,
      outcome: "you have seen it",
    },
  };
}

live("serveAuth decides upon many at a time, and each hears what is meant for it", async (live) => {
  const { manager } = await live.server(AUTH, "--duplicate-cn");
  const visits = cases();
  const failed: unknown[] = [];
  const server = serveAuth(manager, (request) => visits[request.username!]!.decide(request), {
    onError: ({ code, cause }, { username }) => failed.push([username, code, String(cause)]),
  });
  const visitors = await Promise.all(
    Object.entries(visits).map(async ([username, it]) => {
      const visitor = await visit(live, username, it);
      assertEquals([username, await visitor.outcome()], [username, it.outcome]);
      return [username, visitor] as const;
    }),
  );
  assertEquals(failed.sort(), [
    ["failing", "handler", "Error: secret"],
    ["late", "timeout", "undefined"],
  ]);
  for (const [username, { errors }] of visitors) {
    const expected = username === "late" ? ["no-callback"] : [];
    assertEquals([username, ...errors.map(({ code }) => code)], [username, ...expected]);
  }
  const { accepted } = Object.fromEntries(visitors);
  const echoes = await accepted!.manager.echoHistory("all");
  assertEquals(echoes.map(({ message }) => message), ["hello", "a  b c"]);
  await manager.pid();
  // The one with a dynamic challenge came twice.
  const counts = { accepted: 5, denied: 5, cancelled: 0, stale: 0, failed: 0 };
  assertEquals(server.counts, { ...counts, running: 0, waiting: 0 });

  const last = visit(live, "last");
  const asked = Promise.withResolvers<ClientAuthRequest>();
  visits["last"] = {
    decide: (request) => {
      asked.resolve(request);
      return new Promise(() => {});
    },
    outcome: UNDECIDED,
  };
  const { signal } = await asked.promise;
  await server.stop();
  assert(signal.aborted);
  assertEquals(await (await last).outcome(), UNDECIDED);
  assertEquals(server.counts.denied, 6);
});

live("serveAuth is asked when a client renews its key, unless it knows it", async (live) => {
  // Before a client is connected a renewal throws it out.
  const args = [AUTH, "--duplicate-cn", "--reneg-sec", "6", ...TCP.server];
  const { daemon, manager } = await live.server(...args);
  const asked: unknown[] = [];
  const decide: AuthHandler = (request) => {
    asked.push([request.kind, request.clientId, request.username, request.password]);
    return request.kind === "CONNECT" ? request.accept() : request.deny("old", "enough of you");
  };
  const first = serveAuth(manager, decide, { reauth: "accept-same" });
  const unknown = await visit(live, "bo", { args: TCP.client });
  assertEquals(await unknown.outcome(), "CONNECTED");
  await first.stop();
  const server = serveAuth(manager, decide, { reauth: "accept-same" });
  const known = await visit(live, "al", { args: TCP.client });
  assertEquals(await known.outcome(), "CONNECTED");

  assertEquals(await unknown.outcome(), "enough of you");
  await daemon.logged(/CMD 'client-auth-nt 1 (?!1')/);
  await server.stop();
  const counts = { accepted: 2, denied: 1, cancelled: 0, stale: 0, failed: 0 };
  assertEquals(server.counts, { ...counts, running: 0, waiting: 0 });
  assertEquals(asked, [
    ["CONNECT", "0", "bo", PASSWORD],
    ["CONNECT", "1", "al", PASSWORD],
    ["REAUTH", "0", "bo", PASSWORD],
  ]);
});

live("serveAuth cancels a request when its client leaves", async (live) => {
  const { daemon, manager } = await live.server(AUTH, ...TCP.server);
  const requests: ClientAuthRequest[] = [];
  const asked = Promise.withResolvers<void>();
  const went = Promise.withResolvers<ManagementError>();
  const answered = Promise.withResolvers<void>();
  const server = serveAuth(manager, async (request) => {
    requests.push(request);
    if (request.clientId !== "0") return request.accept();
    await request.pending({ kind: "CR_TEXT", text: "Who?" });
    asked.resolve();
    went.resolve(await rejection(request.response()));
    answered.resolve();
    return request.accept();
  });
  const leaving = live.login("al", { args: TCP.client });
  await asked.promise;
  assertEquals(server.counts.running, 1);
  await leaving.stop();
  const error = await went.promise;
  assert(error instanceof ManagementError && error.code === "aborted", String(error));
  assertEquals(requests[0]!.signal.reason, error);
  await answered.promise;

  const staying = await visit(live, "bo", { args: TCP.client });
  assertEquals(await staying.outcome(), "CONNECTED");
  await manager.pid();
  const counts = { accepted: 1, denied: 0, cancelled: 1, stale: 0, failed: 0 };
  assertEquals(server.counts, { ...counts, running: 0, waiting: 0 });
  assertEquals(decisions(daemon.log()), ["client-pending-auth 0", "client-auth-nt 1"]);
});

live("serveAuth sends nothing to a client for one from before a restart", async (live) => {
  const { daemon, manager } = await live.server(AUTH);
  const events = manager.subscribe();
  const requests = [
    Promise.withResolvers<ClientAuthRequest>(),
    Promise.withResolvers<ClientAuthRequest>(),
  ] as const;
  const decided = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  let count = 0;
  const server = serveAuth(manager, async (request) => {
    const index = count++ as 0 | 1;
    requests[index].resolve(request);
    await decided[index].promise;
    return index === 0 ? request.accept() : request.deny("no", "not you");
  });
  const before = live.login("al");
  const first = await requests[0].promise;
  // It would go on with the server after the restart.
  await before.stop();
  await manager.sendSignal("SIGUSR1");
  await next(events, state("CONNECTED"));
  assert(first.signal.aborted);

  const after = await visit(live, "bo");
  const second = await requests[1].promise;
  assertEquals([first.clientId, first.keyId], [second.clientId, second.keyId]);
  assertEquals([first.username, second.username], ["al", "bo"]);
  const late = first.pending({ kind: "CR_TEXT", text: "Who?" });
  assertEquals((await rejection<ManagementError>(late)).code, "aborted");
  decided[0].resolve();
  // Whatever that has sent is done before this is answered.
  const [waiting] = (await manager.status()).clients;
  assertEquals([waiting?.clientId, waiting?.authenticated], [second.clientId, false]);
  assertEquals(decisions(daemon.log()), []);
  decided[1].resolve();
  assertEquals(await after.outcome(), "not you");
  await manager.pid();
  const counts = { accepted: 0, denied: 1, cancelled: 1, stale: 0, failed: 0 };
  assertEquals(server.counts, { ...counts, running: 0, waiting: 0 });
  assertEquals(decisions(daemon.log()), ["client-deny 0"]);
});

/** The decisions that OpenVPN was told, with their CIDs. */
function decisions(log: string): string[] {
  return [...log.matchAll(/MANAGEMENT: CMD '(client-[a-z-]+ \d+)/g)].map(([, command]) => command!);
}
