/**
 * One connection: messages in, messages out, and its end.
 *
 * @module
 */
import type { Conn, Duplex } from "../adapters/types.ts";
import { ConnectError } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { GoSplitter } from "./_go_splitter.ts";
import { Sender } from "./_sender.ts";
import { MessageSplitter } from "./decoder.ts";
import { UdsError } from "./errors.ts";

/** How long what is queued may take to leave at the end, at most. */
const CLOSE_TIMEOUT_MS = 5000;

/** What a message has beside its data, at most: names, numbers, metadata, and the text and details of an error. */
const ENVELOPE_BYTES = 384 * 1024;

/** Who hears of it. */
export interface LinkHandler {
  /** A message without its size. */
  onMessage(body: Uint8Array): void;
  /** It is over: in order, or by `error`. Nothing comes any more. */
  onEnd(error: UdsError | undefined): void;
  /** Gives when the next message may come, if that is not now. */
  busy?(): Promise<void> | undefined;
}

/** How messages are read. */
export interface LinkOptions {
  /** Whether as by the Go package's server, which overlooks the size. @default false */
  readonly asGo?: boolean;
}

/** A connection of a client or a server. */
export class Link {
  readonly conn: Conn;
  readonly sender: Sender;
  /** When something was last heard, by `performance.now()`. */
  heardAt: number = performance.now();
  readonly #splitter: MessageSplitter | GoSplitter;
  readonly #handler: LinkHandler;
  #over = false;
  /** What comes is of no interest any more. */
  #closing = false;

  constructor(
    duplex: Duplex | Conn,
    maxMessage: number,
    handler: LinkHandler,
    { asGo = false }: LinkOptions = {},
  ) {
    this.#splitter = new (asGo ? GoSplitter : MessageSplitter)(maxMessage + ENVELOPE_BYTES);
    this.#handler = handler;
    this.conn = wrapConn(duplex);
    this.sender = new Sender(this.conn, (error) => this.fail(error));
  }

  /** Begins to read. */
  async read(): Promise<void> {
    const bodies: Uint8Array[] = [];
    try {
      for (;;) {
        const chunk = await this.conn.read();
        if (chunk === null) break;
        this.heardAt = performance.now();
        bodies.length = 0;
        let broken: unknown;
        try {
          this.#splitter.push(chunk, bodies);
        } catch (error) {
          // After what came before it.
          broken = error;
        }
        for (const body of bodies) {
          if (this.#closing) break;
          this.#handler.onMessage(body);
          const busy = this.#handler.busy?.();
          if (busy !== undefined) await busy;
        }
        if (broken !== undefined && !this.#closing) throw broken;
        if (this.#over) return;
      }
      if (this.#splitter.partial) {
        throw new UdsError("disconnected", "the peer hung up in the middle of a message");
      }
      await this.close();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ends it by an error: ours, or of the connection. */
  fail(error: unknown): void {
    if (this.#over) return;
    const own = error instanceof UdsError ? error : connectionError(error);
    this.#end(own);
    this.conn.abort(own);
  }

  /** Sends what is queued, and ends it: at once, if that takes longer. */
  async close(timeoutMs: number = CLOSE_TIMEOUT_MS): Promise<void> {
    this.#closing = true;
    if (!this.#over) {
      let late = false;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const time = new Promise<void>((resolve) => {
        timer = setTimeout(() => {
          late = true;
          resolve();
        }, Math.min(timeoutMs, CLOSE_TIMEOUT_MS));
      });
      await Promise.race([this.sender.idle(), time]);
      clearTimeout(timer);
      this.#end(undefined);
      // The peer does not read.
      if (late) return this.conn.abort();
    }
    await this.conn.close().catch(() => {});
  }

  #end(error: UdsError | undefined): void {
    if (this.#over) return;
    this.#over = this.#closing = true;
    this.sender.stop();
    this.#handler.onEnd(error);
  }
}

function connectionError(cause: unknown): UdsError {
  if (cause instanceof ConnectError && cause.code === "closed") {
    return new UdsError("closed", "the connection was closed");
  }
  return new UdsError("connection", "the connection failed", { cause });
}
