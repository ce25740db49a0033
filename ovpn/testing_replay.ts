/**
 * Plays back a recorded OpenVPN.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Address, Conn, Duplex, Transport, WaitOptions } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { pause } from "../adapters/pause.ts";
import { lexCommand } from "./command.ts";
import { bytesOf, type Recording } from "./testing_recording.ts";

/** Why a replay could not go on: the manager sent something else than was recorded, or left. */
export class ReplayError extends Error {
  /** The name of the class. */
  override readonly name = "ReplayError";
  /** The line of the recording; `undefined` if the manager was to send no more. */
  readonly expected: string | undefined;
  /** The line that came; `undefined` if the manager left. */
  readonly actual: string | undefined;

  /** Makes an error; the lines are not in its message, since they may be secret. */
  constructor(message: string, expected: string | undefined, actual: string | undefined) {
    super(message);
    this.expected = expected;
    this.actual = actual;
  }
}

/** Options of {@linkcode replayRecording}. */
export interface ReplayOptions extends WaitOptions {
  /** How fast: 1 as it was recorded, 0.1 ten times as fast, 0 without any pause. @default 0 */
  readonly timeScale?: number | undefined;
}

/** Options of {@linkcode startScriptedDaemon}. */
export interface ScriptedDaemonOptions extends ReplayOptions {
  /** Where it listens. @default "127.0.0.1:0" */
  readonly address?: Address | string | undefined;
  /** Where listeners come from. @default the adapter of the runtime */
  readonly transport?: Pick<Transport, "listen"> | undefined;
}

/** What {@linkcode startScriptedDaemon} gives. */
export interface ScriptedDaemon extends AsyncDisposable {
  /** Where it listens. */
  readonly addr: Address;
  /**
   * Settles when the first replay is over: at the recorded end, or when the manager has left; or with `close()`. Rejects with its
   * {@linkcode ReplayError}. Ignoring it is safe.
   */
  readonly finished: Promise<void>;
  /** Cuts the connection, if any, and stops listening. */
  close(): Promise<void>;
}

/** A manager line that has no end yet may be this long, in bytes; OpenVPN itself takes 1024. */
const MAX_UNENDED_BYTES = 64 * 1024;

/**
 * Plays OpenVPN's part of `recording` towards a manager, and waits where the manager had its turn. Commands are compared as
 * OpenVPN reads them: quotes make no difference. Ends the connection where OpenVPN did, or waits for the manager to.
 *
 * @throws {ReplayError} if the manager sends something else, or leaves before its last line
 * @throws {ConnectError} if the connection fails, or `signal` fires
 */
export async function replayRecording(
  duplex: Duplex | Conn,
  recording: Recording,
  { timeScale = 0, signal }: ReplayOptions = {},
): Promise<void> {
  const conn = wrapConn(duplex);
  const onAbort = () => conn.abort(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await replay(conn, recording, timeScale, signal);
    await conn.close();
  } catch (error) {
    conn.abort(error);
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

async function replay(
  conn: Conn,
  recording: Recording,
  timeScale: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const lines = new LineReader(conn);
  let expected = "";
  let now = 0;
  for (const step of greetingFirst(recording)) {
    const wait = (step.at - now) * timeScale;
    now = step.at;
    // Ends early by `signal`; the connection tells that then.
    if (step.from === "daemon" && wait > 0) await pause(wait, signal);
    if (step.end) return;
    const bytes = bytesOf(step);
    if (step.from === "daemon") {
      await conn.write(bytes);
      continue;
    }
    expected += toText(bytes);
    const complete = expected.split("\n");
    expected = complete.pop()!;
    for (const line of complete) await expectLine(lines, line);
  }
  const surplus = await lines.next();
  if (surplus !== undefined) {
    throw new ReplayError("the manager sends more than was recorded", undefined, surplus);
  }
}

/** OpenVPN greets unasked, and this package waits for that; a recorded manager may have been faster. */
function greetingFirst(recording: Recording): Recording {
  const greeting = recording.find(({ from }) => from === "daemon");
  if (greeting === undefined || greeting.end) return recording;
  return [greeting, ...recording.filter((step) => step !== greeting)];
}

async function expectLine(lines: LineReader, expected: string): Promise<void> {
  const actual = await lines.next();
  if (actual === undefined) {
    throw new ReplayError("the manager left before the end", expected, actual);
  }
  if (actual.trimEnd() === expected.trimEnd()) return;
  const [recorded, received] = [lexCommand(expected), lexCommand(actual)];
  const equal = recorded.length === received.length &&
    recorded.every((parameter, index) => parameter === received[index]);
  if (!equal) {
    throw new ReplayError("the manager sends something else than was recorded", expected, actual);
  }
}

/** The manager's lines, without their ends. */
class LineReader {
  readonly #conn: Conn;
  #text = "";

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  async next(): Promise<string | undefined> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return line;
      }
      if (this.#text.length > MAX_UNENDED_BYTES) {
        const text = `the manager sends more than ${MAX_UNENDED_BYTES} bytes without a line end`;
        throw new ReplayError(text, undefined, undefined);
      }
      const chunk = await this.#conn.read();
      if (chunk === null) return undefined;
      this.#text += toText(chunk);
    }
  }
}

/**
 * Listens, and plays `recording` to every manager that connects.
 *
 * @throws {ConnectError} if the address cannot be listened on
 */
export async function startScriptedDaemon(
  recording: Recording,
  options: ScriptedDaemonOptions = {},
): Promise<ScriptedDaemon> {
  const { address = "127.0.0.1:0", transport = auto, timeScale, signal } = options;
  const listener = await transport.listen(address, { signal });
  const stop = new AbortController();
  const replayOptions = {
    timeScale,
    signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
  };
  const finished = Promise.withResolvers<void>();
  finished.promise.catch(() => {});
  const replays = new Set<Promise<void>>();
  const serving = (async () => {
    for await (const conn of listener) {
      const replayed = replayRecording(conn, recording, replayOptions)
        .then(finished.resolve, finished.reject)
        .then(() => void replays.delete(replayed));
      replays.add(replayed);
    }
  })().catch(finished.reject);
  const close = async () => {
    stop.abort();
    await listener.close();
    await serving;
    await Promise.all(replays);
    finished.resolve();
  };
  return {
    addr: listener.addr,
    finished: finished.promise,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** One character per byte: lines are compared, not read, and chunks may split a character. */
function toText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
