/** What servers answer in tests, in this process and in those of their own. */
import { connPair } from "@trunkline/sockets/auto";
import {
  Client,
  type ClientOptions,
  RemoteError,
  type Server,
  type UdsError,
} from "@trunkline/sockets/uds";
import { pattern, sleep } from "./adapter_suite.ts";

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What has become of calls of `Never` and streams of `Ignore`. */
export interface ServiceState {
  begun: number;
  /** Those whose signal has fired. */
  ended: number;
}

/** A service with something of everything. */
export function register(server: Server): ServiceState {
  const state: ServiceState = { begun: 0, ended: 0 };
  const untilEnd = (signal: AbortSignal) => {
    state.begun++;
    return new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => {
        state.ended++;
        resolve();
      }, { once: true });
    });
  };
  server.register("Echo", ({ data }) => data);
  server.register("Length", ({ data }) => String(data.length));
  server.register("Make", ({ data }) => pattern(Number(text(data))));
  server.register("Näme ✓", () => "✓");
  server.register("Fail", () => {
    throw new Error("no luck");
  });
  server.register("Coded", () => {
    throw new RemoteError("mine", "no luck", {
      details: new Uint8Array([1, 2]),
      metadata: { näme: "välue ✓" },
    });
  });
  server.register("Meta", (_, context) => {
    context.replyMetadata = { ...context.metadata, also: "✓" };
  });
  server.register("Deadline", (_, { deadline }) => deadline === undefined ? "none" : "some");
  server.register("Peer", (_, { peer }) => JSON.stringify(peer ?? null));
  server.register("Never", (_, { signal }) => untilEnd(signal));
  server.register("Hang", () => new Promise<void>(() => {}));
  server.register("State", () => JSON.stringify(state));
  server.register("Stop", async () => {
    server.close({ graceMs: 200 });
    await sleep(50);
    return "stopped";
  });
  server.registerStream("Once", async ({ readable, writable }) => {
    const { value } = await readable.getReader().read();
    await writable.getWriter().write(value!);
  });
  server.registerStream("Count", async ({ writable }, { metadata }) => {
    const writer = writable.getWriter();
    for (let i = 0; i < Number(metadata["n"]); i++) await writer.write(pattern(i, i));
  });
  server.registerStream("Sum", async ({ readable, writable }) => {
    let sum = 0;
    for await (const message of readable) sum += message.length;
    await writable.getWriter().write(bytes(String(sum)));
  });
  server.registerStream("Both", async ({ readable, writable }) => {
    const writer = writable.getWriter();
    for await (const message of readable) await writer.write(message);
  });
  server.registerStream("Ignore", (_, { signal }) => untilEnd(signal));
  return state;
}

/** A client of `server`, in memory, and the end of both. */
export function connected(server: Server, options?: ClientOptions): {
  readonly server: Server;
  readonly client: Client;
  close(): Promise<void>;
} {
  const [ours, theirs] = connPair();
  server.serveConn(theirs);
  const client = new Client(ours, options);
  const close = async () => {
    await client.close();
    await server.close({ graceMs: 0 });
  };
  return { server, client, close };
}

/** What `promise` rejects with. */
export async function rejection<E extends Error = UdsError>(promise: Promise<unknown>): Promise<E> {
  const [result] = await Promise.allSettled([promise]);
  if (result.status === "fulfilled") throw new Error("expected a rejection");
  return result.reason;
}

/** Waits for what no event tells; the time limit of the test is its end. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!await condition()) await sleep(5);
}
