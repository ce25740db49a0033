/** The README's programs stand in examples/, and each runs on the runtime that it is for. */
import { assert, assertEquals } from "@std/assert";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { bindDatagram, type Conn, connect, formatAddress } from "@trunkline/sockets/auto";
import {
  type Recording,
  replayRecording,
  startScriptedDaemon,
} from "@trunkline/sockets/ovpn/testing";
import { RUNTIME } from "./adapter_kinds.ts";
import { GREETING } from "./ovpn_fake.ts";

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

for (const name of ["watch_deno", "status_bun", "dial_in_node", "clock", "chat"]) {
  test(`the README shows examples/${name}.ts`, () => {
    assert(read("README.md").includes("```ts ignore\n" + read(`examples/${name}.ts`) + "```"));
  });
}

/** A session of OpenVPN, in turns. */
function session(...turns: readonly (readonly [manager: string, daemon: string])[]): Recording {
  const steps = turns.flatMap(([manager, daemon]) => [
    { from: "manager", at: 0, text: manager } as const,
    { from: "daemon", at: 0, text: daemon } as const,
  ]);
  return [{ from: "daemon", at: 0, text: GREETING }, ...steps];
}

const CONNECT: Recording = [
  ...session(
    ["pid\n", "SUCCESS: pid=77\r\n"],
    ["state on\n", "SUCCESS: real-time state notification set to ON\r\n"],
    ["hold off\n", "SUCCESS: hold flag set to OFF\r\n"],
    ["hold release\n", "SUCCESS: hold release succeeded\r\n"],
  ),
  { from: "daemon", at: 0, text: ">STATE:1,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,\r\n" },
  { from: "daemon", at: 0, end: true },
];

interface Program {
  /** Resolves when the pattern is in what it printed. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Sends a signal, by default SIGTERM; resolves with the exit code, which is null if the signal ended it. */
  stop(signal?: "SIGINT"): Promise<number | null>;
}

/** Runs an example with the runtime of this test. */
function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Program {
  const child: ChildProcess = spawn(process.execPath, args, {
    cwd: new URL("../", import.meta.url),
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
  let output = "";
  let look = () => {};
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      look();
    });
  }
  return {
    printed: (pattern) =>
      new Promise((resolve, reject) => {
        look = () => {
          const match = pattern.exec(output);
          if (match !== null) resolve(match);
        };
        look();
        exited.then((code) => reject(new Error(`${args} ended with ${code}:\n${output}`)));
      }),
    stop(signal) {
      child.kill(signal);
      return exited;
    },
  };
}

test("examples/watch_deno.ts tells what happens", {
  skip: RUNTIME !== "deno",
  timeout: 30_000,
}, async () => {
  const daemon = await startScriptedDaemon(CONNECT);
  const flags = ["run", "--no-prompt", "--allow-net", "--allow-env=OPENVPN_PASSWORD"];
  const program = start([...flags, "examples/watch_deno.ts", formatAddress(daemon.addr)]);
  await program.printed(/OpenVPN is process 77\n[^]*CONNECTED 10\.8\.0\.2\n/);
  await program.stop();
  await daemon.close();
});

test("examples/watch_deno.ts takes a unix socket with the permissions that the README tells", {
  skip: RUNTIME !== "deno",
  timeout: 30_000,
}, async () => {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
  const address = join(directory, "vpn.sock");
  const daemon = await startScriptedDaemon(CONNECT, { address });
  const told = "--allow-read=$SOCK --allow-write=$SOCK --allow-net=unix:$SOCK";
  assert(read("README.md").includes(told));
  const flags = told.replaceAll("$SOCK", address).split(" ");
  const env = ["--no-prompt", "--allow-env=OPENVPN_PASSWORD"];
  const program = start(["run", ...env, ...flags, "examples/watch_deno.ts", address]);
  await program.printed(/CONNECTED 10\.8\.0\.2\n/);
  await program.stop();
  await daemon.close();
  rmSync(directory, { recursive: true });
});

test("examples/status_bun.ts serves the list of clients", {
  skip: RUNTIME !== "bun",
  timeout: 30_000,
}, async () => {
  const status = "TITLE\tOpenVPN\r\nCLIENT_LIST\tsomebody\t192.0.2.1\r\nEND\r\n";
  const daemon = await startScriptedDaemon(session(["status 3\n", status]));
  const env = { PORT: "0", OPENVPN_SOCKET: formatAddress(daemon.addr) };
  const program = start(["examples/status_bun.ts"], env);
  const [url] = await program.printed(/http:\/\/localhost:\d+/);
  const response = await fetch(url);
  assertEquals(await response.text(), "CLIENT_LIST\tsomebody\t192.0.2.1");
  await daemon.close();
  const failed = await fetch(url);
  assertEquals(failed.status, 502);
  assert((await failed.text()).startsWith("ConnectError: "));
  await program.stop();
});

