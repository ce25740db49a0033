/** The suites of one adapter, over every kind of socket that it has on this runtime. */
import { assertEquals } from "@std/assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import type { Transport } from "../adapters/types.ts";
import {
  type Capabilities,
  type Kind,
  listenerSuite,
  rejectsWith,
  streamSuite,
} from "./adapter_suite.ts";
import { pem } from "./adapter_fixtures.ts";
import { datagramSuite } from "./adapter_datagram_suite.ts";
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

/** What an adapter can do on a runtime; the README's table says the same (readme_test.ts). */
export function capabilities(adapter: AdapterName, runtime: RuntimeName): Capabilities | undefined {
  if (adapter === "auto") return capabilities(runtime, runtime);
  if (adapter !== "node" && adapter !== runtime) return undefined;
  const native = adapter === "deno";
  return {
    reset: !native,
    countsDropped: !native,
    credentials: runtime !== "node" || Number(process.versions.node.split(".")[0]) >= 26,
    reusePort: true,
    reusePortUdp: runtime !== "deno",
    keepAliveTime: !native,
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
  const kinds: Kind[] = [
    { name: "tcp", address: () => "127.0.0.1:0" },
    { name: "tcp6", address: () => "[::1]:0" },
    { name: "unix", address: newPath },
    { name: "abstract", address: () => `unix:@trunkline-${process.pid}-${name}-${++paths}` },
    { name: "tls", address: () => "127.0.0.1:0", ...tls },
    { name: "tls over unix", address: newPath, ...tls },
  ];
  for (const kind of kinds) {
    streamSuite(name, transport, kind, can);
    listenerSuite(name, transport, kind, can);
  }
  netSuite(name, transport, can);
  unixSuite(name, transport, newPath, can);
  tlsSuite(name, transport);
  datagramSuite(name, transport);
}
