/** What a session has told, and what it promised. */
import { assert, assertEquals } from "@std/assert";
import type { DisconnectReason, SessionEvent, StreamSession } from "../cmgr/mod.ts";
import { framed, joined, type Peer } from "./cmgr_model_peer.ts";
import type { SessionSettings } from "../cmgr/options.ts";

/** One connection of a session. */
interface Link {
  readonly data: Uint8Array[];
  eof: boolean;
  reason?: DisconnectReason | undefined;
  error?: Error | undefined;
}

/** Which event may come behind which. */
const NEXT: Readonly<Record<string, readonly string[]>> = {
  accepted: ["new"],
  new: ["data", "eof", "reconnecting", "disconnected"],
  data: ["data", "eof", "reconnecting", "disconnected"],
  eof: ["reconnecting", "disconnected"],
  reconnecting: ["reconnecting", "new", "disconnected"],
  disconnected: [],
};

export class Track {
  readonly session: StreamSession;
  readonly settings: SessionSettings;
  readonly links: Link[] = [];
  /** Of each connection, what was written and not refused. */
  readonly written: Uint8Array[][] = [];
  /** We have ended it, or its listener with it, or everything. */
  closed = false;
  discarded = false;
  /** Where its events go. */
  sink: unknown;
  /** The last event. */
  state = "";
  /** Why it has ended. */
  reason: DisconnectReason | undefined;
  #messages = 0;
  #bytes = 0;

  constructor(session: StreamSession, settings: SessionSettings) {
    this.session = session;
    this.settings = settings;
  }

  get ended(): boolean {
    return this.state === "disconnected";
  }

  wrote(message: Uint8Array): void {
    (this.written[this.session.stats().reconnects] ??= []).push(
      framed(this.settings.framing, message),
    );
  }

  observe(event: SessionEvent): void {
    const first = this.session.listener === undefined ? "new" : "accepted";
    const allowed = this.state === "" ? [first] : NEXT[this.state]!;
    const text = `${event.id}: ${event.state} behind ${this.state || "nothing"}`;
    assert(allowed.includes(event.state), text);
    assert(event.state !== "eof" || this.settings.allowHalfOpen, text);
    assertEquals(event.id, this.session.id);
    const behind = this.state;
    this.state = event.state;
    const link = this.links.at(-1);
    if (event.state === "new") this.links.push({ data: [], eof: false });
    else if (event.state === "eof") link!.eof = true;
    else if (event.state === "data") {
      this.#messages++;
      this.#bytes += event.data.length;
      if (this.settings.framing === "raw") {
        assert(event.data.length > 0 && event.data.length <= this.settings.chunkSize, text);
      }
      link!.data.push(event.data.slice());
    } else if (event.state !== "accepted" && behind !== "reconnecting") {
      link!.reason = event.reason;
      link!.error = event.error;
    }
    if (event.state === "disconnected") this.reason = event.reason;
  }

  /** Checks all of it, at the end. `peers`: of each of its connections; `severed`: nothing that leaves late need arrive. */
  check(peers: readonly Peer[], severed: boolean): void {
    const { id } = this.session;
    assert(this.ended, `${id}: the last event is ${this.state}`);
    const stats = this.session.stats();
    assertEquals([stats.state, stats.queued], ["ended", 0]);
    assertEquals(stats.reconnects, this.links.length - 1);
    const written = this.written.flat();
    assertEquals(stats.messagesOut, written.length);
    const size = written.reduce((sum, { length }) => sum + length, 0);
    assert(stats.bytesOut <= size, `${id}: ${stats.bytesOut} of ${size} bytes out`);
    if (this.links.every(({ error }) => error === undefined)) assertEquals(stats.bytesOut, size);
    if (!this.discarded) assertEquals(stats.messagesIn, this.#messages);
    if (!this.discarded && this.settings.framing === "raw") {
      assertEquals(stats.bytesIn, this.#bytes);
    }
    for (const [i, link] of this.links.entries()) {
      const peer = peers[i];
      if (peer === undefined) {
        // Given up before the other side has looked.
        assert(severed, `${id}: connection ${i} has no peer`);
        continue;
      }
      this.#checkReason(link, peer);
      this.#checkIn(link, peer);
      this.#checkOut(link, peer, this.written[i] ?? [], severed);
    }
  }

  #checkReason({ reason, error }: Link, peer: Peer): void {
    const why: Record<DisconnectReason, boolean> = {
      eof: peer.end !== undefined,
      reset: peer.end === "reset",
      error: peer.spoiledAt !== undefined,
      timeout: this.settings.stallTimeout < Infinity,
      closed: this.closed,
    };
    assert(why[reason!], `${this.session.id}: ${reason}, its peer ended by ${peer.end}: ${error}`);
  }

  #checkIn({ data, eof, reason }: Link, peer: Peer): void {
    // What came before the end, or before what is no message, was told.
    const told = eof || reason === "eof" || reason === "error";
    const whole = told && peer.end !== "reset" && !this.discarded;
    const what = `${this.session.id}: in, ${reason}`;
    if (this.settings.framing === "raw") {
      isStartOf(joined(data), joined(peer.sent), whole, what);
      return;
    }
    const messages = peer.sent.slice(0, peer.spoiledAt);
    assert(data.length <= messages.length, what);
    if (whole) assertEquals(data.length, messages.length, what);
    for (const [i, message] of data.entries()) assertEquals(message, messages[i]!, what);
  }

  #checkOut(
    { reason, error }: Link,
    peer: Peer,
    written: readonly Uint8Array[],
    severed: boolean,
  ): void {
    const orderly = (reason === "eof" || reason === "closed") && error === undefined;
    const whole = orderly && (peer.sawEnd || !severed) &&
      (peer.end === undefined || peer.end === "half" || peer.sawEnd);
    isStartOf(joined(peer.got), joined(written), whole, `${this.session.id}: out, ${reason}`);
  }
}

function isStartOf(part: Uint8Array, all: Uint8Array, whole: boolean, what: string): void {
  const at = part.findIndex((byte, i) => byte !== all[i]);
  assertEquals(at, -1, `${what}: a wrong byte at ${at} of ${part.length}, ${all.length}`);
  if (whole) assertEquals(part.length, all.length, `${what}: bytes lost`);
}
