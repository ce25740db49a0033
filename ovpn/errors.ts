/**
 * What the sessions of this folder reject with.
 *
 * @module
 */

/**
 * What went wrong:
 *
 * - `command`: OpenVPN answered a command with `ERROR:`; see {@linkcode CommandError}. The session goes on.
 * - `aborted`: an `AbortSignal` ended the wait. The session goes on.
 * - `closed`: used after our own `close()`.
 * - `disconnected`: OpenVPN closed the connection while something was still to come; or used after it did.
 * - `connection`: the connection failed; `cause` tells how.
 * - `timeout`: a command was not answered in time. Its answer could be taken for that of another one, so the connection is given up.
 * - `no-greeting`: connected, but OpenVPN says nothing: another manager has its attention, or it is stuck.
 * - `password-required`: OpenVPN asks for the management password, and there is none in the options.
 * - `wrong-password`: OpenVPN did not accept the management password.
 * - `overflow`: a consumer was so slow that events were lost which it must not lose. Its iteration is over, the session goes on.
 * - `guarded`: what was to be sent would harm OpenVPN now, and was not. The session goes on.
 * - `stale`: an answer meant for an earlier client, which was not sent. The session goes on.
 * - `protocol`: the peer does not speak this protocol, or more than a limit allows.
 */
export type ManagementErrorCode =
  | "command"
  | "aborted"
  | "closed"
  | "disconnected"
  | "connection"
  | "timeout"
  | "no-greeting"
  | "password-required"
  | "wrong-password"
  | "overflow"
  | "guarded"
  | "stale"
  | "protocol";

/** What a session rejects with. No message holds a password. */
export class ManagementError extends Error {
  /** The name of the class. */
  override readonly name: string = "ManagementError";
  /** What went wrong; see {@linkcode ManagementErrorCode}. */
  readonly code: ManagementErrorCode;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: ManagementErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** OpenVPN answered a command with `ERROR:`. */
export class CommandError extends ManagementError {
  /** The name of the class. */
  override readonly name: string = "CommandError";
  /** The name of the command; its arguments may be secret. */
  readonly command: string;
  /** What OpenVPN said after `ERROR: `, without the arguments that some of its texts repeat. */
  readonly reply: string;
  /** Lines that came with it: why `auth-retry` refused, which clients `push-update-cid` did not reach. */
  readonly lines: readonly string[];

  /** Makes an error of a reply without its `ERROR: `. */
  constructor(command: string, reply: string, lines: readonly string[] = []) {
    const text = withoutArguments(reply);
    super("command", `${command}: ${text}`);
    this.command = command;
    this.reply = text;
    this.lines = lines;
  }
}

/** Two texts repeat what was sent: a parameter that is too long (any version), an unknown command (2.7; could be a line of a body). */
function withoutArguments(reply: string): string {
  return reply
    .replace(/(\(\d+ chars max\): ).*/s, "$1[redacted]")
    .replace(/^(unknown command \[).*(\],)/s, "$1redacted$2");
}
