/** The least that Deno must be allowed for each entry point. */
import { assertEquals } from "@std/assert";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { RUNTIME } from "./adapter_kinds.ts";
import { type Permission, PERMISSIONS } from "./deno_permissions.ts";

const skip = RUNTIME !== "deno" || process.platform !== "linux";
const ROOT = fileURLToPath(new URL("../", import.meta.url));
const CHILD = join(ROOT, "tests/adapter_child.ts");
/** Without any flag of the kind, node:child_process on Deno would run Deno with every permission. */
const NOTHING = "--allow-env=TRUNKLINE_NOTHING";
const ENTRY_POINTS = ["auto", "deno", "node"];

const base = skip ? "" : mkdtempSync(join(tmpdir(), "trunkline-"));
after(() => {
  if (base !== "") rmSync(base, { recursive: true, force: true });
});

/** Runs the child on Deno, which is never to ask or to crash; gives back what it printed. */
function child(flags: readonly string[], ...args: readonly string[]): Promise<unknown> {
  const all = ["run", "--no-prompt", "--no-check", NOTHING, ...flags, CHILD, ...args];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, all, { timeout: 20_000 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`deno ${all.join(" ")}\n${stderr}`));
      else resolve(JSON.parse(stdout));
    });
  });
}

for (const entry of ENTRY_POINTS) {
  const check = (title: string, body: () => Promise<void>) =>
    test(`permissions of ${entry}: ${title}`, { skip, timeout: 60_000 }, body);
  let directories = 0;
  /** A permission as it is for this process. */
  const here = ({ flags, args }: Permission): { flags: string[]; args: string[] } => {
    const directory = join(base, `${entry}-${++directories}`);
    mkdirSync(directory);
    const fill = (text: string) =>
      text.replace("$SOCK", join(directory, "x.sock")).replace("$DIR", directory)
        .replace("$$", `${process.pid}-${entry}`);
    return { flags: flags.map(fill), args: args.map(fill) };
  };

  for (const permission of Object.values(PERMISSIONS)) {
    check(`${permission.doing}: enough, and without any one of them refused`, async () => {
      const { flags, args } = here(permission);
      assertEquals(await child(flags, entry, ...args), permission.prints, `with ${flags}`);
      for (const [i, flag] of flags.entries()) {
        const result = await child(flags.toSpliced(i, 1), entry, ...args);
        // Who is at the other end is not told, and nothing else is missing.
        const expected = flag === "--allow-ffi" ? "unknown" : "permission";
        assertEquals(result, expected, `${args} without ${flag}`);
      }
    });
  }

  check("TLS needs what TCP needs, and here the certificates' files", async () => {
    const certificates = `--allow-read=${join(ROOT, "tests/fixtures/tls")}`;
    const { flags } = here(PERMISSIONS.listen);
    const args = [entry, "tls", "127.0.0.1:0"];
    assertEquals(await child([certificates, ...flags], ...args), "ok");
    assertEquals(await child([certificates], ...args), "permission");
  });

  check("a port that was not named is refused, and so is every interface", async () => {
    const other = await child(["--allow-net=127.0.0.1:2"], entry, "connect", "127.0.0.1:1");
    assertEquals(other, "permission");
    assertEquals(await child(["--allow-net=127.0.0.1"], entry, "listen", "[::]:0"), "permission");
  });

  check("listening on a unix path needs more of net than that path", async () => {
    const { flags, args } = here(PERMISSIONS.listenUnix);
    const scoped = flags.with(-1, `--allow-net=unix:${args[1]}`);
    assertEquals(await child(scoped, entry, ...args), "permission");
  });
}
