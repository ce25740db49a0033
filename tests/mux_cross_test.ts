/** Sessions between two runtimes: this one, and each that is on PATH. */
import { assertEquals } from "@std/assert";
import { type ChildProcess, spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  dial,
  type GeneratedIdentity,
  generateIdentity,
  listen,
  type Mux,
  type MuxOptions,
  type MuxSuite,
} from "@trunkline/sockets/mux";
import type { RuntimeName } from "./adapter_kinds.ts";
import { readAll } from "./mux_pair.ts";
import { pattern } from "./mux_vectors.ts";
import { usable } from "./runtimes.ts";

const CHILD = fileURLToPath(new URL("./mux_child.ts", import.meta.url));
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const COMMANDS: readonly (readonly [RuntimeName, readonly string[]])[] = [
  ["deno", ["run", "-A"]],
  ["bun", []],
  ["node", []],
];
const PSK = "pässwörd ✓";

interface Options extends Omit<MuxOptions, "psk"> {
  readonly identity?: GeneratedIdentity;
}

/** A session with a child that echoes. */
type Meet = (
  child: (...parameters: readonly string[]) => ChildProcess,
  ours: Options,
  theirs: string,
) => Promise<Mux>;

const toServer: Meet = async (start, ours, theirs) => {
  const child = start(theirs);
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout!.setEncoding("utf8").once("data", resolve);
    child.once("exit", () => reject(new Error("the child ended")));
  });
  return await dial(JSON.parse(line), { ...ours, psk: PSK });
};

const fromClient: Meet = async (start, ours, theirs) => {
  const listener = await listen("127.0.0.1:0", { ...ours, psk: PSK });
  start(theirs, JSON.stringify(listener.addr));
  const mux = await listener.accept();
  await listener.close();
  return mux;
};

const json = (options: Options): string =>
  JSON.stringify(options, (_, it) => it instanceof Uint8Array ? [...it] : it);

/** Meets a child of a runtime, has it echo, and ends in order. */
async function talk(
  [runtime, args]: typeof COMMANDS[number],
  meet: Meet,
  ours: Options,
  theirs: Options = ours,
): Promise<void> {
  let child: ChildProcess | undefined;
  let exited: Promise<unknown> | undefined;
  try {
    const start = (...parameters: readonly string[]) => {
      child = spawn(runtime, [...args, CHILD, PSK, ...parameters], {
        cwd: ROOT,
        stdio: ["ignore", "pipe", "inherit"],
      });
      exited = new Promise((resolve) => child!.once("exit", resolve));
      return child;
    };
    const mux = await meet(start, ours, json(theirs));
    const sizes = [0, 1, 64, 8191, 8192, 65536, 65537, 300_000, 2_000_000];
    await Promise.all([...sizes, ...sizes].map(async (size, seed) => {
      const stream = await mux.openStream();
      const sent = stream.write(pattern(size, seed)).then(() => stream.closeWrite());
      assertEquals(await readAll(stream), pattern(size, seed));
      await sent;
    }));
    assertEquals(mux.stats().peerCounts, true);
    assertEquals(mux.stats().suite, ours.suites?.[0]);
    assertEquals(mux.peerKey, theirs.identity && theirs.identity.publicKey);
    await mux.close();
    assertEquals(await exited, 0);
  } finally {
    child?.kill("SIGKILL");
  }
}

const WAYS: readonly (readonly [MuxSuite, Meet, string])[] = [
  ["ChaChaPoly_BLAKE2b", toServer, "to"],
  ["ChaChaPoly_BLAKE2b", fromClient, "from"],
  ["AESGCM_SHA256", fromClient, "from"],
];

for (const command of COMMANDS) {
  const [runtime] = command;
  const options = { skip: !usable(runtime), timeout: 60_000 };
  test(`mux: to ${runtime}`, options, () => talk(command, toServer, {}));

  for (const [suite, meet, way] of WAYS) {
    // With keys that change often.
    const v2 = { protocol: "v2", suites: [suite], rekeyRecords: 7, padBytes: 64 } as const;
    test(`mux v2: ${way} ${runtime}, ${suite}`, options, () => talk(command, meet, v2));
  }

  test(`mux v2: to ${runtime}, with identities`, options, async () => {
    const [ours, theirs] = [await generateIdentity(), await generateIdentity()];
    const v2 = { protocol: "v2", suites: ["AESGCM_SHA256"] } as const;
    await talk(
      command,
      toServer,
      { ...v2, identity: ours, knownPeers: [theirs.publicKey] },
      { ...v2, identity: theirs, knownPeers: [ours.publicKey] },
    );
  });
}
