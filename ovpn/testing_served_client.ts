/**
 * A client of a simulated OpenVPN server, and how it is told of and decided on.
 *
 * @module
 */
import type {
  AuthDecision,
  PendingAuth,
  SimulatedClient,
  SimulatedClientOptions,
} from "./testing_client.ts";
import { type Core, SimulationError } from "./testing_core.ts";
import { Mailbox } from "./testing_mailbox.ts";

interface Key {
  readonly id: number;
  readonly decide: (decision: AuthDecision) => void;
  decided: boolean;
}

/** A client as the simulator has it. */
export class ServedClient implements SimulatedClient {
  readonly clientId: number;
  readonly commonName: string;
  readonly username: string | undefined;
  /** Its address in the tunnel; empty before it is established. */
  virtualAddress = "";
  /** Its IPv6 address in the tunnel; empty before it is established, and if it has none. */
  virtualAddress6 = "";
  established = false;
  bytesIn = 0;
  bytesOut = 0;
  /** Since when it is here, in seconds since 1970. */
  readonly since: number;
  readonly pending: Mailbox<PendingAuth> = new Mailbox();
  readonly pushed: Mailbox<string> = new Mailbox();
  readonly decision: Promise<AuthDecision>;
  readonly killed: Promise<string | undefined>;

  readonly #core: Core;
  readonly #options: SimulatedClientOptions;
  readonly #address: string;
  readonly #port: number;
  readonly #leave: (client: ServedClient) => void;
  readonly #keys: Key[] = [];
  #gone = false;
  readonly #onKilled: (message: string | undefined) => void;

  /** Connects; `leave` takes it out of the server. */
  constructor(
    core: Core,
    clientId: number,
    options: SimulatedClientOptions,
    leave: (client: ServedClient) => void,
  ) {
    this.#core = core;
    this.#options = options;
    this.#address = options.address ?? "127.0.0.1";
    this.#port = options.port ?? 40000 + clientId;
    this.#leave = leave;
    this.clientId = clientId;
    this.commonName = printable(options.commonName);
    this.username = options.username === undefined ? undefined : printable(options.username);
    this.since = core.now();
    const killed = Promise.withResolvers<string | undefined>();
    this.killed = killed.promise;
    this.#onKilled = killed.resolve;
    if (core.clientAuth) this.decision = this.#request("CONNECT", options.password);
    else {
      this.decision = Promise.resolve({ kind: "accepted", config: [] });
      this.#establish();
    }
  }

