/**
 * What people use for calls over unix sockets otherwise.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { Agent, createServer, type IncomingMessage, request as httpRequest } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { connect as netConnect, createServer as createNetServer, type Socket } from "node:net";
import { requireFrom } from "./mux_stack.ts";
import { frameReader, FrameWriter } from "./uds_raw.ts";
import type { Stack } from "./uds_stack.ts";
import { type Wire, wires } from "./uds_wire.ts";

/** As many connections as there are calls in flight. */
const HTTP_SOCKETS = 64;
/** With the default of HTTP/2 in Node, 10, calls with 64 times 1 MiB in flight are refused. */
const MEMORY_MB = 1000;

/** All of them; `peers` is where they are installed. */
export function peerStacks(peers: string): readonly Stack[] {
  return [grpcJs(peers), connectNode(peers), vscodeJsonrpc(peers), nodeHttp, capnWeb(peers)];
}

interface GrpcJs {
  readonly Server: new () => {
    addService(definition: object, handlers: object): void;
    bindAsync(address: string, credentials: unknown, done: (error: Error | null) => void): void;
  };
  readonly ServerCredentials: { createInsecure(): unknown };
  readonly credentials: { createInsecure(): unknown };
  readonly Client: new (address: string, credentials: unknown) => {
    makeUnaryRequest(
      path: string,
      serialize: (value: Uint8Array) => Uint8Array,
      deserialize: (bytes: Uint8Array) => Uint8Array,
      data: Uint8Array,
      done: (error: Error | null, answer?: Uint8Array) => void,
    ): void;
  };
}

/** Unary calls whose messages are bytes as they are: without protobuf. */
function grpcJs(peers: string): Stack {
  const load = () => requireFrom<GrpcJs>(peers, "@grpc/grpc-js");
  const path = "/bench.Echo/Echo";
  // What is sent has to be a Buffer.
  const serialize = ({ buffer, byteOffset, length }: Uint8Array) =>
    Buffer.from(buffer, byteOffset, length);
  const same = (bytes: Uint8Array) => bytes;
  return {
    name: "@grpc/grpc-js",
    peer: true,
    serve(socket) {
      const { Server, ServerCredentials } = load();
      const server = new Server();
      const echo = {
        path,
        requestStream: false,
        responseStream: false,
        requestSerialize: serialize,
        requestDeserialize: same,
        responseSerialize: serialize,
        responseDeserialize: same,
      };
      server.addService({ echo }, {
        echo: (
          { request }: { request: Uint8Array },
          done: (error: null, answer: Uint8Array) => void,
        ) => done(null, request),
      });
      return new Promise((resolve, reject) => {
        const credentials = ServerCredentials.createInsecure();
        const done = (error: Error | null) => error ? reject(error) : resolve();
        server.bindAsync(`unix:${socket}`, credentials, done);
      });
    },
    connect(socket) {
      const { Client, credentials } = load();
      const client = new Client(`unix:${socket}`, credentials.createInsecure());
      return Promise.resolve((data) =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(path, serialize, same, data, (error, answer) => {
            if (error) reject(error);
            else resolve(answer!);
          });
        })
      );
    },
  };
}

interface ConnectNode {
  connectNodeAdapter(options: object): Parameters<typeof createHttp2Server>[1];
  createConnectTransport(options: object): unknown;
}
interface Bytes {
  readonly value: Uint8Array;
}
interface Connect {
  createClient(
    service: unknown,
    transport: unknown,
  ): { echo(request: Bytes): Promise<Bytes> };
}
interface Protobuf {
  create(schema: unknown, value: object): unknown;
  createFileRegistry(
    file: unknown,
    resolve: (name: string) => unknown,
  ): { getService(name: string): unknown };
}
interface WellKnown {
  readonly FileDescriptorProtoSchema: unknown;
  readonly file_google_protobuf_wrappers: unknown;
}

/** Connect's own protocol over HTTP/2, in its binary format, not compressed; a service that is described here instead of generated. */
function connectNode(peers: string): Stack {
  const describe = (): unknown => {
    const { create, createFileRegistry } = requireFrom<Protobuf>(peers, "@bufbuild/protobuf");
    const wkt = requireFrom<WellKnown>(peers, "@bufbuild/protobuf/wkt");
    const type = ".google.protobuf.BytesValue";
    const file = create(wkt.FileDescriptorProtoSchema, {
      name: "bench.proto",
      package: "bench",
      syntax: "proto3",
      dependency: ["google/protobuf/wrappers.proto"],
      service: [{ name: "Echo", method: [{ name: "Echo", inputType: type, outputType: type }] }],
    });
    return createFileRegistry(file, () => wkt.file_google_protobuf_wrappers)
      .getService("bench.Echo");
  };
  const load = () => requireFrom<ConnectNode>(peers, "@connectrpc/connect-node");
  return {
    name: "Connect",
    peer: true,
    serve(socket) {
      const routes = (router: { service(service: unknown, handlers: object): void }) => {
        router.service(describe(), { echo: ({ value }: Bytes) => ({ value }) });
      };
      const options = { maxSessionMemory: MEMORY_MB };
      const server = createHttp2Server(options, load().connectNodeAdapter({ routes }));
      return new Promise((resolve) => server.listen(socket, resolve));
    },
    connect(socket) {
      const { createClient } = requireFrom<Connect>(peers, "@connectrpc/connect");
      const transport = load().createConnectTransport({
        httpVersion: "2",
        baseUrl: "http://localhost",
        useBinaryFormat: true,
        acceptCompression: [],
        nodeOptions: {
          createConnection: () => netConnect(socket),
          maxSessionMemory: MEMORY_MB,
        },
      });
      const client = createClient(describe(), transport);
      return Promise.resolve(async (value) => (await client.echo({ value })).value);
    },
  };
}

