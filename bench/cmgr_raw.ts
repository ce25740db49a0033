/**
 * Servers written by hand on the sockets of a runtime: what bounds us. They wait for who reads slowly, and have no names, events, limits,
 * counts or times.
 *
 * @module
 */
import { createSocket } from "node:dgram";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { type Service, type Stack, TO_ALL } from "./cmgr_stack.ts";

const HOST = "127.0.0.1";

/** The runtime's own sockets first; on Bun and Deno those of node:net, too. */
export function rawStacks(): readonly [Stack, ...Stack[]] {
  const { Deno, Bun } = globalThis as { Deno?: DenoLike; Bun?: BunLike };
  if (Deno !== undefined) {
    return [{
      name: "raw Deno.listen",
      services: ["echo", "broadcast"],
      serve: (service) => Promise.resolve(serveDeno(Deno, service)),
    }, nodeStack];
  }
  if (Bun !== undefined) {
    return [{
      name: "raw Bun.listen",
      services: ["echo", "broadcast", "datagrams"],
      serve: (service) =>
        service === "datagrams" ? serveBunDatagrams(Bun) : Promise.resolve(serveBun(Bun, service)),
    }, nodeStack];
  }
  return [nodeStack];
}

const nodeStack: Stack = {
  name: "raw node:net",
  services: ["echo", "broadcast", "datagrams"],
  serve: (service) => service === "datagrams" ? serveNodeDatagrams() : serveNode(service),
};

function serveNode(service: Service): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("data", (chunk) => {
      if (service === "broadcast" && chunk[0] === TO_ALL) {
        for (const each of sockets) each.write(chunk);
      } else if (!socket.write(chunk)) {
        socket.pause();
        socket.once("drain", () => socket.resume());
      }
    });
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });
  return new Promise((resolve) => {
    server.listen(0, HOST, () => resolve((server.address() as AddressInfo).port));
  });
}

function serveNodeDatagrams(): Promise<number> {
  const socket = createSocket("udp4");
  socket.on("message", (data, { address, port }) => socket.send(data, port, address));
  return new Promise((resolve) => socket.bind(0, HOST, () => resolve(socket.address().port)));
}

/** The part of Bun's API that is used here. */
interface BunLike {
  listen(options: object): { readonly port: number };
  udpSocket(options: object): Promise<{ readonly port: number }>;
}
interface BunSocket {
  /** What did not fit. */
  data: Uint8Array | undefined;
  /** How many bytes were taken; the rest is not kept. */
  write(bytes: Uint8Array): number;
  pause(): void;
  resume(): void;
}
interface BunDatagrams {
  send(data: Uint8Array, port: number, address: string): boolean;
}

function serveBun(bun: BunLike, service: Service): number {
  const sockets = new Set<BunSocket>();
  const send = (socket: BunSocket, bytes: Uint8Array) => {
    const taken = socket.write(bytes);
    if (taken < bytes.length) socket.data = bytes.subarray(Math.max(0, taken));
    else socket.data = undefined;
    return socket.data === undefined;
  };
  return bun.listen({
    hostname: HOST,
    port: 0,
    socket: {
      open: (socket: BunSocket) => sockets.add(socket),
      data(socket: BunSocket, chunk: Uint8Array) {
        if (service === "broadcast" && chunk[0] === TO_ALL) {
          for (const each of sockets) send(each, chunk);
        } else if (!send(socket, chunk)) socket.pause();
      },
      drain(socket: BunSocket) {
        if (socket.data !== undefined && send(socket, socket.data)) socket.resume();
      },
      close: (socket: BunSocket) => sockets.delete(socket),
    },
  }).port;
}

async function serveBunDatagrams(bun: BunLike): Promise<number> {
  const { port } = await bun.udpSocket({
    hostname: HOST,
    socket: {
      data(socket: BunDatagrams, data: Uint8Array, port: number, address: string) {
        socket.send(data, port, address);
      },
    },
  });
  return port;
}

/** The part of Deno's API that is used here. */
interface DenoLike {
  listen(options: object): AsyncIterable<DenoConn> & { readonly addr: { readonly port: number } };
}
interface DenoConn {
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
  setNoDelay(on: boolean): void;
}

const READ_BYTES = 16 * 1024;

function serveDeno(deno: DenoLike, service: Service): number {
  const conns = new Set<DenoConn>();
  const send = async (conn: DenoConn, bytes: Uint8Array) => {
    for (let sent = 0; sent < bytes.length;) {
      sent += await conn.write(sent === 0 ? bytes : bytes.subarray(sent));
    }
  };
  const serve = async (conn: DenoConn) => {
    conn.setNoDelay(true);
    conns.add(conn);
    try {
      const room = new Uint8Array(READ_BYTES);
      for (;;) {
        const count = await conn.read(room);
        if (count === null) break;
        const chunk = room.subarray(0, count);
        if (service === "broadcast" && chunk[0] === TO_ALL) {
          await Promise.all([...conns].map((each) => send(each, chunk)));
        } else await send(conn, chunk);
      }
    } finally {
      conns.delete(conn);
      conn.close();
    }
  };
  const listener = deno.listen({ hostname: HOST, port: 0 });
  (async () => {
    for await (const conn of listener) serve(conn).catch(() => {});
  })();
  return listener.addr.port;
}
