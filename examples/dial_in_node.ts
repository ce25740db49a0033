// node examples/dial_in_node.ts /run/vpn.sock, and then
// openvpn --config client.ovpn --management-hold --management /run/vpn.sock unix --management-client
import { describeEvent, listenAndServe } from "@trunkline/sockets/ovpn";
import process from "node:process";

const path = process.argv[2] ?? "/run/vpn.sock";
await listenAndServe(path, async (incoming) => {
  const client = incoming.open();
  const pid = await client.pid();
  await client.setStateEvents(true);
  await client.holdRelease();
  for await (const event of client.events) console.log(pid, describeEvent(event));
}, { onListen: () => console.log(`Listening on ${path}`) });
