/**
 * Our calls: as the Go package's messages, and as those of our extensions.
 *
 * @module
 */
import { type CallOptions, dialServer, Server } from "@trunkline/sockets/uds";
import type { Stack } from "./uds_stack.ts";

/** With `timeoutMs` the server is told the deadline, so the call goes by the extensions. */
export function ours(name: string, options?: CallOptions): Stack {
  return {
    name,
    peer: false,
    async serve(path) {
      const server = new Server(path);
      server.register("Echo", ({ data }) => data);
      await server.start();
    },
    async connect(path) {
      const client = await dialServer(path);
      return (data) => client.call("Echo", data, options);
    },
  };
}
