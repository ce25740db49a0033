/** Sockets that another process hands over, as systemd does. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  activatedListeners,
  activatedSockets,
  type Address,
  connect,
  ConnectError,
  listenFd,
  MAX_ACTIVATED_SOCKETS,
} from "@trunkline/sockets/auto";
import { dialServer } from "@trunkline/sockets/uds";
import type { LaunchPlan } from "./activation_child.ts";
import { RUNTIME } from "./adapter_kinds.ts";

const CHILD = fileURLToPath(new URL("activation_child.ts", import.meta.url));
const NODE = RUNTIME === "node" ? process.execPath : "node";
const skip = process.platform !== "linux" || spawnSync(NODE, ["--version"]).status !== 0;
const NO_SYSTEMD = skip || spawnSync("systemd-socket-activate", ["--version"]).status !== 0;

const directory = skip ? "" : mkdtempSync(join(tmpdir(), "trunkline-"));
const running = new Set<ChildProcess>();
after(async () => {
  // All of them end with their input.
  await Promise.all([...running].map((child) => {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.stdin!.end();
    return gone;
  }));
  if (directory !== "") rmSync(directory, { recursive: true });
});
let paths = 0;
const newPath = (): string => join(directory, `${++paths}.sock`);

function command(args: readonly string[], permissions: readonly string[] = ["-A"]): string[] {
  const flags = RUNTIME === "deno" ? ["run", "--no-prompt", "--no-check", ...permissions] : [];
  return [process.execPath, ...flags, CHILD, ...args];
}

interface Child {
  /** The next line that it prints, as what its JSON says. */
  line(): Promise<unknown>;
  readonly exited: Promise<unknown>;
}

function start(program: string, args: readonly string[]): Child {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  running.add(child);
  let text = "";
  let wake = () => {};
  child.stdout.setEncoding("utf8").on("data", (more) => {
    text += more;
    wake();
  });
  const exited = new Promise<void>((resolve) =>
    child.once("close", () => {
      running.delete(child);
      resolve();
      wake();
    })
  );
  return {
    exited,
    async line() {
      while (!text.includes("\n")) {
        if (!running.has(child)) throw new Error("the child has ended without a line");
        await new Promise<void>((resolve) => wake = resolve);
      }
      const line = text.slice(0, text.indexOf("\n"));
      text = text.slice(line.length + 1);
      return JSON.parse(line);
    },
  };
}

function launch(plan: LaunchPlan, args: readonly string[], permissions?: string[]): Child {
  return start(NODE, [CHILD, "launch", JSON.stringify(plan), ...command(args, permissions)]);
}

const check = (title: string, body: () => Promise<void>) =>
  test(`activation: ${title}`, { skip, timeout: 60_000 }, body);

type Printed = readonly (readonly [name: string, address: Address])[];

check("calls and TCP are served over what was handed over", async () => {
  const path = newPath();
  const child = launch({ sockets: [{ path }, "tcp"], names: "rpc:web.socket" }, ["serve"]);
  const [rpc, web] = await child.line() as Printed;
  assertEquals([rpc, web![0]], [["rpc", { path }], "web.socket"]);

  const client = await dialServer(path);
  const data = new Uint8Array(100_000).fill(7);
  assertEquals(await client.call("Echo", data), data);
  const conn = await connect(web![1]);
  await conn.write(new Uint8Array([1, 2, 3]));
  assertEquals(await conn.read(), new Uint8Array([1, 2, 3]));
  await conn.close();
  await client.call("Close");
  await client.close();
  await child.exited;
  assert(existsSync(path), "the file is not the child's");
});

for (const kind of ["a path", "an abstract name"]) {
  check(`close() leaves ${kind} to who handed it over, and to the next process`, async () => {
    const path = kind === "a path" ? newPath() : `\0trunkline-${process.pid}-activation`;
    const child = launch({ sockets: [{ path }], runs: 2 }, ["serve"]);
    const pids = new Set<string>();
    const printed = [["unknown", { path }]];
    assertEquals(await child.line(), printed);
    for (let run = 0; run < 2; run++) {
      // The second time nobody listens again yet, and the call waits for the next process.
      const client = await dialServer(path);
      pids.add(new TextDecoder().decode(await client.call("Pid")));
      if (run === 1) assertEquals(await child.line(), printed);
      await client.call("Close");
      await client.closed;
      assertEquals(existsSync(path), kind === "a path");
    }
    await child.exited;
    assertEquals(pids.size, 2);
  });
}

const refusal = (fd: number) => [
  "invalid-address",
  `listening on file descriptor ${fd}: no stream socket that can listen`,
];

