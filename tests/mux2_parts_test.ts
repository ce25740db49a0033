/** What a session of v2 reckons with: settings, quotas, pings and windows. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { GrowingWindow, type WindowGrowth } from "../mux/v2/window.ts";
import { configOf } from "../mux/config.ts";
import { MuxError } from "../mux/errors.ts";
import { PingTimer } from "../mux/v2/ping.ts";
import { StreamQuota } from "../mux/v2/quota.ts";
import { decodeSettings, encodeSettings, settingsOf } from "../mux/v2/settings.ts";
import { numbers } from "./mux2_reader.ts";

const bytesOf = (...bytes: number[]) => Uint8Array.from(bytes);

function errorOf(act: () => unknown): string {
  return assertThrows(act, MuxError).code;
}

describe("settings", () => {
  const limits = configOf({ psk: "0123456789abcdef" }, true).limits.v2;
  const absent = decodeSettings(new Uint8Array(0));

  it("are those of the specification if nothing is said", () => {
    const known = { windowBytes: 131072, streams: 128, rekeyRecords: 65536, rekeyBytes: 2 ** 30 };
    assertEquals(absent, { ...known, idleTimeoutMs: 180_000 });
  });

  it("are read as they were told", () => {
    const range = (max: number) => fc.integer({ min: 1, max });
    const arbitrary = fc.record({
      windowBytes: range(2 ** 31 - 1),
      streams: range(2 ** 32 - 1),
      rekeyRecords: range(65536),
      rekeyBytes: range(2 ** 30),
      idleTimeoutMs: range(2 ** 32 - 1),
    });
    fc.assert(fc.property(arbitrary, (settings) => {
      assertEquals(decodeSettings(encodeSettings(settings)), settings);
    }));
  });

  it("that are not known are skipped, whatever they say, in any order", () => {
    const bytes = numbers(2 ** 32 - 1, 0, 2, 7, 0, 0, 100, 2 ** 32 - 1, 1, 5);
    assertEquals(decodeSettings(bytes), { ...absent, streams: 7, windowBytes: 5 });
  });

  it("that have no value, or one that is none, are refused", () => {
    const bad = [[1], [1, 2, 3], [1, 0], [1, 2 ** 31], [2, 0], [3, 0], [3, 65537], [4, 0]];
    for (const values of [...bad, [4, 2 ** 30 + 1], [5, 0]]) {
      assertEquals(errorOf(() => decodeSettings(numbers(...values))), "protocol", `${values}`);
    }
    assertEquals(errorOf(() => decodeSettings(bytesOf(1, 0x80))), "protocol");
    assertEquals(errorOf(() => decodeSettings(numbers(1, 2 ** 32))), "protocol");
  });

  it("tell whole numbers that the format has", () => {
    const streams = (maxStreams: number, maxPendingAccepts: number) =>
      settingsOf({ ...limits, maxStreams, maxPendingAccepts }).streams;
    assertEquals(streams(100, 7.9), 7);
    assertEquals(streams(0.1, 0.2), 1);
    assertEquals(streams(Infinity, Infinity), 2 ** 32 - 1);
    assertEquals(settingsOf({ ...limits, idleTimeoutMs: 0.5 }).idleTimeoutMs, 1);
  });
});

describe("StreamQuota", () => {
  const base = configOf({ psk: "0123456789abcdef" }, true).limits.v2;
  const quota = (maxStreams: number, maxPendingAccepts: number) => {
    const limits = { ...base, maxStreams, maxPendingAccepts };
    const granted = settingsOf(limits).streams;
    return { quota: new StreamQuota(limits, granted), granted };
  };

  it("never allows more than may live, or wait to be accepted", () => {
    type Act = "open" | "accept" | "end";
    const acts = fc.array(fc.constantFrom<Act>("open", "open", "accept", "end"), {
      maxLength: 200,
    });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        acts,
        (a, b, plan) => {
          const { quota: it, granted } = quota(a, b);
          let [allowed, opened, live, pending] = [granted, 0, 0, 0];
          for (const act of plan) {
            if (act === "open") {
              assertEquals(it.opened(), opened < allowed);
              if (opened === allowed) continue;
              opened++;
              live++;
              pending++;
            } else if (act === "accept" && pending > 0) {
              pending--;
              it.accepted();
            } else if (act === "end" && live > 0) {
              live--;
              it.ended();
            } else continue;
            const more = it.grant();
            if (more !== undefined) {
              assert(more > allowed);
              allowed = more;
            }
            assert(allowed - opened <= Math.min(a - live, b - pending), "too many");
            // Nobody waits in vain.
            if (live < a && pending < b) assert(allowed > opened, "none");
          }
        },
      ),
    );
  });

  it("grants one by one where it has few, and in parts of a quarter where it has many", () => {
    for (const [most, step] of [[1, 1], [2, 1], [4, 1], [5, 2], [8, 2], [100, 25]] as const) {
      const { quota: it } = quota(most, most);
      it.opened();
      it.accepted();
      it.ended();
      const grants = [it.grant()];
      for (let i = 1; i < most; i++) {
        it.opened();
        it.accepted();
        it.ended();
        grants.push(it.grant());
      }
      const told = grants.filter((more) => more !== undefined);
      assertEquals(told[0], most + step);
      assertEquals(told.length, Math.floor(most / step), `${most}`);
    }
  });

  it("without limits has nothing to grant", () => {
    const { quota: it, granted } = quota(Infinity, Infinity);
    assertEquals(granted, 2 ** 32 - 1);
    for (let i = 0; i < 1000; i++) {
      assert(it.opened());
      it.accepted();
      it.ended();
      assertEquals(it.grant(), undefined);
    }
  });

  it("takes fractions as whole numbers", () => {
    const { quota: it, granted } = quota(2.9, 1.5);
    assertEquals(granted, 1);
    assert(it.opened() && !it.opened());
    it.accepted();
    assertEquals(it.grant(), 2);
    assert(it.opened() && !it.opened());
    it.accepted();
    assertEquals(it.grant(), undefined);
    it.ended();
    assertEquals(it.grant(), 3);
  });
});

describe("PingTimer", () => {
  const timer = () => {
    const said: number[] = [];
    return { said, ping: new PingTimer((number) => void said.push(number)) };
  };

  it("shares one that is on its way", async () => {
    const { said, ping } = timer();
    const both = [ping.measure(), ping.measure()];
    assertEquals(said, [1]);
    ping.onPong(1);
    const [one, other] = await Promise.all(both);
    assert(one === other && one! >= 0);
    assertEquals(ping.rtt, one);
    ping.measure();
    assertEquals(said, [1, 2]);
  });

  it("does not take another answer, or one twice", async () => {
    const { ping } = timer();
    ping.onPong(0);
    assertEquals(ping.rtt, undefined);
    const first = ping.measure();
    for (const wrong of [0, 2, 2 ** 32 - 1]) ping.onPong(wrong);
    assertEquals(ping.rtt, undefined);
    ping.onPong(1);
    await first;
    const second = ping.measure();
    let done = false;
    second.then(() => done = true);
    ping.onPong(1);
    await Promise.resolve();
    assert(!done);
    ping.onPong(2);
    await second;
  });

  it("says the same again if it is to say something meanwhile", () => {
    const { said, ping } = timer();
    ping.send();
    ping.send();
    assertEquals(said, [1, 1]);
    ping.onPong(1);
    ping.send();
    assertEquals(said, [1, 1, 2]);
  });

  it("measures anew when what it has is old", () => {
    const { said, ping } = timer();
    assertEquals(ping.shortest(), undefined);
    assertEquals(said, [1]);
    assertEquals(ping.shortest(), undefined);
    assertEquals(said, [1]);
    ping.onPong(1);
    assertEquals(ping.shortest(), ping.rtt);
    assertEquals(said, [1]);
  });

  it("ends whoever waits", async () => {
    const { ping } = timer();
    const waiting = ping.measure();
    const error = new MuxError("closed", "the end");
    ping.end(error);
    assertEquals(await waiting.catch((it) => it), error);
    ping.end(error);
    ping.onPong(1);
    assertEquals(ping.rtt, undefined);
  });
});

describe("GrowingWindow", () => {
  const growth = (changes: Partial<WindowGrowth> & { left?: number } = {}) => {
    let { left = Infinity } = changes;
    const it = {
      first: 1000,
      most: 16_000,
      rtt: () => 1e9 as number | undefined,
      reserve: (bytes: number) => {
        const reserved = Math.min(bytes, left);
        left -= reserved;
        return reserved;
      },
      release: (bytes: number) => void (left += bytes),
      ...changes,
    };
    return { it, left: () => left };
  };
  const readAll = (window: GrowingWindow, bytes: number) => {
    assert(window.receive(bytes));
    window.consume(bytes);
    return window.take();
  };

  it("takes what it allows and nothing more", () => {
    const window = new GrowingWindow(growth().it);
    assert(window.receive(0) && window.receive(999) && !window.receive(2) && window.receive(1));
    assert(!window.receive(1));
  });

  it("is due once half of it was read", () => {
    const window = new GrowingWindow(growth({ rtt: () => undefined }).it);
    window.receive(1000);
    assertEquals([window.consume(499), window.due], [false, false]);
    assertEquals([window.consume(1), window.due], [true, true]);
    assertEquals([window.take(), window.due, window.take()], [500, false, 0]);
    // What was given back, and no more.
    assert(window.receive(500) && !window.receive(1));
  });

  it("of one byte works", () => {
    const window = new GrowingWindow(growth({ first: 1, most: 1 }).it);
    for (let i = 0; i < 5; i++) {
      assert(window.receive(1) && !window.receive(1));
      assert(window.consume(1));
      assertEquals(window.take(), 1);
    }
  });

  it("doubles up to its most", () => {
    const window = new GrowingWindow(growth().it);
    const sizes = [1000, 2000, 4000, 8000, 16_000, 16_000];
    const grants = sizes.map((size) => readAll(window, size));
    assertEquals(grants, [2000, 4000, 8000, 16_000, 16_000, 16_000]);
  });

  it("that is at its most does not grow by a rest", () => {
    const window = new GrowingWindow(growth({ most: 1500 }).it);
    assertEquals([readAll(window, 1000), readAll(window, 1500)], [1500, 1500]);
  });

  it("does not grow before a round trip was measured, or when it is read slowly", async () => {
    const unknown = new GrowingWindow(growth({ rtt: () => undefined }).it);
    assertEquals(readAll(unknown, 1000), 1000);
    const slow = new GrowingWindow(growth({ rtt: () => 1 }).it);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assertEquals(readAll(slow, 1000), 1000);
  });

  it("grows by what is left for all, and gives that back at its end, once", () => {
    const { it, left } = growth({ left: 2500 });
    const [one, other] = [new GrowingWindow(it), new GrowingWindow(it)];
    assertEquals([readAll(one, 1000), left()], [2000, 1500]);
    assertEquals([readAll(other, 1000), left()], [2000, 500]);
    assertEquals([readAll(one, 2000), left()], [2500, 0]);
    assertEquals([readAll(other, 2000), left()], [2000, 0]);
    one.end();
    one.end();
    assertEquals(left(), 1500);
    assertEquals([readAll(other, 2000), left()], [3500, 0]);
    other.end();
    assertEquals(left(), 2500);
    assertEquals(other.take(), 0);
  });
});
