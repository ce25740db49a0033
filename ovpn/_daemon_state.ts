/**
 * What is known of OpenVPN: from its events, and from the replies to our commands.
 *
 * @module
 */
import type { ManagementEvent } from "./event.ts";
import type { PasswordNeedEvent } from "./event_password.ts";
import type { ProxyEvent, SignEvent } from "./event_request.ts";
import { type DaemonVersion, parseVerb, parseVersion, type ReplyText } from "./reply_values.ts";

/** What OpenVPN waits for. It asks again for what is open when a manager connects. */
export interface OpenRequests {
  /** A username, a password or both. */
  password?: PasswordNeedEvent | undefined;
  /** A confirmation or a text. */
  text?: "NEED-OK" | "NEED-STR" | undefined;
  /** A certificate. */
  certificate?: boolean | undefined;
  /** A signature, and by which name. */
  sign?: SignEvent["type"] | undefined;
  /** A proxy. */
  proxy?: ProxyEvent | undefined;
}

/** Follows a connection line by line. */
export class DaemonState {
  /** The version of the management interface, by the greeting. */
  management: number | undefined;
  /** The reply to `version`. */
  version: DaemonVersion | undefined;
  /** What we said by `version n`. */
  announced: number | undefined;
  /** Whether it waits for `hold release`. */
  held = false;
  /** Whether `log on` is in force. */
  logging = false;
  /** How much it logs; `undefined` after a restart, which reads it from the configuration. */
  verb: number | undefined;
  /** What it waits for. */
  asked: OpenRequests = {};

  /** Takes an event as it comes. */
  see(event: ManagementEvent): void {
    switch (event.type) {
      case "INFO":
        this.management ??= event.managementVersion;
        break;
      case "HOLD":
        this.#restart();
        this.held = true;
        break;
      case "STATE":
        this.#onState(event.name);
        break;
      case "PASSWORD":
        if (event.kind === "need") this.asked.password = event;
        break;
      case "NEED-OK":
      case "NEED-STR":
        this.asked.text = event.type;
        break;
      case "NEED-CERTIFICATE":
        this.asked.certificate = true;
        break;
      case "PK_SIGN":
      case "RSA_SIGN":
        this.asked.sign = event.type;
        break;
      case "PROXY":
        this.asked.proxy = event;
        break;
    }
  }

  /** Takes the end of a command; `reply` is what it said unless it failed. */
  did([name, ...args]: readonly string[], reply: ReplyText | undefined): void {
    // Answered by whatever: see spec 1.3.
    if (name === "proxy" && args.length > 0) this.asked.proxy = undefined;
    if (reply === undefined) return;
    switch (name) {
      case "hold":
        if (args[0] === "release") this.held = false;
        break;
      case "log":
        // Each parameter is a command of its own, in their order.
        for (const arg of args.slice(0, 2)) {
          if (arg === "on" || arg === "off") this.logging = arg === "on";
        }
        break;
      case "verb":
        this.verb = args[0] === undefined ? tried(parseVerb, reply) : leadingNumber(args[0]);
        break;
      case "version":
        if (args[0] === undefined) this.version = tried(parseVersion, reply);
        else this.announced = leadingNumber(args[0]);
        break;
      case "username":
        if (this.asked.password?.what === "username") this.asked.password = undefined;
        break;
      case "password":
        this.asked.password = undefined;
        break;
      case "needok":
      case "needstr":
        this.asked.text = undefined;
        break;
      case "certificate":
        this.asked.certificate = undefined;
        break;
    }
  }

  /**
   * A signature is taken when its last line is, and the next request may come before the reply to it: whatever is asked from now on
   * is another one.
   */
  sent([name]: readonly string[]): void {
    if (name === "pk-sig" || name === "rsa-sig") this.asked.sign = undefined;
  }

  #onState(name: string): void {
    if (name === "RECONNECTING" || name === "EXITING") this.#restart();
    else this.held = false;
  }

  #restart(): void {
    this.asked = {};
    this.verb = undefined;
  }
}

function tried<T>(parse: (reply: ReplyText) => T, reply: ReplyText): T | undefined {
  try {
    return parse(reply);
  } catch {
    return undefined;
  }
}

/** As C's atoi(): what is no number is 0. */
export function leadingNumber(text: string): number {
  return Number(/^\s*[+-]?\d+/.exec(text)?.[0] ?? 0);
}
