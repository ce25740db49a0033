/**
 * The commands about the clients of a server.
 *
 * @module
 */
import { isClientId, isKeyId } from "./_decimal.ts";
import { type Decide, order, send, sendDecided } from "./client_core.ts";
import type { CommandOptions } from "./client_options.ts";
import { encodeBody } from "./command.ts";
import { QueryCommands } from "./commands_query.ts";
import { wholeNumber } from "./commands_general.ts";
import type { ClientAuthEvent, ClientEvent, ClientResponseEvent } from "./event.ts";
import { parseClientCount, parseKillCount, parseUpdateCount } from "./reply_values.ts";
import { killsByProtocol, pendingAuthArguments } from "./versions.ts";

/** A CID or a KID: decimal, as the events have it. */
export type DecimalId = string | number | bigint;

/**
 * Which request is answered: the event itself, which is answered as long as that very client waits; or its ids, which are taken
 * for those of the client that has them now, if no other client had them before.
 */
export type RequestRef = ClientAuthEvent | ClientResponseEvent | {
  /** The CID. */
  readonly clientId: DecimalId;
  /** The KID. */
  readonly keyId: DecimalId;
};

/** Which client: any event about it, or its CID. */
export type ClientRef = ClientEvent | DecimalId;

/** Where a client comes from: a {@linkcode StatusAddress} has what it takes. */
export interface KillAddress {
  /** `udp`, `tcp` or longer: `udp4`, `tcp4-server`. OpenVPN 2.7 does not do without. */
  readonly protocol?: string | undefined;
  /** An IPv4 address: `kill` takes no other. */
  readonly address: string;
  /** Its port. */
  readonly port?: number | undefined;
}

/** The longest `extra` that arrives: OpenVPN takes 10 bytes more, and the client drops the message without a word. */
export const MAX_PENDING_EXTRA_BYTES = 246;

/**
 * The longest line of configuration for a client, in bytes without its line end. OpenVPN reads a longer one in parts, and what comes
 * after the 256th byte as a directive of its own: the text of a comment could push a route (seen with 2.6.14).
 */
export const MAX_CONFIG_LINE_BYTES = 255;

/** The commands about the clients of a server. */
export abstract class ServerCommands extends QueryCommands {
  /**
   * `client-auth`: lets a client in, with `lines` of configuration for it (as `client-connect` would write them, such as
   * `push "route 10.9.0.0 255.255.0.0"`). When it answers a `REAUTH` they are ignored.
   *
   * @throws {TypeError} if a line has control characters or is `END`, @throws {RangeError} if it has more than
   * {@linkcode MAX_CONFIG_LINE_BYTES} bytes
   * @throws {ManagementError} `stale`: the request is not open any more; {@linkcode GuardError}: it cannot be told from another
   */
  async clientAuth(
    request: RequestRef,
    lines: readonly string[] = [],
    options?: CommandOptions,
  ): Promise<void> {
    requireConfig(lines);
    await send(this, decision("client-auth", request, [], lines), options);
  }

  /** `client-auth-nt`: lets a client in. As {@linkcode ServerCommands.clientAuth}. */
  async clientAuthNt(request: RequestRef, options?: CommandOptions): Promise<void> {
    await send(this, decision("client-auth-nt", request), options);
  }

  /**
   * `client-deny`: refuses a client. `reason` is for OpenVPN's log; `clientReason` is sent to the client: a text, `CRV1:...` for a
   * dynamic challenge, or `TEMP[...]`. As {@linkcode ServerCommands.clientAuth}.
   */
  async clientDeny(
    request: RequestRef,
    reason: string,
    clientReason?: string,
    options?: CommandOptions,
  ): Promise<void> {
    const texts = clientReason === undefined ? [reason] : [reason, clientReason];
    await send(this, decision("client-deny", request, texts), options);
  }

  /**
   * `client-pending-auth`: tells a client what else to do, `WEB_AUTH:...`, `OPEN_URL:...` or `CR_TEXT:...`, and gives it so many seconds. (OpenVPN
   * 2.5 takes no time.) The client counts them from its own login, whenever it hears of them, and looks only every 5 s: add the time that
   * has passed since its `CONNECT`. As {@linkcode ServerCommands.clientAuth}.
   *
   * @throws {RangeError} if `extra` has more than {@linkcode MAX_PENDING_EXTRA_BYTES} bytes, or the time is not a whole number from 1
   */
  async clientPendingAuth(
    request: RequestRef,
    extra: string,
    timeoutSeconds: number,
    options?: CommandOptions,
  ): Promise<void> {
    const { length } = new TextEncoder().encode(extra);
    if (length > MAX_PENDING_EXTRA_BYTES) {
      const text = `${length} bytes, expected at most ${MAX_PENDING_EXTRA_BYTES}`;
      throw new RangeError(`client-pending-auth: the text for the client has ${text}`);
    }
    const timeout = wholeNumber(timeoutSeconds, "a timeout in seconds");
    if (timeoutSeconds === 0) throw new RangeError("a timeout of 0 seconds, expected at least 1");
    const { ids, about } = requestOf(request);
    const decide: Decide = ({ management }) => {
      const [clientId, ...texts] = pendingAuthArguments(management, ...ids, extra, timeout);
      return order(["client-pending-auth", clientId], texts, { about });
    };
    await sendDecided(this, "client-pending-auth", decide, options);
  }

