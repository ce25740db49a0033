/** Adapters in a process that has no way to other networks, or two addresses for localhost. */
import { assert, assertEquals } from "@std/assert";
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { auto } from "../adapters/auto.ts";
import { node } from "../adapters/node.ts";
import { capabilities, RUNTIME } from "./adapter_kinds.ts";

const CHILD = fileURLToPath(new URL("adapter_child.ts", import.meta.url));
const COMMAND = [
  process.execPath,
  ...(RUNTIME === "deno" ? ["run", "-A", "--no-check"] : []),
  CHILD,
];
const LINUX = process.platform === "linux";
/** Needs root, and a kernel that lets it. */
const NAMESPACES = LINUX &&
  spawnSync("unshare", ["-nm", "ip", "link", "set", "lo", "up"]).status === 0;

/** Runs a shell command line with the child's command as "$@" in it. */
function run(script: string, ...args: string[]): Promise<unknown> {
  const command = script.startsWith("unshare ")
    ? ["unshare", "-nm", "sh", "-c", script.slice("unshare ".length)]
    : ["sh", "-c", script];
  return new Promise((resolve, reject) => {
    const [program = "", ...rest] = [...command, "sh", ...COMMAND, ...args];
    execFile(program, rest, { timeout: 20_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${error.message}\n${stdout}\n${stderr}`));
      else resolve(JSON.parse(stdout));
    });
  });
}

for (const name of RUNTIME === "node" ? ["node"] as const : ["node", RUNTIME] as const) {
  test(
    `${name}: a unix listener has the backlog that was asked for, where the runtime can`,
    { skip: !LINUX, timeout: 30_000 },
    async () => {
      const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
      const path = join(directory, "x.sock");
      const transport = name === "node" ? node : auto;
      const listener = await transport.listen(path, { backlog: 7 });
      try {
        // While this process waits for the other, it accepts nothing.
        const [program = "", ...rest] = [...COMMAND, name, "fill", path];
        const fitted = Number(spawnSync(program, rest, { encoding: "utf8" }).stdout);
        // Linux takes one more; a thread of Deno's accepts another.
        if (capabilities(name, RUNTIME)?.backlog) assert(fitted === 8 || fitted === 9, `${fitted}`);
        else assertEquals(fitted, 20);
      } finally {
        await listener.close();
        rmSync(directory, { recursive: true });
      }
    },
  );

  // Bun's own goes on until the system gives up, minutes later.
  const staysAlive = RUNTIME === "bun" && name === "bun";
  test(
    `${name}: an aborted connect leaves nothing that keeps the process alive`,
    { skip: !NAMESPACES || staysAlive, timeout: 30_000 },
    async () => {
      // What is sent back to the machine that sent it is dropped, and never answered.
      const script = 'unshare ip link set lo up && ip route add 192.0.2.9 dev lo && exec "$@"';
      assertEquals(await run(script, name, "abort", "192.0.2.9:9"), "timeout");
    },
  );

  test(
    `${name}: without a route an address is unreachable`,
    { skip: !NAMESPACES, timeout: 30_000 },
    async () => {
      // A namespace of its own has no way out, so nothing is sent. Bun says ECONNREFUSED of the first, and node:net on
      // Deno has no words for the second.
      const v4 = await run('unshare "$@"', name, "connect", "192.0.2.1:9");
      assertEquals(v4, RUNTIME === "bun" ? "refused" : "unreachable");
      const v6 = await run('unshare "$@"', name, "connect", "[2001:db8::1]:9");

      const wordless = RUNTIME === "deno" && name === "node";
      assertEquals(v6, wordless ? "other" : "unreachable");
    },
  );

  test(
    `${name}: localhost with two addresses is refused at both, and found at the second`,
    { skip: !NAMESPACES, timeout: 30_000 },
    async () => {
      const hosts = "printf '::1 localhost\\n127.0.0.1 localhost\\n' >/mnt/hosts";
      const script = `unshare ip link set lo up && mount -t tmpfs none /mnt && ${hosts} &&
        mount --bind /mnt/hosts /etc/hosts && exec "$@"`;
      assertEquals(await run(script, name, "connect", "localhost:9"), "refused");
      assertEquals(await run(script, name, "pair", "localhost:0"), "ok");
      // A datagram can go only to the address of the socket's own family.
      assertEquals(await run(script, name, "udp", "127.0.0.1:0", "localhost"), "ok");
      assertEquals(await run(script, name, "udp", "[::1]:0", "localhost"), "ok");
    },
  );
}
