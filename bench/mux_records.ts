/**
 * What bounds the hardened mode: one connection that carries its records and nothing else.
 *
 * @module
 */
import { type AeadCipher, loadAead, type MuxSuite, type SealBox } from "@trunkline/sockets/mux";
import type { Conn } from "@trunkline/sockets/auto";
import {
  LENGTH_BYTES,
  MAX_PLAIN_BYTES,
  MAX_RECORD_BYTES,
  RecordSplitter,
} from "../mux/v2/record.ts";
import { NOISE_NONCE_BYTES, NOISE_TAG_BYTES, writeNonce } from "../mux/v2/suite.ts";
import { connectConn, pipeOf, serveConns } from "./mux_conns.ts";
import type { Pipe, Stack } from "./mux_stack.ts";

/** As many as our mux seals and writes at once. */
const BATCH_RECORDS = 8;
const BATCH_BYTES = BATCH_RECORDS * (LENGTH_BYTES + MAX_RECORD_BYTES);
/** What our mux reads into under load. */
const READ_BYTES = 256 * 1024;

const CIPHERS: Readonly<Record<MuxSuite, AeadCipher>> = {
  ChaChaPoly_BLAKE2b: "ChaCha20-Poly1305",
  AESGCM_SHA256: "AES-256-GCM",
};
const KEY = new Uint8Array(32);
const NOTHING = new Uint8Array(0);

/** Records of the greatest length, in batches, by the AEAD that a session takes for the suite. Answers go unsealed. */
export function recordBound(name: string, suite: MuxSuite): Stack {
  return {
    name,
    kinds: ["bulk"],
    maxStreams: 1,
    serve: (onStream) => serveConns((conn) => onStream(openingPipe(conn, suite))),
    async connect(port) {
      const conn = await connectConn(port);
      return { open: () => sealingPipe(conn, suite) };
    },
  };
}

/** Gives key and nonce of one record after the other. */
function counted(suite: MuxSuite): () => Pick<SealBox, "key" | "nonce" | "aad"> {
  let counter = 0;
  return () => {
    const nonce = new Uint8Array(NOISE_NONCE_BYTES);
    writeNonce(suite, counter++, nonce);
    return { key: KEY, nonce, aad: NOTHING };
  };
}

/** What is written is copied into place, and sealed there while the batch before it is written. */
function sealingPipe(conn: Conn, suite: MuxSuite): Pipe {
  const loading = loadAead(undefined, CIPHERS[suite]);
  const next = counted(suite);
  const buffers = [0, 1].map(() => new Uint8Array(BATCH_BYTES));
  let turn = 0;
  /** Where the open record begins, and where the next byte goes. */
  let start = LENGTH_BYTES;
  let at = start;
  let boxes: SealBox[] = [];
  let writing: Promise<void> | undefined;
  /** Of the message that is being written. */
  let left = 0;

  function endRecord(): void {
    const buffer = buffers[turn]!;
    const end = at + NOISE_TAG_BYTES;
    buffer[start - 2] = (end - start) >> 8;
    buffer[start - 1] = end - start;
    boxes.push({
      ...next(),
      input: buffer.subarray(start, at),
      output: buffer.subarray(start, end),
    });
    at = start = end + LENGTH_BYTES;
  }

  async function flush(): Promise<void> {
    if (at > start) endRecord();
    const aead = await loading;
    const whole = buffers[turn]!.subarray(0, start - LENGTH_BYTES);
    await aead.seal(boxes);
    await writing;
    writing = conn.write(whole);
    boxes = [];
    turn ^= 1;
    at = start = LENGTH_BYTES;
  }

  return {
    ...pipeOf(conn),
    async write(chunk) {
      const bytes = chunk as Uint8Array;
      // As the server reads it, see mux_agent.ts.
      if (left === 0) left = bytes[0] === 0 ? bytes.length : 2 ** bytes[0]!;
      left -= bytes.length;
      for (let taken = 0; taken < bytes.length;) {
        const count = Math.min(bytes.length - taken, start + MAX_PLAIN_BYTES - at);
        buffers[turn]!.set(bytes.subarray(taken, taken + count), at);
        taken += count;
        at += count;
        if (at === start + MAX_PLAIN_BYTES) endRecord();
        if (boxes.length === BATCH_RECORDS) await flush();
      }
      if (left === 0) await flush();
    },
  };
}

function openingPipe(conn: Conn, suite: MuxSuite): Pipe {
  return {
    ...pipeOf(conn),
    async each(take) {
      const aead = await loadAead(undefined, CIPHERS[suite]);
      const next = counted(suite);
      const splitter = new RecordSplitter();
      const into = new Uint8Array(READ_BYTES);
      for (let chunk = await conn.read({ into }); chunk; chunk = await conn.read({ into })) {
        const records: Uint8Array[] = [];
        splitter.push(chunk, records);
        const opening = aead.open(records.map((input) => ({ ...next(), input })));
        for (const plain of "then" in opening ? await opening : opening) {
          if (plain === undefined) throw new Error("a record cannot be opened");
          take(plain);
        }
      }
    },
  };
}
