/** Serves one session on the first listener that was handed over, says it all back, and ends with it. */
import { activatedListeners } from "@trunkline/sockets/auto";
import { ConnectionManager } from "@trunkline/sockets/cmgr";

const manager = new ConnectionManager();
const [first] = await activatedListeners();
const id = manager.serve(first!.listener);
console.log(JSON.stringify([id, manager.address(id)]));
for await (const event of manager.events) {
  if (event.state === "data") event.write(event.data);
  if (event.state === "disconnected") manager.shutdown();
}
