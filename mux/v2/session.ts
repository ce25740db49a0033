/**
 * A session in the hardened mode, behind its handshake (spec-mux2).
 *
 * @module
 */
import type { Aead, AeadCipher } from "../../adapters/aead.ts";
import { loadAead } from "../../adapters/aead_load.ts";
import type { Conn, WaitOptions } from "../../adapters/types.ts";
import { Receiver } from "../_receiver.ts";
import { type Control, Sender } from "../_sender.ts";
import { Session } from "../_session.ts";
import type { Link, StreamCore } from "../_stream.ts";
import { until } from "../_wait.ts";
import { type Config, MAX_PRIORITY, type MuxSuite } from "../config.ts";
import { MuxError, type MuxErrorCode } from "../errors.ts";
import type { MuxStats } from "../stats.ts";
import { MAX_NUMBER, TYPE } from "./frame.ts";
import type { Agreed } from "./handshake.ts";
import { RecordPacker } from "./packer.ts";
import { PingTimer } from "./ping.ts";
import { StreamQuota } from "./quota.ts";
import { RecordKeys, type RekeyAfter } from "./record.ts";
import type { Settings } from "./settings.ts";
import { RecordUnpacker } from "./unpacker.ts";
import { GrowingWindow, type WindowGrowth } from "./window.ts";

const CIPHERS: Readonly<Record<MuxSuite, AeadCipher>> = {
  ChaChaPoly_BLAKE2b: "ChaCha20-Poly1305",
  AESGCM_SHA256: "AES-256-GCM",
};

/** What the peer may be told why we give the session up; 0 is an end in order. */
const END_CODES: readonly (MuxErrorCode | undefined)[] = [
  undefined,
  "protocol",
  "window",
  "limit",
  "timeout",
];
/** The last number of a stream: the next one has to fit into a frame, too. */
const MAX_STREAM = MAX_NUMBER - 2;
/** However impatient the peer is. */
const MIN_KEEPALIVE_MS = 10;
/** What a send window may grow to. */
const MAX_SEND_WINDOW = 2 ** 31 - 1;

export class SessionV2 extends Session {
  readonly suite: MuxSuite;
  readonly #peerKey: Uint8Array | undefined;
  protected readonly sender: Sender;
  protected readonly receiver: Receiver;
  protected readonly link: Link;
  protected readonly answersFarewell = true;
  readonly #ping: PingTimer;
  readonly #quota: StreamQuota;
  #aead: Aead | undefined;
  /** The next stream of ours, and the next one of the peer. */
  #nextOurs: number;
  #nextTheirs: number;
  /** How many the peer takes in all, and how many of ours live. */
  #mayOpenInAll: number;
  #liveOurs = 0;
  /** From this number on streams of the peer are not served any more. */
  #refusedFrom = Infinity;
  /** The peer takes no new streams. */
  #goingAway: MuxError | undefined;
  #peerGaveUp = false;