  /** Where it connects from, as `status` tells it. */
  get realAddress(): string {
    const [address, port] = [this.#address, this.#port];
    const v6 = address.includes(":");
    if (this.#core.is27) return v6 ? `udp6:[${address}]:${port}` : `udp4:${address}:${port}`;
    return v6 ? address : `${address}:${port}`;
  }

  /** Its IP address and port as `kill` takes them, for IPv4. */
  get killAddress(): string {
    return `${this.#address}:${this.#port}`;
  }

  /** True if it takes push updates. */
  get takesPushUpdates(): boolean {
    return this.established && (this.#options.pushUpdate ?? true);
  }

  get keyId(): number {
    return this.#keys.at(-1)?.id ?? 0;
  }

  reauth(password: string | undefined = this.#options.password): Promise<AuthDecision> {
    this.#refuseGone("renewing the key");
    if (!this.#core.clientAuth) return Promise.resolve({ kind: "accepted", config: [] });
    return this.#request("REAUTH", password);
  }

  respond(response: string): void {
    this.#refuseGone("answering a challenge");
    this.#core.sayBlock(
      "CLIENT",
      `CR_RESPONSE,${this.clientId},${this.keyId},${response}`,
      this.#env(),
    );
  }

  traffic(bytesIn: number, bytesOut: number): void {
    this.#refuseGone("counting bytes");
    [this.bytesIn, this.bytesOut] = [bytesIn, bytesOut];
    if (this.#core.byteCountSeconds > 0) {
      this.#core.say(`>BYTECOUNT_CLI:${this.clientId},${bytesIn},${bytesOut}`);
    }
  }

  disconnects(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#onKilled(undefined);
    const error = new SimulationError("gone", `client ${this.clientId} has left`);
    this.pending.end(error);
    this.pushed.end(error);
    for (const { decide } of this.#keys) decide({ kind: "gone" });
    this.#leave(this);
    if (this.#core.clientAuth) this.#sayDisconnect();
    this.established = false;
  }

  #sayDisconnect(): void {
    const duration = String(this.#core.now() - this.since);
    this.#core.sayBlock(
      "CLIENT",
      `DISCONNECT,${this.clientId}`,
      this.#env([
        ["time_duration", duration],
        ["bytes_sent", String(this.bytesOut)],
        ["bytes_received", String(this.bytesIn)],
      ]),
    );
  }

  /** Is decided on; false if there is no such key. */
  decide(keyId: number, decision: AuthDecision): boolean {
    const key = this.#keys.find(({ id }) => id === keyId);
    if (key === undefined) return false;
    if (key.decided) return true;
    key.decided = true;
    key.decide(decision);
    if (decision.kind === "accepted" && !this.established) {
      this.#core.link?.afterRead(() => {
        if (!this.#gone) this.#establish();
      });
    }
    return true;
  }

  /** Gets a `client-pending-auth`; false if there is no such key. */
  pend(keyId: number, pending: PendingAuth): boolean {
    if (!this.#keys.some(({ id }) => id === keyId)) return false;
    this.pending.put(pending);
    return true;
  }

  /** Is told why it has to go. */
  kill(message: string): void {
    this.#onKilled(message);
  }

  #refuseGone(what: string): void {
    if (this.#gone) throw new TypeError(`${what}: client ${this.clientId} has left`);
  }

  #request(kind: "CONNECT" | "REAUTH", password: string | undefined): Promise<AuthDecision> {
    const { promise, resolve } = Promise.withResolvers<AuthDecision>();
    // As seen: the first is 1, the next 3, then 4.
    const id = this.keyId === 0 ? 1 : Math.max(3, this.keyId + 1);
    this.#keys.push({ id, decide: resolve, decided: false });
    if (this.#keys.length > 2) this.#keys.shift();
    const secret = password === undefined ? [] : [["password", printable(password)] as const];
    this.#core.sayBlock("CLIENT", `${kind},${this.clientId},${id}`, this.#env(secret));
    return promise;
  }

  #establish(): void {
    const host = this.clientId + 2;
    this.virtualAddress = this.#options.virtualAddress ?? `10.8.${host >> 8}.${host & 255}`;
    this.virtualAddress6 = this.#options.virtualAddress6 ?? "";
    this.established = true;
    const core = this.#core;
    const id = this.clientId;
    if (core.clientAuth) {
      core.say(`>CLIENT:ADDRESS,${id},${this.virtualAddress},1`);
      if (this.virtualAddress6 !== "") core.say(`>CLIENT:ADDRESS,${id},${this.virtualAddress6},1`);
    }
    core.sayBlock("CLIENT", `ESTABLISHED,${id}`, this.#env());
  }

  *#env(first: Iterable<readonly [string, string]> = []): Generator<readonly [string, string]> {
    const [address, port] = [this.#address, this.#port];
    const ip = address.includes(":") ? "ip6" : "ip";
    const all: (readonly [string, string])[] = [
      ...first,
      ...this.established
        ? [
          ["ifconfig_pool_remote_ip", this.virtualAddress] as const,
          ["trusted_port", String(port)] as const,
          [`trusted_${ip}`, address] as const,
        ]
        : [],
      ["untrusted_port", String(port)],
      [`untrusted_${ip}`, address],
      ["common_name", this.commonName],
      ["username", this.username ?? ""],
      ["IV_PLAT", "linux"],
      ["IV_PROTO", "990"],
      ["IV_VER", "2.6.14"],
      ["tls_id_0", `CN=${this.commonName}`],
      ["X509_0_CN", this.commonName],
      ["daemon_pid", String(this.#core.pid)],
      ["dev", "tun0"],
      ...[...this.#options.env ?? []].map(([name, value]) => [name, printable(value)] as const),
    ];
    const level = this.#core.envFilter;
    // With a filter the peer's own variables come first, in the order they were sent.
    if (level !== 0) yield* all.filter(([name]) => PEER_INFO.test(name)).reverse();
    yield* all.filter(([name]) => level === 0 || passes(name, level));
  }
}

const PEER_INFO = /^(?:IV|UV)_/;

const SHORT_LIST =
  /^(?:username|password|X509_0_CN|tls_serial_.*|untrusted_ip|ifconfig_local|ifconfig_netmask|daemon_start_time|daemon_pid|dev|ifconfig_pool_remote_ip|ifconfig_pool_netmask|time_duration|bytes_sent|bytes_received)$/;

function passes(name: string, level: number): boolean {
  if (level <= 1 && name.startsWith("X509_")) return true;
  return level <= 2 && SHORT_LIST.test(name);
}

/** OpenVPN writes control characters of a peer as `_`. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- these are what is replaced
  return text.replace(/[\x00-\x1f\x7f]/g, "_");
}
