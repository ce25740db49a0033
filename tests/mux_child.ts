/**
 * A program of its own, which echoes every stream of one session: `mux_child.ts <psk> [options [address]]` listens and prints its
 * address as JSON, or is the client of such an address. Options are JSON, too, in which keys are arrays of numbers.
 */
import process from "node:process";
import { dial, listen, type Mux, type MuxOptions, type MuxStream } from "../mux/mod.ts";

async function echo(stream: MuxStream): Promise<void> {
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    await stream.write(chunk);
  }
  await stream.close();
}

async function acceptOne(options: MuxOptions): Promise<Mux> {
  const listener = await listen("127.0.0.1:0", options);
  console.log(JSON.stringify(listener.addr));
  const mux = await listener.accept();
  await listener.close();
  return mux;
}

const [psk, json = "{}", address] = process.argv.slice(2);
const given = JSON.parse(json, (_, it) => typeof it?.[0] === "number" ? Uint8Array.from(it) : it);
const options: MuxOptions = { ...given, psk };
const mux = await (address === undefined ? acceptOne(options) : dial(JSON.parse(address), options));
const echoing: Promise<void>[] = [];
for await (const stream of mux) echoing.push(echo(stream));
await Promise.all([...echoing, mux.closed]);
