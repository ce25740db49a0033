// OPENVPN_SOCKET=/run/openvpn/server.sock bun examples/status_bun.ts, and open http://localhost:3000
import { dial } from "@trunkline/sockets/ovpn";
import process from "node:process";

export default {
  async fetch(): Promise<Response> {
    try {
      const client = await dial(process.env["OPENVPN_SOCKET"] ?? "/run/openvpn/server.sock");
      const lines = await client.latestStatus("3").finally(() => client.close());
      return new Response(lines.filter((line) => line.startsWith("CLIENT_LIST")).join("\n"));
    } catch (error) {
      return new Response(`${error}\n`, { status: 502 });
    }
  },
};
