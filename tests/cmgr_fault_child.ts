/**
 * A program of its own, which may open few files: a manager that echoes. It prints its port, and then what it has seen whenever that has
 * changed, as lines of JSON.
 */
import process from "node:process";
import { ConnectionManager } from "@trunkline/sockets/cmgr";

/** What the program has seen. */
export interface Seen {
  readonly port: number;
  readonly accepted: number;
  readonly sessions: number;
  /** What `onError` was told, by its code and the system's. */
  readonly errors: Readonly<Record<string, number>>;
}

// Deno sets up its signals when they are first used, and ends by a panic if it has no descriptor left for them then.
process.once("SIGTERM", () => process.exit());
const errors: Record<string, number> = {};
const manager = new ConnectionManager({
  onError(error) {
    const { code: why } = error.cause as { code?: string };
    const { code: system } = (error.cause as Error).cause as { code?: string } ?? {};
    const key = `${(error as { code?: string }).code} ${why} ${system}`;
    errors[key] = (errors[key] ?? 0) + 1;
  },
});
await manager.listenTcp("any", (event) => {
  if (event.state === "data") event.write(event.data);
});
const { port } = manager.address("l0") as { port: number };

let last = "";
setInterval(() => {
  const [listener] = manager.stats().listeners;
  const seen: Seen = {
    port,
    accepted: listener!.accepted,
    sessions: listener!.sessions,
    errors,
  };
  const line = JSON.stringify(seen);
  if (line !== last) console.log(line);
  last = line;
}, 20);
