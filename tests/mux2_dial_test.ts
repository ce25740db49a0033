/** dial() and listen() with v2, over what each runtime has. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { assert, assertEquals } from "@std/assert";
import { auto } from "@trunkline/sockets/auto";
import {
  client,
  deriveKey,
  dial,
  FLAG,
  generateIdentity,
  listen,
  type Mux,
  type MuxOptions,
} from "@trunkline/sockets/mux";
import { closeBoth, codeOf, readAll, streamPair, text, utf8 } from "./mux_pair.ts";
import { Peer } from "./mux_peer.ts";
import { PSK2 } from "./mux2_peer.ts";

const V2 = { psk: PSK2, protocol: "v2" } as const;

async function echo(near: Mux, far: Mux): Promise<void> {
  const [stream, accepted] = await streamPair(near, far);
  const bytes = new Uint8Array(1 << 20).fill(9);
  const reading = readAll(accepted);
  await stream.write(bytes);
  await stream.closeWrite();
  const got = await reading;
  assertEquals(got.length, bytes.length);
  await accepted.write(utf8("thanks"));
  await accepted.closeWrite();
  assertEquals(text(await readAll(stream)), "thanks");
}

/** Sessions over TCP, and over a unix socket, closed by either side. */
async function everyWay(options: MuxOptions, theirs: MuxOptions = options): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "mux2-"));
  try {
    for (const address of ["127.0.0.1:0", join(folder, "s")]) {
      const listener = await listen(address, theirs);
      for (const first of [0, 1]) {
        const near = await dial(listener.addr, options);
        const far = await listener.accept();
        await Promise.all([near.ready, far.ready]);
        assertEquals([near.protocol, far.protocol], ["v2", "v2"]);
        await echo(near, far);
        await echo(far, near);
        await [near, far][first]!.close();
        await Promise.all([near.closed, far.closed]);
      }
      await listener.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("dial() and listen()", () => {
  for (const suite of ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const) {
    it(`speak v2 with ${suite} over TCP and unix sockets`, { timeout: 60_000 }, async () => {
      await everyWay({ ...V2, suites: [suite] });
    });
  }

  it("know each other", { timeout: 60_000 }, async () => {
    const [alice, bob] = [await generateIdentity(), await generateIdentity()];
    await everyWay(
      { ...V2, identity: alice, knownPeers: [bob.publicKey] },
      { ...V2, identity: bob, knownPeers: [alice.publicKey] },
    );
  });

  it("with another psk are auth-failed on both sides", { timeout: 60_000 }, async () => {
    const listener = await listen("127.0.0.1:0", V2);
    for (let i = 0; i < 5; i++) {
      const near = await dial(listener.addr, { ...V2, psk: `${PSK2}!` });
      const far = await listener.accept();
      assertEquals([await codeOf(near.ready), await codeOf(far.ready)], [
        "auth-failed",
        "auth-failed",
      ]);
      assertEquals([await codeOf(near.closed), await codeOf(far.closed)], [
        "auth-failed",
        "auth-failed",
      ]);
    }
    await listener.close();
  });

  it(
    "serve one that speaks v1 as gomux does and one that speaks v2",
    { timeout: 60_000 },
    async () => {
      const listener = await listen("127.0.0.1:0", { psk: PSK2, protocol: ["v2", "v1"] });
      const sessions: Mux[] = [];
      const serving = (async () => {
        for await (const session of listener) {
          sessions.push(session);
          session.acceptStream().then(async (stream) => {
            await stream.write(await readAll(stream));
            await stream.closeWrite();
          }).catch(() => {});
        }
      })();
      const old = new Peer(await auto.connect(listener.addr), deriveKey(PSK2));
      const near = await dial(listener.addr, V2);
      const stream = await near.openStream();
      await stream.write(utf8("new"));
      await stream.closeWrite();
      assertEquals(text(await readAll(stream)), "new");

      await old.send({ id: 0, flags: FLAG.OPEN_STREAM });
      await old.send({ id: 0, flags: FLAG.DATA, payload: utf8("old") });
      await old.send({ id: 0, flags: FLAG.CLOSE_READ });
      await old.until(() => old.seen(0).closes.length > 0, "an end");
      assertEquals(text(old.received(0)), "old");

      assertEquals(sessions.map(({ protocol }) => protocol).sort(), ["v1", "v2"]);
      await old.send({ id: 0, flags: FLAG.CLOSE_MUX });
      await near.close();
      await old.end();
      await Promise.all(sessions.map(({ closed }) => closed));
      await listener.close();
      await serving;
    },
  );

  it("of v2 refuse one that speaks v1 or anything else", { timeout: 60_000 }, async () => {
    const listener = await listen("127.0.0.1:0", V2);
    const old = client(await auto.connect(listener.addr), { psk: PSK2 });
    const opening = old.openStream().catch(() => {});
    const refusing = await listener.accept();
    assertEquals(await codeOf(refusing.ready), "protocol");
    assertEquals(await codeOf(old.closed), "truncated");
    await opening;
    const web = await auto.connect(listener.addr);
    await web.write(utf8("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"));
    const other = await listener.accept();
    assertEquals(await codeOf(other.closed), "protocol");
    assertEquals((await readAll(web).catch(() => new Uint8Array(0))).length, 0);
    web.abort();
    await listener.close();
  });

  it("one session too slow holds no other up", { timeout: 60_000 }, async () => {
    const listener = await listen("127.0.0.1:0", { ...V2, handshakeTimeoutMs: 300 });
    const silent = await auto.connect(listener.addr);
    const waiting = await listener.accept();
    const [near, far] = [await dial(listener.addr, V2), await listener.accept()];
    await echo(near, far);
    assertEquals(await codeOf(waiting.closed), "timeout");
    silent.abort();
    await closeBoth(near, far);
    await listener.close();
    assert(near.stats().rtt! >= 0);
  });
});
