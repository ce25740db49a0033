/**
 * A call of many messages, as both sides see it.
 *
 * @module
 */
import type { ReceiveHalf } from "./_receive_half.ts";
import type { SendHalf } from "./_send_half.ts";

/** Messages in both directions: a chunk is a message, and stays one. */
export interface MessageStream {
  /** The messages of the other side, until it ends its direction. Cancelling it ends the call. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Messages to the other side. Closing it ends this direction, aborting it ends the call. */
  readonly writable: WritableStream<Uint8Array>;
}

/** Makes streams of the two halves; `cancel` ends the call, `end` this direction. */
export function messageStream(
  send: SendHalf,
  receive: ReceiveHalf,
  { cancel, end }: { cancel(reason: unknown): void; end(): Promise<void> },
): MessageStream {
  return {
    readable: new ReadableStream<Uint8Array>({
      async pull(controller) {
        const message = await receive.read();
        if (message === undefined) controller.close();
        else controller.enqueue(message);
      },
      cancel,
      // What is read ahead is taken from the window.
    }, { highWaterMark: 0 }),
    writable: new WritableStream<Uint8Array>({
      write: (message) => send.write(message),
      close: end,
      abort: cancel,
    }),
  };
}
