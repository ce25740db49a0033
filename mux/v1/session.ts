/**
 * A session as gomux has it (spec-mux).
 *
 * @module
 */
import type { Aead } from "../../adapters/aead.ts";
import { loadAead } from "../../adapters/aead_load.ts";
import type { Conn } from "../../adapters/types.ts";
import { Receiver } from "../_receiver.ts";
import { type Control, Sender } from "../_sender.ts";
import { Session } from "../_session.ts";
import type { Link, StreamCore } from "../_stream.ts";
import { type Config, WINDOW_BYTES } from "../config.ts";
import { MuxError } from "../errors.ts";
import { type MuxStats, statsWithoutRtt } from "../stats.ts";
import { FLAG } from "./frame.ts";
import { deriveKey } from "./key.ts";
import { FramePacker } from "./packer.ts";
import { FrameUnpacker } from "./unpacker.ts";
import { FixedWindow } from "./window.ts";

export class SessionV1 extends Session {
  protected readonly sender: Sender;
  protected readonly receiver: Receiver;
  protected readonly link: Link;
  /** gomux ends the transport at once. */
  protected readonly answersFarewell = false;
  protected readonly silent = false;
  readonly #unpacker: FrameUnpacker;
  #aead: Aead | undefined;
  #nextId: number;
  /** Of the streams that were opened by us and by the peer the last; beyond them nothing ever was. */
  #lastOpened = -1;
  #lastAccepted = -1;
  /** Our opens that have seen no frame of the peer. */
  readonly #unseen = new Set<number>();
  #strays = 0;

