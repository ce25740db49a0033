/**
 * Unix sockets by each runtime's own calls, for what bench/uds.ts puts on them by hand.
 *
 * @module
 */
import { connect as netConnect, createServer, type Socket } from "node:net";

/** A connection, with as little around it as is possible. */
export interface Wire {
  /** Writes all of them, in their order; not called again before it resolves. They do not change until then. */
  write(pieces: readonly Uint8Array[]): Promise<void>;
}

/** Hears what comes; the bytes are its own. */
export type Take = (chunk: Uint8Array) => void;

/** How a server makes what hears a client; it may write to the client. */
export type OnWire = (wire: Wire) => Take;

interface Wires {
  listen(path: string, onWire: OnWire): Promise<void>;
  connect(path: string, onWire: OnWire): Promise<void>;
}

/** Those of the runtime. */
export function wires(): Wires {
  const { Deno, Bun } = globalThis as { Deno?: DenoLike; Bun?: BunLike };
  return Deno !== undefined ? denoWires(Deno) : Bun !== undefined ? bunWires(Bun) : nodeWires;
}

/** Node: 'data' events, and one writev for all pieces. */
const nodeWires: Wires = {
  listen(path, onWire) {
    const server = createServer((socket) => attach(socket, onWire));
    return new Promise((resolve) => server.listen(path, resolve));
  },
  connect(path, onWire) {
    const socket = netConnect(path);
    attach(socket, onWire);
    return new Promise((resolve, reject) => {
      socket.once("connect", resolve).once("error", reject);
    });
  },
};

function attach(socket: Socket, onWire: OnWire): void {
  const take = onWire({
    write: (pieces) =>
      new Promise((resolve, reject) => {
        const done = (error?: Error | null) => error ? reject(error) : resolve();
        const last = pieces.length - 1;
        if (last > 0) socket.cork();
        for (const [i, piece] of pieces.entries()) socket.write(piece, i < last ? undefined : done);
        if (last > 0) socket.uncork();
      }),
  });
  socket.on("data", take);
  // A peer that was ended has done its work.
  socket.on("error", () => {});
}

/** The part of Deno's API that is used here. */
interface DenoLike {
  listen(options: object): AsyncIterable<DenoConn>;
  connect(options: object): Promise<DenoConn>;
}
interface DenoConn {
  read(into: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
}

const READ_BYTES = 128 * 1024;

function denoWires(deno: DenoLike): Wires {
  const attach = async (conn: DenoConn, onWire: OnWire) => {
    const take = onWire({
      async write(pieces) {
        for (const piece of pieces) {
          for (let sent = 0; sent < piece.length;) {
            sent += await conn.write(sent === 0 ? piece : piece.subarray(sent));
          }
        }
      },
    });
    // One block for many chunks, as Node does it: taking one for each costs more.
    let room = new Uint8Array(READ_BYTES);
    for (;;) {
      const count = await conn.read(room);
      if (count === null) return;
      take(room.subarray(0, count));
      room = room.length - count < READ_BYTES / 2
        ? new Uint8Array(READ_BYTES)
        : room.subarray(count);
    }
  };
  return {
    listen(path, onWire) {
      const listener = deno.listen({ transport: "unix", path });
      (async () => {
        for await (const conn of listener) attach(conn, onWire).catch(() => {});
      })();
      return Promise.resolve();
    },
    async connect(path, onWire) {
      attach(await deno.connect({ transport: "unix", path }), onWire).catch(() => {});
    },
  };
}

/** The part of Bun's API that is used here. */
interface BunLike {
  listen(options: object): void;
  connect(options: object): Promise<void>;
}
interface BunSocket {
  data: BunEnds;
  /** How many bytes were taken; the rest is not kept. */
  write(bytes: Uint8Array): number;
}
interface BunEnds {
  readonly take: Take;
  drain?: (() => void) | undefined;
}

function bunWires(bun: BunLike): Wires {
  const socketOf = (onWire: OnWire) => ({
    open(socket: BunSocket) {
      const take = onWire({
        async write(pieces) {
          for (const piece of pieces) {
            for (let sent = 0;;) {
              const taken = socket.write(sent === 0 ? piece : piece.subarray(sent));
              if (taken < 0) throw new Error("the socket is closed");
              sent += taken;
              if (sent >= piece.length) break;
              await new Promise<void>((resolve) => socket.data.drain = resolve);
            }
          }
        },
      });
      socket.data = { take };
    },
    data: (socket: BunSocket, chunk: Uint8Array) => socket.data.take(chunk),
    drain: (socket: BunSocket) => socket.data.drain?.(),
  });
  return {
    listen(path, onWire) {
      bun.listen({ unix: path, socket: socketOf(onWire) });
      return Promise.resolve();
    },
    connect: (path, onWire) => bun.connect({ unix: path, socket: socketOf(onWire) }),
  };
}
