/** The page of mux_browser_test.ts: bundled for a browser, it runs the client's side of each session and posts what came of it. */
import { client, type Mux, type MuxError } from "@trunkline/sockets/mux";
import {
  content,
  isSame,
  optionsOf,
  type PageReport,
  RESET_CODES,
  type SessionPlan,
  type SessionReport,
  SESSIONS,
  STRANGERS,
  STREAM_BYTES,
  STREAMS,
} from "./mux_browser_plan.ts";
import { codeOf, readAll } from "./mux_pair.ts";

interface Duplex {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
}

/** Not every library of types knows it. */
type WebSocketStreamClass = new (url: string) => { readonly opened: Promise<Duplex> };

/** Bytes that a WebSocket may hold before a write waits. */
const MAX_BUFFERED_BYTES = 1 << 20;

/** A WebSocket takes whatever it is given and tells nobody when it has room again, so it is asked. */
async function drained(socket: WebSocket): Promise<void> {
  while (socket.bufferedAmount > MAX_BUFFERED_BYTES && socket.readyState === socket.OPEN) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function overWebSocket(url: string): Promise<Duplex> {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const readable = new ReadableStream<Uint8Array>({
    start(controller) {
      socket.onmessage = ({ data }) => controller.enqueue(new Uint8Array(data));
      socket.onclose = ({ wasClean, code }) => {
        if (wasClean) controller.close();
        else controller.error(new Error(`the WebSocket broke: ${code}`));
      };
    },
    cancel: () => socket.close(),
  });
  const writable = new WritableStream<Uint8Array<ArrayBuffer>>({
    write(bytes) {
      socket.send(bytes);
      return drained(socket);
    },
    close: () => socket.close(),
    abort: () => socket.close(),
  });
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error(`no WebSocket to ${url}`));
  });
  return { readable, writable: writable as WritableStream<Uint8Array> };
}

function overWebSocketStream(url: string): Promise<Duplex> {
  const { WebSocketStream } = globalThis as unknown as { WebSocketStream: WebSocketStreamClass };
  return new WebSocketStream(url).opened;
}

/** Whether `bytes` came back the same. */
async function echo(mux: Mux, bytes: Uint8Array): Promise<boolean> {
  const stream = await mux.openStream();
  const [back] = await Promise.all([
    readAll(stream),
    stream.write(bytes).then(() => stream.closeWrite()),
  ]);
  await stream.close();
  return isSame(back, bytes);
}

/** The server resets a stream, and so do we. */
async function tryV2(mux: Mux): Promise<SessionReport["v2"]> {
  const rtt = await mux.ping();
  const theirs = await mux.openStream();
  await theirs.write(Uint8Array.of(1));
  const error = await theirs.read().then(() => undefined, (error: MuxError) => error);
  (await mux.openStream()).reset(RESET_CODES.page);
  return { rtt, resetCode: error?.resetCode, peerKey: mux.peerKey?.join() };
}

const urlOf = (path: string): string => new URL(path, location.href.replace(/^http/, "ws")).href;

async function runSession(plan: SessionPlan, index: number): Promise<SessionReport> {
  const { transport, closer, suite } = plan;
  const connect = transport === "WebSocket" ? overWebSocket : overWebSocketStream;
  const mux = client(await connect(urlOf(`/mux/${index}`)), await optionsOf(plan, "page"));
  const greeting = await mux.acceptStream();
  const echoes = await Promise.all(
    Array.from({ length: STREAMS }, (_, seed) => echo(mux, content(STREAM_BYTES, seed))),
  );
  const v2 = suite && await tryV2(mux);
  // Last, because it tells the server that we are done.
  await greeting.readable.pipeTo(greeting.writable);
  await greeting.closed;
  if (closer === "page") await mux.close();
  else await mux.closed;
  return { same: echoes.filter((same) => same).length, stats: mux.stats(), v2 };
}

/** What a session ends with whose psk is another one. */
async function runStranger(index: number): Promise<string> {
  const options = { ...await optionsOf(STRANGERS[index]!, "page"), psk: "another one of ours" };
  return await codeOf(client(await overWebSocket(urlOf(`/stranger/${index}`)), options).ready);
}

async function run(): Promise<PageReport> {
  const sessions: SessionReport[] = [];
  for (const [i, plan] of SESSIONS.entries()) sessions.push(await runSession(plan, i));
  const strangers: string[] = [];
  for (const i of STRANGERS.keys()) strangers.push(await runStranger(i));
  return { sessions, strangers };
}

async function post(report: PageReport): Promise<void> {
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
}

/** With its stack and what is behind it. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\nbecause of ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}

const failed = (error: unknown): Promise<void> => post({ error: describe(error) });
addEventListener("unhandledrejection", ({ reason }) => void failed(reason));
run().then(post, failed);
