/**
 * js-libp2p's multiplexer on a socket of node:net, as `@libp2p/tcp` puts it there: plain, and through its Noise.
 *
 * @module
 */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { type Chunk, importFrom, type Pipe, type Stack } from "./mux_stack.ts";

const MANY_STREAMS = 100_000;

/** A message stream of libp2p: a socket, a socket through Noise, or a stream of yamux. */
interface MessageStream {
  addEventListener(type: string, listener: (event: { readonly data: Chunk }) => void): void;
  send(bytes: Chunk): boolean;
  onDrain(): Promise<void>;
  close(): Promise<void>;
}
interface Muxer {
  createStream(): Promise<MessageStream>;
  addEventListener(
    type: "stream",
    listener: (event: { readonly detail: MessageStream }) => void,
  ): void;
}
interface SocketStream extends MessageStream {
  onData(bytes: Uint8Array): void;
  onTransportClosed(error?: Error): void;
  safeDispatchEvent(type: string): void;
}
interface Noise {
  secureInbound(stream: MessageStream, options: object): Promise<{ connection: MessageStream }>;
  secureOutbound(stream: MessageStream, options: object): Promise<{ connection: MessageStream }>;
}

type Direction = "inbound" | "outbound";
type MuxSocket = (socket: Socket, direction: Direction) => Promise<Muxer>;

async function load(peers: string, encrypted: boolean): Promise<MuxSocket> {
  const { yamux } = await importFrom<
    { yamux(options: object): () => { createStreamMuxer(over: MessageStream): Muxer } }
  >(peers, "@chainsafe/libp2p-yamux");
  const { AbstractMultiaddrConnection } = await importFrom<
    { AbstractMultiaddrConnection: new (options: object) => SocketStream }
  >(peers, "@libp2p/utils");
  const { defaultLogger } = await importFrom<
    { defaultLogger(): { forComponent(name: string): unknown } }
  >(peers, "@libp2p/logger");
  const logger = defaultLogger();
  const muxerFactory = yamux({
    maxInboundStreams: MANY_STREAMS,
    maxOutboundStreams: MANY_STREAMS,
  })();

  class Connection extends AbstractMultiaddrConnection {
    readonly #socket: Socket;
    constructor(socket: Socket, direction: Direction) {
      super({ direction, log: logger.forComponent("bench") });
      this.#socket = socket;
      socket.setNoDelay(true);
      socket.on("data", (bytes) => this.onData(bytes as Uint8Array));
      socket.on("drain", () => this.safeDispatchEvent("drain"));
      socket.on("error", () => {});
      socket.on("close", () => this.onTransportClosed());
    }
    sendData(list: Iterable<Uint8Array>): { sentBytes: number; canSendMore: boolean } {
      let sentBytes = 0;
      let canSendMore = true;
      for (const bytes of list) {
        sentBytes += bytes.byteLength;
        canSendMore = this.#socket.write(bytes);
        if (!canSendMore) break;
      }
      return { sentBytes, canSendMore };
    }
    sendReset(): void {
      this.#socket.destroy();
    }
    sendClose(): Promise<void> {
      return new Promise((resolve) => this.#socket.end(resolve));
    }
    sendPause(): void {
      this.#socket.pause();
    }
    sendResume(): void {
      this.#socket.resume();
    }
  }

  const secure = encrypted ? await loadNoise(peers, logger) : undefined;
  return async (socket, direction) => {
    const plain = new Connection(socket, direction);
    const over = secure === undefined ? plain : await secure(plain, direction);
    return muxerFactory.createStreamMuxer(over);
  };
}

async function loadNoise(peers: string, logger: object) {
  const { noise } = await importFrom<{ noise(): (components: object) => Noise }>(
    peers,
    "@chainsafe/libp2p-noise",
  );
  const { generateKeyPair } = await importFrom<
    { generateKeyPair(type: "Ed25519"): Promise<unknown> }
  >(peers, "@libp2p/crypto", "./keys");
  const privateKey = await generateKeyPair("Ed25519");
  const noiseOf = noise()({ logger, privateKey, upgrader: { getStreamMuxers: () => new Map() } });
  return async (plain: MessageStream, direction: Direction): Promise<MessageStream> => {
    const options = { skipStreamMuxerNegotiation: true };
    const secured = direction === "inbound"
      ? await noiseOf.secureInbound(plain, options)
      : await noiseOf.secureOutbound(plain, options);
    return secured.connection;
  };
}

/** yamux with its defaults, but for the number of streams; `peers` is where it is installed. */
export function libp2p(name: string, peers: string, encrypted: boolean): Stack {
  const loading = load(peers, encrypted);
  // A stack that is not measured need not load.
  loading.catch(() => {});
  return {
    name,
    kinds: ["bulk", "messages", "trips", "opens"],
    async serve(onStream) {
      const muxOn = await loading;
      const server = createServer(async (socket) => {
        const muxer = await muxOn(socket, "inbound");
        muxer.addEventListener("stream", ({ detail }) => onStream(pipeOf(detail)));
      });
      return new Promise((resolve) => {
        server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
      });
    },
    async connect(port) {
      const muxOn = await loading;
      const socket = connect(port, "127.0.0.1");
      await new Promise((resolve, reject) => {
        socket.once("connect", resolve).once("error", reject);
      });
      const muxer = await muxOn(socket, "outbound");
      return { open: async () => pipeOf(await muxer.createStream()) };
    },
  };
}

function pipeOf(stream: MessageStream): Pipe {
  return {
    each(take) {
      stream.addEventListener("message", ({ data }) => take(data));
      return new Promise((resolve) => {
        stream.addEventListener("remoteCloseWrite", () => resolve());
        stream.addEventListener("close", () => resolve());
      });
    },
    write(bytes) {
      if (!stream.send(bytes)) return stream.onDrain();
    },
    close: () => stream.close(),
  };
}
