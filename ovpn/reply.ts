/**
 * What the reply to a command looks like. Replies carry no id, so the only way to know where one ends is to know the shape
 * that each command has.
 *
 * @module
 */
import { lexCommand } from "./command.ts";

/**
 * What a line of a reply is: `status` starts with `SUCCESS:` or `ERROR:` and is the verdict, `text` is what was asked for,
 * `end` says only that the text is over, and `other` is not to be kept.
 */
export type LineKind = "status" | "text" | "end" | "other";

/** A line of a reply, and whether it is the last one. */
export interface ReplyLine {
  /** What the line is. */
  readonly kind: LineKind;
  /** True if nothing follows. */
  readonly last: boolean;
}

/** Reads one reply, line by line. */
export interface ReplyShape {
  /** Takes the next line. */
  take(line: string): ReplyLine;
  /** True if nothing is sent back. */
  readonly silent?: boolean;
  /** With which words the real-time message begins that is the reply. */
  readonly event?: string;
  /** True if the reply is that the connection ends. */
  readonly untilEnd?: boolean;
  /** A command to send together with this one, so that there is a reply to wait for. */
  readonly together?: string;
}

const isError = (line: string): boolean => line.startsWith("ERROR:");
const isStatus = (line: string): boolean => line.startsWith("SUCCESS:") || isError(line);

const TEXT: ReplyLine = { kind: "text", last: false };
const LAST_TEXT: ReplyLine = { kind: "text", last: true };
const STATUS: ReplyLine = { kind: "status", last: false };
const LAST_STATUS: ReplyLine = { kind: "status", last: true };
const END: ReplyLine = { kind: "end", last: true };
const OTHER: ReplyLine = { kind: "other", last: false };
const LAST_OTHER: ReplyLine = { kind: "other", last: true };

/** A status line. `auth-retry` and push-update say more in other lines before it. */
function status(isLast: (line: string) => boolean = isStatus): ReplyShape {
  return { take: (line) => isLast(line) ? LAST_STATUS : TEXT };
}

/**
 * Text until `END`; or a single line for which `alone` is true. A later line that looks like a status is part of the text.
 */
function block(alone: (line: string) => boolean = isError): ReplyShape {
  let first = true;
  return {
    take: (line) => {
      const only = first && alone(line);
      first = false;
      if (only) return LAST_STATUS;
      return line === "END" ? END : TEXT;
    },
  };
}

/** `state on all`: each parameter is answered by itself, in their order. */
function history(parameters: readonly string[]): ReplyShape {
  const parts = parameters.slice(0, 2).map((it) => /^(?:on|off)$/.test(it) ? status() : block());
  return {
    take: (line) => {
      const { kind, last } = parts[0]!.take(line);
      if (last) parts.shift();
      return { kind, last: parts.length === 0 };
    },
  };
}

/** `test n`: n lines and no `END`; none at all for 0 and what is no number. */
function testLines(parameter: string): ReplyShape {
  let left = parseInt(parameter, 10);
  return {
    silent: !(left > 0),
    take: (line) => {
      if (isError(line)) return LAST_STATUS;
      return --left > 0 ? TEXT : LAST_TEXT;
    },
  };
}

/** `version n` is answered or not, as the daemon's own version goes; `pid` always is. */
function version(): ReplyShape {
  return {
    together: "pid",
    take: (line) => line.startsWith("SUCCESS: pid=") ? END : isStatus(line) ? STATUS : TEXT,
  };
}

/** How OpenVPN refuses the line before a body, at once. What it says after the body begins otherwise. */
const HEADER_REFUSED =
  /^ERROR: (?:The [\w-]+ command is not currently|cannot parse |no password is|password of type|the '|unknown command|Options )/;

/**
 * A status line after the `END` of a body. If the line before the body was refused (its request was withdrawn while we wrote),
 * OpenVPN runs the body as commands, of which each is answered, too: `commands` of them, and `END`. What those say may repeat secrets.
 */
function body(commands: number): ReplyShape {
  let others = 0;
  return {
    take: (line) => {
      if (others > 0) return --others > 0 ? OTHER : LAST_OTHER;
      if (!HEADER_REFUSED.test(line)) return isStatus(line) ? LAST_STATUS : TEXT;
      others = commands + 1;
      return STATUS;
    },
  };
}

/** push-update (2.7) tells of its clients first; what it refuses at once is answered by a single line. */
const PUSH_UPDATE_VERDICT =
  /^(?:SUCCESS|ERROR): (?:push-update(?:-\w+)? |the '|unknown command|Options )/i;

/** Commands whose reply is a status line. */
const STATUS_COMMANDS: ReadonlySet<string> = new Set(
  ("auth-retry bytecount client-auth-nt client-deny client-kill client-pending-auth cr-response " +
    "env-filter forget-passwords hold kill load-stats mute needok needstr nclients password pid " +
    "proxy remote signal username verb").split(" "),
);

/** Commands whose reply is a block. */
const BLOCK_COMMANDS: ReadonlySet<string> = new Set(
  "help net remote-entry-count remote-entry-get status".split(" "),
);

/** Commands that take lines after their own. */
const BODY_COMMANDS: ReadonlySet<string> = new Set(
  "certificate client-auth client-pf pk-sig rsa-sig".split(" "),
);

/** True if OpenVPN would take the lines that follow as the command's body. */
export function hasBody(parameters: readonly string[]): boolean {
  const [name = ""] = parameters;
  return BODY_COMMANDS.has(name) || name === "password" && parameters.length === 2;
}

/**
 * How the reply to a command is read; `parameters` begins with its name, `lines` are those of its body. For one reply only.
 */
export function replyShape(parameters: readonly string[], lines?: readonly string[]): ReplyShape {
  const [name = "", first] = parameters;
  if (lines !== undefined) return body(lines.filter((line) => lexCommand(line).length > 0).length);
  if (STATUS_COMMANDS.has(name)) return status();
  if (BLOCK_COMMANDS.has(name)) return block();
  switch (name) {
    case "state":
    case "log":
    case "echo":
      // Plain `state` is `state 1`; the other two refuse that.
      return first === undefined ? block() : history(parameters.slice(1));
    case "version":
      return first === undefined ? block() : version();
    case "test":
      return first === undefined ? status() : testLines(first);
    case "push-update-broad":
    case "push-update-cid":
      return status((line) => PUSH_UPDATE_VERDICT.test(line));
    case "pkcs11-id-count":
      return { ...status(), event: "PKCS11ID-COUNT:" };
    case "pkcs11-id-get":
      return { ...status(), event: "PKCS11ID-ENTRY:" };
    case "exit":
    case "quit":
      return { take: () => TEXT, untilEnd: true };
    default:
      // A command that this library does not know answers in one of the two usual ways.
      return block(isStatus);
  }
}
