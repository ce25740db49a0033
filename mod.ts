/**
 * Connections to the daemons of a machine and between them, on Deno, Bun and Node: OpenVPN's management interface (`ovpn`), all connections
 * of a daemon in one manager (`cmgr`), calls between processes (`uds`), and many encrypted streams over one connection (`mux`).
 *
 * @example A daemon that says nothing but its greeting
 * ```ts
 * import { ovpn } from "@trunkline/sockets";
 * import { connPair } from "@trunkline/sockets/auto";
 *
 * const [conn, daemon] = connPair(); // or ovpn.dial("127.0.0.1:7505")
 * const client = new ovpn.ManagementClient(conn);
 * await daemon.write(new TextEncoder().encode(">INFO:OpenVPN Management Interface Version 5\r\n"));
 * await daemon.close();
 * for await (const event of client.events) console.log(ovpn.describeEvent(event));
 * ```
 *
 * @module
 */
export * as cmgr from "./cmgr/mod.ts";
export * as mux from "./mux/mod.ts";
export * as ovpn from "./ovpn/mod.ts";
export * as uds from "./uds/mod.ts";
