/** Anything happens to a manager, in any order: its promises hold. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { auto } from "../adapters/auto.ts";
import { World } from "./cmgr_model.ts";
import { memoryPlace, plans } from "./cmgr_model_plans.ts";
import type { Plan } from "./cmgr_model_step.ts";
import { timersLeft } from "./cmgr_model_timers.ts";
import { unhandledDuring } from "./unhandled.ts";

/** Checks many plans, the same ones each time. */
function check(title: string, runs: number, seed: number, run: (plan: Plan) => Promise<void>) {
  test(`cmgr: ${title}`, { timeout: 60_000 }, async () => {
    const property = fc.asyncProperty(plans, run);
    const unhandled = await unhandledDuring(() =>
      fc.assert(property, { numRuns: runs, seed, endOnFailure: true })
    );
    assertEquals(unhandled, []);
  });
}

check(
  "whatever happens in memory, its promises hold, and no timer is left",
  80,
  1,
  async (plan) => {
    const left = await timersLeft(() => new World(plan, memoryPlace()).play());
    assertEquals(left, 0);
  },
);

check("whatever happens to sockets, its promises hold", 25, 2, async (plan) => {
  const folder = mkdtempSync(join(tmpdir(), "cmgr-"));
  let paths = 0;
  const address = (unix: boolean) =>
    unix ? { path: join(folder, `${paths++}`) } : { hostname: "127.0.0.1", port: 0 };
  try {
    await new World(plan, { ...memoryPlace(), transport: auto, address }).play();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
