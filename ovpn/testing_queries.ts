/**
 * What a simulated OpenVPN waits for its manager to answer: a hold, credentials, confirmations, signatures, remotes, proxies.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import { fromBase64 } from "./_base64.ts";
import { type Commands, type Core, SimulationError } from "./testing_core.ts";

/** What a password query may ask for. */
export type Wanted = "username/password" | "password" | "username";

type QueryKind =
  | "hold"
  | "password"
  | "needok-confirmation"
  | "needstr-string"
  | "certificate"
  | "signature"
  | "remote"
  | "proxy";

interface Query {
  readonly kind: QueryKind;
  /** What answers to a password or confirmation have to name. */
  readonly name: string;
  /** The request, told again to every new manager. */
  readonly line: string;
  readonly answer: (answer: readonly string[]) => void;
  readonly fail: (error: SimulationError) => void;
  readonly wants?: Wanted;
  username?: string;
}

/** One query at a time; others wait for it, as in the single thread of an OpenVPN. */
export class Queries {
  readonly #core: Core;
  readonly #waiting: Query[] = [];

  /** Makes the queries of `core`. */
  constructor(core: Core) {
    this.#core = core;
  }

  /** True while held. */
  get held(): boolean {
    return this.#current?.kind === "hold";
  }

  /** True while a username or password is waited for. */
  get wantsPassword(): boolean {
    return this.#current?.kind === "password";
  }

