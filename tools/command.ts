/** Starting other programs, for the tools of this folder. */
import { spawn, spawnSync } from "node:child_process";
import process from "node:process";

/** How a program is started. */
export interface CommandOptions {
  /** The directory it runs in. */
  readonly cwd?: string;
  /** Environment variables beside ours. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a program, its output among ours, and throws unless it exits with 0. */
export async function run(command: readonly string[], options: CommandOptions = {}): Promise<void> {
  await finish(command, options, ["ignore", "inherit", "inherit"]);
}

/** Runs a program and returns what it says on both outputs; throws with it unless it exits with 0. */
export function output(command: readonly string[], options: CommandOptions = {}): Promise<string> {
  return finish(command, options, ["ignore", "pipe", "pipe"]);
}

function finish(
  command: readonly string[],
  options: CommandOptions,
  stdio: ["ignore", "inherit" | "pipe", "inherit" | "pipe"],
): Promise<string> {
  const [program, ...args] = command as [string, ...string[]];
  const env = { ...process.env, ...options.env };
  const child = spawn(program, args, { cwd: options.cwd ?? process.cwd(), env, stdio });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8");
    stream?.on("data", (text: string) => said += text);
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) return resolve(said);
      reject(new Error(`${command.join(" ")}: ended with ${signal ?? code}\n${said}`));
    });
  });
}

/** The version a program states, or undefined where it is not on PATH. */
export function versionOf(program: string): string | undefined {
  const { status, stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  return status === 0 ? /\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined;
}
