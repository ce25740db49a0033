/**
 * Bundles every entry point for a browser and evaluates the bundle where there is nothing but
 * what a browser has: no `Deno`, no `Bun`, no `process`, no `require`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createContext, runInContext } from "node:vm";
import jsr from "../jsr.json" with { type: "json" };
import { output } from "./command.ts";

/** What our modules may touch while they are loaded; all of it is in every browser and worker. */
const WEB_GLOBALS = [
  "AbortController",
  "AbortSignal",
  "console",
  "crypto",
  "DOMException",
  "Event",
  "EventTarget",
  "performance",
  "queueMicrotask",
  "ReadableStream",
  "setTimeout",
  "clearTimeout",
  "TextDecoder",
  "TextEncoder",
  "TransformStream",
  "URL",
  "WritableStream",
];

interface Loaded {
  readonly names: readonly string[];
  readonly connect?: (address: string) => Promise<unknown>;
}

/** Evaluates the text of a bundle that leaves its module in `loaded`. */
function evaluate(bundle: string): Loaded {
  const globals = WEB_GLOBALS.map((name) => [name, Reflect.get(globalThis, name)]);
  const context = createContext(Object.fromEntries(globals));
  runInContext(bundle, context);
  return runInContext("({ names: Object.keys(loaded), connect: loaded.connect })", context);
}

const directory = mkdtempSync(join(tmpdir(), "trunkline-bundle-"));
try {
  for (const [name, file] of Object.entries(jsr.exports)) {
    const entry = join(directory, "entry.ts");
    const bundle = join(directory, "bundle.js");
    const url = pathToFileURL(file).href;
    writeFileSync(entry, `import * as module from "${url}";\nglobalThis.loaded = module;\n`);
    const browser = ["--platform", "browser", "--format", "iife"];
    await output(["deno", "bundle", "--quiet", ...browser, entry, "--output", bundle]);
    const text = readFileSync(bundle, "utf8");
    const reach = /\b__require\("[^"]*"\)|\bimport\("[^"]*"\)/.exec(text);
    if (reach !== null) throw new Error(`${name}: the bundle still says ${reach[0]}`);
    const { names, connect } = evaluate(text);
    if (names.length === 0) throw new Error(`${name}: the bundle exports nothing`);
    if (connect !== undefined) {
      const error = await connect("127.0.0.1:1").then(() => undefined, (error) => error);
      if (error?.code !== "unsupported") {
        throw new Error(`${name}: connect in a browser is to be unsupported, not ${error}`);
      }
    }
    console.log(`${name}: ${Math.ceil(text.length / 1024)} KiB, ${names.length} exports`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
