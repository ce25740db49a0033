/** The bytes in docs/spec-uds.md are those of a real connection. */
import { assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import { RemoteError, Server } from "@trunkline/sockets/uds";

/** `0a "Echo"`: hexadecimal bytes, texts in quotes or braces, and a remark behind two blanks. */
function bytesOf(line: string): number[] {
  const [code = ""] = line.slice(2).split(/ {2,}/);
  const parts = code.match(/"[^"]*"(?![:,}])|\{.*\}|[0-9a-f]{2}/g) ?? [];
  return parts.flatMap((part) => {
    if (/^[0-9a-f]{2}$/.test(part)) return [parseInt(part, 16)];
    return [...new TextEncoder().encode(part.startsWith('"') ? part.slice(1, -1) : part)];
  });
}

test("a server answers the bytes of docs/spec-uds.md as it says", async () => {
  const doc = readFileSync(new URL("../docs/spec-uds.md", import.meta.url), "utf8");
  const block = /```text\n(C 0a [^`]*)```/.exec(doc)![1]!;
  const lines = block.split("\n").filter((line) => /^[CS] /.test(line));
  const server = new Server(undefined);
  server.register("Echo", (request) => request.data);
  server.register("Deny", () => {
    throw new RemoteError("denied", "not you", { details: new Uint8Array([1]) });
  });
  server.registerStream("Sum", async ({ readable, writable }) => {
    let sum = 0;
    for await (const message of readable) for (const byte of message) sum += byte;
    await writable.getWriter().write(new Uint8Array([sum]));
  });
  const [client, served] = connPair();
  server.serveConn(served);
  const had: number[] = [];
  let checked = 0;
  for (const line of lines) {
    const bytes = bytesOf(line);
    if (line.startsWith("C ")) await client.write(Uint8Array.from(bytes));
    else {
      if (line.includes("GO_AWAY")) server.close();
      while (had.length < bytes.length) had.push(...(await client.read())!);
      assertEquals([line, ...had.splice(0, bytes.length)], [line, ...bytes]);
      checked++;
    }
  }
  assertEquals([checked, had], [8, []]);
  client.abort();
  await server.close();
});
