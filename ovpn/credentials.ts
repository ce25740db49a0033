/**
 * Answers for a client: usernames, passwords, challenges, confirmations.
 *
 * @module
 */
import { requireFunction } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import {
  type Answer,
  answerEvents,
  type Answering,
  ask,
  deliver,
  type Open,
  type Report,
  report,
  Slot,
} from "./_answering.ts";
import { toBase64 } from "./_base64.ts";
import { REDACTED, showAs } from "./_redact.ts";
import { AnswerError } from "./answer_error.ts";
import type { ManagementClient } from "./client.ts";
import type {
  AnswerRequest,
  CredentialCallbacks,
  Login,
  WebAuthRequest,
} from "./credential_callbacks.ts";
import type { ManagementEvent } from "./event.ts";
import type { DynamicChallenge, PasswordFailedEvent, PasswordNeedEvent } from "./event_password.ts";
import type {
  ChallengeTextEvent,
  InfoMsgEvent,
  NeedOkEvent,
  NeedStrEvent,
  OpenUrlEvent,
  WebAuthEvent,
} from "./event_request.ts";

/** Of so many names failures are counted, then from the beginning. There are a handful. */
const MAX_FAILED_NAMES = 64;

/** So many events wait for `resumed`. The latest count: OpenVPN waits for one thing at a time. */
const MAX_EARLY_EVENTS = 64;
const IS_EARLY: ReadonlySet<string> = new Set(
  "PASSWORD NEED-OK NEED-STR NEED-CERTIFICATE INFOMSG PROXY REMOTE HOLD STATE".split(" "),
);

/**
 * Answers what an OpenVPN client asks for, by callbacks, from now on (and what it asked before anybody read `client.events`).
 *
 * - Each callback has its own time: while one takes long, the others are called. When OpenVPN does not wait for its answer any more
 *   (it asks for something else, restarts, ends), the `signal` of its request fires and the answer is thrown away. Of restarts tell
 *   `STATE` events: turn them on by `setStateEvents(true)`.
 * - A request that OpenVPN repeats while it is being answered is answered once. What is refused is asked for again, with a higher
 *   `attempt`: whether to try again is the callback's decision. A challenge and the count of attempts are forgotten with the process
 *   that they are of.
 * - What was not answered is told to `onError`, and OpenVPN goes on waiting: `sendSignal("SIGTERM")` ends that.
 *
 * A username alone is only asked for after `setVersion(4)`, and passwords of more than 256 bytes are only taken after `setVersion(5)`,
 * both by OpenVPN 2.7.
 *
 * @example
 * ```ts
 * import { dial, provideCredentials } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = simulateDaemon(); // in life: an OpenVPN with --auth-user-pass and --management-query-passwords
 * const asked = daemon.askPassword("Auth");
 * const client = await dial(await daemon.listen());
 * provideCredentials(client, {
 *   auth: ({ attempt }) => attempt > 1 ? undefined : { username: "alice", password: "secret" },
 *   onError: (error) => console.error(error.message),
 * });
 * console.log((await asked).username); // alice
 * await client.close();
 * await daemon.close();
 * ```
 *
 * @throws {TypeError} if `onError` is no function
 */
export function provideCredentials(
  client: ManagementClient,
  callbacks: CredentialCallbacks,
  options: WaitOptions = {},
): Answering {
  const provider = new Provider(client, callbacks);
  return answerEvents(client, provider.slots, (event) => provider.see(event), options);
}

interface Failures {
  readonly count: number;
  readonly reason: string | undefined;
}

class Provider {
  /** What OpenVPN stands still for. */
  readonly #query: Slot;
  /** What the server waits for. */
  readonly #pending: Slot;
  readonly #client: ManagementClient;
  readonly #callbacks: CredentialCallbacks;
  readonly #report: Report;
  readonly #failures = new Map<string, Failures>();
  /** What to answer instead of the next password of a name. */
  #challenge: (DynamicChallenge & { readonly name: string }) | undefined;
  /** What a new connection has told before `resumed`. */
  #early: ManagementEvent[] | undefined;

  constructor(client: ManagementClient, callbacks: CredentialCallbacks) {
    requireFunction("onError", callbacks.onError);
    this.#client = client;
    this.#callbacks = callbacks;
    this.#report = (error) => callbacks.onError(error);
    this.#query = new Slot(this.#report);
    this.#pending = new Slot(this.#report);
  }

