/**
 * Commands as bytes, and their arguments as OpenVPN's lexer reads them.
 *
 * @module
 */
import { concat } from "@std/bytes";
import { byteString, LexerError, parseParameters } from "./_lexer.ts";

/** The longest line that OpenVPN takes, in bytes without its line end. Of a longer one it drops the head and RUNS THE TAIL. */
export const MAX_LINE_BYTES = 1023;

/** The longest argument that OpenVPN takes, in bytes of UTF-8 and without quotes. */
export const MAX_ARGUMENT_BYTES = 256;

/** How many arguments OpenVPN takes; more it drops without a word. */
export const MAX_ARGUMENTS = 15;

/** What ends a body. */
const END = "END";
const ENCODER = new TextEncoder();
// deno-lint-ignore no-control-regex -- OpenVPN silently removes these, which changes the meaning of a line
const CONTROL = /[\x00-\x1f\x7f]/;
const CONTROLS = new RegExp(CONTROL, "g");

/**
 * Writes a command with quoted arguments as one line. Whatever the arguments hold, OpenVPN reads exactly them.
 *
 * Nothing is ever cut. No error repeats an argument, which may be a secret.
 *
 * @example
 * ```ts
 * import { encodeCommand } from "@trunkline/sockets/ovpn";
 *
 * const line = encodeCommand("password", "Private Key", 'se"cret');
 * console.log(new TextDecoder().decode(line)); // password "Private Key" "se\"cret"
 * ```
 *
 * @throws {TypeError} if the name is not one word of letters, digits and `-`, or an argument has control characters or half a surrogate pair
 * @throws {RangeError} if an argument has more than {@linkcode MAX_ARGUMENT_BYTES} or the line more than {@linkcode MAX_LINE_BYTES}
 * bytes, or there are more than {@linkcode MAX_ARGUMENTS}
 */
export function encodeCommand(name: string, ...args: readonly string[]): Uint8Array {
  if (!/^[a-z0-9-]+$/i.test(name)) throw new TypeError("the name of a command is one word");
  return encodeWords([name], args);
}

/** Writes a command of words of our own, and then the arguments that are not. */
export function encodeWords(words: readonly string[], args: readonly string[]): Uint8Array {
  const name = words.join(" ");
  const count = words.length - 1 + args.length;
  if (count > MAX_ARGUMENTS) {
    throw new RangeError(`${name}: ${count} arguments, expected at most ${MAX_ARGUMENTS}`);
  }
  const quoted = args.map((text, index) => {
    const what = `${name}: argument ${index + 1}`;
    refuseUnsendable(text, what);
    const { length } = ENCODER.encode(text);
    if (length > MAX_ARGUMENT_BYTES) {
      throw new RangeError(`${what} has ${length} bytes, expected at most ${MAX_ARGUMENT_BYTES}`);
    }
    return `"${text.replace(/[\\"]/g, "\\$&")}"`;
  });
  return encodeLine([...words, ...quoted].join(" "), name);
}

/**
 * Writes the lines that follow a command, and the `END` after them. OpenVPN reads them as they are: nothing is quoted.
 *
 * @throws {TypeError} if a line has control characters (OpenVPN removes them, and what is left may be `END`) or half a surrogate
 * pair, or is `END` itself: what follows it would be run as commands
 * @throws {RangeError} if a line has more than {@linkcode MAX_LINE_BYTES} bytes
 */
export function encodeBody(lines: readonly string[]): Uint8Array {
  const encoded = lines.map((line, index) => {
    const what = `line ${index + 1} of the body`;
    if (line === END) throw new TypeError(`${what} is ${END}, which would end the body`);
    return followed(encodeLine(line, what));
  });
  return concat([...encoded, ENCODER.encode(`${END}\n`)]);
}

/** What OpenVPN reads at a time, and adds to the line that it has begun before it looks for line ends. */
const READ_BYTES = 256;
const READ = new Uint8Array(READ_BYTES).fill(0x0d);

/**
 * `line`, so that more may follow it at once. OpenVPN has room for 1024 bytes: what it reads together with the end of a long line can
 * overflow that, and then the line is lost and the rest of the next one is run as a command (seen with 2.6.14). CR, which it leaves out
 * and does not count, keeps the next line out of that read.
 */
export function followed(line: Uint8Array): Uint8Array {
  return line.length > MAX_LINE_BYTES + 1 - READ_BYTES ? concat([line, READ]) : line;
}

/** Writes a line as it is; `what` names it in errors. */
export function encodeLine(text: string, what: string): Uint8Array {
  refuseUnsendable(text, what);
  const line = ENCODER.encode(`${text}\n`);
  if (line.length - 1 > MAX_LINE_BYTES) {
    throw new RangeError(
      `${what}: the line has ${line.length - 1} bytes, expected at most ${MAX_LINE_BYTES}`,
    );
  }
  return line;
}

function refuseUnsendable(text: string, what: string): void {
  // It would be sent as U+FFFD.
  if (!text.isWellFormed()) throw new TypeError(`${what} has half a surrogate pair`);
  const index = text.search(CONTROL);
  if (index < 0) return;
  const code = text.charCodeAt(index).toString(16).padStart(2, "0");
  throw new TypeError(`${what} has the control character 0x${code} at index ${index}`);
}

/**
 * The parameters of a line as OpenVPN reads them: what they are decides what is safe to send. One that it cannot read, and answers by
 * a single error, is a parameter as a whole: no command is called so.
 */
export function lexCommand(line: string): string[] {
  const kept = line.replace(CONTROLS, "");
  try {
    return parseParameters(byteString(ENCODER.encode(kept)));
  } catch (error) {
    if (error instanceof LexerError) return [kept];
    throw error;
  }
}
