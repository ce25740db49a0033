/**
 * The window of gomux.
 *
 * @module
 */
import type { ReceiveWindow } from "../_window.ts";
import { CREDIT_BYTES, WINDOW_BYTES } from "../config.ts";
import { MAX_PAYLOAD_BYTES } from "./frame.ts";

/** It cannot be chosen (spec-mux: windows). */
export class FixedWindow implements ReceiveWindow {
  #open = WINDOW_BYTES;
  #consumed = 0;

  receive(bytes: number): boolean {
    if (bytes > this.#open) return false;
    this.#open -= bytes;
    return true;
  }

  consume(bytes: number): boolean {
    this.#consumed += bytes;
    return this.due;
  }

  get due(): boolean {
    return this.#consumed >= CREDIT_BYTES;
  }

  take(): number {
    const increment = Math.min(this.#consumed, MAX_PAYLOAD_BYTES);
    this.#consumed -= increment;
    this.#open += increment;
    return increment;
  }

  end(): void {}
}
