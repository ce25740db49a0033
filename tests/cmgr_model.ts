/** A manager to which anything happens in any order, and a model that tells what must come of it. */
import { assert, assertEquals } from "@std/assert";
import { formatAddress } from "../adapters/address.ts";
import type { Address, Conn, Listener } from "../adapters/types.ts";
import {
  Channel,
  ConnectionManager,
  ManagerError,
  type MetricInstrument,
  type SessionEvent,
  type SessionStats,
  type Sink,
  type SlowPolicy,
  type StreamSession,
} from "../cmgr/mod.ts";
import { type SessionSettings, sessionSettings } from "../cmgr/options.ts";
import { pipe } from "./cmgr_model_net.ts";
import { framed, Gate, Peer, Script } from "./cmgr_model_peer.ts";
import type { Place, Plan, Step } from "./cmgr_model_step.ts";
import { Track } from "./cmgr_model_track.ts";
import { sleep } from "./adapter_suite.ts";

const pick = <T>(list: readonly T[], number: number): T | undefined => list[number % list.length];

/** Waits until `met`, and not for ever. */
async function until(met: () => boolean, what: string | (() => string)): Promise<void> {
  for (const start = performance.now(); !met();) {
    if (performance.now() - start > 5000) {
      throw new Error(`${typeof what === "string" ? what : what()}: not within 5 s`);
    }
    await sleep(1);
  }
}

/** Takes events, unless its gate is shut. */
interface Taker {
  readonly sink: Sink | undefined;
  readonly gate: Gate;
}

