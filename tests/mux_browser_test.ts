/**
 * A session between a browser and this runtime, over a WebSocket. Where there is no Chromium it is skipped, but not where
 * REQUIRE_CHROMIUM is 1, as in CI.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Duplex } from "@trunkline/sockets/auto";
import { type MuxStream, server } from "@trunkline/sockets/mux";
import { findProgram } from "../examples/openvpn_process.ts";
import { output } from "../tools/command.ts";
import {
  content,
  GREETING_BYTES,
  GREETING_SEED,
  isSame,
  type PageReport,
  type SessionReport,
  SESSIONS,
  STREAM_BYTES,
  STREAMS,
} from "./mux_browser_plan.ts";
import { type Site, startSite } from "./mux_browser_site.ts";
import { PSK, readAll } from "./mux_pair.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const PAGE = fileURLToPath(new URL("./mux_browser_page.ts", import.meta.url));
/** From the start of the browser to its report; it takes two seconds on two cores. */
const REPORT_WITHIN_MS = 60_000;
const TEST_TIMEOUT_MS = 120_000;

const CHROMIUM = ["chromium", "chromium-browser", "google-chrome"].map(findProgram)
  .find((path) => path !== undefined);
if (CHROMIUM === undefined && process.env["REQUIRE_CHROMIUM"] === "1") {
  throw new Error("no Chromium is here");
}

type Bundler = (input: string, output: string) => readonly string[];

const BUNDLERS: Readonly<Record<string, Bundler>> = {
  deno: (input, output) => [
    ...["deno", "bundle", "--quiet", "--platform", "browser", "--minify"],
    ...[input, "--output", output],
  ],
  bun: (input, output) => [
    ...["bun", "build", "--target=browser", "--minify"],
    ...[input, `--outfile=${output}`],
  ],
};

/** Why it is skipped, or false. */
function skipReason(bundler: string): string | false {
  if (CHROMIUM === undefined) return "no Chromium is on PATH";
  return findProgram(bundler) === undefined ? `${bundler}, the bundler, is not on PATH` : false;
}

/** Starts Chromium on `site`, its files in `directory`; resolves with `reported`, or rejects if it ends or takes too long. */
async function withChromium<T>(
  site: Site,
  directory: string,
  reported: Promise<T>,
): Promise<T> {
  const browser = spawn(CHROMIUM!, [
    ...["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    ...["--no-first-run", "--disable-background-networking", "--disable-component-update"],
    // Nothing but this machine, whatever its environment says.
    ...["--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
    ...[`--user-data-dir=${join(directory, "profile")}`, `http://127.0.0.1:${site.port}/`],
  ], { env: { ...process.env, HOME: directory }, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  browser.stderr.setEncoding("utf8").on(
    "data",
    (text: string) => said = (said + text).slice(-4000),
  );
  const exited = new Promise<string>((resolve) => {
    browser.once("error", (error) => resolve(error.message));
    // Which waits for its helpers too: they hold the same stderr, and end with it.
    browser.once("close", (code, signal) => resolve(`it ended with ${signal ?? code}`));
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`nothing within ${REPORT_WITHIN_MS} ms`), REPORT_WITHIN_MS);
  });
  try {
    const failed = Promise.race([exited, late]).then((how): never => {
      const events = site.events.join("\n") || "none";
      throw new Error(
        `Chromium has not reported: ${how}\nat the server: ${events}\nit said: ${said}`,
      );
    });
    return await Promise.race([reported, failed]);
  } finally {
    clearTimeout(timer);
    browser.kill("SIGKILL");
    await exited;
  }
}

/** Sends back what comes, and gives how much that was. */
async function echo(stream: MuxStream): Promise<number> {
  let count = 0;
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    count += chunk.length;
    await stream.write(chunk);
  }
  await stream.close();
  return count;
}

/** The server's side of one session. */
async function runSession(duplex: Duplex, closes: boolean): Promise<SessionReport> {
  const mux = server(duplex, { psk: PSK });
  const greeting = await mux.openStream();
  const sent = content(GREETING_BYTES, GREETING_SEED);
  const [back] = await Promise.all([
    readAll(greeting),
    greeting.write(sent).then(() => greeting.closeWrite()),
    ...Array.from({ length: STREAMS }, async () => {
      assertEquals(await echo(await mux.acceptStream()), STREAM_BYTES);
    }),
  ]);
  if (closes) await mux.close();
  else await mux.closed;
  return { same: isSame(back, sent) ? 1 : 0, stats: mux.stats() };
}

interface Reports {
  readonly page: readonly SessionReport[];
  readonly server: readonly SessionReport[];
}

/** Bundles the page, opens it in Chromium, and gives what both sides have seen of each session. */
async function runInBrowser(bundle: Bundler, policy?: string): Promise<Reports> {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-browser-"));
  try {
    const script = join(directory, "page.js");
    await output(bundle(PAGE, script), { cwd: ROOT });
    const page = Promise.withResolvers<readonly SessionReport[]>();
    const servers = SESSIONS.map(() => Promise.withResolvers<SessionReport>());
    const reported = Promise.all([page.promise, ...servers.map(({ promise }) => promise)]);
    const site = await startSite({
      pages: {
        "/": {
          type: "text/html",
          body:
            `<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>`,
          headers: policy === undefined ? [] : [`Content-Security-Policy: ${policy}`],
        },
        "/page.js": { type: "text/javascript", body: readFileSync(script, "utf8") },
      },
      onPost(body) {
        const report: PageReport = JSON.parse(body);
        if ("error" in report) {
          const events = site.events.join("\n");
          page.reject(new Error(`in the page: ${report.error}\nat the server: ${events}`));
        } else page.resolve(report.sessions);
      },
      async onWebSocket(path, duplex) {
        const index = SESSIONS.findIndex(({ transport }) => path === `/mux/${transport}`);
        const report = await runSession(duplex, SESSIONS[index]?.closer === "server");
        servers[index]?.resolve(report);
      },
    });
    try {
      const [page, ...server] = await withChromium(site, directory, reported);
      return { page, server };
    } finally {
      await site.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

function check({ page, server }: Reports, aead: RegExp): void {
  const echoed = STREAMS * STREAM_BYTES + GREETING_BYTES;
  const stats = { bytesSent: echoed, bytesReceived: echoed, streams: 0, refusedStreams: 0 };
  const expected = { ...stats, pendingAccepts: 0, strayFrames: 0, peerCounts: true };
  const seen = ({ same, stats }: SessionReport) => ({
    same,
    ...Object.fromEntries(Object.entries(stats).filter(([name]) => name in expected)),
  });
  assertEquals(page.map(seen), SESSIONS.map(() => ({ same: STREAMS, ...expected })));
  assertEquals(server.map(seen), SESSIONS.map(() => ({ same: 1, ...expected })));
  for (const { stats } of page) assertMatch(stats.aead ?? "none", aead);
}

for (const [name, bundler] of Object.entries(BUNDLERS)) {
  test(`mux: in Chromium, bundled by ${name}`, {
    skip: skipReason(name),
    timeout: TEST_TIMEOUT_MS,
  }, async () => check(await runInBrowser(bundler), /^libsodium/));
}

test("mux: in Chromium without WebAssembly, which a page's policy may forbid", {
  skip: skipReason("bun"),
  timeout: TEST_TIMEOUT_MS,
}, async () => check(await runInBrowser(BUNDLERS["bun"]!, "script-src 'self'"), /^noble/));
