/**
 * What bench/uds.ts measures: anything that carries calls between two processes over a unix socket.
 *
 * @module
 */

/** Sends bytes; gives the same bytes, which have been with the server. */
export type Call = (data: Uint8Array) => Promise<Uint8Array>;

export interface Stack {
  readonly name: string;
  /** Whether it is somebody else's, and no bound. */
  readonly peer: boolean;
  /** Listens at `path`, and answers each call with what came with it. */
  serve(path: string): Promise<void>;
  connect(path: string): Promise<Call>;
}
