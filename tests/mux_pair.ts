/** Two sessions that talk to each other, and what tests do with them. */
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  client,
  type Mux,
  type MuxError,
  type MuxOptions,
  type MuxProtocol,
  type MuxStream,
  type MuxSuite,
  server,
} from "@trunkline/sockets/mux";

export const PSK = "open sesame";

/** The options that make a session speak one protocol. */
export interface Speaks {
  readonly protocol: MuxProtocol;
  readonly suites?: readonly MuxSuite[];
}

const SUITES: readonly MuxSuite[] = ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"];

/** Both protocols, for a test that holds on each, and how its name begins. Which of the two suites v2 has depends on the title. */
export function spoken(
  title: string,
): readonly { readonly mux: string; readonly speaks: Speaks }[] {
  return [
    { mux: "mux", speaks: { protocol: "v1" } },
    { mux: "mux v2", speaks: { protocol: "v2", suites: [SUITES[title.length % 2]!] } },
  ];
}

/** A client and a server over a pair in memory. */
export function muxPair(
  options: Partial<MuxOptions> = {},
  serverOptions: Partial<MuxOptions> = options,
): [Mux, Mux] {
  const [near, far] = connPair({ lingerMs: 500 });
  return [client(near, { psk: PSK, ...options }), server(far, { psk: PSK, ...serverOptions })];
}

/** Both ends of a new stream. */
export async function streamPair(near: Mux, far: Mux): Promise<[MuxStream, MuxStream]> {
  const opened = await near.openStream();
  return [opened, await far.acceptStream()];
}

export async function closeBoth(...sessions: readonly Mux[]): Promise<void> {
  await Promise.all(sessions.map((session) => session.close()));
}

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (bytes: Uint8Array | null): string | null =>
  bytes && new TextDecoder().decode(bytes);

/** Reads to the end. */
export async function readAll(stream: Pick<Conn, "read">): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) chunks.push(chunk);
  const whole = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** The code that a promise rejects with; fails if it does not. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  const [result] = await Promise.allSettled([promise]);
  if (result.status === "fulfilled") throw new Error(`expected a rejection, got ${result.value}`);
  return (result.reason as MuxError).code ?? String(result.reason);
}
