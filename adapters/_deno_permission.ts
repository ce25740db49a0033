/**
 * Whether Deno lets a program use the network. Without the permission node:net and node:dgram on Deno throw from a later turn, where
 * nobody can catch it, so it is asked first.
 *
 * @module
 */
import { connectError } from "./_errors.ts";
import { runtimeGlobal } from "./_node_builtins.ts";
import { formatAddress } from "./address.ts";
import type { InetAddress } from "./types.ts";

interface DenoPermissions {
  readonly permissions: { query(descriptor: unknown): Promise<{ readonly state: string }> };
}

/** Rejects with `permission` on a Deno that does not allow `address`. */
export async function requireNetPermission(address: InetAddress, doing: string): Promise<void> {
  const deno = runtimeGlobal<DenoPermissions>("Deno");
  if (deno === undefined) return;
  const host = formatAddress(address);
  const { state } = await deno.permissions.query({ name: "net", host });
  if (state !== "granted") throw connectError("permission", `${doing} (needs --allow-net=${host})`);
}
