/**
 * The commands that answer what an OpenVPN client asks for.
 *
 * @module
 */
import { toBase64 } from "./_base64.ts";
import { order, send, sendDecided } from "./client_core.ts";
import type { CommandOptions } from "./client_options.ts";
import { encodeBody, MAX_ARGUMENT_BYTES } from "./command.ts";
import { GeneralCommands, wholeNumber } from "./commands_general.ts";
import {
  parsePkcs11Count,
  parsePkcs11Entry,
  parseRemoteEntries,
  parseRemoteEntryCount,
  type Pkcs11Entry,
  type RemoteEntry,
} from "./reply_values.ts";
import { takesPasswordLines } from "./versions.ts";

/** An answer to `PROXY`. */
export type ProxyAnswer =
  | { readonly type: "NONE" }
  | {
    /** What the proxy speaks. */
    readonly type: "HTTP" | "SOCKS";
    /** Its name or address. */
    readonly host: string;
    /** Its port. */
    readonly port: number;
    /** Of `HTTP`: never send a password that could be read on the way (`nct`). @default false */
    readonly noClearText?: boolean | undefined;
  };

/** An answer to `REMOTE`: go there, go to the next one (or the one after `skip` entries, from 2.6 on), or go elsewhere. */
export type RemoteAnswer =
  | { readonly action: "ACCEPT" }
  | { readonly action: "SKIP"; readonly count?: number | undefined }
  | { readonly action: "MOD"; readonly host: string; readonly port: number };

const ENCODER = new TextEncoder();
/** What openssl and others break base64 at, well below the longest line. */
const BASE64_LINE_CHARS = 64;
// deno-lint-ignore no-control-regex -- what a line cannot hold, but base64 can
const CONTROL = /[\x00-\x1f\x7f]/;

/** The commands that answer what an OpenVPN client asks for. */
export abstract class QueryCommands extends GeneralCommands {
  /**
   * `password`: answers `Need 'TYPE' password`, and after {@linkcode QueryCommands.sendUsername} also `Need 'TYPE' username/password`.
   *
   * One of more than 256 bytes or with control characters does not fit into a line. OpenVPN 2.7.2 takes it as base64, if it was told
   * `setVersion(5)` or more by this client and asks for it at the time.
   *
   * @throws {TypeError} for what cannot be sent, @throws {RangeError} for what is too long
   * @throws {GuardError} `not-asked`, for one that does not fit into a line
   */
  async sendPassword(type: string, password: string, options?: CommandOptions): Promise<void> {
    const bytes = ENCODER.encode(password);
    const fits = bytes.length <= MAX_ARGUMENT_BYTES && !CONTROL.test(password);
    // OpenVPN's own text ends at a NUL, and half a surrogate pair would arrive as another text.
    const never = password.includes("\0") || !password.isWellFormed();
    if (fits || never) return void await send(this, order(["password"], [type, password]), options);
    const decide = ({ management, announced }: Daemon) =>
      takesPasswordLines(management, announced)
        ? order(["password"], [type], { lines: base64Lines(bytes) })
        : order(["password"], [type, password]);
    await sendDecided(this, "password", decide, options);
  }

  /** `username`: answers the first half of `Need 'TYPE' username/password`. OpenVPN writes the name into its log. */
  async sendUsername(type: string, username: string, options?: CommandOptions): Promise<void> {
    await send(this, order(["username"], [type, username]), options);
  }

  /** `needok`: answers `NEED-OK`. */
  async needOk(name: string, answer: "ok" | "cancel", options?: CommandOptions): Promise<void> {
    if (answer !== "ok" && answer !== "cancel") throw new TypeError("needok is ok or cancel");
    await send(this, order(["needok"], [name, answer]), options);
  }

  /** `needstr`: answers `NEED-STR`. */
  async needStr(name: string, text: string, options?: CommandOptions): Promise<void> {
    await send(this, order(["needstr"], [name, text]), options);
  }

  /**
   * `proxy`: answers `PROXY`. What OpenVPN would not take is not sent, since it would then connect without any proxy.
   *
   * @throws {TypeError} for no type, or a host that is none, @throws {RangeError} for no port
   * @throws {GuardError} `proxy-fails-open`: `HTTP` for a connection over UDP
   */
  async proxy(answer: ProxyAnswer, options?: CommandOptions): Promise<void> {
    if (answer.type === "NONE") return void await send(this, order(["proxy", "NONE"]), options);
    const { type, host, port, noClearText = false } = answer;
    if (type !== "HTTP" && type !== "SOCKS") {
      throw new TypeError("the type of a proxy is NONE, HTTP or SOCKS");
    }
    const texts = [requireHost(host), requirePort(port)];
    if (noClearText && type === "HTTP") texts.push("nct");
    await send(this, order(["proxy", type], texts), options);
  }

  /** `remote`: answers `REMOTE`. The next question may take a second. */
  async remote(answer: RemoteAnswer, options?: CommandOptions): Promise<void> {
    await send(this, remoteOrder(answer), options);
  }

  /** `remote-entry-count`: how many `remote` entries a client's configuration has (OpenVPN 2.6). */
  async remoteEntryCount(options?: CommandOptions): Promise<number> {
    return parseRemoteEntryCount(await send(this, order(["remote-entry-count"]), options));
  }

