// node examples/chat.ts (or bun, or deno run -A), and then, each in a terminal of its own,
// nc 127.0.0.1 7000, and nc -u 127.0.0.1 7000, and nc -U /tmp/chat.sock
import { ConnectionManager, type InetAddress, type SessionEvent } from "@trunkline/sockets/cmgr";
import process from "node:process";
import { parseArgs } from "node:util";

const options = {
  port: { type: "string", default: "7000" }, // of TCP and of UDP; "any" takes free ones
  path: { type: "string", default: "/tmp/chat.sock" },
} as const;
const { port, path } = parseArgs({ options }).values;

const room = new ConnectionManager({ framing: "lines", maxFrameBytes: 1000 });
await room.listen("tcp", port, "127.0.0.1");
const udp = await room.listen("udp", port, "127.0.0.1");
await room.listenUnix(path);
room.listStats();
for (const name of ["SIGINT", "SIGTERM"]) process.once(name, () => room.shutdown());

/** UDP knows no sessions: who has sent something is here until an empty line comes. */
const guests = new Map<string, InetAddress>();

for await (const event of room.events) {
  if (event.session.kind === "udp") hearGuest(event);
  else if (event.state === "new") enter(event);
  else if (event.state === "data") tellOthers(event, `says: ${textOf(event)}`);
  else if (event.state === "disconnected") tellOthers(event, "leaves");
}

function hearGuest(event: SessionEvent): void {
  if (event.state !== "data") return; // the socket's own end: the room is closed
  const { from } = event;
  if (textOf(event) === "") return guests.delete(from) ? tellOthers(event, "leaves") : undefined;
  if (!guests.has(from)) {
    if (guests.size === 100) return;
    guests.set(from, event.address as InetAddress);
    enter(event);
  }
  tellOthers(event, `says: ${textOf(event)}`);
}

function enter(event: SessionEvent): void {
  event.writeStr(`Welcome, ${nameOf(event)}\n`); // not awaited: nobody is to hold up the room
  tellOthers(event, "enters");
}

function tellOthers(event: SessionEvent, what: string): void {
  const line = new TextEncoder().encode(`${nameOf(event)} ${what}\n`);
  room.writeToAll(line, { filter: (session) => session !== event.session, slow: "skip" });
  for (const [from, to] of guests) if (from !== event.from) room.writeUdpAddr(udp, to, line);
}

function nameOf({ session, from }: SessionEvent): string {
  return session.kind === "udp" ? from : session.id;
}

function textOf({ data }: SessionEvent): string {
  return new TextDecoder().decode(data).replace(/\p{Cc}/gu, ""); // nothing that steers terminals
}
