/** The suites of one adapter, over every kind of socket that it has on this runtime. */
import { assertEquals } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import type { Transport } from "../adapters/types.ts";
import { type Capabilities, type Kind, rejectsWith, streamSuite } from "./adapter_suite.ts";
import { pem } from "./adapter_fixtures.ts";
import { datagramSuite } from "./adapter_datagram_suite.ts";
import { listenerSuite } from "./adapter_listener_suite.ts";
import { netSuite } from "./adapter_net_suite.ts";
import { tlsSuite } from "./adapter_tls_suite.ts";
import { unixSuite } from "./adapter_unix_suite.ts";

export type AdapterName = "deno" | "bun" | "node" | "auto";
export type RuntimeName = "deno" | "bun" | "node";

/** Which runtime this is. */
export const RUNTIME: RuntimeName = "Deno" in globalThis
  ? "deno"
  : "Bun" in globalThis
  ? "bun"
  : "node";

const NODE_VERSION = Number(process.versions.node.split(".")[0]);

/**
 * What an adapter can do on a runtime, or undefined if it is not for that one; the README's table says the same
 * (readme_test.ts). `nodeVersion` matters to Node only.
 */
export function capabilities(
  adapter: AdapterName,
  runtime: RuntimeName,
  nodeVersion: number = NODE_VERSION,
): Capabilities | undefined {
  if (adapter === "auto") return capabilities(runtime, runtime, nodeVersion);
  if (adapter !== "node" && adapter !== runtime) return undefined;
  const native = adapter === "deno";
  return {
    tcp: true,
    unix: true,
    abstract: true,
    tls: true,
    udp: true,
    reset: !native,
    countsDropped: !native,
    credentials: runtime !== "node" || nodeVersion >= 26,
    reusePort: true,
    reusePortUdp: runtime !== "deno",
    keepAliveTime: !native,
    backlog: runtime !== "bun",
  };
}

export function adapterTests(name: AdapterName, transport: Transport): void {
  const can = capabilities(name, RUNTIME);
  if (can === undefined) {
    test(`${name} adapter elsewhere: every call is unsupported`, async () => {
      await rejectsWith(transport.connect("127.0.0.1:1"), "unsupported");
      await rejectsWith(transport.listen("127.0.0.1:0"), "unsupported");
      assertEquals(RUNTIME === "node" || name !== "node", true);
    });
    return;
  }
  const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
  after(() => rmSync(directory, { recursive: true, force: true }));
  let paths = 0;
  const newPath = () => join(directory, `${++paths}.socket`);
  const tls: Omit<Kind, "name" | "address"> = {
    listen: { tls: { cert: pem("server.crt"), key: pem("server.key") } },
    connect: { tls: { ca: pem("ca.crt"), serverName: "localhost" } },
  };
  const abstract = () => `unix:@trunkline-${process.pid}-${name}-${++paths}`;
  const kinds: (Kind & { readonly needs: readonly (keyof Capabilities)[] })[] = [
    { name: "tcp", needs: ["tcp"], address: () => "127.0.0.1:0" },
    { name: "tcp6", needs: ["tcp"], address: () => "[::1]:0" },
    { name: "unix", needs: ["unix"], address: newPath },
    { name: "abstract", needs: ["abstract"], address: abstract },
    { name: "tls", needs: ["tcp", "tls"], address: () => "127.0.0.1:0", ...tls },
    { name: "tls over unix", needs: ["unix", "tls"], address: newPath, ...tls },
  ];
  for (const kind of kinds) {
    if (!kind.needs.every((flag) => can[flag])) continue;
    streamSuite(name, transport, kind, can);
    listenerSuite(name, transport, kind, can);
  }
  if (can.tcp) netSuite(name, transport, can);
  if (can.unix) unixSuite(name, transport, newPath, can);
  if (can.tcp && can.tls) tlsSuite(name, transport);
  if (can.udp) datagramSuite(name, transport);
}
