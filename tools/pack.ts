/**
 * Makes the npm package of `bun add` and `npm install`: dist/npm, and a tarball of it in dist.
 *
 * tsc writes one JavaScript file per source file, with its comments, so that stack traces and
 * class names stay what they are here. The parts of @std that we import are not on npm: they are
 * bundled into `_std/`, with the notice that their license asks for.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import deno from "../deno.json" with { type: "json" };
import jsr from "../jsr.json" with { type: "json" };
import repository from "../package.json" with { type: "json" };
import { run } from "./command.ts";

const OUT = "dist/npm";
const STD_COPYRIGHT = "Copyright 2018-2026 the Deno authors";

/** The bare specifiers that the emitted files import. */
const bare = new Set<string>();

/**
 * Points the imports of an emitted file at what is in the package. tsc has done so for relative
 * imports of JavaScript, but not of declarations; examples in comments start with ` *`.
 */
function resolveImports(path: string): void {
  const toFile = (specifier: string): string => {
    if (specifier.startsWith(".")) return specifier.replace(/\.ts$/, ".js");
    bare.add(specifier);
    if (!specifier.startsWith("@std/")) return specifier;
    const file = relative(dirname(path), join(OUT, "_std", `${specifier.slice(5)}.js`));
    return file.startsWith(".") ? file : `./${file}`;
  };
  const text = readFileSync(path, "utf8")
    .replace(
      /^(import "|(?:import|export)\b[^;"]*\bfrom ")([^"]+)(";)/gm,
      (_, before, specifier, after) => before + toFile(specifier) + after,
    )
    .replace(
      /\b(import\(")([^"]+)("\))/g,
      (_, before, specifier, after) => before + toFile(specifier) + after,
    );
  writeFileSync(path, text);
}

/** The text of the MIT license, without a name. */
function mitTerms(): string {
  const license = readFileSync("LICENSE", "utf8");
  return license.slice(license.indexOf("Permission is hereby granted"));
}

/** Bundles one package of @std into `_std/`. */
async function inlineStd(specifier: string): Promise<void> {
  const file = join(OUT, "_std", `${specifier.slice(5)}.js`);
  const banner = `// ${specifier}: ${STD_COPYRIGHT}. MIT license, see THIRD_PARTY_NOTICES.`;
  const source = join("node_modules", specifier, "mod.js");
  await run(["bun", "build", "--format=esm", `--banner=${banner}`, source, `--outfile=${file}`]);
}

/** The package.json of the package: jsr.json's facts, and what only npm asks for. */
function packageJson(): Record<string, unknown> {
  const entry = (source: string) => {
    const file = source.replace(/\.ts$/, "");
    return { types: `${file}.d.ts`, default: `${file}.js` };
  };
  const exports = Object.entries(jsr.exports).map(([name, source]) => [name, entry(source)]);
  const dependencies = [...bare].filter((name) => !name.startsWith("@std/")).map((specifier) => {
    const name = Object.keys(deno.imports).find((name) => `${specifier}/`.startsWith(`${name}/`));
    const target: string | undefined = name && Reflect.get(deno.imports, name);
    const [, version] = target?.match(/^npm:.+@(.+)$/) ?? [];
    if (name === undefined || version === undefined) {
      throw new Error(`${specifier} is imported, but deno.json says no npm package for it`);
    }
    return [name, version];
  });
  return {
    name: jsr.name,
    version: jsr.version,
    description: repository.description,
    keywords: repository.keywords,
    license: jsr.license,
    type: "module",
    sideEffects: false,
    engines: repository.engines,
    exports: { ...Object.fromEntries(exports), "./package.json": "./package.json" },
    ...dependencies.length === 0 ? {} : { dependencies: Object.fromEntries(dependencies) },
  };
}

rmSync("dist", { recursive: true, force: true });
await run(["deno", "run", "-A", "node_modules/.bin/tsc", "-p", "tsconfig.build.json"]);
for (const path of readdirSync(OUT, { recursive: true, encoding: "utf8" })) {
  if (/\.(?:js|d\.ts)$/.test(path)) resolveImports(join(OUT, path));
}
const std = [...bare].filter((name) => name.startsWith("@std/"));
mkdirSync(join(OUT, "_std"), { recursive: true });
for (const specifier of std) await inlineStd(specifier);
for (const name of ["README.md", "LICENSE", "CHANGELOG.md", "docs"]) {
  cpSync(name, join(OUT, name), { recursive: true });
}
if (std.length > 0) {
  const notice = `_std/ holds parts of ${std.join(", ")}.\n\nMIT License\n\n${STD_COPYRIGHT}\n\n`;
  writeFileSync(join(OUT, "THIRD_PARTY_NOTICES"), notice + mitTerms());
}
writeFileSync(join(OUT, "package.json"), JSON.stringify(packageJson(), null, 2) + "\n");
await run(["bun", "pm", "pack", "--quiet", "--destination", ".."], { cwd: OUT });
