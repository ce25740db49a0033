/**
 * The messages of a stream as values.
 *
 * @module
 */
import { decodeValue, type Format, type Refuse } from "./_format.ts";
import type { Messages } from "./service.ts";

/** The messages that come, each when it is asked for. To leave it early does not end the call. */
export async function* received(
  readable: ReadableStream<Uint8Array>,
  format: Format,
  refuse: Refuse,
): AsyncGenerator<unknown, void, undefined> {
  const reader = readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield await decodeValue(format, value, refuse);
    }
  } finally {
    reader.releaseLock();
  }
}

/** The only message of a direction that must have just one. */
export async function only(messages: AsyncIterable<unknown>, refuse: Refuse): Promise<unknown> {
  const all: unknown[] = [];
  for await (const message of messages) {
    if (all.push(message) > 1) throw refuse("is followed by another one");
  }
  if (all.length === 0) throw refuse("is missing");
  return all[0];
}

/**
 * Sends messages, each when the one before has left. Gives `messages` up (calls its `return()`) as soon as `signal` fires, even while it waits
 * for the next one.
 */
export async function sendAll(
  messages: Messages<unknown>,
  send: (message: unknown) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const iterator = iteratorOf(messages);
  let given: Promise<void> | undefined;
  const giveUp = () => given ??= leave(iterator);
  signal.addEventListener("abort", giveUp, { once: true });
  let over = false;
  try {
    while (!signal.aborted) {
      // Also if it throws.
      over = true;
      const next = await iterator.next();
      if (next.done === true) return;
      over = false;
      await send(next.value);
    }
  } finally {
    signal.removeEventListener("abort", giveUp);
    if (!over) await giveUp();
  }
}

function iteratorOf<T>(messages: Messages<T>): AsyncIterator<T> | Iterator<T> {
  if (Symbol.asyncIterator in Object(messages)) {
    return (messages as AsyncIterable<T>)[Symbol.asyncIterator]();
  }
  return (messages as Iterable<T>)[Symbol.iterator]();
}

/** Nobody hears what it says to that. */
async function leave(iterator: AsyncIterator<unknown> | Iterator<unknown>): Promise<void> {
  try {
    await iterator.return?.();
  } catch {
    // See above.
  }
}
