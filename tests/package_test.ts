/** What must agree between the configuration files, and what published files may say. */
import { assert, assertEquals } from "@std/assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import deno from "../deno.json" with { type: "json" };
import jsr from "../jsr.json" with { type: "json" };
import npm from "../package.json" with { type: "json" };
import pins from "../tools/pins.json" with { type: "json" };

const ROOT = new URL("../", import.meta.url);
const AREAS = ["ovpn", "cmgr", "uds", "mux"].filter((area) => existsSync(new URL(area, ROOT)));
/** A reader is to hold a file in mind: see the layout in docs. */
const MAX_LINES = 500;

function read(path: string): string {
  return readFileSync(new URL(path, ROOT), "utf8");
}

function sourcesIn(folder: string): string[] {
  const files = readdirSync(new URL(folder, ROOT), { recursive: true, encoding: "utf8" });
  return files.filter((file) => file.endsWith(".ts")).map((file) => `${folder}/${file}`).sort();
}

const PUBLISHED = ["mod.ts", ...["adapters", ...AREAS].flatMap(sourcesIn)];

/** Source without comments, so that prose may say what code may not. */
function code(path: string): string {
  return read(path).replace(/\/\*[^]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");
}

/** What a file imports, in any way. */
function importsOf(path: string): string[] {
  const specifier =
    /(?:^(?:(?:import|export|\})[^"'`\n]*\bfrom|import)\s*|\b(?:import|require)\s*\(\s*)["'`]([^"'`]+)/gm;
  return [...code(path).matchAll(specifier)].map((match) => match[1] ?? "");
}

/** The package of a bare specifier: `@noble/ciphers/chacha.js` is of `@noble/ciphers`. */
function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

test("jsr.json imports exactly what published files import, as deno.json does", () => {
  const bare = PUBLISHED.flatMap(importsOf).filter((specifier) => !specifier.startsWith("."));
  const names = new Set(bare.map(packageOf));
  const imports: Readonly<Record<string, string>> = "imports" in jsr ? Object(jsr.imports) : {};
  assertEquals(Object.keys(imports).sort(), [...names].sort());
  for (const [name, target] of Object.entries(imports)) {
    assertEquals(target, Reflect.get(deno.imports, name), name);
    assert(target.startsWith(name.startsWith("@std/") ? `jsr:${name}@` : `npm:${name}@`), target);
  }
});

test("package.json exports and deno.json's names for ourselves are jsr.json's exports", () => {
  assertEquals(npm.exports, jsr.exports);
  const ours = Object.entries(deno.imports).filter(([name]) => packageOf(name) === jsr.name);
  const exports = ours.map(([name, file]) => [name.replace(jsr.name, "."), file]);
  assertEquals(Object.fromEntries(exports), jsr.exports);
});

test("deno doc --lint reads every entry point", () => {
  const [, linted = ""] = deno.tasks.check.split("deno doc --lint ");
  assertEquals(linted.split(" "), Object.values(jsr.exports).map((file) => file.slice(2)));
});

test("names, versions and licenses agree", () => {
  const { name, version, license } = jsr;
  assertEquals({ name, version, license }, {
    name: npm.name,
    version: npm.version,
    license: npm.license,
  });
  assert(/^## \[(?:Unreleased|\d+\.\d+\.\d+)\]/m.test(read("CHANGELOG.md")));
});

test("the stand-ins of @std agree with deno.json and are never published", () => {
  const folders = readdirSync(new URL("tools/std", ROOT)).filter((name) => !name.includes("."))
    .sort();
  const members = folders.map((folder) => `./tools/std/${folder}`);
  assertEquals([...deno.workspace].sort(), members);
  assertEquals([...jsr.workspace].sort(), members);
  for (const folder of folders) {
    const forDeno = JSON.parse(read(`tools/std/${folder}/deno.json`));
    const forNpm = JSON.parse(read(`tools/std/${folder}/package.json`));
    assertEquals(forDeno.publish, false);
    assertEquals(forNpm.private, true);
    assertEquals([forDeno.name, forDeno.version], [forNpm.name, forNpm.version]);
    assertEquals(Reflect.get(npm.devDependencies, forNpm.name), `file:./tools/std/${folder}`);
    assert(Reflect.get(deno.imports, forNpm.name).startsWith(`jsr:${forNpm.name}@`));
  }
});

test("the README's commands are the pinned ones", () => {
  const lines = read("README.md").split("\n");
  const commands = lines.filter((line) => line.startsWith("npx "));
  assertEquals(commands, [
    `npx -y deno@${pins.deno} task demo`,
    `npx -y -p deno@${pins.deno} -p bun@${pins.bun} -p node@${pins.node} -- deno task test`,
    `npx -y -p deno@${pins.deno} -p bun@${pins.bun} -- deno task pack`,
  ]);
  const tarballs = new Set(read("README.md").match(/trunkline-sockets-\S+\.tgz/g));
  assertEquals([...tarballs], [`trunkline-sockets-${jsr.version}.tgz`]);
});

test("links in README.md and docs/ lead to files that are published", () => {
  const guides = readdirSync(new URL("docs", ROOT)).map((name) => `docs/${name}`);
  for (const file of ["README.md", ...guides]) {
    for (const [, target = ""] of read(file).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(?:https?:|#)/.test(target)) continue;
      const url = new URL(target, new URL(file, ROOT));
      url.hash = "";
      const path = url.href.slice(ROOT.href.length);
      assert(existsSync(url), `${file}: ${target}`);
      const published = jsr.publish.include.some((name) => `${path}/`.startsWith(`${name}/`));
      assert(published, `${file}: ${target} is not published`);
    }
  }
});

test("published files import no runtime's modules, and files of the package only with .ts", () => {
  for (const file of PUBLISHED) {
    for (const specifier of importsOf(file)) {
      assert(!/^(?:node|bun|deno|npm|jsr|https?):/.test(specifier), `${file}: ${specifier}`);
      if (specifier.startsWith(".")) assert(specifier.endsWith(".ts"), `${file}: ${specifier}`);
    }
  }
});

test("outside adapters, published files name no runtime and no area imports another", () => {
  const runtime = /\b(?:Deno|Bun|Buffer)\b|\bprocess\s*[.?[]|["'`]process["'`]/;
  for (const file of ["mod.ts", ...AREAS.flatMap(sourcesIn)]) {
    assertEquals(runtime.exec(code(file))?.[0], undefined, file);
    if (file === "mod.ts") continue;
    const [own = ""] = file.split("/");
    for (const specifier of importsOf(file).filter((name) => name.startsWith("."))) {
      const [area = ""] = new URL(specifier, new URL(file, ROOT)).href.slice(ROOT.href.length)
        .split("/");
      assert(area === own || area === "adapters", `${file}: ${specifier}`);
    }
  }
});

test(`no published file has more than ${MAX_LINES} lines`, () => {
  for (const file of PUBLISHED) {
    const lines = read(file).split("\n").length - 1;
    assert(lines <= MAX_LINES, `${file}: ${lines} lines`);
  }
});
