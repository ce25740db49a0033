/** Every option of v2: what it is if it is not given, what it does, and that junk is refused before anything is touched. */
import { describe, it } from "node:test";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { connPair, type Duplex } from "@trunkline/sockets/auto";
import {
  type Aead,
  client,
  dial,
  generateIdentity,
  listen,
  loadAead,
  type MuxOptions,
  type MuxProtocol,
  type MuxSuite,
  type MuxWarning,
  nobleAead,
  server,
} from "@trunkline/sockets/mux";
import { configOf } from "../mux/config.ts";
import { closeBoth, codeOf, muxPair, streamPair, text, utf8 } from "./mux_pair.ts";

const STRONG = "a psk of 32 bytes, more or less ";
const V2 = { psk: STRONG, protocol: "v2" } as const;

/** Fails if anybody looks at it. */
const untouched = new Proxy({}, {
  get: (_, name) => {
    throw new Error(`the transport was touched: ${String(name)}`);
  },
  has: (_, name) => {
    throw new Error(`the transport was touched: ${String(name)}`);
  },
}) as Duplex;

/** A transport that nobody is to use. */
const unused = {
  connect: () => Promise.reject(new Error("connected")),
  listen: () => Promise.reject(new Error("listened")),
};

type Junk = Readonly<Record<string, unknown>>;

/** Refused by each way into a session. */
async function refused(junk: Junk, kind: typeof TypeError | typeof RangeError, text = "") {
  const options = { ...V2, ...junk } as unknown as MuxOptions;
  const what = Object.entries(junk).map(([name, value]) => `${name}: ${String(value)}`).join();
  assertThrows(() => client(untouched, options), kind, text, what);
  assertThrows(() => server(untouched, options), kind, text, what);
  await assertRejects(
    () => dial("127.0.0.1:1", { ...options, transport: unused }),
    kind,
    text,
  );
  await assertRejects(
    () => listen("127.0.0.1:1", { ...options, transport: unused }),
    kind,
    text,
  );
}

