/**
 * A listener of a manager: whom it takes, and how fast.
 *
 * @module
 */
import { formatAddress } from "../adapters/address.ts";
import { pause } from "../adapters/pause.ts";
import type { Address, Conn, Listener, TlsListenOptions } from "../adapters/types.ts";
import { addressText } from "./_conn_session.ts";
import type { Outlet } from "./_host.ts";
import { ManagerError } from "./errors.ts";
import {
  type ListenerSettings,
  type Refusal,
  type SessionSettings,
  tlsOptions,
} from "./options.ts";
import type { ListenerStats, RefusalReason } from "./stats.ts";

/** The pause after a trouble that may pass: too many open files, say. */
const RETRY_MS = 100;

/** What a listener needs of its manager. */
export interface AcceptingHost {
  /** Whether `maxSessions` is reached. */
  readonly crowded: boolean;
  /** Begins a session; `onTold` and `onGone` are for the listener's counts. */
  take(conn: Conn, listener: Accepting, onTold: () => void, onGone: () => void): void;
  refused(refusal: Refusal): void;
  error(error: ManagerError): void;
}

/** What a listener is made of. */
export interface AcceptingInit {
  readonly id: string;
  readonly kind: string;
  readonly listener: Listener;
  readonly settings: ListenerSettings;
  readonly session: SessionSettings;
  readonly outlet: Outlet;
  /** The defaults of what `reloadTls()` is told. */
  readonly handshakeTimeout: number | undefined;
  /** Takes connections by IPv4, or IPv6, alone. */
  readonly family: 4 | 6 | undefined;
}

export class Accepting {
  readonly id: string;
  readonly session: SessionSettings;
  readonly outlet: Outlet;
  readonly #host: AcceptingHost;
  readonly #init: AcceptingInit;
  readonly #rate: Rate;
  readonly #perAddress = new Map<string, number>();
  readonly #refused = { "max-sessions": 0, "per-address": 0, "accept-rate": 0, family: 0 };
  #accepted = 0;
  #sessions = 0;
  /** Sessions whose `accepted` nobody has taken. */
  #pending = 0;
  #wake: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(host: AcceptingHost, init: AcceptingInit) {
    this.id = init.id;
    this.session = init.session;
    this.outlet = init.outlet;
    this.#host = host;
    this.#init = init;
    this.#rate = new Rate(init.settings.acceptRate);
    this.#run();
  }

  get address(): Address {
    return this.#init.listener.addr;
  }

  async #run(): Promise<void> {
    const { listener, settings } = this.#init;
    let ended = false;
    let told = false;
    const end = () => ended = true;
    listener.closed.then(end, end);
    for (;;) {
      try {
        const conn = await listener.accept();
        told = false;
        if (this.#closing === undefined) this.#admit(conn);
        else conn.abort();
        if (this.#pending >= settings.maxPending) {
          await new Promise<void>((resolve) => this.#wake = resolve);
        }
      } catch (error) {
        if (this.#closing !== undefined) return;
        const text = `listener ${this.id} cannot accept: ${(error as Error).message}`;
        // Once, until it accepts again: too many open files can last.
        if (!told) this.#host.error(new ManagerError("listener", text, { cause: error }));
        told = true;
        // A microtask has passed since it rejected, and `closed` has been settled before.
        if (ended) return;
        await pause(RETRY_MS);
      }
    }
  }

  #admit(conn: Conn): void {
    const address = remoteIp(conn);
    const reason = this.#reasonAgainst(address);
    if (reason !== undefined) {
      this.#refused[reason]++;
      conn.abort();
      this.#host.refused({ listener: this.id, from: addressText(conn), reason });
      return;
    }
    this.#accepted++;
    this.#sessions++;
    this.#pending++;
    if (address !== undefined) this.#count(address, 1);
    const onTold = () => {
      this.#pending--;
      this.#wake?.();
      this.#wake = undefined;
    };
    const onGone = () => {
      this.#sessions--;
      if (address !== undefined) this.#count(address, -1);
    };
    this.#host.take(conn, this, onTold, onGone);
  }

  #reasonAgainst(address: string | undefined): RefusalReason | undefined {
    const { family, settings } = this.#init;
    if (family !== undefined && address?.includes(":") !== (family === 6)) return "family";
    if (this.#host.crowded) return "max-sessions";
    const has = address === undefined ? 0 : this.#perAddress.get(address) ?? 0;
    if (has >= settings.maxSessionsPerAddress) return "per-address";
    return this.#rate.take() ? undefined : "accept-rate";
  }

  #count(address: string, change: 1 | -1): void {
    const count = (this.#perAddress.get(address) ?? 0) + change;
    if (count > 0) this.#perAddress.set(address, count);
    else this.#perAddress.delete(address);
  }

  reloadTls(tls: TlsListenOptions): void {
    const { listener, handshakeTimeout } = this.#init;
    listener.reloadTls(tlsOptions({ tls, handshakeTimeout }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#init.listener.close();
    this.#wake?.();
    return this.#closing;
  }

  stats(): ListenerStats {
    return {
      id: this.id,
      kind: this.#init.kind,
      address: formatAddress(this.address),
      accepted: this.#accepted,
      sessions: this.#sessions,
      refused: { ...this.#refused },
      dropped: this.#init.listener.dropped,
    };
  }
}

function remoteIp({ remote }: Conn): string | undefined {
  return remote !== undefined && "hostname" in remote ? remote.hostname : undefined;
}

/** So many a second, and as many at once. */
class Rate {
  readonly #perSecond: number;
  #tokens: number;
  #at: number = performance.now();

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = Math.max(1, perSecond);
  }

  take(): boolean {
    if (this.#perSecond === Infinity) return true;
    const now = performance.now();
    const most = Math.max(1, this.#perSecond);
    this.#tokens = Math.min(most, this.#tokens + (now - this.#at) / 1000 * this.#perSecond);
    this.#at = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
