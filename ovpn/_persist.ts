/**
 * A command that has to be carried out, however long that takes.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";
import { LATE_REPLY_RETRY_MS } from "./_late_reply.ts";
import { ManagementError } from "./errors.ts";

/** Options of {@linkcode persist}. */
export interface PersistOptions {
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Hears of every failure. @default nobody */
  onError?(error: unknown): void;
}

/**
 * Sends a command, and again a second after each `timeout`, which need not end a connection (`onTimeout: "keep"`), until it has succeeded
 * once. Gives a function that sends it at once unless that is done or under way: for the `connected` and `resumed` of a client that connects
 * again, since other failures end with their connection.
 */
export function persist(
  send: (wait: WaitOptions) => Promise<void>,
  { signal, onError }: PersistOptions,
): () => void {
  let state: "idle" | "sending" | "done" = "idle";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const attempt = async (): Promise<void> => {
    if (state !== "idle" || signal.aborted) return;
    clearTimeout(timer);
    state = "sending";
    try {
      await send({ signal });
      state = "done";
    } catch (error) {
      state = "idle";
      if (signal.aborted) return;
      if (error instanceof ManagementError && error.code === "timeout") {
        timer = setTimeout(attempt, LATE_REPLY_RETRY_MS);
      }
      onError?.(error);
    }
  };
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  attempt();
  return () => void attempt();
}
