/**
 * What bench/mux.ts measures: anything that carries streams between two processes.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Received bytes, in the form that the stack has them in. */
export interface Chunk {
  readonly byteLength: number;
  subarray(from: number, to: number): Uint8Array;
}

/** One stream. */
export interface Pipe {
  /** Calls `take` with all that comes, as the stack likes it best (events or reads); resolves at the peer's end. */
  each(take: (chunk: Chunk) => void): Promise<void>;
  /** Takes bytes, or a chunk of the same stack; resolves when the stack wants more. */
  write(bytes: Chunk): Promise<void> | void;
  /** Ends our direction; the orderly end of a stream that both sides end. */
  close(): Promise<void> | void;
}

/** The client's end of a session. */
export interface Session {
  open(): Promise<Pipe> | Pipe;
  /** Ends it in order; not there where each stream is a connection of its own. */
  close?(): Promise<void> | void;
}

export type Kind = "bulk" | "messages" | "trips" | "opens" | "idle" | "handshakes";

export interface Stack {
  readonly name: string;
  readonly kinds: readonly Kind[];
  /** More of them are not tried. */
  readonly maxStreams?: number;
  /** Listens on a free port of 127.0.0.1, which it gives; `onStream` is told each stream of each session. */
  serve(onStream: (pipe: Pipe) => void): Promise<number>;
  connect(port: number): Promise<Session>;
}

/** An entry of a package with ES modules below `directory`. */
export function importFrom<T>(directory: string, name: string, entry = "."): Promise<T> {
  const root = join(directory, "node_modules", name);
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return import(pathToFileURL(join(root, exports[entry].import)).href);
}

/** A CommonJS package below `directory`, or one that is found from here. */
export function requireFrom<T>(directory: string | undefined, name: string): T {
  const from = directory === undefined ? import.meta.url : join(directory, "package.json");
  return createRequire(from)(name);
}
