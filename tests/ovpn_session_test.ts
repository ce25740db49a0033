/** Login, order, waiting and the end of a session. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { connPair, type Transport } from "@trunkline/sockets/auto";
import { describeEvent, dial, ManagementClient, ManagementError } from "@trunkline/sockets/ovpn";
import { FakeDaemon, greetedPair, GREETING, rejection, silentPair } from "./ovpn_fake.ts";
import { unhandledDuring } from "./unhandled.ts";

const PROMPT = "ENTER PASSWORD:";
const ACCEPTED = "SUCCESS: password is correct\r\n";

test("a password is sent at the prompt, and commands after the greeting", async () => {
  const [client, daemon] = silentPair({ password: "pässword with spaces" });
  const pid = client.pid();
  assert(
    !await daemon.pending(),
    "nothing before the prompt: OpenVPN would take it for a password",
  );
  await daemon.say(PROMPT);
  await daemon.answer("pässword with spaces", ACCEPTED);
  assert(!await daemon.pending(), "nothing before the greeting");
  await daemon.say(GREETING);
  await client.ready;
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  assertEquals(await pid, 1);
  assertEquals(client.strayReplies, 0);
  await client.close();
});

test("a password that is text is tried once", async () => {
  const [client, daemon] = silentPair({ password: "wrong" });
  await daemon.say(PROMPT);
  await daemon.answer("wrong", PROMPT);
  const error = await rejection(client.ready);
  assert(error instanceof ManagementError);
  assertEquals(error.code, "wrong-password");
  assertStrictEquals(await rejection(client.pid()), error);
  assertStrictEquals(await rejection(client.closed), error);
});

test("a password function is asked three times, and may give up", async () => {
  const attempts: number[] = [];
  const source = (attempt: number) => {
    attempts.push(attempt);
    return Promise.resolve(`try ${attempt}`);
  };
  const [client, daemon] = silentPair({ password: source });
  await daemon.say(PROMPT);
  await daemon.answer("try 1", PROMPT);
  await daemon.answer("try 2", PROMPT);
  assertEquals(await daemon.hear(), "try 3");
  await daemon.conn.close();
  assertEquals((await rejection(client.ready)).code, "wrong-password");
  assertEquals(attempts, [1, 2, 3]);

  const [other, stubborn] = silentPair({ password: (attempt) => attempt < 2 ? "x" : undefined });
  await stubborn.say(PROMPT);
  await stubborn.answer("x", PROMPT);
  assertEquals((await rejection(other.ready)).code, "wrong-password");
});

test("a peer that prompts for ever is left", async () => {
  const [client, daemon] = silentPair({ password: () => "x" });
  const flood = daemon.say(PROMPT.repeat(1000)).catch(() => {});
  assertEquals((await rejection(client.ready)).code, "wrong-password");
  await flood;
});

test("a daemon that goes while the password is looked up is no wrong password", async () => {
  let calls = 0;
  const [client, daemon] = silentPair({
    password: () => {
      calls++;
      return new Promise(() => {});
    },
  });
  await daemon.say(PROMPT + PROMPT);
  await daemon.conn.close();
  assertEquals((await rejection(client.ready)).code, "disconnected");
  assertEquals(calls, 1);
});

test("what comes before INFO is no greeting", async () => {
  const [client, daemon] = silentPair({ greetingTimeoutMs: 100 });
  await daemon.say(">LOG:1,I,x\r\n>STATE:1,CONNECTED\r\n");
  assertEquals((await rejection(client.ready)).code, "no-greeting");
  assertEquals(client.managementVersion, undefined);
});

test("a write side that breaks alone ends the session", async () => {
  const readable = new ReadableStream<Uint8Array>({
    start: (out) => out.enqueue(new TextEncoder().encode(GREETING)),
  });
  const writable = new WritableStream<Uint8Array>({ write: () => Promise.reject(new Error("no")) });
  const client = new ManagementClient({ readable, writable }, { timeoutMs: 20_000 });
  await client.ready;
  const silent = rejection(client.command("test 0"));
  assertEquals((await rejection(client.pid())).code, "connection");
  assertEquals((await silent).code, "connection");
  assertEquals((await rejection(client.closed)).code, "connection");
});

test("an event that is cut off by the end is dropped, but not a FATAL", async () => {
  const [client, daemon] = await greetedPair();
  const events = Array.fromAsync(client.events);
  await daemon.say(">FATAL:out of memory");
  await daemon.conn.close();
  await client.closed;
  assertEquals((await events).map(describeEvent).at(-1), "FATAL: out of memory");
  const [other, cut] = await greetedPair();
  await cut.say(">BYTECOUNT:12,34");
  await cut.conn.close();
  assertEquals((await Array.fromAsync(other.events)).map(({ type }) => type), ["INFO"]);
});

test("dial() that is aborted around the greeting gives a live client or none", async () => {
  const codes = new Set<string>();
  for (let hops = 0; hops < 25; hops++) {
    const stop = new AbortController();
    const { transport, daemon } = inMemory();
    const dialing = dial("127.0.0.1:1", { transport, signal: stop.signal, closeTimeoutMs: 20 });
    const fake = await daemon;
    const said = fake.say(GREETING).catch(() => {});
    for (let hop = 0; hop < hops; hop++) await undefined;
    stop.abort();
    await said;
    const [dialed] = await Promise.allSettled([dialing]);
    codes.add(dialed.status === "rejected" ? dialed.reason.code : "alive");
    if (dialed.status === "rejected") {
      assertEquals(await fake.conn.read().catch(() => null), null);
      continue;
    }
    const pid = dialed.value.pid();
    await fake.answer("pid", "SUCCESS: pid=1\r\n");
    assertEquals(await pid, 1);
    await dialed.value.close();
  }
  assert(codes.has("aborted") && codes.size <= 2, [...codes].join());
});

test("no password, a function that throws, and one that gives nonsense are password-required", async () => {
  const sources = [undefined, () => undefined, () => {
    throw new Error("no terminal");
  }, () => "two\nlines"];
  for (const password of sources) {
    const [client, daemon] = silentPair({ password });
    const prompted = daemon.say(PROMPT).catch(() => {});
    const error = await rejection(client.ready);
    assertEquals(error.code, "password-required");
    assert(!error.message.includes("lines"));
    await prompted;
  }
});

test("the greeting's time limit does not run while a password function is asked", async () => {
  let give: (password: string) => void = () => {};
  const password = () => new Promise<string>((resolve) => give = resolve);
  const [client, daemon] = silentPair({ password, greetingTimeoutMs: 40 });
  await daemon.say(PROMPT);
  await new Promise((resolve) => setTimeout(resolve, 80));
  give("late");
  await daemon.answer("late", ACCEPTED + GREETING);
  await client.ready;
  await client.close();
});

test("no greeting in time is no-greeting, told to all that wait", async () => {
  const [client, daemon] = silentPair({ greetingTimeoutMs: 20 });
  const pid = rejection(client.pid());
  const error = await rejection(client.ready);
  assert(error instanceof ManagementError && error.code === "no-greeting");
  assertStrictEquals(await pid, error);
  assertEquals(await daemon.conn.read().catch(() => null), null);
});

test("a peer that speaks another protocol is told at once", async () => {
  const [client, daemon] = silentPair();
  const said = daemon.say("SSH-2.0-OpenSSH_9.2\r\n").catch(() => {});
  assertEquals((await rejection(client.ready)).code, "protocol");
  await said;
});

test("a peer that hangs up before its greeting is disconnected", async () => {
  const [client, daemon] = silentPair();
  await daemon.conn.close();
  assertEquals((await rejection(client.ready)).code, "disconnected");
  assertEquals((await rejection(client.closed)).code, "disconnected");
});

test("commands are sent one by one in the order of their calls", async () => {
  const [client, daemon] = await greetedPair();
  const order: number[] = [];
  const calls = Array.from(
    { length: 50 },
    (_, i) => client.command(`verb ${i}`).then(() => order.push(i)),
  );
  for (let i = 0; i < 50; i++) {
    assertEquals(await daemon.hear(), `verb ${i}`);
    if (i % 10 === 0) assert(!await daemon.pending());
    await daemon.say("SUCCESS: verb level changed\r\n");
  }
  await Promise.all(calls);
  assertEquals(order, Array.from({ length: 50 }, (_, i) => i));
  await client.close();
});

test("a reply may come byte by byte", async () => {
  const [client, daemon] = await greetedPair();
  const status = client.latestStatus("3");
  await daemon.hear();
  for (const byte of ">LOG:1,I,ž\r\nTITLE\tž\r\nEND\r\n") await daemon.say(byte);
  assertEquals(await status, ["TITLE\tž"]);
  await client.close();
});

test("a command without a reply in time ends the session", async () => {
  const [client, daemon] = await greetedPair();
  const slow = rejection(client.command("verb", { timeoutMs: 20 }));
  const next = rejection(client.pid());
  await daemon.hear();
  const error = await slow;
  assert(error instanceof ManagementError && error.code === "timeout");
  for (const other of [next, rejection(client.closed), rejection(client.holdRelease())]) {
    assertStrictEquals(await other, error);
  }
  assertEquals(await daemon.hear().catch(() => undefined), undefined);
});

test("the time in the queue does not count", async () => {
  const [client, daemon] = await greetedPair();
  const first = client.command("verb");
  const second = client.command("mute", { timeoutMs: 100 });
  await daemon.hear();
  await new Promise((resolve) => setTimeout(resolve, 150));
  await daemon.say("SUCCESS: verb=3\r\n");
  await daemon.answer("mute", "SUCCESS: mute=0\r\n");
  assertEquals([(await first).success, (await second).success], ["verb=3", "mute=0"]);
  await client.close();
});

test("an aborted command in the queue is never sent", async () => {
  const [client, daemon] = await greetedPair();
  const controller = new AbortController();
  const first = client.pid();
  const second = rejection(client.sendSignal("SIGTERM", { signal: controller.signal }));
  controller.abort(new Error("changed our mind"));
  const error = await second;
  assert(error instanceof ManagementError && error.code === "aborted");
  assertEquals((error.cause as Error).message, "changed our mind");
  assertEquals((await rejection(client.pid({ signal: controller.signal }))).code, "aborted");
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  await first;
  assert(!await daemon.pending());
  await client.close();
});

test("the reply to an aborted command is not taken for the next one's", async () => {
  const [client, daemon] = await greetedPair();
  const controller = new AbortController();
  const status = rejection(client.latestStatus("3", { signal: controller.signal }));
  assertEquals(await daemon.hear(), "status 3");
  controller.abort();
  assertEquals((await status).code, "aborted");
  const pid = client.pid();
  assert(!await daemon.pending());
  await daemon.say("TITLE\r\nEND\r\n");
  await daemon.answer("pid", "SUCCESS: pid=1\r\n");
  assertEquals(await pid, 1);
  assertEquals(client.strayReplies, 0);
  await client.close();
});

test("a connection that ends in mid-command rejects it, and half a reply is none", async () => {
  for (const half of ["", "SUCCESS: pid=12"]) {
    const [client, daemon] = await greetedPair();
    const pid = rejection(client.pid());
    const queued = rejection(client.holdRelease());
    await daemon.hear();
    await daemon.say(half);
    await daemon.conn.close();
    const error = await pid;
    assertEquals(error.code, "disconnected");
    assertStrictEquals(await queued, error);
    assertStrictEquals(await rejection(client.closed), error);
    const types = [];
    for await (const event of client.events) types.push(event.type);
    assertEquals(types, ["INFO", "FATAL"]);
  }
});

test("a connection that fails is a last FATAL event, then the end", async () => {
  const [client, daemon] = await greetedPair();
  daemon.conn.abort();
  const error = await rejection(client.closed);
  assertEquals(error.code, "connection");
  assertEquals((error.cause as { code?: string }).code, "reset");
  const events = [];
  for await (const event of client.events) events.push(event);
  assertEquals(events.map(({ type }) => type), ["INFO", "FATAL"]);
  assert(events[1]?.type === "FATAL" && events[1].message === "Error reading from OpenVPN");
  assertStrictEquals(await rejection(client.pid()), error);
});

test("a daemon that ends in order ends the session in order", async () => {
  const [client, daemon] = await greetedPair();
  await daemon.say(">FATAL:cannot open tun\r\n");
  await daemon.conn.close();
  await client.closed;
  const types = [];
  for await (const event of client.events) types.push(event.type);
  assertEquals(types, ["INFO", "FATAL"]);
  assertEquals((await rejection(client.pid())).code, "disconnected");
  await client.close();
});

test("last words without a line end are told", async () => {
  const [client, daemon] = await greetedPair();
  await daemon.say(">FATAL:cut of");
  await daemon.conn.close();
  const events = [];
  for await (const event of client.events) events.push(event);
  assert(events[1]?.type === "FATAL" && events[1].message === "cut of");
});

test("close() awaits the reply on its way, rejects the queue, and may be called again", async () => {
  const [client, daemon] = await greetedPair({ closeTimeoutMs: 5000 });
  const pid = client.pid();
  const queued = rejection(client.holdRelease());
  assertEquals(await daemon.hear(), "pid");
  const closing = Promise.all([client.close(), client.close(), client[Symbol.asyncDispose]()]);
  assertEquals((await queued).code, "closed");
  assertEquals((await rejection(client.pid())).code, "closed");
  assertEquals(await daemon.hear(), undefined, "half-closed");
  await daemon.say("SUCCESS: pid=9\r\n");
  assertEquals(await pid, 9);
  await daemon.conn.close();
  await closing;
  await client.closed;
  await client.close();
  assertEquals((await rejection(client.pid())).code, "closed");
});

test("close() does not wait for ever, nor for a greeting", async () => {
  const [client, daemon] = await greetedPair({ closeTimeoutMs: 20 });
  const pid = rejection(client.pid());
  await daemon.hear();
  await client.close();
  assertEquals((await pid).code, "closed");
  const [silent] = silentPair({ closeTimeoutMs: 60_000 });
  await silent.close();
  assertEquals((await rejection(silent.ready)).code, "closed");
  await silent.closed;
});

test("nothing that is ignored makes an unhandled rejection", async () => {
  const reasons = await unhandledDuring(async () => {
    const [broken, daemon] = await greetedPair();
    daemon.conn.abort();
    await rejection(broken.closed);
    const [mute] = silentPair({ greetingTimeoutMs: 5 });
    await rejection(mute.ready);
    const [closed] = await greetedPair();
    await closed.close();
  });
  assertEquals(reasons, []);
});

/** A transport whose connections are in memory. */
function inMemory(): { transport: Pick<Transport, "connect">; daemon: Promise<FakeDaemon> } {
  const made = Promise.withResolvers<FakeDaemon>();
  const connect = () => {
    const [ours, theirs] = connPair();
    made.resolve(new FakeDaemon(theirs));
    return Promise.resolve(ours);
  };
  return { transport: { connect }, daemon: made.promise };
}

