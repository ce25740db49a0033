/**
 * Installs the tarball of `deno task pack` as a user would, into empty projects of Bun, Node and
 * Deno, imports every entry point there and sends something through a socket; compiles a program
 * against its declarations; and has publint and attw look at it.
 */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import jsr from "../jsr.json" with { type: "json" };
import { output, run, versionOf } from "./command.ts";
import pins from "./pins.json" with { type: "json" };

const TARBALL = resolve(`dist/${jsr.name.slice(1).replace("/", "-")}-${jsr.version}.tgz`);
const ENTRIES = Object.keys(jsr.exports).map((name) => join(jsr.name, name));

/** What every project runs: all entry points, and bytes through the sockets of its runtime. */
const PROGRAM = `
${ENTRIES.map((name, i) => `import * as entry${i} from "${name}";`).join("\n")}
import { connect, listen } from "${jsr.name}/auto";

for (const entry of [${ENTRIES.map((_, i) => `entry${i}`)}]) {
  if (Object.keys(entry).length === 0) throw new Error("an entry point exports nothing");
}
const listener = await listen("127.0.0.1:0");
const client = await connect(listener.addr);
const served = await listener.accept();
await client.write(new TextEncoder().encode("hello"));
const heard = new TextDecoder().decode((await served.read()) ?? undefined);
if (heard !== "hello") throw new Error("heard " + heard);
await Promise.all([client.close(), served.close()]);
await listener.close();
`;

/** A project of one program; `files` are its other files. */
function project(name: string, files: Readonly<Record<string, unknown>>): string {
  const directory = join(workplace, name);
  mkdirSync(directory);
  for (const [file, content] of Object.entries({ "main.ts": PROGRAM, ...files })) {
    const text = typeof content === "string" ? content : JSON.stringify(content);
    writeFileSync(join(directory, file), text);
  }
  return directory;
}

/** Deno installs from registries alone: this one, on loopback, has one package of one version. */
async function withRegistry(use: (url: string) => Promise<void>): Promise<void> {
  const tarball = readFileSync(TARBALL);
  const integrity = `sha512-${createHash("sha512").update(tarball).digest("base64")}`;
  const server = createServer((request, response) => {
    if (request.url === "/package.tgz") return response.end(tarball);
    const dist = { tarball: `${url}package.tgz`, integrity };
    const { name, version } = jsr;
    // Deno reads them here, and not in the tarball.
    const { dependencies } = JSON.parse(readFileSync("dist/npm/package.json", "utf8"));
    const versions = { [version]: { name, version, dependencies, dist } };
    response.end(JSON.stringify({ name, "dist-tags": { latest: version }, versions }));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  try {
    await use(url);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function checkBun(): Promise<void> {
  const cwd = project("bun", { "package.json": { type: "module" } });
  await output(["bun", "add", TARBALL], { cwd });
  await run(["bun", "main.ts"], { cwd });
}

async function checkNode(): Promise<void> {
  const cwd = project("node", { "package.json": { type: "module" } });
  await output(["npm", "install", "--no-audit", "--no-fund", TARBALL], { cwd });
  await run(["node", "main.ts"], { cwd });
  // The declarations, read whole: with the types of a browser, and with those of Node alone.
  const strict = { module: "nodenext", target: "esnext", strict: true, noEmit: true };
  const types = { typeRoots: [resolve("node_modules/@types")] };
  const configs = {
    "browser.json": { ...strict, lib: ["esnext", "dom"], types: [] },
    "node.json": { ...strict, ...types, lib: ["esnext"], types: ["node"] },
  };
  const tsc = ["deno", "run", "-A", resolve("node_modules/.bin/tsc")];
  for (const [file, compilerOptions] of Object.entries(configs)) {
    writeFileSync(join(cwd, file), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
    await run([...tsc, "-p", file], { cwd });
  }
}

async function checkDeno(): Promise<void> {
  await withRegistry(async (url) => {
    const scope = `${jsr.name.split("/")[0]}:registry=${url}\n`;
    const cwd = project("deno", { "deno.json": {}, ".npmrc": scope });
    // With the cache of `deno install`: our dependencies are in it, and ours is not, since its registry is a new one.
    await output(["deno", "add", `npm:${jsr.name}@${jsr.version}`], { cwd });
    await run(["deno", "run", "--check", "--allow-net", "main.ts"], { cwd });
    const { denoDir } = JSON.parse(await output(["deno", "info", "--json"], { cwd }));
    rmSync(join(denoDir, "npm", new URL(url).port), { recursive: true, force: true });
  });
}

async function checkLint(): Promise<void> {
  const cwd = project("lint", {});
  const tool = (specifier: string) => ["deno", "run", "-A", "--quiet", `npm:${specifier}`];
  const said = await output([...tool(`publint@${pins.publint}`), "run", "--strict", TARBALL], {
    cwd,
  });
  if (!said.includes("All good")) throw new Error(said);
  const attw = tool(`@arethetypeswrong/cli@${pins.attw}`);
  await output([...attw, "--profile", "esm-only", "--no-emoji", TARBALL], { cwd });
}

const workplace = mkdtempSync(join(tmpdir(), "trunkline-pack-"));
try {
  const checks = {
    [`bun ${versionOf("bun")}`]: checkBun,
    [`node ${versionOf("node")}`]: checkNode,
    [`deno ${versionOf("deno")}`]: checkDeno,
    "publint and attw": checkLint,
  };
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`${name}: ok`);
  }
} finally {
  rmSync(workplace, { recursive: true, force: true });
}
