/**
 * Our mux, and what bounds v1: the sockets with nothing but the cryptography.
 *
 * @module
 */
import type { Conn } from "@trunkline/sockets/auto";
import {
  type Aead,
  dial,
  listen,
  loadAead,
  type MuxOptions,
  type MuxSuite,
  type OpenBox,
  type SealBox,
} from "@trunkline/sockets/mux";
import {
  FrameSplitter,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  TAG_BYTES,
  writeUint32,
} from "../mux/v1/frame.ts";
import { ANY_PORT, at, connectConn, pipeOf, portOf, serveConns } from "./mux_conns.ts";
import type { Kind, Pipe, Stack } from "./mux_stack.ts";

const PSK = "bench";
const FRAME_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES;
/** As many as our mux seals and writes at once. */
const BATCH_FRAMES = 9;

/** The hardened mode with one suite. */
export function hardened(suite: MuxSuite): Partial<MuxOptions> {
  return { protocol: "v2", suites: [suite] };
}

/** The same between two who also prove who they are. */
export function identified(suite: MuxSuite): Partial<MuxOptions> {
  // Any 32 bytes are a private key.
  const privateKey = crypto.getRandomValues(new Uint8Array(32));
  return { ...hardened(suite), identity: { privateKey }, knownPeers: () => true };
}

const KINDS: readonly Kind[] = ["bulk", "messages", "trips", "opens", "idle", "handshakes"];

/** Our mux over the adapter of the runtime, v1 if `more` says nothing else. */
export function ours(
  name: string,
  more: Partial<MuxOptions> = {},
  kinds: readonly Kind[] = KINDS,
): Stack {
  const options = { psk: PSK, ...more };
  return {
    name,
    kinds,
    async serve(onStream) {
      const listener = await listen(ANY_PORT, options);
      (async () => {
        for await (const mux of listener) {
          (async () => {
            for await (const stream of mux) onStream(pipeOf(stream));
          })().catch(() => {});
        }
      })();
      return portOf(listener.addr);
    },
    async connect(port) {
      const mux = await dial(at(port), options);
      return { open: async () => pipeOf(await mux.openStream()), close: () => mux.close() };
    },
  };
}

/** One connection that carries sealed frames of 64 KiB and nothing else: the least that any mux with this AEAD has to do. */
export function cryptoBound(name: string, aead: Promise<Aead> = loadAead()): Stack {
  return {
    name,
    kinds: ["bulk"],
    maxStreams: 1,
    serve: (onStream) => serveConns((conn) => onStream(openingPipe(conn, aead))),
    async connect(port) {
      const conn = await connectConn(port);
      return { open: () => sealingPipe(conn, aead) };
    },
  };
}

// Answers go unsealed: they are one byte in a whole run.

/** Seals in batches, each while the one before it is written, as our mux does. */
function sealingPipe(conn: Conn, loading: Promise<Aead>): Pipe {
  const key = new Uint8Array(32);
  // One is sealed while the other is written.
  const buffers = [0, 1].map(() => new Uint8Array(BATCH_FRAMES * FRAME_BYTES));
  let turn = 0;
  let counter = 0;
  let writing: Promise<void> | undefined;
  let batch: Uint8Array[] = [];
  /** Of the message that is being written. */
  let left = 0;

  async function flush(): Promise<void> {
    const aead = await loading;
    const buffer = buffers[turn ^= 1]!;
    let end = 0;
    const boxes = batch.map((input): SealBox => {
      const start = end;
      const body = start + HEADER_BYTES;
      end = body + input.length + TAG_BYTES;
      const nonce = new Uint8Array(12);
      writeUint32(nonce, 4, counter);
      writeUint32(buffer, start + 4, input.length);
      writeUint32(buffer, body - 8, counter++);
      const aad = buffer.subarray(start, body);
      return { key, nonce, aad, input, output: buffer.subarray(body, end) };
    });
    batch = [];
    await aead.seal(boxes);
    await writing;
    writing = conn.write(buffer.subarray(0, end));
  }

  return {
    ...pipeOf(conn),
    write(bytes) {
      const input = bytes as Uint8Array;
      // As the server reads it, see mux_agent.ts.
      if (left === 0) left = input[0] === 0 ? input.length : 2 ** input[0]!;
      left -= input.length;
      batch.push(input);
      if (batch.length === BATCH_FRAMES || left === 0) return flush();
    },
  };
}

function openingPipe(conn: Conn, loading: Promise<Aead>): Pipe {
  const key = new Uint8Array(32);
  const boxOf = (frame: Uint8Array): OpenBox => {
    const nonce = new Uint8Array(12);
    nonce.set(frame.subarray(HEADER_BYTES - 8, HEADER_BYTES), 4);
    const aad = frame.subarray(0, HEADER_BYTES);
    return { key, nonce, aad, input: frame.subarray(HEADER_BYTES) };
  };
  return {
    ...pipeOf(conn),
    async each(take) {
      const aead = await loading;
      const splitter = new FrameSplitter();
      for (let chunk = await conn.read(); chunk; chunk = await conn.read()) {
        const frames: Uint8Array[] = [];
        splitter.push(chunk, frames);
        for (const payload of await aead.open(frames.map(boxOf))) {
          if (payload === undefined) throw new Error("a frame cannot be opened");
          take(payload);
        }
      }
    },
  };
}