  /** `head` is what was read of `conn` behind the handshake, of whose time so much is left. */
  constructor(
    conn: Conn,
    isClient: boolean,
    config: Config,
    agreed: Agreed,
    head: Uint8Array,
    handshakeLeftMs: number,
  ) {
    const limits = config.limits.v2;
    // Three of them, so that the loss of one is none.
    const theirsMs = Math.max(agreed.theirs.idleTimeoutMs / 3, MIN_KEEPALIVE_MS);
    const keepaliveMs = Math.min(limits.keepaliveMs, theirsMs);
    super(conn, isClient, { ...limits, keepaliveMs });
    const { suite, ours, theirs } = agreed;
    this.suite = suite;
    this.#peerKey = agreed.peerKey;
    this.#nextOurs = isClient ? 0 : 1;
    this.#nextTheirs = isClient ? 1 : 0;
    this.#mayOpenInAll = theirs.streams;
    this.#quota = new StreamQuota(limits, ours.streams);
    this.#ping = new PingTimer((number) => this.control(0, TYPE.PING, [number], false));

    const aead = loadFor(CIPHERS[suite], config.aead).then((it) => this.#aead = it);
    const sendKeys = new RecordKeys(suite, agreed.sendKey, rekeyOf(ours));
    const receiveKeys = new RecordKeys(suite, agreed.receiveKey, rekeyOf(theirs));
    const packer = new RecordPacker(sendKeys, limits.padBytes);
    this.sender = new Sender(conn, aead, packer, (error) => this.onWriteError(error));
    const unpacker = new RecordUnpacker(receiveKeys, {
      onRecord: () => this.#onRecord(),
      onData: (id, payload) => this.#find(id)?.onData(payload),
      onControl: (type, id, first, second) => this.#onControl(type, id, first, second),
    });
    this.receiver = new Receiver(conn, aead, unpacker, {
      onFirstBytes: () => {},
      onEnd: (error) => this.onEnd(error),
    });
    const growth = this.#growth(ours.windowBytes);
    this.link = {
      closeTimeoutMs: limits.closeTimeoutMs,
      isV2: true,
      sendWindow: theirs.windowBytes,
      maxSendWindow: MAX_SEND_WINDOW,
      receiveWindow: () => new GrowingWindow(growth),
      announce: () => {},
      endWriting: (id) => this.#say(TYPE.FIN, id),
      stopReading: (id, code) => this.#say(TYPE.STOP, id, code),
      end: (id, inOrder, known, code) => {
        if (!inOrder) this.#say(TYPE.RESET, id, code);
        else if (!known) this.#say(TYPE.CLOSE, id);
      },
      credit: (source) => this.sender.credit(source),
      data: (source) => this.sender.data(source),
      requeue: (source) => this.sender.requeue(source),
      forget: (core) => this.forget(core),
      release: (core) => this.#onReleased(core),
    };
    if (agreed.confirmed) this.authenticate();
    this.awaitHandshake(handshakeLeftMs, "handshake: no record of the peer in time");
    // The first record of a client shows the server that it speaks now.
    if (isClient) this.#ping.send();
    this.start(head);
  }

  /** Not before the peer has proved that it has the psk, too. */
  get peerKey(): Uint8Array | undefined {
    return this.authenticated ? this.#peerKey : undefined;
  }

  stats(): MuxStats {
    return {
      protocol: "v2",
      suite: this.suite,
      streams: this.live.size,
      pendingOpens: 0,
      waitingOpens: this.waitingOpens,
      pendingAccepts: this.accepted.length,
      refusedStreams: this.refused,
      lateFrames: this.late,
      strayFrames: 0,
      bytesReceived: this.receiver.bytes,
      bytesSent: this.sender.bytes,
      framesReceived: this.receiver.frames,
      framesSent: this.sender.frames,
      transportWrites: this.sender.writes,
      peerCounts: true,
      aead: this.#aead?.name,
      rtt: this.#ping.rtt,
    };
  }

  /** Gives the round trip in milliseconds. Calls that come while one is under way share it. */
  ping({ signal }: WaitOptions): Promise<number> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    return until(this.#ping.measure(), signal, "ping");
  }

  goAway(): void {
    if (this.ended || this.#refusedFrom !== Infinity) return;
    this.#refusedFrom = this.#nextTheirs;
    this.#say(TYPE.GOAWAY, 0, this.#refusedFrom);
  }

  /** A server before its client's first record: the handshake may be one of another time. */
  protected get silent(): boolean {
    return !this.isClient && !this.authenticated;
  }

  protected override control(
    id: number,
    type: number,
    values: readonly number[],
    answer: boolean,
  ): void {
    if (!this.silent) super.control(id, type, values, answer);
  }

  #say(type: number, id: number, ...values: readonly number[]): void {
    this.control(id, type, values, id !== 0 && this.isTheirs(id));
  }

  /** How windows grow: doubled within what is allowed. */
  #growth(first: number): WindowGrowth {
    const { maxStreamWindowBytes: most, maxSessionWindowBytes } = this.limits;
    let left = maxSessionWindowBytes;
    return {
      first,
      most,
      rtt: () => this.#ping.shortest(),
      reserve: (bytes) => {
        const reserved = Math.min(bytes, left);
        left -= reserved;
        return reserved;
      },
      release: (bytes) => left += bytes,
    };
  }

  protected sayKeepalive(): void {
    this.#ping.send();
  }

  protected sayClosing(): void {
    this.goAway();
  }

  protected sayFarewell(): void {
    this.#say(TYPE.END, 0, 0, this.#nextTheirs);
  }

  protected onSettled(error: MuxError): void {
    this.#ping.end(error);
  }

  protected answer(): Control {
    return this.#end(0);
  }

  protected lastWord({ code }: MuxError): Control | undefined {
    const number = END_CODES.indexOf(code);
    return number < 1 || this.#peerGaveUp || !this.authenticated ? undefined : this.#end(number);
  }