  /** `remote-entry-get`: these entries, from the first index (from 0) up to but without the second; or all. */
  async remoteEntries(
    range: "all" | readonly [from: number, to?: number] = "all",
    options?: CommandOptions,
  ): Promise<readonly RemoteEntry[]> {
    const words = range === "all"
      ? ["all"]
      : range.filter((it) => it !== undefined).map((it) => wholeNumber(it, "an index"));
    return parseRemoteEntries(await send(this, order(["remote-entry-get", ...words]), options));
  }

  /**
   * `certificate`: answers `NEED-CERTIFICATE` with the certificate in PEM, from `BEGIN` to `END`.
   *
   * @throws {TypeError} if there is none in it, or anything that cannot be sent
   * @throws {GuardError} `not-asked`
   */
  async certificate(pem: string, options?: CommandOptions): Promise<void> {
    const lines = pem.split(/\r?\n/).filter((line) => line !== "");
    if (!/^-----BEGIN [A-Z ]*CERTIFICATE-----$/m.test(lines.join("\n"))) {
      throw new TypeError("a certificate is PEM, with a line -----BEGIN CERTIFICATE-----");
    }
    await send(this, order(["certificate"], [], { lines }), options);
  }

  /**
   * `pk-sig`, or `rsa-sig` if it was asked for by `RSA_SIGN`: answers with a signature. Success means that it was taken, not that it is right.
   *
   * @throws {TypeError} for an empty signature, and for text that is not base64
   * @throws {GuardError} `not-asked`
   */
  async pkSign(signature: Uint8Array | string, options?: CommandOptions): Promise<void> {
    const lines = signatureLines(signature);
    const pk = order(["pk-sig"], [], { lines });
    const rsa = order(["rsa-sig"], [], { lines });
    const decide = ({ asked }: Daemon) => asked.sign === "RSA_SIGN" ? rsa : pk;
    await sendDecided(this, "pk-sig", decide, options);
  }

  /** `rsa-sig`, whatever it was asked for by; as {@linkcode QueryCommands.pkSign}. */
  async rsaSign(signature: Uint8Array | string, options?: CommandOptions): Promise<void> {
    await send(this, order(["rsa-sig"], [], { lines: signatureLines(signature) }), options);
  }

  /**
   * `pkcs11-id-count`: how many identities the tokens have.
   *
   * @throws {GuardError} `pkcs11-while-held`
   */
  async pkcs11Count(options?: CommandOptions): Promise<number> {
    return parsePkcs11Count(await send(this, order(["pkcs11-id-count"]), options));
  }

  /**
   * `pkcs11-id-get`: one of them, from 0; `undefined` if there are fewer.
   *
   * @throws {GuardError} `pkcs11-while-held`
   */
  async pkcs11Entry(index: number, options?: CommandOptions): Promise<Pkcs11Entry | undefined> {
    const it = order(["pkcs11-id-get", wholeNumber(index, "an index")]);
    return parsePkcs11Entry(await send(this, it, options));
  }

  /** `pkcs11-id-count`, and `pkcs11-id-get` for each: all of them. */
  async pkcs11Ids(options?: CommandOptions): Promise<readonly Pkcs11Entry[]> {
    const entries: Pkcs11Entry[] = [];
    const count = await this.pkcs11Count(options);
    for (let index = 0; index < count; index++) {
      const entry = await this.pkcs11Entry(index, options);
      if (entry === undefined) break;
      entries.push(entry);
    }
    return entries;
  }

  /**
   * `cr-response`: answers the question of a server (`INFOMSG` `CR_TEXT`).
   *
   * @throws {RangeError} for more than 192 bytes, which are 256 in base64
   */
  async crResponse(response: string, options?: CommandOptions): Promise<void> {
    const base64 = toBase64(response);
    await send(this, order(["cr-response"], [base64]), options);
  }
}

type Daemon = Parameters<Parameters<typeof sendDecided>[2]>[0];

function remoteOrder(answer: RemoteAnswer): ReturnType<typeof order> {
  switch (answer.action) {
    case "ACCEPT":
      return order(["remote", "ACCEPT"]);
    case "SKIP":
      if (answer.count === undefined) return order(["remote", "SKIP"]);
      if (answer.count < 1) throw new RangeError("remote: SKIP of fewer than 1 entry");
      return order(["remote", "SKIP", wholeNumber(answer.count, "a number of entries")]);
    case "MOD":
      return order(["remote", "MOD"], [requireHost(answer.host), requirePort(answer.port)]);
    default:
      throw new TypeError("remote: the action is ACCEPT, SKIP or MOD");
  }
}

function requireHost(host: string): string {
  if (typeof host !== "string" || !/^[^\s,]+$/.test(host)) {
    throw new TypeError("a host is a name or an address");
  }
  return host;
}

function requirePort(port: number): string {
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new RangeError(`a port is ${port}, expected 1 to 65535`);
  }
  return String(port);
}

function base64Lines(bytes: Uint8Array): readonly string[] {
  return toBase64(bytes).match(new RegExp(`.{1,${BASE64_LINE_CHARS}}`, "g")) ?? [];
}

/** OpenVPN succeeds with anything, and then fails to connect. */
function signatureLines(signature: Uint8Array | string): readonly string[] {
  if (typeof signature !== "string") return requireSignature(base64Lines(signature));
  const lines = signature.split(/\r?\n/).filter((line) => line !== "");
  encodeBody(lines);
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(lines.join(""))) {
    throw new TypeError("a signature is bytes or base64");
  }
  return requireSignature(lines);
}

function requireSignature(lines: readonly string[]): readonly string[] {
  if (lines.length === 0) throw new TypeError("a signature is not empty");
  return lines;
}
