/** What a client has of a server, whichever runtimes they run on. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type Client, RemoteError } from "@trunkline/sockets/uds";
import { pattern, same } from "./adapter_suite.ts";
import { bytes, rejection, type ServiceState, text, until } from "./uds_service.ts";

/** Around the pieces of 64 KiB, and of many windows. */
const SIZES = [0, 1, 65_535, 65_536, 65_537, 300_000, 5_000_000];

/** `open` gives a new client of one server, which serves `uds_service.ts` and which the last test stops. */
export function udsSuite(name: string, open: () => Promise<Client>): void {
  const check = (title: string, body: (client: Client) => Promise<void>) =>
    test(`uds to ${name}: ${title}`, { timeout: 30_000 }, async () => {
      const client = await open();
      try {
        await body(client);
      } finally {
        await client.close();
      }
    });
  const stateOf = async (client: Client): Promise<ServiceState> =>
    JSON.parse(text(await client.call("State")));

  check("calls, their names and their errors", async (client) => {
    for (const options of [{}, { timeoutMs: 20_000 }]) {
      assertEquals(text(await client.call("Echo", bytes("hello"), options)), "hello");
      assertEquals(text(await client.call("Näme ✓", undefined, options)), "✓");
      const unknown = await rejection<RemoteError>(client.call("Nobody ✓", undefined, options));
      assertEquals(unknown.message, 'no handler "Nobody ✓"');
      const failed = await rejection<RemoteError>(client.call("Fail", undefined, options));
      assert(failed instanceof RemoteError);
      assertEquals(failed.message, "handler(Fail) error: no luck");
      assertEquals([unknown.remoteCode, failed.remoteCode], ["unknown-handler", "handler"]);
    }
  });

  check("an error has its code, details and metadata", async (client) => {
    const error = await rejection<RemoteError>(client.call("Coded"));
    const { code, remoteCode, message, details, metadata } = error;
    assertEquals([code, remoteCode, message, [...details], { ...metadata }], [
      "remote",
      "mine",
      "no luck",
      [1, 2],
      { näme: "välue ✓" },
    ]);
    const raw = await client.callRaw("Coded");
    assertEquals([raw.type, text(raw.data)], [0, "no luck"]);
  });

  check("metadata goes both ways", async (client) => {
    let got: unknown;
    const onMetadata = (metadata: object) => got = { ...metadata };
    await client.call("Meta", undefined, { metadata: { näme: "välue" }, onMetadata });
    assertEquals(got, { näme: "välue", also: "✓" });
  });

  check("a call ends with its time and its signal, and its handler hears of it", async (client) => {
    const before = await stateOf(client);
    assertEquals(text(await client.call("Deadline")), "none");
    assertEquals(text(await client.call("Deadline", undefined, { timeoutMs: 20_000 })), "some");
    const late = await rejection<RemoteError>(client.call("Never", undefined, { timeoutMs: 30 }));
    assert(late.code === "timeout" || late.remoteCode === "deadline", late.message);
    const stop = new AbortController();
    const call = rejection(client.call("Never", undefined, { signal: stop.signal }));
    await until(async () => (await stateOf(client)).begun === before.begun + 2);
    const reason = new Error("enough");
    stop.abort(reason);
    const { code, cause } = await call;
    assertEquals([code, cause], ["aborted", reason]);
    await until(async () => (await stateOf(client)).ended === before.ended + 2);
    const gone = AbortSignal.abort();
    assertEquals(
      (await rejection(client.call("Echo", undefined, { signal: gone }))).code,
      "aborted",
    );
  });

  check("requests and answers of any size", async (client) => {
    for (const size of SIZES) {
      const data = pattern(size, size);
      // The first ones as plain calls, which a client makes before it has asked what the server knows.
      for (const options of [{}, { timeoutMs: 20_000 }]) {
        same(await client.call("Echo", data, options), data);
        same(await client.call("Make", bytes(String(size)), options), pattern(size));
        assertEquals(text(await client.call("Length", data, options)), String(size));
      }
    }
  });

  check("small calls do not wait for a large one", async (client) => {
    const order: string[] = [];
    const data = pattern(5_000_000);
    const large = client.call("Echo", data).then((it) => (order.push("large"), it));
    const small = Array.from({ length: 20 }, async (_, i) => {
      assertEquals(text(await client.call("Echo", bytes(String(i)))), String(i));
      order.push("small");
    });
    same(await large, data);
    await Promise.all(small);
    assertEquals(order.at(-1), "large");
  });

  check("1000 calls at once", async (client) => {
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => client.call("Echo", bytes(String(i)))),
    );
    assertEquals(answers.map((it) => Number(text(it))), Array.from({ length: 1000 }, (_, i) => i));
  });

  check("streams of four kinds", async (client) => {
    const once = await client.stream("Once");
    const asking = once.writable.getWriter();
    await asking.write(pattern(100_000));
    await asking.close();
    const [answer, ...rest] = await Array.fromAsync(once.readable);
    same(answer!, pattern(100_000));
    assertEquals(rest, []);

    const count = await client.stream("Count", { metadata: { n: "500" } });
    const counted = await Array.fromAsync(count.readable);
    assertEquals(counted.length, 500);
    counted.forEach((message, i) => same(message, pattern(i, i)));

    const sum = await client.stream("Sum");
    const adding = sum.writable.getWriter();
    for (let i = 0; i < 30; i++) await adding.write(new Uint8Array(100_000));
    await adding.close();
    assertEquals((await Array.fromAsync(sum.readable)).map(text), ["3000000"]);

    const both = await client.stream("Both");
    const writer = both.writable.getWriter();
    const reader = both.readable.getReader();
    for (const size of [0, 1, 65_536, 65_537, 2_000_000]) {
      const [{ value }] = await Promise.all([reader.read(), writer.write(pattern(size, size))]);
      same(value!, pattern(size, size));
    }
    await writer.close();
    assertEquals((await reader.read()).done, true);
  });

  check(
    "a server that closes answers what it has begun, or says that it does not",
    async (client) => {
      await client.call("Echo", undefined, { timeoutMs: 20_000 });
      const never = rejection<RemoteError>(client.call("Never"));
      const stream = await client.stream("Ignore");
      const read = rejection<RemoteError>(stream.readable.getReader().read());
      assertEquals(text(await client.call("Stop")), "stopped");
      assertEquals((await never).message, "the server is closing");
      assertEquals((await read).remoteCode, "closing");
      await client.closed;
      assertEquals((await rejection(client.call("Echo"))).code, "disconnected");
    },
  );
}
