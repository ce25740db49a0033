/**
 * One command and the reply to it.
 *
 * @module
 */
import type { CommandReply } from "./client_options.ts";
import { concat } from "@std/bytes";
import { encodeBody, encodeLine, followed } from "./command.ts";
import { CommandError, ManagementError } from "./errors.ts";
import { type ReplyShape, replyShape } from "./reply.ts";

/** What is sent. */
export interface Message {
  /** The name of the command and its arguments, as OpenVPN reads them. */
  readonly parameters: readonly string[];
  /** All of it. */
  readonly bytes: Uint8Array;
  /** The lines that follow it, without `END`. */
  readonly lines: readonly string[] | undefined;
}

/** Puts a line and the body that belongs to it together: OpenVPN must not read one without the other. */
export function message(
  line: Uint8Array,
  parameters: readonly string[],
  lines?: readonly string[],
): Message {
  const bytes = lines === undefined ? line : concat([followed(line), encodeBody(lines)]);
  return { parameters, bytes, lines };
}

/** What a line costs beside its bytes. */
const LINE_OVERHEAD_BYTES = 32;
// A byte order mark is text like any other: with it END is no end.
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** The command in flight. */
export class Exchange {
  /** For messages of errors. */
  readonly name: string;
  /** What OpenVPN reads. */
  readonly parameters: readonly string[];
  /** What to write. */
  readonly bytes: Uint8Array;
  readonly #shape: ReplyShape;
  readonly #maxBytes: number;
  readonly #lines: string[] = [];
  readonly #raw: Uint8Array[] = [];
  #size = 0;
  #success = "";
  #error: string | undefined;

  constructor({ parameters, bytes, lines }: Message, maxReplyBytes: number) {
    this.name = commandName(parameters);
    this.parameters = parameters;
    this.#maxBytes = maxReplyBytes;
    this.#shape = replyShape(parameters, lines);
    const { together } = this.#shape;
    this.bytes = together === undefined ? bytes : concat([bytes, encodeLine(together, together)]);
  }

  /** True if nothing is sent back. */
  get silent(): boolean {
    return this.#shape.silent ?? false;
  }

  /** True if the reply is that the connection ends. */
  get untilEnd(): boolean {
    return this.#shape.untilEnd ?? false;
  }

  /**
   * Takes a line of the reply; true if it is the last one.
   *
   * @throws {ManagementError} `protocol` if that is too much
   */
  take(line: Uint8Array): boolean {
    this.#size += line.length + LINE_OVERHEAD_BYTES;
    if (this.#size > this.#maxBytes) {
      const text = `${this.name}: the reply has more than ${this.#maxBytes} bytes`;
      throw new ManagementError("protocol", text);
    }
    const text = UTF8.decode(line);
    const { kind, last } = this.#shape.take(text);
    // A copy, as of events: the limit counts the line and not the chunk.
    if (kind === "text") this.#keep(text, new Uint8Array(line));
    else if (kind === "status") {
      if (text.startsWith("SUCCESS:")) this.#success = text.slice(8).trimStart();
      else this.#error ??= text.slice(6).trimStart();
    }
    return last;
  }

  /** Takes an event; true if it is the reply. */
  takeEvent(line: Uint8Array): boolean {
    const { event } = this.#shape;
    if (event === undefined) return false;
    const text = UTF8.decode(line);
    if (!text.startsWith(event)) return false;
    this.#keep(text, line);
    return true;
  }

  /** What it has been up to now. */
  get reply(): CommandReply | CommandError {
    if (this.#error !== undefined) return new CommandError(this.name, this.#error, this.#lines);
    return { success: this.#success, lines: this.#lines, raw: this.#raw };
  }

  #keep(text: string, line: Uint8Array): void {
    this.#lines.push(text);
    this.#raw.push(line);
  }
}

/** The name of a command for messages, if it is one: an unknown text may be a secret that slipped. */
export function commandName([name = ""]: readonly string[]): string {
  return /^[a-z0-9-]{1,32}$/i.test(name) ? name : "command";
}
