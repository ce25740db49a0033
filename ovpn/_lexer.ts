/**
 * How OpenVPN cuts a line into parameters (spec 1.7).
 *
 * @module
 */

/** The longest parameter in bytes, without quotes. */
const PARAMETER_BYTES = 256;

/** More parameters are ignored. */
const MAX_PARAMETERS = 16;

// A byte order mark is text like any other.
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/** One character per byte. */
export function byteString(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** The text of a line that has one character per byte. */
export function decodeLine(line: string): string {
  return DECODER.decode(Uint8Array.from(line, (character) => character.charCodeAt(0)));
}

/** A line that OpenVPN's lexer refuses; `message` is its answer without `ERROR: `. */
export class LexerError extends Error {
  /** The name of the class. */
  override readonly name = "LexerError";
}

const BAD_BACKSLASH =
  `Options warning: Bad backslash ('\\') usage in TCP:0: remember that backslashes are treated as shell-escapes and if you need to pass backslash characters as part of a Windows filename, you should use double backslashes such as "c:\\\\openvpn\\\\static.key"`;

type LexerState = "between" | "bare" | '"' | "'";

/**
 * The parameters of a line that has one character per byte.
 *
 * @throws {LexerError} where OpenVPN says so
 */
export function parseParameters(line: string): string[] {
  const parameters: string[] = [];
  let state: LexerState = "between";
  let parameter = "";
  let escaped = false;
  // The character that is none ends an unquoted parameter.
  for (const character of [...line, ""]) {
    const blank = character === " " || character === "";
    let text = "";
    if (!escaped && character === "\\" && state !== "'") {
      escaped = true;
      continue;
    }
    if (state === "between") {
      // Here a backslash does not keep a blank or a comment from being one.
      if (character === "#" || character === ";") break;
      if (!blank) {
        if (!escaped && (character === '"' || character === "'")) state = character;
        else [state, text] = ["bare", character];
      }
    } else if (state === "bare") {
      if (!escaped && blank) [state, parameter] = ["between", finish(parameters, parameter)];
      else text = character;
    } else if (!escaped && character === state) {
      [state, parameter] = ["between", finish(parameters, parameter)];
    } else {
      text = character;
    }
    if (parameters.length === MAX_PARAMETERS) break;
    if (escaped && text !== "" && !'\\" '.includes(text)) throw new LexerError(BAD_BACKSLASH);
    escaped = false;
    if (text !== "" && parameter.length === PARAMETER_BYTES) {
      const shown = decodeLine(parameter.slice(0, PARAMETER_BYTES - 1));
      throw new LexerError(
        `Options error: Parameter at TCP:0 is too long (${PARAMETER_BYTES} chars max): ${shown}`,
      );
    }
    parameter += text;
  }
  if (state === '"') throw new LexerError('Options error: No closing quotation (") in TCP:0');
  if (state === "'") {
    throw new LexerError("Options error: No closing single quotation (') in TCP:0");
  }
  if (state === "bare") throw new LexerError("Options error: Residual parse state (2) in TCP:0");
  return parameters;
}

/** Adds a parameter; gives the empty beginning of the next one. */
function finish(parameters: string[], parameter: string): "" {
  parameters.push(decodeLine(parameter));
  return "";
}
