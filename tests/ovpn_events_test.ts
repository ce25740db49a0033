/** How events reach their consumers. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import {
  describeEvent,
  type ManagementClient,
  type ManagementEvent,
} from "@trunkline/sockets/ovpn";
import { type FakeDaemon, greetedPair, rejection } from "./ovpn_fake.ts";

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

/** An event as its text, a notice of drops as what it counts. */
function show(event: ManagementEvent | undefined): string {
  return event?.type === "dropped" ? describeEvent(event) : text(event);
}

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
  for await (const event of client.events) events.push(show(event).slice(0, 16));
  const logs = Array.from({ length: 8 }, (_, i) => `LOG:${i + 92},I,xxxxxxxx`.slice(0, 16));
  assertEquals(events, ["INFO:OpenVPN Man", "HOLD:Waiting:0", "dropped: 92 LOG", ...logs]);
});

/** Says `lines` and waits until the client has read them. */
async function tell(
  [client, daemon]: readonly [ManagementClient, FakeDaemon],
  ...lines: string[]
): Promise<void> {
  const pid = client.pid();
  await daemon.answer("pid", [...lines.map((line) => `>${line}`), "SUCCESS: pid=1", ""].join("\n"));
  await pid;
}

async function take(events: AsyncIterator<ManagementEvent>, count: number): Promise<string[]> {
  const texts = [];
  while (texts.length < count) texts.push(show((await events.next()).value));
  return texts;
}

test("a consumer reads of events that were dropped where they would have been", async () => {
  const pair = await greetedPair({ maxBufferedEvents: 3 });
  const [client] = pair;
  const events = client.subscribe();
  assertEquals((await events.next()).value?.type, "INFO");
  const state = "STATE:1,WAIT,,,,,,";
  await tell(pair, "LOG:1,I,a", "HOLD:a", "LOG:2,I,b", "HOLD:b", state, "HOLD:c", "BYTECOUNT:1,2");
  const notice = "dropped: 2 LOG, 1 STATE, 1 BYTECOUNT";
  assertEquals(await take(events, 2), [notice, "HOLD:a"]);
  // What was told is not told again.
  await tell(pair, "LOG:3,I,c", "LOG:4,I,d");
  assertEquals(await take(events, 4), ["HOLD:b", "HOLD:c", "dropped: 1 LOG", "LOG:4,I,d"]);
  // The bulk goes before what changes seldom, and the notice to where the first loss is.
  await tell(pair, state, "LOG:5,I,e", "ECHO:1,a", "HOLD:d", "HOLD:e");
  assertEquals(await take(events, 4), ["dropped: 1 LOG, 1 STATE", "ECHO:1,a", "HOLD:d", "HOLD:e"]);
  assertEquals(client.droppedEvents, 7);
  await client.close();
});

test("an iteration that would lose what it must not ends with overflow, others go on", async () => {
  const messages = [
    "CLIENT:ADDRESS,0,10.8.0.2,1",
    "CLIENT:ENV,END",
    "UPDOWN:ENV,END",
    "PASSWORD:Need 'Auth' username/password",
    "NEED-OK:Need 'a' confirmation MSG:b",
    "NEED-STR:Need 'a' string MSG:b",
    "NEED-CERTIFICATE:a",
    "HOLD:Waiting for hold release:0",
    "FATAL:end",
    "INFO:a",
    "PK_SIGN:AAAA",
    "REMOTE:a,1,udp4",
    "PROXY:1,TCP,a",
    "INFOMSG:a",
    "PKCS11ID-COUNT:1",
    "OTHER:a",
    "no colon",
  ];
  for (const message of messages) {
    const pair = await greetedPair({ maxBufferedEvents: 3 });
    const [client] = pair;
    const [slow, quick] = [client.subscribe(), client.subscribe()];
    await slow.next();
    const read = take(quick, 4);
    await tell(pair, message, "LOG:1,I,a", message, message);
    assertEquals(await read, [message, "LOG:1,I,a", message, message]);
    const last = quick.next();
    await tell(pair, message);
    assertEquals(text((await last).value), message);
    assertEquals(await take(slow, 4), [message, "dropped: 1 LOG", message, message]);
    for (let i = 0; i < 2; i++) assertEquals((await rejection(slow.next())).code, "overflow");
    const later = client.subscribe();
    await tell(pair, message);
    assertEquals(await take(later, 1), [message]);
    await client.close();
  }
});

test("what nobody reads at first overflows for the first iteration alone", async () => {
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 3 });
  for (let i = 0; i < 10; i++) await daemon.say(`>HOLD:${i}\r\n`);
  const pid = client.pid();
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await pid;
  assertEquals(client.droppedEvents, 8);
  const first = client.subscribe();
  const second = client.subscribe();
  assertEquals((await first.next()).value?.type, "INFO");
  assertEquals([(await first.next()).value, (await first.next()).value].map(text), [
    "HOLD:0",
    "HOLD:1",
  ]);
  assertEquals((await rejection(first.next())).code, "overflow");
  await daemon.say(">HOLD:last\r\n");
  assertEquals(text((await second.next()).value), "HOLD:last");
  await client.close();
});

test("a full buffer costs no more for each event than an empty one", async () => {
  // At the price of the whole buffer for each, this would take minutes.
  const [client, daemon] = await greetedPair({ maxBufferedEvents: 50_000, timeoutMs: 60_000 });
  const flood = [">ECHO:1,a\r\n", ">STATE:1,WAIT,,,,,,\r\n>LOG:1,I,x\r\n"].map((text) =>
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
  assertEquals([...types], ["INFO", "dropped", "STATE"]);
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
  for await (const event of slow) kept.push(show(event));
  assertEquals(kept.length, 11);
  assertEquals(kept.at(-1), "BYTECOUNT:999,0");
  // The greeting came first, and is no byte count.
  assert(kept[0]?.startsWith("INFO:"));
  assertEquals(kept[1], "dropped: 991 BYTECOUNT");
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
