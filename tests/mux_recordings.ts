/** The recorded sessions of gomux v1.0.0, and a peer that plays one of their sides. */
import { concat } from "@std/bytes";
import { FLAG, type Frame, FrameDecoder } from "@trunkline/sockets/mux";
import { CLOSE_NAMES, type Peer } from "./mux_peer.ts";
import { fixture, fixtureJson, fromHex } from "./mux_vectors.ts";

export type Side = "client" | "server";

interface Carried {
  readonly bytes: number;
  readonly sha256: string;
}
interface SessionVector {
  readonly key_hex: string;
  readonly psk: string;
  readonly client_bin: string;
  readonly server_bin: string;
  readonly client_frames: readonly { readonly offset: number; readonly size: number }[] | null;
  readonly server_frames: readonly { readonly offset: number; readonly size: number }[] | null;
  readonly streams: readonly {
    readonly id: number;
    readonly opener: Side;
    readonly client_close_frames: readonly string[] | null;
    readonly server_close_frames: readonly string[] | null;
    readonly client_to_server: Carried;
    readonly server_to_client: Carried;
  }[];
  readonly writes?: readonly {
    readonly from: Side;
    readonly offset: number;
    readonly size: number;
  }[];
}

/** One side of a recording. */
export interface Recording {
  readonly bytes: Uint8Array;
  /** The whole frames, and where they end. */
  readonly frames: readonly (Frame & { readonly sealed: Uint8Array; readonly end: number })[];
  readonly streams: readonly {
    readonly id: number;
    readonly opened: boolean;
    readonly sha256: string;
    readonly length: number;
    readonly closes: readonly string[];
  }[];
  /** The payload of a stream. */
  payload(id: number): Uint8Array;
}

export interface Recorded {
  readonly psk: string;
  readonly key: Uint8Array;
  readonly client: Recording;
  readonly server: Recording;
  /** All writes of both sides, in the order in which they happened: how far each came. */
  readonly writes: readonly { readonly from: Side; readonly end: number }[];
}

export const otherSide = (side: Side): Side => side === "client" ? "server" : "client";

export function loadSession(name: string): Recorded {
  const vector = fixtureJson<SessionVector>(`sessions/${name}.json`);
  const key = fromHex(vector.key_hex);
  return {
    psk: vector.psk,
    key,
    client: loadSide(vector, key, "client"),
    server: loadSide(vector, key, "server"),
    // The one that was cut has none.
    writes: vector.writes?.map(({ from, offset, size }) => ({ from, end: offset + size })) ??
      [{ from: "client", end: Infinity }],
  };
}

function loadSide(vector: SessionVector, key: Uint8Array, side: Side): Recording {
  const bytes = fixture(vector[`${side}_bin`]);
  const index = vector[`${side}_frames`] ?? [];
  const frames = [...new FrameDecoder(key).push(bytes)].map((frame, i) => {
    const { offset, size } = index[i]!;
    return { ...frame, sealed: bytes.slice(offset, offset + size), end: offset + size };
  });
  const streams = vector.streams.map((stream) => {
    const carried = side === "client" ? stream.client_to_server : stream.server_to_client;
    return {
      ...{ id: stream.id, opened: stream.opener === side },
      ...{ sha256: carried.sha256, length: carried.bytes },
      closes: stream[`${side}_close_frames`] ?? [],
    };
  });
  const payload = (id: number) =>
    concat(frames.filter((it) => it.flags === FLAG.DATA && it.id === id).map((it) => it.payload));
  return { bytes, frames, streams, payload };
}

const WINDOW_BYTES = 131072;

/**
 * Plays `side` of a recording: each of its frames as gomux sealed it, once all has come that gomux had before. Its grants are left out,
 * since those that are due depend on what comes now (`peer` makes them); where it sends data, it waits for the room.
 */
export async function playSide(
  peer: Peer,
  recorded: Recorded,
  side: Side,
  { grants = false }: { readonly grants?: boolean } = {},
): Promise<void> {
  const { frames } = recorded[side];
  const sent = new Map<number, number>();
  let next = 0;
  for (const [i, { from, end }] of recorded.writes.entries()) {
    if (from !== side) continue;
    await peer.until(...allBefore(peer, recorded, otherSide(side), i));
    for (; next < frames.length && frames[next]!.end <= end; next++) {
      const { id, flags, length, sealed } = frames[next]!;
      if (flags === FLAG.WINDOW_UPDATE && !grants) continue;
      if (flags === FLAG.DATA) {
        const total = (sent.get(id) ?? 0) + length;
        sent.set(id, total);
        const hasRoom = () => total <= WINDOW_BYTES + peer.seen(id).credit;
        await peer.until(hasRoom, `room for ${total} bytes on stream ${id}`);
      }
      await peer.sendRaw(sealed);
    }
  }
}

/** Whether all has come that the other side had written before its write number `writes`. */
function allBefore(
  peer: Peer,
  recorded: Recorded,
  other: Side,
  count: number,
): [() => boolean, string] {
  const sent = recorded.writes.slice(0, count).filter(({ from }) => from === other);
  const end = sent.at(-1)?.end ?? 0;
  const bytes = new Map<number, number>();
  const words: { readonly id: number; readonly flags: number }[] = [];
  for (const frame of recorded[other].frames) {
    if (frame.end > end) break;
    const { id, flags, length } = frame;
    if (flags === FLAG.DATA) bytes.set(id, (bytes.get(id) ?? 0) + length);
    else if (flags === FLAG.OPEN_STREAM || CLOSE_NAMES.has(flags)) words.push({ id, flags });
  }
  const came = () =>
    [...bytes].every(([id, length]) => peer.seen(id).bytes >= length) &&
    words.every(({ id, flags }) => {
      const { opened, closes } = peer.seen(id);
      return flags === FLAG.OPEN_STREAM ? opened : closes.includes(CLOSE_NAMES.get(flags)!);
    });
  return [came, `what came before write ${count}: ${JSON.stringify([...bytes, ...words])}`];
}
