/**
 * Who may call whom: the user at the other end of a unix socket, and a token.
 *
 * @module
 */
import { requireChoice } from "../adapters/limits.ts";
import {
  canReadPeerCredentials,
  isOwnUser,
  PEER_CREDENTIALS_TAKE,
} from "../adapters/peer_credentials.ts";
import { readTokenFile } from "../adapters/token_file.ts";
import type { Conn, PeerCredentials } from "../adapters/types.ts";
import { UdsError } from "./errors.ts";

/**
 * Whether to ask the kernel which process is at the other end of a unix socket:
 *
 * - `require`: who is not known is refused.
 * - `try`: who is not known is `undefined`.
 * - `off`: never.
 *
 * It takes Linux, and Deno with `--allow-ffi`, Bun, or Node 26, which warns that its FFI is experimental. On Deno such sockets are slower.
 */
export type PeerCred = "require" | "try" | "off";

/** Says who may; what it throws is a no. `undefined` is a peer that is not known. */
export type Authorize = (peer: PeerCredentials | undefined) => boolean | Promise<boolean>;

/** Options of both sides. */
export interface AdmissionOptions {
  /** Whether to ask the kernel who is at the other end. A socket file that is open to its owner alone needs no more. @default "off"; "require" with `authorize` */
  readonly peerCred?: PeerCred | undefined;
  /** Who may be at the other end. @default our own user and root, and with `try` who is not known */
  readonly authorize?: Authorize | undefined;
  /** What a client proves itself with, and a server demands. @default none */
  readonly token?: string | undefined;
  /** A file whose first line is the token, not open to everybody. It is read at each connection, so it can be replaced. @default none */
  readonly tokenFile?: string | undefined;
}

/** The same, checked, with the defaults of the others. */
export interface Admission {
  readonly peerCred: PeerCred;
  readonly authorize: Authorize;
  /** Gives the token, if there is one. A function, so that it is in no log of these settings. */
  readonly token: (() => string | Promise<string>) | undefined;
}

const ENCODER = new TextEncoder();

/** @throws {TypeError} */
export function admission(options: AdmissionOptions): Admission {
  const { authorize, token, tokenFile } = options;
  const { peerCred = authorize === undefined ? "off" : "require" } = options;
  requireChoice("peerCred", peerCred, ["require", "try", "off"]);
  if (peerCred === "off" && authorize !== undefined) {
    throw new TypeError("authorize without the peerCred that it is asked about");
  }
  if (token !== undefined && tokenFile !== undefined) {
    throw new TypeError("both token and tokenFile are given");
  }
  if (token === "") throw new TypeError("token is empty");
  return {
    peerCred,
    authorize: authorize ?? ((peer) => peer === undefined || isOwnUser(peer)),
    token: tokenFile === undefined
      ? token === undefined ? undefined : () => token
      : () => readTokenFile(tokenFile),
  };
}

/** Whether sockets have to tell who is at their other end. @throws {UdsError} `unsupported` where nobody could be let in */
export function needsCredentials({ peerCred }: Admission): boolean {
  if (peerCred === "off") return false;
  const can = canReadPeerCredentials();
  if (can || peerCred === "try") return can;
  throw new UdsError("unsupported", `this runtime does not tell ${PEER_CREDENTIALS_TAKE}`);
}

/**
 * Who is at the other end.
 *
 * @throws {UdsError} `unauthorized`
 */
export async function admit(
  conn: Conn,
  { peerCred, authorize }: Admission,
): Promise<PeerCredentials | undefined> {
  if (peerCred === "off") return undefined;
  const peer = conn.peerCredentials();
  if (peer === undefined && peerCred === "require") {
    throw new UdsError("unauthorized", "nothing tells who is at the other end");
  }
  const who = peer === undefined ? "a peer that is not known" : `the user ${peer.uid}`;
  let allowed = false;
  try {
    allowed = await authorize(peer);
  } catch (cause) {
    throw new UdsError("unauthorized", `${who} was not let in`, { cause });
  }
  if (!allowed) throw new UdsError("unauthorized", `${who} may not talk to us`);
  return peer;
}

/** Whether a token is the expected one, which may be in a file that cannot be read. */
export async function proves(
  token: string | undefined,
  expected: Admission["token"],
  onError?: (error: unknown) => void,
): Promise<boolean> {
  if (token === undefined || expected === undefined) return false;
  try {
    return sameText(token, await expected());
  } catch (error) {
    onError?.(error);
    return false;
  }
}

/** In a time that tells nothing of where they differ. */
function sameText(a: string, b: string): boolean {
  const [left, right] = [ENCODER.encode(a), ENCODER.encode(b)];
  let difference = left.length ^ right.length;
  for (let i = 0; i < right.length; i++) difference |= (left[i] ?? 0) ^ right[i]!;
  return difference === 0;
}
