/**
 * A site for one browser, over our own sockets, so that it is the same on every runtime: as much of HTTP/1.1 as loads a page, and as
 * much of RFC 6455 as carries bytes.
 */
import { concat } from "@std/bytes";
import { createHash } from "node:crypto";
import { type Conn, type Duplex, listen } from "@trunkline/sockets/auto";

/** What a path of the site gives. */
export interface Page {
  readonly type: string;
  readonly body: string;
  /** More lines of the response's head. */
  readonly headers?: readonly string[];
}

export interface SiteOptions {
  readonly pages: Readonly<Record<string, Page>>;
  /** A POST has come. */
  onPost(body: string): void;
  /** A WebSocket was opened; the connection is closed when it resolves. */
  onWebSocket(path: string, duplex: Duplex): Promise<void>;
}

export interface Site {
  readonly port: number;
  /** The requests and failures so far, for messages. */
  readonly events: readonly string[];
  close(): Promise<void>;
}

/** From RFC 6455, section 1.3. */
const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CONTINUATION = 0;
const BINARY = 2;
const CLOSE = 8;
const MAX_HEAD_BYTES = 16_384;

/** Takes a connection's bytes in pieces of chosen sizes. */
class Input {
  readonly #conn: Conn;
  #rest = new Uint8Array(0);

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  async #more(): Promise<boolean> {
    const chunk = await this.#conn.read();
    if (chunk === null) return false;
    this.#rest = concat([this.#rest, chunk]);
    return true;
  }

  /** `count` bytes. */
  async take(count: number): Promise<Uint8Array> {
    while (this.#rest.length < count) {
      if (!await this.#more()) throw new Error("the browser hung up in the middle");
    }
    const taken = this.#rest.subarray(0, count);
    this.#rest = this.#rest.subarray(count);
    return taken;
  }

  /** The head of a request, or null where none comes: browsers connect ahead of their needs. */
  async head(): Promise<string | null> {
    for (;;) {
      const text = new TextDecoder("latin1").decode(this.#rest);
      const end = text.indexOf("\r\n\r\n");
      if (end >= 0) {
        await this.take(end + 4);
        return text.slice(0, end);
      }
      if (text.length > MAX_HEAD_BYTES) throw new Error("the head of a request is too long");
      if (!await this.#more()) return null;
    }
  }
}

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

function response(status: string, lines: readonly string[], body = ""): Uint8Array {
  const head = [`HTTP/1.1 ${status}`, ...lines].join("\r\n");
  return bytesOf(`${head}\r\n\r\n${body}`);
}

function plainResponse(status: string, { type, body, headers = [] }: Page): Uint8Array {
  const length = bytesOf(body).length;
  const lines = [`Content-Type: ${type}`, `Content-Length: ${length}`, "Connection: close"];
  return response(status, [...lines, ...headers], body);
}

/** The head of a frame from the server, not masked; the length in the fewest bytes, or browsers hang up (RFC 6455, section 5.2). */
function frameHead(opcode: number, length: number): Uint8Array {
  const head = new DataView(new ArrayBuffer(10));
  head.setUint8(0, 0x80 | opcode);
  if (length < 126) {
    head.setUint8(1, length);
    return new Uint8Array(head.buffer, 0, 2);
  }
  if (length < 65536) {
    head.setUint8(1, 126);
    head.setUint16(2, length);
    return new Uint8Array(head.buffer, 0, 4);
  }
  head.setUint8(1, 127);
  head.setBigUint64(2, BigInt(length));
  return new Uint8Array(head.buffer);
}

/** The next frame of the browser, unmasked. */
async function nextFrame(input: Input): Promise<{ opcode: number; payload: Uint8Array }> {
  const [first = 0, second = 0] = await input.take(2);
  if ((second & 0x80) === 0) throw new Error("a frame of the browser is not masked");
  let length = second & 0x7f;
  if (length >= 126) {
    const bytes = await input.take(length === 126 ? 2 : 8);
    length = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
  }
  const mask = await input.take(4);
  const payload = (await input.take(length)).map((byte, i) => byte ^ mask[i & 3]!);
  return { opcode: first & 0x0f, payload };
}

/** The payloads of all messages as one stream of bytes: where a message ends means nothing. */
function webSocket(conn: Conn, input: Input): Duplex {
  const readable = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { opcode, payload } = await nextFrame(input);
      if (opcode === CLOSE) controller.close();
      else if (opcode === BINARY || opcode === CONTINUATION) controller.enqueue(payload);
      else throw new Error(`a frame of the browser has the opcode ${opcode}`);
    },
    cancel: () => conn.abort(),
  }, { highWaterMark: 0 });
  const writable = new WritableStream<Uint8Array>({
    write: (bytes) => conn.write(concat([frameHead(BINARY, bytes.length), bytes])),
    close: () => conn.write(frameHead(CLOSE, 0)),
    abort: () => conn.abort(),
  });
  return { readable, writable };
}

async function serve(conn: Conn, events: string[], options: SiteOptions): Promise<void> {
  const input = new Input(conn);
  const head = await input.head();
  if (head === null) return;
  const header = (name: string) =>
    new RegExp(`^${name}: *(.*?) *$`, "im").exec(head.replaceAll("\r", ""))?.[1];
  const [method = "", path = ""] = head.split(" ");
  events.push(`${method} ${path}`);
  const key = header("Sec-WebSocket-Key");
  if (key !== undefined) {
    const accept = createHash("sha1").update(key + ACCEPT_SUFFIX).digest("base64");
    const lines = ["Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Accept: ${accept}`];
    await conn.write(response("101 Switching Protocols", lines));
    return await options.onWebSocket(path, webSocket(conn, input));
  }
  if (method === "POST") {
    const body = await input.take(Number(header("Content-Length")));
    await conn.write(plainResponse("200 OK", { type: "text/plain", body: "" }));
    return options.onPost(new TextDecoder().decode(body));
  }
  const page = options.pages[path];
  const missing = { type: "text/plain", body: "there is no such page" };
  await conn.write(
    page === undefined ? plainResponse("404 Not Found", missing) : plainResponse("200 OK", page),
  );
}

/** Serves on a free port of the loopback interface. */
export async function startSite(options: SiteOptions): Promise<Site> {
  const listener = await listen("127.0.0.1:0");
  const addr = listener.addr;
  if (!("port" in addr)) throw new Error("a TCP listener has no port");
  const open = new Set<Conn>();
  const events: string[] = [];
  async function handle(conn: Conn): Promise<void> {
    open.add(conn);
    try {
      await serve(conn, events, options);
      await conn.close();
    } catch (error) {
      // Chromium may hang up on what it has asked for in advance; what matters, the page misses.
      events.push(String(error));
      conn.abort();
    } finally {
      open.delete(conn);
    }
  }
  const serving = (async () => {
    for await (const conn of listener) handle(conn);
  })();
  return {
    port: addr.port,
    events,
    async close() {
      for (const conn of open) conn.abort();
      await listener.close();
      await serving;
    },
  };
}