  get slots(): readonly Slot[] {
    return [this.#query, this.#pending];
  }

  async see(event: ManagementEvent): Promise<void> {
    if (event.type === "disconnected") {
      // What OpenVPN itself waits for it asks again, but not what its server does.
      if (!this.#pending.busy) return;
      const text = "INFOMSG: the connection ended before the answer to the server was sent";
      report(this.#report, new AnswerError("not-sent", text, { cause: event.error }));
    } else if (event.type === "connected") {
      // Only `resumed` tells whose questions these are: a challenge of one process is not for another.
      this.#early = [];
    } else if (event.type === "resumed") {
      if (event.gap?.daemon === "replaced" || event.gap?.daemon === "unknown") this.#forget();
      const early = this.#early ?? [];
      this.#early = undefined;
      for (const it of early) await this.#take(it);
    } else if (this.#early === undefined) {
      await this.#take(event);
    } else if (IS_EARLY.has(event.type)) {
      this.#early.push(event);
      if (this.#early.length > MAX_EARLY_EVENTS) this.#early.shift();
    }
  }

  async #take(event: ManagementEvent): Promise<void> {
    switch (event.type) {
      case "PASSWORD":
        if (event.kind === "verification-failed") return this.#failed(event);
        if (event.kind !== "need" || await this.#query.repeats(event)) return;
        this.#pending.withdraw();
        return this.#query.open(event, (open) => this.#need(event, open));
      case "NEED-OK":
      case "NEED-STR":
        if (await this.#query.repeats(event)) return;
        return this.#query.open(event, (open) => this.#confirm(event, open));
      case "INFOMSG":
        return await this.#info(event);
      // It waits for one thing at a time.
      case "NEED-CERTIFICATE":
      case "PROXY":
      case "REMOTE":
        return this.#query.withdraw();
      case "HOLD":
        return this.#restart();
      case "STATE":
        if (event.name === "RECONNECTING" || event.name === "EXITING") return this.#restart();
        if (event.name !== "CONNECTED") return;
        this.#forget();
        return this.#pending.withdraw();
    }
  }

  #forget(): void {
    this.#failures.clear();
    this.#challenge = undefined;
  }

  #restart(): void {
    this.#query.withdraw();
    this.#pending.withdraw();
  }

  #failed({ name, reason, dynamicChallenge }: PasswordFailedEvent): void {
    // What is being asked stays so: it was another answer that was refused.
    this.#pending.withdraw();
    if (dynamicChallenge !== undefined) {
      this.#challenge = { ...dynamicChallenge, name };
      return;
    }
    this.#challenge = undefined;
    // The state in it is a secret.
    const unreadable = reason?.startsWith("CRV1:") ?? false;
    if (unreadable) {
      const text = `Verification Failed: '${name}': the challenge in it cannot be read`;
      report(this.#report, new AnswerError("unreadable-challenge", text));
    }
    const count = (this.#failures.get(name)?.count ?? 0) + 1;
    if (count === 1 && this.#failures.size >= MAX_FAILED_NAMES) this.#failures.clear();
    this.#failures.set(name, { count, reason: unreadable ? undefined : reason });
  }

  #request(name: string, message: string, { signal }: Open): AnswerRequest {
    const { count, reason } = this.#failures.get(name) ?? { count: 0, reason: undefined };
    return { name, message, attempt: count + 1, reason, signal };
  }

  #ask<R, T>(
    what: string,
    callback: ((request: R) => Answer<T>) | undefined,
    request: R & AnswerRequest,
  ): Promise<T> {
    return ask(what, this.#callbacks, callback, request);
  }

  async #need(event: PasswordNeedEvent, open: Open): Promise<void> {
    const { name } = event;
    const what = `Need '${name}' ${event.what}`;
    const challenge = this.#challenge?.name === name ? this.#challenge : undefined;
    const { username, password } = await this.#answerNeed(event, what, open);
    if (event.what !== "password") requireText(what, username);
    if (event.what !== "username") requireText(what, password);
    const { signal } = open;
    await deliver(what, async () => {
      if (password === undefined) open.sending();
      if (username !== undefined) await this.#client.sendUsername(name, username, { signal });
      if (password === undefined) return;
      open.sending();
      await this.#client.sendPassword(name, password, { signal });
    });
    // The next one may have come before the reply to this answer, in the same chunk.
    if (event.what === "username/password" && this.#challenge === challenge) {
      this.#challenge = undefined;
    }
  }

  async #answerNeed(event: PasswordNeedEvent, what: string, open: Open): Promise<Partial<Login>> {
    const { name, staticChallenge } = event;
    const { auth, proxy, privateKey, pin, username } = this.#callbacks;
    const request = this.#request(name, staticChallenge?.text ?? "", open);
    switch (event.what) {
      case "username":
        return { username: await this.#ask(what, username, request) };
      case "password": {
        const callback = name === "Private Key"
          ? privateKey
          : name.endsWith(" token")
          ? pin
          : undefined;
        return { password: await this.#ask(what, callback, request) };
      }
      case "username/password": {
        if (this.#challenge?.name === name) return await this.#answerChallenge(what, open);
        if (name.endsWith(" Proxy")) return await this.#ask(what, proxy, request);
        if (name !== "Auth") return await this.#ask(what, undefined, request);
        const login = await this.#ask(what, auth, { ...request, challenge: staticChallenge });
        if (staticChallenge === undefined) return login;
        const { username, password, response } = login;
        requireText(what, response);
        requireText(what, password);
        return {
          username,
          password: staticChallenge.concat
            ? password + response
            : `SCRV1:${toBase64(password)}:${toBase64(response)}`,
        };
      }
    }
  }

  async #answerChallenge(what: string, open: Open): Promise<Login> {
    const { name, text, echo, responseRequired, stateId, username } = this.#challenge!;
    const request = this.#request(name, text, open);
    const response = await this.#ask(`${what} (challenge)`, this.#callbacks.challenge, {
      ...request,
      echo,
      responseRequired,
      username,
    });
    return { username, password: `CRV1::${stateId}::${responseRequired ? response : ""}` };
  }

  async #confirm({ type, name, message }: NeedOkEvent | NeedStrEvent, open: Open): Promise<void> {
    const what = `${type} '${name}'`;
    const request = this.#request(name, message, open);
    const { signal } = open;
    if (type === "NEED-OK") {
      const ok = await this.#ask(what, this.#callbacks.needOk, request);
      open.sending();
      const answer = ok === true ? "ok" : "cancel";
      await deliver(what, () => this.#client.needOk(name, answer, { signal }));
    } else {
      const text = await this.#ask(what, this.#callbacks.needStr, request);
      requireText(what, text);
      open.sending();
      await deliver(what, () => this.#client.needStr(name, text, { signal }));
    }
  }

  async #info(event: InfoMsgEvent): Promise<void> {
    if (event.kind === "other") return;
    // A page is not opened twice, but a question comes again when the answer was wrong.
    if (await this.#pending.repeats(event, { whole: event.kind !== "CR_TEXT" })) return;
    this.#pending.open(
      event,
      (open) => event.kind === "CR_TEXT" ? this.#question(event, open) : this.#page(event, open),
    );
  }

  async #question({ flags, text }: ChallengeTextEvent, open: Open): Promise<void> {
    const what = "CR_TEXT";
    const responseRequired = flags.includes("R");
    const request = this.#request(what, text, open);
    const { question } = this.#callbacks;
    const details = { ...request, echo: flags.includes("E"), responseRequired };
    const response = await this.#ask(what, question, details);
    if (!responseRequired) return;
    requireText(what, response);
    open.sending();
    await deliver(what, () => this.#client.crResponse(response, { signal: open.signal }));
  }

  async #page(event: WebAuthEvent | OpenUrlEvent, open: Open): Promise<void> {
    const { kind, url } = event;
    if (!/^https?:$/.test(URL.parse(url)?.protocol ?? "")) {
      throw new AnswerError("unsafe-url", `${kind}: the server's url is not http or https`);
    }
    const flags = kind === "WEB_AUTH" ? event.flags : [];
    const request: WebAuthRequest = { ...this.#request(kind, "", open), flags, url };
    showAs(request, () => ({ ...request, flags: REDACTED, url: REDACTED }));
    const { webAuth } = this.#callbacks;
    const opened = webAuth === undefined ? undefined : async (it: WebAuthRequest) => {
      await webAuth.call(this.#callbacks, it);
      return true;
    };
    await this.#ask(kind, opened, request);
  }
}

/** Callers in JavaScript give anything, and it must not be sent as `[object Object]`. */
function requireText(what: string, text: string | undefined): asserts text is string {
  if (typeof text === "string") return;
  throw new AnswerError(
    "invalid-answer",
    `${what}: it takes a text for each part of the answer, and there is none`,
  );
}
