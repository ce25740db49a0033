/**
 * The {@linkcode Demuxer} around a stream.
 *
 * @module
 */
import { type DemuxedKind, Demuxer } from "./demux.ts";

/** The two streams that {@linkcode demultiplex} gives; each chunk is one line. */
export interface DemultiplexedStreams {
  /** Reply lines, and password prompts. */
  readonly replies: ReadableStream<Uint8Array>;
  /** Real-time messages without their leading `>`. */
  readonly events: ReadableStream<Uint8Array>;
}

/** Lines that each stream of {@linkcode demultiplex} holds before reading stops. */
export const MAX_QUEUED_LINES = 1024;

const READ_ERROR: Uint8Array = new TextEncoder().encode("FATAL:Error reading from OpenVPN");

/**
 * Splits a stream of OpenVPN's bytes into a stream of replies and one of events. Both close at its end; if it fails, the
 * last event is `FATAL:Error reading from OpenVPN`.
 *
 * Read both, or cancel the one that is not wanted: reading stops while either of them holds {@linkcode MAX_QUEUED_LINES} lines.
 * When both are cancelled, `source` is. (`ManagementClient` has no such coupling.)
 *
 * @example
 * ```ts
 * import { demultiplex } from "@trunkline/sockets/ovpn";
 *
 * const source = new Blob([">INFO:hello\r\nSUCCESS: pid=1\r\n"]).stream();
 * const { replies, events } = demultiplex(source);
 * for await (const line of events) console.log("event", new TextDecoder().decode(line));
 * for await (const line of replies) console.log("reply", new TextDecoder().decode(line));
 * ```
 */
export function demultiplex(source: ReadableStream<Uint8Array>): DemultiplexedStreams {
  const reader = source.getReader();
  const demuxer = new Demuxer();
  let wake: (() => void) | undefined;
  const open = new Set<ReadableStreamDefaultController<Uint8Array>>();

  function output(): [ReadableStream<Uint8Array>, ReadableStreamDefaultController<Uint8Array>] {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const stream = new ReadableStream<Uint8Array>({
      start: (it) => {
        controller = it;
        open.add(it);
      },
      pull: () => wake?.(),
      cancel: async (reason) => {
        const wasOpen = open.delete(controller);
        wake?.();
        if (wasOpen && open.size === 0) await reader.cancel(reason);
      },
    }, { highWaterMark: MAX_QUEUED_LINES });
    return [stream, controller];
  }
  const [replies, replyOut] = output();
  const [events, eventOut] = output();

  const put = (kind: DemuxedKind, line: Uint8Array) => {
    const out = kind === "event" ? eventOut : replyOut;
    if (open.has(out)) out.enqueue(line);
  };
  const hasRoom = () => [...open].every((out) => (out.desiredSize ?? 0) > 0);

  async function pump(): Promise<void> {
    try {
      for (;;) {
        while (!hasRoom()) await new Promise<void>((resolve) => wake = resolve);
        const { done, value } = await reader.read();
        if (done) break;
        for (const { kind, line } of demuxer.push(value)) put(kind, line);
      }
      for (const { kind, line } of demuxer.end()) put(kind, line);
    } catch (error) {
      // Nothing to do for a source that failed, but for one whose chunks are no bytes.
      reader.cancel(error).catch(() => {});
      for (const { kind, line } of demuxer.end()) put(kind, line);
      put("event", READ_ERROR);
    }
    for (const out of open) out.close();
    open.clear();
  }
  pump();
  return { replies, events };
}
