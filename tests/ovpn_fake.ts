/** A daemon that a test speaks for, line by line. */
import { assertEquals } from "@std/assert";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import { type ClientOptions, ManagementClient } from "@trunkline/sockets/ovpn";

export const GREETING =
  ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info\r\n";

const decoder = new TextDecoder();

export class FakeDaemon {
  readonly conn: Conn;
  #heard = "";

  constructor(conn: Conn) {
    this.conn = conn;
  }

  async say(text: string): Promise<void> {
    await this.conn.write(new TextEncoder().encode(text));
  }

  /** The next line of the manager; undefined after its last. */
  async hear(): Promise<string | undefined> {
    for (;;) {
      const end = this.#heard.indexOf("\n");
      if (end >= 0) {
        const line = this.#heard.slice(0, end);
        this.#heard = this.#heard.slice(end + 1);
        return line;
      }
      const chunk = await this.conn.read();
      if (chunk === null) return undefined;
      this.#heard += decoder.decode(chunk);
    }
  }

  /** Hears exactly `line`, and answers. */
  async answer(line: string, reply: string): Promise<void> {
    assertEquals(await this.hear(), line);
    await this.say(reply);
  }

  /** True if the manager has sent something that nobody heard yet. */
  async pending(): Promise<boolean> {
    const soon = new AbortController();
    // Not AbortSignal.timeout: its timer does not keep Node running.
    const timer = setTimeout(() => soon.abort(), 50);
    const chunk = await this.conn.read({ signal: soon.signal }).catch(() => null);
    clearTimeout(timer);
    if (chunk !== null) this.#heard += decoder.decode(chunk);
    return this.#heard !== "";
  }
}

/** A client and the daemon that it talks to, which has not greeted yet. */
export function silentPair(options?: ClientOptions): [ManagementClient, FakeDaemon] {
  const [ours, theirs] = connPair();
  // Unlike OpenVPN this daemon does not hang up by itself when its manager leaves.
  const client = new ManagementClient(ours, { closeTimeoutMs: 50, ...options });
  return [client, new FakeDaemon(theirs)];
}

/** A client and a daemon that has greeted. */
export async function greetedPair(
  options?: ClientOptions,
): Promise<[ManagementClient, FakeDaemon]> {
  const [client, daemon] = silentPair(options);
  await daemon.say(GREETING);
  await client.ready;
  return [client, daemon];
}

/** What a promise rejects with; fails if it does not. */
export async function rejection<E extends Error = Error & { code?: string }>(
  promise: Promise<unknown>,
): Promise<E> {
  const [result] = await Promise.allSettled([promise]);
  if (result.status === "fulfilled") throw new Error("expected a rejection");
  return result.reason;
}
