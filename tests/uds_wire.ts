/** A client that a test plays message by message, over a connection in memory or a real one. */
import type { Conn } from "@trunkline/sockets/auto";
import { connPair } from "@trunkline/sockets/auto";
import {
  ClientMsg,
  type ClientMsgInit,
  type Server,
  type ServerMsg,
  ServerMsgDecoder,
} from "@trunkline/sockets/uds";
import { encodeCallHeader, MORE, STREAM, TYPE, uint } from "../uds/_extension.ts";
import { encodeClientHello } from "../uds/_hello.ts";
import { concat } from "@std/bytes";

export { MORE, STREAM, TYPE, uint };

const EMPTY = new Uint8Array();

/** The bytes of a call that Go's messages cannot say. */
export function encodeCall(
  { id, handler, data = EMPTY, flags = 0, timeoutMs = 0, window = 33 }: {
    readonly id: number;
    readonly handler: string;
    readonly data?: Uint8Array;
    readonly flags?: number;
    readonly timeoutMs?: number;
    readonly window?: number;
  },
): Uint8Array {
  const header = encodeCallHeader({ flags, timeoutMs, window, metadata: {} });
  return new ClientMsg({ id, type: TYPE.CALL, handler, data: concat([header, data]) }).encode();
}

/** The bytes of a piece. */
export function encodeChunk(id: number, data: Uint8Array, flags = 0): Uint8Array {
  return new ClientMsg({ id, type: TYPE.CHUNK, data: concat([uint(flags), data]) }).encode();
}

/** The bytes of the first call of a client of ours. */
export function encodeHello(id: number, token?: string): Uint8Array {
  return new ClientMsg({ id, handler: "uds.hello", data: encodeClientHello({ token }) }).encode();
}

/** Speaks to a server without minding any rule. */
export class WireClient {
  readonly conn: Conn;
  /** All that came. */
  readonly replies: ServerMsg[] = [];
  /** Resolves with the end of the connection, in whichever way. */
  readonly ended: Promise<void>;
  #over = false;
  #wake: (() => void)[] = [];

  /** `reading`: false for one that never takes what is sent to it. */
  constructor(conn: Conn, { reading = true }: { readonly reading?: boolean } = {}) {
    this.conn = conn;
    this.ended = reading ? this.#read() : conn.closed.catch(() => {});
  }

  /** One of `server`, in memory. */
  static of(server: Server, options?: { readonly reading?: boolean }): WireClient {
    const [ours, theirs] = connPair();
    server.serveConn(theirs);
    return new WireClient(ours, options);
  }

  async #read(): Promise<void> {
    const decoder = new ServerMsgDecoder({ extensions: true });
    try {
      for (let chunk = await this.conn.read(); chunk; chunk = await this.conn.read()) {
        for (const reply of decoder.push(chunk)) this.replies.push(reply);
        this.#changed();
      }
    } catch {
      // Reset by the server.
    }
    this.#over = true;
    this.#changed();
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  send(message: ClientMsgInit): Promise<void> {
    return this.sendRaw(new ClientMsg(message).encode());
  }

  /** A server that is gone does not take it, which is no business of the client. */
  async sendRaw(bytes: Uint8Array): Promise<void> {
    await this.conn.write(bytes).catch(() => {});
  }

  /** Waits for a message to `id`, of `type` if that is given; fails at the end of the connection. */
  async reply(id: number, type?: number): Promise<ServerMsg> {
    const wanted = (it: ServerMsg) => it.id === id && (type === undefined || it.type === type);
    for (;;) {
      const found = this.replies.find(wanted);
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`the server has hung up before an answer to ${id}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Greets the server, with the call `id`. */
  async greet(id = 1_000_000, token?: string): Promise<void> {
    await this.sendRaw(encodeHello(id, token));
    await this.reply(id);
  }

  close(): void {
    this.conn.abort();
  }
}
