/**
 * A session over a UDP socket.
 *
 * @module
 */
import { formatAddress, toInetAddress } from "../adapters/address.ts";
import { pause } from "../adapters/pause.ts";
import {
  ConnectError,
  type Datagram,
  type InetAddress,
  type ReceivedDatagram,
} from "../adapters/types.ts";
import { encodeText, requireBytes, writeFirst } from "./_bytes.ts";
import type { Outlet, SessionHost } from "./_host.ts";
import { disconnected } from "./_outgoing.ts";
import { attempt, heard, ManagerError, waitFor } from "./errors.ts";
import { type DisconnectReason, SessionEvent } from "./event.ts";
import { RECEIVED, SENT } from "./metrics.ts";
import type { CloseSessionOptions, UdpSession } from "./session.ts";
import { epochMs, type SessionStats } from "./stats.ts";

/** What a session is made of. */
export interface DatagramSessionInit {
  readonly id: string;
  readonly datagram: Datagram;
  readonly outlet: Outlet;
  readonly maxQueuedBytes: number;
  /** Drops what others than these send. */
  readonly family: 4 | 6 | undefined;
}

/** What a datagram costs besides its bytes, so that empty ones are bounded too. */
const DATAGRAM_OVERHEAD = 64;
/** How long `close()` waits for what was to be sent, in milliseconds: a name that is slow to be resolved must not keep it. */
const CLOSE_WAIT_MS = 1000;

export class DatagramSession implements UdpSession {
  readonly id: string;
  readonly kind = "udp";
  context: unknown = undefined;
  /** Resolves when the last event has found a place. */
  readonly done: Promise<void>;
  readonly #host: SessionHost;
  readonly #datagram: Datagram;
  readonly #outlet: Outlet;
  readonly #maxQueuedBytes: number;
  readonly #family: 4 | 6 | undefined;
  readonly #since: number = performance.now();
  #peer: InetAddress | undefined;
  #closing: Promise<void> | undefined;
  #ended = false;
  /** What it was given up for. */
  #verdict: { readonly reason: DisconnectReason; readonly error: ManagerError } | undefined;
  /** Told when nothing waits to be sent any more. */
  #onSent: (() => void) | undefined;
  #activeAt: number = this.#since;
  #queued = 0;
  #bytesIn = 0;
  #bytesOut = 0;
  #messagesIn = 0;
  #messagesOut = 0;
  #refused = 0;
  /** Datagrams of the other family. */
  #foreign = 0;

  constructor(host: SessionHost, init: DatagramSessionInit) {
    this.#host = host;
    this.id = init.id;
    this.#datagram = init.datagram;
    this.#outlet = init.outlet;
    this.#maxQueuedBytes = init.maxQueuedBytes;
    this.#family = init.family;
    this.done = this.#run();
  }

  get from(): string {
    return this.#peer === undefined ? "" : formatAddress(this.#peer);
  }
  get local(): InetAddress {
    return this.#datagram.addr;
  }
  get remote(): InetAddress | undefined {
    return this.#peer;
  }
  get queued(): number {
    return this.#queued;
  }

  /** Whether a broadcast can use it. */
  get writable(): boolean {
    return !this.#ended && this.#closing === undefined && this.#verdict === undefined;
  }
  /** A datagram waits for the kernel alone: it is not slow, but full. */
  get slow(): boolean {
    return this.#queued + DATAGRAM_OVERHEAD > this.#maxQueuedBytes;
  }

