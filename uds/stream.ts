/**
 * A call of many messages, as both sides see it.
 *
 * @module
 */
import type { ReceiveHalf } from "./_receive_half.ts";
import type { SendHalf } from "./_send_half.ts";
import { UdsError } from "./errors.ts";

/** Messages in both directions: a chunk is a message, and stays one. */
export interface MessageStream {
  /** The messages of the other side, as views of memory that others share (`slice()` what is transferred or kept for long), until it ends its direction. A client that cancels it ends the call; a handler only reads no more. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Messages to the other side. Closing it ends this direction, aborting it ends the call. */
  readonly writable: WritableStream<Uint8Array>;
}

/** What becomes of the call. */
interface Ends {
  /** The readable was cancelled. */
  cancel(reason: unknown): void;
  /** The writable was aborted, or a message cannot be sent. */
  abort(reason: unknown): void;
  /** The writable was closed. */
  end(): Promise<void>;
}

/** The streams of a call, and when all that was given to them has left. */
export interface OwnStream extends MessageStream {
  /** Resolves when what was written is sent. */
  written(): Promise<void>;
}

/** Makes streams of the two halves. Messages that are written have at most `maxMessage` bytes. */
export function messageStream(
  send: SendHalf,
  receive: ReceiveHalf,
  maxMessage: number,
  ends: Ends,
): OwnStream {
  const writable = new MessageWritable(send, maxMessage, ends);
  return { readable: readableOf(receive, ends), writable, written: () => writable.written() };
}

function readableOf(receive: ReceiveHalf, { cancel }: Ends): ReadableStream<Uint8Array> {
  let ended = false;
  let pulling = false;
  let late: (() => void) | undefined;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      // Also while nobody reads: `closed` of a reader waits for it.
      receive.onOver = (error) => {
        const end = () => {
          if (error !== undefined) controller.error(error);
          else if (!ended) controller.close();
          ended = true;
        };
        // A message that was there before is on its way to who reads.
        if (pulling) late = end;
        else end();
      };
    },
    async pull(controller) {
      pulling = true;
      const message = await receive.read();
      if (message !== undefined) controller.enqueue(message);
      pulling = false;
      if (receive.drained) receive.onOver?.();
      late?.();
    },
    cancel(reason) {
      ended = true;
      cancel(reason);
    },
    // What is read ahead is taken from the window.
  }, { highWaterMark: 0 });
}

/** A writable whose writes may be left alone: who waits for none hears by the signal of the call, and by the next write, of its end. */
class MessageWritable extends WritableStream<Uint8Array> {
  readonly #queue: { messages: number; failed: boolean; whenEmpty: (() => void)[] };

  constructor(send: SendHalf, maxMessage: number, { abort, end }: Ends) {
    const queue = { messages: 0, failed: false, whenEmpty: [] as (() => void)[] };
    const empty = () => {
      for (const resolve of queue.whenEmpty.splice(0)) resolve();
    };
    super({
      start(controller) {
        send.onFail = (error) => {
          controller.error(error);
          queue.failed = true;
          empty();
        };
      },
      async write(message) {
        if (message instanceof Uint8Array && message.length <= maxMessage) {
          await send.write(message);
          if (--queue.messages === 0) empty();
          return;
        }
        const error = message instanceof Uint8Array
          ? new UdsError(
            "too-large",
            `a message of ${message.length} bytes, and at most ${maxMessage} go`,
          )
          : new TypeError("a message is no bytes");
        // Without it, nobody can tell what the other messages are worth.
        abort(error);
        throw error;
      },
      close() {
        // What is written behind it was counted, and is refused.
        queue.messages = 0;
        empty();
        return end();
      },
      abort,
    }, {
      highWaterMark: 1,
      size() {
        queue.messages++;
        return 1;
      },
    });
    this.#queue = queue;
  }

  /** Resolves when what was written is sent, or never will be. */
  written(): Promise<void> {
    if (this.#queue.messages === 0 || this.#queue.failed) return Promise.resolve();
    return new Promise((resolve) => this.#queue.whenEmpty.push(resolve));
  }

  override getWriter(): WritableStreamDefaultWriter<Uint8Array> {
    const writer = super.getWriter();
    const quiet = <T>(promise: Promise<T>): Promise<T> => {
      promise.catch(() => {});
      return promise;
    };
    const [write, close] = [writer.write.bind(writer), writer.close.bind(writer)];
    writer.write = (message) => quiet(write(message));
    writer.close = () => quiet(close());
    return writer;
  }
}
