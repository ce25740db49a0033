/**
 * The clients of bench/cmgr.ts: a process with sockets of Bun, whatever the servers run on, since those take least of the machine.
 *
 * @module
 */
import { answerCommands } from "./cmgr_server.ts";
import { quantileOf, TO_ALL } from "./cmgr_stack.ts";
import type { Numbers } from "./agent_process.ts";

/** What it can be told. */
export type LoadCommand =
  /** Opens so many connections, and gets an echo by each. */
  | { readonly do: "connect"; readonly port: number; readonly connections: number }
  /** A message at a time by each connection. */
  | { readonly do: "echo"; readonly size: number; readonly seconds: number }
  /** A message by one connection, which comes back by all, and then the next. */
  | { readonly do: "broadcast"; readonly size: number; readonly seconds: number }
  /** Connections that get an echo of one byte and end, so many at a time. */
  | {
    readonly do: "accepts";
    readonly port: number;
    readonly atOnce: number;
    readonly seconds: number;
  }
  /** A datagram at a time by each of so many sockets. */
  | {
    readonly do: "datagrams";
    readonly port: number;
    readonly sockets: number;
    readonly size: number;
    readonly seconds: number;
  };

const HOST = "127.0.0.1";
/** Less than servers keep waiting. */
const OPENED_AT_ONCE = 256;
/** A datagram whose answer takes longer is lost, and sent again. */
const LOST_MS = 200;

/** The part of Bun's API that is used here. */
interface BunLike {
  connect(options: object): Promise<BunSocket>;
  udpSocket(options: object): Promise<BunDatagrams>;
}
interface BunSocket {
  data: Lane;
  /** How many bytes were taken; the rest is not kept. */
  write(bytes: Uint8Array): number;
  end(): void;
}
interface BunDatagrams {
  send(bytes: Uint8Array): boolean;
  close(): void;
}

const bun = (): BunLike => (globalThis as { Bun?: BunLike }).Bun!;

const SOCKET = {
  open(socket: BunSocket): void {
    socket.data.socket = socket;
  },
  data(socket: BunSocket, chunk: Uint8Array): void {
    socket.data.take(chunk);
  },
  drain(socket: BunSocket): void {
    socket.data.flush();
  },
  close(socket: BunSocket, error?: Error): void {
    socket.data.onClose(error);
  },
};

/** A connection. */
class Lane {
  socket!: BunSocket;
  /** Told when all of the answer is there. */
  onAnswer: () => void = () => {};
  /** Told when it is closed, or of no use. */
  onClose: (error?: Error) => void = () => {};
  #rest: Uint8Array | undefined;
  #expected: Uint8Array = new Uint8Array();
  #have = 0;

  static async open(port: number): Promise<Lane> {
    const lane = new Lane();
    await bun().connect({ hostname: HOST, port, data: lane, socket: SOCKET });
    return lane;
  }

  send(bytes: Uint8Array): void {
    const taken = this.socket.write(bytes);
    this.#rest = taken < bytes.length ? bytes.subarray(Math.max(0, taken)) : undefined;
  }

  flush(): void {
    if (this.#rest !== undefined) this.send(this.#rest);
  }

  expect(bytes: Uint8Array): void {
    this.#expected = bytes;
    this.#have = 0;
  }

  take(chunk: Uint8Array): void {
    // A server that answers with other bytes must not look fast.
    if (chunk[0] !== this.#expected[this.#have]) this.onClose(new Error("other bytes came back"));
    this.#have += chunk.byteLength;
    if (this.#have === this.#expected.length) this.onAnswer();
  }

  /** One message back and forth. */
  trip(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.onAnswer = resolve;
      this.onClose = lost(reject);
      this.expect(bytes);
      this.send(bytes);
    });
  }
}

const lost = (reject: (error: Error) => void) => (error = new Error("the server ended it")): void =>
  reject(error);

const messageOf = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, i) => i * 31);

