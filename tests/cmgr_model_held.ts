/** Connections and UDP sockets of which nothing leaves before it is told to. */
import type { Conn, Datagram, InetAddress } from "../adapters/types.ts";
import { wrapConn } from "../adapters/wrap.ts";
import { sleep } from "./adapter_suite.ts";

/** Long enough for whatever does not wait for anything. */
export const turn = (): Promise<void> => sleep(5);
export async function until(met: () => boolean): Promise<void> {
  while (!met()) await sleep(1);
}

/** A connection whose peer takes what is written only when it is told to. */
export class Held {
  readonly conn: Conn;
  readonly got: Uint8Array[] = [];
  #taken: (() => void) | undefined;

  constructor() {
    const write = (chunk: Uint8Array) => {
      this.got.push(chunk);
      return new Promise<void>((resolve) => this.#taken = resolve);
    };
    this.conn = wrapConn({
      readable: new ReadableStream(),
      writable: new WritableStream({ write }),
    });
  }

  /** Takes what is under way: one write, or those that were waiting, joined. */
  async take(): Promise<void> {
    await until(() => this.#taken !== undefined);
    const taken = this.#taken!;
    this.#taken = undefined;
    taken();
    await turn();
  }
}

/** A UDP socket whose datagrams leave when they are told to. */
export class HeldDatagram implements Partial<Datagram> {
  readonly addr: InetAddress = { hostname: "127.0.0.1", port: 9 };
  readonly dropped = 0;
  /** Those that wait to leave. */
  readonly sent: PromiseWithResolvers<void>[] = [];
  readonly #closed = Promise.withResolvers<void>();

  send(): Promise<void> {
    const sent = Promise.withResolvers<void>();
    this.sent.push(sent);
    return sent.promise;
  }
  close(): Promise<void> {
    this.#closed.resolve();
    for (const { reject } of this.sent) reject(new Error("closed"));
    return Promise.resolve();
  }
  [Symbol.asyncIterator](): AsyncGenerator<never, void> {
    const next = () => this.#closed.promise.then(() => ({ done: true, value: undefined }));
    return { next } as unknown as AsyncGenerator<never, void>;
  }
}
