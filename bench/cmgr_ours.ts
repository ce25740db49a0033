/**
 * Our connection manager, as one would use it.
 *
 * @module
 */
import { type Conn, listen } from "@trunkline/sockets/auto";
import { ConnectionManager, type SessionEvent, type Sink } from "@trunkline/sockets/cmgr";
import { type Service, type Stack, TO_ALL } from "./cmgr_stack.ts";

const HOST = "127.0.0.1";

/** The connections alone, without a manager: what is left is its share. */
export const conns: Stack = {
  name: "our Conn alone",
  services: ["echo"],
  async serve() {
    const listener = await listen({ hostname: HOST, port: 0 });
    const echo = async (conn: Conn) => {
      for (let chunk; (chunk = await conn.read()) !== null;) conn.write(chunk);
      await conn.close();
    };
    (async () => {
      for await (const conn of listener) echo(conn).catch(() => {});
    })();
    return (listener.addr as { port: number }).port;
  },
};

/** All events in one loop. */
export const oursByLoop: Stack = {
  name: "ours, for await",
  services: ["echo", "broadcast", "datagrams"],
  async serve(service) {
    const manager = newManager();
    const port = await listenFor(manager, service);
    (async () => {
      const answer = answerOf(manager, service);
      for await (const event of manager.events) answer(event);
    })();
    return port;
  },
};

/** Each event by a call. */
export const oursByCallback: Stack = {
  name: "ours, callback",
  services: ["echo", "broadcast", "datagrams"],
  serve(service) {
    const manager = newManager();
    return listenFor(manager, service, answerOf(manager, service));
  },
};

// The others refuse nobody.
const newManager = (): ConnectionManager => new ConnectionManager({ acceptRate: Infinity });

function answerOf(manager: ConnectionManager, service: Service): (event: SessionEvent) => void {
  return (event) => {
    if (event.state !== "data") return;
    if (service === "broadcast" && event.data[0] === TO_ALL) manager.writeToAll(event.data);
    else event.write(event.data);
  };
}

async function listenFor(
  manager: ConnectionManager,
  service: Service,
  sink?: Sink,
): Promise<number> {
  const id = await manager.listen(service === "datagrams" ? "udp" : "tcp", "any", HOST, sink);
  return (manager.address(id) as { port: number }).port;
}
