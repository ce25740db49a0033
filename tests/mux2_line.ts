/** A connection in memory that a test slows down, stops, breaks and listens to. */
import { concat } from "@std/bytes";
import { type Conn, wrapConn } from "@trunkline/sockets/auto";

/** One direction. */
export class Line {
  /** What was written, call by call. */
  readonly writes: Uint8Array[] = [];
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  /** How long each byte is on its way. */
  delayMs: number;
  readonly #due: (() => void)[] = [];
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #over = false;
  #failure: unknown;
  #held: PromiseWithResolvers<void> | undefined;

  constructor(delayMs: number) {
    this.delayMs = delayMs;
    this.readable = new ReadableStream({
      start: (controller) => void (this.#controller = controller),
      cancel: () => void (this.#over = true),
    });
    this.writable = new WritableStream({
      write: async (bytes) => {
        if (this.#failure !== undefined) throw this.#failure;
        this.writes.push(bytes.slice());
        await this.#held?.promise;
        this.#later(() => this.#controller.enqueue(bytes));
      },
      close: async () => {
        await this.#held?.promise;
        this.end();
      },
      abort: (reason) => this.breakReading(reason ?? new Error("aborted")),
    });
  }

  get bytes(): Uint8Array {
    return concat(this.writes);
  }

  #later(act: () => void): void {
    const done = () => {
      if (!this.#over) act();
    };
    if (this.delayMs === 0 && this.#due.length === 0) return done();
    this.#due.push(done);
    // Whichever timer is the first: they are in order.
    setTimeout(() => this.#due.shift()!(), this.delayMs);
  }

  /** Takes one more write, and stands still. */
  hold(): void {
    this.#held ??= Promise.withResolvers();
  }

  release(): void {
    this.#held?.resolve();
    this.#held = undefined;
  }

  /** The reader sees the end, and what is written from now on is lost. */
  end(): void {
    this.#later(() => {
      this.#over = true;
      this.#controller.close();
    });
  }

  breakReading(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#controller.error(error);
  }

  breakWriting(error: unknown): void {
    this.#failure = error;
    this.release();
  }
}

export interface Lines {
  readonly ends: readonly [Conn, Conn];
  /** What the first end says, and what the second one says. */
  readonly there: Line;
  readonly back: Line;
}

export function lines(delayMs = 0): Lines {
  const [there, back] = [new Line(delayMs), new Line(delayMs)];
  const options = { lingerMs: 300, flushTimeoutMs: 1000 };
  return {
    ends: [
      wrapConn({ readable: back.readable, writable: there.writable }, options),
      wrapConn({ readable: there.readable, writable: back.writable }, options),
    ],
    there,
    back,
  };
}
