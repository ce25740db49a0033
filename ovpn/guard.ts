/**
 * What must not be sent now: commands that OpenVPN obeys to its harm (spec 5.1 and 5.3).
 *
 * @module
 */
import { type DaemonState, leadingNumber } from "./_daemon_state.ts";
import { ManagementError } from "./errors.ts";

/**
 * What refuses a command:
 *
 * - `pkcs11-while-held`: `pkcs11-id-count` and `pkcs11-id-get` while OpenVPN is held, which abort it
 * - `signal-while-held`: `SIGUSR2` while it is held, which ends it (and gives no statistics, as it does later)
 * - `signal-while-asked`: a signal other than `SIGTERM` while it waits for a username, a password, a confirmation, a text, a certificate
 *   or a signature, which is fatal to it
 * - `log-at-high-verb`: log events at verb 9 and above, where OpenVPN logs what it writes and never reads again
 * - `proxy-fails-open`: an answer to `PROXY` that OpenVPN does not take: it would connect without any proxy
 * - `not-asked`: a certificate, a signature or lines of a password that OpenVPN does not wait for: it would run them as commands
 * - `unannounced-client`: a decision about a client of which this connection has not heard: another manager may have, or the one
 *   before us; take its ids from `status()`
 * - `ended-client`: a decision about a client that is gone
 * - `reused-client`: a decision about ids that were those of another client before
 *
 * The last three have the code `stale`, the others `guarded`.
 */
export type GuardName =
  | "pkcs11-while-held"
  | "signal-while-held"
  | "signal-while-asked"
  | "log-at-high-verb"
  | "proxy-fails-open"
  | "not-asked"
  | "unannounced-client"
  | "ended-client"
  | "reused-client";

/** A command was not sent, because it would do harm now. `allow` of the command's options lets it pass. */
export class GuardError extends ManagementError {
  /** The name of the class. */
  override readonly name: string = "GuardError";
  /** What refused it. */
  readonly guard: GuardName;

  /** Makes an error; `code` is `stale` for what was meant for an earlier client. */
  constructor(guard: GuardName, message: string, code: "guarded" | "stale" = "guarded") {
    super(code, message);
    this.guard = guard;
  }
}

/** From here on OpenVPN logs every write, and each log event is one. */
const SELF_LOGGING_VERB = 9;

interface Guard {
  readonly name: GuardName;
  /** Completes `pid: refused, `. */
  readonly why: string;
  /** Whether it refuses the command; `lines` is true if it has a body. */
  refuses(parameters: readonly string[], daemon: DaemonState, lines: boolean): boolean;
}

const GUARDS: readonly Guard[] = [
  {
    name: "pkcs11-while-held",
    why: "it would abort an OpenVPN that is held",
    refuses: ([name], { held }) => held && (name === "pkcs11-id-count" || name === "pkcs11-id-get"),
  },
  {
    name: "signal-while-held",
    why: "SIGUSR2 would end an OpenVPN that is held",
    refuses: ([name, signal], { held }) => held && name === "signal" && signal === "SIGUSR2",
  },
  {
    name: "signal-while-asked",
    why: "OpenVPN waits for an answer, and a signal would be fatal to it",
    refuses: ([name, signal], { asked }) =>
      name === "signal" && /^SIG(?:HUP|USR1|USR2)$/.test(signal ?? "") &&
      (asked.password !== undefined || asked.text !== undefined ||
        asked.certificate === true || asked.sign !== undefined),
  },
  {
    name: "log-at-high-verb",
    why: `with log events at verb ${SELF_LOGGING_VERB} or more OpenVPN never reads again`,
    refuses: ([name, first, second], { verb, logging }) =>
      name === "log"
        ? (first === "on" || second === "on") && (verb ?? 0) >= SELF_LOGGING_VERB
        : name === "verb" && first !== undefined && logging &&
          leadingNumber(first) >= SELF_LOGGING_VERB,
  },
  {
    name: "proxy-fails-open",
    why: "OpenVPN would not take this answer, and connect without a proxy",
    refuses: ([name, type, host, port], { asked }) => {
      if (name !== "proxy" || type === undefined || type === "NONE") return false;
      if (type === "HTTP" && asked.proxy?.protocol === "UDP") return true;
      return type !== "HTTP" && type !== "SOCKS" || !host || !isPort(port);
    },
  },
  {
    name: "not-asked",
    why: "OpenVPN does not wait for it, and would run its lines as commands",
    refuses: ([name, type], { asked }, lines) => {
      if (!lines) return false;
      if (name === "certificate") return asked.certificate !== true;
      if (name === "pk-sig" || name === "rsa-sig") return asked.sign === undefined;
      if (name !== "password") return false;
      const { password } = asked;
      return password === undefined || password.name !== type || password.what === "username";
    },
  },
];

function isPort(text: string | undefined): boolean {
  return /^[1-9]\d{0,4}$/.test(text ?? "") && Number(text) <= 65535;
}

/**
 * Throws for a command that would do harm to OpenVPN as it is.
 *
 * @throws {GuardError} `guarded`
 */
export function refuseHarm(
  parameters: readonly string[],
  daemon: DaemonState,
  { lines = false, allow = [] }: {
    readonly lines?: boolean | undefined;
    readonly allow?: readonly GuardName[] | undefined;
  } = {},
): void {
  for (const { name, why, refuses } of GUARDS) {
    if (allow.includes(name) || !refuses(parameters, daemon, lines)) continue;
    throw new GuardError(name, `${parameters[0]}: refused (${name}): ${why}`);
  }
}
