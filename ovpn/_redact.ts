/**
 * Events with secrets: those are read by their names, and show nowhere else.
 *
 * @module
 */

/** What stands for a secret. */
export const REDACTED = "[redacted]";

// Node, Deno and Bun look for it.
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** Names of environment variables whose values are secret. */
const SECRET_NAME = /passw|token|secret/i;
/** Answers to challenges and session tokens, wherever they are. */
const SECRET_VALUE = /^(?:S?CRV1:|SESS_ID_)/;

// OpenVPN logs the commands of its managers (all but `password`), and what it takes for one: lines of a password that it did not ask for,
// a `password` with a slip. As a client it logs what the server sends.
const LOGGED_COMMAND = "MANAGEMENT: CMD '";
const HARMLESS_COMMANDS: ReadonlySet<string> = new Set(
  ("auth-retry bytecount certificate client-auth client-auth-nt echo env-filter exit forget-passwords help " +
    "hold kill load-stats log mute nclients needok net pid pkcs11-id-count pkcs11-id-get " +
    "proxy quit remote remote-entry-count remote-entry-get signal state status test verb " +
    "version").split(" "),
);
/** Their names are no secrets. */
const SECRET_COMMAND =
  /^(?:client-(?:deny|kill|pending-auth)|cr-response|needstr|pk-sig|push-update-\w+|rsa-sig|username) /;
// The last is what a server logs.
const LOGGED_SECRET = /CRV1:|SESS_ID_|WEB_AUTH:|OPEN_URL:|CR response was sent by client \('/;

/** A text of OpenVPN's log as far as there is no secret in it. Every `LOG` event goes through it. */
export function loggedWithoutSecrets(text: string): string {
  if (text.startsWith(LOGGED_COMMAND)) {
    const command = text.slice(LOGGED_COMMAND.length);
    const [name = ""] = command.split(/[ ']/, 1);
    if (!HARMLESS_COMMANDS.has(name)) {
      return `${LOGGED_COMMAND}${SECRET_COMMAND.exec(command)?.[0] ?? ""}${REDACTED}`;
    }
  }
  const found = LOGGED_SECRET.exec(text);
  return found ? `${text.slice(0, found.index + found[0].length)}${REDACTED}` : text;
}

/** Whether an environment variable of a client should not be shown. */
export function isSecretVariable(name: string, value: string): boolean {
  return SECRET_NAME.test(name) || SECRET_VALUE.test(value);
}

/**
 * Hides the fields of `event` that `shown` has other values for, and its `raw`, in place: `console.log`, `inspect` and
 * `JSON.stringify` show `shown` instead (`undefined` leaves the field out), and a copy by spread has none of them.
 */
export function withSecrets<T extends { readonly raw: Uint8Array }>(
  event: T,
  shown: { readonly [K in keyof T]?: unknown },
): T {
  hide(event, "raw");
  for (const name in shown) hide(event, name);
  return showAs(event, () => ({ ...event, ...shown }));
}

/** Makes `value` look like what `show` gives, in JSON like what `toJSON` gives. */
export function showAs<T extends object>(
  value: T,
  show: () => unknown,
  toJSON: () => unknown = show,
): T {
  Object.defineProperty(value, INSPECT, { value: show });
  return Object.defineProperty(value, "toJSON", { value: toJSON });
}

function hide(event: object, name: string): void {
  Object.defineProperty(event, name, { enumerable: false });
}