  async #run(): Promise<void> {
    let reason: DisconnectReason = "closed";
    let error: Error | undefined;
    try {
      for await (const datagram of this.#datagram) {
        const told = this.#received(datagram);
        if (told !== undefined) await told;
      }
    } catch (cause) {
      reason = "error";
      error = cause as Error;
    }
    if (this.#verdict !== undefined) ({ reason, error } = this.#verdict);
    this.#ended = true;
    this.#host.leave(this);
    await this.#outlet.send(
      new SessionEvent("disconnected", this, { reason, info: reason, error }),
    );
    this.#host.gone(this, reason);
  }

  #received({ data, from }: ReceivedDatagram): Promise<void> | undefined {
    if (this.#family !== undefined && from.hostname.includes(":") !== (this.#family === 6)) {
      this.#foreign++;
      return undefined;
    }
    this.#messagesIn++;
    this.#bytesIn += data.length;
    this.#activeAt = performance.now();
    this.#host.instruments?.io.add(data.length, RECEIVED);
    this.#host.instruments?.messages.add(1, RECEIVED);
    const parts = { data, address: from, from: formatAddress(from) };
    return this.#outlet.send(new SessionEvent("data", this, parts));
  }

  bind(address: InetAddress | string): void {
    const peer = toInetAddress(address);
    if (peer.port === 0) throw new ConnectError("invalid-address", "binding to a peer: port 0");
    this.#peer = peer;
  }

  unbind(): void {
    this.#peer = undefined;
  }

  write(bytes: Uint8Array): Promise<void> {
    return attempt(() => {
      requireBytes(bytes);
      if (this.#peer === undefined) throw this.#notBound();
      return this.writeTo(this.#peer, bytes);
    });
  }

  writeN(bytes: Uint8Array, n: number): Promise<void> {
    return attempt(() => writeFirst(bytes, n, (first) => this.write(first)));
  }

  writeStr(text: string): Promise<void> {
    return attempt(() => this.write(encodeText(text)));
  }

  writeTo(address: InetAddress, bytes: Uint8Array): Promise<void> {
    return this.sendTo(() => address, bytes);
  }

  /** The same to an address that is still to be found: the datagram waits for it in the queue that is bounded. */
  sendTo(
    address: () => InetAddress | Promise<InetAddress>,
    bytes: Uint8Array,
  ): Promise<void> {
    return attempt(() => {
      requireBytes(bytes);
      return this.#send(address, bytes, this.#book(bytes));
    });
  }

  /** Sends to the peer it is bound to, without waiting. @throws {ManagerError | TypeError} */
  post(bytes: Uint8Array): void {
    requireBytes(bytes);
    if (this.#peer === undefined) throw this.#notBound();
    const peer = this.#peer;
    heard(this.#send(() => peer, bytes, this.#book(bytes)));
  }

  #notBound(): ManagerError {
    return new ManagerError("not-bound", `writing to UDP session ${this.id}: it has no peer`);
  }

  /** Makes room for a datagram; gives what it costs. @throws {ManagerError} */
  #book({ length }: Uint8Array): number {
    if (!this.writable) throw disconnected(this.id, this.#verdict?.error);
    const cost = length + DATAGRAM_OVERHEAD;
    if (this.#queued + cost > this.#maxQueuedBytes || !this.#host.budget.take(cost, this.#queued)) {
      this.#refused++;
      this.#host.instruments?.overflow.add(1);
      const doing = `writing to session ${this.id}`;
      const text = `${doing}: ${length} bytes more than the ${this.#queued} that wait to leave`;
      throw new ManagerError("queue-full", text);
    }
    this.#queued += cost;
    return cost;
  }

  async #send(
    address: () => InetAddress | Promise<InetAddress>,
    bytes: Uint8Array,
    cost: number,
  ): Promise<void> {
    const { length } = bytes;
    try {
      const found = address();
      const to = found instanceof Promise ? await found : found;
      await this.#datagram.send(bytes, to);
    } finally {
      this.#queued -= cost;
      this.#host.budget.give(cost);
      if (this.#queued === 0) this.#onSent?.();
    }
    this.#bytesOut += length;
    this.#messagesOut++;
    this.#activeAt = performance.now();
    this.#host.instruments?.io.add(length, SENT);
    this.#host.instruments?.messages.add(1, SENT);
  }

  close({ discard = false, signal }: CloseSessionOptions = {}): Promise<void> {
    if (discard) this.#outlet.remove?.((it) => it.session === this && it.state === "data");
    this.#closing ??= heard(this.#close());
    const giveUp = (error: ManagerError) => this.end("closed", error);
    return heard(waitFor(this.#closing, signal, `closing UDP session ${this.id}`, giveUp));
  }

  async #close(): Promise<void> {
    if (this.#queued > 0 && this.#verdict === undefined) {
      const stop = new AbortController();
      this.#onSent = () => stop.abort();
      await pause(CLOSE_WAIT_MS, stop.signal);
    }
    await this.#datagram.close();
    this.#host.leave(this);
  }

  /** Gives it up. */
  end(reason: DisconnectReason, error: ManagerError): void {
    if (this.#ended) return;
    this.#verdict ??= { reason, error };
    this.#host.leave(this);
    // Nobody waits for what may never leave.
    this.#onSent?.();
    this.#datagram.close();
  }

  stats(): SessionStats {
    return {
      id: this.id,
      kind: this.kind,
      listener: null,
      from: this.from,
      local: formatAddress(this.local),
      state: this.#ended ? "ended" : this.#closing === undefined ? "open" : "closing",
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      messagesIn: this.#messagesIn,
      messagesOut: this.#messagesOut,
      refused: this.#refused,
      queued: this.#queued,
      dropped: this.#datagram.dropped + this.#foreign,
      reconnects: 0,
      since: epochMs(this.#since),
      lastActivity: epochMs(this.#activeAt),
    };
  }
}
