/** Somebody who would have both speak v1, or who speaks v1 by mistake; and who says nothing at all, or too slowly. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { test } from "node:test";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  FLAG,
  generateIdentity,
  type MuxOptions,
  sealFrame,
  server,
} from "@trunkline/sockets/mux";
import { readUint32 } from "../mux/v1/frame.ts";
import { deriveNoisePsk } from "../mux/v2/handshake.ts";
import { codeOf, PSK, utf8 } from "./mux_pair.ts";
import { leftovers, NOTHING_LEFT } from "./mux_peer.ts";
import { editedLine, hearing, MESSAGE, recorded, talk, through } from "./mux2_relay.ts";
import { unhandledDuring } from "./unhandled.ts";

type Options = Partial<MuxOptions>;
const [alice, bob] = await Promise.all([generateIdentity(), generateIdentity()]);
const V2: Options = { protocol: "v2", closeTimeoutMs: 3000 };
const BOTH: Options = { protocol: ["v2", "v1"], closeTimeoutMs: 3000 };
const ALICE: Options = { ...V2, identity: alice, knownPeers: [bob.publicKey] };
const CLIENTS: readonly Options[] = [
  { ...V2, suites: ["ChaChaPoly_BLAKE2b"] },
  { ...V2, suites: ["AESGCM_SHA256"] },
  { ...ALICE, suites: ["ChaChaPoly_BLAKE2b"] },
  { ...ALICE, suites: ["AESGCM_SHA256"] },
];
const unchanged = (_: number, __: number, part: Uint8Array) => [part];

function check(what: string, body: () => Promise<void>): void {
  test(what, { timeout: 60_000 }, async () => assertEquals(await unhandledDuring(body), []));
}

check("downgrade: a v2 client ends with auth-failed at a server that speaks v1 alone", async () => {
  for (const options of CLIENTS) {
    const { told: [near, far] } = await through(unchanged, options, {});
    assertEquals([near.ready, near.closed, near.protocol], [
      "auth-failed",
      "auth-failed",
      "v2",
    ]);
    assertEquals([far.ready, far.closed, far.stream], ["protocol", "protocol", false]);
  }
});

check(
  "downgrade: 36 bytes of a v2 client suffice for a v1 server to refuse it at once",
  async () => {
    for (const options of CLIENTS) {
      const [near, far] = connPair({ lingerMs: 500 });
      const mux = client(near, { psk: PSK, ...options });
      let head: Uint8Array = new Uint8Array(0);
      while (head.length < 36) head = concat([head, (await far.read())!]);
      // gomux refuses a length above 65536 of any frame, once it has the header.
      assert(readUint32(head, 4) > 65536);
      mux.abort();

      const [ours, theirs] = connPair({ lingerMs: 500 });
      const v1 = server(ours, { psk: PSK });
      // Refused while it is written.
      theirs.write(head.slice(0, 36)).catch(() => {});
      assertEquals(await codeOf(v1.closed), "protocol");
      await Promise.all([far, theirs].map((conn) => conn.close().catch(() => {})));
    }
  },
);

check("downgrade: a v1 client ends at a server that speaks v2 alone", async () => {
  for (const options of [V2, ALICE]) {
    const { told: [near, far] } = await through(unchanged, {}, options);
    assertEquals([near.closed, far.closed], ["truncated", "protocol"]);
    assertEquals([far.ready, far.stream, far.read], ["protocol", false, ""]);
  }
});

check("downgrade: a v2 client takes no v1 frames for an answer", async () => {
  const key = deriveKey(PSK);
  const nonce = () => crypto.getRandomValues(new Uint8Array(24));
  const [, said] = await recorded({});
  const answers = [
    concat(said),
    sealFrame({ id: 0, flags: FLAG.KEEPALIVE, length: 0 }, key, nonce()),
    // An id that reads as a length that a message can have, and one that it cannot have.
    sealFrame({ id: 0x0000_3000, flags: FLAG.KEEPALIVE, length: 0 }, key, nonce()),
    sealFrame({ id: 0xffff_ffff, flags: FLAG.KEEPALIVE, length: 0 }, key, nonce()),
    new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"),
    new Uint8Array(0),
  ];
  for (const options of CLIENTS) {
    for (const [i, answer] of answers.entries()) {
      const { told } = await hearing(true, answer, options);
      assert(["auth-failed", "protocol"].includes(told.closed!), `${i}: ${told.closed}`);
      assertEquals([told.ready, told.protocol, told.read], [told.closed, "v2", ""]);
    }
  }
});

check(
  "downgrade: with bytes of a hello changed a server of both takes v1 for it, and refuses",
  async () => {
    for (const options of CLIENTS.slice(0, 2)) {
      for (const places of [[0], [3], [6], [7], [6, 7], [5, 6, 7], [4, 5, 6, 7]]) {
        const { told: [near, far] } = await through(
          (way, i, part) => {
            if (way === 0 && i === 0) { for (const place of places) part[place] = 0; }
            return [part];
          },
          options,
          { ...BOTH, handshakeTimeoutMs: 2000 },
        );
        const what = places.join();
        assertEquals([near.closed, near.ready], ["auth-failed", "auth-failed"], what);
        assert(["auth-failed", "protocol"].includes(far.closed!), `${what}: ${far.closed}`);
        assertEquals([far.stream, far.read], [false, ""], what);
      }
    }
  },
);

check(
  "downgrade: a recorded v1 session instead of a v2 client is v1 to a server of both, and told so",
  async () => {
    const [frames] = await recorded({});
    for (const options of CLIENTS.slice(0, 2)) {
      const { told: [near, far] } = await through(
        (way, i) => way === 1 || i > 0 ? [] : [concat(frames)],
        options,
        BOTH,
      );
      // What v1 allows, and no more: who wants v2 for sure does not allow v1.
      assertEquals([far.protocol, far.read, far.ended, far.closed], [
        "v1",
        MESSAGE,
        true,
        undefined,
      ]);
      assertEquals([near.protocol, near.ready, near.read], ["v2", "auth-failed", ""]);
    }
  },
);

check("downgrade: a server of both reports what each client speaks", async () => {
  for (
    const [options, protocol] of [[{}, "v1"], [CLIENTS[0]!, "v2"], [CLIENTS[1]!, "v2"]] as const
  ) {
    const { told } = await through(unchanged, options, BOTH);
    assertEquals(told.map((it) => [it.protocol, it.closed]), [
      [protocol, undefined],
      [protocol, undefined],
    ]);
  }
});

check("downgrade: nothing of v1 opens anything of v2: their keys are not the same", () => {
  assert(deriveKey(PSK).join() !== deriveNoisePsk(utf8(PSK)).join());
  return Promise.resolve();
});

// Too slow.

const HURRY = { handshakeTimeoutMs: 250 };

/** A first part of what a client says, or all of it without a record. */
async function beginnings(options: Options): Promise<readonly (readonly [string, Uint8Array])[]> {
  const serverOptions: Options = "identity" in options
    ? { ...V2, identity: bob, knownPeers: [alice.publicKey] }
    : V2;
  const [parts] = (await through(unchanged, options, serverOptions)).said;
  const whole = concat(parts.slice(0, 3));
  return [
    ["a byte", whole.slice(0, 1)],
    ["half a hello", whole.slice(0, 5)],
    ["a hello", whole.slice(0, 8)],
    ["the length of a message", whole.slice(0, 10)],
    ["half a message", whole.slice(0, 30)],
    ["a message without its end", whole.slice(0, 8 + parts[1]!.length - 1)],
    ["a message, as of another time", whole.slice(0, 8 + parts[1]!.length)],
    ["half a record behind it", whole.slice(0, 8 + parts[1]!.length + 10)],
  ];
}

