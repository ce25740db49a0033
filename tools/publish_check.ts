/**
 * Rehearses publishing, by `deno publish` and by `jsr publish`: types that can be extracted, names,
 * exports and imports are checked, and the files are those that a user needs and no others.
 */
import jsr from "../jsr.json" with { type: "json" };
import { output } from "./command.ts";

/** With a deno.json beside it, jsr.json is read only if named. A work tree may hold unfinished work. */
const DRY_RUN = ["publish", "--dry-run", "--allow-dirty", "--config", "jsr.json"];
const NEEDED = ["README.md", "LICENSE", "CHANGELOG.md", ...Object.values(jsr.exports)];
const PUBLISHED =
  /^(?:mod\.ts|(?:adapters|ovpn|cmgr|mux|mux\/v1|mux\/v2|uds)\/[^/]+\.ts|docs\/[^/]+\.md|README\.md|LICENSE|CHANGELOG\.md|jsr\.json)$/;

const PUBLISHERS: Readonly<Record<string, readonly string[]>> = {
  "deno publish": ["deno"],
  "jsr publish": ["deno", "run", "-A", "node_modules/.bin/jsr"],
};

for (const [publisher, command] of Object.entries(PUBLISHERS)) {
  // jsr downloads a Deno of its own unless it is given one.
  const env = { DENO_BIN_PATH: "deno", NO_COLOR: "1" };
  const said = await output([...command, ...DRY_RUN], { env });
  const root = new URL("..", import.meta.url).href;
  const files = [...said.matchAll(/^\s+(file:\S+) \(/gm)].map(([, url = ""]) =>
    url.slice(root.length)
  );
  for (const file of files) {
    if (!PUBLISHED.test(file)) throw new Error(`${publisher}: ${file} is not for users`);
  }
  for (const file of NEEDED) {
    if (!files.includes(file.replace("./", ""))) {
      throw new Error(`${publisher}: ${file} is not among the files:\n${said}`);
    }
  }
  console.log(`${publisher}: ${jsr.name}@${jsr.version}, ${files.length} files`);
}
