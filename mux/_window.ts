/**
 * What the peer may send on one stream.
 *
 * @module
 */

export interface ReceiveWindow {
  /** So many bytes came; false if they were not allowed. */
  receive(bytes: number): boolean;
  /** So many were read, or thrown away; true if there is enough to be granted again. */
  consume(bytes: number): boolean;
  /** What is to be granted now, in bytes; 0 for nothing. */
  take(): number;
  /** True if more is to be granted behind that. */
  readonly due: boolean;
  /** The stream is over. */
  end(): void;
}
