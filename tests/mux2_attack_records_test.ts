/**
 * Attacks on a session that is on its way, by somebody between both who has no key: records of it, of another one with the same psk, or of
 * the other direction, at places that are not theirs. The same on frames of v1, which one of ours finds by the counter in its nonce, and a gomux not at all.
 */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { generateIdentity, type MuxOptions } from "@trunkline/sockets/mux";
import { type Direction, type Edit, END, MESSAGE, through, type Told } from "./mux2_relay.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
interface Kind {
  readonly name: string;
  /** Of the client and of the server. */
  readonly options: readonly [Options, Options];
  /** The first part of each direction that is a record. */
  readonly first: readonly [number, number];
  /** What a record that is not the next one is. */
  readonly misplaced: string;
}

// What is missing at the end is found by the next keepalive.
const common = { keepaliveMs: 40, closeTimeoutMs: 3000 };
const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
const v2 = (more: Options = {}): readonly [Options, Options] => {
  const options: Options = { ...common, protocol: "v2", ...more };
  return [options, options];
};
const KINDS: readonly Kind[] = [
  { name: "v1", options: [common, common], first: [0, 0], misplaced: "protocol" },
  {
    name: "v2 with ChaChaPoly",
    options: v2({ suites: ["ChaChaPoly_BLAKE2b"] }),
    first: [2, 1],
    misplaced: "auth-failed",
  },
  {
    name: "v2 with AESGCM",
    options: v2({ suites: ["AESGCM_SHA256"] }),
    first: [2, 1],
    misplaced: "auth-failed",
  },
  {
    name: "v2 with identities",
    options: [
      { ...v2()[0], identity: alice, knownPeers: [bob.publicKey] },
      { ...v2()[0], identity: bob, knownPeers: [alice.publicKey] },
    ],
    first: [3, 1],
    misplaced: "auth-failed",
  },
  {
    name: "v2 that changes its key after each second record",
    options: v2({ rekeyRecords: 2 }),
    first: [2, 1],
    misplaced: "auth-failed",
  },
];

/** What holds whatever was done: what was read is the beginning of what was written, and an end is the end. */
function assertPrefix(told: readonly Told[], what: string): void {
  for (const { read, ended, left } of told) {
    assert(MESSAGE.startsWith(read), `${what}: read ${JSON.stringify(read)}`);
    assert(!ended || read === MESSAGE, `${what}: an end after ${JSON.stringify(read)}`);
    assertEquals(left, 0, what);
  }
}

