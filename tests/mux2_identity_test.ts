/** Who proves to be whom on v2, and what becomes of those who are not known. */
import { describe, it } from "node:test";
import { assertEquals } from "@std/assert";
import { connPair } from "@trunkline/sockets/auto";
import { client, generateIdentity, type MuxOptions, server } from "@trunkline/sockets/mux";
import { closeBoth, codeOf, muxPair, streamPair, text, utf8 } from "./mux_pair.ts";

const STRONG = "a psk of 32 bytes, more or less ";
const V2 = { psk: STRONG, protocol: "v2" } as const;

describe("identity", () => {
  const known = async (
    knownToServer: MuxOptions["knownPeers"] | "client",
    knownToClient: MuxOptions["knownPeers"] | "server" = "server",
    more: Partial<MuxOptions> = {},
  ) => {
    const [alice, bob] = [await generateIdentity(), await generateIdentity()];
    const [near, far] = connPair({ lingerMs: 500 });
    const ours = client(near, {
      ...V2,
      ...more,
      identity: alice,
      knownPeers: knownToClient === "server" ? [bob.publicKey] : knownToClient,
    });
    const theirs = server(far, {
      ...V2,
      ...more,
      identity: bob,
      knownPeers: knownToServer === "client" ? [alice.publicKey] : knownToServer,
    });
    return { ours, theirs, alice, bob };
  };

  it("is proved to each other, with a list, a function, and one that takes its time", async () => {
    const seen: Uint8Array[] = [];
    const ways: (MuxOptions["knownPeers"] | "client")[] = [
      "client",
      (key) => seen.push(key) > 0,
      async (key) => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        return seen.push(key) > 0;
      },
    ];
    for (const way of ways) {
      const { ours, theirs, alice, bob } = await known(way);
      await Promise.all([ours.ready, theirs.ready]);
      assertEquals([ours.peerKey, theirs.peerKey], [bob.publicKey, alice.publicKey]);
      // Copies.
      ours.peerKey!.fill(0);
      assertEquals(ours.peerKey, bob.publicKey);
      if (way !== "client") assertEquals(seen.at(-1), alice.publicKey);
      const [stream, accepted] = await streamPair(ours, theirs);
      await stream.write(utf8("hello"));
      assertEquals(text(await accepted.read()), "hello");
      await closeBoth(ours, theirs);
    }
  });

  it("that is not known, or is said to be so by anything but true, is refused on both sides", async () => {
    const stranger = (await generateIdentity()).publicKey;
    const functions = [false, 1, "yes", undefined, {}].map((answer) =>
      (() => answer) as unknown as (key: Uint8Array) => boolean
    );
    const lists: MuxOptions["knownPeers"][] = [
      [],
      [stranger],
      ...functions,
      () => Promise.resolve(false),
    ];
    for (const list of lists) {
      for (const bySender of [true, false]) {
        const { ours, theirs } = bySender ? await known("client", list) : await known(list);
        const errors = await Promise.all([codeOf(ours.closed), codeOf(theirs.closed)]);
        // A server whose client goes away does not know why.
        assertEquals(errors, ["auth-failed", bySender ? "truncated" : "auth-failed"]);
        await Promise.allSettled([ours.ready, theirs.ready]);
      }
    }
  });

  it("of a function that fails is refused, with the cause", async () => {
    const why = new EvalError("no database");
    for (
      const list of [() => Promise.reject(why), () => {
        throw why;
      }]
    ) {
      const { ours, theirs } = await known(list);
      const error = await theirs.closed.then(() => undefined, (it) => it);
      assertEquals([error.code, error.cause], ["auth-failed", why]);
      assertEquals(await codeOf(ours.closed), "auth-failed");
      const { ours: asking, theirs: asked } = await known("client", list);
      assertEquals(await codeOf(asking.closed), "auth-failed");
      assertEquals(await codeOf(asked.closed), "truncated");
    }
  });

  it("of a function that never answers is a timeout", async () => {
    const never = () => new Promise<boolean>(() => {});
    const { ours, theirs } = await known(never, "server", { handshakeTimeoutMs: 100 });
    assertEquals(await codeOf(theirs.closed), "timeout");
    await codeOf(ours.closed);
    const { ours: asking, theirs: asked } = await known("client", never, {
      handshakeTimeoutMs: 100,
    });
    assertEquals(await codeOf(asking.closed), "timeout");
    await codeOf(asked.closed);
  });

  it("and its known peers are copied, of a Buffer as well", async () => {
    const [alice, bob] = [await generateIdentity(), await generateIdentity()];
    const [aPrivate, bPrivate] = [Buffer.from(alice.privateKey), Buffer.from(bob.privateKey)];
    const [aPublic, bPublic] = [Buffer.from(alice.publicKey), Buffer.from(bob.publicKey)];
    const [near, far] = connPair({ lingerMs: 500 });
    const ours = client(near, { ...V2, identity: { privateKey: aPrivate }, knownPeers: [bPublic] });
    const theirs = server(far, {
      ...V2,
      identity: { privateKey: bPrivate },
      knownPeers: [aPublic],
    });
    for (const bytes of [aPrivate, bPrivate, aPublic, bPublic]) bytes.fill(0);
    await Promise.all([ours.ready, theirs.ready]);
    await closeBoth(ours, theirs);
  });

  it("on one side alone is refused", async () => {
    const [alice, bob] = [await generateIdentity(), await generateIdentity()];
    const who = { identity: alice, knownPeers: [bob.publicKey] };
    const sides = [[{ ...V2, ...who }, V2], [V2, { ...V2, ...who }]] as const;
    for (const [ours, theirs] of sides) {
      const [near, far] = muxPair(ours, theirs);
      assertEquals(await codeOf(far.closed), "protocol");
      assertEquals(await codeOf(near.closed), "auth-failed");
    }
  });

  it("does not replace the psk", async () => {
    const [alice, bob] = [await generateIdentity(), await generateIdentity()];
    const [near, far] = muxPair(
      { ...V2, identity: alice, knownPeers: [bob.publicKey] },
      { ...V2, psk: `${STRONG}!`, identity: bob, knownPeers: [alice.publicKey] },
    );
    assertEquals(await codeOf(far.closed), "auth-failed");
    assertEquals(await codeOf(near.closed), "auth-failed");
    assertEquals(await codeOf(near.ready), "auth-failed");
  });

  it("generateIdentity() makes another one each time, and its public key is that of the private one", async () => {
    const all = await Promise.all(Array.from({ length: 5 }, () => generateIdentity()));
    assertEquals(new Set(all.map(({ privateKey }) => privateKey.join())).size, 5);
    assertEquals(new Set(all.map(({ publicKey }) => publicKey.join())).size, 5);
    for (const { privateKey, publicKey } of all) {
      assertEquals([privateKey.length, publicKey.length], [32, 32]);
    }
  });
});