describe("options of v2: defaults", () => {
  it("are those of the docs", () => {
    const config = configOf({ psk: STRONG }, true);
    assertEquals(config.protocols, ["v1"]);
    assertEquals(config.suites, ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"]);
    assertEquals(config.identity, undefined);
    assertEquals(config.aead, undefined);
    const common = {
      maxStreams: 65536,
      maxPendingOpens: 128,
      maxPendingAccepts: 4096,
      maxStrayFrames: 1000,
      handshakeTimeoutMs: 10_000,
      keepaliveMs: 60_000,
      closeTimeoutMs: 30_000,
      windowBytes: 131072,
      maxStreamWindowBytes: 16777216,
      maxSessionWindowBytes: 67108864,
      padBytes: 1,
      rekeyRecords: 65536,
      rekeyBytes: 1073741824,
    };
    assertEquals({ ...config.limits.v1 }, { ...common, idleTimeoutMs: 900_000 });
    assertEquals({ ...config.limits.v2 }, { ...common, idleTimeoutMs: 180_000 });
  });

  it("hold for what is given as undefined, too", () => {
    const names = Object.keys(configOf({ psk: STRONG }, true).limits.v2);
    const nothing = Object.fromEntries(names.map((name) => [name, undefined]));
    const more = { protocol: undefined, suites: undefined, identity: undefined, aead: undefined };
    const config = configOf({ psk: STRONG, ...nothing, ...more, onWarning: undefined }, false);
    const { isKnown: _, ...rest } = configOf({ psk: STRONG }, false);
    const { isKnown: __, ...got } = config;
    assertEquals(got, rest);
  });

  it("a window that is larger than it may become makes that as large", () => {
    const config = configOf({ ...V2, windowBytes: 2 ** 30 }, true);
    assertEquals(config.limits.v2.maxStreamWindowBytes, 2 ** 30);
  });
});

describe("options of v2: junk", () => {
  const words: readonly unknown[] = [null, "", "V2", "v3", 2, {}, [], ["v2", "v3"], [undefined], [
    [],
  ]];
  for (const protocol of words) {
    it(`protocol ${JSON.stringify(protocol)}`, () => refused({ protocol }, TypeError));
  }

  for (const suites of [null, "", "AESGCM_SHA256", 1, {}, [], ["AESGCM"], [undefined], [1]]) {
    it(`suites ${JSON.stringify(suites)}`, () => refused({ suites }, TypeError));
  }

  for (const psk of [undefined, null, 5, {}, [1, 2], new ArrayBuffer(32), new Uint16Array(16)]) {
    it(`a psk that is ${psk?.constructor.name ?? psk}`, () => refused({ psk }, TypeError, "psk"));
  }

  for (const psk of ["", new Uint8Array(0)]) {
    it(`an empty psk as ${typeof psk}`, async () => {
      await refused({ psk }, RangeError, "the psk is empty");
      assertThrows(() => server(untouched, { psk, protocol: ["v2", "v1"] }), RangeError);
    });
  }

  for (const aead of [{}, { seal() {} }, { seal() {}, open: 1 }, "noble", 1]) {
    it(`an aead that is ${JSON.stringify(aead)}`, () => refused({ aead }, TypeError, "aead"));
  }

  for (const onWarning of [null, 1, {}, "log"]) {
    it(`onWarning ${JSON.stringify(onWarning)}`, () =>
      refused({ onWarning }, TypeError, "onWarning"));
  }

  for (const name of Object.keys(configOf(V2, true).limits.v2)) {
    it(`${name}`, async () => {
      for (const value of [0, -1, NaN, -Infinity, "5", {}, true, 5n]) {
        await refused({ [name]: value }, RangeError, name);
      }
      if (name.endsWith("Ms")) {
        for (const value of [2 ** 31, Infinity]) await refused({ [name]: value }, RangeError, name);
      }
    });
  }

  const bounds: readonly (readonly [string, number])[] = [
    ["windowBytes", 2 ** 31 - 1],
    ["maxStreamWindowBytes", 2 ** 31 - 1],
    ["padBytes", 32768],
    ["rekeyRecords", 65536],
    ["rekeyBytes", 2 ** 30],
  ];
  for (const [name, most] of bounds) {
    it(`${name} beyond ${most}, or not whole`, async () => {
      for (const value of [most + 1, 2 ** 32, Infinity, 1.5]) {
        await refused({ [name]: value }, RangeError, name);
      }
      for (const value of [1, most]) configOf({ ...V2, [name]: value }, true);
    });
  }

  it("an identity without known peers, or the other way round", async () => {
    const { privateKey, publicKey } = await generateIdentity();
    await refused({ identity: { privateKey } }, TypeError, "need each other");
    await refused({ knownPeers: [publicKey] }, TypeError, "need each other");
    await refused({ knownPeers: () => true }, TypeError, "need each other");
  });

  it("an identity with v1", async () => {
    const { privateKey, publicKey } = await generateIdentity();
    const who = { psk: STRONG, identity: { privateKey }, knownPeers: [publicKey] };
    for (const protocol of [undefined, "v1"] as const) {
      assertThrows(() => client(untouched, { ...who, protocol }), TypeError, "v2 alone");
      assertThrows(() => server(untouched, { ...who, protocol }), TypeError, "v2 alone");
    }
    assertThrows(
      () => server(untouched, { ...who, protocol: ["v2", "v1"] }),
      TypeError,
      "v2 alone",
    );
  });

  it("keys that are none", async () => {
    const { privateKey, publicKey } = await generateIdentity();
    const known = { knownPeers: [publicKey] };
    const keys = [undefined, null, "x".repeat(32), new Uint8Array(31), new Uint8Array(33), [1]];
    for (const key of keys) {
      await refused({ identity: { privateKey: key }, ...known }, TypeError);
      await refused({ identity: { privateKey }, knownPeers: [publicKey, key] }, TypeError);
    }
    for (const identity of [null, 5, "me", privateKey]) {
      await refused({ identity, ...known }, TypeError);
    }
    for (const knownPeers of [null, 5, "you", {}, publicKey, new Set([publicKey])]) {
      await refused({ identity: { privateKey }, knownPeers }, TypeError);
    }
  });

  it("options that are none", () => {
    for (const options of [undefined, null, 5] as unknown as MuxOptions[]) {
      assertThrows(() => client(untouched, options), TypeError);
    }
  });
});

describe("protocol", () => {
  it("may be given as a list, with doubles", async () => {
    const lists: readonly (readonly [MuxProtocol[], MuxProtocol[]])[] = [
      [["v2"], ["v2"]],
      [["v2", "v2"], ["v2", "v1", "v2"]],
      [["v1"], ["v1", "v1"]],
      [["v1", "v1"], ["v1", "v2"]],
    ];
    for (const [ours, theirs] of lists) {
      const [near, far] = muxPair({ psk: STRONG, protocol: ours }, {
        psk: STRONG,
        protocol: theirs,
      });
      const [stream, accepted] = await streamPair(near, far);
      await stream.write(utf8("hello"));
      assertEquals(text(await accepted.read()), "hello");
      assertEquals([near.protocol, far.protocol], [ours[0], ours[0]]);
      assertEquals([near.stats().protocol, far.stats().protocol], [ours[0], ours[0]]);
      await closeBoth(near, far);
    }
  });

  it("is one of a client", () => {
    for (const protocol of [["v1", "v2"], ["v2", "v1"]] as const) {
      assertThrows(() => client(untouched, { psk: STRONG, protocol }), TypeError, "one protocol");
    }
  });

  it("is copied", async () => {
    const protocol: MuxProtocol[] = ["v2"];
    const suites: MuxSuite[] = ["AESGCM_SHA256"];
    const [near, far] = muxPair({ psk: STRONG, protocol, suites });
    protocol[0] = "v1";
    suites[0] = "ChaChaPoly_BLAKE2b";
    await Promise.all([near.ready, far.ready]);
    assertEquals([near.protocol, near.stats().suite], ["v2", "AESGCM_SHA256"]);
    await closeBoth(near, far);
  });

  it("v2 never falls back, and is refused where it is not allowed", async () => {
    const cases: readonly (readonly [MuxProtocol, MuxProtocol, string])[] = [
      ["v2", "v1", "auth-failed"],
      ["v1", "v2", "truncated"],
    ];
    for (const [ours, theirs, code] of cases) {
      const [near, far] = muxPair({ psk: STRONG, protocol: ours }, {
        psk: STRONG,
        protocol: theirs,
      });
      await near.openStream({ signal: AbortSignal.timeout(5000) }).catch(() => {});
      assertEquals(await codeOf(far.closed), "protocol");
      assertEquals(await codeOf(near.closed), code);
    }
  });
});

describe("suites", () => {
  const ask = async (ours: MuxSuite[] | undefined, theirs: MuxSuite[] | undefined) => {
    const [near, far] = muxPair({ ...V2, suites: ours }, { ...V2, suites: theirs });
    try {
      await Promise.all([near.ready, far.ready]);
      assertEquals(near.stats().suite, far.stats().suite);
      return near.stats().suite;
    } catch {
      assertEquals(await codeOf(far.closed), "protocol");
      return await codeOf(near.closed);
    } finally {
      await closeBoth(near, far).catch(() => {});
    }
  };

  it("the client's first one is spoken if the server takes it", async () => {
    const [chacha, aes] = ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const;
    assertEquals(await ask(undefined, undefined), chacha);
    assertEquals(await ask([chacha, aes], [aes, chacha]), chacha);
    assertEquals(await ask([aes, chacha], undefined), aes);
    assertEquals(await ask([aes], [chacha, aes]), aes);
    assertEquals(await ask([aes, aes], [aes]), aes);
    assertEquals(await ask([chacha, aes], [aes]), "auth-failed");
    assertEquals(await ask([aes], [chacha]), "auth-failed");
  });
});

describe("aead", () => {
  it("is taken for its cipher alone", async () => {
    const counting = (aead: Aead) => {
      let calls = 0;
      const counted: Aead = {
        name: "counted",
        cipher: aead.cipher,
        seal: (boxes) => (calls++, aead.seal(boxes)),
        open: (boxes) => (calls++, aead.open(boxes)),
      };
      return { counted, calls: () => calls };
    };
    const ciphers = [nobleAead, await loadAead("noble", "AES-256-GCM")] as const;
    for (const [i, suite] of (["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const).entries()) {
      for (const [j, aead] of ciphers.entries()) {
        const { counted, calls } = counting(aead);
        const [near, far] = muxPair({ ...V2, suites: [suite], aead: counted }, V2);
        const [stream, accepted] = await streamPair(near, far);
        await stream.write(utf8("hello"));
        assertEquals(text(await accepted.read()), "hello");
        assertEquals(calls() > 0, i === j, `${suite} with ${aead.cipher}`);
        assertEquals(near.stats().aead === "counted", i === j);
        await closeBoth(near, far);
      }
    }
  });
});

describe("psk", () => {
  it("is copied, and of a Buffer as well, by sessions and by listeners", async () => {
    for (const make of [(s: string) => utf8(s), (s: string) => Buffer.from(s)]) {
      const [ours, theirs] = [make(STRONG), make(STRONG)];
      const [near, far] = muxPair({ ...V2, psk: ours }, { ...V2, psk: theirs });
      ours.fill(0);
      theirs.fill(0);
      await Promise.all([near.ready, far.ready]);
      await closeBoth(near, far);

      const [listening, dialling] = [make(STRONG), make(STRONG)];
      const listened = listen("127.0.0.1:0", { ...V2, psk: listening });
      listening.fill(0);
      const listener = await listened;
      const dialled = dial(listener.addr, { ...V2, psk: dialling });
      dialling.fill(0);
      const accepted = await listener.accept();
      const session = await dialled;
      await Promise.all([session.ready, accepted.ready]);
      await closeBoth(session, accepted);
      await listener.close();
    }
  });

  it("is the same as text and as bytes, and not the same cut, longer, or in another case", async () => {
    const euro = "€".repeat(12);
    const [near, far] = muxPair({ ...V2, psk: euro }, { ...V2, psk: utf8(euro) });
    await Promise.all([near.ready, far.ready]);
    await closeBoth(near, far);
    for (const psk of [STRONG.slice(0, -1), `${STRONG}\0`, STRONG.toUpperCase()]) {
      const [one, other] = muxPair(V2, { ...V2, psk });
      assertEquals(await codeOf(one.closed), "auth-failed");
      assertEquals(await codeOf(other.closed), "auth-failed");
    }
  });

  it("may have any length", async () => {
    for (const length of [1, 31, 32, 33, 64, 65, 100_000]) {
      const [near, far] = muxPair({ ...V2, psk: new Uint8Array(length).fill(7) });
      await Promise.all([near.ready, far.ready]);
      await closeBoth(near, far);
    }
  });
});

describe("onWarning", () => {
  /** What `start` warns of. */
  const told = async (
    psk: string | Uint8Array,
    start: (options: MuxOptions) => unknown,
  ): Promise<MuxWarning[]> => {
    const warnings: MuxWarning[] = [];
    await start({ psk, protocol: "v2", onWarning: (warning) => warnings.push(warning) });
    return warnings;
  };
  const begin = (options: MuxOptions) => {
    const [near, far] = connPair();
    const mux = client(near, options);
    mux.abort();
    far.abort();
  };

  it("hears of a psk of less than 16 bytes", async () => {
    assertEquals((await told("x".repeat(16), begin)).length, 0);
    assertEquals((await told(new Uint8Array(16), begin)).length, 0);
    assertEquals((await told("é".repeat(8), begin)).length, 0);
    for (const psk of ["x".repeat(15), new Uint8Array(15), `${"é".repeat(7)}x`, "x"]) {
      const [warning, ...more] = await told(psk, begin);
      assertEquals([warning?.code, more.length], ["weak-psk", 0]);
    }
  });

  it("hears its length and nothing else of it", async () => {
    const one = await told("hunter2", begin);
    assertEquals(one, await told("0123456", begin));
    assert(one[0]!.message.includes("7 bytes"));
    assert(!JSON.stringify(one).includes("hunter2"));
    assertEquals(Object.keys(one[0]!).sort(), ["code", "message"]);
  });

  it("hears it of v1 as well", async () => {
    const warnings = await told("short", (options) => begin({ ...options, protocol: "v1" }));
    assertEquals(warnings.map(({ code }) => code), ["weak-psk"]);
  });

  it("hears it once from each client(), server(), dial() and listen()", async () => {
    const serve = (options: MuxOptions) => {
      const [near, far] = connPair();
      server(near, options).abort();
      far.abort();
    };
    assertEquals((await told("short", serve)).length, 1);
    const counts = { listening: 0, dialling: 0 };
    const listener = await listen("127.0.0.1:0", {
      psk: "short",
      protocol: "v2",
      onWarning: () => counts.listening++,
    });
    for (let i = 0; i < 3; i++) {
      const near = await dial(listener.addr, {
        psk: "short",
        protocol: "v2",
        onWarning: () => counts.dialling++,
      });
      const far = await listener.accept();
      await Promise.all([near.ready, far.ready]);
      await closeBoth(near, far);
    }
    await listener.close();
    assertEquals(counts, { listening: 1, dialling: 3 });
  });

  it("throws to whoever called, before the transport is touched", async () => {
    const options: MuxOptions = {
      psk: "short",
      protocol: "v2",
      onWarning: () => {
        throw new EvalError("no");
      },
    };
    assertThrows(() => client(untouched, options), EvalError, "no");
    assertThrows(() => server(untouched, options), EvalError, "no");
    await assertRejects(
      () => dial("127.0.0.1:1", { ...options, transport: unused }),
      EvalError,
    );
    await assertRejects(
      () => listen("127.0.0.1:1", { ...options, transport: unused }),
      EvalError,
    );
  });
});

describe("a listener that was not taken over", () => {
  it("is closed if onWarning throws", async () => {
    let listening = 0;
    const transport = {
      listen: () => {
        listening++;
        const close = () => Promise.resolve(void listening--);
        return Promise.resolve({ close, closed: Promise.resolve() } as never);
      },
    };
    const onWarning = () => {
      throw new EvalError("no");
    };
    const listened = listen("127.0.0.1:1", {
      psk: "short",
      protocol: "v2",
      onWarning,
      transport,
    });
    await assertRejects(() => listened, EvalError);
    assertEquals(listening, 0);
  });
});
