/**
 * A program of its own, which may open few files: a manager that echoes, and tries to connect when it is told to. It prints what it has
 * seen whenever that has changed, as lines of JSON.
 */
import process from "node:process";
import { type ConnectError, ConnectionManager, type SessionEvent } from "@trunkline/sockets/cmgr";

/** What the program has seen. */
export interface Seen {
  readonly port: number;
  readonly accepted: number;
  readonly sessions: number;
  /** How often `onError` was told what: the codes of the error, of its cause, and of the system. */
  readonly errors: Readonly<Record<string, number>>;
}

/** The code of an error of a socket, and that of the system. */
const codes = ({ code, cause }: ConnectError) => `${code} ${(cause as { code?: string }).code}`;

// Deno sets up its signals when they are first used, and ends by a panic if it has no descriptor left for them then.
process.once("SIGTERM", () => process.exit());

const errors: Record<string, number> = {};
const manager = new ConnectionManager({
  onError(error) {
    const key = `${(error as { code?: string }).code} ${codes(error.cause as ConnectError)}`;
    errors[key] = (errors[key] ?? 0) + 1;
  },
});

async function connect(event: SessionEvent): Promise<void> {
  try {
    const session = await manager.connect(`127.0.0.1:${port}`, "try", () => {});
    await session.close();
    event.writeStr("connected");
  } catch (error) {
    event.writeStr(codes(error as ConnectError));
  }
}

await manager.listenTcp("any", (event) => {
  if (event.state !== "data") return;
  if (new TextDecoder().decode(event.data) === "connect") return connect(event);
  event.write(event.data);
});
const { port } = manager.address("l0") as { readonly port: number };

let last = "";
setInterval(() => {
  const [listener] = manager.stats().listeners;
  const { accepted, sessions } = listener!;
  const line = JSON.stringify({ port, accepted, sessions, errors } satisfies Seen);
  if (line !== last) console.log(line);
  last = line;
}, 20);
