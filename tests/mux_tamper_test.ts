/**
 * Somebody between two sessions of ours, who does not know the psk: replay, reorder, drop, splice, reflection and cuts are errors, and what
 * was read before is a prefix of what was written. That a whole recorded session is taken as genuine is a weakness of the protocol.
 */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { client, FLAG, type Mux, type MuxStream, server } from "@trunkline/sockets/mux";
import { FrameSplitter } from "../mux/v1/frame.ts";
import { codeOf, PSK, text, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { unhandledDuring } from "./unhandled.ts";

type Role = typeof client;
const ROLES: readonly (readonly [string, Role, Role])[] = [
  ["a client's frames to a server", client, server],
  ["a server's frames to a client", server, client],
];
const WORDS = ["one ", "two ", "three ", "four"];
const MESSAGE = WORDS.join("");

/** The sealed frames of a session that opens a stream, writes the words, each in a frame, and closes all. */
async function record(role: Role, other: Role): Promise<Uint8Array[]> {
  const [ours, theirs] = connPair({ lingerMs: 500 });
  const [relayed, far] = connPair({ lingerMs: 500 });
  const mux = role(ours, { psk: PSK });
  const peer = other(far, { psk: PSK });
  const splitter = new FrameSplitter();
  const frames: Uint8Array[] = [];
  const there = (async () => {
    for (let chunk = await theirs.read(); chunk; chunk = await theirs.read()) {
      const views: Uint8Array[] = [];
      splitter.push(chunk, views);
      frames.push(...views.map((frame) => frame.slice()));
      await relayed.write(chunk);
    }
    await relayed.closeWrite();
  })();
  const back = relayed.readable.pipeTo(theirs.writable);
  const stream = await mux.openStream();
  const accepted = await peer.acceptStream();
  for (const word of WORDS) {
    await stream.write(utf8(word));
    assertEquals(text(await accepted.read()), word);
  }
  await stream.closeWrite();
  await mux.close();
  await Promise.allSettled([there, back, peer.close()]);
  return frames;
}

interface Told {
  readonly code: string | undefined;
  readonly read: string;
  /** The stream had an end, as if it were whole. */
  readonly ended: boolean;
}

/** What a fresh session makes of `frames`. */
async function tell(role: Role, frames: readonly Uint8Array[]): Promise<Told> {
  const [near, far] = connPair({ lingerMs: 500 });
  const mux = role(near, { psk: PSK });
  const reading = readStream(mux);
  const feeding = (async () => {
    await far.write(concat(frames));
    await far.closeWrite();
    while (await far.read() !== null);
    await far.close();
  })().catch(() => {});
  const code = await mux.closed.then(() => undefined, (error) => error.code);
  const { read, ended } = await reading;
  await feeding;
  assertEquals(leftovers(mux.stats()), NOTHING_LEFT);
  return { code, read, ended };
}

async function readStream(mux: Mux): Promise<{ read: string; ended: boolean }> {
  let read = "";
  let stream: MuxStream;
  try {
    stream = await mux.acceptStream();
    for (;;) {
      const chunk = await stream.read();
      if (chunk === null) return { read, ended: true };
      read += text(chunk);
    }
  } catch {
    return { read, ended: false };
  }
}

/** What must hold if the frames are not what was sent, in the order in which it was sent. */
function assertTold({ code, read, ended }: Told, expected: string, what: string): void {
  assertEquals(code, expected, what);
  assert(MESSAGE.startsWith(read), `${what}: read ${JSON.stringify(read)}`);
  assert(!ended || read === MESSAGE, `${what}: an end after ${JSON.stringify(read)}`);
}

for (const [title, sender, receiver] of ROLES) {
  const check = (what: string, body: (frames: Uint8Array[]) => Promise<void>) =>
    test(`mux: ${title}: ${what}`, { timeout: 60_000 }, async () => {
      assertEquals(
        await unhandledDuring(async () => await body(await record(sender, receiver))),
        [],
      );
    });

  check("as they were sent they are genuine, even to another session", async (frames) => {
    assertEquals(await tell(receiver, frames), { code: undefined, read: MESSAGE, ended: true });
  });

  check("each one replayed, at once or at any later place", async (frames) => {
    for (const [i, frame] of frames.entries()) {
      for (let at = i + 1; at < frames.length; at++) {
        const replayed = frames.toSpliced(at, 0, frame);
        assertTold(await tell(receiver, replayed), "protocol", `${i} again at ${at}`);
      }
    }
  });

  check("any two of them in the wrong order", async (frames) => {
    for (let i = 0; i + 1 < frames.length; i++) {
      const swapped = frames.toSpliced(i, 2, frames[i + 1]!, frames[i]!);
      assertTold(await tell(receiver, swapped), "protocol", `${i} and ${i + 1}`);
    }
  });

  check("one of them dropped", async (frames) => {
    for (let i = 0; i + 1 < frames.length; i++) {
      assertTold(await tell(receiver, frames.toSpliced(i, 1)), "protocol", `without ${i}`);
    }
    assertTold(await tell(receiver, frames.slice(0, -1)), "truncated", "without the farewell");
  });

  check("one of another session with the same psk put in, or in its place", async (frames) => {
    const others = await record(sender, receiver);
    for (let at = 0; at < frames.length; at++) {
      for (const other of others) {
        for (const instead of [0, 1]) {
          const spliced = frames.toSpliced(at, instead, other);
          assertTold(await tell(receiver, spliced), "protocol", `at ${at}, ${instead}`);
        }
      }
    }
  });

  check("all that was sent from here on by another session", async (frames) => {
    const others = await record(sender, receiver);
    for (let at = 1; at < frames.length; at++) {
      const joined = [...frames.slice(0, at), ...others.slice(at)];
      assertTold(await tell(receiver, joined), "protocol", `from ${at} on`);
    }
  });

  check("cut anywhere", async (frames) => {
    const whole = concat(frames);
    // Behind the farewell alone all is in order.
    for (let end = 0; end < whole.length; end += end % 52 === 0 ? 1 : 17) {
      assertTold(await tell(receiver, [whole.subarray(0, end)]), "truncated", `after ${end}`);
    }
    let end = 0;
    for (const frame of frames.slice(0, -1)) {
      end += frame.length;
      assertTold(await tell(receiver, [whole.subarray(0, end)]), "truncated", `at ${end}`);
    }
  });

  check("one of them with another id or other flags, or any other change", async (frames) => {
    for (const [i, frame] of frames.entries()) {
      for (const at of [0, 12, 27, 28, 35, frame.length - 1]) {
        const forged = frame.slice();
        forged[at]! ^= 2;
        const told = await tell(receiver, frames.toSpliced(i, 1, forged));
        assertTold(told, "auth-failed", `frame ${i}, byte ${at}`);
      }
    }
    const open = frames.findIndex((frame) => frame[8] === FLAG.OPEN_STREAM);
    const ending = frames[open]!.slice();
    ending[8] = FLAG.CLOSE_STREAM;
    const told = await tell(receiver, frames.toSpliced(open + 2, 0, ending));
    assertTold(told, "auth-failed", "an open made an end");
  });

  check("a session's own frames sent back to it", async (frames) => {
    for (let at = 0; at < frames.length; at++) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = receiver(near, { psk: PSK });
      // A server says nothing before it knows its client.
      await far.write(concat(frames.slice(0, Math.max(at, 1))));
      const chunk = await far.read();
      assert(chunk !== null);
      await far.write(chunk);
      assertEquals(await codeOf(mux.closed), "protocol", `after ${at}`);
      const stream = await mux.acceptStream().catch(() => undefined);
      if (stream !== undefined) {
        const first = await stream.read().catch(() => null);
        assert(first === null || MESSAGE.startsWith(text(first)!));
      }
      await far.close().catch(() => {});
    }
  });
}
