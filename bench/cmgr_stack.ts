/**
 * What bench/cmgr.ts measures: anything that serves many connections.
 *
 * @module
 */

/** What a server does: sends bytes back by the same connection; sends those that begin with `TO_ALL` to all that there are; sends a datagram back. */
export type Service = "echo" | "broadcast" | "datagrams";

/** The first byte of what is broadcast. */
export const TO_ALL = 255;

export interface Stack {
  readonly name: string;
  readonly services: readonly Service[];
  /** Serves on a free port of 127.0.0.1; gives the port. */
  serve(service: Service): Promise<number>;
}

/** The value below which `share` of the others are. */
export function quantileOf(values: readonly number[], share: number): number {
  return Float64Array.from(values).sort()[Math.floor(share * values.length)] ?? NaN;
}