async function drain(conn: Conn): Promise<void> {
  try {
    while (await conn.read() !== null);
  } catch {
    // Given up.
  }
  await conn.close().catch(() => {});
}

check("slow loris: a client that says a part, and then nothing, is given up in time", async () => {
  for (const options of [CLIENTS[0]!, CLIENTS[2]!]) {
    const servers: Options[] = "identity" in options
      ? [{ ...V2, identity: bob, knownPeers: [alice.publicKey] }]
      : [V2, BOTH];
    const begun = await beginnings(options);
    await Promise.all(servers.flatMap((serverOptions) =>
      begun.map(async ([what, bytes]) => {
        const [near, far] = connPair({ lingerMs: 500 });
        const mux = server(near, { psk: PSK, ...serverOptions, ...HURRY });
        await far.write(bytes);
        const drained = drain(far);
        assertEquals(await codeOf(mux.closed), "timeout", what);
        assertEquals(await codeOf(mux.ready), "timeout", what);
        assertEquals(await codeOf(mux.acceptStream()), "timeout", what);
        assertEquals(leftovers(mux.stats()), NOTHING_LEFT, what);
        // The transport has ended too.
        await drained;
      })
    ));
  }
});

check("slow loris: a peer that says nothing at all is given up in time", async () => {
  const sessions = [
    (conn: Conn) => server(conn, { psk: PSK, ...V2, ...HURRY }),
    (conn: Conn) => server(conn, { psk: PSK, ...ALICE, ...HURRY }),
    (conn: Conn) => client(conn, { psk: PSK, ...V2, ...HURRY }),
    (conn: Conn) => client(conn, { psk: PSK, ...ALICE, ...HURRY }),
    // To this one it may be a gomux, which says nothing before it has something to say.
    (conn: Conn) => server(conn, { psk: PSK, ...BOTH, idleTimeoutMs: 250 }),
  ];
  await Promise.all(sessions.map(async (make) => {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = make(near);
    const drained = drain(far);
    assertEquals(await codeOf(mux.closed), "timeout");
    assertEquals(await codeOf(mux.openStream()), "timeout");
    await drained;
  }));
});