  /** `head` is what was read of `conn` before. */
  constructor(conn: Conn, isClient: boolean, config: Config, head: Uint8Array) {
    super(conn, isClient, config.limits.v1);
    this.#nextId = isClient ? 0 : 1;
    const { handshakeTimeoutMs, closeTimeoutMs } = config.limits.v1;
    const key = deriveKey(config.psk);
    const aead = (config.aead ? Promise.resolve(config.aead) : loadAead()).then((it) =>
      this.#aead = it
    );
    const packer = new FramePacker(key);
    this.sender = new Sender(conn, aead, packer, (error) => this.onWriteError(error));
    this.#unpacker = new FrameUnpacker(key, packer.prefix, (id, flags, length, payload) => {
      this.#onFrame(id, flags, length, payload);
    });
    this.receiver = new Receiver(conn, aead, this.#unpacker, {
      onFirstBytes: () => {
        const text =
          `no whole frame of the peer within ${handshakeTimeoutMs} ms of its first bytes`;
        this.awaitHandshake(handshakeTimeoutMs, text);
      },
      onEnd: (error) => this.onEnd(error),
    });
    this.link = {
      closeTimeoutMs,
      isV2: false,
      sendWindow: WINDOW_BYTES,
      maxSendWindow: WINDOW_BYTES,
      receiveWindow: () => new FixedWindow(),
      // By a grant of nothing: harmless to gomux, which has no other word for it.
      announce: (id) => this.#say(id, FLAG.WINDOW_UPDATE),
      endWriting: (id) => this.#say(id, FLAG.CLOSE_READ),
      stopReading: (id) => this.#say(id, FLAG.CLOSE_WRITE),
      // In order or not: there is one word for both. gomux keeps a stream until it hears it.
      end: (id) => this.#say(id, FLAG.CLOSE_STREAM),
      credit: (source) => this.sender.credit(source),
      data: (source) => this.sender.data(source),
      requeue: (source) => this.sender.requeue(source),
      forget: (core) => this.forget(core),
      release: () => {},
    };
    // Tells at once whether the psk is the same; gomux does not mind. A server that does not know the client yet says nothing, which
    // would be something to guess the psk by.
    if (isClient) this.sayKeepalive();
    this.start(head);
  }

  stats(): MuxStats {
    return statsWithoutRtt({
      protocol: "v1",
      suite: undefined,
      streams: this.live.size,
      pendingOpens: this.ended ? 0 : this.#unseen.size,
      waitingOpens: this.waitingOpens,
      pendingAccepts: this.accepted.length,
      refusedStreams: this.refused,
      lateFrames: this.late,
      strayFrames: this.#strays,
      bytesReceived: this.receiver.bytes,
      bytesSent: this.sender.bytes,
      framesReceived: this.receiver.frames,
      framesSent: this.sender.frames,
      transportWrites: this.sender.writes,
      peerCounts: this.#unpacker.peerCounts,
      aead: this.#aead?.name,
    });
  }

  #say(id: number, flags: number): void {
    this.control(id, flags, [], this.isTheirs(id));
  }

  protected sayKeepalive(): void {
    this.#say(0, FLAG.KEEPALIVE);
  }

  /** Streams that the peer opens meanwhile are refused each. */
  protected sayClosing(): void {}

  protected sayFarewell(): void {
    this.#say(0, FLAG.CLOSE_MUX);
  }

  protected mayOpen(): boolean {
    const { maxPendingOpens, maxStreams } = this.limits;
    return this.#unseen.size < maxPendingOpens && this.live.size < maxStreams;
  }

  protected cannotOpen(): undefined {
    return undefined;
  }

  protected sayOpen(): number {
    // After 2^31 of them they begin anew.
    while (this.live.has(this.#nextId) || this.#unseen.has(this.#nextId)) {
      this.#nextId = (this.#nextId + 2) >>> 0;
    }
    const id = this.#nextId;
    this.#nextId = (id + 2) >>> 0;
    this.#lastOpened = Math.max(this.#lastOpened, id);
    this.#unseen.add(id);
    this.#say(id, FLAG.OPEN_STREAM);
    return id;
  }

  protected onAccepted(core: StreamCore): void {
    core.announce();
  }

  protected onForgotten(core: StreamCore): void {
    // One of ours tells when it has accepted or refused the stream, closed or not; a gomux may never.
    if (!this.#unpacker.peerIsOurs) this.#unseen.delete(core.id);
  }

  protected onSettled(): void {}

  protected answer(): undefined {
    return undefined;
  }

  /** Nothing could be said that gomux would understand. */
  protected lastWord(): Control | undefined {
    return undefined;
  }

  protected strangerError(text: string, cause: unknown): MuxError {
    // A server of ours ends the transport of a client that has another psk, without a word.
    const hint =
      `${text} before any frame of the peer: is its psk another one, or does it speak v2?`;
    return new MuxError("truncated", hint, cause === undefined ? {} : { cause });
  }

  #onFrame(id: number, flags: number, length: number, payload: Uint8Array): void {
    if (!this.authenticated) {
      this.authenticate();
      if (!this.isClient) this.sayKeepalive();
    }
    if (this.ended) return;
    if (flags === FLAG.OPEN_STREAM) return this.#onOpen(id);
    if (flags === FLAG.CLOSE_MUX) return this.onFarewell();
    if (flags === FLAG.KEEPALIVE || flags > FLAG.CLOSE_MUX) return;
    const stream = this.live.get(id);
    if (this.#unseen.delete(id)) this.openWaiting();
    if (stream === undefined) return this.#onStray(id);
    if (flags === FLAG.DATA) stream.onData(payload);
    else if (flags === FLAG.WINDOW_UPDATE) stream.onWindowUpdate(length);
    else if (flags === FLAG.CLOSE_READ) stream.onCloseRead();
    else if (flags === FLAG.CLOSE_WRITE) stream.onCloseWrite();
    else stream.onCloseStream();
  }

  #onOpen(id: number): void {
    if (!this.isTheirs(id)) {
      const text =
        `the peer opens stream ${id}, which is a number of ours: are both clients, or both servers?`;
      throw new MuxError("protocol", text);
    }
    if (this.live.has(id)) {
      throw new MuxError("protocol", `the peer opens stream ${id} again`);
    }
    this.#lastAccepted = Math.max(this.#lastAccepted, id);
    const { maxStreams, maxPendingAccepts } = this.limits;
    const full = this.live.size >= maxStreams || this.accepted.length >= maxPendingAccepts;
    if (full || this.closing) {
      this.refused++;
      return this.#say(id, FLAG.CLOSE_STREAM);
    }
    this.addAccepted(id);
  }

  /** Leftovers for a stream that is over are legal, however many; for one that never was they are not, and gomux sends none. */
  #onStray(id: number): void {
    if (id <= (this.isTheirs(id) ? this.#lastAccepted : this.#lastOpened)) {
      this.late++;
      return;
    }
    if (++this.#strays > this.limits.maxStrayFrames) {
      throw new MuxError("limit", `more than ${this.limits.maxStrayFrames} frames for no stream`);
    }
  }
}