  #end(code: number): Control {
    return { id: 0, type: TYPE.END, values: [code, this.#nextTheirs], answer: false };
  }

  protected strangerError(text: string, cause: unknown): MuxError {
    const options = cause === undefined ? {} : { cause };
    const hint = `${text} before any record of the peer`;
    return this.isClient
      ? new MuxError("auth-failed", `${hint}: has it another psk, or does it not know us?`, options)
      : new MuxError("truncated", hint, options);
  }

  protected mayOpen(): boolean {
    if (this.silent) return false;
    return this.#nextOurs <= MAX_STREAM && this.#nextOurs >>> 1 < this.#mayOpenInAll &&
      this.#liveOurs + 1 <= this.limits.maxStreams;
  }

  protected cannotOpen(): MuxError | undefined {
    if (this.#nextOurs <= MAX_STREAM) return this.#goingAway;
    return new MuxError("limit", "opening a stream: all numbers of this session were used");
  }

  protected sayOpen(priority: number): number {
    const id = this.#nextOurs;
    this.#nextOurs += 2;
    this.#liveOurs++;
    this.#say(TYPE.OPEN, id, priority);
    if (this.#nextOurs > MAX_STREAM) this.rejectOpens(this.cannotOpen()!);
    return id;
  }

  protected onAccepted(): void {
    this.#quota.accepted();
    this.#grantStreams();
  }

  protected onForgotten(core: StreamCore): void {
    if (!this.isTheirs(core.id)) this.#liveOurs--;
  }

  #onReleased(core: StreamCore): void {
    if (!this.isTheirs(core.id)) return;
    this.#quota.ended();
    this.#grantStreams();
  }

  #grantStreams(): void {
    const inAll = this.#refusedFrom === Infinity ? this.#quota.grant() : undefined;
    // Counted as an answer: the peer can provoke any number of them.
    if (inAll !== undefined) this.control(0, TYPE.MAX_STREAMS, [inAll], true);
  }

  #onRecord(): void {
    if (this.authenticated) return;
    this.authenticate();
    if (!this.isClient) this.#ping.restart();
    if (this.#refusedFrom !== Infinity) this.#say(TYPE.GOAWAY, 0, this.#refusedFrom);
    this.openWaiting();
  }

  /** A live stream; undefined for one that is over, for which something was still on its way. */
  #find(id: number): StreamCore | undefined {
    const stream = this.live.get(id);
    if (stream !== undefined || this.ended) return stream;
    if (id >= (this.isTheirs(id) ? this.#nextTheirs : this.#nextOurs)) {
      throw new MuxError("protocol", `a frame for stream ${id}, which never was`);
    }
    this.late++;
    return undefined;
  }

  #onControl(type: number, id: number, first: number, second: number): void {
    if (type === TYPE.END) return this.#onPeerEnd(first, second);
    if (this.ended) return;
    switch (type) {
      case TYPE.OPEN:
        return this.#onOpen(id, first);
      case TYPE.FIN:
        return this.#find(id)?.onCloseRead();
      case TYPE.STOP:
        return this.#find(id)?.onCloseWrite(first);
      case TYPE.CLOSE:
        return this.#find(id)?.onCloseStream();
      case TYPE.RESET:
        return this.#find(id)?.onReset(first);
      case TYPE.WINDOW:
        if (first === 0) throw new MuxError("protocol", "a window is opened by nothing");
        return this.#find(id)?.onWindowUpdate(first);
      case TYPE.MAX_STREAMS:
        this.#mayOpenInAll = Math.max(this.#mayOpenInAll, first);
        return this.openWaiting();
      case TYPE.PING:
        return this.control(0, TYPE.PONG, [first], true);
      case TYPE.PONG:
        return this.#ping.onPong(first);
      case TYPE.GOAWAY:
        return this.#onGoAway(first);
    }
  }

  #onOpen(id: number, priority: number): void {
    if (id !== this.#nextTheirs) {
      throw new MuxError("protocol", `the peer opens stream ${id}, expected ${this.#nextTheirs}`);
    }
    if (id > MAX_STREAM) throw new MuxError("limit", `stream ${id}, at most ${MAX_STREAM} is`);
    this.#nextTheirs += 2;
    if (priority > MAX_PRIORITY) {
      throw new MuxError("protocol", `a priority of ${priority}, at most ${MAX_PRIORITY}`);
    }
    if (id >= this.#refusedFrom) {
      // It has heard, or will hear, that this one is not served.
      this.refused++;
      return;
    }
    if (!this.#quota.opened()) {
      throw new MuxError("limit", "the peer opens more streams than it was allowed to");
    }
    this.addAccepted(id, priority);
  }

  #onGoAway(from: number): void {
    const error = new MuxError("going-away", "the peer takes no new streams");
    this.#goingAway ??= error;
    this.rejectOpens(error);
    // Nobody has seen those: whatever they were for can be done elsewhere.
    for (const core of [...this.live.values()]) {
      if (!this.isTheirs(core.id) && core.id >= from) core.onSessionEnd(error);
    }
  }

  #onPeerEnd(code: number, from: number): void {
    if (code === 0) {
      this.#onGoAway(from);
      return this.onFarewell();
    }
    this.#peerGaveUp = true;
    const name = END_CODES[code] ?? "protocol";
    const text = `the peer has given the session up with code ${code}, ${name}`;
    const error = new MuxError(name, text, { resetCode: code });
    this.answerError = error;
    throw error;
  }
}

/** The AEAD of a suite: the user's, if it does that cipher. */
function loadFor(cipher: AeadCipher, given: Aead | undefined): Promise<Aead> {
  const isThat = given !== undefined && (given.cipher ?? "ChaCha20-Poly1305") === cipher;
  return isThat ? Promise.resolve(given) : loadAead(undefined, cipher);
}

function rekeyOf({ rekeyRecords: records, rekeyBytes: bytes }: Settings): RekeyAfter {
  return { records, bytes };
}