interface JsonRpcConnection {
  onRequest(method: string, handler: (parameter: string) => string): void;
  sendRequest(method: string, parameter: string): Promise<string>;
  listen(): void;
}
interface JsonRpc {
  readonly StreamMessageReader: new (socket: Socket) => unknown;
  readonly StreamMessageWriter: new (socket: Socket) => unknown;
  createMessageConnection(reader: unknown, writer: unknown): JsonRpcConnection;
}

/** Bytes go in base64: it has no others. */
function vscodeJsonrpc(peers: string): Stack {
  const connectionOn = (socket: Socket): JsonRpcConnection => {
    const { StreamMessageReader, StreamMessageWriter, createMessageConnection } = requireFrom<
      JsonRpc
    >(peers, "vscode-jsonrpc/node");
    return createMessageConnection(
      new StreamMessageReader(socket),
      new StreamMessageWriter(socket),
    );
  };
  return {
    name: "vscode-jsonrpc",
    peer: true,
    serve(path) {
      const server = createNetServer((socket) => {
        const connection = connectionOn(socket);
        connection.onRequest("echo", (text) => toBase64(fromBase64(text)));
        connection.listen();
      });
      return new Promise((resolve) => server.listen(path, resolve));
    },
    async connect(path) {
      const socket = netConnect(path);
      await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
      const connection = connectionOn(socket);
      connection.listen();
      return async (data) => fromBase64(await connection.sendRequest("echo", toBase64(data)));
    },
  };
}

const fromBase64 = (text: string): Uint8Array => Buffer.from(text, "base64");
const toBase64 = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString("base64");

/** HTTP/1.1: a POST for each call, a connection for each one in flight. */
const nodeHttp: Stack = {
  name: "node:http",
  peer: true,
  serve(path) {
    const server = createServer(async (request, response) => {
      const body = await bodyOf(request);
      response.writeHead(200, { "content-length": body.length }).end(body);
    });
    return new Promise((resolve) => server.listen(path, resolve));
  },
  connect(socketPath) {
    const agent = new Agent({ keepAlive: true, maxSockets: HTTP_SOCKETS });
    return Promise.resolve((data) =>
      new Promise((resolve, reject) => {
        const headers = { "content-length": data.length };
        const options = { socketPath, agent, method: "POST", path: "/echo", headers };
        httpRequest(options, (response) => bodyOf(response).then(resolve, reject))
          .on("error", reject)
          .end(data);
      })
    );
  },
};

function bodyOf(message: IncomingMessage): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    message
      .on("data", (chunk: Uint8Array) => chunks.push(chunk))
      .on("end", () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
      .on("error", reject);
  });
}

interface CapnWeb {
  readonly RpcTarget: new () => object;
  readonly RpcSession: new (transport: object, main?: object) => {
    getRemoteMain(): { echo(data: Uint8Array): PromiseLike<Uint8Array> };
  };
}

/** Its messages, which are texts, on the frames of the raw echo: it brings WebSockets, and those cost more. */
function capnWeb(peers: string): Stack {
  const load = () => requireFrom<CapnWeb>(peers, "capnweb");
  return {
    name: "capnweb",
    peer: true,
    serve(path) {
      const { RpcSession, RpcTarget } = load();
      class Echo extends RpcTarget {
        echo(data: Uint8Array): Uint8Array {
          return data;
        }
      }
      return wires().listen(path, (wire) => {
        const [transport, take] = textTransport(wire);
        new RpcSession(transport, new Echo());
        return take;
      });
    },
    async connect(path) {
      const { RpcSession } = load();
      let session: InstanceType<CapnWeb["RpcSession"]>;
      await wires().connect(path, (wire) => {
        const [transport, take] = textTransport(wire);
        session = new RpcSession(transport);
        return take;
      });
      const main = session!.getRemoteMain();
      return async (data) => await main.echo(data);
    },
  };
}

function textTransport(wire: Wire): [transport: object, take: (chunk: Uint8Array) => void] {
  const [encoder, decoder] = [new TextEncoder(), new TextDecoder()];
  const writer = new FrameWriter(wire);
  const texts: string[] = [];
  let wake: ((text: string) => void) | undefined;
  const transport = {
    send: (text: string) => writer.send(0, encoder.encode(text)),
    receive(): Promise<string> {
      const text = texts.shift();
      if (text !== undefined) return Promise.resolve(text);
      return new Promise((resolve) => wake = resolve);
    },
  };
  const take = frameReader((_, payload) => {
    const text = decoder.decode(payload);
    if (wake === undefined) return void texts.push(text);
    wake(text);
    wake = undefined;
  });
  return [transport, take];
}