test("dial() resolves after the greeting, over any transport", async () => {
  const { transport, daemon } = inMemory();
  const dialing = dial("127.0.0.1:1", { transport, password: "x", closeTimeoutMs: 20 });
  const fake = await daemon;
  await fake.say(PROMPT);
  await fake.answer("x", ACCEPTED + GREETING);
  const client = await dialing;
  assert(client instanceof ManagementClient);
  assertEquals(client.managementVersion, 5);
  await client.close();
});

test("dial() ends with its signal, while connecting and while waiting for the greeting", async () => {
  const { transport, daemon } = inMemory();
  const controller = new AbortController();
  const dialing = rejection(dial("127.0.0.1:1", { transport, signal: controller.signal }));
  const { conn } = await daemon;
  controller.abort();
  assertEquals((await dialing).code, "aborted");
  assertEquals(await conn.read().catch(() => null), null, "the connection is not left open");
  assertEquals(
    (await rejection(dial("127.0.0.1:1", { signal: controller.signal }))).code,
    "aborted",
  );
});

test("dial() rejects for an address that is none, and leaves nothing open for options that are none", async () => {
  assertEquals((await rejection(dial("nonsense"))).code, "invalid-address");
  const { transport, daemon } = inMemory();
  assert(
    await rejection(dial("127.0.0.1:1", { transport, password: "a\nb" })) instanceof TypeError,
  );
  assertEquals(await (await daemon).conn.read().catch(() => null), null);
  for (const options of [{ maxReplyBytes: -1 }, { timeoutMs: Infinity }]) {
    const error = await rejection(dial("127.0.0.1:1", options));
    assert(error instanceof RangeError, "before it connects");
  }
});
