/** Waits of `./uds` that nobody ended, and messages that came at a bad moment: one test for each that was. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import type { Conn } from "../adapters/types.ts";
import { Assembly, ReceiveHalf } from "../uds/_receive_half.ts";
import { SendHalf, WINDOW_BYTES } from "../uds/_send_half.ts";
import { Sender } from "../uds/_sender.ts";
import { messageStream } from "../uds/stream.ts";

const EMPTY = new Uint8Array();
/** More than a sender queues for who has much to send. */
const MUCH = new Uint8Array(300_000);

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
const senderOver = (write: () => Promise<void>): Sender =>
  new Sender({ write } as Partial<Conn> as Conn, () => {});
/** A half of which the grants are counted. */
function receiveHalf(assembly: Assembly, grants: number[], id: number): ReceiveHalf {
  const sender = { send: () => void grants.push(id) } as Partial<Sender> as Sender;
  return new ReceiveHalf(sender, id, undefined, { maxMessage: 2 ** 20, assembly });
}

test("uds races: behind calls that wait for the sender and then send nothing it is the turn of the next", async () => {
  const taken = Promise.withResolvers<void>();
  const sender = senderOver(() => taken.promise);
  sender.send({ id: 0, type: 1, data: MUCH });
  // As many as are told to go on at once; these have no window.
  for (let id = 1; id <= 4; id++) new SendHalf(sender, id, EMPTY, 0).write(new Uint8Array(1));
  await turn();
  let low = false;
  sender.low().then(() => low = true);
  taken.resolve();
  await turn();
  assertEquals(low, true);
});

test("uds races: a call that fails does not wait for the sender first", async () => {
  const sender = senderOver(() => new Promise(() => {}));
  sender.send({ id: 0, type: 1, data: MUCH });
  const half = new SendHalf(sender, 1, EMPTY, WINDOW_BYTES);
  let outcome: unknown;
  half.write(new Uint8Array(1)).catch((error) => outcome = error);
  await turn();
  const error = new Error("cancelled");
  half.fail(error);
  await turn();
  assertEquals(outcome, error);
});

test("uds races: a message behind others that nobody reads keeps no room from those that are read", () => {
  const grants: number[] = [];
  const assembly = new Assembly(WINDOW_BYTES);
  const [stopped, read] = [receiveHalf(assembly, grants, 0), receiveHalf(assembly, grants, 1)];
  stopped.push(new Uint8Array(10), false);
  stopped.push(new Uint8Array(10), true);
  read.read();
  for (let i = 0; i < 4; i++) read.push(new Uint8Array(60_000), true);
  assertEquals(grants, [1]);
});

test("uds races: a message that comes together with the end of its stream is read", async () => {
  const half = receiveHalf(new Assembly(1), [], 0);
  const send = new SendHalf(senderOver(() => Promise.resolve()), 0, EMPTY, 0);
  const ends = { cancel() {}, abort() {}, end: () => Promise.resolve() };
  const reader = messageStream(send, half, 100, ends).readable.getReader();
  const first = reader.read();
  await turn();
  half.push(new Uint8Array([7]), false);
  half.end();
  assertEquals((await first).value, new Uint8Array([7]));
  assertEquals((await reader.read()).done, true);
});
