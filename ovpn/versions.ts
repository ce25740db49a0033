/**
 * What commands look like to which OpenVPN (spec 1.8). The greeting tells the version of the management interface, which is all that
 * mostly matters; where it is not enough, `version` tells that of the program. What is unknown is taken for the newest.
 *
 * @module
 */
import type { DaemonVersion } from "./reply_values.ts";

/** The management interface of OpenVPN 2.6.2 to 2.7.1, which covers programs that read `kill` in two ways. */
const AMBIGUOUS_MANAGEMENT = 5;
/** That of OpenVPN 2.7.2: the first that reads a password from lines. */
const PASSWORD_LINES_MANAGEMENT = 6;
/** What a manager has to say by `version n` before a password may be lines. */
const PASSWORD_LINES_VERSION = 5;

/**
 * Whether `kill` takes `udp:192.0.2.1:1194` (2.7) or `192.0.2.1:1194`; `undefined` if that takes a look at the version of the program.
 */
export function killsByProtocol(
  management: number | undefined,
  daemon: DaemonVersion | undefined,
): boolean | undefined {
  if (management === undefined || management > AMBIGUOUS_MANAGEMENT) return true;
  if (management < AMBIGUOUS_MANAGEMENT) return false;
  if (daemon === undefined) return undefined;
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(daemon.openvpn.version ?? "") ?? [];
  return major === undefined || Number(major) > 2 || Number(major) === 2 && Number(minor) >= 7;
}

/** The arguments of `client-pending-auth`: 2.5 has neither a KID nor a timeout, 2.6.0 and 2.6.1 have no KID. */
export function pendingAuthArguments(
  management: number | undefined,
  clientId: string,
  keyId: string,
  extra: string,
  timeout: string,
): readonly [clientId: string, ...others: string[]] {
  if (management !== undefined && management < 4) return [clientId, extra];
  if (management === 4) return [clientId, extra, timeout];
  return [clientId, keyId, extra, timeout];
}

/** Whether `password` may be followed by lines; `announced` is what we said by `version n`, if we did. */
export function takesPasswordLines(
  management: number | undefined,
  announced: number | undefined,
): boolean {
  return (management ?? 0) >= PASSWORD_LINES_MANAGEMENT &&
    (announced ?? 0) >= PASSWORD_LINES_VERSION;
}
