/** The bounded queue of accepted connections and datagrams. */
import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { Inbox } from "../adapters/_inbox.ts";
import { ConnectError } from "../adapters/types.ts";
import { rejectsWith, sleep } from "./adapter_suite.ts";
import { unhandledDuring } from "./unhandled.ts";

const closed = new ConnectError("closed", "gone");

test("push() keeps up to the limit, then refuses and counts", async () => {
  const inbox = new Inbox<number>(3, "taking");
  const kept = [1, 2, 3, 4, 5].map((item) => inbox.push(item));
  assertEquals(kept, [true, true, true, false, false]);
  assertEquals(inbox.dropped, 2);
  assertEquals([await inbox.take(), await inbox.take(), await inbox.take()], [1, 2, 3]);
  assertEquals(inbox.push(6), true);
  assertEquals(await inbox.take(), 6);
});

test("a limit below 1, or none at all, is a RangeError", () => {
  for (const limit of [0, -1, NaN]) {
    assertThrows(() => new Inbox(limit, "taking"), RangeError, "maxPending");
  }
});

test("waiters are served in order, and take nothing of the limit", async () => {
  const inbox = new Inbox<number>(1, "taking");
  const waiting = [inbox.take(), inbox.take(), inbox.take()];
  assertEquals(inbox.wanted, true);
  for (const item of [1, 2, 3]) assertEquals(inbox.push(item), true);
  assertEquals(await Promise.all(waiting), [1, 2, 3]);
  assertEquals([inbox.wanted, inbox.dropped], [false, 0]);
});

test("a waiter whose signal fires leaves its item to the next", async () => {
  const inbox = new Inbox<number>(1, "taking");
  const controller = new AbortController();
  const first = inbox.take({ signal: controller.signal });
  const second = inbox.take();
  controller.abort();
  await rejectsWith(first, "aborted");
  inbox.push(1);
  assertEquals(await second, 1);
  // A signal that has fired takes nothing, though there is something.
  inbox.push(2);
  await rejectsWith(inbox.take({ signal: controller.signal }), "aborted");
  assertEquals(await inbox.take(), 2);
  assertEquals(inbox.wanted, false);
});

test("fail() is told to those who wait, and to nobody else", async () => {
  const inbox = new Inbox<number>(1, "taking");
  const trouble = new ConnectError("other", "too many open files");
  const waiting = [inbox.take(), inbox.take()];
  inbox.fail(trouble);
  for (const wait of waiting) assertStrictEquals(await wait.catch((e) => e), trouble);
  const next = inbox.take();
  inbox.push(1);
  assertEquals(await next, 1);
});

test("end() gives back what nobody took; afterwards nothing goes in or out", async () => {
  const inbox = new Inbox<number>(5, "taking");
  inbox.push(1);
  inbox.push(2);
  assertEquals(inbox.end(closed), [1, 2]);
  assertEquals(inbox.end(new ConnectError("other", "again")), []);
  assertEquals(inbox.push(3), false);
  assertEquals(inbox.dropped, 0);
  assertStrictEquals(await inbox.take().catch((e) => e), closed);
  await inbox.closed;
});

test("end() rejects those who wait; broken, it rejects closed as well", async () => {
  const broken = new ConnectError("other", "the device is gone");
  const inbox = new Inbox<number>(1, "taking");
  const waiting = inbox.take();
  inbox.end(broken, true);
  assertStrictEquals(await waiting.catch((e) => e), broken);
  assertStrictEquals(await inbox.closed.catch((e) => e), broken);
});

test("iterate() yields what was kept, ends at closed, and throws what broke it", async () => {
  const inbox = new Inbox<number>(5, "taking");
  const seen: number[] = [];
  const iterating = (async () => {
    for await (const item of inbox.iterate()) seen.push(item);
  })();
  for (const item of [1, 2, 3]) inbox.push(item);
  await sleep(5);
  inbox.end(closed);
  await iterating;
  assertEquals(seen, [1, 2, 3]);

  const other = new Inbox<number>(1, "taking");
  const next = other.iterate().next();
  other.end(new ConnectError("other", "broken"), true);
  await assertRejects(() => next, ConnectError, "broken");
});

test("iterate() goes on after a trouble that passes, without spinning", async () => {
  const inbox = new Inbox<number>(1, "taking");
  let calls = 0;
  const take = () => {
    calls++;
    if (calls > 1) return inbox.take();
    return Promise.reject(new ConnectError("other", "too many open files"));
  };
  const iterator = inbox.iterate(take);
  const next = iterator.next();
  for (let turns = 0; turns < 20; turns++) await null;
  assertEquals(calls, 1);
  inbox.push(1);
  assertEquals(await next, { done: false, value: 1 });
  inbox.end(closed);
  assertEquals((await iterator.next()).done, true);
});

test("an inbox that breaks unseen makes no unhandled rejection", async () => {
  const unhandled = await unhandledDuring(() => {
    new Inbox<number>(1, "taking").end(new ConnectError("other", "broken"), true);
    return Promise.resolve();
  });
  assertEquals(unhandled, []);
});