  get #current(): Query | undefined {
    return this.#waiting[0];
  }

  /** Tells the present request, to a new manager or once more. */
  repeat(): void {
    if (this.#current !== undefined) this.#core.say(this.#current.line);
  }

  /** Waits for an answer. */
  ask(
    kind: QueryKind,
    name: string,
    line: string,
    { signal, wants }: WaitOptions & { readonly wants?: Wanted } = {},
  ): Promise<readonly string[]> {
    const { promise, resolve, reject } = Promise.withResolvers<readonly string[]>();
    const onAbort = () => {
      const query = this.#waiting.find(({ answer }) => answer === resolve);
      if (query !== undefined) this.#remove(query);
      reject(
        new SimulationError("aborted", `waiting for a ${kind}: aborted`, { cause: signal?.reason }),
      );
    };
    if (signal?.aborted) onAbort();
    else {
      signal?.addEventListener("abort", onAbort, { once: true });
      const query: Query = {
        ...(wants === undefined ? {} : { wants }),
        kind,
        name,
        line,
        answer: resolve,
        fail: reject,
      };
      if (this.#waiting.push(query) === 1) this.repeat();
    }
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /** Gives up everything that is waited for. */
  fail(code: "exited" | "restarted"): void {
    for (const { kind, fail } of this.#waiting.splice(0)) {
      fail(new SimulationError(code, `waiting for a ${kind}: the daemon ${code}`));
    }
  }

  /** The commands that answer. */
  commands(): Commands {
    const confirmation = (kind: "needok-confirmation" | "needstr-string") => ({
      needs: 2,
      run: ([name = "", text = ""]: readonly string[]) => {
        if (this.#accepts(kind, name)) this.#settle([text]);
      },
    });
    return {
      hold: { run: ([what]) => this.#hold(what) },
      needok: confirmation("needok-confirmation"),
      needstr: confirmation("needstr-string"),
      username: { needs: 2, run: ([name = "", text = ""]) => this.#username(name, text) },
      password: this.#passwordCommand(),
      certificate: { run: () => this.#body("certificate", "certificate", () => "certificate") },
      "pk-sig": { run: () => this.#body("signature", "pk-sig", () => this.#signName()) },
      "rsa-sig": { run: () => this.#body("signature", "rsa-sig", () => this.#signName()) },
      remote: { needs: 1, atLeast: true, run: (args) => this.#remote(args) },
      proxy: { needs: 1, atLeast: true, run: (args) => this.#proxy(args) },
    };
  }

  #remove(query: Query): void {
    const first = query === this.#current;
    this.#waiting.splice(this.#waiting.indexOf(query), 1);
    if (first) this.repeat();
  }

  /** Ends the present query; the next one is asked when the answer to the command is out. */
  #settle(answer: readonly string[]): void {
    const query = this.#waiting.shift();
    this.#core.link?.afterRead(() => this.repeat());
    query?.answer(answer);
  }

  #hold(what: string | undefined): void {
    const core = this.#core;
    if (what === undefined) {
      core.say(`SUCCESS: hold=${core.hold ? 1 : 0}`);
    } else if (what === "on" || what === "off") {
      core.hold = what === "on";
      core.say(`SUCCESS: hold flag set to ${what.toUpperCase()}`);
    } else if (what === "release") {
      core.say("SUCCESS: hold release succeeded");
      if (this.held) this.#settle([]);
    } else {
      core.say("ERROR: bad hold command parameter");
    }
  }

  /** Answers for `kind`; true if it is what is wanted. */
  #accepts(
    kind: "needok-confirmation" | "needstr-string" | "username" | "password",
    name: string,
  ): boolean {
    const say = (text: string) => this.#core.say(text);
    const query = this.#current;
    const wanted = query !== undefined &&
      (query.kind === "password"
        ? (query.wants ?? "").split("/").includes(kind)
        : query.kind === kind);
    if (!wanted) {
      say(`ERROR: no ${kind} is currently needed at this time`);
    } else if (query.name !== name) {
      say(`ERROR: ${kind} of type '${name}' entered, but we need one of type '${query.name}'`);
    } else {
      say(`SUCCESS: '${name}' ${kind} entered, but not yet verified`);
      return true;
    }
    return false;
  }

  #username(name: string, text: string): void {
    const query = this.#current;
    if (!this.#accepts("username", name) || query === undefined) return;
    query.username = text;
    if (query.wants === "username") this.#settle([text, ""]);
  }

  #passwordCommand(): Commands[string] {
    const core = this.#core;
    return {
      get needs() {
        return core.is27 && core.clientVersion >= 5 ? 1 : 2;
      },
      run: ([name = "", text]) => {
        if (text !== undefined) this.#password(name, text);
        // Not needed: refused at this line, and the body is run as commands.
        else if (this.#wantsPassword(name)) {
          core.openBody((lines) => this.#password(name, passwordFromBase64(lines.join(""))));
        } else this.#accepts("password", name);
      },
    };
  }

  #wantsPassword(name: string): boolean {
    const query = this.#current;
    return query?.kind === "password" && query.name === name && query.wants !== "username";
  }

  #password(name: string, text: string): void {
    const query = this.#current;
    if (!this.#accepts("password", name) || query === undefined) return;
    // Whichever comes first waits for the other one.
    if (query.wants === "password" || query.username !== undefined) {
      this.#settle([query.username ?? "", text]);
    }
  }

  #signName(): string {
    return this.#core.clientVersion <= 1 ? "rsa-sign" : "pk-sign";
  }

  #body(kind: "certificate" | "signature", command: string, name: () => string): void {
    const core = this.#core;
    if (this.#current?.kind !== kind) {
      core.say(`ERROR: The ${command} command is not currently available`);
      return;
    }
    core.openBody((lines) => {
      // It comes after the answers to what was sent together with the body.
      core.link?.afterRead(() => {
        core.say(`SUCCESS: ${name()} command succeeded`);
        if (this.#current?.kind === kind) this.#settle(lines);
      });
    });
  }

  #remote(args: readonly string[]): void {
    const core = this.#core;
    if (core.server || !core.started) return core.sayUnsupported("remote");
    const [action, host, port] = args;
    const known = action === "ACCEPT" || action === "SKIP" ||
      (action === "MOD" && host !== undefined && port !== undefined);
    const good = known && this.#current?.kind === "remote";
    core.say(good ? "SUCCESS: remote command succeeded" : "ERROR: remote command failed");
    if (good) this.#settle(args);
  }

  #proxy(args: readonly string[]): void {
    const core = this.#core;
    if (core.server || !core.started) return core.sayUnsupported("proxy");
    const [type, host, port] = args;
    const good = type === "NONE" ||
      ((type === "HTTP" || type === "SOCKS") && host !== undefined && port !== undefined);
    core.say(good ? "SUCCESS: proxy command succeeded" : "ERROR: proxy command failed");
    // It fails open: OpenVPN connects without a proxy (spec 1.3).
    if (this.#current?.kind === "proxy") this.#settle(good ? args : ["NONE"]);
  }
}

/** Garbage is an empty password (spec 1.3). */
function passwordFromBase64(base64: string): string {
  try {
    return new TextDecoder().decode(fromBase64(base64));
  } catch {
    return "";
  }
}
