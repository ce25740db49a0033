// node examples/dial_in_node.ts /run/vpn.sock, and then
// openvpn --config client.ovpn --management-hold --management /run/vpn.sock unix --management-client
import { describeEvent, listenAndServe } from "@trunkline/sockets/ovpn";
import process from "node:process";

const path = process.argv[2] ?? "/run/vpn.sock";
const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"]) process.once(name, () => stop.abort());
await listenAndServe(path, async (incoming) => {
  const client = incoming.open();
  const pid = await client.pid();
  await client.setStateEvents(true);
  await client.setHold(false); // or it waits again at each restart
  await client.holdRelease();
  for await (const event of client.events) console.log(pid, describeEvent(event));
}, { signal: stop.signal, onListen: () => console.log(`Listening on ${path}`) }).catch((error) => {
  if (!stop.signal.aborted) throw error;
});
process.exit(); // the socket file is gone; sessions that are open end with us
