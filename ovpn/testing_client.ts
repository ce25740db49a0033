/**
 * A client of a simulated OpenVPN server, as a test sees it.
 *
 * @module
 */
import type { Mailbox } from "./testing_mailbox.ts";

/** What a client brings. */
export interface SimulatedClientOptions {
  /** Of its certificate, or its user name; control characters become `_`, as in OpenVPN. */
  readonly commonName: string;
  /** What it logs in with. @default none */
  readonly username?: string | undefined;
  /** What it logs in with. @default none */
  readonly password?: string | undefined;
  /** Variables added to every block, in their order; a name may come again. @default none */
  readonly env?: Iterable<readonly [string, string]> | undefined;
  /** Its IP address. @default "127.0.0.1" */
  readonly address?: string | undefined;
  /** Its port. @default 40000 and its CID */
  readonly port?: number | undefined;
  /** Its IPv4 address in the tunnel. @default "10.8.0.2" for CID 0, the next one for the next CID */
  readonly virtualAddress?: string | undefined;
  /** Its IPv6 address in the tunnel. @default none */
  readonly virtualAddress6?: string | undefined;
  /** Takes push updates. @default true */
  readonly pushUpdate?: boolean | undefined;
}

/** What the manager said to one key of a client. */
export type AuthDecision =
  | { readonly kind: "accepted"; readonly config: readonly string[] }
  | { readonly kind: "denied"; readonly reason: string; readonly clientReason: string | undefined }
  /** The client left before. */
  | { readonly kind: "gone" };

/** A `client-pending-auth` that a client got. */
export interface PendingAuth {
  /** `WEB_AUTH:...`, `OPEN_URL:...`, `CR_TEXT:...`. */
  readonly extra: string;
  /** In seconds. */
  readonly timeout: number;
}

/** A client of a simulated server, made by `SimulatedDaemon.clientConnects`. */
export interface SimulatedClient {
  /** The CID, as a number; events and tables have it as text. CIDs begin at 0 again when the server restarts. */
  readonly clientId: number;
  /** The id of its newest key: 1, and 3, 4, ... as it renews it. */
  readonly keyId: number;
  /** The name by which status and `kill` know it. */
  readonly commonName: string;
  /** True from ESTABLISHED until it leaves. */
  readonly established: boolean;
  /** What the manager said to its login. */
  readonly decision: Promise<AuthDecision>;
  /** Resolves when the manager kills it, with the message for the client; with `undefined` if it leaves by itself. */
  readonly killed: Promise<string | undefined>;
  /** The `client-pending-auth` it got. */
  readonly pending: Mailbox<PendingAuth>;
  /** The options that were pushed to it by `push-update-cid` and `push-update-broad`. */
  readonly pushed: Mailbox<string>;
  /**
   * Renews its key, with another password if there is one, and waits for the decision on it.
   *
   * @throws {TypeError} if it has left
   */
  reauth(password?: string): Promise<AuthDecision>;
  /**
   * Answers a challenge of `client-pending-auth`, with base64.
   *
   * @throws {TypeError} if it has left
   */
  respond(response: string): void;
  /**
   * Sets what has passed since it connected, and tells it if the manager asked for `bytecount`.
   *
   * @throws {TypeError} if it has left
   */
  traffic(bytesIn: number, bytesOut: number): void;
  /** Leaves. */
  disconnects(): void;
}
