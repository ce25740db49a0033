/** A program of its own: `mux_child.ts <psk>` listens, prints its address as JSON, and echoes every stream of one session. */
import process from "node:process";
import { listen, type MuxStream } from "../mux/mod.ts";

async function echo(stream: MuxStream): Promise<void> {
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    await stream.write(chunk);
  }
  await stream.close();
}

const listener = await listen("127.0.0.1:0", { psk: process.argv[2]! });
console.log(JSON.stringify(listener.addr));
const mux = await listener.accept();
await listener.close();
const echoing: Promise<void>[] = [];
for await (const stream of mux) echoing.push(echo(stream));
await Promise.all([...echoing, mux.closed]);
