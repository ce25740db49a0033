/** A network in memory, for a manager that is watched closely: nothing of it waits for a kernel, and its pipes are as narrow as a test likes. */
import { Inbox } from "../adapters/_inbox.ts";
import { toAddress } from "../adapters/address.ts";
import {
  type Address,
  type CloseOptions,
  type Conn,
  ConnectError,
  type Listener,
  type ListenOptions,
  type Transport,
} from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";

/** What a connection in memory is like. */
export interface Pipe extends CloseOptions {
  /** Bytes that each direction holds before a write waits. */
  readonly capacity: number;
  /** The longest piece that arrives. */
  readonly piece: number;
}

/** Two connected ends; the addresses are those of the first. */
export function pipe(
  { capacity, piece, ...options }: Pipe,
  local?: Address,
  remote?: Address,
): [Conn, Conn] {
  const direction = () =>
    new TransformStream<Uint8Array, Uint8Array>(
      {
        transform(chunk, controller) {
          try {
            for (let at = 0; at < chunk.length; at += piece) {
              controller.enqueue(chunk.slice(at, at + piece));
            }
          } catch (cause) {
            // The reader has gone, which Bun tells a write in this way alone.
            throw new ConnectError("reset", "writing in memory: the peer has gone", { cause });
          }
        },
      },
      undefined,
      { highWaterMark: capacity, size: ({ byteLength }) => byteLength },
    );
  const [there, back] = [direction(), direction()];
  return [
    wrapConn({ readable: back.readable, writable: there.writable }, { ...options, local, remote }),
    wrapConn({ readable: there.readable, writable: back.writable }, {
      ...options,
      local: remote,
      // As of a unix socket: who was accepted there has no address.
      remote: local !== undefined && "path" in local ? undefined : local,
    }),
  ];
}

/** Its sockets have addresses of the form 127.0.0.1:n, and paths. */
export class MemoryNet implements Transport {
  readonly #pipe: Pipe;
  readonly #listeners = new Map<string, Inbox<Conn>>();
  #nextPort = 1;

  constructor(pipe: Pipe) {
    this.#pipe = pipe;
  }

  #address(): Address {
    return { hostname: "127.0.0.1", port: this.#nextPort++ };
  }

  listen(address: Address | string, options: ListenOptions = {}): Promise<Listener> {
    const asked = toAddress(address);
    const addr = "path" in asked ? asked : this.#address();
    const key = JSON.stringify(addr);
    const inbox = new Inbox<Conn>(options.maxPending ?? 512, `accepting at ${key}`);
    this.#listeners.set(key, inbox);
    const close = () => {
      this.#listeners.delete(key);
      const closed = new ConnectError("closed", `accepting at ${key}: closed`);
      for (const conn of inbox.end(closed)) conn.abort();
      return Promise.resolve();
    };
    return Promise.resolve({
      addr,
      get dropped() {
        return inbox.dropped;
      },
      closed: inbox.closed,
      accept: (options) => inbox.take(options),
      reloadTls: () => {},
      close,
      [Symbol.asyncIterator]: () => inbox.iterate(),
      [Symbol.asyncDispose]: close,
    });
  }

  async connect(address: Address | string): Promise<Conn> {
    const remote = toAddress(address);
    const inbox = this.#listeners.get(JSON.stringify(remote));
    // A connection takes its time, here too.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (inbox === undefined) throw new ConnectError("refused", "nobody listens there");
    const local = "path" in remote ? undefined : this.#address();
    const [near, far] = pipe(this.#pipe, local, remote);
    if (!inbox.push(far)) far.abort();
    return near;
  }

  bindDatagram(): Promise<never> {
    return Promise.reject(new ConnectError("unsupported", "no datagrams here"));
  }
}
