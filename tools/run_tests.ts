/**
 * Runs the tests on the runtimes named on the command line (`deno`, `bun`, `node`; `doc` is the
 * examples in documentation), and ends with one line: `N passed, N failed, N skipped`.
 *
 * A runner alone is not a gate: Node exits with 0 when no file matches, and waits for ever for a
 * leaked handle. So the counts come from a JUnit report, each run has a minimum, and a time limit.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { versionOf } from "./command.ts";
import pins from "./pins.json" with { type: "json" };

interface Run {
  /** The program, which is to be on PATH. */
  readonly program: string;
  /** Its arguments; the last one is continued with the path of the report. */
  readonly args: readonly string[];
  /** Which files, for a runner that does not know by its configuration. */
  readonly files?: readonly string[];
  /**
   * Fewer tests that pass than this are a failure: raise it as tests are added. It leaves room for what is skipped without
   * OpenVPN or without root.
   */
  readonly minimum: number;
}

/** The whole run of one runtime; the slowest takes half of it on two cores. */
const TIME_LIMIT_MS = 900_000;
/** Node runs TypeScript as it is since this version. */
const OLDEST_NODE = [22, 18] as const;

const RUNS: Readonly<Record<string, Run>> = {
  deno: { program: "deno", args: ["test", "-A", "--unstable-net", "--junit-path="], minimum: 3000 },
  bun: {
    program: "bun",
    // Five seconds, the default, are short on a busy machine; tests that mean a limit say it.
    args: ["test", "--timeout=30000", "--reporter=junit", "--reporter-outfile="],
    minimum: 2900,
  },
  node: {
    program: "node",
    args: [
      "--test",
      "--test-reporter=spec",
      "--test-reporter-destination=stdout",
      "--test-reporter=junit",
      "--test-reporter-destination=",
    ],
    files: ["tests/**/*_test.ts"],
    minimum: 2650,
  },
  doc: {
    program: "deno",
    args: ["test", "-A", "--doc", "--junit-path="],
    files: ["README.md", "docs", "mod.ts", "ovpn", "cmgr", "mux", "uds", "adapters"],
    minimum: 65,
  },
};

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Why `program` cannot be used, or undefined. */
function missing(program: string, version: string | undefined): string | undefined {
  const all = `npx -y -p deno@${pins.deno} -p bun@${pins.bun} -p node@${pins.node}`;
  const help = `${all} -- deno task test:${program} brings its own`;
  if (version === undefined) return `${program} is not on PATH: ${help}`;
  if (program !== "node") return undefined;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major > oldestMajor || major === oldestMajor && minor >= oldestMinor) return undefined;
  return `node ${version} is older than ${OLDEST_NODE.join(".")}: ${help}`;
}

/** Runs `program` in a process group of its own, so that what it leaves behind ends with it. */
function exitCode(program: string, args: readonly string[]): Promise<number | string> {
  const child = spawn(program, args, {
    stdio: ["ignore", "inherit", "inherit"],
    detached: true,
  });
  const killGroup = () => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {
      // Nothing is left of it.
    }
  };
  const interrupted = () => {
    killGroup();
    process.exit(130);
  };
  process.once("SIGINT", interrupted).once("SIGTERM", interrupted);
  return new Promise<number | string>((resolve, reject) => {
    const timer = setTimeout(() => {
      killGroup();
      resolve(`no end within ${TIME_LIMIT_MS / 1000} s: a leaked socket, timer or process?`);
    }, TIME_LIMIT_MS);
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      clearTimeout(timer);
      resolve(code ?? `ended by ${signal}`);
    });
  }).finally(() => process.off("SIGINT", interrupted).off("SIGTERM", interrupted));
}

/** Counts of a JUnit report; all three runtimes escape `<` in names and messages. */
function countReport(path: string): Counts {
  let report = "";
  try {
    report = readFileSync(path, "utf8");
  } catch {
    // A runner that was killed, or failed before the first test, writes none.
  }
  const count = (tag: string) => report.match(new RegExp(`<${tag}\\b`, "g"))?.length ?? 0;
  const failed = count("failure");
  const skipped = count("skipped");
  return { passed: count("testcase") - failed - skipped, failed, skipped };
}

async function runTests(name: string): Promise<Counts> {
  const run = RUNS[name];
  if (run === undefined) throw new Error(`no tests are called ${name}: ${Object.keys(RUNS)}`);
  const version = versionOf(run.program);
  const reason = missing(run.program, version);
  if (reason !== undefined) {
    console.error(reason);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  const label = `${name === "doc" ? "examples on " : ""}${run.program} ${version}`;
  console.log(`== ${label}`);
  const directory = mkdtempSync(join(tmpdir(), "trunkline-report-"));
  try {
    const report = join(directory, "junit.xml");
    const args = [...run.args.slice(0, -1), run.args.at(-1) + report, ...run.files ?? []];
    const end = await exitCode(run.program, args);
    const counts = countReport(report);
    const problems: string[] = [];
    if (typeof end === "string") problems.push(end);
    else if (end !== 0 && counts.failed === 0) problems.push(`ended with ${end}`);
    else if (counts.passed < run.minimum) problems.push(`passed fewer than ${run.minimum} tests`);
    for (const problem of problems) console.error(`${label}: ${problem}`);
    const { passed, failed, skipped } = { ...counts, failed: counts.failed + problems.length };
    console.log(`== ${label}: ${passed} passed, ${failed} failed, ${skipped} skipped`);
    return { passed, failed, skipped };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const total = { passed: 0, failed: 0, skipped: 0 };
for (const name of process.argv.slice(2)) {
  const { passed, failed, skipped } = await runTests(name);
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
