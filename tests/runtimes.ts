/** The runtimes that tests can start beside their own. */
import { execFileSync } from "node:child_process";
import type { RuntimeName } from "./adapter_kinds.ts";

/** Whether it is on PATH, and new enough for TypeScript. */
export function usable(runtime: RuntimeName): boolean {
  try {
    const [major = 0, minor = 0] = execFileSync(runtime, ["--version"], { encoding: "utf8" })
      .replace(/^\D+/, "").split(".").map(Number);
    return runtime !== "node" || major > 22 || major === 22 && minor >= 18;
  } catch {
    return false;
  }
}
