/**
 * The web streams of a {@linkcode Conn}, made of its `read()` and `write()`.
 *
 * @module
 */
import type { Conn } from "./types.ts";

/** @param started given what ends the stream from outside */
export function readableOf(
  conn: Conn,
  started: (controller: ReadableByteStreamController) => void,
  cancel: () => Promise<void> | undefined,
): ReadableStream<Uint8Array> {
  const source: UnderlyingByteSource = {
    type: "bytes",
    start: started,
    pull: async (controller) => {
      const chunk = await conn.read();
      if (chunk === null) {
        controller.close();
        controller.byobRequest?.respond(0);
        return;
      }
      // enqueue() takes the whole buffer away, so a view of a larger one has to be copied.
      const whole = chunk.byteLength === chunk.buffer.byteLength;
      controller.enqueue(whole ? chunk as Uint8Array<ArrayBuffer> : chunk.slice());
    },
    cancel,
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}

/** @param started given what ends the stream from outside; nothing any more once the stream was closed, whose own promise tells then */
export function writableOf(
  conn: Conn,
  started: (controller: WritableStreamDefaultController | undefined) => void,
): WritableStream<Uint8Array> {
  return new WritableStream<Uint8Array>({
    start: (controller) => {
      started(controller);
      // `abort()` below waits for the write that is under way, which may wait for the peer. A microtask later, since the
      // stream must not end by an error within its own abort().
      const { signal } = controller;
      const onAbort = () => queueMicrotask(() => conn.abort(signal.reason));
      signal.addEventListener("abort", onAbort, { once: true });
    },
    write: (chunk) =>
      conn.write(chunk).catch((error) => {
        // What is no bytes breaks the web stream, which could then not even close the connection.
        if (error instanceof TypeError) conn.abort(error);
        throw error;
      }),
    close: () => {
      started(undefined);
      return conn.closeWrite();
    },
    abort: (reason) => conn.abort(reason),
  });
}
