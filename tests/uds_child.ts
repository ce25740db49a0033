/**
 * A program of its own: `uds_child.ts serve <path>` serves until it is told to stop, `uds_child.ts call <path>` leaves calls open that are never
 * answered, and `uds_child.ts probe <path>` makes one. Each prints a line when it is ready, the last one what came of it as JSON.
 */
import process from "node:process";
import { dialServer, type RemoteError, Server } from "@trunkline/sockets/uds";
import { register } from "./uds_service.ts";

async function serve(path: string): Promise<string> {
  const server = new Server(path);
  register(server);
  await server.start();
  return "ready";
}

async function call(path: string): Promise<string> {
  const client = await dialServer(path);
  client.call("Never");
  client.call("Never", undefined, { timeoutMs: 60_000 });
  const { writable } = await client.stream("Ignore");
  writable.getWriter().write(new Uint8Array(1_000_000));
  await client.call("Echo");
  return "ready";
}

async function probe(path: string): Promise<string> {
  try {
    const client = await dialServer(path);
    const answer = await client.call("Peer");
    await client.close();
    return new TextDecoder().decode(answer);
  } catch (error) {
    const { remoteCode, code } = error as Partial<RemoteError>;
    return JSON.stringify(remoteCode ?? code);
  }
}

const [, , action = "", path = ""] = process.argv;
console.log(await { serve, call, probe }[action]!(path));