/** Does what it is told. */
export async function runLoad(): Promise<void> {
  let lanes: Lane[] = [];
  await answerCommands(async (command: LoadCommand): Promise<Numbers> => {
    switch (command.do) {
      case "connect":
        lanes = lanes.concat(await connect(command.port, command.connections));
        return {};
      case "echo":
        return await echo(lanes, command.size, command.seconds);
      case "broadcast":
        return await broadcast(lanes, command.size, command.seconds);
      case "accepts":
        return await accepts(command.port, command.atOnce, command.seconds);
      case "datagrams":
        return await datagrams(command.port, command.sockets, command.size, command.seconds);
    }
  });
}

async function connect(port: number, connections: number): Promise<Lane[]> {
  const lanes: Lane[] = [];
  const message = messageOf(16);
  while (lanes.length < connections) {
    const count = Math.min(OPENED_AT_ONCE, connections - lanes.length);
    const opened = await Promise.all(Array.from({ length: count }, () => Lane.open(port)));
    await Promise.all(opened.map((lane) => lane.trip(message)));
    lanes.push(...opened);
  }
  return lanes;
}

async function echo(lanes: readonly Lane[], size: number, seconds: number): Promise<Numbers> {
  const message = messageOf(size);
  const took: number[] = [];
  const start = performance.now();
  const end = start + 1000 * seconds;
  await Promise.all(lanes.map((lane) =>
    new Promise<void>((resolve, reject) => {
      let sent = performance.now();
      lane.onClose = lost(reject);
      lane.onAnswer = () => {
        const now = performance.now();
        took.push(1000 * (now - sent));
        if (now >= end) return resolve();
        sent = now;
        lane.expect(message);
        lane.send(message);
      };
      lane.expect(message);
      lane.send(message);
    })
  ));
  const perSecond = 1000 * took.length / (performance.now() - start);
  return {
    count: took.length,
    perSecond,
    mbPerSecond: perSecond * size / 1e6,
    p50: quantileOf(took, 0.5),
    p99: quantileOf(took, 0.99),
  };
}

async function broadcast(lanes: readonly Lane[], size: number, seconds: number): Promise<Numbers> {
  const message = new Uint8Array(size).fill(TO_ALL);
  const start = performance.now();
  const end = start + 1000 * seconds;
  let rounds = 0;
  await new Promise<void>((resolve, reject) => {
    let missing = 0;
    const next = () => {
      missing = lanes.length;
      for (const lane of lanes) lane.expect(message);
      lanes[0]!.send(message);
    };
    for (const lane of lanes) {
      lane.onClose = lost(reject);
      lane.onAnswer = () => {
        if (--missing > 0) return;
        rounds++;
        if (performance.now() >= end) resolve();
        else next();
      };
    }
    next();
  });
  const count = rounds * lanes.length;
  return { count, perSecond: 1000 * count / (performance.now() - start) };
}

async function accepts(port: number, atOnce: number, seconds: number): Promise<Numbers> {
  const message = messageOf(1);
  const start = performance.now();
  const end = start + 1000 * seconds;
  let count = 0;
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (; performance.now() < end; count++) {
      const lane = await Lane.open(port);
      await lane.trip(message);
      await new Promise<void>((resolve) => {
        lane.onClose = () => resolve();
        lane.socket.end();
      });
    }
  }));
  return { count, perSecond: 1000 * count / (performance.now() - start) };
}

async function datagrams(
  port: number,
  sockets: number,
  size: number,
  seconds: number,
): Promise<Numbers> {
  const message = messageOf(size);
  const start = performance.now();
  const end = start + 1000 * seconds;
  let [count, again] = [0, 0];
  await Promise.all(Array.from({ length: sockets }, async () => {
    let sent = 0;
    let send = () => {};
    const over = Promise.withResolvers<void>();
    const socket = await bun().udpSocket({
      connect: { hostname: HOST, port },
      socket: {
        data() {
          count++;
          if (performance.now() < end) send();
          else over.resolve();
        },
      },
    });
    send = () => {
      sent = performance.now();
      socket.send(message);
    };
    send();
    const watch = setInterval(() => {
      const now = performance.now();
      if (now >= end) over.resolve();
      else if (now - sent > LOST_MS) {
        again++;
        send();
      }
    }, LOST_MS);
    await over.promise;
    clearInterval(watch);
    socket.close();
  }));
  return { count, lost: again, perSecond: 1000 * count / (performance.now() - start) };
}