export class World {
  readonly manager: ConnectionManager;
  readonly tracks: Map<StreamSession, Track> = new Map();
  readonly #plan: Plan;
  readonly #place: Place;
  readonly #settings: SessionSettings;
  readonly #takers: Taker[] = [];
  readonly #channels: Channel[];
  readonly #taking: Promise<void>[] = [];
  readonly #listeners: { readonly id: string; readonly at: Address; used: boolean }[] = [];
  readonly #hosts: Listener[] = [];
  readonly #peers: Peer[] = [];
  /** Peers of the sessions that a listener accepts, by their address or its path; of the others by the session. */
  readonly #dialed = new Map<string, Peer[]>();
  readonly #called = new Map<StreamSession, Peer[]>();
  /** What was begun and need not have ended. */
  readonly #pending: Promise<unknown>[] = [];
  readonly #inHandler = new Set<StreamSession>();
  readonly #again = new Set<StreamSession>();
  readonly #sums: Record<string, number> = {};
  readonly #instrument = (name: string): MetricInstrument => ({
    add: (value) => this.#sums[name] = (this.#sums[name] ?? 0) + value,
  });
  #refused = 0;
  #script = new Script(1);
  #failure: unknown;
  #over = false;

  constructor(plan: Plan, place: Place) {
    this.#plan = plan;
    this.#place = place;
    const { transport } = place;
    this.manager = new ConnectionManager({
      ...plan.limits,
      transport,
      metrics: { createCounter: this.#instrument, createUpDownCounter: this.#instrument },
      // Peers answer our end, unless a test keeps them from it.
      lingerMs: 60_000,
      onRefused: () => this.#refused++,
      onError: (error) => this.#failure ??= error,
    });
    this.#settings = sessionSettings(plan.limits);
    this.#channels = [new Channel(1), new Channel(4, { maxBytes: 100 })];
    for (const channel of [this.manager.events, ...this.#channels]) {
      const gate = new Gate();
      this.#takers.push({ sink: channel === this.manager.events ? undefined : channel, gate });
      this.#taking.push(this.#take(channel, gate));
    }
    const gate = new Gate();
    this.#takers.push({ sink: (event) => this.#handle(event, gate), gate });
    this.#takers.push({ sink: (event) => this.#echo(event), gate: new Gate() });
  }

  async #take(channel: Channel, gate: Gate): Promise<void> {
    for (;;) {
      await gate.passed();
      const event = await channel.receive();
      if (event === null) return;
      this.#observe(event, channel);
    }
  }

  async #handle(event: SessionEvent, gate: Gate): Promise<void> {
    const session = event.session as StreamSession;
    if (this.#inHandler.has(session)) this.#failure ??= new Error(`${event.id}: two at once`);
    this.#inHandler.add(session);
    this.#observe(event, gate);
    await gate.passed();
    this.#inHandler.delete(session);
  }

  /** Answers, from within. */
  #echo(event: SessionEvent): void {
    this.#observe(event, "echo");
    if (event.state === "data") {
      const message = this.#script.next(Math.min(event.data.length, 50));
      this.#write(event.session as StreamSession, message, () => event.write(message));
    }
  }

  #observe(event: SessionEvent, sink: unknown): void {
    const session = event.session as StreamSession;
    try {
      const track = this.#track(session);
      if (track.state === "") this.#checkBefore(track, sink);
      track.observe(event);
      if (event.state !== "disconnected") return;
      // The name is free within the handler of the end.
      if (this.#again.has(session) && !this.#over && this.manager.session(event.id) === undefined) {
        this.#adopt(event.id, undefined, false);
      }
    } catch (error) {
      if (!(error instanceof ManagerError)) this.#failure ??= error;
    }
  }

  /** Who had the name before has told its end to the same sink before. */
  #checkBefore(track: Track, sink: unknown): void {
    track.sink = sink;
    for (const before of this.tracks.values()) {
      const other = before === track || before.sink !== sink ||
        before.session.id !== track.session.id;
      assert(other || before.ended, `${track.session.id}: begins before the one before has ended`);
    }
  }

  #track(session: StreamSession): Track {
    const known = this.tracks.get(session);
    if (known !== undefined) return known;
    if (session.listener !== undefined) {
      const used = [...this.tracks.keys()].some(({ id }) => id === session.id);
      assert(!used, `${session.id} was given twice`);
    }
    const track = new Track(session, this.#settings);
    this.tracks.set(session, track);
    return track;
  }

  /** Lets it go on, and ends it only if it fails in a way that it must not. */
  #begin(promise: Promise<unknown>, allowed: (error: unknown) => boolean): void {
    this.#pending.push(promise.catch((error) => {
      if (!allowed(error)) this.#failure ??= error;
    }));
  }

  #peer(conn: Conn, stays: boolean): Peer {
    const peer = new Peer(conn, this.#settings.framing, this.#peers.length + 1, stays);
    this.#peers.push(peer);
    return peer;
  }

  async play(): Promise<void> {
    try {
      for (const step of this.#plan.steps) {
        await this.#step(step);
        this.#check();
      }
      await this.#end();
    } finally {
      // Also of a run that failed, nothing is left.
      for (const { gate } of this.#takers) gate.open();
      await this.manager.shutdown({ graceMs: 0 });
      for (const channel of this.#channels) channel.close();
      for (const host of this.#hosts) await host.close();
      for (const peer of this.#peers) peer.drop();
    }
  }

  /** What holds at any time. */
  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
    const { limits } = this.#plan;
    const stats = this.manager.stats();
    const sessions = this.manager.sessions() as StreamSession[];
    assertEquals(stats.sessions.length, sessions.length);
    assert(sessions.length <= limits.maxSessions, `${sessions.length} sessions`);
    assert(stats.queued <= 2 * limits.maxTotalQueuedBytes, `${stats.queued} bytes wait in all`);
    assert(stats.events <= limits.capacity, `${stats.events} events wait`);
    let queued = 0;
    for (const session of sessions) {
      assert(session.queued <= this.#settings.maxQueuedBytes, `${session.queued} bytes wait`);
      queued += session.queued;
      this.#track(session);
    }
    for (const { session, closed } of this.tracks.values()) {
      const { state } = session.stats();
      if (closed || state === "closing" || state === "ended") continue;
      assert(
        this.manager.session(session.id) === session,
        `${session.id}: its name is not its own`,
      );
    }
    // Those that are given up free their room a little later than their name.
    assert(queued <= stats.queued, `${queued} of ${stats.queued} bytes`);
    const refused = stats.listeners.flatMap(({ refused }) => Object.values(refused));
    assert(refused.reduce((sum, count) => sum + count, 0) <= this.#refused);
  }

  async #step(step: Step): Promise<void> {
    const { manager } = this;
    const session = (number: number) => pick(manager.sessions() as StreamSession[], number);
    switch (step.do) {
      case "pause":
        return await sleep(step.ms);
      case "listen":
        return await this.#listen(step.unix, this.#sink(step.sink));
      case "dial":
        return await this.#dial(step.at, step.stays);
      case "connect":
        return await this.#connect(step);
      case "adopt":
        return this.#adoptFree(`c${step.id}`, this.#sink(step.sink), step.again);
      case "write": {
        const to = session(step.to);
        if (to === undefined) return;
        const message = this.#script.next(step.size);
        const write = () => step.byId ? manager.write(to.id, message) : to.write(message);
        return this.#write(to, message, write);
      }
      case "broadcast":
        return await this.#broadcast(step.size, step.slow);
      case "peerWrite": {
        const peer = pick(this.#peers, step.of);
        for (const size of step.sizes) peer?.write(size, this.#settings.maxFrameBytes);
        return;
      }
      case "peerEnd":
        return pick(this.#peers, step.of)?.finish(step.how, step.rest);
      case "stallPeer":
        return toggle(pick(this.#peers, step.of)?.gate);
      case "stallSink":
        return toggle(pick(this.#takers, step.sink)?.gate);
      case "close": {
        const it = session(step.which);
        return it && this.#close(it, step.discard);
      }
      case "closeWrite": {
        const it = session(step.which);
        return it && this.#begin(it.closeWrite(), () => true);
      }
      case "closeListener":
        return this.#closeListener(step.at, step.sessions, step.discard);
    }
  }

  #sink(number: number): Sink | undefined {
    return pick(this.#takers, number)!.sink;
  }

  async #listen(unix: boolean, sink: Sink | undefined): Promise<void> {
    const address = this.#place.address(unix);
    const id = "path" in address
      ? await this.manager.listenUnix(address.path, sink)
      : await this.manager.listen("tcp", "any", address.hostname, sink);
    this.#listeners.push({ id, at: this.manager.address(id), used: false });
  }

  async #dial(number: number, stays: boolean): Promise<void> {
    const listener = pick(this.#listeners, number);
    // A unix socket tells nothing of who comes by it, so there is one for each.
    if (listener === undefined || (listener.used && "path" in listener.at)) return;
    listener.used = true;
    const connecting = this.#place.transport.connect(listener.at, { lingerMs: 60_000 });
    // Where more than `maxPending` wait the system, or the runtime, may throw it away at once.
    const conn = await connecting.catch(() => undefined);
    if (conn === undefined) return;
    const key = formatAddress("path" in listener.at ? listener.at : conn.local!);
    this.#dialed.set(key, [this.#peer(conn, stays)]);
  }

  async #connect(step: Step & { readonly do: "connect" }): Promise<void> {
    const id = `c${step.id}`;
    const host = await this.#place.transport.listen(this.#place.address(step.unix), {
      lingerMs: 60_000,
    });
    this.#hosts.push(host);
    const peers: Peer[] = [];
    const accept = async () => {
      for await (const conn of host) peers.push(this.#peer(conn, step.stays));
    };
    this.#taking.push(accept());
    const reconnect = step.reconnect && { minDelayMs: 1, maxDelayMs: 4, maxAttempts: 5 };
    const { replace } = step;
    const before = this.manager.session(id) as StreamSession | undefined;
    if (before !== undefined && replace) this.#track(before).closed = true;
    const connecting = this.manager.connect(host.addr, id, this.#sink(step.sink), {
      ...{ reconnect, replace },
    }).then((session) => void this.#called.set(session, peers));
    this.#begin(connecting, (error) => {
      const { code } = error as ManagerError;
      return ["duplicate-id", "too-many-sessions", "closed", "aborted"].includes(code);
    });
    await sleep(1);
  }

  #adoptFree(id: string, sink: Sink | undefined, again: boolean): void {
    try {
      this.#adopt(id, sink, again);
    } catch (error) {
      const { code } = error as ManagerError;
      if (code !== "duplicate-id" && code !== "too-many-sessions") throw error;
    }
  }

  #adopt(id: string, sink: Sink | undefined, again: boolean): void {
    const [near, far] = pipe(this.#place.pipe);
    const session = this.manager.adopt(near, id, sink);
    this.#called.set(session, [this.#peer(far, false)]);
    if (again) this.#again.add(session);
  }

  #write(session: StreamSession, message: Uint8Array, write: () => Promise<void>): void {
    const { maxQueuedBytes, framing } = this.#settings;
    const before = session.stats();
    const size = framed(framing, message).length;
    const { maxTotalQueuedBytes, maxSessions } = this.#plan.limits;
    const fits = before.queued + size <= maxQueuedBytes &&
      (this.manager.stats().queued + size <= maxTotalQueuedBytes ||
        before.queued + size <= maxTotalQueuedBytes / maxSessions);
    const written = write();
    const { messagesOut, queued, ...after } = session.stats();
    const refused = after.refused - before.refused;
    const taken = messagesOut > before.messagesOut;
    if (taken) this.#track(session).wrote(message);
    const what = `${session.id}: ${size} bytes behind ${before.queued} when ${before.state}`;
    assert(!taken || fits || size === 0, `${what}: taken`);
    assertEquals(queued, before.queued + (taken ? size : 0), what);
    this.#begin(
      written.then(() => assert(taken, `${what}: no error`)),
      (error) => {
        const { code } = error as ManagerError;
        if (refused !== (code === "queue-full" ? 1 : 0)) return false;
        if (taken || fits) return code === "disconnected" || code === "reconnecting";
        return code === "queue-full" || code === "disconnected" || code === "reconnecting";
      },
    );
  }

  async #broadcast(size: number, slow: SlowPolicy): Promise<void> {
    const message = this.#script.next(size);
    const sessions = this.manager.sessions() as StreamSession[];
    const before = sessions.map((it) => it.stats().messagesOut);
    const was = sessions.map((it) => it.stats().state);
    const answer = this.manager.writeToAll(message, { slow });
    let sent = 0;
    for (const [i, session] of sessions.entries()) {
      if (session.stats().messagesOut > before[i]!) {
        sent++;
        this.#track(session).wrote(message);
      } else if (slow === "close" && session.stats().state !== was[i]) {
        this.#track(session).closed = true;
      }
    }
    const result = await answer;
    assertEquals(result.sent, sent);
    assertEquals(result.sent + result.skipped + result.failed, sessions.length);
  }

  #close(session: StreamSession, discard: boolean): void {
    const track = this.#track(session);
    track.closed = true;
    track.discarded ||= discard;
    this.#begin(session.close({ discard }), () => true);
  }

  #closeListener(number: number, sessions: boolean, discard: boolean): void {
    const [listener] = this.#listeners.splice(number % this.#listeners.length, 1);
    if (listener === undefined) return;
    for (const session of this.manager.sessions() as StreamSession[]) {
      if (!sessions || session.listener !== listener.id) continue;
      const track = this.#track(session);
      track.closed = true;
      track.discarded ||= discard;
    }
    this.#begin(this.manager.close(listener.id, { sessions, discard }), () => true);
  }

  async #end(): Promise<void> {
    this.#over = true;
    const { manager } = this;
    const { graceMs } = this.#plan;
    const sessions = () => manager.sessions() as StreamSession[];
    const left = () =>
      JSON.stringify(
        [...this.tracks.values()].filter((it) => !it.ended).map((it) => [
          it.state,
          it.session.stats(),
        ]),
      );
    if (graceMs === undefined) {
      for (const { gate } of [...this.#takers, ...this.#peers]) gate.open();
      // Once more and again: what was begun may bring more of them.
      const finish = () => this.#peers.forEach((peer) => peer.finish("half"));
      const settled = () =>
        [...this.tracks.values()].every((it) => it.ended || it.state === "eof" || it.closed);
      // A session that connects again goes on until it is closed.
      if (!this.#plan.steps.some((step) => step.do === "connect" && step.reconnect)) {
        await until(() => (finish(), settled()), left);
      }
      await until(() => {
        finish();
        for (const it of sessions()) this.#close(it, false);
        return sessions().length === 0 && this.#peers.every(({ over }) => over);
      }, left);
    }
    for (const it of sessions()) this.#track(it);
    for (const track of this.tracks.values()) track.closed = true;
    await manager.shutdown({ graceMs: graceMs ?? 5000, drainMs: this.#plan.drainMs });
    assertEquals(manager.sessions(), []);
    const { sessions: none, listeners, queued } = manager.stats();
    assertEquals([none, listeners, queued], [[], [], 0]);
    for (const { gate } of [...this.#takers, ...this.#peers]) gate.open();
    await until(() => [...this.tracks.values()].every(({ ended }) => ended), left);
    for (const host of this.#hosts) await host.close();
    for (const channel of this.#channels) channel.close();
    for (const peer of this.#peers) peer.drop();
    await this.#settle("what was begun", this.#pending);
    await this.#settle("those who take", [...this.#taking, ...this.#peers.map(({ done }) => done)]);
    if (this.#failure !== undefined) throw this.#failure;
    this.#checkAll();
  }

  async #settle(what: string, all: readonly Promise<unknown>[]): Promise<void> {
    let settled = false;
    const done = Promise.all(all).then(() => settled = true);
    await until(() => settled, what);
    await done;
  }

  #checkAll(): void {
    const stats = this.manager.stats();
    assertEquals([stats.sessions, stats.queued, stats.events], [[], 0, 0]);
    const all = [...this.tracks.keys()].map((it) => it.stats());
    const sum = (of: (stats: SessionStats) => number) =>
      all.reduce((total, it) => total + of(it), 0);
    const measured = {
      "cmgr.sessions": 0,
      "cmgr.sessions.ended": all.length,
      "cmgr.connections.refused": this.#refused,
      "cmgr.reconnects": sum((it) => it.reconnects),
      "cmgr.io": sum((it) => it.bytesIn + it.bytesOut),
      "cmgr.messages": sum((it) => it.messagesIn + it.messagesOut),
      "cmgr.messages.refused": sum((it) => it.refused),
      "cmgr.queued": 0,
    };
    for (const [name, value] of Object.entries(measured)) {
      assertEquals(this.#sums[name] ?? 0, value, name);
    }
    const ended = { eof: 0, reset: 0, closed: 0, timeout: 0, error: 0 };
    for (const track of this.tracks.values()) {
      ended[track.reason!]++;
      const { session } = track;
      const peers = session.listener === undefined
        ? this.#called.get(session)
        : this.#dialed.get(session.from);
      assert(peers !== undefined, `${session.id}: whose is it`);
      track.check(peers, this.#plan.graceMs !== undefined);
    }
    assertEquals(stats.ended, ended);
  }
}

function toggle(gate: Gate | undefined): void {
  if (gate?.shut) gate.open();
  else gate?.close();
}
