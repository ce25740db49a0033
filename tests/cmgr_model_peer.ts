/** Whoever is at the other end of a session, and does what a test says. */
import type { Conn } from "../adapters/types.ts";
import type { Framing } from "../cmgr/mod.ts";

/** What is written: printable, so that it may be lines; each stream begins somewhere else in it. */
const TEXT = Uint8Array.from({ length: 2 ** 21 }, (_, i) => 32 + (Math.imul(i, 0x9e3779b1) >>> 26));

/** Messages whose bytes are those of no other stream. */
export class Script {
  #at: number;

  constructor(stream: number) {
    this.#at = 7919 * stream % 2 ** 20;
  }

  next(size: number): Uint8Array {
    return TEXT.subarray(this.#at, this.#at += size);
  }
}

/** What a message is on the wire, written once more: the one of the library is what is tested. */
export function framed(framing: Framing, message: Uint8Array): Uint8Array {
  if (framing === "raw") return message;
  if (framing === "lines") return Uint8Array.of(...message, 10);
  const { length } = message;
  return Uint8Array.of(length >>> 24, length >>> 16, length >>> 8, length, ...message);
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((size, { length }) => size + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** Lets pass, or keeps waiting. */
export class Gate {
  #closed: PromiseWithResolvers<void> | undefined;

  get shut(): boolean {
    return this.#closed !== undefined;
  }
  close(): void {
    this.#closed ??= Promise.withResolvers();
  }
  open(): void {
    this.#closed?.resolve();
    this.#closed = undefined;
  }
  passed(): Promise<void> | undefined {
    return this.#closed?.promise;
  }
}

/** `half`: it ends its own side and goes on reading; `whole`: it reads no more; `reset`: it throws the connection away. */
export type PeerEnd = "half" | "whole" | "reset";

export class Peer {
  /** What it has written, and then ended in order or not. */
  readonly sent: Uint8Array[] = [];
  readonly got: Uint8Array[] = [];
  readonly gate: Gate = new Gate();
  /** Settles when it reads no more. */
  readonly done: Promise<void>;
  over = false;
  /** It has read all that there was, to the end of the stream. */
  sawEnd = false;
  end: PeerEnd | undefined;
  /** The first of its messages that is too large for one. */
  spoiledAt: number | undefined;
  readonly #conn: Conn;
  readonly #framing: Framing;
  readonly #script: Script;
  readonly #stays: boolean;

  /** `stays`: it does not end its side only because the other one has ended. */
  constructor(conn: Conn, framing: Framing, number: number, stays: boolean) {
    this.#conn = conn;
    this.#framing = framing;
    this.#script = new Script(2 * number);
    this.#stays = stays;
    this.done = this.#read();
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        await this.gate.passed();
        const chunk = await this.#conn.read();
        if (chunk === null) break;
        this.got.push(chunk);
      }
      this.sawEnd = true;
      if (!this.#stays) this.finish("whole");
    } catch {
      // What that means, the model knows.
    }
    this.over = true;
  }

  write(size: number, maxFrameBytes: number): void {
    if (this.end !== undefined) return;
    const message = this.#script.next(size);
    if (this.#framing !== "raw" && size > maxFrameBytes) this.spoiledAt ??= this.sent.length;
    if (message.length > 0 || this.#framing !== "raw") this.sent.push(message);
    this.#conn.write(framed(this.#framing, message));
  }

  /** `rest`: the last message breaks off, which only a line may. */
  finish(end: PeerEnd, rest = false): void {
    if (this.end === "reset" || this.end === "whole" || this.end === end) return;
    if (rest && this.end === undefined && this.#framing !== "raw") {
      const message = this.#script.next(20);
      if (this.#framing === "lines") this.sent.push(message);
      else this.spoiledAt ??= this.sent.length;
      this.#conn.write(message);
    }
    this.end = end;
    if (end === "half") this.#conn.closeWrite();
    else if (end === "whole") this.#conn.close();
    else this.#conn.abort();
  }

  /** When all is over, so that nothing is left of it. */
  drop(): void {
    this.#conn.abort();
  }
}
