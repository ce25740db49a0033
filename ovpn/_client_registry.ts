/**
 * Which client the ids in an answer belong to. After a restart OpenVPN uses the same CIDs and KIDs for others, so that a late answer
 * would let in the wrong one (spec 5.1.10).
 *
 * @module
 */
import { readUnsigned } from "./_decimal.ts";
import type { ClientEvent, ManagementEvent } from "./event.ts";
import { ManagementError } from "./errors.ts";
import { GuardError, type GuardName } from "./guard.ts";

/** How many CIDs are remembered to tell that one is used again; the oldest are forgotten first. */
export const MAX_REMEMBERED_CLIENTS = 65_536;
/** A client has no more keys than this at a time. */
const MAX_KEYS = 3;

interface Client {
  /** Of its requests, the newest last; none if it was let in without one. */
  readonly keyIds: string[];
  /** Whether another client had this CID before. */
  reused: boolean;
  established: boolean;
}

/** Commands that decide about a request: the ones that name a KID. The others name a client alone. */
const DECISIONS: ReadonlySet<string> = new Set(
  "client-auth client-auth-nt client-deny client-pending-auth".split(" "),
);
export const CLIENT_COMMANDS: ReadonlySet<string> = new Set([
  ...DECISIONS,
  ...["client-kill", "client-pf", "push-update-cid"],
]);

const WHY = {
  "unannounced-client": "this connection has not heard of such a request",
  "ended-client": "this client is gone, and its ids may be those of another one soon",
  "reused-client": "another client had the same ids before; give the event instead",
} as const satisfies { readonly [K in GuardName]?: string };

type Doubt = keyof typeof WHY;

/** Follows the clients of a server. */
export class ClientRegistry {
  readonly #clients = new Map<string, Client>();
  readonly #remembered: Set<string>;
  /** Whether those ids are good: nothing has restarted since. */
  #sameRun = false;
  /** Another object each time that CIDs begin anew. */
  era: object = {};
  /** Whom an event was about, for as long as somebody has that event. */
  readonly #subjects = new WeakMap<ManagementEvent, Client>();

  /** `remembered` are the CIDs of earlier connections to the same OpenVPN; it is kept up. */
  constructor(remembered: Set<string> = new Set()) {
    this.#remembered = remembered;
  }

  /** The CIDs of earlier connections are those of the same clients, until OpenVPN restarts. */
  continueRun(): void {
    this.#sameRun = true;
    for (const client of this.#clients.values()) client.reused = false;
  }

  /** Takes an event as it comes, and not when its environment is complete. */
  see(event: ManagementEvent): void {
    switch (event.type) {
      case "HOLD":
        return this.#restart();
      case "STATE":
        if (event.name === "RECONNECTING" || event.name === "EXITING") this.#restart();
        return;
      case "CLIENT":
        return this.#onClient(event);
    }
  }

  /** Takes an event as the consumers get it: an answer to this very event is one to this very client. */
  bind(event: ManagementEvent): void {
    if (event.type !== "CLIENT") return;
    const client = this.#clients.get(event.clientId);
    if (client !== undefined) this.#subjects.set(event, client);
  }

  /**
   * Throws if a command is about a client that is not the one it was meant for. `about` is the event that it answers; without it only the ids
   * tell.
   *
   * @throws {ManagementError} `stale`
   */
  refuseStale(
    parameters: readonly string[],
    about: ClientEvent | undefined,
    allow: readonly GuardName[] = [],
  ): void {
    const [command = "", id = "", key = ""] = parameters;
    if (!CLIENT_COMMANDS.has(command)) return;
    const decision = DECISIONS.has(command);
    // Before OpenVPN 2.6.2 this one named no KID.
    const withoutKey = command === "client-pending-auth" && parameters.length < 5;
    const clientId = readUnsigned(id, 64);
    const keyId = decision && !withoutKey ? readUnsigned(key, 32) : undefined;
    // OpenVPN cannot read it, and refuses it itself.
    if (clientId === undefined || decision && !withoutKey && keyId === undefined) return;
    const client = this.#clients.get(clientId);
    if (about !== undefined) {
      const subject = this.#subjects.get(about);
      const open = "keyId" in about && client?.keyIds.includes(about.keyId);
      if (subject !== undefined && subject === client && (open || !decision)) return;
      const text = `${command}: refused: the client ${clientId} that this event is about is gone`;
      throw new ManagementError("stale", text);
    }
    const doubt = this.#doubts(clientId, client, keyId, decision)
      .find((guard) => !allow.includes(guard));
    if (doubt === undefined) return;
    throw new GuardError(doubt, `${command}: refused (${doubt}): ${WHY[doubt]}`, "stale");
  }

  #doubts(
    clientId: string,
    client: Client | undefined,
    keyId: string | undefined,
    decision: boolean,
  ): readonly Doubt[] {
    if (client === undefined) {
      if (this.#remembered.has(clientId) && !this.#sameRun) return ["ended-client"];
      return decision ? ["unannounced-client"] : [];
    }
    const doubts: Doubt[] = client.reused ? ["reused-client"] : [];
    if (keyId !== undefined && !client.keyIds.includes(keyId)) doubts.push("unannounced-client");
    return doubts;
  }

  #restart(): void {
    this.#clients.clear();
    this.#sameRun = false;
    this.era = {};
  }

  #onClient(event: ClientEvent): void {
    const { clientId } = event;
    const client = this.#clients.get(clientId);
    switch (event.kind) {
      case "DISCONNECT":
        this.#clients.delete(clientId);
        return;
      case "CONNECT":
        // The same pair again: OpenVPN has started anew, and nothing has told us.
        if (client?.keyIds.includes(event.keyId)) this.#create(clientId, event.keyId);
        else this.#addKey(clientId, event.keyId);
        // It may be a new session of the same client, which is established once more.
        if (client !== undefined) client.established = false;
        return;
      case "REAUTH":
      case "CR_RESPONSE":
        return this.#addKey(clientId, event.keyId);
      case "ESTABLISHED":
        // Once for each client. Without client-auth it is also the only event, and a restart shows nowhere else.
        (client?.established === false ? client : this.#create(clientId)).established = true;
    }
  }

  #addKey(clientId: string, keyId: string): void {
    const keyIds = this.#clients.get(clientId)?.keyIds;
    if (keyIds === undefined) this.#create(clientId, keyId);
    else if (!keyIds.includes(keyId)) {
      keyIds.push(keyId);
      if (keyIds.length > MAX_KEYS) keyIds.shift();
    }
  }

  #create(clientId: string, ...keyIds: string[]): Client {
    const reused = this.#remembered.delete(clientId) && !this.#sameRun;
    this.#remembered.add(clientId);
    if (this.#remembered.size > MAX_REMEMBERED_CLIENTS) {
      for (const oldest of this.#remembered) {
        this.#remembered.delete(oldest);
        // Without client-auth OpenVPN does not tell who leaves, and they would be ever more.
        this.#clients.delete(oldest);
        break;
      }
    }
    const client = { keyIds, reused, established: false };
    this.#clients.set(clientId, client);
    return client;
  }
}
