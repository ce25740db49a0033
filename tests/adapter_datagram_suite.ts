/** UDP sockets. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { test } from "node:test";
import { networkInterfaces } from "node:os";
import { ConnectError, type Datagram, type Transport } from "../adapters/types.ts";
import { pattern, rejectsWith, same, sleep } from "./adapter_suite.ts";

export function datagramSuite(name: string, transport: Transport): void {
  const check = (title: string, body: () => Promise<void>) =>
    test(`${name} UDP: ${title}`, { timeout: 30_000 }, body);

  async function withPair(
    body: (a: Datagram, b: Datagram) => Promise<void>,
    host = "127.0.0.1",
  ): Promise<void> {
    const a = await transport.bindDatagram({ hostname: host, port: 0 });
    const b = await transport.bindDatagram({ hostname: host, port: 0 });
    try {
      await body(a, b);
    } finally {
      await Promise.all([a.close(), b.close()]);
    }
  }

  for (const host of ["127.0.0.1", "::1"]) {
    check(
      `datagrams over ${host} stay whole: empty, small, the largest`,
      () =>
        withPair(async (a, b) => {
          assertEquals(a.addr.hostname, host);
          assert(a.addr.port > 0);
          for (const size of [0, 1, 1400, 65507]) {
            await a.send(pattern(size), b.addr);
            const { data, from } = await b.receive();
            same(data, pattern(size));
            assertEquals(from, a.addr);
            assertEquals(data.constructor, Uint8Array);
          }
          await assertRejects(() => a.send(pattern(65508), b.addr), RangeError, "65507");
        }, host),
    );
  }

  check("a host name is resolved; bad targets are typed errors", () =>
    withPair(async (a, b) => {
      await a.send(pattern(3), { hostname: "localhost", port: b.addr.port });
      same((await b.receive()).data, pattern(3));
      await rejectsWith(a.send(pattern(3), { hostname: "none.invalid", port: 9 }), "not-found");
      await rejectsWith(a.send(pattern(3), { hostname: "127.0.0.1", port: 0 }), "invalid-address");
      await rejectsWith(a.send(pattern(3), { hostname: "a b", port: 1 }), "invalid-address");
      await a.send(pattern(5), `127.0.0.1:${b.addr.port}`);
      same((await b.receive()).data, pattern(5));
      for (const path of ["/tmp/x.sock", "unix:@name"]) {
        const error = await rejectsWith(a.send(pattern(3), path), "invalid-address");
        assert(error.message.includes(path), error.message);
        await rejectsWith(transport.bindDatagram(path), "invalid-address");
      }
      for (const data of ["text", new ArrayBuffer(3), undefined]) {
        await assertRejects(() => a.send(data as never, b.addr), TypeError, "no Uint8Array");
      }
    }));

  check(
    "datagrams leave in the order of the sends, though nobody waits for one",
    () =>
      withPair(async (a, b) => {
        const order = Array.from({ length: 60 }, (_, i) => i);
        const sent = order.map((i) => a.send(new Uint8Array([i]), b.addr));
        const came: number[] = [];
        while (came.length < order.length) came.push((await b.receive()).data[0]!);
        assertEquals(came, order);
        await Promise.all(sent);
      }),
  );

  check("a socket of both families answers either, and sends to names of either", async () => {
    const both = await transport.bindDatagram("[::]:0");
    for (const host of ["127.0.0.1", "::1"]) {
      const peer = await transport.bindDatagram({ hostname: host, port: 0 });
      await peer.send(pattern(7), { hostname: host, port: both.addr.port });
      const { from } = await both.receive();
      assertEquals(from, peer.addr);
      await both.send(pattern(8), from);
      same((await peer.receive()).data, pattern(8));
      await peer.close();
    }
    const four = await transport.bindDatagram("[::ffff:127.0.0.1]:0");
    assertEquals(four.addr.hostname, "127.0.0.1");
    await four.send(pattern(2), { hostname: "::ffff:127.0.0.1", port: both.addr.port });
    assertEquals((await both.receive()).from, four.addr);
    // Of whatever family this machine has for it.
    await both.send(pattern(9), { hostname: "localhost", port: both.addr.port });
    same((await both.receive()).data, pattern(9));
    await Promise.all([four.close(), both.close()]);
  });

  check(
    "what a socket's family cannot reach is unreachable",
    () =>
      withPair(async (a) => {
        await rejectsWith(a.send(pattern(1), "[::1]:9"), "unreachable");
        const six = await transport.bindDatagram("[::1]:0");
        await rejectsWith(six.send(pattern(1), "127.0.0.1:9"), "unreachable");
        await six.close();
      }),
  );

  check("multicast over the loopback interface: join, leave, and by which interface", async () => {
    const loopback = Object.entries(networkInterfaces())
      .find(([_, addresses]) => addresses!.some(({ address }) => address === "127.0.0.1"))![0];
    for (const reuseAddress of [false, true]) {
      const here = await transport.bindDatagram("0.0.0.0:0", { reuseAddress });
      const sender = await transport.bindDatagram("0.0.0.0:0");
      const send = async (group: string) => {
        await sender.send(pattern(5), { hostname: group, port: here.addr.port });
        // A datagram to ourselves, which always comes, comes after it.
        await sender.send(pattern(1), { hostname: "127.0.0.1", port: here.addr.port });
        const { data } = await here.receive();
        if (data.length === 5) await here.receive();
        return data.length === 5;
      };
      sender.setMulticastInterface(loopback);
      for (const iface of [loopback, "127.0.0.1"]) {
        assertEquals(await send("239.1.2.3"), false);
        here.joinMulticast("239.1.2.3", iface);
        here.joinMulticast("239.1.2.3", iface);
        assertEquals(await send("239.1.2.3"), true);
        here.leaveMulticast("239.1.2.3", iface);
        here.leaveMulticast("239.1.2.3", iface);
      }
      sender.setMulticastInterface("127.0.0.1");
      here.joinMulticast("239.1.2.4", loopback);
      assertEquals(await send("239.1.2.4"), true);
      await Promise.all([here.close(), sender.close()]);
    }
    const six = await transport.bindDatagram("[::]:0");
    // What is sent to a group by the loopback interface comes back only where it has a route to ff00::/8.
    six.joinMulticast("ff15::1", loopback);
    six.joinMulticast("FF02::1:5", "::1");
    six.joinMulticast(`ff02::1:6%${loopback}`);
    six.setMulticastInterface(loopback);
    for (const group of ["ff15::1", "FF02::1:5"]) six.leaveMulticast(group, loopback);
    await six.close();
  });

  check("multicast that cannot be is a typed error", async () => {
    const four = await transport.bindDatagram("127.0.0.1:0");
    const fails = (call: () => void, code: string, message: string) => {
      assertEquals(assertThrows(call, ConnectError, message).code, code);
    };
    for (const group of ["127.0.0.1", "240.0.0.1", "name", "239.1", "", undefined]) {
      fails(() => four.joinMulticast(group as string), "invalid-address", "not a multicast");
      fails(() => four.leaveMulticast(group as string), "invalid-address", "not a multicast");
    }
    fails(() => four.joinMulticast("ff15::1"), "invalid-address", "an IPv4 socket");
    for (const iface of ["none0", "192.0.2.77", "::1%none0", ""]) {
      fails(() => four.joinMulticast("239.1.2.3", iface), "invalid-address", "no interface");
      fails(() => four.setMulticastInterface(iface), "invalid-address", "no interface");
    }
    const six = await transport.bindDatagram("[::]:0");
    fails(() => six.joinMulticast("ff02::1%none0"), "invalid-address", "is none0");
    fails(() => six.joinMulticast("fe80::1"), "invalid-address", "not a multicast");
    await Promise.all([four.close(), six.close()]);
    fails(() => four.joinMulticast("239.1.2.3", "127.0.0.1"), "closed", "joining 239.1.2.3");
    fails(() => four.setMulticastInterface("127.0.0.1"), "closed", "sending multicast");
  });

  check("sends that close() overtakes settle", async () => {
    for (const hostname of ["127.0.0.1", "localhost"]) {
      // After each number of turns the send is somewhere else on its way.
      for (let turns = 0; turns < 8; turns++) {
        const a = await transport.bindDatagram("127.0.0.1:0");
        const sending = [1, 2, 3].map(() => a.send(pattern(3), { hostname, port: a.addr.port }));
        const settled = Promise.allSettled(sending);
        for (let i = 0; i < turns; i++) await null;
        await a.close();
        for (const send of await settled) {
          if (send.status === "rejected") assertEquals(send.reason.code, "closed");
        }
      }
    }
  });

  check("sending to a dead port disturbs nothing", () =>
    withPair(async (a, b) => {
      const gone = await transport.bindDatagram("127.0.0.1:0");
      await gone.close();
      for (let i = 0; i < 5; i++) await a.send(pattern(10), gone.addr);
      await sleep(50);
      await b.send(pattern(4), a.addr);
      same((await a.receive()).data, pattern(4));
    }));

  check("a maxPending that is none is a RangeError, here and of listeners", async () => {
    for (const maxPending of [0, -1, NaN]) {
      await assertRejects(() => transport.bindDatagram("127.0.0.1:0", { maxPending }), RangeError);
      await assertRejects(() => transport.listen("127.0.0.1:0", { maxPending }), RangeError);
    }
  });

  check("what nobody receives is bounded by maxPending and counted", async () => {
    const a = await transport.bindDatagram("127.0.0.1:0");
    const b = await transport.bindDatagram("127.0.0.1:0", { maxPending: 3 });
    for (let i = 0; i < 10; i++) {
      await a.send(pattern(1, i), b.addr);
      await sleep(2);
    }
    for (let i = 0; i < 200 && b.dropped < 7; i++) await sleep(10);
    assertEquals(b.dropped, 7);
    for (let i = 0; i < 3; i++) same((await b.receive()).data, pattern(1, i));
    await a.close();
    await b.close();
  });

  check("receive() can be aborted, and close() ends it and the iteration", async () => {
    const a = await transport.bindDatagram("127.0.0.1:0");
    await rejectsWith(a.receive({ signal: AbortSignal.abort() }), "aborted");
    await rejectsWith(a.receive({ signal: AbortSignal.timeout(10) }), "timeout");
    const waiting = a.receive();
    const iterating = (async () => {
      for await (const _ of a);
    })();
    await Promise.all([a.close(), rejectsWith(waiting, "closed"), iterating]);
    await a.close();
    await a.closed;
    await rejectsWith(a.send(pattern(1), { hostname: "127.0.0.1", port: 9 }), "closed");
  });

  check("a taken port is in-use, unless the address is shared", async () => {
    const a = await transport.bindDatagram("127.0.0.1:0");
    await rejectsWith(transport.bindDatagram(a.addr), "in-use");
    await a.close();
    const first = await transport.bindDatagram("127.0.0.1:0", { reuseAddress: true });
    const second = await transport.bindDatagram(first.addr, { reuseAddress: true });
    await Promise.all([first.close(), second.close()]);
    await rejectsWith(
      transport.bindDatagram("127.0.0.1:0", { signal: AbortSignal.abort() }),
      "aborted",
    );
    await rejectsWith(transport.bindDatagram("192.0.2.1:0"), "unreachable");
  });
}
