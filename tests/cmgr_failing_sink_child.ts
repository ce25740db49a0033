/** Prints what nobody has handled when sinks fail, and there is no `onError`. */
import { connPair } from "@trunkline/sockets/auto";
import { ConnectionManager, type SessionEvent } from "@trunkline/sockets/cmgr";
import { unhandledDuring } from "./unhandled.ts";

const atOnce = (event: SessionEvent) => {
  throw new Error(`at once: ${event.state}`);
};
const later = (event: SessionEvent) => Promise.reject(new Error(`later: ${event.state}`));
for (const sink of [atOnce, later]) {
  const reasons = await unhandledDuring(async () => {
    const manager = new ConnectionManager();
    const [conn, peer] = connPair();
    manager.adopt(conn, "x", sink);
    await peer.close();
    await manager.shutdown();
  });
  console.log(JSON.stringify(reasons.map((it) => (it as Error).message)));
}
