/** Listening: what every kind of stream has in common. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import type { Address, Conn, ListenOptions, Transport } from "../adapters/types.ts";
import {
  type Capabilities,
  type Kind,
  pattern,
  readExactly,
  rejectsWith,
  same,
  sleep,
} from "./adapter_suite.ts";

export function listenerSuite(
  name: string,
  transport: Transport,
  kind: Kind,
  can: Capabilities,
): void {
  const check = (title: string, body: () => Promise<void>) =>
    test(`${name} ${kind.name} listener: ${title}`, { timeout: 30_000 }, body);
  const listen = (options?: ListenOptions) =>
    transport.listen(kind.address(), { ...kind.listen, ...options });
  const connect = (to: Address) => transport.connect(to, kind.connect);

  check("an aborted accept() leaves the connection to the next", async () => {
    const listener = await listen();
    const controller = new AbortController();
    const accepting = listener.accept({ signal: controller.signal });
    controller.abort();
    await rejectsWith(accepting, "aborted");
    await rejectsWith(listener.accept({ signal: AbortSignal.timeout(10) }), "timeout");
    const client = await connect(listener.addr);
    const server = await listener.accept();
    await client.write(pattern(5));
    same(await readExactly(server, 5), pattern(5));
    client.abort();
    server.abort();
    await listener.close();
  });

  check(
    "close() ends accept() and iteration, frees the address, and leaves connections alone",
    async () => {
      const listener = await listen();
      const accepted: Conn[] = [];
      const iterating = (async () => {
        for await (const conn of listener) accepted.push(conn);
      })();
      const client = await connect(listener.addr);
      while (accepted.length === 0) await sleep(5);
      const waiting = listener.accept();
      await Promise.all([listener.close(), rejectsWith(waiting, "closed"), iterating]);
      await listener.close();
      await listener.closed;
      await rejectsWith(listener.accept(), "closed");

      const again = await transport.listen(listener.addr, kind.listen);
      await accepted[0]!.write(pattern(5));
      same(await readExactly(client, 5), pattern(5));
      client.abort();
      accepted[0]!.abort();
      await again.close();
      await rejectsWith(connect(listener.addr), "refused", "not-found", "reset");
    },
  );

  check("a second listener on the address is in-use", async () => {
    const listener = await listen();
    await rejectsWith(transport.listen(listener.addr, kind.listen), "in-use");
    const [client, server] = await Promise.all([connect(listener.addr), listener.accept()]);
    client.abort();
    server.abort();
    await listener.close();
  });

  check("more than maxPending waiting connections are dropped and counted", async () => {
    const listener = await listen({ maxPending: 2 });
    const clients = await Promise.all(
      [1, 2, 3].map(() => connect(listener.addr).catch(() => undefined)),
    );
    for (let i = 0; i < 100 && can.countsDropped && listener.dropped === 0; i++) await sleep(10);
    assertEquals(listener.dropped, can.countsDropped ? 1 : 0);
    const first = await listener.accept();
    first.abort();
    // The others waited for nobody: closing the listener closes them.
    await listener.close();
    for (const client of clients) client?.abort();
  });

  check("an aborted signal stops connect() and listen()", async () => {
    const listener = await listen();
    const signal = AbortSignal.abort();
    await rejectsWith(transport.connect(listener.addr, { ...kind.connect, signal }), "aborted");
    await rejectsWith(listen({ signal }), "aborted");
    const controller = new AbortController();
    const connecting = transport.connect(listener.addr, {
      ...kind.connect,
      signal: controller.signal,
    });
    controller.abort();
    await rejectsWith(connecting, "aborted");
    await listener.close();
  });
}
