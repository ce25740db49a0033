/**
 * HTTP/2 of Node over TLS 1.3: the multiplexer that comes with it.
 *
 * @module
 */
import { connect, createSecureServer, type Http2Session, type Http2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { pem } from "./mux_conns.ts";
import type { Pipe, Stack } from "./mux_stack.ts";

const MIB = 1024 * 1024;

/** With less than this a session with 1000 streams that are all written to never moves again. */
const MEMORY_MB = 1000;
const MANY_STREAMS = 100_000;

/** With `tuned`, windows that loopback does not fill: 1 MiB for a stream, 64 MiB for the session. */
export function http2(name: string, tuned: boolean): Stack {
  const options = {
    maxSessionMemory: MEMORY_MB,
    peerMaxConcurrentStreams: MANY_STREAMS,
    settings: {
      maxConcurrentStreams: MANY_STREAMS,
      ...(tuned && { initialWindowSize: MIB }),
    },
  };
  const widen = (session: Http2Session) => {
    if (tuned) session.setLocalWindowSize(64 * MIB);
  };
  return {
    name,
    kinds: ["bulk", "messages", "trips", "opens", "idle"],
    serve(onStream) {
      const server = createSecureServer({
        ...options,
        key: pem("server.key"),
        cert: pem("server.crt"),
        minVersion: "TLSv1.3",
      });
      server.on("session", widen);
      server.on("stream", (stream) => {
        stream.respond({ ":status": 200 });
        onStream(pipeOf(stream));
      });
      return new Promise((resolve) => {
        server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
      });
    },
    async connect(port) {
      const session = connect(`https://localhost:${port}`, {
        ...options,
        ca: pem("ca.crt"),
        host: "127.0.0.1",
        servername: "localhost",
      });
      await new Promise((resolve, reject) => {
        session.once("remoteSettings", resolve).once("error", reject);
      });
      widen(session);
      return {
        open: () =>
          pipeOf(session.request({ ":method": "POST", ":path": "/" }, { endStream: false })),
      };
    },
  };
}

function pipeOf(stream: Http2Stream): Pipe {
  let more: (() => void) | undefined;
  stream.on("drain", () => more?.());
  return {
    each: (take) =>
      new Promise((resolve, reject) => {
        stream.on("data", take).on("end", resolve).on("error", reject);
      }),
    write(bytes) {
      if (!stream.write(bytes)) return new Promise((resolve) => more = resolve);
    },
    close() {
      stream.end();
    },
  };
}
