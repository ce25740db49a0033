/** How events reach their consumers. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { describeEvent, type ManagementEvent } from "@trunkline/sockets/ovpn";
import { greetedPair, rejection } from "./ovpn_fake.ts";

function text(event: ManagementEvent | undefined): string {
  return new TextDecoder().decode(event?.raw);
}

test("the first consumer gets what came before it, HOLD above all", async () => {
  const [client, daemon] = await greetedPair();
  await daemon.say(">HOLD:Waiting for hold release:0\r\n");
  const pid = client.pid();
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await pid;
  const types = [];
  for await (const { type } of client.events) {
    types.push(type);
    if (types.length === 2) break;
  }
  assertEquals(types, ["INFO", "HOLD"]);
  await client.close();
});

test("every consumer gets every event from when it began", async () => {
  const [client, daemon] = await greetedPair();
  const [one, two] = [client.subscribe(), client.subscribe()];
  await daemon.say(">HOLD:a:0\r\n");
  const waiting = [two.next(), two.next()];
  await daemon.say(">HOLD:b:0\r\n");
  await daemon.conn.close();
  await client.closed;
  const late = client.subscribe();
  const all = async (it: AsyncIterableIterator<ManagementEvent>) => {
    const texts = [];
    for await (const event of it) texts.push(text(event).slice(0, 6));
    return texts;
  };
  assertEquals(await all(one), ["INFO:O", "HOLD:a", "HOLD:b"]);
  const told = (await Promise.all(waiting)).map(({ value }) => text(value));
  assertEquals([...told, ...await all(two)], ["HOLD:a:0", "HOLD:b:0"]);
  assertEquals(await all(late), []);
});

test("a consumer that leaves gets nothing more, and the others go on", async () => {
  const [client, daemon] = await greetedPair();
  const [one, two] = [client.subscribe(), client.subscribe()];
  const pending = one.next().then(() => one.next());
  await one.return?.();
  assertEquals((await pending).done, true);
  await daemon.say(">HOLD:a:0\r\n");
  assertEquals(text((await two.next()).value), "HOLD:a:0");
  assertEquals((await one.next()).done, true);
  await client.close();
});

test("a signal ends a subscription", async () => {
  const [client, daemon] = await greetedPair();
  const controller = new AbortController();
  const events = client.subscribe({ signal: controller.signal });
  assertEquals((await events.next()).value?.type, "INFO");
  const waiting = rejection(events.next());
  controller.abort();
  assertEquals((await waiting).code, "aborted");
  assertEquals((await rejection(events.next())).code, "aborted");
  // One that never began leaves what came before to the next.
  const never = client.subscribe({ signal: controller.signal });
  assertEquals((await rejection(never.next())).code, "aborted");
  await daemon.say(">HOLD:a:0\r\n");
  assertEquals(client.droppedEvents, 0);
  await client.close();
});

test("events that nobody reads are bounded and never starve replies", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 10 });
  await daemon.say(">HOLD:Waiting:0\r\n");
  for (let i = 0; i < 100; i++) await daemon.say(`>LOG:${i},I,${"x".repeat(5000)}\r\n`);
  const pid = client.pid();
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  assertEquals(await pid, 1);
  assertEquals(client.droppedEvents, 92);
  await daemon.conn.close();
  await client.closed;
  const events = [];
  for await (const event of client.events) events.push(text(event).slice(0, 7));
  const logs = Array.from({ length: 8 }, (_, i) => `LOG:${i + 92},`);
  assertEquals(events, ["INFO:Op", "HOLD:Wa", ...logs]);
});

test("the last HOLD is kept whatever comes behind it", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 3 });
  const events = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => `>CLIENT:ENV,a=${from + i}\r\n`).join("");
  await daemon.say(">HOLD:old\r\n" + events(0, 5) + ">HOLD:new\r\n" + events(5, 500));
  await daemon.conn.close();
  const heard = (await Array.fromAsync(client.events)).map(describeEvent);
  assertEquals(heard, ["new", "CLIENT: ENV,a=498", "CLIENT: ENV,a=499"]);
  assertEquals(client.droppedEvents, 500);
});

test("a full buffer costs no more for each event than an empty one", async () => {
  // At the price of the whole buffer for each, this would take minutes.
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 50_000, timeoutMs: 60_000 });
  const flood = [">CLIENT:ENV,a=b\r\n", ">STATE:1,WAIT,,,,,,\r\n>LOG:1,I,x\r\n"].map((text) =>
    text.repeat(100_000)
  );
  for (const text of flood) {
    const pid = client.pid();
    await daemon.answer("pid", "");
    await daemon.say(text + "SUCCESS: pid=3\r\n");
    assertEquals(await pid, 3);
  }
  assertEquals(client.droppedEvents, 250_001);
  await daemon.conn.close();
  const types = new Set((await Array.fromAsync(client.events)).map(({ type }) => type));
  assertEquals([...types], ["STATE", "LOG"]);
});

test("without anything to spare, the oldest event goes", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 3 });
  for (let i = 0; i < 5; i++) await daemon.say(`>STATE:${i},WAIT,,,,,,\r\n`);
  await daemon.conn.close();
  await client.closed;
  const events = [];
  for await (const event of client.events) events.push(text(event).slice(0, 7));
  assertEquals(events, ["STATE:2", "STATE:3", "STATE:4"]);
  assertEquals(client.droppedEvents, 3);
});

test("a slow consumer loses events, a fast one does not", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 10 });
  const slow = client.subscribe();
  const seen: string[] = [];
  const fast = (async () => {
    for await (const event of client.events) seen.push(text(event));
  })();
  for (let i = 0; i < 1000; i++) {
    await daemon.say(`>BYTECOUNT:${i},0\r\n`);
    while (seen.length <= i) await new Promise((resolve) => setTimeout(resolve));
  }
  await daemon.conn.close();
  await fast;
  assertEquals(seen.length, 1000);
  const kept = [];
  for await (const event of slow) kept.push(text(event));
  assertEquals(kept.length, 10);
  assertEquals(kept.at(-1), "BYTECOUNT:999,0");
  // The greeting came first, and is no byte count.
  assert(kept[0]?.startsWith("INFO:"));
  assertEquals(client.droppedEvents, 991);
});

test("a consumer may take its time between many events", async () => {
  const [client, daemon] = await greetedPair();
  const events = client.subscribe();
  await daemon.say(Array.from({ length: 4000 }, (_, i) => `>BYTECOUNT:${i},0\r\n`).join(""));
  await events.next();
  for (let i = 0; i < 4000; i++) {
    assertEquals(text((await events.next()).value), `BYTECOUNT:${i},0`);
  }
  assertEquals(client.droppedEvents, 0);
  await client.close();
});
