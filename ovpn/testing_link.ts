/**
 * One manager's connection to a simulated OpenVPN.
 *
 * @module
 */
import { concat } from "@std/bytes";
import type { Conn } from "../adapters/types.ts";
import { CommandBuffer, READ_BYTES } from "./testing_input.ts";

/** A longer message is cut here together with its line end, so the next one follows on the same line (spec 1.1). */
const MAX_MESSAGE_BYTES = 10239;

/** A manager that leaves more than this unread is cut off. OpenVPN itself has no limit. */
const MAX_UNSENT_BYTES = 16 * 1024 * 1024;

const ENCODER = new TextEncoder();

/** Reads as OpenVPN does: some bytes, all their lines, then out with the answers, and on. */
export class ManagerLink {
  readonly #conn: Conn;
  #unsent: Uint8Array[] = [];
  #unsentBytes = 0;
  #afterRead: (() => void)[] = [];
  #reading = false;
  #sending: Promise<void> | undefined;
  #ended = false;

  /** Takes over a connection. */
  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /** Sends a message. */
  say(text: string): void {
    const line = ENCODER.encode(`${text}\r\n`);
    this.#put(line.length - 2 > MAX_MESSAGE_BYTES ? line.slice(0, MAX_MESSAGE_BYTES) : line);
  }

  /** Sends a text without a line end. */
  prompt(text: string): void {
    this.#put(ENCODER.encode(text));
  }

  /** Runs `action` when the lines that came with the present one are done; at once if there is none. */
  afterRead(action: () => void): void {
    if (this.#reading) this.#afterRead.push(action);
    else action();
  }

  /** Gives every line to `onLine`, until the manager leaves or the connection is ended from here. */
  async serve(onLine: (line: string) => void): Promise<void> {
    const buffer = new CommandBuffer();
    try {
      for (;;) {
        await this.#send();
        const chunk = this.#ended ? null : await this.#conn.read();
        if (chunk === null) break;
        for (let offset = 0; offset < chunk.length && !this.#ended; offset += READ_BYTES) {
          buffer.push(chunk.subarray(offset, offset + READ_BYTES));
          this.#runLines(buffer, onLine);
          await this.#send();
        }
      }
      await this.#conn.close();
    } catch (error) {
      this.#conn.abort(error);
    } finally {
      this.#ended = true;
    }
  }

  /** Ends the connection; what was not sent yet is sent before, or lost. */
  end(unsent: "sent" | "lost"): void {
    this.#ended = true;
    if (unsent === "lost") this.#drop();
    const close = () => this.#conn.close();
    (unsent === "lost" ? close() : this.#send().then(close)).catch(() => {});
  }

  #runLines(buffer: CommandBuffer, onLine: (line: string) => void): void {
    this.#reading = true;
    for (let line = buffer.next(); line !== undefined; line = buffer.next()) {
      onLine(line);
      if (this.#ended) break;
    }
    this.#reading = false;
    for (const action of this.#afterRead.splice(0)) action();
  }

  #put(bytes: Uint8Array): void {
    if (this.#ended) return;
    this.#unsent.push(bytes);
    this.#unsentBytes += bytes.length;
    if (this.#unsentBytes > MAX_UNSENT_BYTES) {
      this.#ended = true;
      this.#drop();
      this.#conn.abort(new Error(`the manager left more than ${MAX_UNSENT_BYTES} bytes unread`));
    } else if (!this.#reading) {
      // Its failure is told by read().
      this.#send().catch(() => {});
    }
  }

  #drop(): void {
    this.#unsent = [];
    this.#unsentBytes = 0;
  }

  #send(): Promise<void> {
    return this.#sending ??= this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    // So that messages of one turn go together.
    await undefined;
    try {
      while (this.#unsent.length > 0) {
        const bytes = concat(this.#unsent);
        this.#unsent = [];
        await this.#conn.write(bytes);
        this.#unsentBytes = Math.max(0, this.#unsentBytes - bytes.length);
      }
    } finally {
      // In the same turn as the last look at what is unsent.
      this.#sending = undefined;
    }
  }
}
