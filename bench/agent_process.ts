/**
 * A process of ours that is told what to do, in lines of JSON.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** What it answers. */
export type Numbers = Readonly<Record<string, number>>;

/** The same program once more, with a job for `--agent`. */
export class AgentProcess<Command> {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<unknown>;

  /** `program` is the URL of the benchmark, `peers` its option of that name; it runs on the same runtime, or on the `bun` of that path. */
  constructor(program: string, job: object, peers: string | undefined, bun?: string) {
    const own = process.versions.deno ? ["run", "-A"] : process.execArgv;
    this.#process = spawn(bun ?? process.execPath, [
      ...(bun === undefined ? own : []),
      fileURLToPath(program),
      `--agent=${JSON.stringify(job)}`,
      ...(peers === undefined ? [] : [`--peers=${peers}`]),
    ], { stdio: ["pipe", "pipe", "inherit"] });
    this.#exited = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]();
  }

  async answer(): Promise<Numbers> {
    const { done, value } = await this.#lines.next();
    if (done) throw new Error("the process ended");
    return JSON.parse(value);
  }

  ask(command: Command): Promise<Numbers> {
    this.#process.stdin!.write(`${JSON.stringify(command)}\n`);
    return this.answer();
  }

  kill(): void {
    this.#process.kill("SIGKILL");
  }

  async end(): Promise<void> {
    this.#process.stdin!.end();
    await this.#exited;
  }
}
