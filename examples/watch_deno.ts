// deno run --allow-net --allow-env=OPENVPN_PASSWORD examples/watch_deno.ts 127.0.0.1:7505
import { describeEvent, dial } from "@trunkline/sockets/ovpn";

const [address = "127.0.0.1:7505"] = Deno.args;
const client = await dial(address, { password: Deno.env.get("OPENVPN_PASSWORD") });
console.log(`OpenVPN is process ${await client.pid()}`);
await client.setStateEvents(true);
await client.setHold(false); // or it waits again at each restart
await client.holdRelease();
for await (const event of client.events) {
  if (event.type === "STATE") console.log(event.name, event.tunnelAddress);
  else console.log(event.type, describeEvent(event));
}