check("what is no stream socket is refused by its descriptor", async () => {
  const child = launch({ sockets: ["udp", "file", "connected"] }, ["try", "3", "4", "5", "99"]);
  assertEquals(await child.line(), [3, 4, 5, 99].map(refusal));
  await child.exited;
});

check("one that cannot be listened on, and all are refused", async () => {
  const child = launch({ sockets: ["tcp", "udp"] }, ["serve"]);
  assertEquals(await child.line(), refusal(4));
  await child.exited;
});

test(
  "activation: Deno needs --allow-env of three variables, and nothing else",
  { skip: skip || RUNTIME !== "deno", timeout: 60_000 },
  async () => {
    const env = "--allow-env=LISTEN_PID,LISTEN_FDS,LISTEN_FDNAMES";
    const path = newPath();
    const child = launch({ sockets: [{ path }] }, ["serve"], [env]);
    // Where the socket is stands in /proc, which is for --allow-all.
    assertEquals(await child.line(), [["unknown", { path: "" }]]);
    const client = await dialServer(path);
    await client.call("Close");
    await client.close();
    await child.exited;
    const refused = launch({ sockets: ["tcp"] }, ["serve"], ["--allow-env=LISTEN_PID"]);
    assertEquals((await refused.line() as unknown[])[0], "permission");
    await refused.exited;
  },
);

test("activation: systemd's own", { skip: NO_SYSTEMD, timeout: 60_000 }, async () => {
  const path = newPath();
  const args = ["-l", path, "--fdname=rpc", ...command(["serve"])];
  const child = start("systemd-socket-activate", args);
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 20));
  // It starts the child at the first connection.
  const client = await dialServer(path);
  assertEquals(await client.call("Echo", new Uint8Array([5])), new Uint8Array([5]));
  assertEquals(await child.line(), [["rpc", { path }]]);
  await client.call("Close");
  await client.close();
  await child.exited;
});

const NAMES = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] as const;

/** Runs `body` with these three variables, and gives what is left of them. */
function withVariables(values: readonly (string | undefined)[], body: () => void): unknown {
  for (const [i, name] of NAMES.entries()) {
    const value = values[i];
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  try {
    body();
    return NAMES.map((name) => process.env[name]);
  } finally {
    for (const name of NAMES) delete process.env[name];
  }
}

const OURS = String(process.pid);

test("activatedSockets() gives what is handed to this process, to one caller", () => {
  const left = withVariables([OURS, "2", "a:"], () => {
    assertEquals(activatedSockets(), [{ fd: 3, name: "a" }, { fd: 4, name: "" }]);
    assertEquals(activatedSockets(), []);
  });
  assertEquals(left, [undefined, undefined, undefined]);
  withVariables([OURS, String(MAX_ACTIVATED_SOCKETS)], () => {
    const sockets = activatedSockets();
    assertEquals(sockets.length, MAX_ACTIVATED_SOCKETS);
    assertEquals(sockets[0], { fd: 3, name: "unknown" });
  });
});

test("activatedSockets() leaves what is for another process", () => {
  for (const values of [["1", "2", "a:b"], [undefined, "2", "a:b"], [OURS, undefined, "a:b"]]) {
    const left = withVariables(values, () => assertEquals(activatedSockets(), []));
    assertEquals(left, values);
  }
});

test("activatedSockets() refuses variables that cannot be, and takes nothing", () => {
  const malformed = [
    ...["", "x", "-1", "0", "1.5", " 1", "0x1", "4294967296"].map((pid) => [pid, "1"]),
    ...["", "x", "-1", "0", "1e1", String(MAX_ACTIVATED_SOCKETS + 1)].map((fds) => [OURS, fds]),
    ...["", "a:b:c"].map((names) => [OURS, "2", names]),
  ];
  for (const values of malformed) {
    const left = withVariables(values, () => {
      const error = assertThrows(() => activatedSockets(), ConnectError);
      assertEquals(error.code, "invalid-address", error.message);
    });
    assertEquals(left, [...values, undefined].slice(0, 3));
  }
});

test("listenFd() refuses what is no descriptor, limits that are none, and a signal that fired", async () => {
  for (const fd of [-1, 0.5, NaN]) await assertRejects(() => listenFd(fd), RangeError);
  await assertRejects(() => listenFd(9999, { maxPending: 0 }), RangeError);
  await assertRejects(() => listenFd(9999, { lingerMs: -1 }), RangeError);
  const error = await assertRejects(
    () => listenFd(9999, { signal: AbortSignal.abort() }),
    ConnectError,
  );
  assertEquals(error.code, "aborted");
  assertEquals(await activatedListeners(), []);
});
