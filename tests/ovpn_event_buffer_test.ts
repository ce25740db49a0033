/** What waits for a slow consumer, beside the plainest buffer that does the same. */
import { assert, assertEquals } from "@std/assert";
import { type ManagementEvent, MAX_MESSAGE_BYTES, parseEvent } from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import { EventBuffer } from "../ovpn/_event_buffer.ts";

const BULK = ["LOG", "BYTECOUNT"];
const SPARE = ["STATE", "ECHO", "NOTIFY"];

interface Counts {
  [type: string]: number;
}

/** Looks through everything at each step. */
class NaiveBuffer {
  #all: (ManagementEvent | Counts)[] = [];
  #notice: Counts | undefined;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(event: ManagementEvent): boolean {
    const kept = this.#all.filter((it) => it !== this.#notice) as ManagementEvent[];
    if (kept.length >= this.#limit) {
      const bulk = kept.find(({ type }) => BULK.includes(type));
      const spare = kept.find(({ type }) => SPARE.includes(type));
      const victim = bulk ?? (BULK.includes(event.type) ? undefined : spare);
      if (victim !== undefined) this.#drop(victim);
      else if (![...BULK, ...SPARE].includes(event.type)) return false;
      else return this.#drop(event);
    }
    this.#all.push(event);
    return true;
  }

  #drop(event: ManagementEvent): true {
    const notice = this.#notice ??= {};
    notice[event.type] = (notice[event.type] ?? 0) + 1;
    if (!this.#all.includes(event)) this.#all.push(event);
    const first = this.#all.findIndex((it) => it === notice || it === event);
    this.#all[first] = notice;
    this.#all = this.#all.filter((it, i) => i === first || it !== notice && it !== event);
    return true;
  }

  shift(): unknown {
    const event = this.#all.shift();
    if (event !== this.#notice) return event;
    this.#notice = undefined;
    return event;
  }
}

function plain(event: ManagementEvent | undefined): unknown {
  return event?.type === "dropped" ? { ...Object.fromEntries(event.counts) } : event;
}

test("EventBuffer does what the naive one does", () => {
  const event = fc.constantFrom(
    ...["LOG:1,I,a", "LOG:2,I,b", "BYTECOUNT:1,2", "STATE:1,WAIT", "ECHO:1,a"],
    ...["NOTIFY:a,b,c", "HOLD:a", "OTHER:a", "FATAL:a"],
  );
  const steps = fc.array(fc.option(event, { freq: 2 }), { maxLength: 400 });
  let dropped = 0;
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 9 }), (lines, limit) => {
      const ours = new EventBuffer(limit, () => dropped++);
      const naive = new NaiveBuffer(limit);
      for (const line of lines) {
        if (line === null) assertEquals(plain(ours.shift()), naive.shift());
        else {
          const event = parseEvent(line);
          assertEquals(ours.push(event), naive.push(event));
        }
      }
      for (;;) {
        const event = ours.shift();
        assertEquals(plain(event), naive.shift());
        if (event === undefined) break;
      }
    }),
    { numRuns: 500, seed: 1 },
  );
  assert(dropped > 0);
});

test("EventBuffer counts a large event for as many messages as it may be made of", () => {
  const large = parseEvent(`OTHER:${"x".repeat(5 * MAX_MESSAGE_BYTES - 6)}`);
  let dropped = 0;
  const buffer = new EventBuffer(8, () => dropped++);
  assert(buffer.push(large));
  for (let i = 0; i < 3; i++) assert(buffer.push(parseEvent("LOG:1,I,a")));
  assert(buffer.push(parseEvent("HOLD:a")));
  assertEquals(dropped, 1);
  assert(!buffer.push(large));
  // One that is larger than the whole buffer is taken by an empty one.
  const small = new EventBuffer(3, () => dropped++);
  assert(small.push(large));
  assert(!small.push(parseEvent("HOLD:a")));
  assertEquals(small.shift(), large);
  assert(small.push(parseEvent("HOLD:a")));
});
