/** A program for tests with another process: `unixgram_child.ts <path>` serves there until its input ends, or says why it cannot. */
import process from "node:process";
import { ConnectError } from "../adapters/types.ts";
import { listenUnixgram } from "../adapters/unixgram.ts";
import { Server } from "@trunkline/sockets/uds";

try {
  const listener = await listenUnixgram(process.argv[2]!);
  const server = new Server(undefined);
  server.register("Echo", (request) => request.data);
  server.register("Length", ({ data }) => String(data.length));
  server.serve(listener);
  process.stdin.once("end", async () => {
    await server.close();
    process.exit();
  }).resume();
  console.log("ready");
} catch (error) {
  console.log(error instanceof ConnectError ? `${error.code}: ${error.message}` : String(error));
}
