/**
 * The first bytes of a connection, of which one takes so many, and then leaves the rest to somebody else.
 *
 * @module
 */
import type { Conn } from "../adapters/types.ts";

export class Head {
  readonly #conn: Conn;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /** What was read and not taken. */
  get rest(): Uint8Array {
    return this.#bytes;
  }

  /** Reads until there are `count`; false if the connection ends before. */
  async fill(count: number): Promise<boolean> {
    while (this.#bytes.length < count) {
      const chunk = await this.#conn.read();
      if (chunk === null) return false;
      const joined = new Uint8Array(this.#bytes.length + chunk.length);
      joined.set(this.#bytes);
      joined.set(chunk, this.#bytes.length);
      this.#bytes = joined;
    }
    return true;
  }

  /** Takes what `fill()` has made sure of. */
  take(count: number): Uint8Array {
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }
}
