/**
 * Somebody between a client and a server who has no key, but sees where each part of a session begins: hello, handshake messages and
 * records of v2 by their lengths, frames of v1.
 */
import { concat } from "@std/bytes";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { client, type Mux, type MuxError, type MuxOptions, server } from "@trunkline/sockets/mux";
import { FrameSplitter } from "../mux/v1/frame.ts";
import { PSK, text, utf8 } from "./mux_pair.ts";

/** 0: from the client to the server. */
export type Direction = 0 | 1;
export type Protocol = "v1" | "v2";

const HELLO_BYTES = 8;

/** Cuts one direction of a session into its parts, lengths with them. */
export function cutter(
  protocol: Protocol,
  direction: Direction,
): (chunk: Uint8Array) => Uint8Array[] {
  if (protocol === "v1") {
    const splitter = new FrameSplitter();
    return (chunk) => {
      const frames: Uint8Array[] = [];
      splitter.push(chunk, frames);
      return frames.map((frame) => frame.slice());
    };
  }
  let hello = direction === 0;
  let kept: Uint8Array = new Uint8Array(0);
  return (chunk) => {
    kept = concat([kept, chunk]);
    const parts: Uint8Array[] = [];
    for (;;) {
      const size = hello ? HELLO_BYTES : kept.length < 2 ? 2 : 2 + (kept[0]! << 8 | kept[1]!);
      if (kept.length < size || size === 2) return parts;
      parts.push(kept.slice(0, size));
      kept = kept.slice(size);
      hello = false;
    }
  };
}

/** What goes on instead of part number `i` of a direction; with `END` in it that direction ends there. `seen` is all that came in both. */
export type Edit = (
  direction: Direction,
  i: number,
  part: Uint8Array,
  seen: readonly [readonly Uint8Array[], readonly Uint8Array[]],
) => readonly (Uint8Array | typeof END)[];
export const END: unique symbol = Symbol("the end of the transport");

/** The two ends of a line that somebody edits, and what was said on it before that. */
export interface Line {
  readonly ends: readonly [Conn, Conn];
  readonly said: readonly [Uint8Array[], Uint8Array[]];
  /** Resolves when both directions have ended. */
  readonly over: Promise<unknown>;
}

export function editedLine(protocol: Protocol, edit: Edit = (_, __, part) => [part]): Line {
  const [client, near] = connPair({ lingerMs: 500 });
  const [far, server] = connPair({ lingerMs: 500 });
  const said: Line["said"] = [[], []];
  const carry = async (from: Conn, to: Conn, direction: Direction): Promise<void> => {
    const cut = cutter(protocol, direction);
    try {
      for (let chunk = await from.read(); chunk; chunk = await from.read()) {
        for (const part of cut(chunk)) {
          said[direction].push(part);
          for (const piece of edit(direction, said[direction].length - 1, part, said)) {
            if (piece === END) {
              await to.closeWrite();
              // The rest is read, and goes nowhere.
              while (await from.read() !== null);
              return;
            }
            await to.write(piece);
          }
        }
      }
      await to.closeWrite();
    } catch (error) {
      from.abort(error);
      to.abort(error);
    }
  };
  return {
    ends: [client, server],
    said,
    over: Promise.all([carry(near, far, 0), carry(far, near, 1)]),
  };
}

export const WORDS: readonly string[] = ["one ", "two ", "three ", "four"];
export const MESSAGE: string = WORDS.join("");

/** How a session went, as one side has seen it. */
export interface Told {
  /** Of `ready` and of `closed`; undefined if they resolved. */
  ready?: string | undefined;
  closed?: string | undefined;
  /** What was read of the one stream there is, and whether it had an end, as if that were all. */
  read: string;
  ended: boolean;
  /** A stream was there. */
  stream: boolean;
  protocol?: string | undefined;
  left?: number;
}

const code = (promise: Promise<void>) =>
  promise.then(() => undefined, (error: MuxError) => error.code ?? String(error));

/** The client says the words, each in a record, and the server says each again; `closed` ends both. */
export async function talk(near: Mux, far: Mux): Promise<[Told, Told]> {
  return await Promise.all([speak(near, true), speak(far, false)]);
}

export async function speak(mux: Mux, isClient: boolean): Promise<Told> {
  const told: Told = { read: "", ended: false, stream: false };
  try {
    const stream = isClient ? await mux.openStream() : await mux.acceptStream();
    told.stream = true;
    const saying = isClient
      ? (async () => {
        for (const word of WORDS) await stream.write(utf8(word));
        await stream.closeWrite();
      })().catch(() => {})
      : undefined;
    for (;;) {
      const chunk = await stream.read();
      told.ended = chunk === null;
      if (chunk === null) break;
      told.read += text(chunk);
      if (!isClient) await stream.write(chunk).catch(() => {});
    }
    await saying;
    if (isClient) await mux.close();
    else await stream.closeWrite();
  } catch {
    // `closed` tells why.
  }
  told.closed = await code(mux.closed);
  told.ready = await code(mux.ready);
  told.protocol = mux.protocol;
  const { streams, waitingOpens } = mux.stats();
  told.left = streams + waitingOpens;
  return told;
}

/** One session through an edited line. */
export async function through(
  edit: Edit,
  options: Partial<MuxOptions> = { protocol: "v2" },
  serverOptions: Partial<MuxOptions> = options,
): Promise<{ told: [Told, Told]; said: Line["said"] }> {
  const line = editedLine(options.protocol === "v2" ? "v2" : "v1", edit);
  const near = client(line.ends[0], { psk: PSK, ...options });
  const far = server(line.ends[1], { psk: PSK, ...serverOptions });
  const told = await talk(near, far);
  await line.over;
  return { told, said: line.said };
}

/** All that a session said, in both directions. */
export async function recorded(
  options: Partial<MuxOptions> = { protocol: "v2" },
): Promise<Line["said"]> {
  return (await through((_, __, part) => [part], options)).said;
}

/** What a new session makes of `bytes`, behind which the transport ends, and what it says to them. */
export async function hearing(
  isClient: boolean,
  bytes: Uint8Array,
  options: Partial<MuxOptions> = { protocol: "v2" },
): Promise<{ told: Told; answer: Uint8Array }> {
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = (isClient ? client : server)(near, { psk: PSK, ...options });
  const answer: Uint8Array[] = [];
  const feeding = (async () => {
    await far.write(bytes);
    await far.closeWrite();
    for (let chunk = await far.read(); chunk; chunk = await far.read()) answer.push(chunk);
    await far.close();
  })().catch(() => {});
  const told = await speak(mux, isClient);
  await feeding;
  return { told, answer: concat(answer) };
}
