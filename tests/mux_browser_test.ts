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
import { type Mux, type MuxError, type MuxStream, server } from "@trunkline/sockets/mux";
import { findProgram } from "../examples/openvpn_process.ts";
import { output } from "../tools/command.ts";
import {
  content,
  GREETING_BYTES,
  GREETING_SEED,
  isSame,
  optionsOf,
  type PageReport,
  RESET_CODES,
  type SessionPlan,
  type SessionReport,
  SESSIONS,
  type Side,
  STRANGERS,
  STREAM_BYTES,
  STREAMS,
} from "./mux_browser_plan.ts";
import { type Site, startSite } from "./mux_browser_site.ts";
import { codeOf, readAll } from "./mux_pair.ts";

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

/** Resets a stream of the page, which then resets one itself. */
async function tryV2(mux: Mux): Promise<SessionReport["v2"]> {
  const ours = await mux.acceptStream();
  await ours.read();
  ours.reset(RESET_CODES.server);
  const theirs = await mux.acceptStream();
  const error = await theirs.read().then(() => undefined, (error: MuxError) => error);
  const rtt = await mux.ping();
  return { rtt, resetCode: error?.resetCode, peerKey: mux.peerKey?.join() };
}

/** The server's side of one session. */
async function runSession(duplex: Duplex, plan: SessionPlan): Promise<SessionReport> {
  const mux = server(duplex, await optionsOf(plan, "server"));
  const greeting = await mux.openStream();
  const sent = content(GREETING_BYTES, GREETING_SEED);
  const echoes = Promise.all(Array.from({ length: STREAMS }, async () => {
    assertEquals(await echo(await mux.acceptStream()), STREAM_BYTES);
  }));
  const [back, v2] = await Promise.all([
    readAll(greeting),
    echoes.then(() => plan.suite && tryV2(mux)),
    greeting.write(sent).then(() => greeting.closeWrite()),
  ]);
  if (plan.closer === "server") await mux.close();
  else await mux.closed;
  return { same: isSame(back, sent) ? 1 : 0, stats: mux.stats(), v2 };
}

interface Reports {
  readonly page: readonly SessionReport[];
  readonly server: readonly SessionReport[];
  /** What either side has seen of each session with another psk. */
  readonly strangers: Readonly<Record<Side, readonly string[]>>;
}

/** Bundles the page, opens it in Chromium, and gives what both sides have seen of each session. */
async function runInBrowser(bundle: Bundler, policy?: string): Promise<Reports> {
  const directory = mkdtempSync(join(tmpdir(), "trunkline-browser-"));
  try {
    const script = join(directory, "page.js");
    await output(bundle(PAGE, script), { cwd: ROOT });
    const page = Promise.withResolvers<Exclude<PageReport, { readonly error: string }>>();
    const servers = SESSIONS.map(() => Promise.withResolvers<SessionReport>());
    const strangers = STRANGERS.map(() => Promise.withResolvers<string>());
    const reported = Promise.all([
      page.promise,
      Promise.all(servers.map(({ promise }) => promise)),
      Promise.all(strangers.map(({ promise }) => promise)),
    ]);
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
        } else page.resolve(report);
      },
      async onWebSocket(path, duplex) {
        const [, kind, index = ""] = path.split("/");
        const at = Number(index);
        if (kind === "mux") servers[at]?.resolve(await runSession(duplex, SESSIONS[at]!));
        else {
          const mux = server(duplex, await optionsOf(STRANGERS[at]!, "server"));
          strangers[at]?.resolve(await codeOf(mux.closed));
        }
      },
    });
    try {
      const [page, server, strangers] = await withChromium(site, directory, reported);
      const seen = { page: page.strangers, server: strangers };
      return { page: page.sessions, server, strangers: seen };
    } finally {
      await site.close();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** What one side is to have seen of a session. */
async function expectedOf(plan: SessionPlan, side: Side): Promise<unknown> {
  const { suite } = plan;
  const echoed = STREAMS * STREAM_BYTES + GREETING_BYTES;
  // The page has also written a byte to the stream that was reset.
  const more = suite === undefined ? 0 : 1;
  const { knownPeers } = await optionsOf(plan, side);
  return {
    same: side === "page" ? STREAMS : 1,
    resetCode: suite && RESET_CODES[side === "page" ? "server" : "page"],
    peerKey: (knownPeers as readonly Uint8Array[] | undefined)?.[0]?.join(),
    protocol: suite === undefined ? "v1" : "v2",
    suite,
    bytesSent: echoed + (side === "page" ? more : 0),
    bytesReceived: echoed + (side === "page" ? 0 : more),
    streams: 0,
    refusedStreams: 0,
    pendingAccepts: 0,
    strayFrames: 0,
    peerCounts: true,
  };
}

/** The same of what it has seen. */
function seenOf({ same, stats, v2 }: SessionReport): unknown {
  const { protocol, suite, bytesSent, bytesReceived, streams, refusedStreams } = stats;
  const { pendingAccepts, strayFrames, peerCounts } = stats;
  return {
    ...{ same, resetCode: v2?.resetCode, peerKey: v2?.peerKey },
    ...{ protocol, suite, bytesSent, bytesReceived, streams, refusedStreams },
    ...{ pendingAccepts, strayFrames, peerCounts },
  };
}

/** `chacha` does the short frames of that cipher in the page; AES is WebCrypto's. */
async function check({ page, server, strangers }: Reports, chacha: RegExp): Promise<void> {
  for (const [i, plan] of SESSIONS.entries()) {
    assertEquals(seenOf(page[i]!), await expectedOf(plan, "page"));
    assertEquals(seenOf(server[i]!), await expectedOf(plan, "server"));
    const aead = plan.suite === "AESGCM_SHA256" ? /^webcrypto/ : chacha;
    assertMatch(page[i]!.stats.aead ?? "none", aead);
    for (const { v2 } of [page[i]!, server[i]!]) {
      assertEquals(typeof v2?.rtt, plan.suite === undefined ? "undefined" : "number");
    }
  }
  const refused = STRANGERS.map(() => "auth-failed");
  assertEquals(strangers, { page: refused, server: refused });
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
