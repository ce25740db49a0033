/**
 * What passed over a management connection, as a value and as files.
 *
 * @module
 */
import { concat } from "@std/bytes";
import type { Conn } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";

/** One step of a recording: bytes from one side, as text if they are UTF-8; or the end of the connection. */
export interface RecordedStep {
  /** Whose step it is. */
  readonly from: "daemon" | "manager";
  /** When, in milliseconds since the connection was made. */
  readonly at: number;
  /** What was sent. */
  readonly text?: string;
  /** What was sent, instead of `text`. */
  readonly bytes?: Uint8Array;
  /** True for the end of the connection. */
  readonly end?: true;
}

/** The steps of one connection in their order. */
export type Recording = readonly RecordedStep[];

/** The same in three files: the bytes of each side, and which of them came when. */
export interface RecordingFiles {
  /** What OpenVPN sent. */
  readonly received: Uint8Array;
  /** What the manager sent. */
  readonly sent: Uint8Array;
  /** A JSON object per line: `t` seconds, `dir` rx, tx or eof, `off` and `len` in `received` (rx) or `sent` (tx). */
  readonly timing: string;
}

/** Reads the three files of a recording. */
export function parseRecording({ received, sent, timing }: RecordingFiles): Recording {
  return timing.split("\n").filter((line) => line.trim() !== "").map((line): RecordedStep => {
    const { t, dir, off, len } = JSON.parse(line);
    const at = t * 1000;
    if (dir === "eof") return { from: "daemon", at, end: true };
    const from = dir === "rx" ? "daemon" : "manager";
    return { from, at, bytes: (dir === "rx" ? received : sent).slice(off, off + len) };
  });
}

/** Writes a recording as three files. */
export function formatRecording(recording: Recording): RecordingFiles {
  const received: Uint8Array[] = [];
  const sent: Uint8Array[] = [];
  const offset = { rx: 0, tx: 0 };
  const timing = recording.map((step) => {
    const t = step.at / 1000;
    if (step.end) return JSON.stringify({ t, dir: "eof" });
    const bytes = bytesOf(step);
    const dir = step.from === "daemon" ? "rx" : "tx";
    (dir === "rx" ? received : sent).push(bytes);
    const off = offset[dir];
    offset[dir] += bytes.length;
    const rxoff = dir === "tx" ? { rxoff: offset.rx } : {};
    return JSON.stringify({ t, dir, off, len: bytes.length, ...rxoff });
  });
  return { received: concat(received), sent: concat(sent), timing: timing.join("\n") + "\n" };
}

/**
 * Records what passes over `conn`, a connection to OpenVPN. Give `conn` of the result to a `ManagementClient`; `recording` grows until
 * the connection ends.
 */
export function recordConn(conn: Conn): { readonly conn: Conn; readonly recording: Recording } {
  const recording: RecordedStep[] = [];
  const start = performance.now();
  const note = (from: RecordedStep["from"], bytes: Uint8Array) =>
    recording.push({ from, at: performance.now() - start, bytes: bytes.slice() });
  const noteEnd = () =>
    recording.push({ from: "daemon", at: performance.now() - start, end: true });
  const readable = new ReadableStream<Uint8Array>({
    async pull(out) {
      const chunk = await conn.read().catch((error) => {
        noteEnd();
        throw error;
      });
      if (chunk === null) {
        noteEnd();
        out.close();
      } else {
        note("daemon", chunk);
        out.enqueue(chunk);
      }
    },
    cancel: (reason) => conn.abort(reason),
  }, { highWaterMark: 0 });
  const writable = new WritableStream<Uint8Array>({
    write(chunk) {
      note("manager", chunk);
      return conn.write(chunk);
    },
    close: () => conn.closeWrite(),
    abort: (reason) => conn.abort(reason),
  });
  return { conn: wrapConn({ readable, writable }), recording };
}

/** The bytes of a step. */
export function bytesOf({ text, bytes }: RecordedStep): Uint8Array {
  return bytes ?? new TextEncoder().encode(text ?? "");
}