  /**
   * `client-kill`: throws a client out. `message` is what is sent to it: `RESTART` if there is none (it may come again), or `HALT`,
   * with a text behind a comma. Success means that this was sent: over UDP the client is gone after 5 seconds.
   *
   * @throws {ManagementError} `stale`: the client of the event is gone; {@linkcode GuardError}: the id was that of another one
   */
  async clientKill(client: ClientRef, message?: string, options?: CommandOptions): Promise<void> {
    const { id, about } = clientOf(client);
    const texts = message === undefined ? [] : [message];
    await send(this, order(["client-kill", id], texts, { about }), options);
  }

  /**
   * `kill`: throws out all clients with this common name; gives how many there were, and rejects with a {@linkcode CommandError} if there was none.
   *
   * @throws {TypeError} for a name with a colon, which OpenVPN takes for an address: see {@linkcode ServerCommands.clientKill}
   */
  async kill(commonName: string, options?: CommandOptions): Promise<number> {
    if (commonName.includes(":")) {
      throw new TypeError("kill takes no name with a colon, client-kill takes every client");
    }
    return parseKillCount(await send(this, order(["kill"], [commonName]), options));
  }

  /**
   * `kill`: throws out the client that comes from this address, in the form that this OpenVPN takes, for which it may be asked for
   * its `version` before.
   *
   * @throws {TypeError} if the address is not IPv4, if there is no port, or if OpenVPN 2.7 wants a protocol and there is none: see
   * {@linkcode ServerCommands.clientKill}
   */
  async killAddress(
    { address, port, protocol }: KillAddress,
    options?: CommandOptions,
  ): Promise<number> {
    const transport = /^(?:udp|tcp)/.exec(protocol ?? "")?.[0];
    if (!/^\d{1,3}(?:\.\d{1,3}){3}$/.test(address)) {
      throw new TypeError("kill takes IPv4 addresses only, client-kill takes every client");
    }
    if (port === undefined) throw new TypeError("kill takes an address with its port");
    const place = `${address}:${wholeNumber(port, "a port")}`;
    const decide = (asked: boolean): Decide => ({ management, version }) => {
      // A reply without a version is that of an unknown one.
      const byProtocol = killsByProtocol(management, version) ?? (asked ? true : undefined);
      if (byProtocol === undefined) return { ask: order(["version"]), then: decide(true) };
      if (byProtocol === false) return order(["kill"], [place]);
      if (transport === undefined) {
        throw new TypeError("this OpenVPN wants to know whether the address is udp or tcp");
      }
      return order(["kill"], [`${transport}:${place}`]);
    };
    return parseKillCount(await sendDecided(this, "kill", decide(false), options));
  }

  /** `nclients`: how many clients there are. */
  async clientCount(options?: CommandOptions): Promise<number> {
    return parseClientCount(await send(this, order(["nclients"]), options));
  }

  /** `push-update-broad` (OpenVPN 2.7, without DCO): changes options of all clients; gives of how many. */
  async pushUpdateBroad(options: string, commandOptions?: CommandOptions): Promise<number> {
    return parseUpdateCount(
      await send(this, order(["push-update-broad"], [options]), commandOptions),
    );
  }

  /**
   * `push-update-cid` (OpenVPN 2.7, without DCO): changes options of one client, such as `route 10.66.0.0 255.255.0.0, -dns`; gives of
   * how many.
   */
  async pushUpdateCid(
    client: ClientRef,
    options: string,
    commandOptions?: CommandOptions,
  ): Promise<number> {
    const { id, about } = clientOf(client);
    const it = order(["push-update-cid", id], [options], { about });
    return parseUpdateCount(await send(this, it, commandOptions));
  }
}

/** Throws if OpenVPN would read something else than these lines. */
export function requireConfig(lines: readonly string[]): void {
  encodeBody(lines);
  for (const [index, line] of lines.entries()) {
    const { length } = new TextEncoder().encode(line);
    if (length <= MAX_CONFIG_LINE_BYTES) continue;
    const text = `${length} bytes, expected at most ${MAX_CONFIG_LINE_BYTES}`;
    throw new RangeError(`line ${index + 1} for a client has ${text}`);
  }
}

/** A command about a request. */
function decision(
  command: string,
  request: RequestRef,
  texts: readonly string[] = [],
  lines?: readonly string[],
): ReturnType<typeof order> {
  const { ids, about } = requestOf(request);
  return order([command, ...ids], texts, lines === undefined ? { about } : { about, lines });
}

function requestOf(
  request: RequestRef,
): { readonly ids: readonly [string, string]; readonly about: ClientEvent | undefined } {
  const ids = [idText(request.clientId, isClientId), idText(request.keyId, isKeyId)] as const;
  return { ids, about: "type" in request ? request : undefined };
}

function clientOf(
  client: ClientRef,
): { readonly id: string; readonly about: ClientEvent | undefined } {
  if (typeof client !== "object") return { id: idText(client, isClientId), about: undefined };
  return { id: idText(client.clientId, isClientId), about: client };
}

/** A header that OpenVPN cannot read makes commands of the lines behind it: what is no id is not sent. */
function idText(id: DecimalId, isId: (text: string) => boolean): string {
  const exact = typeof id !== "number" || Number.isSafeInteger(id);
  if (!exact || !isId(String(id))) throw new TypeError("an id is a decimal number");
  return String(id);
}