test("examples/dial_in_node.ts manages who dials in", {
  skip: RUNTIME !== "node",
  timeout: 30_000,
}, async () => {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
  const path = join(directory, "vpn.sock");
  const program = start(["examples/dial_in_node.ts", path]);
  await program.printed(/Listening on/);
  await replayRecording(await connect(path), CONNECT);
  await program.printed(/77 CONNECTED/);
  assertEquals(await program.stop(), 0);
  assert(!existsSync(path), "the socket file is gone");
  rmSync(directory, { recursive: true });
});

test("examples/clock.ts serves, and asks", { timeout: 30_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
  const path = join(directory, "clock.sock");
  const told = "--allow-read=$DIR --allow-write=$DIR --allow-net";
  assert(read("README.md").includes(told));
  const flags = RUNTIME === "deno"
    ? ["run", "--no-prompt", ...told.replaceAll("$DIR", directory).split(" ")]
    : [];
  const server = start([...flags, "examples/clock.ts", "serve", path]);
  await server.printed(/Listening on/);
  const client = start([...flags, "examples/clock.ts", "ask", path]);
  await client.printed(/\d+:\d+:\d+ [AP]M\ntick 1\ntick 2\ntick 3\n/);
  await client.stop();
  const code = await server.stop();
  // Deno's own end by a signal may come before ours.
  assert(code === 0 || RUNTIME === "deno", `${code}`);
  if (code === 0) assert(!existsSync(path), "the socket file is gone");
  rmSync(directory, { recursive: true });
});

/** Resolves when the line has come, which is what the next one must be. */
type Expect = (line: string) => Promise<void>;

function linesOf(conn: Conn): Expect {
  let text = "";
  return async (line) => {
    while (!text.includes("\n")) {
      const chunk = await conn.read();
      assert(chunk !== null, `the end instead of: ${line}`);
      text += new TextDecoder().decode(chunk);
    }
    const end = text.indexOf("\n");
    assertEquals(text.slice(0, end), line);
    text = text.slice(end + 1);
  };
}

test("examples/chat.ts is one room for TCP, UDP and unix", { timeout: 30_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
  const path = join(directory, "chat.sock");
  const told = "--allow-read=$DIR --allow-write=$DIR --allow-net";
  const flags = RUNTIME === "deno"
    ? ["run", "--no-prompt", ...told.replaceAll("$DIR", directory).split(" ")]
    : [];
  const room = start([...flags, "examples/chat.ts", "--port", "any", "--path", path]);
  const [, tcpAddress = ""] = await room.printed(/l0 on (\S+)\s/);
  const [, udpAddress = ""] = await room.printed(/UDP on (\S+)\s/);
  const bytes = (text: string) => new TextEncoder().encode(text);

  const tcp = await connect(tcpAddress);
  const tcpHears = linesOf(tcp);
  await tcpHears("Welcome, a1");
  const unix = await connect(path);
  const unixHears = linesOf(unix);
  await unixHears("Welcome, a2");
  await tcpHears("a2 enters");
  const udp = await bindDatagram("127.0.0.1:0");
  const guest = formatAddress(udp.addr);
  const udpHears: Expect = async (line) => {
    const { data } = await udp.receive();
    assertEquals(new TextDecoder().decode(data), `${line}\n`);
  };

  await udp.send(bytes("hello\n"), udpAddress);
  await udpHears(`Welcome, ${guest}`);
  for (const hears of [tcpHears, unixHears]) {
    await hears(`${guest} enters`);
    await hears(`${guest} says: hello`);
  }
  await tcp.write(bytes("by \x1b[31mTCP\r\n"));
  for (const hears of [unixHears, udpHears]) await hears("a1 says: by [31mTCP");
  await unix.write(bytes("by unix\nand bye\n"));
  await unix.close();
  for (const hears of [tcpHears, udpHears]) {
    for (const line of ["says: by unix", "says: and bye", "leaves"]) await hears(`a2 ${line}`);
  }
  await udp.send(bytes("\n"), udpAddress);
  await tcpHears(`${guest} leaves`);
  await udp.close();

  const ended = room.stop("SIGINT");
  // Deno's own end by a signal may come before ours, and then by a reset.
  await tcp.read().catch((error) => assertEquals([error.code, RUNTIME], ["reset", "deno"]));
  await tcp.close();
  const code = await ended;
  assert(code === 0 || RUNTIME === "deno", `${code}`);
  if (code === 0) assert(!existsSync(path), "the socket file is gone");
  rmSync(directory, { recursive: true });
});
