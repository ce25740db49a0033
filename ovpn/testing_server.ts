/**
 * The clients of a simulated OpenVPN server, and the commands about them.
 *
 * @module
 */
import { type Commands, type Core, leadingInteger } from "./testing_core.ts";
import type { AuthDecision, SimulatedClientOptions } from "./testing_client.ts";
import { ServedClient } from "./testing_served_client.ts";

/** The clients of one server. */
export class ClientPool {
  readonly #core: Core;
  readonly #clients = new Map<number, ServedClient>();
  #nextId = 0;

  /** Makes the pool of `core`. */
  constructor(core: Core) {
    this.#core = core;
  }

  /** Those who are here. */
  get clients(): readonly ServedClient[] {
    return [...this.#clients.values()];
  }

  /** Lets one in. */
  connect(options: SimulatedClientOptions): ServedClient {
    const clientId = this.#nextId++;
    const leave = (client: ServedClient) => this.#clients.delete(client.clientId);
    const client = new ServedClient(this.#core, clientId, options, leave);
    this.#clients.set(clientId, client);
    return client;
  }

  /** Everybody leaves, and CIDs begin at 0 (spec 5.1.10). */
  restart(): void {
    for (const client of this.clients) client.disconnects();
    this.#nextId = 0;
  }

  /** The commands for a server. */
  commands(): Commands {
    const say = (text: string) => this.#core.say(text);
    const kid = (text: string, then: (kid: number) => void) =>
      parseNumber(text) === undefined ? say("ERROR: cannot parse KID") : then(parseNumber(text)!);
    const cid = (text: string, then: (cid: number) => void) =>
      parseNumber(text) === undefined ? say("ERROR: cannot parse CID") : then(parseNumber(text)!);
    const accept = (client: number, key: number, config: readonly string[]) =>
      this.#decide("client-auth", client, key, { kind: "accepted", config });
    return {
      "client-auth": {
        needs: 2,
        run: ([c = "", k = ""]) =>
          cid(
            c,
            (client) =>
              kid(k, (key) => this.#core.openBody((config) => accept(client, key, config))),
          ),
      },
      "client-auth-nt": {
        needs: 2,
        run: ([c = "", k = ""]) => cid(c, (client) => kid(k, (key) => accept(client, key, []))),
      },
      "client-deny": {
        needs: 3,
        atLeast: true,
        run: ([c = "", k = "", reason = "", clientReason]) =>
          cid(
            c,
            (client) =>
              kid(k, (key) =>
                this.#decide("client-deny", client, key, { kind: "denied", reason, clientReason })),
          ),
      },
      "client-pending-auth": {
        needs: 4,
        run: ([c = "", k = "", extra = "", time = ""]) =>
          cid(c, (client) =>
            kid(k, (key) => {
              const timeout = parseNumber(time);
              if (timeout === undefined) return say("ERROR: cannot parse TIMEOUT");
              if (!this.#core.server) return this.#core.sayUnsupported("client-pending-auth");
              const ok = this.#find(client)?.pend(key, { extra, timeout }) ?? false;
              say(
                ok
                  ? "SUCCESS: client-pending-auth command succeeded"
                  : "ERROR: client-pending-auth command failed. Extra parameter might be too long",
              );
            })),
      },
      "client-kill": {
        needs: 1,
        atLeast: true,
        run: ([c = "", message = "RESTART"]) => cid(c, (client) => this.#killById(client, message)),
      },
      kill: {
        needs: 1,
        run: ([victim = ""]) => this.#running("kill") && say(this.#kill(victim)),
      },
      nclients: {
        run: () => this.#running("nclients") && say(`SUCCESS: nclients=${this.#clients.size}`),
      },
      ...this.#core.is27 ? this.#pushCommands() : {},
    };
  }

  /** Answers if this is not for now. */
  #running(command: string): boolean {
    const running = this.#core.server && this.#core.started;
    if (!running) this.#core.sayUnsupported(command);
    return running;
  }

  #find(clientId: number): ServedClient | undefined {
    return this.#clients.get(clientId);
  }

  #decide(command: string, clientId: number, keyId: number, decision: AuthDecision): void {
    if (!this.#running(command)) return;
    const ok = this.#core.clientAuth && this.#find(clientId)?.decide(keyId, decision);
    this.#core.say(
      ok ? `SUCCESS: ${command} command succeeded` : `ERROR: ${command} command failed`,
    );
  }

  #killById(clientId: number, message: string): void {
    if (!this.#running("client-kill")) return;
    const client = this.#find(clientId);
    const verdict = client === undefined
      ? "ERROR: client-kill command failed"
      : "SUCCESS: client-kill command succeeded";
    this.#core.say(verdict);
    client?.kill(message);
    // Some seconds later, in life.
    this.#core.link?.afterRead(() => client?.disconnects());
  }

  #kill(victim: string): string {
    const [first = "", second = "", third = ""] = victim.split(":");
    const is27 = this.#core.is27;
    const [protocol, ip, port] = is27 ? [first, second, third] : ["", first, second];
    if (ip === "" || port === "") {
      if (first === "") return "ERROR: kill parse";
      const count = this.#killAll(({ commonName }) => commonName === first);
      return count > 0
        ? `SUCCESS: common name '${first}' found, ${count} client(s) killed`
        : `ERROR: common name '${first}' not found`;
    }
    const number = leadingInteger(port);
    const badPort = number <= 0 || number >= 65536;
    if (is27 && (badPort || (protocol !== "udp" && protocol !== "tcp"))) {
      return `ERROR: port number or protocol out of range: ${port} ${protocol}`;
    }
    if (badPort) return `ERROR: port number is out of range: ${port}`;
    if (!/^\d{1,3}(?:\.\d{1,3}){3}$/.test(ip)) return `ERROR: error parsing IP address: ${ip}`;
    // Simulated clients come by UDP.
    const count = protocol === "tcp"
      ? 0
      : this.#killAll(({ killAddress }) => killAddress === `${ip}:${number}`);
    const shown = is27 ? `${protocol}:${ip}:${number}` : `${ip}:${number}`;
    return count > 0
      ? `SUCCESS: ${count} client(s) at address ${shown} killed`
      : `ERROR: client at address ${shown} not found`;
  }

  #killAll(isVictim: (client: ServedClient) => boolean): number {
    const victims = this.clients.filter(isVictim);
    for (const client of victims) {
      client.kill("RESTART");
      client.disconnects();
    }
    return victims.length;
  }

  #pushCommands(): Commands {
    const say = (text: string) => this.#core.say(text);
    const push = (clients: readonly ServedClient[], options: string) => {
      const able = clients.filter(({ takesPushUpdates }) => takesPushUpdates);
      for (const client of able) client.pushed.put(options);
      say(
        able.length > 0 ? `SUCCESS: ${able.length} client(s) updated` : "ERROR: no client updated",
      );
      say(
        `${
          able.length > 0
            ? "SUCCESS: push-update command succeeded"
            : "ERROR: push-update command failed"
        }`,
      );
    };
    return {
      "push-update-broad": {
        needs: 1,
        run: ([options = ""]) => this.#running("push-update-broad") && push(this.clients, options),
      },
      "push-update-cid": {
        needs: 2,
        run: ([c = "", options = ""]) => {
          if (!this.#running("push-update-cid")) return;
          const clientId = parseNumber(c);
          if (clientId === undefined) {
            say("ERROR: cannot parse CID");
            say("ERROR: push-update-cid fail during cid parsing");
          } else {
            const client = this.#find(clientId);
            if (client?.takesPushUpdates === false) {
              say(`PUSH_UPDATE: not sending message to unsupported peer with ID: ${clientId}`);
            }
            push(client === undefined ? [] : [client], options);
          }
        },
      },
    };
  }
}

/** A number as sscanf reads it: what follows the digits is ignored. */
function parseNumber(text: string): number | undefined {
  return /^ *[+-]?\d/.test(text) ? leadingInteger(text) : undefined;
}
