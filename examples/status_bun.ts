// OPENVPN_SOCKET=/run/openvpn/server.sock bun examples/status_bun.ts, and open http://localhost:3000
import { dial } from "@trunkline/sockets/ovpn";
import process from "node:process";

export default {
  async fetch(): Promise<Response> {
    const client = await dial(process.env["OPENVPN_SOCKET"] ?? "/run/openvpn/server.sock");
    try {
      const lines = await client.latestStatus("3");
      return new Response(lines.filter((line) => line.startsWith("CLIENT_LIST")).join("\n"));
    } finally {
      await client.close();
    }
  },
};
