/** What a caller gives that the types do not let through. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { Client, Server } from "@trunkline/sockets/uds";
import { sleep } from "./adapter_suite.ts";
import { text } from "./uds_service.ts";

const check = (name: string, body: () => Promise<void>) => test(name, { timeout: 8000 }, body);

check("what is no data, or no name, is a mistake, and harms no other call", async () => {
  // deno-lint-ignore no-explicit-any
  const bad: [string, (client: any) => Promise<unknown>][] = [
    ["text", (client) => client.call("Length", "hello")],
    ["buffer", (client) => client.call("Length", new ArrayBuffer(5))],
    ["numbers", (client) => client.call("Length", [300, 2])],
    ["words", (client) => client.call("Length", new Uint16Array([300, 2]))],
    ["null", (client) => client.call("Length", null)],
    ["no name", (client) => client.call(undefined)],
    ["a number for a name", (client) => client.call(7)],
    ["raw text", (client) => client.callRaw("Length", "hello")],
    ["stream of no name", (client) => client.stream(undefined)],
    ["metadata null", (client) => client.call("Length", undefined, { metadata: null })],
    ["time", (client) => client.call("Length", undefined, { timeoutMs: NaN })],
    ["time of a stream", (client) => client.stream("Length", { timeoutMs: 0 })],
  ];
  const wrong: string[] = [];
  for (const [name, make] of bad) {
    const [ours, theirs] = connPair();
    const server = new Server(undefined);
    server.register("Length", ({ data }) => String(data.length));
    server.register("Text", () => "hello");
    server.serveConn(theirs);
    const client = new Client(ours);
    const within = (work: Promise<unknown>) =>
      Promise.race([
        work.then((it) => String(it), (error) => error.name),
        sleep(200).then(() => "HANGS"),
      ]);
    let result = "thrown, not rejected";
    try {
      result = await within(make(client));
    } catch {
      // As it says.
    }
    const after = await within(client.call("Text").then(text));
    if (!["TypeError", "RangeError"].includes(result) || after !== "hello") {
      wrong.push(`${name}: ${result}; the next call: ${after}`);
    }
    ours.abort();
    theirs.abort();
  }
  assertEquals(wrong, []);
});
