/**
 * An event in a few words, for people.
 *
 * @module
 */
import type { ManagementEvent, StateEvent } from "./event.ts";

/**
 * A short text for a log or a terminal: the words of the Go package's `String()`. Left out are auth tokens, passwords of
 * clients, challenge states and responses, URLs to log in at, and in `LOG` the arguments of commands that carry such.
 *
 * @example
 * ```ts
 * import { describeEvent, parseEvent } from "@trunkline/sockets/ovpn";
 *
 * console.log(describeEvent(parseEvent("BYTECOUNT:10,20"))); // 10 in, 20 out
 * ```
 */
export function describeEvent(event: ManagementEvent): string {
  switch (event.type) {
    case "STATE":
      return describeState(event);
    case "BYTECOUNT":
      return `${event.bytesIn} in, ${event.bytesOut} out`;
    case "BYTECOUNT_CLI":
      return `Client ${event.clientId}: ${event.bytesIn} in, ${event.bytesOut} out`;
    case "HOLD":
      return bodyOf(event.raw);
    case "ECHO":
    case "INFO":
    case "FATAL":
      return `${event.type}: ${event.message}`;
    case "LOG":
      return `LOG: ${withoutSecrets("LOG", bodyOf(event.raw))}`;
    case "malformed":
      return `Malformed Event ${quote(event.text)}`;
    case "unknown":
      return `${event.keyword}: ${withoutSecrets(event.keyword, event.body)}`;
  }
}

function describeState({ name, description, tunnelAddress, remoteAddress }: StateEvent): string {
  if (name === "ASSIGN_IP") return `${name}: ${tunnelAddress}`;
  if (name === "CONNECTED") return `${name}: ${remoteAddress}`;
  return description === "" ? name : `${name}: ${description}`;
}

function bodyOf(raw: Uint8Array): string {
  const text = new TextDecoder().decode(raw);
  return text.slice(text.indexOf(":") + 1);
}

/** What comes before a secret, by keyword of the message. */
const SECRETS: Readonly<Record<string, RegExp>> = {
  PASSWORD: /^Auth-Token:|^Verification Failed: '[^']*' \['CRV1:/,
  CLIENT: /^ENV,\w*(?:password|token)\w*=|^CR_RESPONSE,\d+,\d+,/i,
  INFOMSG: /^(?:WEB_AUTH:[^:]*|OPEN_URL|CR_TEXT:[^:]*:[^:]*):/,
  // OpenVPN logs the commands of its managers, all but `password`.
  LOG: /MANAGEMENT: CMD '(?:username|needstr|cr-response|client-[\w-]+|pk-sig|rsa-sig) /,
};

function withoutSecrets(keyword: string, body: string): string {
  const found = SECRETS[keyword]?.exec(body);
  return found ? `${body.slice(0, found.index + found[0].length)}[redacted]` : body;
}

/** As Go's `%q`, for controls: `\x00` and not `\u0000`. */
function quote(text: string): string {
  return JSON.stringify(text).replace(/\\u00([01][0-9a-f])/g, "\\x$1").replaceAll("\x7f", "\\x7f");
}