for (const { name, options, first, misplaced } of KINDS) {
  for (const direction of [0, 1] as const) {
    const side = direction === 0 ? "client's" : "server's";
    const check = (what: string, body: () => Promise<void>): void =>
      void test(`${name}: ${side} records: ${what}`, { timeout: 60_000 }, async () => {
        assertEquals(await unhandledDuring(body), []);
      });
    const from = first[direction];

    /** Edits part `at` alone; `undefined` if it never came. */
    const attack = async (
      at: number,
      edit: (part: Uint8Array, seen: Parameters<Edit>[3]) => ReturnType<Edit> | undefined,
      what: string,
    ): Promise<string | undefined> => {
      let attacked = false;
      const { told } = await through((way: Direction, i, part, seen) => {
        const edited = way === direction && i === at ? edit(part, seen) : undefined;
        attacked ||= edited !== undefined;
        return edited ?? [part];
      }, ...options);
      assertPrefix(told, what);
      const receiver = told[1 - direction]!;
      return attacked ? receiver.closed ?? "in order" : undefined;
    };

    check("as they were sent they are a session", async () => {
      const { told, said } = await through((_, __, part) => [part], ...options);
      for (const { read, ended, closed, ready } of told) {
        assertEquals({ read, ended, closed, ready }, {
          read: MESSAGE,
          ended: true,
          closed: undefined,
          ready: undefined,
        });
      }
      assert(said[direction].length > from + 4);
    });

    const count = async () =>
      (await through((_, __, part) => [part], ...options)).said[direction].length;
    check("each one replayed at once, and at each later place", async () => {
      const length = await count();
      let attacks = 0;
      for (let at = from; at < length; at++) {
        for (let again = from; again <= at; again++) {
          const what = `${again} again behind ${at}`;
          const code = await attack(at, (part, seen) => [part, seen[direction][again]!], what);
          if (code === undefined) continue;
          attacks++;
          // Behind the farewell nothing is read any more.
          if (code !== "in order") assertEquals(code, misplaced, what);
          else assert(at >= length - 2, what);
        }
      }
      assert(attacks >= length - from);
    });

    check("two of them in the wrong order", async () => {
      const length = await count();
      for (let at = from; at < length - 1; at++) {
        let held: Uint8Array | undefined;
        const { told } = await through((way, i, part) => {
          if (way !== direction || i < at || i > at + 1) return [part];
          if (i === at) held = part;
          return i === at ? [] : [part, held!];
        }, ...options);
        assertPrefix(told, `${at}`);
        const { closed } = told[1 - direction]!;
        // The last one may have no successor.
        assert(
          closed === misplaced || closed === "truncated" && at >= length - 2,
          `${at}: ${closed}`,
        );
      }
    });

    check("one of them dropped", async () => {
      const length = await count();
      for (let at = from; at < length; at++) {
        const code = await attack(at, () => [], `without ${at}`);
        if (code === undefined) continue;
        const last = at >= length - 2 && (code === "truncated" || code === "in order");
        assert(last || code === misplaced, `without ${at}: ${code}`);
      }
    });

    check("several of them dropped, also as many as have one key", async () => {
      const length = await count();
      for (const lost of [2, 3, 4]) {
        for (let at = from; at + lost < length - 1; at++) {
          const { told } = await through(
            (way, i, part) => way === direction && i >= at && i < at + lost ? [] : [part],
            ...options,
          );
          assertPrefix(told, `${lost} from ${at} on`);
          assertEquals(told[1 - direction]!.closed, misplaced, `${lost} from ${at} on`);
        }
      }
    });

    check("one of another session with the same psk put in, or in its place", async () => {
      const others = await recordOf(options);
      const { length } = others[direction];
      for (let at = from; at < length - 1; at++) {
        for (const other of [others[direction][at]!, others[direction][from]!]) {
          for (const instead of [true, false]) {
            const what = `at ${at}, ${instead}`;
            const code = await attack(at, (part) => instead ? [other] : [other, part], what);
            if (code !== undefined) assertEquals(code, misplaced, what);
          }
        }
      }
    });

    check("one of the other direction put in, or in its place: a reflection", async () => {
      const length = await count();
      let attacks = 0;
      for (let at = from; at < length - 1; at++) {
        for (const instead of [true, false]) {
          const what = `at ${at}, ${instead}`;
          const code = await attack(at, (part, seen) => {
            const mirrored = seen[1 - direction]!.at(-1);
            if (mirrored === undefined) return undefined;
            return instead ? [mirrored] : [mirrored, part];
          }, what);
          if (code === undefined) continue;
          attacks++;
          assertEquals(code, misplaced, what);
        }
      }
      assert(attacks > 0);
    });

    check("one of them changed in its length, its body and its tag", async () => {
      const length = await count();
      for (let at = from; at < length - 1; at++) {
        const places = [0, 1, 2, 3, 18, -17, -16, -8, -1];
        for (const [place, bit] of places.flatMap((it) => [[it, 1], [it, 0x80]] as const)) {
          let expected: readonly string[] = ["auth-failed"];
          const what = `${at}, byte ${place} ^ ${bit}`;
          const code = await attack(at, (part) => {
            const changed = part.slice();
            const index = place < 0 ? part.length + place : place;
            changed[index]! ^= bit;
            const size = 2 + (changed[0]! << 8 | changed[1]!);
            // Nobody has authenticated a length before the record is there.
            if (name !== "v1" && size < 18) expected = ["protocol"];
            if (name !== "v1" && size > part.length) expected = ["truncated", "auth-failed"];
            return [changed, END];
          }, what);
          if (code !== undefined) assert(expected.includes(code), `${what}: ${code}`);
        }
      }
    });
  }
}

async function recordOf([options, serverOptions]: Kind["options"]) {
  return (await through((_, __, part) => [part], options, serverOptions)).said;
}