check("slow loris: a byte at a time does not win more time", async () => {
  const [, message] = (await beginnings(CLIENTS[0]!)).at(-2)!;
  for (const options of [V2, BOTH]) {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = server(near, { psk: PSK, ...options, handshakeTimeoutMs: 600 });
    let said = 0;
    let over = false;
    const ending = codeOf(mux.closed).finally(() => over = true);
    const drained = drain(far);
    for (const byte of message) {
      if (over) break;
      await far.write(Uint8Array.of(byte)).catch(() => {});
      said++;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    assertEquals(await ending, "timeout");
    // All of it would have taken three times as long.
    assert(said < message.length, `${said} of ${message.length} bytes`);
    await drained;
  }
});

check("slow loris: a client whose server says half a message is given up in time", async () => {
  const [, said] = (await through(unchanged, V2)).said;
  for (const bytes of [1, 2, 30, said[0]!.length - 1]) {
    const [near, far] = connPair({ lingerMs: 500 });
    const mux = client(near, { psk: PSK, ...V2, ...HURRY });
    const opening = codeOf(mux.openStream());
    await far.write(said[0]!.slice(0, bytes));
    const drained = drain(far);
    assertEquals([await codeOf(mux.closed), await opening], ["timeout", "timeout"]);
    await drained;
  }
});

check("slow loris: a transport that takes nothing is given up in time", async () => {
  for (const options of [V2, ALICE]) {
    const writable = new WritableStream({ write: () => new Promise(() => {}) });
    const readable = new ReadableStream<Uint8Array>({});
    const mux = client({ readable, writable }, { psk: PSK, ...options, ...HURRY });
    assertEquals(await codeOf(mux.ready), "timeout");
    assertEquals(await codeOf(mux.closed), "timeout");
  }
});

check("wrong psk: whoever has it hears the same of a client of both protocols", async () => {
  const line = editedLine("v2");
  const near = client(line.ends[0], { psk: "another", ...V2 });
  const far = server(line.ends[1], { psk: PSK, ...BOTH });
  const told = await talk(near, far);
  await line.over;
  assertEquals(told.map(({ closed, ready }) => [closed, ready]), [
    ["auth-failed", "auth-failed"],
    ["auth-failed", "auth-failed"],
  ]);
});
